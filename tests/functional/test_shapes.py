"""What kernels are given: one argument of a right call at a time takes another shape, dtype or layout in memory.

Each such call either raises an error, before a kernel has run, or gives what its definition gives: the reference
implementation, for what a fused kernel computes; the scalar engine, for the operations of tensors; NumPy, for what
writes into arrays. Compiled kernels check nothing, so all memory lies between guards here: nan around every array shows
a number read from outside, and guards that have changed a number written there. (Without JIT, NumPy itself raises.)
"""

import contextlib
import functools
import operator
import re
import sys
import traceback

import numpy as np
import pytest

import tinynet
from tinynet import functional as F
from tinynet import nn, optim, tensors
from tinynet.kernels.backend import compiled
from tinynet.value import Value

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, about the mean of nothing
GUARD = 300
OWN = {"dropout": 2, "plain_sgd": 2, "sgd": 3, "adam": 4, "adamw": 4, "rmsprop": 4, "rmsprop_centered": 5}
ERRORS = TypeError, ValueError, IndexError


class Memory:
    """Arrays between guards."""

    def __init__(self):
        self.guards = []

    def empty(self, shape, dtype):
        dtype, shape = np.dtype(dtype), tuple(np.atleast_1d(shape).tolist()) if np.ndim(shape) else (int(shape),)
        size = int(np.prod(shape))
        around = np.full(size + 2 * GUARD, np.nan if dtype.kind == "f" else dtype.type(77), dtype)
        self.guards += [around[:GUARD], around[GUARD + size:]]
        return around[GUARD:GUARD + size].reshape(shape)

    def copy(self, array):
        y = self.empty(array.shape, array.dtype)
        y[...] = array
        return y

    def check(self):
        for guard in self.guards:
            assert (np.isnan(guard) if guard.dtype.kind == "f" else guard == guard.dtype.type(77)).all(), \
                "a kernel wrote outside of its array"


@pytest.fixture
def memory(monkeypatch):
    memory = Memory()
    for name, module in list(sys.modules.items()):
        if name.startswith("tinynet.") and "empty_array" in vars(module):
            monkeypatch.setattr(module, "empty_array", memory.empty)
    dispatch = compiled.ChunkedKernel.dispatch

    def checked(kernel, args):
        arrays = [a for a in args if isinstance(a, np.ndarray) and a.dtype not in (np.int64, np.int32)]
        kinds = {a.dtype for a in arrays[:OWN.get(kernel.name, len(arrays))]}
        assert len(kinds) == 1 and kinds < set(tensors.FLOATS), f"{kernel} was given {sorted(map(str, kinds))}"
        return dispatch(kernel, args)

    monkeypatch.setattr(compiled.ChunkedKernel, "dispatch", checked)
    return memory


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(abs(hash(shape)) % 1000).normal(size=shape).astype(dtype)


# ------------------------------------------------------------------------------------------------------- what changes

def resized(a, axis, n):
    """a with n places along an axis: cut, or continued by its own numbers."""
    if not a.shape[axis]:
        return a
    return np.take(a, np.arange(n) % a.shape[axis], axis)


def wrong(a):
    """(what, array) of other shapes and dtypes."""
    for axis, n in enumerate(a.shape):
        for m in {0, 1, n - 1, n + 1, 2 * n} - {n}:
            yield f"axis {axis} of length {m}", resized(a, axis, m)
        yield f"without axis {axis}", np.asarray(a.take(0, axis))
    yield "one number", np.asarray(a.reshape(-1)[0])
    yield "an axis before", a[None]
    yield "two axes before", np.stack([a, a])[None]
    yield "an axis behind", a[..., None]
    yield "flat", a.reshape(-1)
    if a.ndim > 1:
        yield "its axes reversed", np.ascontiguousarray(a.T)
    for dtype in (np.float32, np.float64, np.int64, np.int32, np.int8, bool):
        if a.dtype != dtype:
            yield np.dtype(dtype).name, a.astype(dtype)


