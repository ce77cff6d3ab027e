"""NumPy's functions on Tensors: np.exp(x), np.where(x > 0, x, 0), np.pad(x, 1), … give Tensors, with gradients.

So a reference implementation is one text for both engines: arrays of Values are NumPy's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..kernels import launch
from .core import as_tensor
from .creation import cat, empty_like, full_like, maximum, minimum, ones_like, stack, zeros_like
from .memory import filled
from .methods import FUNCTIONS, PREDICATES, UFUNCS, Tensor
from .operations import Einsum, Layout, where


def clip(x: Tensor, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Tensor:
    return x.clip(a_min if min is None else min, a_max if max is None else max)


def moveaxis(x: Tensor, source: Any, destination: Any) -> Tensor:
    return x.permute(np.moveaxis(np.empty(range(x.ndim)), source, destination).shape)


def pad(x: Tensor, pad_width: Any, mode: str = "constant", constant_values: float = 0.0) -> Tensor:
    """A margin of one number: `pad_width` is (before, after) for each axis, or one for all axes."""
    if mode != "constant":
        raise ValueError(f"pad: expected mode to be 'constant', got {mode!r}")
    widths = np.broadcast_to(pad_width, (x.ndim, 2)).tolist()
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, widths))
    inside = tuple(slice(before, before + n) for n, (before, _) in zip(x.shape, widths))

    def there(a: np.ndarray) -> np.ndarray:
        y = filled(shape, a.dtype, constant_values)
        launch(np.copyto, y[inside], a)
        return y

    return Layout("pad", there, lambda g, a: g[inside])(x)


def sliding_window_view(x: Tensor, window_shape: Any, axis: Any = None) -> Tensor:
    """All windows of that shape, their axes last."""
    view = np.lib.stride_tricks.sliding_window_view

    def back(g: np.ndarray, a: np.ndarray) -> np.ndarray:
        dx = filled(a.shape, a.dtype, 0.0)
        windows = view(dx, window_shape, axis, writeable=True)
        for i in np.ndindex(g.shape[a.ndim:]):  # windows overlap, the elements at one index of all windows do not
            launch(np.add, windows[..., *i], g[..., *i], windows[..., *i])
        return dx

    return Layout("windows", lambda a: view(a, window_shape, axis), back)(x)


def einsum(subscripts: str, a: Any, b: Any) -> Tensor:
    """Σ of the products over the subscripts that the result lacks: einsum("ij,jk->ik", a, b) is a @ b."""
    parts = subscripts.replace(" ", "").replace("->", ",").split(",")
    a, b = as_tensor(a, b), as_tensor(b, a)
    if len(parts) != 3 or not "".join(parts).isalpha() or any(len(set(part)) != len(part) for part in parts):
        raise ValueError(f"einsum: expected subscripts such as 'ij,jk->ik', no letter twice in one of the three, got "
                         f"{subscripts!r}")
    first, second, result = parts
    sizes = dict(zip(first + second, a.shape + b.shape))
    if (a.dtype != b.dtype or tuple(map(sizes.get, first)) != a.shape or tuple(map(sizes.get, second)) != b.shape
            or not set(first) ^ set(second) <= set(result) <= set(sizes)):
        raise ValueError(f"einsum: {subscripts!r} does not fit {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    return Einsum(first, second, result)(a, b)


def unary(name: str) -> Any:
    method = getattr(Tensor, name)
    return lambda x: method(x)


def binary(name: str) -> Any:
    method = getattr(Tensor, name)
    return lambda a, b: method(as_tensor(a, b), b)


UFUNCS |= {getattr(np, ufunc): unary(method) for ufunc, method in (
    ("exp", "exp"), ("log", "log"), ("sqrt", "sqrt"), ("square", "square"), ("sin", "sin"), ("cos", "cos"),
    ("tanh", "tanh"), ("absolute", "abs"), ("negative", "neg"))}
UFUNCS |= {getattr(np, ufunc): binary(method) for ufunc, method in (
    ("add", "__add__"), ("subtract", "__sub__"), ("multiply", "__mul__"), ("divide", "__truediv__"),
    ("power", "__pow__"), ("matmul", "__matmul__"), ("equal", "__eq__"), ("not_equal", "__ne__"), ("less", "__lt__"),
    ("less_equal", "__le__"), ("greater", "__gt__"), ("greater_equal", "__ge__"))}
UFUNCS |= {np.maximum: maximum, np.minimum: minimum}

FUNCTIONS |= {
    np.where: where, np.clip: clip, np.pad: pad, np.einsum: einsum, np.dot: np.matmul, np.copy: Tensor.clone,
    np.lib.stride_tricks.sliding_window_view: sliding_window_view, np.stack: stack, np.concatenate: cat,
    np.sum: Tensor.sum, np.mean: Tensor.mean, np.max: Tensor.max, np.min: Tensor.min, np.all: Tensor.all,
    np.any: Tensor.any, np.argmax: Tensor.argmax, np.argmin: Tensor.argmin, np.round: Tensor.round,
    np.var: lambda x, axis=None, *, ddof=0, keepdims=False: x.var(axis, keepdims, ddof),
    np.std: lambda x, axis=None, *, ddof=0, keepdims=False: x.std(axis, keepdims, ddof),
    np.reshape: Tensor.reshape, np.ravel: Tensor.ravel, np.squeeze: Tensor.squeeze,
    np.expand_dims: lambda x, axis: x.unsqueeze(axis), np.broadcast_to: lambda x, shape: x.expand(shape),
    np.transpose: lambda x, axes=None: x.transpose() if axes is None else x.permute(axes),
    np.swapaxes: Tensor.swapaxes, np.moveaxis: moveaxis, np.tril: Tensor.tril, np.triu: Tensor.triu,
    np.zeros_like: zeros_like, np.ones_like: ones_like, np.full_like: full_like, np.empty_like: empty_like,
    np.shape: lambda x: x.shape, np.ndim: lambda x: x.ndim, np.size: lambda x: x.numel(),
}

PREDICATES |= {np.allclose, np.isclose, np.array_equal, np.array_equiv, np.argsort, np.nonzero, np.count_nonzero,
               np.array_repr, np.array_str, np.array2string, np.iscomplexobj, np.isrealobj, np.result_type, np.can_cast,
               np.may_share_memory, np.shares_memory}
