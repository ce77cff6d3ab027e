"""tinynet: backpropagation on one number at a time, and the very same layers on real batches.

>>> from tinynet import Value
>>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(a.grad, 4)
-0.004

Public names are loaded on first use: importing tinynet imports neither NumPy nor Numba.
"""

import importlib

__version__ = "0.1.0"

HOMES = {
    "graph": "no_grad textbook grad detect_anomaly",
    "value": "Value",
    "tensors": "Tensor tensor zeros ones full empty arange linspace rand randn randint randperm zeros_like ones_like "
               "full_like empty_like rand_like randn_like manual_seed Generator cat stack where maximum minimum "
               "from_numpy float32 float64 int64",
    "functional": "logsumexp",
    "kernels": "set_num_threads get_num_threads",
    "plan": "capture",
    "program": "compile",
    "words": "explain",
    "pictures": "draw",
    "pages": "walkthrough",
    "films": "film Recorder",
    "checkpoints": "save load",
    "train": "fit summary",
    "checks": "gradcheck",
}
HOME = {name: module for module, names in HOMES.items() for name in names.split()}
MODULES = ("nn", "optim", "data", "datasets", "functional", "kernels", "utils", *HOMES)

__all__ = [*HOME, "nn", "optim", "data", "datasets", "functional", "utils"]


def __getattr__(name):
    if name in HOME:
        value = getattr(importlib.import_module(f".{HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    if name in MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'tinynet' has no attribute {name!r}")


def __dir__():
    return sorted({*__all__, *MODULES, "__version__"})
