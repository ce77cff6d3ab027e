"""The functions that create Tensors, and those that join several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..errors import check_int, check_number, describe, is_number
from ..kernels import launch
from .core import as_array, as_tensor, forbid_in_capture, operand
from .memory import FLOATS, empty_array
from .methods import Operand, Shape, Tensor, as_dtype, shape_of
from .operations import Cat, one_axis
from .random import Stream, Streams, check_generator, random_normal, random_uniform

Random = Stream | Streams | None


def device(name: str | None) -> str:
    """The device of tensors, under PyTorch's name: "cpu", there is no other.

    >>> zeros(2, device=device("cpu")).tolist()
    [0.0, 0.0]
    """
    if name is not None and not (isinstance(name, str) and name in ("cpu", "tensor")):
        raise ValueError(f'device: tensors are on the "cpu", got {describe(name)}')
    return "cpu"


on = device  # for functions that have a parameter of this name


def tensor(data: Any, dtype: DTypeLike | None = None, requires_grad: bool = False, label: str = "",
           device: str | None = None) -> Tensor:
    """A Tensor with a copy of the numbers in `data`: floats become float32, NumPy arrays keep their dtype.

    `device` may be "cpu" here and in all that follows, for scripts that say so.

    >>> tensor([1.0, 2.0]).dtype
    dtype('float32')
    """
    on(device)
    array = as_array(data)
    array = array.astype(as_dtype("tensor", dtype) if dtype is not None else array.dtype)  # always a copy
    return Tensor(array, requires_grad, label)


def from_numpy(array: np.ndarray) -> Tensor:
    """A Tensor that shares the array's memory."""
    return Tensor(array)


def allocate(name: str, shape: Any, dtype: Any, device: Any) -> np.ndarray:
    on(device)
    shape = shape_of(name, shape)
    if min(shape, default=0) < 0:
        raise ValueError(f"{name}: expected non-negative integers as shape, got {shape}")
    try:
        return empty_array(shape, as_dtype(name, dtype))
    except ValueError as error:  # more elements, or more axes, than there can be
        raise ValueError(f"{name}: {str(error).removeprefix('tensor: ')}") from None


def computed(name: str, function: Callable[..., np.ndarray], *args: Any, **options: Any) -> np.ndarray:
    """The array that a function of NumPy's computes; ValueError where there is no memory for it."""
    try:
        return function(*args, **options)
    except (MemoryError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def constant(name: str, shape: Any, number: Any, dtype: Any, requires_grad: bool, device: Any) -> Tensor:
    array = allocate(name, shape, dtype, device)
    launch(np.copyto, array, array.dtype.type(number))
    return Tensor(array, requires_grad)


def drawn(name: str, shape: Any, fill: Callable[..., None], dtype: Any, requires_grad: bool, device: Any,
          generator: Any) -> Tensor:
    array = allocate(name, shape, dtype, device)
    if array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32 or float64, got {array.dtype}")
    launch(fill, array, check_generator(name, generator))
    return Tensor(array, requires_grad)


def like(name: str, x: Any, dtype: Any) -> tuple[tuple[int, ...], Any]:
    """The shape of x, and its dtype where no other is named."""
    if not isinstance(getattr(x, "shape", None), tuple) or not hasattr(x, "dtype"):
        raise TypeError(f"{name}: expected a tensor or an array, got {describe(x)}")
    return x.shape, x.dtype if dtype is None else dtype


def zeros(*shape: Shape, dtype: DTypeLike = np.float32, requires_grad: bool = False,
          device: str | None = None) -> Tensor:
    """Zeros in that shape: zeros(2, 3) or zeros((2, 3))."""
    return constant("zeros", shape, 0, dtype, requires_grad, device)


def ones(*shape: Shape, dtype: DTypeLike = np.float32, requires_grad: bool = False,
         device: str | None = None) -> Tensor:
    """Ones in that shape."""
    return constant("ones", shape, 1, dtype, requires_grad, device)


def empty(*shape: Shape, dtype: DTypeLike = np.float32, requires_grad: bool = False,
          device: str | None = None) -> Tensor:
    """A tensor of that shape, whose elements are whatever the memory held."""
    return Tensor(allocate("empty", shape, dtype, device), requires_grad)


def rand(*shape: Shape, dtype: DTypeLike = np.float32, requires_grad: bool = False, device: str | None = None,
         generator: Random = None) -> Tensor:
    """Random numbers in that shape, uniformly distributed in [0, 1)."""
    return drawn("rand", shape, random_uniform, dtype, requires_grad, device, generator)


def randn(*shape: Shape, dtype: DTypeLike = np.float32, requires_grad: bool = False, device: str | None = None,
          generator: Random = None) -> Tensor:
    """Random numbers in that shape, normally distributed with mean 0 and standard deviation 1."""
    return drawn("randn", shape, random_normal, dtype, requires_grad, device, generator)


def full(shape: Shape, fill_value: float, dtype: DTypeLike | None = None, requires_grad: bool = False,
         device: str | None = None) -> Tensor:
    """A tensor of that shape with one number everywhere."""
    if not is_number(fill_value):
        raise TypeError(f"full: expected fill_value to be a number, got {describe(fill_value)}")
    value = as_array(fill_value)
    array = allocate("full", (shape,), dtype if dtype is not None else value.dtype, device)
    launch(np.copyto, array, value, "unsafe")
    return Tensor(array, requires_grad)


def zeros_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False,
               device: str | None = None) -> Tensor:
    """Zeros in the shape and dtype of x."""
    shape, dtype = like("zeros_like", x, dtype)
    return constant("zeros_like", shape, 0, dtype, requires_grad, device)


