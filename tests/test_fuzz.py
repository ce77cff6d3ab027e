"""Malformed calls at everything public: each is answered, or refused in a sentence that names what was wrong.

`python -m tests.test_fuzz 50000` makes so many calls and lists what they found. Each call takes a public name and gives
each of its parameters either something sensible or junk: wrong shapes and dtypes, nan, None, text, huge, negative and
empty things, ragged lists, arrays of objects, the numbers of the other engine. Allowed are

    an answer         which holds no nan where the numbers that went in were finite and within ±10⁴: losses,
                      normalisation, softmax and its kin, attention, optimisers, data preparation. (Elsewhere IEEE
                      arithmetic says what comes out: log(-1) of a tensor is nan, 1/0 is inf.)
    a refusal         TypeError, ValueError, IndexError or OSError with a sentence that names the function (or its
                      class, or operation) or one of its arguments

and never another exception, a crash of the process, ten seconds of computing, more than 4 GB of memory, or a thread
that is left in another mode than before.
"""

import copy
import inspect
import itertools
import operator
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

import tinynet
from tinynet import Tensor, Value, data, datasets, graph, nn, optim, train

CALLS = int(os.environ.get("FUZZ_CALLS", 6000))
CHUNK = 10000  # calls in one process
SECONDS = 10
ROOT = Path(__file__).parents[1]


# ---------------------------------------------------------------------------------------------------- what is thrown
# Everything is made anew for each call: calls may write into what they are given.

def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def grad_tensor(*shape):
    return tinynet.tensor(normal(*shape), requires_grad=True)


def values(*shape):
    array = np.empty(shape, object)
    for place in np.ndindex(*shape):
        array[place] = Value(0.5)
    return array


def with_gradient(*shape):
    x = grad_tensor(*shape)
    (x * x).sum().backward()
    return x


def loader():
    return data.DataLoader(data.TensorDataset(normal(6, 3), np.arange(6) % 2), batch_size=2)


def seeded_loader():
    return data.DataLoader(data.TensorDataset(normal(6, 3)), batch_size=2, shuffle=True, seed=0)


