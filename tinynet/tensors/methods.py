"""Tensor: the node of core.py with its methods, in NumPy's dialect and under PyTorch's names.

To add an operation on single elements, add a row to the derivative table in value.py and a line here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..errors import check_bool, check_int, check_number, check_positive_int, describe, is_int, is_number
from ..kernels import launch
from ..value import RULES
from .core import Op, as_tensor, is_operand, leaf, operand
from .inplace import InPlace, Operand
from .memory import FLOATS, contiguous, copied, empty_array
from .operations import (
    Binary,
    Cast,
    Clip,
    Index,
    Layout,
    MatMul,
    MaxMin,
    Reduce,
    Unary,
    arg_max_min,
    axes_of,
    broadcast_shape,
    common_dtype,
    one_axis,
    unbroadcast,
    where,
    without_tensors,
)

Axis = int | Sequence[int] | None
Shape = int | Sequence[int]

# What NumPy's functions do with Tensors; numpy_functions.py says it.
UFUNCS: dict[Any, Callable[..., Any]] = {}
FUNCTIONS: dict[Any, Callable[..., Any]] = {}
PREDICATES: set[Any] = set()  # functions that read arrays, whatever gradients flow


class Pair(NamedTuple):
    """What max(dim=…), topk and sort give."""

    values: Tensor
    indices: Tensor


def unary(name: str, x: Tensor) -> Tensor:
    return Unary(RULES[name])(x)


def binary(name: str, a: Any, b: Any) -> Tensor:
    """a rule of two operands, one of which is a Tensor; NotImplemented where the other one is no number."""
    if not isinstance(b, Tensor):
        if not is_operand(b):
            return NotImplemented
        b = as_tensor(b, a)
    elif not isinstance(a, Tensor):
        if not is_operand(a):
            return NotImplemented
        a = as_tensor(a, b)
    return Binary(RULES[name])(a, b)


def compare(ufunc: Any, a: Tensor, b: Any) -> Tensor:
    """A tensor of bools, element by element."""
    if not is_operand(b):
        return NotImplemented
    return computed(ufunc, a, as_tensor(b, a), np.dtype(bool))


def logical(ufunc: Any, symbol: str, a: Tensor, b: Any) -> Tensor:
    """a and b, or, …, of tensors of bools."""
    for x in (a, b):
        if not isinstance(x, Tensor) or x.dtype != bool:
            got = x.dtype if isinstance(x, Tensor) else describe(x)
            raise TypeError(f"{symbol}: expected tensors of bools, as comparisons give them, got {got}")
    return computed(ufunc, a, b, np.dtype(bool))


def divide_integers(ufunc: Any, symbol: str, a: Tensor, b: Any) -> Tensor:
    """a % b and a // b of integers, through which no gradient flows."""
    if not is_operand(b):
        return NotImplemented
    b = as_tensor(b, a)
    for x in (a, b):
        if x.dtype.kind not in "iu":
            raise TypeError(f"{symbol}: expected integers, got {x.dtype}")
    if not b._data.all():
        raise ValueError(f"{symbol}: division by 0")
    return computed(ufunc, a, b, common_dtype(a.dtype, b.dtype))


def computed(ufunc: Any, a: Tensor, b: Tensor, dtype: np.dtype) -> Tensor:
    """ufunc(a, b), which takes no gradient."""
    y = empty_array(broadcast_shape(ufunc.__name__, a.shape, b.shape), dtype)
    launch(ufunc, a._data, b._data, y)
    return leaf(y)


def merge(name: str, axis: Any, dim: Any, keepdims: Any, keepdim: Any) -> tuple[Any, bool]:
    """(axis, keepdims) from NumPy's arguments and PyTorch's."""
    return axis if dim is None else dim, check_bool(name, "keepdims", keepdims) or check_bool(name, "keepdim", keepdim)


def into_order(out: np.ndarray, x: np.ndarray, axis: int, descending: bool) -> None:
    order = np.argsort(x, axis, kind="stable")
    out[...] = np.take(np.flip(order, axis) if descending else order, range(out.shape[axis]), axis)


