"""The operations on arrays, forward and backward side by side: one element at a time, products and sums, layout."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..errors import describe, is_int
from ..graph import mode, no_grad
from ..kernels import launch
from ..value import Rule
from .core import Node, Op, forbid_in_capture, leaf, operand
from .memory import FLOATS, cast, contiguous, copied, empty_array, filled


def unbroadcast(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The gradient of an operand x that was broadcast, or promoted to the dtype of the other one: the sum over the axes
    along which it was repeated, in its own dtype."""
    shape = x.shape
    if g.shape != shape:
        lead = g.ndim - len(shape)
        axes = tuple(i for i in range(g.ndim) if i < lead or (shape[i - lead] == 1 and g.shape[i] != 1))
        out = empty_array(tuple(1 if i in axes else n for i, n in enumerate(g.shape)), g.dtype)
        launch(np.sum, g, axes, None, out, True)
        g = out.reshape(shape)
    return g if g.dtype == x.dtype else cast(g, x.dtype)


def common_dtype(a, b) -> np.dtype:
    """The dtype of a result: beside integers and bools, floats keep theirs, as in PyTorch."""
    return a if a in FLOATS and b.kind in "iub" else b if b in FLOATS and a.kind in "iub" else np.result_type(a, b)


def broadcast_shape(name: str, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(a, b)
    except (ValueError, RuntimeError):  # RuntimeError: more axes than NumPy can broadcast
        raise ValueError(f"{name}: shapes {a} and {b} do not broadcast") from None


def axes_of(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """An axis, several, or None for all, as non-negative numbers."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    for i in axes:
        if not is_int(i):
            raise TypeError(f"{name}: expected axis to be an integer, got {type(i).__name__}")
        if not -ndim <= i < max(ndim, 1):
            raise IndexError(f"{name}: axis {int(i)} does not exist in a tensor of {ndim} axes")
    return tuple(sorted({int(i) % ndim if ndim else 0 for i in axes})) if ndim else ()


def one_axis(name: str, axis: Any, ndim: int) -> int:
    """One axis that exists, as a non-negative number."""
    axes = axes_of(name, axis if is_int(axis) else (axis,), ndim)
    if not axes:
        raise IndexError(f"{name}: axis {int(axis)} does not exist in a tensor of 0 axes")
    return axes[0]


# -------------------------------------------------------------------------------------------- one element at a time

@functools.cache
def reads(derivative) -> tuple[bool, ...]:
    """Which of its arguments a derivative in the table reads, tried out: the operands, then the value y."""
    count = derivative.__code__.co_argcount

    def is_read(i: int, at: float) -> bool:
        args, unknown = [at] * count, object()  # which nothing can be computed from
        args[i] = unknown
        try:
            return derivative(*args) is unknown
        except TypeError:
            return True
        except (ArithmeticError, ValueError):
            return False

    return tuple(any(is_read(i, at) for at in (0.5, -0.5, 0.0)) for i in range(count))


class Unary(Op):
    """A rule of the derivative table with one operand, applied to every element."""

    def __init__(self, rule: Rule):
        self.rule, self.name = rule, rule.name

    def forward(self, x):
        if x.dtype not in FLOATS:
            if self.name in ("neg", "abs") and x.dtype != bool:
                y = empty_array(x.shape, x.dtype)
                launch(getattr(np, {"neg": "negative", "abs": "absolute"}[self.name]), x, y)
                return y
            raise TypeError(f"{self.name}: expected float numbers, got {x.dtype}")
        self.x, y = contiguous(x).ravel(), empty_array(x.shape, x.dtype)
        launch(kernels.activations.unary(self.name), y.ravel(), self.x)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.activations.unary_backward(self.name), dx.ravel(), contiguous(g).ravel(), self.x, y.ravel())
        return (dx,)

    def saved(self, y, xs):
        return [x for x, is_read in zip((*xs, y), reads(self.rule.derivatives[0])) if is_read]


def into_maximum(a, b, out):
    np.maximum(a, b, out=out)


def into_minimum(a, b, out):
    np.minimum(a, b, out=out)


class Binary(Op):
    """A rule of the derivative table with two operands, with NumPy's broadcasting."""

    FORWARD = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power,
               "max": into_maximum, "min": into_minimum}

    def __init__(self, rule: Rule):
        self.rule, self.name = rule, rule.name

    def forward(self, a, b):
        shape = a.shape if a.shape == b.shape else broadcast_shape(self.name, a.shape, b.shape)
        dtype = a.dtype if a.dtype == b.dtype else common_dtype(a.dtype, b.dtype)
        if self.name == "/" and dtype not in FLOATS:
            dtype = np.dtype(np.float32)
        if self.name == "**" and dtype.kind in "iu" and (b < 0).any():
            raise ValueError("**: integers have no negative powers; convert them with .float()")
        y = empty_array(shape, dtype)
        launch(self.FORWARD[self.name], a, b, y)
        return y

    def backward(self, g, y, a, b):
        return [unbroadcast(self.operand_gradient(i, g, a, b, y), x) if self.needs[i] else None
                for i, x in enumerate((a, b))]

    def operand_gradient(self, i, g, a, b, y):
        """g · ∂y/∂(operand i), from the rule itself: on whole arrays where it is plain arithmetic, else compiled."""
        if self.name not in ("+", "-", "*", "/"):
            out = empty_array(y.shape, y.dtype)
            launch(kernels.activations.binary_backward(self.name, i), g, a, b, y, out)
            return out
        with no_grad():
            d = self.rule.derivatives[i](leaf(a), leaf(b), leaf(y))
        if d.__class__ is float and d == 1.0:
            return g
        out = empty_array(y.shape, y.dtype)
        launch(np.multiply, g, d if d.__class__ is float else d._data, out)
        return out

    def saved(self, y, xs):
        used = [reads(d) for d, needed in zip(self.rule.derivatives, self.needs) if needed]
        return [x for x, is_read in zip((*xs, y), map(any, zip(*used))) if is_read]


class Cast(Op):
    """The same numbers in another dtype."""

    name = "to"

    def __init__(self, dtype):
        self.dtype = dtype

    def forward(self, x):
        self.before = x.dtype
        y = empty_array(x.shape, self.dtype)
        launch(np.copyto, y, x, "unsafe")
        return y

    def backward(self, g, y, x):
        return (cast(g, self.before),)

    def saved(self, y, xs):
        return ()


class Where(Op):
    """where(condition, a, b): a's element where the condition holds, else b's."""

    name = "where"

    def __init__(self, condition):
        self.chosen, self.condition = condition, condition._data

    def forward(self, a, b):
        shape = broadcast_shape("where", self.condition.shape, broadcast_shape("where", a.shape, b.shape))
        y = empty_array(shape, common_dtype(a.dtype, b.dtype))
        launch(np.copyto, y, b, "same_kind")
        launch(np.copyto, y, a, "same_kind", self.condition)
        return y

    def backward(self, g, y, a, b):
        da, db = filled(g.shape, g.dtype, 0.0), copied(g)
        launch(np.copyto, da, g, "same_kind", self.condition)
        launch(np.copyto, db, 0.0, "same_kind", self.condition)
        return [unbroadcast(d, x) if need else None for d, x, need in zip((da, db), (a, b), self.needs)]

    def saved(self, y, xs):
        return (self.chosen,)


def where(condition: Any, a: Any, b: Any) -> Any:
    """a's element where the condition holds, else b's; all three broadcast.

    >>> from tinynet import tensor
    >>> where(tensor([True, False]), 1.0, tensor([5.0, 6.0])).tolist()
    [1.0, 6.0]
    """
    condition = operand("where", condition, None)
    if condition.dtype != bool:
        raise TypeError(f"where: expected a condition of bools, got {condition.dtype}")
    return Where(condition)(operand("where", a, b), operand("where", b, a))


class Clip(Op):
    """min(max(x, low), high); the gradient passes where low ≤ x ≤ high."""

    name = "clip"

    def __init__(self, low, high):
        self.low, self.high = low, high

    def forward(self, x):
        dtype = np.result_type(x, *[n for n in (self.low, self.high) if n is not None])
        y = empty_array(x.shape, np.float32 if dtype in FLOATS and x.dtype not in FLOATS else dtype)
        launch(np.clip, x, self.low, self.high, y)
        return y

    def backward(self, g, y, x):
        inside, dx = empty_array(x.shape, bool), empty_array(x.shape, x.dtype)
        launch(np.equal, x, y, inside)
        launch(np.multiply, g, inside, dx)
        return (dx,)


# ------------------------------------------------------------------------------------------------- products and sums

class MatMul(Op):
    """a @ b, rows of a times columns of b, with NumPy's batch axes. ∂/∂a = g bᵀ, ∂/∂b = aᵀ g."""

    name = "@"

    def forward(self, a, b):
        if not a.ndim or not b.ndim or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
            which = "first" if b.ndim < 2 else "second last"
            raise ValueError(f"@: the last axis of {a.shape} and the {which} axis of {b.shape} differ")
        return self.product(a, b)

    def backward(self, g, y, a, b):
        rows, columns = a.ndim > 1, b.ndim > 1
        A, B = a if rows else a[None, :], b if columns else b[:, None]
        G = g if rows and columns else g[..., None, :] if columns else g[..., None] if rows else g.reshape(1, 1)
        da = unbroadcast(self.product(G, B.swapaxes(-1, -2)), A).reshape(a.shape) if self.needs[0] else None
        db = unbroadcast(self.product(A.swapaxes(-1, -2), G), B).reshape(b.shape) if self.needs[1] else None
        return da, db

    def product(self, a, b):
        dtype = common_dtype(a.dtype, b.dtype)
        if a.ndim < 2 or b.ndim < 2:
            y = self.product(a if a.ndim > 1 else a[None, :], b if b.ndim > 1 else b[:, None])
            rows, columns = y.shape[-2:-1] if a.ndim > 1 else (), y.shape[-1:] if b.ndim > 1 else ()
            return y.reshape(y.shape[:-2] + rows + columns)
        if b.ndim == 2 and a.ndim > 2:
            y = empty_array((*a.shape[:-1], b.shape[-1]), dtype)
            rows = math.prod(a.shape[:-1])
            launch(kernels.matmul, y.reshape(rows, b.shape[-1]), contiguous(a).reshape(rows, a.shape[-1]), b)
            return y
        y = empty_array((*broadcast_shape("@", a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]), dtype)
        launch(kernels.matmul if y.ndim == 2 else kernels.batched, y, a, b)
        return y

    def saved(self, y, xs):
        return [x for x, needed in zip(xs, reversed(self.needs)) if needed]


class Einsum(Op):
    """Σ of products of two operands; the gradient of one is the einsum of g with the other, subscripts exchanged."""

    name = "einsum"

    def __init__(self, first, second, result):
        self.first, self.second, self.result = first, second, result

    def forward(self, a, b):
        return self.product(self.first, a, self.second, b, self.result)

    def backward(self, g, y, a, b):
        return (self.product(self.result, g, self.second, b, self.first) if self.needs[0] else None,
                self.product(self.result, g, self.first, a, self.second) if self.needs[1] else None)

    def product(self, first, a, second, b, result):
        sizes = dict(zip(first + second, a.shape + b.shape))
        y = empty_array(tuple(sizes[letter] for letter in result), a.dtype)
        launch(into_einsum, y, f"{first},{second}->{result}", a, b)
        return y

    def saved(self, y, xs):
        return [x for x, needed in zip(xs, reversed(self.needs)) if needed]


def into_einsum(out, subscripts, a, b):
    np.einsum(subscripts, a, b, out=out)


class Reduce(Op):
    """A sum or a mean over some axes: each element receives the gradient (times 1/n for the mean)."""

    def __init__(self, name, axis, keepdims):
        self.name, self.axis, self.keepdims = name, axis, keepdims

    def forward(self, x):
        axes = axes_of(self.name, self.axis, x.ndim)
        self.kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        shape = self.kept if self.keepdims else tuple(n for i, n in enumerate(x.shape) if i not in axes)
        self.count = math.prod(x.shape[i] for i in axes)
        if self.name == "mean" and (self.count == 0 or x.dtype not in FLOATS):
            raise (ValueError("mean: expected at least one element, got none") if self.count == 0 else
                   TypeError(f"mean: expected float numbers, got {x.dtype}; convert with .float()"))
        y = empty_array(shape, x.dtype if x.dtype in FLOATS else np.int64)
        launch(np.mean if self.name == "mean" else np.sum, x, axes, None, y, self.keepdims)
        return y

    def backward(self, g, y, x):
        if self.name == "mean":
            scaled = empty_array(g.shape, g.dtype)
            launch(np.multiply, g, 1.0 / self.count, scaled)
            g = scaled
        return (np.broadcast_to(g.reshape(self.kept), x.shape),)

    def saved(self, y, xs):
        return ()


def reduced_shape(shape: Sequence[int], axis: int | None, keepdims: bool) -> tuple[int, ...]:
    """A shape without one axis, or with length one there; all axes where none is named."""
    if axis is None:
        return (1,) * len(shape) if keepdims else ()
    return (*shape[:axis], *([1] if keepdims else []), *shape[axis + 1:])


class MaxMin(Op):
    """The largest (or smallest) element along an axis; the gradient goes to the first one of that size."""

    def __init__(self, name, axis, keepdims):
        self.name, self.axis, self.keepdims = name, axis, keepdims

    def forward(self, x):
        if self.axis is not None:
            self.axis = one_axis(self.name, self.axis, x.ndim)
        if not (x.size if self.axis is None else x.shape[self.axis]):
            raise ValueError(f"{self.name}: expected at least one element, got shape {x.shape}")
        y = empty_array(reduced_shape(x.shape, self.axis, self.keepdims), x.dtype)
        launch(np.max if self.name == "max" else np.min, x, self.axis, y, self.keepdims)
        return y

    def backward(self, g, y, x):
        dx = filled(x.shape, x.dtype, 0.0)
        launch(give_first, dx, g.reshape(reduced_shape(x.shape, self.axis, True)), x, self.axis, self.name)
        return (dx,)

    def saved(self, y, xs):
        return xs


def give_first(dx, g, x, axis, name):
    first = np.argmax if name == "max" else np.argmin
    if axis is None:
        dx.reshape(-1)[first(x)] = g.reshape(())
    else:
        np.put_along_axis(dx, first(x, axis, keepdims=True), g, axis)


# ------------------------------------------------------------------------------------------------------------- layout

class Layout(Op):
    """The same elements in another layout; `there` and `back` are functions on arrays, usually views."""

    is_view = True

    def __init__(self, name, there, back):
        self.name, self.there, self.back = name, there, back

    def forward(self, x):
        return self.there(x)

    def backward(self, g, y, x):
        return (self.back(g, x),)

    def saved(self, y, xs):
        return ()


class Index(Op):
    """x[key]: slices are views, arrays of indices gather; the gradient is scattered back to where it came from."""

    name, is_view = "[]", True

    def __init__(self, key):
        self.given, self.key = key, without_tensors(key)

    def forward(self, x):
        try:
            if is_slice(self.key):
                return part(x, self.key)
            like = x[self.key]
        except IndexError as error:
            raise IndexError(f"index: {error}; the tensor has shape {x.shape}") from None
        if mode.plan is None:
            return like
        if any(isinstance(k, np.ndarray) and k.dtype == bool for k in as_tuple(self.key)):
            forbid_in_capture("a choice by a boolean mask, whose size depends on the numbers,")
        y = empty_array(like.shape, like.dtype)
        launch(take_into, y, x, self.key)
        return y

    def backward(self, g, y, x):
        dx = filled(x.shape, x.dtype, 0.0)
        if is_slice(self.key):
            launch(np.copyto, part(dx, self.key), g)
        else:
            launch(np.add.at, dx, self.key, g)
        return (dx,)

    def saved(self, y, xs):
        return [k for k in as_tuple(self.given) if isinstance(k, Node)]


def as_tuple(key):
    return key if isinstance(key, tuple) else (key,)


def part(array, key):
    """array[key] for a key of slices and numbers: a view, also where it is a single element."""
    key = as_tuple(key)
    try:
        return array[key] if Ellipsis in key else array[(*key, ...)]
    except OverflowError:
        raise IndexError(f"{describe(key)} is out of bounds") from None


def put(array, key, value):
    array[key] = value


def take_into(out, x, key):
    out[...] = x[key]


def without_tensors(key):
    """A key with arrays in place of its Tensors and lists."""
    if isinstance(key, tuple):
        return tuple(without_tensors(k) for k in key)
    return key._data if isinstance(key, Node) else np.asarray(key) if isinstance(key, list) else key


def is_slice(key):
    """Whether array[key] is a view: the key has slices, integers, None and … only."""
    return all(k is None or k is Ellipsis or isinstance(k, (slice, int, np.integer)) and not isinstance(k, bool)
               for k in as_tuple(key))


class Cat(Op):
    """Arrays one after the other along an axis that they have."""

    name = "cat"

    def __init__(self, axis):
        self.axis = axis

    def forward(self, *xs):
        axis, = axes_of("cat", self.axis, xs[0].ndim)
        self.slices, start = [], 0
        for x in xs:
            others = [a.shape[:axis] + a.shape[axis + 1:] for a in (x, xs[0])]
            if x.ndim != xs[0].ndim or others[0] != others[1]:
                raise ValueError(f"cat: shapes {xs[0].shape} and {x.shape} differ beyond axis {axis}")
            self.slices.append((slice(None),) * axis + (slice(start, start + x.shape[axis]),))
            start += x.shape[axis]
        dtype = functools.reduce(common_dtype, [x.dtype for x in xs])
        y = empty_array((*xs[0].shape[:axis], start, *xs[0].shape[axis + 1:]), dtype)
        for x, there in zip(xs, self.slices):
            launch(np.copyto, y[there], x)
        return y

    def backward(self, g, y, *xs):
        return [cast(g[there], x.dtype) if need else None for there, x, need in zip(self.slices, xs, self.needs)]

    def saved(self, y, xs):
        return ()


def arg_max_min(name: str, x: Any, axis: Any, keepdims: bool) -> Any:
    """The index of the first largest or smallest element."""
    axis = None if axis is None else one_axis(name, axis, x.ndim)
    if not x.numel():
        raise ValueError(f"{name}: expected at least one element, got shape {x.shape}")
    y = empty_array(reduced_shape(x.shape, axis, keepdims), np.int64)
    launch(into_indices, y, x._data, axis, name)
    return leaf(y)


def into_indices(out: np.ndarray, x: np.ndarray, axis: int | None, name: str) -> None:
    out[...] = np.reshape((np.argmax if name == "argmax" else np.argmin)(x, axis), out.shape)
