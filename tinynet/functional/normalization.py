"""Layer norm and batch norm."""

import math

import numpy as np

from .. import kernels
from ..errors import check_int, check_number, describe
from ..kernels import launch
from ..tensors import Tensor, cast, contiguous, copied
from .dispatch import as_constant, as_numpy, as_operand, check_floats, compute, detach, fused_by


def scale_and_shift(name, x, shape, weight, bias):
    """weight and bias as operands beside x, 1 and 0 where they are None; raises where their shape is another one."""
    both = []
    for what, w, number in (("weight", weight, 1.0), ("bias", bias, 0.0)):
        if w is None:
            w = as_constant(np.full(shape, number), x)
        elif not isinstance(w, Tensor) or not isinstance(x, Tensor):
            w = as_operand(w, x, what)
        if tuple(w.shape) != shape:
            raise ValueError(f"{name}: {what} has shape {tuple(w.shape)}, expected {shape}")
        both.append(w)
    return both


def fused_layer_norm(x, weight, bias, eps):
    """With x̂ the normalized rows and s = g w: ∂x = (s - mean(s) - x̂ mean(s x̂)) / σ, ∂w = Σ g x̂, ∂b = Σ g."""
    rows, w = contiguous(x).reshape(-1, weight.size), contiguous(weight)
    y, mean, rstd = compute(kernels.normalization.layer_norm, (rows, rows[:, 0], rows[:, 0]), rows, w,
                            contiguous(bias), eps)

    def vjps(g, needs):
        dx, dw, db = compute(kernels.normalization.layer_norm_backward, (rows, weight, bias),
                             contiguous(g).reshape(rows.shape), rows, mean, rstd, w)
        return dx.reshape(x.shape), dw, db

    return y.reshape(x.shape), vjps