def rows_of(*dtype):
    """Samples that a DataLoader is to make batches of: a dataset of the user's."""
    class Rows(data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return [normal(3).astype(kind) for kind in dtype]

    return Rows()


def recorder():
    return tinynet.Recorder(nn.Linear(2, 1), normal(4, 2), np.arange(4) % 2)


def filmed():
    record = recorder()
    record(0.5)
    return tinynet.film(record)


def history():
    run = train.History()
    run.add({"loss": 0.5, "val_loss": 0.25, "accuracy": 0.75, "lr": 0.1, "seconds": 1.0})
    return run


def stepped(kind, **settings):
    """An optimiser that remembers something."""
    optimizer = kind([with_gradient(2, 3)], lr=0.1, **settings)
    optimizer.step()
    return optimizer


JUNK = [
    lambda: None, lambda: True, lambda: "", lambda: "abc", lambda: "x" * 5000, lambda: "\u202e\0", lambda: b"abc",
    lambda: float("nan"), lambda: float("inf"), lambda: -float("inf"), lambda: 1e308, lambda: 2.5, lambda: -1,
    lambda: 0, lambda: 1, lambda: 2, lambda: 7, lambda: -(2**63), lambda: 2**31, lambda: 2**63, lambda: 10**30,
    lambda: 10**400, lambda: 1 + 2j, lambda: [], lambda: [[]], lambda: (), lambda: [1, [2]],
    lambda: [[1.0, 2.0], [3.0]],
    lambda: [None], lambda: ["a", "b"], lambda: [float("nan"), 1.0], lambda: {}, lambda: {"a": [1, 2]},
    lambda: {"a": 1},
    lambda: set(), lambda: object(), lambda: int, lambda: np.float32, lambda: "float16", lambda: slice(None),
    lambda: Ellipsis, lambda: range(3), lambda: lambda *a: None, lambda: iter([1, 2]), lambda: np.int64(3),
    lambda: np.float64(1.5), lambda: np.array([]), lambda: np.zeros((0, 3)), lambda: np.zeros((2, 0), np.float32),
    lambda: np.zeros((1,) * 40), lambda: np.array([None, 1], object), lambda: np.array(["a", "b"]),
    lambda: np.array([1 + 2j]), lambda: np.array([np.nan, np.inf]), lambda: np.array(["2020-01-01"], "M8[D]"),
    lambda: np.zeros((2, 3), np.float16), lambda: np.arange(6, dtype=np.uint8).reshape(2, 3),
    lambda: np.broadcast_to(np.float32(1), (40000, 40000)), lambda: np.zeros(3, [("a", "f4")]), lambda: normal(2, 3, 4),
    lambda: normal(3), lambda: Value(1.0), lambda: Value(float("nan")), lambda: [Value(1.0), 2.0], lambda: values(2, 3),
    lambda: values(0), lambda: tinynet.tensor(1.5), lambda: tinynet.tensor([float("nan"), 1.0]),
    lambda: tinynet.zeros(0),
    lambda: tinynet.zeros(2, 0), lambda: grad_tensor(2, 3), lambda: grad_tensor(2, 3) * 2.0, lambda: grad_tensor(3),
    lambda: tinynet.tensor(normal(2, 3, dtype=np.float64)), lambda: tinynet.arange(6).reshape(2, 3),
    lambda: tinynet.tensor([True, False]), lambda: grad_tensor(1, 2, 5, 5), lambda: nn.Linear(3, 2),
    lambda: nn.Linear(3, 2).to("scalar"), lambda: nn.MSELoss(), lambda: optim.SGD([grad_tensor(2)]), loader, lambda: np,
]
ARRAYS = [lambda: grad_tensor(2, 3), lambda: tinynet.tensor(normal(2, 3)), lambda: normal(2, 3), lambda: values(2, 3),
          lambda: [[1.0, -2.0, 0.5], [0.0, 3.0, 1e4]], lambda: grad_tensor(3), lambda: grad_tensor(2, 3, 4),
          lambda: tinynet.tensor(normal(4, 3, dtype=np.float64)), lambda: grad_tensor(2, 3, 5, 5),
          lambda: grad_tensor()]
INDICES = [lambda: [0, 1], lambda: np.array([1, 0]), lambda: tinynet.tensor([0, 2]), lambda: np.array([[0, 1], [1, 0]]),
           lambda: 1, lambda: [5, 1], lambda: [-1, 0]]
WHOLE = [lambda: 1, lambda: 2, lambda: 3, lambda: 4, lambda: 0]
SHAPES = [lambda: (2, 3), lambda: (3,), lambda: (), lambda: 3, lambda: (-1, 2), lambda: (2, 2**40)]
FRACTIONS = [lambda: 0.5, lambda: 0.1, lambda: 0, lambda: 1, lambda: 0.9]
FLAGS = [lambda: True, lambda: False]
TABLES = [lambda: {"a": [1.0, 2.0, 3.0, 4.0], "b": ["x", "y", "x", "y"], "y": [0, 1, 1, 0]},
          lambda: {"a": [1.0, None, 3.0], "y": [1.0, 2.0, 3.0]}, lambda: {"a": [1.0], "y": [1.0, 2.0]},
          lambda: {"y": []}]
SENSIBLE = {  # by the name of the parameter; "" is for all others
    "": ARRAYS, "indices": INDICES, "target": [*INDICES, *ARRAYS], "labels": INDICES, "tokens": INDICES, "key": INDICES,
    "axis": WHOLE, "dim": WHOLE, "start_dim": WHOLE, "end_dim": WHOLE, "shape": SHAPES, "size": SHAPES,
    "dtype": [lambda: np.float32, lambda: "float64", lambda: np.int64], "reduction": [lambda: "sum", lambda: "none"],
    "params": [lambda: [grad_tensor(2, 3)], lambda: [Value(1.0)], lambda: [{"params": [grad_tensor(2)], "lr": 0.1}]],
    "model": [lambda: nn.Linear(3, 2), lambda: nn.MLP(3, [4, 2]), lambda: nn.Linear(3, 1).to("scalar")],
    "module": [lambda: nn.Linear(3, 2)], "modules": [lambda: nn.Linear(3, 2), lambda: [nn.ReLU()]],
    "optimizer": [lambda: optim.SGD([grad_tensor(2)]), lambda: optim.Adam(nn.Linear(2, 1).parameters())],
    "loader": [loader, lambda: [(normal(2, 3), np.array([0, 1]))]], "validation": [loader], "dataset": [
        lambda: data.TensorDataset(normal(4, 3), np.arange(4)), lambda: [(1.0, 2)] * 3, lambda: rows_of("f4", "i8"),
        lambda: rows_of("U3"), lambda: rows_of("O"), lambda: data.next_tokens(np.arange(5), 2)],
    "parameters": [lambda: [with_gradient(2, 3), with_gradient(3)], lambda: [Value(1.0)], lambda: with_gradient(2)],
    "history": [recorder, history], "other": [*ARRAYS, lambda: 2, lambda: 0.5], "title": [lambda: "<b>run</b>"],
    "kind": [lambda kind=kind: kind for kind in (
        "float32 float64 float16 int64 int8 uint8 bool complex64 U3 M8[D] object values list float32-tensor "
        "float64-tensor int64-tensor bool-tensor").split()],
    "loss": [lambda: nn.CrossEntropyLoss(), lambda: Value(2.0) * 3.0, lambda: nn.MSELoss()], "table": TABLES,
    "target_column": [lambda: "y", lambda: "b"], "path": [
        lambda: "file.npz", lambda: "absent", lambda: ".", lambda: "x.svg", lambda: "x.html", lambda: "no/x.html"],
    "text": [lambda: "hello", lambda: "one-hot", lambda: "drop"], "missing": [lambda: "mean", lambda: "drop"],
    "task": [lambda: "regression", lambda: "classification"], "reduction ": [], "requires_grad": FLAGS,
    "activation": [lambda: "relu", lambda: None, lambda: "gelu"], "function": [lambda: lambda x: x], "fn": [
        lambda: lambda x: (x * x).sum()], "step": [lambda: lambda x: x * 2.0, lambda: 1], "loss ": [],
    "betas": [lambda: (0.9, 0.99)], "layer_sizes": [lambda: [3, 1]], "seed": WHOLE, "generator": [lambda: None],
    "input_shape": [lambda: (2, 3)], "engine": [lambda: "scalar", lambda: "tensor", lambda: np.float64],
    "equation": [lambda: "ij,jk->ik"], "mirrors": [lambda: []], "download": [lambda: False], "name": [lambda: "x"],
    "approximate": [lambda: "tanh"], "mode": [lambda: "min"], "monitor": [lambda: "loss"], "label": [lambda: "x"],
    "attn_mask": [lambda: np.ones((3, 3), bool), lambda: None], "normalized_shape": [lambda: 3, lambda: (3,)],
    "callbacks": [lambda: ()], "metrics": [lambda: train.accuracy], "scheduler": [lambda: None],
    "inputs": [*ARRAYS, lambda: [Value(1.0)]], "condition": [lambda: tinynet.tensor([[True], [False]])],
}
SENSIBLE |= {f"kind_{i}": SENSIBLE["kind"] for i in range(5)}
for names, pool in (("max_norm clip_value norm_type "
                     "p dropout momentum lr eps weight_decay test_size gamma factor noise alpha dampening temperature "
                     "min_delta eta_min layer_norm_eps", FRACTIONS),
                    ("bias training batch_first shuffle drop_last nesterov centered causal is_causal keepdims keepdim "
                     "progress capture need_weights norm_first create_graph bidirectional affine "
                     "track_running_stats count_include_pad ceil_mode strict persistent error_if_nonfinite", FLAGS),
                    ("in_features out_features embed_dim num_heads n classes context batch_size epochs step_size "
                     "T_max patience num_classes vocab layers heads width in_channels out_channels kernel_size stride "
                     "padding hidden_size input_size num_layers d_model nhead max_len num_features max_new_tokens "
                     "top_k turns num_embeddings embedding_dim groups dilation steps depth", WHOLE)):
    SENSIBLE |= {name: pool for name in names.split()}
LOOPS = {"epochs", "max_new_tokens", "layers", "num_layers", "frames"}  # a huge number of these is asked to take long


def bounded(make):
    """Junk for a count of loops: nothing huge."""
    thing = make()
    return 2 if isinstance(thing, (int, np.integer)) and thing > 10 else thing


# ------------------------------------------------------------------------------------------------- at what it is thrown

class Target:
    """A public name: how it is called, what its parameters are, and by which names a refusal may call it."""

    def __init__(self, title, call, parameters, names, finite=False, make=None):
        self.title, self.call, self.parameters, self.finite, self.make = title, call, parameters, finite, make
        self.names = {plain(n) for n in names if n} | {plain(p.name) for p in parameters if len(p.name) > 1}


def plain(word):
    """MSELoss and mse_loss are one name."""
    return word.lower().replace("_", "")


def parameters_of(function, skip=0):
    try:
        return [p for p in inspect.signature(function).parameters.values()][skip:]
    except (TypeError, ValueError):
        return []


FINITE = re.compile("softmax|logsumexp|loss|entropy|norm|attention|Attention|optim|StandardScaler|DataFrame|one_hot"
                    "|sigmoid|tanh|relu|ReLU|gelu|GELU|GPT|Transformer|Linear|MLP|RNN|GRU|LSTM|Perceptron|Conv|pool|Pool")
SYMBOLS = {"add": "+", "radd": "+", "sub": "-", "rsub": "-", "mul": "*", "rmul": "*", "truediv": "/", "rtruediv": "/",
           "pow": "**", "rpow": "**", "matmul": "@", "rmatmul": "@", "getitem": "index", "setitem": "index",
           "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
           "maximum": "max", "minimum": "min", "iadd": "+=", "isub": "-=", "imul": "*=", "itruediv": "/=", "and": "&",
           "or": "|", "xor": "^", "invert": "^", "mod": "%", "floordiv": "//", "div": "/"}
SPECIAL = ("add radd sub rsub mul rmul truediv rtruediv pow rpow matmul rmatmul getitem setitem lt le gt ge eq ne neg "
           "abs len float int bool index iter iadd isub imul itruediv and or xor invert mod floordiv").split()


def methods(title, kind, makers, hidden=()):
    """A target for each public method of the objects that the makers make."""
    for name in dir(kind):
        special = name.startswith("__") and name.strip("_") in SPECIAL and any(
            name in vars(base) for base in kind.__mro__ if base.__module__.startswith("tinynet"))
        function = inspect.getattr_static(kind, name, None)
        if (name.startswith("_") and not special) or name in (*hidden, "accept", "gradients"):
            continue
        if isinstance(function, property):
            if function.fset is not None:
                parameter = inspect.Parameter("array", inspect.Parameter.POSITIONAL_ONLY)
                for i, make in enumerate(makers):
                    yield Target(f"{title}{i}.{name} =", lambda x, make=make, name=name: setattr(make(), name, x),
                                 [parameter], (name, title))
            continue
        if not callable(getattr(kind, name)):
            continue
        plain = name.strip("_")
        for i, make in enumerate(makers):
            yield Target(f"{title}{i}.{name}", lambda *a, make=make, name=name, **k: getattr(make(), name)(*a, **k),
                         parameters_of(getattr(kind, name), 1), (name, plain, kind.__name__, SYMBOLS.get(plain)),
                         finite=bool(FINITE.search(name)), make=make)


def functions(module, title, names=None):
    """A target for each public function and class of a module; objects that can be called are called as well."""
    for name in names or [n for n in dir(module) if not n.startswith("_")]:
        thing = getattr(module, name, None)
        home = getattr(thing, "__module__", "") or ""
        if not callable(thing) or not home.startswith("tinynet") or (names is None and home != module.__name__):
            continue
        yield Target(f"{title}.{name}", thing, parameters_of(thing), (name,), bool(FINITE.search(name)))


def made(title, make, finite=True):
    """A layer or loss that was made rightly, called wrongly."""
    module = make()
    yield Target(title, lambda *a, **k: make()(*a, **k), parameters_of(module.forward),
                 {type(m).__name__ for m in module.modules()} | {"input", "embedding", "linear", "target"}, finite)


MODULES = {
    "Linear": lambda: nn.Linear(3, 2), "Linear scalar": lambda: nn.Linear(3, 2).to("scalar"),
    "Perceptron": lambda: nn.Perceptron(3, 2), "MLP": lambda: nn.MLP(3, [4, 2]), "ReLU": nn.ReLU, "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "Softplus": nn.Softplus, "Softmax": nn.Softmax, "Flatten": nn.Flatten,
    "Dropout": lambda: nn.Dropout(0.5), "LayerNorm": lambda: nn.LayerNorm(3), "Embedding": lambda: nn.Embedding(3, 2),
    "LayerNorm scalar": lambda: nn.LayerNorm(3).to("scalar"),
    "Embedding scalar": lambda: nn.Embedding(3, 2).to("scalar"), "MSELoss": nn.MSELoss,
    "CrossEntropyLoss": nn.CrossEntropyLoss, "BCEWithLogitsLoss": nn.BCEWithLogitsLoss,
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(4, 2, 4, batch_first=True),
    "PositionalEncoding": lambda: nn.PositionalEncoding(4), "GPT": lambda: nn.GPT(3, 1, 1, 2, 4),
    "Sequential": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
    "Conv2d": lambda: nn.Conv2d(3, 2, 3), "MaxPool2d": lambda: nn.MaxPool2d(2), "AvgPool2d": lambda: nn.AvgPool2d(2),
    "BCELoss": nn.BCELoss, "L1Loss": nn.L1Loss, "NLLLoss": nn.NLLLoss, "LogSoftmax": nn.LogSoftmax,
    "LeakyReLU": nn.LeakyReLU, "Identity": nn.Identity, "ModuleDict": lambda: nn.ModuleDict({"a": nn.ReLU()}),
    "BatchNorm1d": lambda: nn.BatchNorm1d(3), "BatchNorm2d": lambda: nn.BatchNorm2d(3), "RNN": lambda: nn.RNN(3, 2),
    "GRU": lambda: nn.GRU(3, 2), "LSTM": lambda: nn.LSTM(3, 2), "RNNCell": lambda: nn.RNNCell(3, 2),
    "GRUCell": lambda: nn.GRUCell(3, 2), "LSTMCell": lambda: nn.LSTMCell(3, 2),
}


def optimised(kind):
    """An optimiser's whole life: settings, a gradient, two steps, its state taken over."""
    def run(params, gradient, **settings):
        params = list(params) if isinstance(params, (list, tuple)) else params
        optimizer = kind(params, **settings)
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = gradient
        optimizer.step()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        return [p.data for group in optimizer.param_groups for p in group["params"]]

    gradient = inspect.Parameter("gradient", inspect.Parameter.KEYWORD_ONLY)
    return Target(f"optim.{kind.__name__} life", run, [*parameters_of(kind), gradient],
                  (kind.__name__, "grad", "Value", "run"), True)


def after(title, make, first, then, names=(), finite=False):
    """A method called wrongly, and the object used after it: what was let in must not fail later, or far from there."""
    def run(*args, **options):
        thing = make()
        getattr(thing, first)(*args, **options)
        return then(thing)

    return Target(f"{title}.{first}, then used", run, parameters_of(getattr(make(), first)), (first, *names), finite,
                  make)


def operators(title, make, names):
    """x += junk and junk += x, and the operators that only one kind of numbers has."""
    for name in "iadd isub imul itruediv ipow imatmul ifloordiv imod floordiv mod divmod lshift contains".split():
        call = getattr(operator, name, None) or divmod
        words = (name, name.lstrip("i"), *names, SYMBOLS.get(name.lstrip("i")), *SIGNS.get(name, ()))
        other = inspect.Parameter("other", inspect.Parameter.POSITIONAL_ONLY)
        yield Target(f"{title} {name}", lambda other, call=call: call(make(), other), [other], words)
        yield Target(f"… {name} {title}", lambda other, call=call: call(other, make()), [other], words)


SIGNS = {"iadd": ("+=", "concat"), "isub": ("-=", "subtract"), "imul": ("*=",), "itruediv": ("/=", "divide"),
         "ipow": ("**=", "**"), "imatmul": ("@=", "@"), "ifloordiv": ("//=", "//", "floor_divide"),
         "imod": ("%=", "%", "remainder"), "floordiv": ("//", "floor_divide"), "mod": ("%", "remainder"),
         "lshift": ("<<",), "contains": ("in", "container", "iterable", "equal")}
UFUNCS = [np.exp, np.log, np.tanh, np.add, np.subtract, np.divide, np.power, np.maximum, np.matmul, np.greater,
          np.arctan2, np.floor]


def as_kind(shape, kind):
    """Numbers of a shape, in the form that is asked for; what is no such form is junk, and given as it is."""
    if not isinstance(kind, str) or kind not in {make() for make in SENSIBLE["kind"]}:
        return kind
    name, _, tensor = kind.partition("-")
    if name in ("values", "list"):
        return values(*shape) if name == "values" else normal(*shape).tolist()
    numbers = np.abs(normal(*shape)) if name in ("M8[D]", "uint8") else normal(*shape)
    array = numbers.astype(np.int64).astype(name) if name == "M8[D]" else numbers.astype(name)
    return tinynet.tensor(array) if tensor else array


def typed(name, *shapes, **options):
    """A function called with arguments of the right shapes, whose dtypes are anything."""
    function = getattr(nn.functional, name)

    def run(*kinds):
        return function(*[as_kind(shape, kind) for shape, kind in zip(shapes, kinds)], **options)

    kinds = [inspect.Parameter(f"kind_{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(len(shapes))]
    return Target(f"functional.{name} of dtypes", run, kinds, (name, *[q.name for q in parameters_of(function)]),
                  bool(FINITE.search(name)))


TYPED = {"relu": [(2, 3)], "softmax": [(2, 3)], "gelu": [(2, 3)], "log_softmax": [(2, 3)], "sigmoid": [(2, 3)],
         "linear": [(2, 3), (4, 3), (4,)], "embedding": [(2, 3), (4, 3)], "dropout": [(2, 3)],
         "layer_norm": [(2, 3)], "mse_loss": [(2, 3), (2, 3)], "cross_entropy": [(2, 3), (2,)],
         "binary_cross_entropy_with_logits": [(2, 3), (2, 3)],
         "scaled_dot_product_attention": [(2, 3, 4), (2, 3, 4), (2, 3, 4), (3, 3)],
         "conv2d": [(2, 3, 5, 5), (2, 3, 3, 3), (2,)], "max_pool2d": [(2, 3, 5, 5)], "avg_pool2d": [(2, 3, 5, 5)],
         "batch_norm": [(2, 3), (3,), (3,), (3,), (3,)]}


def targets():
    skipped = {*tinynet.PARTS, *"float32 float64 int64 set_num_threads inference_mode inf nan pi".split()}
    yield from functions(tinynet, "tinynet", [n for n in tinynet.HOME if n not in skipped])
    yield from functions(nn, "nn", [n for n in nn.__all__ if n != "functional"])
    yield from functions(nn.functional, "functional", [
        n for n in dir(nn.functional) if n in FUNCTIONS or tinynet.HOME.get(n) == "functional"])
    yield from functions(nn.init, "init", [n for n in dir(nn.init) if n.endswith("_") and n[0] != "_"])
    yield from functions(optim, "optim", "SGD Adam AdamW RMSprop StepLR CosineAnnealingLR".split())
    yield from functions(data, "data", DATA)
    yield from functions(datasets, "datasets", "xor moons circles spiral mnist read_idx text".split())
    yield from functions(train, "train", ["fit", "accuracy", "EarlyStopping", "summary"])
    yield from methods("Tensor", Tensor, [lambda: grad_tensor(2, 3), lambda: tinynet.arange(6).reshape(2, 3),
                                          lambda: grad_tensor(2, 3) * 2.0, lambda: tinynet.tensor(1.5)])
    yield from methods("Value", Value, [lambda: Value(0.5), lambda: Value(2.0, "b") * 3.0])
    yield from methods("Module", nn.Linear, [lambda: nn.Linear(3, 2), lambda: nn.Linear(3, 2).to("scalar")],
                       ("forward", "slots", "convert"))
    yield from methods("GPT", nn.GPT, [lambda: nn.GPT(3, 1, 1, 2, 4)], (*dir(nn.Module), "step"))
    yield from methods("ModuleDict", nn.ModuleDict, [MODULES["ModuleDict"]],
                       (*dir(nn.Module), "__getitem__"))
    yield from methods("Numbers", type(tinynet.ones(1).data), [lambda: grad_tensor(2, 3).data], dir(np.ndarray))
    yield from methods("Sequential", nn.Sequential, [MODULES["Sequential"]], dir(nn.Module))
    for kind in (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop):
        yield optimised(kind)
        yield from methods(f"optim.{kind.__name__}", kind, [lambda kind=kind: kind([grad_tensor(2, 3)])],
                           ("rule", "terms"))
    yield from methods("optim.StepLR", optim.StepLR, [lambda: optim.StepLR(optim.SGD([grad_tensor(2)], lr=0.1), 2)],
                       ("rate", "advance", "set_rates"))
    yield from methods("data.StandardScaler", data.StandardScaler, [
        data.StandardScaler, lambda: data.StandardScaler().fit(normal(4, 3))], ("applied", "rows"))
    yield from methods("data.CharTokenizer", data.CharTokenizer, [lambda: data.CharTokenizer("hello")])
    yield from methods("data.DataLoader", data.DataLoader, [loader])
    yield from methods("data.TensorDataset", data.TensorDataset, [
        lambda: data.TensorDataset(normal(4, 3), np.arange(4))], ("batch",))
    program = lambda: tinynet.compile((u := Value(1.0)) * 2.0, inputs=[u])
    yield from methods("Program", type(program()), [program], ("flatten", "run", "plan", "checked", "draw"))
    yield Target("Program()", lambda *a, **k: program()(*a, **k), parameters_of(program()), ("program",))
    for title, make in MODULES.items():
        if hasattr(nn, title.split()[0]):
            yield from made(title, make)
    yield from functions(nn.utils, "nn.utils", ["clip_grad_norm_", "clip_grad_value_"])
    for name, shapes in TYPED.items():
        options = {"layer_norm": {"normalized_shape": 3}, "max_pool2d": {"kernel_size": 2},
                   "avg_pool2d": {"kernel_size": 2}, "batch_norm": {"training": True}}
        yield typed(name, *shapes, **options.get(name, {}))
    yield from operators("Tensor", lambda: tinynet.tensor(normal(2, 3)), ("Tensor", "ufunc", "multiply", "power"))
    yield from operators("Tensor of int64", lambda: tinynet.arange(3), ("Tensor", "ufunc", "multiply", "power"))
    yield from operators("Value", lambda: Value(0.5), ("Value",))
    for f in UFUNCS:
        other = [inspect.Parameter("other", inspect.Parameter.POSITIONAL_ONLY)] * (f.nin - 1)
        yield Target(f"np.{f.__name__}", lambda *others, f=f: f(grad_tensor(2, 3), *others), other, (
                     f.__name__, "ufunc", "Tensor", *SYMBOLS, *filter(None, SYMBOLS.values())))
    # what has a state, or lets things in that are used later
    x = normal(2, 3)
    for title, make, use in (
            ("Linear", lambda: nn.Linear(3, 2), lambda m: (m(x), m.state_dict(), m.parameters(), repr(m))),
            ("Linear scalar", lambda: nn.Linear(3, 2).to("scalar"), lambda m: (m(x), m.state_dict(), repr(m))),
            ("BatchNorm2d", lambda: nn.BatchNorm2d(3), lambda m: (m(normal(2, 3, 2, 2)), m.state_dict(), repr(m))),
            ("Dropout", lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), lambda m: (m(x), m.state_dict()))):
        for name in "to load_state_dict register_buffer requires_grad_ train".split():
            yield after(title, make, name, use, (title.split()[0], "name", "array"))
    for kind in (optim.SGD, optim.Adam, optim.RMSprop):
        make = lambda kind=kind: stepped(kind, momentum=0.5) if kind is not optim.Adam else stepped(kind)
        yield after(f"optim.{kind.__name__}", make, "load_state_dict", lambda o: (
            o.step(), o.zero_grad(), o.state_dict()), (kind.__name__,), True)
    yield after("StepLR", lambda: optim.StepLR(optim.SGD([grad_tensor(2)], lr=0.1), 2), "load_state_dict",
                lambda s: (s.step(), s.get_last_lr(), s.state_dict()), ("StepLR",), True)
    yield after("DataLoader", seeded_loader, "load_state_dict", list, ("DataLoader",))
    yield after("Generator", type(tinynet.Generator), "load_state_dict", lambda g: g.state_dict(),
                ("Generator",))
    yield after("History", history, "load_state_dict", lambda h: (repr(h), len(h), h.state_dict()), ("History",))
    yield after("ModuleList", lambda: nn.ModuleList([nn.Linear(3, 2)]), "append",
                lambda m: (m.parameters(), m.state_dict(), repr(m)), ("ModuleList", "module"))
    # data
    yield Target("DataLoader, three batches", lambda *a, **k: list(itertools.islice(data.DataLoader(*a, **k), 3)),
                 parameters_of(data.DataLoader), ("DataLoader", "sample", "samples", "Dataset", "batch"))
    for i, make in enumerate([lambda: data.train_test_split(data.TensorDataset(normal(8, 3), np.arange(8)))[0],
                              lambda: data.next_tokens(np.arange(9), 3), lambda: data.Dataset(),
                              lambda: data.DataFrameDataset(TABLES[0](), "y", text="one-hot")]):
        yield from methods(f"Dataset{i}.", type(make()), [make],
                           ("learn", "arrays_of", "numbers", "as_floats", "places"))
    # pictures and films
    yield Target("Recorder()", lambda *a, **k: recorder()(*a, **k), [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("loss", "model")], ("Recorder",))
    yield Target("a film, recorded", lambda loss, *a, title="", **k: film_of(loss, title, *a, **k), [
        inspect.Parameter("loss", inspect.Parameter.POSITIONAL_ONLY), *parameters_of(tinynet.Recorder),
        inspect.Parameter("title", inspect.Parameter.KEYWORD_ONLY)], ("Recorder", "film"))
    yield from methods("Film", type(filmed()), [filmed])
    yield from methods("Frame", type(filmed().frame(0)), [lambda: filmed().frame(0)], ("rendered",))
    yield from methods("Drawing", type(tinynet.draw(Value(1.0))), [lambda: tinynet.draw(Value(2.0) * 3.0)])
    yield from methods("Page", type(tinynet.walkthrough(Value(1.0))), [lambda: tinynet.walkthrough(Value(2.0) * 3.0)])
    yield from methods("History", train.History, [history], ("add", "__getitem__"))  # KeyError, as of a dict
    yield Target("capture()", lambda *a: tinynet.capture(lambda *xs: xs[0] * 2.0)(*a), [
        inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)], ("capture", *SYMBOLS, "Tensor", "*"))
    yield Target("EarlyStopping()", lambda *a, **k: train.EarlyStopping(2)(*a, **k),
                 parameters_of(train.EarlyStopping(2)), ("EarlyStopping",))


def film_of(loss, title, *args, **options):
    record = tinynet.Recorder(*args, **options)
    record(loss)
    return tinynet.film(record, title).html


def spoiled(state, number, fate, junk):
    """A state_dict in which one thing is not as it was."""
    places = []

    def walk(x):
        for key, part in list(x.items() if isinstance(x, dict) else enumerate(x)):
            places.append((x, key))
            if isinstance(part, (dict, list)):
                walk(part)

    state = copy.deepcopy(state)
    walk(state)
    if not places or fate == 0:
        return state
    inside, key = places[number % len(places)]
    if fate == 1 and isinstance(inside, dict):
        del inside[key]
    elif fate == 2 and isinstance(inside, dict):
        inside["unheard of"] = junk
    else:
        inside[key] = junk
    return state


@st.composite
def states(draw, make):
    """A maker of a state_dict that is nearly right."""
    number, fate, junk = draw(st.integers(0, 30)), draw(st.integers(0, 8)), draw(st.sampled_from(JUNK))
    return lambda: spoiled(make().state_dict(), number, fate, junk())


FUNCTIONS = ("relu sigmoid tanh softplus gelu softmax log_softmax logsumexp linear embedding dropout layer_norm "
             "mse_loss cross_entropy binary_cross_entropy_with_logits scaled_dot_product_attention conv2d max_pool2d "
             "avg_pool2d batch_norm one_hot nll_loss l1_loss leaky_relu binary_cross_entropy").split()
DATA = ("TensorDataset DataLoader next_tokens read_csv DataFrameDataset train_test_split random_split StandardScaler "
        "one_hot CharTokenizer").split()


# ----------------------------------------------------------------------------------------------------------- the throw

@st.composite
def calls(draw, targets):
    """(target, positional arguments, named arguments), as makers."""
    target = draw(st.sampled_from(targets))
    args, options, named = [], {}, False
    for p in target.parameters:
        pool = SENSIBLE.get(p.name, SENSIBLE[""])
        one = st.sampled_from(pool)
        junk = st.sampled_from(JUNK)
        if p.name in LOOPS:
            junk = junk.map(lambda make: lambda: bounded(make))
        fate = draw(st.integers(0, 19))  # mostly sensible, so that junk gets past the first check of others
        if p.name in ("state", "state_dict") and hasattr(target.make and target.make(), "state_dict") and fate < 16:
            maker = draw(states(target.make))
        else:
            maker = draw(one if fate < 12 else junk)
        if p.kind is p.VAR_POSITIONAL:
            args += draw(st.lists(st.one_of(one, junk), max_size=3)) if not named else []
        elif p.kind is p.VAR_KEYWORD:
            continue
        elif p.name in ("mirrors", "download"):
            options[p.name], named = SENSIBLE[p.name][0], True
        elif p.default is not p.empty and fate % 3 == 0 or (
                fate == 19 and not target.title.endswith("=")):  # left out
            named = True
        elif named or p.kind is p.KEYWORD_ONLY:
            options[p.name] = maker
        else:
            args.append(maker)
    if draw(st.integers(0, 60)) == 0 and any(
            p.kind not in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in target.parameters):
        options["unheard_of"] = lambda: 1
    return target, args, options


class Hang(BaseException):
    pass


def on_alarm(number, frame):
    raise Hang


def flat(x, depth=0):
    """The arrays of numbers in something."""
    if isinstance(x, Tensor):
        yield x._data
    elif isinstance(x, Value):
        yield np.float64(x.data)
    elif isinstance(x, (bool, int, float, np.number)) and abs(x) < 1e300:
        yield np.asarray(x, float) if not isinstance(x, float) or x == x else np.float64(x)
    elif isinstance(x, float):
        yield np.float64(x)
    elif isinstance(x, np.ndarray):
        if x.dtype == object:
            yield from flat(list(x.ravel()), depth + 1)
        elif x.dtype.kind in "fiub" and x.size < 10**6:
            yield x
        else:
            yield np.array([np.inf])
    elif isinstance(x, (list, tuple)) and depth < 4:
        for part in x:
            yield from flat(part, depth + 1)
    elif isinstance(x, dict) and depth < 4:
        yield from flat(list(x.values()), depth + 1)
    elif not isinstance(x, (str, bool, type(None))) and not callable(x):
        yield np.array([np.inf])  # who knows


def moderate(things):
    return all(np.isfinite(a).all() and (not a.size or np.abs(a).max() <= 1e4) for a in flat(things))


def holds_nan(x):
    return any(a.dtype.kind == "f" and np.isnan(a).any() for a in flat(x) if isinstance(x, (Tensor, Value, np.ndarray,
                                                                                            tuple, list)))


def attempt(target, args, options, note):
    """What is wrong with one call, or None."""
    args, options = [make() for make in args], {name: make() for name, make in options.items()}
    try:
        said = [*map(short, args), *[f"{name}={short(x)}" for name, x in options.items()]]
        text = f"{target.title}({', '.join(said)})"
    except Exception as error:  # a repr that fails is a fault of its own
        return f"repr of an argument of {target.title}: {error!r}", "", "repr"
    note(text)
    finite = target.finite and moderate([*args, options])
    before = graph.mode.grad_enabled, graph.mode.scope, graph.mode.plan, graph.mode.reference
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = target.call(*args, **options)
            if hasattr(result, "__next__"):
                result = [next(result) for _ in range(1)]
        signal.setitimer(signal.ITIMER_PROF, 0)
        if finite and holds_nan(result) and "ignore_index" not in options:  # the mean of no loss is 0 / 0
            return text, "a nan from finite numbers", "nan"
    except (TypeError, ValueError, IndexError, OSError) as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if getattr(error, "filename", None) is not None or thrown_here(error):
            return None
        words = {plain(word) for word in re.findall(r"[^\W\d]\w*|[-+*/@<>=%&|^]+", str(error))}
        if not words & target.names:
            return text, f"names nothing: {type(error).__name__}: {error}"[:300], spot(error)
    except StopIteration:
        signal.setitimer(signal.ITIMER_PROF, 0)
    except Hang:
        return text, f"no end after {SECONDS} seconds of computing", "hang"
    except BaseException as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if thrown_here(error):
            return None
        return text, f"{type(error).__name__}: {error}"[:300], spot(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        after = graph.mode.grad_enabled, graph.mode.scope, graph.mode.plan, graph.mode.reference
        graph.mode.grad_enabled, graph.mode.scope, graph.mode.plan, graph.mode.reference = before
    if after != before:
        return text, f"left the thread in the mode {after}", "mode"
    return None


def short(x):
    if isinstance(x, Tensor):
        return f"Tensor{x.shape}:{x.dtype}" + ("*" if x.requires_grad else "")
    if isinstance(x, np.ndarray):
        return f"array{x.shape}:{x.dtype}"
    text = "10**…" if isinstance(x, int) and abs(x) > 10**300 else repr(x)
    return text if len(text) < 50 else text[:40] + "…"


def thrown_here(error):
    """Whether it came out of a function that was thrown, or of the throwing itself: then it is nobody's fault."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename == __file__ and last.name != "attempt"


def spot(error):
    """Where it was raised: the last line of the project's on the way."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/tinynet/" in f.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"


def chunk(n, number, log):
    """Make n calls in this process; returns the faults that were found, one for each place."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGPROF, on_alarm)
    faults, count, everything = {}, [0, 0], list(targets())

    def note(text):
        log.seek(0)
        log.truncate()
        log.write(text)
        log.flush()

    @seeded(number)
    @settings(max_examples=n, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(calls(everything))
    def throw(call):
        count[0] += 1
        found = attempt(*call, note)
        if found:
            text, what, where = found
            faults.setdefault((call[0].title.rstrip("0123456789"), what[:40], where), (text, what, where))

    throw()
    return count[0], faults


def main(n, number=0):
    """n calls, in chunks that each have a process of their own; returns how many calls and the list of faults."""
    done, faults = 0, {}
    while done < n:
        size = min(CHUNK, n - done)
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            child = subprocess.run([sys.executable, "-m", "tests.test_fuzz", "--chunk", str(size), str(number), log],
                                   cwd=ROOT, capture_output=True, text=True, timeout=1800)
            lines = child.stdout.splitlines()
            if child.returncode:
                what = f"the process ended with {child.returncode}: {child.stderr[-600:]}"
                faults[what] = f"{log.read_text() if log.exists() else ''}\n    {what}"
            for line in lines:
                if line.startswith("FAULT "):
                    faults.setdefault(line.split(" ¦ ")[2:][0] + line.split(" ¦ ")[1][:40], line)
        done, number = done + size, number + 1
    return done, list(faults.values())


def test_malformed_calls():
    done, faults = main(CALLS)
    assert done >= CALLS and not faults, "\n".join(faults)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--chunk"]:
        n, number, path = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]).resolve()
        os.environ["TQDM_DISABLE"] = "1"
        os.chdir(path.parent)
        with open(path, "w") as log:
            count, faults = chunk(n, number, log)
        for text, what, where in faults.values():
            print("FAULT", " ¦ ".join(part.replace("\n", " ") for part in (text, what, where)))
        print(count, "calls")
    else:
        n = int(sys.argv[1]) if sys.argv[1:] else CALLS
        done, faults = main(n, int(sys.argv[2]) if sys.argv[2:] else 0)
        print("\n".join(faults))
        print(f"{done} calls, {len(faults)} faults")
