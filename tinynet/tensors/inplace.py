"""Changes in place: x += y, x[i] = y, x.zero_(), … They write into the tensor's memory, and bump its version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Union

import numpy as np

from ..errors import check_number, describe, is_number
from ..graph import mode
from ..kernels import launch
from .core import Node, as_tensor, bump_version, is_operand, operand
from .operations import broadcast_shape, is_slice, part, put, without_tensors
from .random import Generator

if TYPE_CHECKING:
    from .methods import Tensor

Operand = Union["Tensor", np.ndarray, float]


def into_random(out: np.ndarray, draw: str, a: float, b: float) -> None:
    np.copyto(out, getattr(Generator.stream, draw)(a, b, out.shape), "same_kind")


class InPlace(Node):
    """The methods of a Tensor that change it. They raise ValueError where a gradient would be wrong or lost; where one
    flows, x += y is x = x + y."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Operand) -> None:
        of = mode.grad_enabled and isinstance(value, Node) and value.requires_grad
        if of or self.inputs or (self.requires_grad and mode.grad_enabled):
            raise ValueError(f"assignment {'of' if of else 'to a part of'} a tensor that takes gradients: build the "
                             "result with where, cat or stack instead, or assign under no_grad")
        key = without_tensors(key)
        try:
            value = value._data if isinstance(value, Node) else np.asarray(value, dtype=self.dtype)
        except OverflowError:
            raise ValueError(f"assignment: {describe(value)} is beyond the range of {self.dtype}") from None
        if is_slice(key):
            launch(np.copyto, part(self._data, key), value)
        else:
            launch(put, self._data, key, value)
        bump_version(self)

    def __iadd__(self, other: Operand) -> Self: return self._operate_in_place("+=", np.add, other)
    def __isub__(self, other: Operand) -> Self: return self._operate_in_place("-=", np.subtract, other)
    def __imul__(self, other: Operand) -> Self: return self._operate_in_place("*=", np.multiply, other)
    def __itruediv__(self, other: Operand) -> Self: return self._operate_in_place("/=", np.divide, other)

    def _operate_in_place(self, name: str, ufunc: Any, other: Any) -> Self:
        """x += y where no gradient flows; else NotImplemented, and so Python computes x = x + y."""
        if not is_operand(other):
            return NotImplemented
        other = as_tensor(other, self)
        if self.inputs or mode.grad_enabled and other.requires_grad and not self.requires_grad:
            return NotImplemented
        return self._change(name, ufunc, other)

    def _change(self, name: str, ufunc: Any, other: Node) -> Self:
        self._check_changeable(name, other)
        x, y = self._data, other._data
        if broadcast_shape(name, x.shape, y.shape) != x.shape:
            raise ValueError(f"{name}: shape {y.shape} does not fit into {x.shape}")
        if not np.can_cast(ufunc.resolve_dtypes((x.dtype, y.dtype, None))[2], x.dtype, "same_kind"):
            raise TypeError(f"{name}: the result is no {x.dtype}; convert the tensor with .float()")
        launch(ufunc, x, y, x)
        bump_version(self)
        return self

    def _check_changeable(self, name: str, other: Node | None = None) -> None:
        """Raise where a gradient would be wrong or lost if this tensor were changed."""
        if self.inputs or self.requires_grad and mode.grad_enabled:
            what = "the result of a graph" if self.inputs else "a leaf that takes gradients"
            how = "work on .detach().clone()" if self.inputs else "do it under no_grad()"
            raise ValueError(f"{name}: {what} is not changed in place, its gradient would be wrong; {how}, or make a "
                             "new tensor")
        if other is not None and other.requires_grad and mode.grad_enabled:
            raise ValueError(f"{name}: a tensor that takes gradients would lose them here; write x = x + y, or "
                             "detach it")
        if not self._data.flags.writeable:
            raise ValueError(f"{name}: this tensor repeats elements that it shares (expand); call .clone() first")

    def _write(self, name: str, kernel: Any, *args: Any) -> Self:
        self._check_changeable(name)
        launch(kernel, self._data, *args)
        bump_version(self)
        return self

    def add_(self, other: Operand, alpha: float = 1) -> Self:
        """Add alpha · other, in place."""
        other = operand("add_", other, self)
        alpha = check_number("add_", "alpha", alpha)
        return self._change("add_", np.add, other if alpha == 1 else other * alpha)

    def sub_(self, other: Operand, alpha: float = 1) -> Self:
        """Subtract alpha · other, in place."""
        other = operand("sub_", other, self)
        alpha = check_number("sub_", "alpha", alpha)
        return self._change("sub_", np.subtract, other if alpha == 1 else other * alpha)

    def mul_(self, other: Operand) -> Self:
        """Multiply by other, in place."""
        return self._change("mul_", np.multiply, operand("mul_", other, self))

    def div_(self, other: Operand) -> Self:
        """Divide by other, in place."""
        return self._change("div_", np.divide, operand("div_", other, self))

    def copy_(self, other: Operand) -> Self:
        """Write the elements of another tensor or array, which broadcasts to this one."""
        other = operand("copy_", other, self)
        self._check_changeable("copy_", other)
        return self._write("copy_", np.copyto, other._data, "same_kind")

    def fill_(self, value: float) -> Self:
        """Write one number everywhere."""
        if not is_number(value):
            raise TypeError(f"fill_: expected value to be a number, got {describe(value)}")
        return self.copy_(value)

    def zero_(self) -> Self:
        """Write 0 everywhere."""
        return self._write("zero_", np.copyto, 0)

    def clamp_(self, min: float | None = None, max: float | None = None) -> Self:
        """min where an element is below it, max where above, in place."""
        return self.copy_(self.detach().clip(min, max))

    def normal_(self, mean: float = 0.0, std: float = 1.0) -> Self:
        """Fill with normally distributed numbers."""
        mean, std = check_number("normal_", "mean", mean), check_number("normal_", "std", std, 0)
        return self._write("normal_", into_random, "normal", float(mean), float(std))

    def uniform_(self, low: float = 0.0, high: float = 1.0) -> Self:
        """Fill with uniformly distributed numbers from [low, high)."""
        low, high = check_number("uniform_", "low", low), check_number("uniform_", "high", high)
        return self._write("uniform_", into_random, "uniform", float(low), float(high))
