"""Convolution and pooling of images (batch, channels, height, width)."""

import functools
import math

import numpy as np

from .. import kernels
from ..errors import check_int
from ..kernels import launch
from ..tensors import FLOATS, Tensor, contiguous, empty_array, filled
from .dispatch import as_operand, check_floats, compute, fused_by


def pair(name, what, x, least):
    """A setting of height and width as two ints ≥ least, from one int for both or a tuple of two."""
    both = tuple(x) if isinstance(x, (tuple, list)) else (x, x)
    if len(both) != 2:
        raise ValueError(f"{name}: expected {what} to be an integer or a tuple of two, got {x!r}")
    return tuple([n if type(n) is int and least <= n < 2**31 else min(check_int(name, what, n, least), 2**31)
                  for n in both])


def as_images(name, x):
    """x as (batch, channels, height, width); a single image is a batch of one."""
    if x.ndim not in (3, 4):
        raise ValueError(f"{name}: expected images (batch, channels, height, width), got shape {tuple(x.shape)}")
    return x if x.ndim == 4 else x.reshape(1, *x.shape)


def count_windows(name, x, kernel, stride, padding):
    """How many windows there are, (rows, columns); ValueError where there is none."""
    counts = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[2:], kernel, stride, padding))
    if min(counts) < 1 or not x.shape[2] or not x.shape[3]:
        padded = f", padded by {padding[0]} × {padding[1]} on each side" if any(padding) else ""
        raise ValueError(f"{name}: a window of {kernel[0]} × {kernel[1]} does not fit into images of "
                         f"{x.shape[2]} × {x.shape[3]}{padded}")
    return counts


def unfold(x, kernel, stride, padding, fill=0.0):
    """All windows of the padded images x (batch, channels, h, w): (batch, channels, rows, columns, kh, kw)."""
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, (2, 3))[:, :, ::stride[0], ::stride[1]]


NO_IMAGES = {dtype: np.empty((0, 0, 0, 0), dtype) for dtype in FLOATS}  # tells a kernel to skip their gradient


def fused_conv2d(x, weight, bias, stride, padding):
    """With columns the windows of x: y = W columns, ∂W = g columnsᵀ, ∂columns = Wᵀ g, each back to its pixel."""
    settings, counts = (*stride, *padding), count_windows("conv2d", x, weight.shape[2:], stride, padding)
    y, x, w = empty_array((len(x), len(weight), *counts), x.dtype), contiguous(x), contiguous(weight)
    b = filled(len(w), w.dtype, 0.0) if bias is None else contiguous(bias)
    launch(kernels.convolution.conv2d, y, x, w, b, *settings)

    def vjps(g, needs):
        dx, dw, db = compute(kernels.convolution.conv2d_backward, (x if needs[0] else NO_IMAGES[x.dtype], w, b),
                             contiguous(g), x, w, *settings)
        return dx if needs[0] else None, dw, db

    return y, vjps


@fused_by(fused_conv2d, reads=[0, 1])
def convolve(x, weight, bias, stride, padding):
    columns = unfold(x, weight.shape[2:], stride, padding).transpose(0, 2, 3, 1, 4, 5)
    columns = columns.reshape(*columns.shape[:3], math.prod(weight.shape[1:]))
    y = columns @ weight.reshape(len(weight), columns.shape[3]).T
    return (y if bias is None else y + bias).transpose(0, 3, 1, 2)


