"""tinynet: backpropagation one scalar at a time, and the same layers on batches of real data.

>>> from tinynet import Value
>>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(a.grad, 4)
-0.004

Public names are loaded on first use: importing tinynet imports neither NumPy nor Numba.
"""

import builtins
import importlib

__version__ = "0.2.0"

HOMES = {
    "graph": "no_grad textbook grad detect_anomaly",
    "value": "Value",
    "tensors": "Tensor tensor zeros ones full empty arange linspace rand randn randint randperm zeros_like ones_like "
               "full_like empty_like rand_like randn_like manual_seed Generator cat stack where maximum minimum "
               "from_numpy float32 float64 int64 eye device",
    "functional": "logsumexp softmax log_softmax relu sigmoid tanh",
    "torch_names": "exp log sqrt sin cos abs add sub mul div pow matmul mm bmm dot sum mean max min var std norm "
                   "argmax argmin any all reshape flatten squeeze unsqueeze transpose permute clamp round tril triu "
                   "gather topk sort split chunk is_tensor numel allclose equal multinomial float double long int "
                   "int32 bool FloatTensor LongTensor inference_mode cuda accelerator inf nan pi",
    "kernels": "set_num_threads get_num_threads",
    "train": "capture save load fit summary",
    "program": "compile",
    "viz": "explain draw walkthrough film Recorder",
    "gradient_checks": "gradcheck",
}
HOME = {name: module for module, names in HOMES.items() for name in names.split()}

PARTS = ("nn", "optim", "data", "datasets", "functional", "utils")
MODULES = (*PARTS, *HOMES)

PYTHONS = {name for name in HOME if hasattr(builtins, name)} - {"compile"}  # sum, max, …: only as tinynet.sum

__all__ = [*(name for name in HOME if name not in PYTHONS), *PARTS]


def __getattr__(name):
    if name in HOME:
        value = getattr(importlib.import_module(f".{HOME[name]}", __name__), name)
        if name not in PYTHONS:
            globals()[name] = value
        return value
    if name in MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'tinynet' has no attribute {name!r}")


def __dir__():
    return sorted({*HOME, *__all__, *MODULES, "__version__"})