def ones_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False,
              device: str | None = None) -> Tensor:
    """Ones in the shape and dtype of x."""
    shape, dtype = like("ones_like", x, dtype)
    return constant("ones_like", shape, 1, dtype, requires_grad, device)


def empty_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False,
               device: str | None = None) -> Tensor:
    """A tensor in the shape and dtype of x, whose elements are whatever the memory held."""
    shape, dtype = like("empty_like", x, dtype)
    return Tensor(allocate("empty_like", shape, dtype, device), requires_grad)


def rand_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False,
              device: str | None = None) -> Tensor:
    """Uniformly distributed random numbers in the shape and dtype of x."""
    shape, dtype = like("rand_like", x, dtype)
    return drawn("rand_like", shape, random_uniform, dtype, requires_grad, device, None)


def randn_like(x: Operand, dtype: DTypeLike | None = None, requires_grad: bool = False,
               device: str | None = None) -> Tensor:
    """Normally distributed random numbers in the shape and dtype of x."""
    shape, dtype = like("randn_like", x, dtype)
    return drawn("randn_like", shape, random_normal, dtype, requires_grad, device, None)


def full_like(x: Operand, fill_value: float, dtype: DTypeLike | None = None, requires_grad: bool = False,
              device: str | None = None) -> Tensor:
    """One number everywhere, in the shape and dtype of x."""
    shape, dtype = like("full_like", x, dtype)
    return full(shape, fill_value, dtype, requires_grad, device)


def eye(n: int, m: int | None = None, dtype: DTypeLike = np.float32, requires_grad: bool = False,
        device: str | None = None) -> Tensor:
    """The identity matrix: ones on the diagonal, zeros elsewhere."""
    on(device)
    rows = check_int("eye", "n", n, 0)
    return Tensor(computed("eye", np.eye, rows, rows if m is None else check_int("eye", "m", m, 0),
                           dtype=as_dtype("eye", dtype)), requires_grad)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: DTypeLike | None = None,
           requires_grad: bool = False, device: str | None = None) -> Tensor:
    """start, start + step, … below stop."""
    on(device)
    start, stop = (0, start) if stop is None else (start, stop)
    for name, x in (("start", start), ("stop", stop), ("step", step)):
        check_number("arange", name, x)
    if step == 0:
        raise ValueError("arange: expected step not to be 0")
    start, stop, step = (x.item() if isinstance(x, Tensor) else x for x in (start, stop, step))
    array = computed("arange", np.arange, start, stop, step, None if dtype is None else as_dtype("arange", dtype))
    return Tensor(array.astype(np.float32) if dtype is None and array.dtype == np.float64 else array, requires_grad)


