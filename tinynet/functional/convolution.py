"""Convolution and pooling of images (batch, channels, height, width)."""

import functools
import math

import numpy as np

from .. import kernels
from ..errors import check_int
from ..kernels import launch
from ..tensors import Op, Tensor, contiguous, empty_array, filled
from .dispatch import as_operand, check_floats, fused_by


def pair(name, what, x, least):
    """A setting of height and width as two ints ≥ least, from one int for both or a tuple of two."""
    both = tuple(x) if isinstance(x, (tuple, list)) else (x, x)
    if len(both) != 2:
        raise ValueError(f"{name}: expected {what} to be an integer or a tuple of two, got {x!r}")
    return tuple(check_int(name, what, n, least) for n in both)


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


class Windows(Op):
    """All windows of the padded images; each element's gradient goes back to the pixel that it came from."""

    name = "windows"

    def __init__(self, kernel, stride, padding, fill):
        self.kernel, self.stride, self.padding, self.fill = kernel, stride, padding, fill

    def padded(self, x, fill):
        """(images with a margin, the part of them that is x)"""
        (top, left), (h, w) = self.padding, x.shape[2:]
        array = filled((*x.shape[:2], h + 2 * top, w + 2 * left), x.dtype, fill)
        return array, array[:, :, top:top + h, left:left + w]

    def forward(self, x):
        array, inside = self.padded(x, self.fill)
        launch(np.copyto, inside, x)
        return strided_windows(array, self.kernel, self.stride)

    def backward(self, g, y, x):
        array, inside = self.padded(x, 0.0)
        back = strided_windows(array, self.kernel, self.stride, writeable=True)
        for i in np.ndindex(self.kernel):  # windows overlap, the elements at one index of all windows do not
            launch(np.add, back[..., *i], g[..., *i], back[..., *i])
        return (inside,)


def strided_windows(array, kernel, stride, writeable=False):
    view = np.lib.stride_tricks.sliding_window_view(array, kernel, (2, 3), writeable=writeable)
    return view[:, :, ::stride[0], ::stride[1]]


def unfold(x, kernel, stride, padding, fill=0.0):
    """All windows of the padded images x (batch, channels, h, w): (batch, channels, rows, columns, kh, kw)."""
    if isinstance(x, Tensor):
        return Windows(kernel, stride, padding, fill)(x)
    margin = ((0, 0), (0, 0), *((p, p) for p in padding))
    return strided_windows(np.pad(x, margin, constant_values=fill), kernel, stride)


class Einsum(Op):
    """Two operands: the gradient of one is the einsum of g with the other, the letters exchanged likewise."""

    name = "einsum"

    def __init__(self, letters):
        self.first, self.second, self.result = letters.replace("->", ",").split(",")

    def forward(self, a, b):
        return self.product(self.first, a, self.second, b, self.result)

    def backward(self, g, y, a, b):
        return (self.product(self.result, g, self.second, b, self.first),
                self.product(self.result, g, self.first, a, self.second))

    def product(self, first, a, second, b, result):
        sizes = dict(zip(first + second, a.shape + b.shape))
        y = empty_array(tuple(sizes[letter] for letter in result), a.dtype)
        launch(into_einsum, y, f"{first},{second}->{result}", a, b)
        return y


def into_einsum(out, letters, a, b):
    np.einsum(letters, a, b, out=out)


def einsum(letters, a, b):
    """Σ of the products over the letters that the result lacks: einsum("ij,jk->ik", a, b) is a @ b.

    (NumPy's own, of Values, would begin every sum with a 0, and drawings would show it.)
    """
    first, second, result = letters.replace("->", ",").split(",")
    sizes = dict(zip(first + second, a.shape + b.shape))
    if (len(first), len(second), a.dtype) != (a.ndim, b.ndim, b.dtype) or a.shape + b.shape != tuple(
            sizes[letter] for letter in first + second):
        raise ValueError(f"einsum: {letters} does not fit {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
    if isinstance(a, Tensor):
        return Einsum(letters)(a, b)
    order = result + "".join(sorted(set(first + second) - set(result)))

    def spread(x, names):
        x = x.transpose([names.index(letter) for letter in order if letter in names])
        return x[tuple(slice(None) if letter in names else None for letter in order)]

    return (spread(a, first) * spread(b, second)).sum(tuple(range(len(result), len(order))))


def fused_conv2d(x, weight, bias, stride, padding):
    """With columns the windows of x: y = W columns, ∂W = g columnsᵀ, ∂columns = Wᵀ g, each back to its pixel."""
    settings = (*stride, *padding)
    counts = count_windows("conv2d", x, weight.shape[2:], stride, padding)
    y, x, w = empty_array((len(x), len(weight), *counts), x.dtype), contiguous(x), contiguous(weight)
    b = filled(len(w), w.dtype, 0.0) if bias is None else contiguous(bias)
    launch(kernels.convolution.conv2d, y, x, w, b, *settings)

    def vjps(g, needs):
        dx = empty_array(x.shape if needs[0] else (0,) * 4, x.dtype)
        dw, db = empty_array(w.shape, w.dtype), empty_array(len(w), w.dtype)
        launch(kernels.convolution.conv2d_backward, dx, dw, db, contiguous(g), x, w, *settings)
        return dx if needs[0] else None, dw, db

    return y, vjps


@fused_by(fused_conv2d)
def convolve(x, weight, bias, stride, padding):
    y = einsum("ncrsij,ocij->nors", unfold(x, weight.shape[2:], stride, padding), weight)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


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

    def vjps(g, needs):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.convolution.max_pool2d_backward, dx, contiguous(g), argmax)
        return [dx]

    return y, vjps


@fused_by(fused_max_pool2d)
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

    def vjps(g, needs):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.convolution.avg_pool2d_backward, dx, contiguous(g), *settings)
        return [dx]

    return y, vjps


@fused_by(fused_avg_pool2d)
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