LAYOUTS = {
    "as it is": lambda a, copy: copy(a),
    "column by column": lambda a, copy: copy(a.T).T,
    "backwards": lambda a, copy: copy(a[..., ::-1])[..., ::-1] if a.ndim else copy(a),
    "the first axis backwards": lambda a, copy: copy(a[::-1])[::-1] if a.ndim else copy(a),
    "every second": lambda a, copy: copy(np.repeat(a, 2, -1))[..., ::2] if a.ndim else copy(a),
    "repeated": lambda a, copy: np.broadcast_to(copy(a[:1]), a.shape) if a.ndim else copy(a),
}


# -------------------------------------------------------------------------------------------------------- what happens

def run(function, arrays, textbook=False):
    """The numbers that come out, and the gradients of the arrays of floats."""
    tinynet.manual_seed(0)
    given = [tinynet.Tensor(a, requires_grad=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a for a in arrays]
    with tinynet.textbook() if textbook else contextlib.nullcontext():
        y = function(*given)
        if y.requires_grad:
            y.backward(gradient=normal(*y.shape, dtype=y.dtype)[::-1] if y.ndim else np.asarray(2.0))
    return y.numpy() if not y.requires_grad else y.detach().numpy(), *[x.grad for x in given
                                                                       if isinstance(x, tinynet.Tensor)]


def attempt(function, *args):
    try:
        return function(*args), None
    except Exception as error:
        return None, error


def reached_a_kernel(error):
    while error is not None:
        for frame in traceback.extract_tb(error.__traceback__):
            if "/tinynet/kernels/" in frame.filename and not frame.filename.endswith("backend/launches.py"):
                return True
            if "/numba/" in frame.filename:
                return True
        error = error.__cause__ or error.__context__
    return False


def fault(got, error, expected, expected_error, may_raise):
    """What is wrong with an answer, or None."""
    if error is not None:
        if not isinstance(error, ERRORS):
            return f"raises {type(error).__name__}: {error}"
        if reached_a_kernel(error):
            return f"reached a kernel: {error}"
        if "\n" in str(error) or not re.match(
                r"[^:]+: |the \w+ is |could not broadcast |(boolean )?index ", str(error)):
            return f"no sentence: {error}"
        return None if may_raise else f"raises: {error}"
    if expected_error is not None:
        return f"gives {got[0].dtype} {got[0].shape}, the definition raises: {expected_error}"
    for what, a, b in zip(("result", *[f"gradient {i}" for i in range(9)]), got, expected):
        if (a is None) != (b is None):
            return f"{what} is {a}, expected {b}"
        if a is None:
            continue
        if a.shape != b.shape or b.dtype not in (object, a.dtype):
            return f"{what} is {a.dtype} {a.shape}, expected {b.dtype} {b.shape}"
        if not np.allclose(a, b.astype(float), rtol=1e-4, atol=2e-5):
            return f"{what} differs: {a.ravel()[:4]}, expected {b.ravel()[:4]}"
    return None


def faults(memory, function, arguments, reference, kinds=(np.float64, np.int64)):
    """All that goes wrong when one argument at a time is another."""
    found = []

    def call(what, arrays, may_raise):
        memory.guards.clear()
        given = [memory.copy(a) if isinstance(a, np.ndarray) and a.flags.c_contiguous else a for a in arrays]
        got, error = attempt(run, function, given)
        expected, expected_error = attempt(reference, function, given)
        problem = fault(got, error, expected, expected_error, may_raise)
        try:
            memory.check()
        except AssertionError as outside:
            problem = outside
        if problem:
            found.append(f"{what}: {problem}")

    call("the right call", arguments, False)
    for dtype in kinds:
        call(f"all {dtype.__name__}", [a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
                                       for a in arguments], dtype is np.int64)
    for i, a in enumerate(arguments):
        if isinstance(a, np.ndarray):
            for what, array in wrong(a):
                call(f"argument {i}, {what}", [*arguments[:i], array, *arguments[i + 1:]], True)
            for what, layout in LAYOUTS.items():
                call(f"argument {i}, {what}", [*arguments[:i], layout(a, memory.copy), *arguments[i + 1:]], False)
    return found


# --------------------------------------------------------------------------- fused kernels and reference implementation

MASK = np.tril(np.ones((4, 5), bool))
NOTHING = MASK & [[True], [True], [False], [True]]  # the third query sees nothing
SCORES = np.where(NOTHING, 0.5, -np.inf)
INDICES = np.array([[0, 2, 1], [3, 0, 0]])
TARGET = np.array([1, 0, 2, 1])
FUSED = {
    "softmax": (F.softmax, normal(3, 4)),
    "softmax of the first axis": (lambda x: F.softmax(x, 0), normal(3, 4)),
    "log_softmax": (F.log_softmax, normal(3, 4)),
    "log_softmax of the middle": (lambda x: F.log_softmax(x, 1), normal(3, 4, 2)),
    "logsumexp": (lambda x: F.logsumexp(x, 1), normal(3, 4)),
    "gelu": (lambda x: F.gelu(x, "tanh"), normal(3, 4)),
    **{f"linear, {name}": (lambda x, w, b, name=name: F.linear(x, w, b, name), normal(2, 3, 4), normal(5, 4), normal(5))
       for name in (None, "relu", "gelu")},
    "linear without bias": (F.linear, normal(3, 4), normal(5, 4)),
    "embedding": (lambda w, i: F.embedding(i, w), normal(4, 3), INDICES),
    "dropout": (lambda x: F.dropout(x, 0.4), normal(3, 4)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, 4, w, b), normal(2, 3, 4), normal(4), normal(4)),
    "layer_norm of two axes": (lambda x, w, b: F.layer_norm(x, (3, 4), w, b), normal(2, 3, 4), normal(3, 4),
                               normal(3, 4)),
    "layer_norm without": (lambda x: F.layer_norm(x, 4), normal(2, 3, 4)),
    "layer_norm without bias": (lambda x, w: F.layer_norm(x, 4, w), normal(3, 4), normal(4)),
    **{f"{function.__name__}, {reduction}": (lambda x, t, f=function, r=reduction: f(x, t, r), normal(3, 4),
                                             normal(3, 4) + 1)
       for function in (F.mse_loss, F.l1_loss, F.binary_cross_entropy_with_logits)
       for reduction in ("mean", "sum", "none")},
    **{f"cross_entropy, {reduction}": (lambda x, t, r=reduction: F.cross_entropy(x, t, r), normal(4, 3), TARGET)
       for reduction in ("mean", "sum", "none")},
    "binary_cross_entropy": (F.binary_cross_entropy, normal(3, 4) ** 2 / 9, normal(3, 4) ** 2 / 9),
    "nll_loss": (lambda x, t: F.nll_loss(F.log_softmax(x), t), normal(4, 3), TARGET),
    "cross_entropy with ignored": (lambda x, t: F.cross_entropy(x, t, ignore_index=2), normal(4, 3), TARGET),
    "attention": (F.scaled_dot_product_attention, normal(2, 3, 4, 2), normal(2, 3, 5, 2), normal(2, 3, 5, 6)),
    "attention of one head": (F.scaled_dot_product_attention, normal(4, 2), normal(5, 2), normal(5, 6)),
    "causal attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), normal(2, 4, 2),
                         normal(2, 4, 2), normal(2, 4, 3)),
    "attention with a mask": (F.scaled_dot_product_attention, normal(2, 3, 4, 2), normal(2, 3, 5, 2),
                              normal(2, 3, 5, 6), MASK),
    "attention with a mask for each": (F.scaled_dot_product_attention, normal(2, 4, 2), normal(2, 5, 2),
                                       normal(2, 5, 6), np.stack([MASK, ~MASK])),
    "attention with scores": (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m.detach()),
                              normal(2, 3, 4, 2), normal(2, 3, 5, 2), normal(2, 3, 5, 6), normal(2, 1, 4, 5)),
    "attention with scores of -∞": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SCORES), normal(2, 4, 2),
                                    normal(2, 5, 2), normal(2, 5, 6)),
    "attention to nothing": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, NOTHING, is_causal=True),
                             normal(2, 4, 2), normal(2, 5, 2), normal(2, 5, 6)),
    "attention with many axes": (F.scaled_dot_product_attention, normal(2, 1, 3, 4, 2), normal(2, 1, 3, 5, 2),
                                 normal(2, 1, 3, 5, 6), np.stack([MASK, ~MASK, MASK])),
    "attention with dropout": (lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m, 0.3, True),
                               normal(2, 4, 2), normal(2, 5, 2), normal(2, 5, 6), MASK),
    "attend": (lambda q, k, v: F.attend(q, k, v, MASK[None, None], False, 0.5), normal(2, 3, 4, 2),
               normal(2, 3, 5, 2), normal(2, 3, 5, 6)),
    "self_attention": (lambda x: F.self_attention(x, 2), normal(2, 3, 12)),
    "causal self_attention": (lambda x: F.self_attention(x, 2, None, True), normal(2, 3, 12)),
    "self_attention with a mask": (lambda x: F.self_attention(x, 2, MASK[None, None, :3, :3]), normal(2, 3, 12)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, (2, 1), 1), normal(2, 3, 6, 5), normal(4, 3, 3, 2), normal(4)),
    "conv2d without bias": (F.conv2d, normal(2, 3, 6, 5), normal(4, 3, 3, 2)),
    "conv2d of one image": (F.conv2d, normal(3, 6, 5), normal(4, 3, 3, 2), normal(4)),
    "max_pool2d": (lambda x: F.max_pool2d(x, (2, 3), 2, (1, 0)), normal(2, 3, 6, 5)),
    "max_pool2d of one image": (lambda x: F.max_pool2d(x, 2), normal(3, 6, 5)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, (2, 3), 2, (1, 0)), normal(2, 3, 6, 5)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), normal(5, 3, 2, 2), normal(3), normal(3)),
    "batch_norm of rows": (lambda x: F.batch_norm(x, None, None, training=True), normal(5, 3)),
    "batch_norm in eval": (lambda x, m, v, w, b: F.batch_norm(x, m.detach(), v.detach() * v.detach(), w, b),
                           normal(5, 3, 2), normal(3), normal(3), normal(3), normal(3)),
    "rnn": (F.rnn, normal(4, 2, 3), normal(2, 3), normal(3, 3)),
    "rnn, relu": (lambda x, h, w: F.rnn(x, h, w, "relu"), normal(4, 2, 3), normal(2, 3), normal(3, 3)),
    "lstm": (F.lstm, normal(4, 2, 12), normal(2, 3), normal(2, 3), normal(12, 3)),
    "gru": (F.gru, normal(4, 2, 9), normal(2, 3), normal(9, 3), normal(9)),
    "gru without bias": (F.gru, normal(4, 2, 9), normal(2, 3), normal(9, 3)),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_kernel_gets_what_it_expects(name, memory):
    function, *arguments = FUSED[name]
    found = faults(memory, function, arguments, functools.partial(run, textbook=True))
    assert not found, "\n".join(found)