def conv2d(input, weight, bias=None, stride=1, padding=0):
    """y[n, o, r, s] = bias[o] + Σ_cij weight[o, c, i, j] x[n, c, r · stride + i, s · stride + j], x padded by zeros.

    input (batch, channels, h, w) or (channels, h, w), weight (outputs, channels, kh, kw), bias (outputs); stride and
    padding are integers or (height, width). (LeCun et al., 1989; strictly a correlation: nothing is mirrored.)

    >>> from tinynet import ones
    >>> conv2d(ones(1, 1, 3, 3), ones(1, 1, 2, 2)).tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    name = "conv2d"
    stride, padding = pair(name, "stride", stride, 1), pair(name, "padding", padding, 0)
    weight = as_operand(weight)
    check_floats(name, weight)
    x = as_operand(input, weight)
    if weight.ndim != 4 or not weight.shape[2] or not weight.shape[3]:
        raise ValueError(f"{name}: expected weight (outputs, channels, kh, kw), got shape {tuple(weight.shape)}")
    batch = as_images(name, x)
    if batch.shape[1] != weight.shape[1]:
        raise ValueError(f"{name}: the images {tuple(x.shape)} have {batch.shape[1]} channels, the weight "
                         f"{tuple(weight.shape)} expects {weight.shape[1]}")
    if bias is not None:
        bias = as_operand(bias, weight, "bias")
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"{name}: bias has shape {tuple(bias.shape)}, expected {tuple(weight.shape[:1])}")
    count_windows(name, batch, weight.shape[2:], stride, padding)
    y = convolve(batch, weight, bias, stride, padding)
    return y if x.ndim == 4 else y[0]


# ------------------------------------------------------------------------------------------------------------- pooling

def fused_max_pool2d(x, kernel, stride, padding):
    """The gradient of a window goes to its maximum, the first of several."""
    y = empty_array((*x.shape[:2], *count_windows("max_pool2d", x, kernel, stride, padding)), x.dtype)
    argmax = empty_array(y.shape, np.int32)
    launch(kernels.convolution.max_pool2d, y, argmax, contiguous(x), *kernel, *stride, *padding)
    return y, lambda g, needs: compute(kernels.convolution.max_pool2d_backward, [x], contiguous(g), argmax)


@fused_by(fused_max_pool2d, reads=[])
def window_max(x, kernel, stride, padding):
    y = unfold(x, kernel, stride, padding, -math.inf)
    y = y.reshape(*y.shape[:4], math.prod(kernel))
    return y.max(-1) if isinstance(y, Tensor) else first_max.reduce(y, -1)


@functools.partial(np.frompyfunc, nin=2, nout=1)
def first_max(a, b):
    """The larger of two Values as a node, so that a compiled program chooses for each sample; padding is a float.

    Of equal ones a receives the gradient, not both half of it as in `a.max(b)`: relu has the derivative 0 at 0.
    """
    if isinstance(a, float) or isinstance(b, float):
        return b if isinstance(a, float) else a
    return a + (b - a).relu() if a.data == b.data else a.max(b)


def fused_avg_pool2d(x, kernel, stride, padding):
    """Each element of a window receives the same part of its gradient."""
    settings = (*kernel, *stride, *padding)
    y = empty_array((*x.shape[:2], *count_windows("avg_pool2d", x, kernel, stride, padding)), x.dtype)
    launch(kernels.convolution.avg_pool2d, y, contiguous(x), *settings)
    return y, lambda g, needs: compute(kernels.convolution.avg_pool2d_backward, [x], contiguous(g), *settings)


@fused_by(fused_avg_pool2d, reads=[])
def window_mean(x, kernel, stride, padding):
    return unfold(x, kernel, stride, padding).mean((-2, -1))


def pooled(name, pooling, input, kernel_size, stride, padding):
    kernel, padding = pair(name, "kernel_size", kernel_size, 1), pair(name, "padding", padding, 0)
    stride = kernel if stride is None else pair(name, "stride", stride, 1)
    if any(2 * p > k for p, k in zip(padding, kernel)):
        raise ValueError(f"{name}: padding is at most half of the window, got {padding} for a window of {kernel}")
    x = as_operand(input)
    check_floats(name, x)
    batch = as_images(name, x)
    count_windows(name, batch, kernel, stride, padding)
    y = pooling(batch, kernel, stride, padding)
    return y if x.ndim == 4 else y[0]


def max_pool2d(input, kernel_size, stride=None, padding=0):
    """The maximum of each window of `kernel_size`; windows begin `stride` apart (None: they do not overlap).

    input (batch, channels, h, w) or (channels, h, w); the padding counts as -∞. Of several maxima in a window the first
    receives the gradient.

    >>> from tinynet import tensor
    >>> max_pool2d(tensor([[[1.0, 2.0], [3.0, 4.0]]]), 2).tolist()
    [[[4.0]]]
    """
    return pooled("max_pool2d", window_max, input, kernel_size, stride, padding)


def avg_pool2d(input, kernel_size, stride=None, padding=0):
    """The mean of each window, as max_pool2d; the padding counts as zeros."""
    return pooled("avg_pool2d", window_mean, input, kernel_size, stride, padding)