@fused_by(fused_layer_norm, reads=[0, 1])
def normalize(x, weight, bias, eps):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + eps) * weight + bias


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(x - mean) / √(var + eps) · weight + bias over the last axes (Ba, Kiros and Hinton, 2016)."""
    x = as_operand(x)
    check_floats("layer_norm", x)
    shape = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    shape = tuple(check_int("layer_norm", "normalized_shape", n, 0) for n in shape)
    if tuple(x.shape[x.ndim - len(shape):]) != shape or len(shape) > x.ndim:
        raise ValueError(f"layer_norm: input has shape {tuple(x.shape)}, expected it to end in {shape}")
    if not math.prod(shape):
        raise ValueError(f"layer_norm: nothing to average over in shape {shape}")
    weight, bias = scale_and_shift("layer_norm", x, shape, weight, bias)
    check_floats("layer_norm", x, weight, bias)
    eps = eps if eps.__class__ is float and eps >= 0.0 else float(check_number("layer_norm", "eps", eps, 0))
    if len(shape) == 1:
        return normalize(x, weight, bias, eps)
    rows = x.reshape(*x.shape[:x.ndim - len(shape)], math.prod(shape))
    return normalize(rows, weight.reshape(-1), bias.reshape(-1), eps).reshape(*x.shape)


# ---------------------------------------------------------------------------------------------------------- batch norm

def by_channels(x):
    """(batch, channels, pixels), contiguous."""
    return contiguous(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def fused_batch_norm(x, weight, bias, statistics, constant, eps):
    """x̂ = (x - mean) / √(variance + eps), y = w x̂ + b. ∂w = Σ g x̂, ∂b = Σ g, the sums over all but the channels;
    ∂x = w / √(variance + eps) · (g - mean(g) - x̂ mean(g x̂)), without the means where the statistics are constant."""
    rows, w = by_channels(x), contiguous(weight)
    y, = compute(kernels.normalization.batch_norm, [rows], rows, *statistics, w, contiguous(bias), eps)

    def vjps(g, needs):
        dx, dw, db = compute(kernels.normalization.batch_norm_backward, (rows, weight, bias), by_channels(g), rows,
                             *statistics, w, eps, not constant)
        return dx.reshape(x.shape), dw, db

    return y.reshape(x.shape), vjps


@fused_by(fused_batch_norm, reads=[0, 1])
def normalize_channels(x, weight, bias, statistics, constant, eps):
    mean, variance = (by_channel(s, x) for s in statistics) if constant else channel_statistics(x)
    return (x - mean) / np.sqrt(variance + eps) * by_channel(weight, x) + by_channel(bias, x)


def channel_statistics(x):
    """The mean and the variance of each channel, (1, channels, 1, …)."""
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, keepdims=True)
    d = x - mean
    return mean, (d * d).mean(axes, keepdims=True)


def by_channel(a, x):
    """(channels,) in a shape that broadcasts with x."""
    a = as_constant(a, x) if isinstance(a, np.ndarray) and a.dtype != object else a
    return a.reshape(1, -1, *[1] * (x.ndim - 2))


def batch_statistics(x):
    """The mean and the variance of each channel as plain arrays, (channels,) each."""
    if not isinstance(x, Tensor):
        return [s.reshape(-1) for s in channel_statistics(detach(x))]
    rows = by_channels(x._data)
    return compute(kernels.normalization.channel_moments, (rows[0, :, 0], rows[0, :, 0]), rows)


def update_running_stats(running, new, momentum, factor=1.0):
    """running ← (1 - momentum) running + momentum · factor · new"""
    running += (momentum * (factor * new - running)).astype(running.dtype)


def running_statistic(what, m, channels):
    """The array of a running statistic, which batch norm changes in place; None stays None."""
    if m is None:
        return None
    if not isinstance(m, (np.ndarray, Tensor)) or as_numpy(m).dtype.kind != "f":
        raise TypeError(f"batch_norm: expected {what} to be an array of floats, got {describe(m)}")
    if tuple(m.shape) != (channels,):
        raise ValueError(f"batch_norm: {what} has shape {tuple(m.shape)}, the input has {channels} channels")
    return as_numpy(m)


def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """(x - mean) / √(variance + eps) · weight + bias, each channel by itself (Ioffe and Szegedy, 2015).

    input (batch, channels, …). In training mean and variance are those of the batch, and the NumPy arrays running_mean
    and running_var move towards them by `momentum` (the variance divided by n - 1), also when a captured step is
    replayed; they may be None. Otherwise the running ones are used.
    """
    name, x = "batch_norm", as_operand(input)
    if x.ndim < 2:
        raise ValueError(f"{name}: expected (batch, channels, …), got shape {tuple(x.shape)}")
    check_floats(name, x)
    channels = x.shape[1]
    running = [running_statistic(what, m, channels)
               for what, m in (("running_mean", running_mean), ("running_var", running_var))]
    weight, bias = scale_and_shift(name, x, (channels,), weight, bias)
    check_floats(name, x, weight, bias)
    eps = eps if eps.__class__ is float and eps >= 0.0 else float(check_number(name, "eps", eps, 0))
    if training:
        n = math.prod(x.shape) // channels if channels else 0
        if n < 2:
            raise ValueError(f"{name}: training needs more than one element in each channel, got shape "
                             f"{tuple(x.shape)}; call eval() where the model is used")
        momentum = momentum if momentum.__class__ is float else check_number(name, "momentum", momentum)
        statistics = batch_statistics(x)
        for old, new, factor in zip(running, statistics, (1.0, n / (n - 1))):
            if old is not None:
                launch(update_running_stats, old, new, momentum, factor)
    elif running_mean is None or running_var is None:
        raise ValueError(f"{name}: running_mean and running_var are needed outside training")
    else:
        statistics = [copied(cast(m, x.dtype)) if isinstance(x, Tensor) else m for m in running]
    return normalize_channels(x, weight, bias, statistics, not training, eps)
