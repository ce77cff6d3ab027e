"""Clipping of gradients, between `backward()` and the optimiser's step (Pascanu, Mikolov and Bengio, 2013)."""

import math

import numpy as np

from .. import kernels
from ..errors import refusing
from ..graph import mode
from ..kernels import launch
from ..tensors import Tensor, contiguous, empty_array
from ..value import Value


@refusing
def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scale all gradients by one factor, so that their norm is at most max_norm; returns the norm that they had.

    The norm is that of all gradients as one long vector: ‖g‖ = (Σ |gᵢ|^p)^(1/p) with p = norm_type, max |gᵢ| for p = ∞.
    The factor is min(1, max_norm / (‖g‖ + 10⁻⁶)), as in PyTorch.

    >>> from tinynet import tensor
    >>> x = tensor([3.0, 4.0], requires_grad=True)
    >>> (x * x / 2).sum().backward()
    >>> clip_grad_norm_([x], 1.0).item(), x.grad.round(3).tolist()
    (5.0, [0.6000000238418579, 0.800000011920929])
    """
    name, max_norm, norm_type = "clip_grad_norm_", float(max_norm), float(norm_type)
    if not max_norm >= 0:
        raise ValueError(f"{name}: max_norm is a number from 0 on, got {max_norm}")
    if not norm_type > 0:
        raise ValueError(f"{name}: norm_type is a number above 0, got {norm_type}")
    tensors, values = with_gradients(name, parameters)
    sums = np.zeros(len(tensors) + 1)  # of |gᵢ|^p (or the largest), for each tensor and for all Values together
    put_sum(sums[-1:], np.array([p.grad for p in values]), norm_type)
    for i, p in enumerate(tensors):
        g = contiguous(p._grad).reshape(-1)
        if norm_type == 2:
            launch(kernels.dense.total_of_squares, sums[i:i + 1], g)
        else:
            launch(put_sum, sums[i:i + 1], g, norm_type)
    dtype = np.result_type(*[p.dtype for p in tensors]) if tensors else np.dtype(float)
    norm, factor = empty_array((), dtype), empty_array((), dtype)
    launch(put_norm, norm, factor, sums, norm_type, max_norm, error_if_nonfinite)
    for p in tensors:
        launch(np.multiply, p._grad, factor, p._grad)
    for p in values:
        p.grad *= float(factor)
    return Tensor(norm) if tensors else Value(float(norm), requires_grad=False)


@refusing
def clip_grad_value_(parameters, clip_value):
    """Bring every element of every gradient into [-clip_value, clip_value].

    >>> from tinynet import Value
    >>> x = Value(3.0)
    >>> (x * x).backward()
    >>> clip_grad_value_(x, 0.5)
    >>> x.grad
    0.5
    """
    clip_value = float(clip_value)
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value is a number from 0 on, got {clip_value}")
    tensors, values = with_gradients("clip_grad_value_", parameters)
    for p in tensors:
        launch(np.clip, p._grad, -clip_value, clip_value, p._grad)
    for p in values:
        p.grad = max(-clip_value, min(clip_value, p.grad)) if p.grad == p.grad else p.grad


def with_gradients(name, parameters):
    """The Tensors and the Values among the parameters that have a gradient."""
    parameters = [parameters] if isinstance(parameters, (Tensor, Value)) else list(parameters)
    for p in parameters:
        if not isinstance(p, (Tensor, Value)):
            raise TypeError(f"{name}: expected parameters, got {type(p).__name__}")
    tensors = [p for p in parameters if isinstance(p, Tensor) and p._grad is not None]
    if mode.plan is not None:
        for p in tensors:
            mode.plan.guard_gradient(p)
    return tensors, [p for p in parameters if isinstance(p, Value) and p.grad is not None]


def put_sum(out, g, p):
    """out[0] = Σ |g|^p in double precision, or the largest |g| for p = ∞."""
    g = np.abs(g).astype(float)
    out[0] = g.max(initial=0.0) if p == math.inf else (g ** p).sum()


def put_norm(norm, factor, sums, p, max_norm, error_if_nonfinite):
    norm[...] = sums.max() if p == math.inf else sums.sum() ** (1 / p)
    if error_if_nonfinite and not np.isfinite(norm):
        raise ValueError(f"clip_grad_norm_: the norm of the gradients is {norm}; detect_anomaly finds its cause")
    factor[...] = np.minimum(max_norm / (norm + 1e-6), 1.0)