def linspace(start: float, end: float, steps: int, dtype: DTypeLike = np.float32, requires_grad: bool = False,
             device: str | None = None) -> Tensor:
    """`steps` numbers from start to end, both included, at equal distances."""
    on(device)
    start, end = float(check_number("linspace", "start", start)), float(check_number("linspace", "end", end))
    return Tensor(computed("linspace", np.linspace, start, end, check_int("linspace", "steps", steps, 0),
                           dtype=as_dtype("linspace", dtype)), requires_grad)


def randint(low: int, high: int | Sequence[int] | None = None, size: Shape | None = None, dtype: DTypeLike = np.int64,
            device: str | None = None, generator: Random = None) -> Tensor:
    """Random integers from [low, high), or [0, low) where one bound is given: randint(10, size=(3,))."""
    on(device)
    if size is None and isinstance(high, (tuple, list)):
        high, size = None, high
    low, high = (0, low) if high is None else (low, high)
    low, high = check_int("randint", "low", low), check_int("randint", "high", high)
    if high <= low:
        raise ValueError(f"randint: expected low < high, got {low} and {high}")
    forbid_in_capture("randint")
    shape = () if size is None else shape_of("randint", (size,))
    stream = check_generator("randint", generator).stream
    try:
        return Tensor(computed("randint", stream.integers, low, high, shape, dtype=as_dtype("randint", dtype)))
    except TypeError as error:
        raise TypeError(f"randint: {error}") from None


def randperm(n: int, generator: Random = None) -> Tensor:
    """The integers 0 … n - 1 in random order."""
    forbid_in_capture("randperm")
    stream = check_generator("randperm", generator).stream
    return Tensor(computed("randperm", stream.permutation, check_int("randperm", "n", n, 0)))


# ------------------------------------------------------------------------------------------------- of several tensors

def sequence(name: str, tensors: Any) -> list[Tensor]:
    try:
        tensors = [as_tensor(x) for x in tensors]
    except TypeError as error:
        raise TypeError(f"{name}: expected a sequence of tensors, {error}") from None
    if not tensors:
        raise ValueError(f"{name}: expected at least one tensor, got none")
    return tensors


def cat(tensors: Sequence[Operand], axis: int = 0, *, dim: int | None = None) -> Tensor:
    """Tensors one after the other along an axis.

    >>> cat([ones(2), zeros(1)]).tolist()
    [1.0, 1.0, 0.0]
    """
    arrays = sequence("cat", tensors)
    if not arrays[0].ndim:
        raise ValueError("cat: tensors of one number have no axis; use stack")
    return Cat(one_axis("cat", axis if dim is None else dim, arrays[0].ndim))(*arrays)


def stack(tensors: Sequence[Operand], axis: int = 0, *, dim: int | None = None) -> Tensor:
    """Tensors of one shape beside each other along a new axis."""
    arrays = sequence("stack", tensors)
    for x in arrays:
        if x.shape != arrays[0].shape:
            raise ValueError(f"stack: shapes {arrays[0].shape} and {x.shape} differ")
    axis = one_axis("stack", axis if dim is None else dim, arrays[0].ndim + 1)
    return Cat(axis)(*[x.unsqueeze(axis) for x in arrays])


def maximum(a: Operand, b: Operand) -> Tensor:
    """The larger of two tensors, element by element."""
    return operand("maximum", a, b).maximum(b)


def minimum(a: Operand, b: Operand) -> Tensor:
    """The smaller of two tensors, element by element."""
    return operand("minimum", a, b).minimum(b)