def shape_of(name: str, shape: Any) -> tuple[int, ...]:
    """reshape(2, 3), reshape((2, 3)) and reshape([2, 3]) are one call."""
    shape = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    for n in shape:
        if not is_int(n):
            raise TypeError(f"{name}: expected integers, got {describe(n)}")
    return tuple(int(n) for n in shape)


def takes_gradient(x: Any) -> bool:
    """Whether x is a Tensor that requires a gradient, or holds one."""
    return any(map(takes_gradient, x)) if isinstance(x, (list, tuple)) else isinstance(x, Tensor) and x.requires_grad


def as_arrays(x: Any) -> Any:
    """x, with arrays for the Tensors in it."""
    return type(x)(map(as_arrays, x)) if type(x) in (list, tuple) else np.asarray(x) if isinstance(x, Tensor) else x


class Tensor(InPlace):
    """An array in a graph. Make one with `tensor`, `zeros`, `randn`, …

    data           the same memory as a Tensor that takes no gradient
    grad           d root / d this after `backward()`, a Tensor, or None; on leaves it adds up over calls
    requires_grad  whether gradients flow here
    op, inputs     what computed it, and from which tensors; None and () for a leaf

    Elements are float32 unless asked otherwise. Arithmetic broadcasts as NumPy's does. In-place methods (`x += y`,
    `add_`, `x[i] = y`) work where no gradient flows: on leaves under `no_grad`, on `data`, `grad` and detached tensors.
    """

    __slots__ = ()

    # ---------------------------------------------------------------------------------------- one element at a time

    def __add__(self, other: Operand) -> Tensor: return binary("+", self, other)
    def __radd__(self, other: Operand) -> Tensor: return binary("+", other, self)
    def __sub__(self, other: Operand) -> Tensor: return binary("-", self, other)
    def __rsub__(self, other: Operand) -> Tensor: return binary("-", other, self)
    def __mul__(self, other: Operand) -> Tensor: return binary("*", self, other)
    def __rmul__(self, other: Operand) -> Tensor: return binary("*", other, self)
    def __truediv__(self, other: Operand) -> Tensor: return binary("/", self, other)
    def __rtruediv__(self, other: Operand) -> Tensor: return binary("/", other, self)
    def __pow__(self, other: Operand) -> Tensor: return binary("**", self, other)
    def __rpow__(self, other: Operand) -> Tensor: return binary("**", other, self)
    def __neg__(self) -> Tensor: return unary("neg", self)
    def __abs__(self) -> Tensor: return unary("abs", self)

    def neg(self) -> Tensor: return unary("neg", self)
    def abs(self) -> Tensor: return unary("abs", self)
    def exp(self) -> Tensor: return unary("exp", self)
    def log(self) -> Tensor: return unary("log", self)
    def sqrt(self) -> Tensor: return unary("sqrt", self)
    def sin(self) -> Tensor: return unary("sin", self)
    def cos(self) -> Tensor: return unary("cos", self)
    def tanh(self) -> Tensor: return unary("tanh", self)
    def sigmoid(self) -> Tensor: return unary("sigmoid", self)
    def relu(self) -> Tensor: return unary("relu", self)
    def erf(self) -> Tensor: return unary("erf", self)
    def gelu(self) -> Tensor: return unary("gelu", self)
    def softplus(self) -> Tensor: return unary("softplus", self)

    def add(self, other: Operand) -> Tensor: return self + operand("add", other, self)
    def sub(self, other: Operand) -> Tensor: return self - operand("sub", other, self)
    def mul(self, other: Operand) -> Tensor: return self * operand("mul", other, self)
    def div(self, other: Operand) -> Tensor: return self / operand("div", other, self)
    def pow(self, other: Operand) -> Tensor: return self ** operand("pow", other, self)
    def maximum(self, other: Operand) -> Tensor: return binary("max", self, operand("maximum", other, self))
    def minimum(self, other: Operand) -> Tensor: return binary("min", self, operand("minimum", other, self))

    def square(self) -> Tensor:
        """x²"""
        return self * self

    def log10(self) -> Tensor:
        """The logarithm to base 10."""
        return self.log() * (1.0 / math.log(10.0))

    def round(self, decimals: int = 0) -> Tensor:
        """Each element rounded, halves to the even number; no gradient flows through."""
        y = empty_array(self.shape, self.dtype)
        launch(np.round, self._data, check_int("round", "decimals", decimals), y)
        return leaf(y)

    def clip(self, min: float | None = None, max: float | None = None) -> Tensor:
        """min where an element is below it, max where above."""
        if min is None and max is None:
            raise ValueError("clip: expected min or max, got neither")
        for name, x in (("min", min), ("max", max)):
            if x is not None and not is_number(x):
                raise TypeError(f"clip: expected {name} to be a number, got {describe(x)}")
            if isinstance(x, int) and abs(x) >= 2**63:
                raise ValueError(f"clip: expected {name} to be below 2**63, got {describe(x)}")
        return Clip(without_tensors(min), without_tensors(max))(self)

    def masked_fill(self, mask: Operand, value: float) -> Tensor:
        """`value` where the mask is true: masked_fill(mask, -math.inf) before a softmax."""
        return where(mask, value, self)

    # --------------------------------------------------------------------------------------------------- comparison

    def __eq__(self, other: Any) -> Tensor: return compare(np.equal, self, other)  # type: ignore[override]
    def __ne__(self, other: Any) -> Tensor: return compare(np.not_equal, self, other)  # type: ignore[override]
    def __lt__(self, other: Any) -> Tensor: return compare(np.less, self, other)
    def __le__(self, other: Any) -> Tensor: return compare(np.less_equal, self, other)
    def __gt__(self, other: Any) -> Tensor: return compare(np.greater, self, other)
    def __ge__(self, other: Any) -> Tensor: return compare(np.greater_equal, self, other)
    def __and__(self, other: Any) -> Tensor: return logical(np.logical_and, "&", self, other)
    def __or__(self, other: Any) -> Tensor: return logical(np.logical_or, "|", self, other)
    def __xor__(self, other: Any) -> Tensor: return logical(np.logical_xor, "^", self, other)
    def __invert__(self) -> Tensor: return logical(np.logical_xor, "~", self, leaf(np.array(True)))
    def __mod__(self, other: Any) -> Tensor: return divide_integers(np.remainder, "%", self, other)
    def __floordiv__(self, other: Any) -> Tensor: return divide_integers(np.floor_divide, "//", self, other)

    __hash__ = object.__hash__

    def eq(self, other: Any) -> Tensor: return self == operand("eq", other, self)
    def ne(self, other: Any) -> Tensor: return self != operand("ne", other, self)
    def lt(self, other: Any) -> Tensor: return self < operand("lt", other, self)
    def le(self, other: Any) -> Tensor: return self <= operand("le", other, self)
    def gt(self, other: Any) -> Tensor: return self > operand("gt", other, self)
    def ge(self, other: Any) -> Tensor: return self >= operand("ge", other, self)

    # --------------------------------------------------------------------------------------------- products and sums

    def __matmul__(self, other: Operand) -> Tensor:
        return MatMul()(self, as_tensor(other, self)) if is_operand(other) else NotImplemented

    def __rmatmul__(self, other: Operand) -> Tensor:
        return MatMul()(as_tensor(other, self), self) if is_operand(other) else NotImplemented

    def matmul(self, other: Operand) -> Tensor:
        """self @ other"""
        return self @ operand("matmul", other, self)

    def sum(self, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None, keepdim: bool = False) -> Tensor:
        """The sum over `axis` (over all axes where none is named)."""
        return Reduce("sum", *merge("sum", axis, dim, keepdims, keepdim))(self)

    def mean(self, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None, keepdim: bool = False) -> Tensor:
        """The mean over `axis`."""
        return Reduce("mean", *merge("mean", axis, dim, keepdims, keepdim))(self)

    def var(self, axis: Axis = None, keepdims: bool = False, correction: int = 1, *, dim: Axis = None,
            keepdim: bool = False) -> Tensor:
        """The variance Σ(x - mean)² / (n - correction) over `axis`."""
        axis, keepdims = merge("var", axis, dim, keepdims, keepdim)
        n = math.prod(self.shape[i] for i in axes_of("var", axis, self.ndim))
        if n <= check_number("var", "correction", correction):
            raise ValueError(f"var: {n} elements are too few for correction={correction}")
        d = self - self.mean(axis, keepdims=True)
        return (d * d).sum(axis, keepdims=keepdims) * (1.0 / (n - correction))

    def std(self, axis: Axis = None, keepdims: bool = False, correction: int = 1, *, dim: Axis = None,
            keepdim: bool = False) -> Tensor:
        """The standard deviation √var over `axis`."""
        return self.var(axis, keepdims, correction, dim=dim, keepdim=keepdim).sqrt()

    def norm(self, p: float | str = 2, dim: Axis = None, keepdim: bool = False, *, axis: Axis = None,
             keepdims: bool = False) -> Tensor:
        """(Σ |x|ᵖ)^(1/p) over `dim`, the largest |x| for p = inf; where the 2-norm is 0, so is its gradient."""
        axis, keepdims = merge("norm", axis, dim, keepdims, keepdim)
        if p in (2, "fro"):
            squares = (self * self).sum(axis, keepdims)
            zero = squares == 0
            return (squares + zero).sqrt() * ~zero
        p = check_number("norm", "p", p, 1) if p != math.inf else p
        if p == math.inf:
            return self.abs().max(axis, keepdims)
        return self.abs().sum(axis, keepdims) if p == 1 else (self.abs() ** p).sum(axis, keepdims) ** (1 / p)

    def max(self, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None,
            keepdim: bool | None = None) -> Any:
        """The maximum over `axis`, in NumPy's words; in PyTorch's, dim= and keepdim=, a pair (values, indices)."""
        return self._max_min("max", axis, keepdims, dim, keepdim)

    def min(self, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None,
            keepdim: bool | None = None) -> Any:
        """The minimum over `axis`, in NumPy's words; in PyTorch's, dim= and keepdim=, a pair (values, indices)."""
        return self._max_min("min", axis, keepdims, dim, keepdim)

    def _max_min(self, name: str, axis: Any, keepdims: Any, dim: Any, keepdim: Any) -> Any:
        if dim is None and keepdim is None:
            return MaxMin(name, axis, check_bool(name, "keepdims", keepdims))(self)
        axis, keepdims = merge(name, axis, dim, keepdims, keepdim or False)
        return Pair(MaxMin(name, axis, keepdims)(self), arg_max_min(f"arg{name}", self, axis, keepdims))

    def argmax(self, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None,
               keepdim: bool = False) -> Tensor:
        """The index of the first maximum along `axis` (in the flattened tensor where none is named)."""
        return arg_max_min("argmax", self, *merge("argmax", axis, dim, keepdims, keepdim))

    def argmin(self, axis: int | None = None, keepdims: bool = False, *, dim: int | None = None,
               keepdim: bool = False) -> Tensor:
        """The index of the first minimum along `axis`."""
        return arg_max_min("argmin", self, *merge("argmin", axis, dim, keepdims, keepdim))

    def all(self, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None, keepdim: bool = False) -> Tensor:
        """Whether all elements along `axis` are true (not 0)."""
        return self._reduce_bools(np.logical_and, "all", *merge("all", axis, dim, keepdims, keepdim))

    def any(self, axis: Axis = None, keepdims: bool = False, *, dim: Axis = None, keepdim: bool = False) -> Tensor:
        """Whether any element along `axis` is true (not 0)."""
        return self._reduce_bools(np.logical_or, "any", *merge("any", axis, dim, keepdims, keepdim))

    def _reduce_bools(self, ufunc: Any, name: str, axis: Any, keepdims: bool) -> Tensor:
        axes = axes_of(name, axis, self.ndim)
        shape = tuple(1 if i in axes else n for i, n in enumerate(self.shape) if keepdims or i not in axes)
        y = empty_array(shape, bool)
        launch(ufunc.reduce, self._data, axes, np.dtype(bool), y, keepdims)
        return leaf(y)

    # ------------------------------------------------------------------------------------------------------- layout

    def clone(self) -> Tensor:
        """A copy, through which gradients flow."""
        return Layout("clone", lambda x: copied(x), lambda g, x: g)(self)

    copy = clone

    def reshape(self, *shape: Shape) -> Tensor:
        """The same elements, row by row, in another shape; one -1 stands for what is left."""
        shape = shape_of("reshape", shape)
        rest, count = math.prod(n for n in shape if n != -1), self._data.size
        fits = rest == count if -1 not in shape else count % rest == 0 if rest else count == 0
        if shape.count(-1) > 1 or min(shape, default=0) < -1 or not fits:
            raise ValueError(f"reshape: {count} elements of shape {self.shape} do not fit {shape}")
        shape = tuple((count // rest if rest else 0) if n == -1 else n for n in shape)
        return Layout("reshape", lambda x: contiguous(x).reshape(shape),
                      lambda g, x: contiguous(g).reshape(x.shape))(self)

    def view(self, *shape: Shape) -> Tensor:
        """reshape, under PyTorch's name."""
        return self.reshape(*shape)

    def view_as(self, other: Tensor) -> Tensor:
        """In the shape of another tensor."""
        return self.reshape(*operand("view_as", other, self).shape)

    def permute(self, *axes: Shape) -> Tensor:
        """The axes in another order."""
        axes = shape_of("permute", axes)
        if sorted(i % self.ndim if self.ndim else i for i in axes) != list(range(self.ndim)):
            raise ValueError(f"permute: expected the axes 0 to {self.ndim - 1}, each once, got {axes}")
        back = tuple(np.argsort([i % self.ndim for i in axes]))
        return Layout("permute", lambda x: x.transpose(axes), lambda g, x: g.transpose(back))(self)

    def transpose(self, *axes: int) -> Tensor:
        """Two axes exchanged: transpose(0, 1), or all of them reversed: transpose()."""
        if not axes:
            return self.permute(*reversed(range(self.ndim))) if self.ndim else self
        if len(axes) != 2:
            return self.permute(*axes)
        i, j = (one_axis("transpose", axis, self.ndim) for axis in axes)
        return Layout("transpose", lambda x: x.swapaxes(i, j), lambda g, x: g.swapaxes(i, j))(self)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Two axes exchanged."""
        return self.transpose(axis1, axis2)

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return self.transpose()

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged."""
        return self.transpose(-1, -2)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from start_dim to end_dim as one."""
        if not self.ndim:
            return self.reshape(1)
        start, end = one_axis("flatten", start_dim, self.ndim), one_axis("flatten", end_dim, self.ndim)
        return self.reshape(*self.shape[:start], math.prod(self.shape[start:end + 1]), *self.shape[end + 1:])

    def ravel(self) -> Tensor:
        """All elements in one axis."""
        return self.reshape(-1)

    def squeeze(self, axis: Axis = None, *, dim: Axis = None) -> Tensor:
        """Without the axes of length one (or without that one)."""
        axes = axes_of("squeeze", axis if dim is None else dim, self.ndim)
        return self.reshape(tuple(n for i, n in enumerate(self.shape) if i not in axes or n != 1))

    def unsqueeze(self, axis: int) -> Tensor:
        """With a new axis of length one."""
        axis = one_axis("unsqueeze", axis, self.ndim + 1)
        return self.reshape(*self.shape[:axis], 1, *self.shape[axis:])

    def expand(self, *shape: Shape) -> Tensor:
        """Repeated along axes of length one, without copying; -1 keeps an axis."""
        shape = shape_of("expand", shape)
        lead = len(shape) - self.ndim
        if lead < 0:
            raise ValueError(f"expand: {shape} has fewer axes than {self.shape}")
        shape = tuple(self.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(shape))
        if min(shape, default=0) < 0 or broadcast_shape("expand", self.shape, shape) != shape:
            raise ValueError(f"expand: {self.shape} does not broadcast to {shape}")
        return Layout("expand", lambda x: np.broadcast_to(x, shape), lambda g, x: unbroadcast(g, x))(self)

    def broadcast_to(self, *shape: Shape) -> Tensor:
        """expand, under NumPy's name."""
        return self.expand(*shape)

    def tril(self, diagonal: int = 0) -> Tensor:
        """The lower triangle of the last two axes; the other elements are 0."""
        return self._triangle(np.tril, diagonal)

    def triu(self, diagonal: int = 0) -> Tensor:
        """The upper triangle of the last two axes; the other elements are 0."""
        return self._triangle(np.triu, diagonal)

    def _triangle(self, mask: Any, diagonal: int) -> Tensor:
        if self.ndim < 2:
            raise ValueError(f"{mask.__name__}: expected a matrix, got shape {self.shape}")
        rows, columns = self.shape[-2:]
        diagonal = max(-rows, min(check_int(mask.__name__, "diagonal", diagonal), columns))
        return where(leaf(mask(np.ones(self.shape[-2:], bool), diagonal)), self, 0)

    # ------------------------------------------------------------------------------------------------------ indexing

    def __iter__(self) -> Iterator[Tensor]:
        if not self._data.ndim:
            raise TypeError("iteration over a tensor of one number")
        return (self[i] for i in range(len(self._data)))

    def __getitem__(self, key: Any) -> Tensor:
        return Index(key)(self)

    def gather(self, dim: int, index: Operand) -> Tensor:
        """The elements at indices along `dim`; index is shaped as self but there: y[i, j] = self[i, index[i, j]] for
        dim=1."""
        axis = one_axis("gather", dim, self.ndim)
        index = operand("gather", index, self)
        if index.dtype.kind not in "iu":
            raise TypeError(f"gather: expected integers as indices, got {index.dtype}")
        if index.ndim != self.ndim or any(i > n for k, (i, n) in enumerate(zip(index.shape, self.shape)) if k != axis):
            raise ValueError(f"gather: an index of shape {index.shape} does not fit {self.shape} along axis {axis}")
        indices: list[Any] = list(np.ogrid[tuple(slice(n) for n in index.shape)])
        indices[axis] = index
        return self[tuple(indices)]

    def topk(self, k: int, dim: int = -1, largest: bool = True) -> Pair:
        """The k largest elements along `dim` in falling order (or the smallest, rising): a pair (values, indices).

        >>> from tinynet import tensor
        >>> tensor([0.1, 0.7, 0.2]).topk(2).indices.tolist()
        [1, 2]
        """
        axis, largest = one_axis("topk", dim, self.ndim), check_bool("topk", "largest", largest)
        k = check_int("topk", "k", k)
        if not 0 <= k <= self.shape[axis]:
            raise ValueError(f"topk: there are no {k} elements along axis {dim} of shape {self.shape}")
        indices = empty_array((*self.shape[:axis], k, *self.shape[axis + 1:]), np.int64)
        launch(into_order, indices, self._data, axis, largest)
        return Pair(self.gather(axis, leaf(indices)), leaf(indices))

    def sort(self, dim: int = -1, descending: bool = False) -> Pair:
        """The elements along `dim` in rising order (or falling): a pair (values, indices)."""
        return self.topk(self.shape[one_axis("sort", dim, self.ndim)], dim, descending)

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Parts of that length along `dim` (the last may be shorter), or of the lengths in a list: a tuple of views."""
        axis = one_axis("split", dim, self.ndim)
        n = self.shape[axis]
        if is_int(split_size):
            size = check_positive_int("split", "split_size", split_size)
            lengths = [min(size, n - i) for i in range(0, n, size)]
        else:
            lengths = [*shape_of("split", tuple(split_size))]
        if sum(lengths) != n or min(lengths, default=0) < 0:
            raise ValueError(f"split: lengths {lengths} do not make up axis {dim} of shape {self.shape}")
        ends = np.cumsum([0, *lengths]).tolist()
        return tuple(self[(slice(None),) * axis + (slice(a, b),)] for a, b in zip(ends, ends[1:]))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """`chunks` parts of equal length along `dim`, the last one perhaps shorter; see `split`."""
        chunks, axis = check_positive_int("chunk", "chunks", chunks), one_axis("chunk", dim, self.ndim)
        return self.split(max(1, math.ceil(self.shape[axis] / chunks)), axis)

    # --------------------------------------------------------------------------------------------------------- NumPy

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """np.exp(x), np.add(array, x), …: reference implementations are written in NumPy's own names."""
        operation = UFUNCS.get(ufunc)
        if method == "__call__" and not options and operation is not None:
            return operation(*inputs)
        if any(isinstance(x, Tensor) for x in options.get("out", ())):
            return NotImplemented
        try:  # array -= tensor; np.isnan(x), np.floor(x), …, through which no gradient flows
            y = getattr(ufunc, method)(*map(as_arrays, inputs), **options)
        except ValueError as error:
            raise ValueError(f"{ufunc.__name__}: {error}") from None
        except AttributeError as error:  # of a Value, or another object in an array
            raise TypeError(f"{ufunc.__name__}: {error}") from None
        if "out" in options:
            return y
        return NotImplemented if takes_gradient(inputs) and np.asarray(y).dtype != bool else leaf(np.asarray(y))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """np.where(x > 0, x, 0), np.stack([x, y]), …: NumPy's functions that are written for tensors as well
        (`FUNCTIONS`) give tensors; all others give arrays, and take no tensor through which a gradient flows."""
        operation = FUNCTIONS.get(function)
        if operation is not None:
            return operation(*args, **options)
        if function not in PREDICATES and takes_gradient((*args, *options.values())):
            return NotImplemented
        return function(*as_arrays(args), **{name: as_arrays(x) for name, x in options.items()})

    # ---------------------------------------------------- dtype: last, because names hide Python's float, int and bool

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[one_axis("size", dim, self.ndim)]

    def clamp(self, min: float | None = None, max: float | None = None) -> Tensor:
        """clip, under PyTorch's name."""
        return self.clip(min, max)

    def contiguous(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def to(self, dtype: DTypeLike) -> Tensor:
        """The same numbers in another dtype ("tensor" and "cpu" name where they already are)."""
        if isinstance(dtype, str) and dtype in ("tensor", "cpu"):
            return self
        if isinstance(dtype, str) and dtype == "scalar":
            raise ValueError('to("scalar"): models move between engines; for one array use np.vectorize(Value)')
        try:
            dtype = as_dtype("to", dtype)
        except TypeError:
            raise TypeError(f'to: expected a dtype, or "cpu" where all tensors are, got {describe(dtype)}') from None
        if dtype == self.dtype:
            return self
        return Cast(dtype)(self if dtype in FLOATS else self.detach())  # integers take no gradients

    def astype(self, dtype: DTypeLike) -> Tensor:
        """to, under NumPy's name."""
        return self.to(dtype)

    def double(self) -> Tensor:
        return self.to(np.float64)

    def long(self) -> Tensor:
        return self.to(np.int64)

    def type(self, dtype: DTypeLike) -> Tensor:
        return self.to(dtype)

    def float(self) -> Tensor:
        return self.to(np.float32)

    def int(self) -> Tensor:
        return self.to(np.int32)

    def bool(self) -> Tensor:
        return self != 0


def as_dtype(name: str, dtype: Any) -> np.dtype:
    """The dtype of that name; TypeError where tensors have no such dtype."""
    try:
        dtype = np.dtype(dtype if dtype is not None else "?!")
    except (TypeError, ValueError):
        raise TypeError(f"{name}: unknown dtype {describe(dtype)}") from None
    if dtype.kind not in "fiub" or (dtype.kind == "f" and dtype not in FLOATS):
        raise TypeError(f"{name}: expected float32, float64, an integer or bool, got {dtype}")
    return dtype


Op.tensor = Tensor