# ----------------------------------------------------------------------------- operations of tensors and scalar engine

def on_values(function, arrays):
    """What `run` gives, from the scalar engine, where every number is a Value and NumPy knows the shapes."""
    given = [np.vectorize(Value, otypes=[object])(a) if a.size else a.astype(object) for a in arrays]
    y = np.asarray(function(*given), dtype=object)
    dtype = np.result_type(*[a for a in arrays if a.dtype.kind == "f"] or arrays)
    numbers, gradients = np.vectorize(float, otypes=[object])(y), [None] * len(arrays)  # objects: of any dtype
    if dtype.kind == "f":
        g = normal(*y.shape, dtype=dtype)[::-1] if y.ndim else np.asarray(2.0)
        root = sum((v * float(n) for v, n in zip(y.flat, g.flat)), Value(0.0))
        root.backward()
        gradients = [np.array([v.grad or 0.0 for v in x.flat], a.dtype).reshape(x.shape)
                     if a.dtype.kind == "f" else None for x, a in zip(given, arrays)]
        numbers = numbers.astype(dtype)
    return numbers, *gradients


LARGER = np.frompyfunc(lambda a, b: (a if isinstance(a, Value) else Value(a)).max(b), 2, 1)


def first(best, x, axis):
    """The largest or smallest along an axis; of equal ones the first, to which its gradient goes."""
    place = best(np.vectorize(float, otypes=[float])(x), axis, keepdims=True)
    return np.take_along_axis(x, place, axis).squeeze(axis)


