"""Activation functions, and softmax."""

import math

import numpy as np

from .. import kernels
from ..errors import check_choice, check_int, check_number
from ..kernels import launch
from ..tensors import Tensor, contiguous, empty_array
from ..value import Value
from .dispatch import as_operand, check_floats, detach, fused_by


def elementwise(name):
    """A rule of the derivative table as a function of a Value, a Tensor, or an array of Values."""
    of_value, of_tensor = getattr(Value, name), getattr(Tensor, name)
    of_values = np.frompyfunc(of_value, 1, 1)

    def function(x):
        if isinstance(x, Tensor):
            return of_tensor(x)
        if isinstance(x, Value):
            return of_value(x)
        x = as_operand(x)
        return of_tensor(x) if isinstance(x, Tensor) else of_values(x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of every element: a rule of the derivative table (value.py)."
    return function


relu, sigmoid, tanh, softplus = map(elementwise, ("relu", "sigmoid", "tanh", "softplus"))
gelu_exact = elementwise("gelu")


def gelu(x, approximate="none"):
    """x Φ(x), Φ the distribution function of the normal distribution (Hendrycks and Gimpel, 2016).

    approximate="tanh" gives ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    """
    if check_choice("gelu", "approximate", approximate, ("none", "tanh")) == "none":
        return gelu_exact(x)
    x = as_operand(x)
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def leaky_relu(x, negative_slope=0.01):
    """x where it is positive, else negative_slope · x (Maas, Hannun and Ng, 2013).

    >>> leaky_relu([-2.0, 3.0], 0.5).tolist()
    [-1.0, 3.0]
    """
    check_number("leaky_relu", "negative_slope", negative_slope)
    x = as_operand(x)
    return negative_slope * x + (1.0 - negative_slope) * relu(x)


ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh, "gelu": gelu, "softplus": softplus}


# ------------------------------------------------------------------------------------------------------------- softmax

def check_axis(name, x, dim):
    """`dim` as a non-negative int; raises where x has no such axis, where it is empty, or where x holds no floats."""
    dim = dim if type(dim) is int else check_int(name, "dim", dim)
    if not -x.ndim <= dim < x.ndim:
        raise IndexError(f"{name}: axis {dim} does not exist in shape {tuple(x.shape)}")
    if not x.shape[dim]:
        raise ValueError(f"{name}: axis {dim} of shape {tuple(x.shape)} is empty")
    check_floats(name, x)
    return dim % x.ndim


def by_rows(kernel, dim, *arrays):
    """What a kernel of rows (rows, n) computes along the axis `dim` of some arrays of one shape."""
    y, n = empty_array(arrays[0].shape, arrays[0].dtype), arrays[0].shape[dim]
    moved = dim != y.ndim - 1
    if moved:
        arrays = [np.moveaxis(a, dim, -1) for a in arrays]
    rows = empty_array(arrays[0].shape, y.dtype) if moved else y
    launch(kernel, rows.reshape(-1, n), *[contiguous(a).reshape(-1, n) for a in arrays])
    if moved:
        launch(np.copyto, y, np.moveaxis(rows, -1, dim))
    return y


def fused_softmax(x, dim=-1):
    """∂/∂xᵢ = yᵢ (gᵢ - Σⱼ gⱼ yⱼ)."""
    dim = check_axis("softmax", x, dim)
    y = by_rows(kernels.normalization.softmax, dim, x)
    return y, lambda g, needs: [by_rows(kernels.normalization.softmax_backward, dim, g, y)]


@fused_by(fused_softmax, reads=["y"])
def softmax(x, dim=-1):
    """softmax(x)ᵢ = exp(xᵢ) / Σⱼ exp(xⱼ) along `dim` (Bridle, 1990); shifted by the maximum, so that none overflows.

    >>> from tinynet import tensor
    >>> softmax(tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    x = as_operand(x)
    dim = check_axis("softmax", x, dim)
    e = np.exp(x - detach(x.max(dim, keepdims=True)))
    return e / e.sum(dim, keepdims=True)


def fused_log_softmax(x, dim=-1):
    """∂/∂xᵢ = gᵢ - exp(yᵢ) Σⱼ gⱼ."""
    dim = check_axis("log_softmax", x, dim)
    y = by_rows(kernels.normalization.log_softmax, dim, x)
    return y, lambda g, needs: [by_rows(kernels.normalization.log_softmax_backward, dim, g, y)]


@fused_by(fused_log_softmax, reads=["y"])
def log_softmax(x, dim=-1):
    """log softmax(x)ᵢ = xᵢ - log Σⱼ exp(xⱼ) along `dim`."""
    x = as_operand(x)
    dim = check_axis("log_softmax", x, dim)
    x = x - detach(x.max(dim, keepdims=True))
    return x - np.log(np.exp(x).sum(dim, keepdims=True))


def logsumexp(x, dim, keepdim=False):
    """log Σⱼ exp(xⱼ) along `dim`; shifted by the maximum, so that none overflows.

    >>> from tinynet import tensor
    >>> logsumexp(tensor([10000.0, 10000.0]), 0).item()     # 10000 + log 2
    10000.693359375
    """
    x = as_operand(x)
    dim = check_axis("logsumexp", x, dim)
    largest = detach(x.max(dim, keepdims=True))
    largest = np.where(abs(largest) < math.inf, largest, 0.0)
    y = np.log(np.exp(x - largest).sum(dim, keepdims=True)) + largest
    return y if keepdim else y.squeeze(dim)
