"""Gradient clipping, between `backward()` and the optimizer's step (Pascanu, Mikolov and Bengio, 2013)."""

import math

import numpy as np

from .. import kernels
from ..errors import check_bool, check_number, describe
from ..graph import mode
from ..kernels import launch
from ..tensors import Tensor, contiguous, empty_array
from ..value import Value


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scale all gradients by one factor, so that their norm is at most max_norm; returns the norm before.

    The norm is that of all gradients as one vector: ‖g‖ = (Σ |gᵢ|^p)^(1/p) with p = norm_type, max |gᵢ| for p = ∞.
    The factor is min(1, max_norm / (‖g‖ + 10⁻⁶)), as in PyTorch.

    >>> from tinynet import tensor
    >>> x = tensor([3.0, 4.0], requires_grad=True)
    >>> (x * x / 2).sum().backward()
    >>> clip_grad_norm_([x], 1.0).item(), x.grad.round(3).tolist()
    (5.0, [0.6000000238418579, 0.800000011920929])
    """
    name = "clip_grad_norm_"
    max_norm = check_limit(name, "max_norm", max_norm)
    norm_type = check_limit(name, "norm_type", float("inf") if isinstance(norm_type, str) else norm_type)
    if not norm_type:
        raise ValueError(f"{name}: expected norm_type to be positive, got {norm_type}")
    error_if_nonfinite = check_bool(name, "error_if_nonfinite", error_if_nonfinite)
    tensors, values = with_gradients(name, parameters)
    sums = np.zeros(len(tensors) + 1)  # Σ |gᵢ|^p (or max |gᵢ|) of each tensor, and of all Values
    write_sum(sums[-1:], np.array([p.grad for p in values]), norm_type)
    for i, p in enumerate(tensors):
        g = contiguous(p._grad).reshape(-1)
        if norm_type == 2:
            launch(kernels.dense.total_of_squares, sums[i:i + 1], g)
        else:
            launch(write_sum, sums[i:i + 1], g, norm_type)
    dtype = np.result_type(*[p.dtype for p in tensors]) if tensors else np.dtype(float)
    norm, factor = empty_array((), dtype), empty_array((), dtype)
    launch(write_norm, norm, factor, sums, norm_type, max_norm, error_if_nonfinite)
    for p in tensors:
        launch(np.multiply, p._grad, factor, p._grad)
    for p in values:
        p.grad *= float(factor)
    return Tensor(norm) if tensors else Value(float(norm), requires_grad=False)


def clip_grad_value_(parameters, clip_value):
    """Clip every element of every gradient to [-clip_value, clip_value].

    >>> from tinynet import Value
    >>> x = Value(3.0)
    >>> (x * x).backward()
    >>> clip_grad_value_(x, 0.5)
    >>> x.grad
    0.5
    """
    clip_value = check_limit("clip_grad_value_", "clip_value", clip_value)
    tensors, values = with_gradients("clip_grad_value_", parameters)
    for p in tensors:
        launch(np.clip, p._grad, -clip_value, clip_value, p._grad)
    for p in values:
        p.grad = max(-clip_value, min(clip_value, p.grad)) if p.grad == p.grad else p.grad


def check_limit(function, name, x):
    """x as a float ≥ 0, which may be infinite."""
    return math.inf if isinstance(x, float) and x == math.inf else float(check_number(function, name, x, 0))


def with_gradients(name, parameters):
    """The Tensors and the Values among the parameters that have a gradient."""
    parameters = [parameters] if isinstance(parameters, (Tensor, Value)) else list(parameters)
    for p in parameters:
        if not isinstance(p, (Tensor, Value)):
            raise TypeError(f"{name}: expected parameters, got {describe(p)}")
    tensors = [p for p in parameters if isinstance(p, Tensor) and p._grad is not None]
    if mode.plan is not None:
        for p in tensors:
            mode.plan.guard_gradient(p)
    return tensors, [p for p in parameters if isinstance(p, Value) and p.grad is not None]


def write_sum(out, g, p):
    """out[0] = Σ |g|^p in double precision, or the largest |g| for p = ∞."""
    g = np.abs(g).astype(float)
    out[0] = g.max(initial=0.0) if p == math.inf else (g ** p).sum()


def write_norm(norm, factor, sums, p, max_norm, error_if_nonfinite):
    norm[...] = sums.max() if p == math.inf else sums.sum() ** (1 / p)
    if error_if_nonfinite and not np.isfinite(norm):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {norm}; find its cause with detect_anomaly")
    factor[...] = np.minimum(max_norm / (norm + 1e-6), 1.0)