def pick_rows(x):
    return x[np.array([2, 0, 2])]


OPERATIONS = {
    **{f"a {symbol} b": (operation, normal(3, 4), np.abs(normal(4)) + 1) for symbol, operation in (
        ("+", operator.add), ("-", operator.sub), ("*", operator.mul), ("/", operator.truediv))},
    "a ** b": (operator.pow, np.abs(normal(3, 4)) + 1.5, np.abs(normal(3, 1)) + 1),
    "maximum": (lambda a, b: a.maximum(b) if isinstance(a, tinynet.Tensor) else LARGER(a, b), normal(3, 4),
                normal(4)),
    "minimum": (lambda a, b: a.minimum(b) if isinstance(a, tinynet.Tensor) else -LARGER(-a, -b), normal(3, 4),
                normal(4)),
    **{name: (getattr(F, name), normal(3, 4)) for name in ("relu", "sigmoid", "tanh", "softplus", "gelu")},
    "exp": (np.exp, normal(3, 4)), "log": (lambda x: np.log(x * x + 1.0), normal(3, 4)),
    "sqrt": (lambda x: np.sqrt(x * x + 1.0), normal(3, 4)), "negative": (operator.neg, normal(3, 4)),
    "abs": (abs, normal(3, 4)), "sin": (np.sin, normal(3, 4)), "cos": (np.cos, normal(3, 4)),
    "matrix @ matrix": (operator.matmul, normal(3, 4), normal(4, 2)),
    "matrix @ vector": (operator.matmul, normal(3, 4), normal(4)),
    "vector @ vector": (operator.matmul, normal(4), normal(4)),
    "stack @ matrix": (operator.matmul, normal(2, 3, 4), normal(4, 2)),
    "stack @ stack": (operator.matmul, normal(2, 1, 3, 4), normal(5, 4, 2)),
    "a @ b.T": (lambda a, b: a @ b.T, normal(3, 4), normal(2, 4)),
    **{f"{name} over {axis}": (lambda x, n=name, a=axis: getattr(x if x.ndim else x.reshape(1), n)(a), normal(2, 3, 4))
       for name in ("sum", "mean") for axis in (None, 0, -1, (0, 2))},
    "sum, keepdims": (lambda x: x.sum(1, keepdims=True), normal(2, 3, 4)),
    "reshape": (lambda x: x.reshape(4, 3), normal(3, 4)), "reshape, -1": (lambda x: x.reshape(2, -1), normal(3, 4)),
    "transpose": (lambda x: x.transpose(2, 0, 1), normal(2, 3, 4)), "swapaxes": (lambda x: x.swapaxes(0, 1),
                                                                                 normal(2, 3, 4)),
    "T": (lambda x: x.T, normal(2, 3)), "flatten": (lambda x: x.flatten(), normal(2, 3)),
    "squeeze": (lambda x: x.squeeze(1) if isinstance(x, tinynet.Tensor) or x.shape[1] == 1 else x, normal(2, 1, 3)),
    "x[1]": (lambda x: x[1], normal(3, 4)), "x[::-2, 1:]": (lambda x: x[::-2, 1:], normal(4, 4)),
    "x[..., None, 0]": (lambda x: x[..., None, 0], normal(3, 4)), "x[rows]": (pick_rows, normal(3, 4)),
    "x[rows, columns]": (lambda x: x[np.arange(3), np.array([1, 1, 0])], normal(3, 4)),
    "x[mask]": (lambda x: x[np.array([True, False, True])], normal(3, 4)),
    "cat": (lambda a, b: tinynet.cat([a, b], 1) if isinstance(a, tinynet.Tensor) else np.concatenate([a, b], 1),
            normal(3, 4), normal(3, 2)),
    "stack": (lambda a, b: tinynet.stack([a, b], 1) if isinstance(a, tinynet.Tensor) else np.stack([a, b], 1),
              normal(3, 4), normal(3, 4)),
    "where": (lambda a, b: tinynet.where(np.array([True, False, True, True]), a, b) if isinstance(a, tinynet.Tensor)
              else np.where([True, False, True, True], a, b), normal(3, 4), normal(3, 1)),
    "broadcast_to": (lambda x: x.broadcast_to(2, 3, 4) if isinstance(x, tinynet.Tensor)
                     else np.broadcast_to(x, (2, 3, 4)), normal(3, 1)),
    "clip": (lambda x: x.clip(-0.5, 0.5) if isinstance(x, tinynet.Tensor) else -LARGER(-LARGER(x, -0.5), -0.5),
             normal(3, 4)),
    "max over 1": (lambda x: x.max(1) if isinstance(x, tinynet.Tensor) else first(np.argmax, x, 1), normal(3, 4)),
    "min over all": (lambda x: x.min() if isinstance(x, tinynet.Tensor) else first(np.argmin, x.reshape(-1), 0),
                     normal(3, 4)),
    "tril": (lambda x: x.tril(1) if isinstance(x, tinynet.Tensor) else x * np.tril(np.ones(x.shape), 1), normal(3, 4)),
    "gather": (lambda x: x.gather(1, np.array([[0, 2], [1, 1]])) if isinstance(x, tinynet.Tensor)
               else x[np.array([[0], [1]]), np.array([[0, 2], [1, 1]])], normal(2, 3)),
    "masked_fill": (lambda x: x.masked_fill(np.array([True, False, True, False]), 2.0) if isinstance(x, tinynet.Tensor)
                    else np.where([True, False, True, False], Value(2.0), x), normal(3, 4)),
    "norm": (lambda x: x.norm(dim=1) if isinstance(x, tinynet.Tensor) else
             np.sqrt((x * x).sum(1)) if x.shape[1] else x.sum(1) * 1.0, normal(3, 4)),
    "split": (lambda x: x.split([2, 3], 1)[1] if isinstance(x, tinynet.Tensor) else x[:, 2:5], normal(3, 5)),
    "var": (lambda x: x.var(0) if isinstance(x, tinynet.Tensor) else variance(x), normal(3, 4)),
}


def variance(x):
    d = x - x.mean(0, keepdims=True)
    return (d * d).sum(0) * (1.0 / (len(x) - 1))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_does_what_the_scalar_engine_does(name, memory):
    function, *arguments = OPERATIONS[name]
    found = faults(memory, function, arguments, on_values)
    assert not found, "\n".join(found)


# -------------------------------------------------------------------------------------------------------------- layers

def of(make, *names):
    """A layer as a function of its input and of the parameters of these names."""
    def function(*arguments):
        tinynet.manual_seed(0)
        layer = make()
        n = len(arguments) - len(names)
        for name, p in zip(names, arguments[n:]):
            setattr(layer, name, p)
        y = layer(*arguments[:n])
        return y[0] if isinstance(y, tuple) else y

    return function


LAYERS = {
    "Linear": (of(lambda: nn.Linear(4, 2)), normal(3, 4)),
    "Perceptron": (of(lambda: nn.Perceptron(4, 2, "gelu")), normal(3, 4)),
    "MLP": (of(lambda: nn.MLP(4, [3, 2])), normal(3, 4)),
    "LayerNorm": (of(lambda: nn.LayerNorm(4), "weight", "bias"), normal(3, 4), normal(4), normal(4)),
    "Embedding": (of(lambda: nn.Embedding(4, 3), "weight"), INDICES, normal(4, 3)),
    "Conv2d": (of(lambda: nn.Conv2d(3, 4, (3, 2)), "weight", "bias"), normal(2, 3, 6, 5), normal(4, 3, 3, 2),
               normal(4)),
    "MaxPool2d": (of(lambda: nn.MaxPool2d(2)), normal(2, 3, 6, 5)),
    "BatchNorm2d": (of(lambda: nn.BatchNorm2d(3), "weight", "bias"), normal(2, 3, 3, 2), normal(3), normal(3)),
    "RNN": (of(lambda: nn.RNN(3, 2), "weight_hh_l0"), normal(4, 2, 3), normal(1, 2, 2), normal(2, 2)),
    "LSTM": (of(lambda: nn.LSTM(3, 2), "weight_hh_l0"), normal(4, 2, 3), normal(8, 2)),
    "GRU": (of(lambda: nn.GRU(3, 2, bidirectional=True), "weight_hh_l0", "bias_hh_l0"), normal(4, 2, 3),
            normal(2, 2, 2), normal(6, 2), normal(6)),
    "MultiheadAttention": (of(lambda: nn.MultiheadAttention(4, 2)), normal(3, 2, 4), normal(5, 2, 4), normal(5, 2, 4)),
    "MultiheadAttention to itself": (lambda x, m: of(lambda: nn.MultiheadAttention(4, 2))(x, x, x, m, False),
                                     normal(3, 2, 4), np.array([[False, False, True], [False, True, False]])),
    "TransformerEncoderLayer": (of(lambda: nn.TransformerEncoderLayer(4, 2, 6)), normal(3, 2, 4)),
    "PositionalEncoding": (of(lambda: nn.PositionalEncoding(4, max_len=5)), normal(2, 3, 4)),
    "GPT": (of(lambda: nn.GPT(5, 1, 2, 4, 6)), INDICES),
    "Flatten": (of(nn.Flatten), normal(2, 3, 4)), "Softmax": (of(nn.Softmax), normal(2, 3)),
    "Dropout": (of(nn.Dropout), normal(2, 3)), "MSELoss": (of(nn.MSELoss), normal(3, 4), normal(3, 4)),
    "CrossEntropyLoss": (of(nn.CrossEntropyLoss), normal(4, 3), TARGET),
    "BCEWithLogitsLoss": (of(nn.BCEWithLogitsLoss), normal(4, 3), normal(4, 3) ** 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_passes_on_what_its_kernels_expect(name, memory):
    function, *arguments = LAYERS[name]
    found = faults(memory, function, arguments, functools.partial(run, textbook=True), kinds=())
    assert not found, "\n".join(found)


# -------------------------------------------------------------------------------------- what writes into its own arrays

@pytest.mark.parametrize("name, settings", [("SGD", {}), ("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {}),
                                            ("RMSprop", {}), ("RMSprop", {"centered": True})])
def test_optimisers_step_wherever_a_parameter_and_its_gradient_lie(name, settings, memory):
    start, slopes = normal(3, 4), normal(4, 3).T
    values = [Value(v) for v in start.flat]
    single = getattr(optim, name)(values, lr=0.1, **settings)
    for v, g in zip(values, slopes.flat):
        v.grad = float(g)
    single.step()
    single.step()
    expected = np.array([v.data for v in values]).reshape(3, 4)
    for place in LAYOUTS.values():
        for lie in LAYOUTS.values():
            if place is not LAYOUTS["repeated"] and lie is not LAYOUTS["repeated"]:
                p = tinynet.Tensor(place(start, memory.copy), requires_grad=True)
                optimizer = getattr(optim, name)([p], lr=0.1, **settings)
                p.grad = lie(slopes, memory.copy)
                step = tinynet.capture(lambda optimizer=optimizer: optimizer.step())
                step()
                step()
                np.testing.assert_allclose(p.data, expected, rtol=1e-5, atol=1e-6)
    memory.check()


def test_a_gradient_given_by_hand_is_one_that_backward_can_add_to():
    p = tinynet.ones(2, 3, requires_grad=True)
    for g in (np.broadcast_to(np.float32(1), (2, 3)), np.ones((3, 2)).T, np.ones((2, 3), np.int64)):
        p.grad = g
        (p * 2.0).sum().backward()
        assert p.grad.dtype == np.float32 and (p.grad == 3).all() and (g == 1).all()


def test_data_and_gradients_fit_their_tensor():
    """So whatever a tensor was used for finds it, and its gradient, in the shape and dtype that it had."""
    x = tinynet.ones(2, 3, requires_grad=True)
    y = x.tanh()
    x.data = np.zeros((2, 3))
    assert x.dtype == np.float32 and (x.data == 0).all()
    for tensor, attribute, wrong, error in (
            (x, "data", np.ones((2, 4)), ValueError), (y, "data", np.ones(6), ValueError),
            (x, "data", 1.0, ValueError), (x, "grad", np.ones((3, 2)), ValueError), (x, "grad", 1.0, ValueError),
            (x, "grad", np.ones((2, 3)) * 1j, TypeError), (x, "grad", [["a"] * 3] * 2, TypeError),
            (tinynet.arange(3), "grad", np.ones(3), TypeError), (tinynet.arange(3), "data", np.ones(3), TypeError)):
        with pytest.raises(error, match=f"({attribute}|tensor): "):
            setattr(tensor, attribute, wrong)
    frozen = tinynet.Tensor(np.broadcast_to(np.float32(1), (2, 3)), requires_grad=True)
    frozen.grad = np.ones((2, 3))
    with pytest.raises(ValueError, match="read-only"):
        optim.SGD([frozen]).step()
    with pytest.raises(ValueError, match="read-only"):
        frozen.detach()[0] = 1.0


KEYS = {"a row": 1, "a column": (slice(None), 2), "rows": np.array([2, 0]), "a list": [0, 1],
        "places": (np.array([0, 2]), np.array([1, 1])), "a mask": np.array([True, False, True]), "all": Ellipsis,
        "steps": (slice(None, None, -2), slice(1, None)), "one number": (0, 0)}


@pytest.mark.parametrize("what", KEYS)
def test_assignment_to_a_part_is_that_of_numpy(what, memory):
    key = KEYS[what]

    def assigned(x, value):
        x = memory.copy(x)
        tinynet.Tensor(x)[key] = value
        return (x,)

    def by_numpy(x, value):
        x = np.array(x)
        x[key] = value.item() if value.size == 1 and not np.ndim(x[key]) else value  # one number in any shape
        return (x,)

    start = normal(3, 4)
    value = start[key]
    for layout in [lambda a, copy: a, *LAYOUTS.values()]:
        for _, other in [("", value), *wrong(np.asarray(value))]:
            for x in (start, normal(3, 5), normal(2, 4), normal(4)):
                given = x, layout(np.asarray(other), memory.copy)
                got, error = attempt(assigned, *given)
                expected, expected_error = attempt(by_numpy, *given)
                assert not (problem := fault(got, error, expected, expected_error, expected_error is not None)), problem
                memory.check()
