"""Kernels of convolutions, pooling and batch norm on images (batch, channels, height, width).

A convolution is a matrix product. The columns of an image are all its windows, one below another channel by channel:
columns[(c, i, j), (r, s)] = image[c, r · stride + i, s · stride + j]. Then output = weight · columns, and backward
dweight = g · columnsᵀ, dcolumns = weightᵀ · g, of which each element goes back to the pixel it came from. (Chellapilla,
Puri and Simard, 2006.) A thread takes one image at a time, so that the columns stay in the cache.

With stride 1 a row (c, i, j) of the columns is a piece of the padded channel, taken as one long line: copying is all it
takes. Such rows are as wide as the padded image, and the last few numbers of each line are no windows: the outputs
there are dropped, and their gradients are 0.
"""

import numpy as np

from .compiled import jit, kernel, prange, span
from .rows import add, put, total
from .small import multiply, turn


@jit
def put_inside(padded, image, top, left):
    for c in range(image.shape[0]):
        for i in range(image.shape[1]):
            put(padded[c, top + i, left:left + image.shape[2]], image[c, i])


@jit
def columns_of(columns, padded, memory, kh, kw, stride_h, stride_w, height, width):
    """All windows of the padded image, whose numbers lie in `memory`."""
    channels, _, w = padded.shape
    size = padded.shape[1] * w
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                row = columns[(c * kh + i) * kw + j]
                if stride_w == 1 and stride_h == 1:
                    begin = c * size + i * w + j
                    put(row, memory[begin:begin + row.size])
                else:
                    for r in range(height):
                        for s in range(width):
                            row[r * width + s] = padded[c, r * stride_h + i, s * stride_w + j]


@jit
def add_columns(padded, memory, columns, kh, kw, stride_h, stride_w, height, width):
    """Gives each element of the columns back to the pixel that it came from."""
    channels, _, w = padded.shape
    size = padded.shape[1] * w
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                row = columns[(c * kh + i) * kw + j]
                if stride_w == 1 and stride_h == 1:
                    begin = c * size + i * w + j
                    add(memory[begin:begin + row.size], row)
                else:
                    for r in range(height):
                        for s in range(width):
                            padded[c, r * stride_h + i, s * stride_w + j] += row[r * width + s]


@jit
def put_sum(y, x, number):
    for i in range(y.size):
        y[i] = x[i] + number


@kernel(grain=8192)
def conv2d(y, x, weight, bias, stride_h, stride_w, pad_h, pad_w, parts):
    """y[n, o] = bias[o] + Σ_c weight[o, c] ⋆ x[n, c]

    x (batch, channels, h, w) is padded by pad_h and pad_w zeros on each side; weight (outputs, channels, kh, kw), bias
    (outputs,); y (batch, outputs, (h + 2 pad_h - kh) // stride_h + 1, (w + 2 pad_w - kw) // stride_w + 1).
    """
    _, outputs, height, width = y.shape
    _, channels, h, w = x.shape
    kh, kw = weight.shape[2:]
    high, wide = h + 2 * pad_h, w + 2 * pad_w
    step = width if stride_w > 1 or stride_h > 1 else wide
    matrix = weight.reshape(outputs, channels * kh * kw)
    for part in prange(parts):
        memory = np.zeros(channels * high * wide + kw, x.dtype)
        padded = memory[:channels * high * wide].reshape(channels, high, wide)
        columns = np.empty((channels * kh * kw, height * step), x.dtype)
        product = np.empty((outputs, height * step), x.dtype)
        lo, hi = span(x.shape[0], part, parts)
        for n in range(lo, hi):
            put_inside(padded, x[n], pad_h, pad_w)
            columns_of(columns, padded, memory, kh, kw, stride_h, stride_w, height, width)
            multiply(product, matrix, columns, False)
            for o in range(outputs):
                for r in range(height):
                    put_sum(y[n, o, r], product[o, r * step:r * step + width], bias[o])


@kernel(grain=8192, measure=3)
def conv2d_backward(dx, dweight, dbias, g, x, weight, stride_h, stride_w, pad_h, pad_w, parts):
    """The gradients of x, weight and bias for the gradient g of y; a dx of size 0 is not wanted."""
    _, outputs, height, width = g.shape
    _, channels, h, w = x.shape
    kh, kw = weight.shape[2:]
    high, wide = h + 2 * pad_h, w + 2 * pad_w
    step = width if stride_w > 1 or stride_h > 1 else wide
    rows = channels * kh * kw
    matrix = weight.reshape(outputs, rows)
    transposed = np.ascontiguousarray(matrix.T)
    sums, biases = np.zeros((parts, rows, outputs), x.dtype), np.zeros((parts, outputs), x.dtype)
    for part in prange(parts):
        memory = np.zeros(channels * high * wide + kw, x.dtype)
        padded = memory[:channels * high * wide].reshape(channels, high, wide)
        back = np.zeros(channels * high * wide + kw, x.dtype)
        padded_back = back[:channels * high * wide].reshape(channels, high, wide)
        columns = np.empty((rows, height * step), x.dtype)
        share = np.zeros((outputs, height * step), x.dtype)
        turned = np.empty((height * step, outputs), x.dtype)
        lo, hi = span(x.shape[0], part, parts)
        for n in range(lo, hi):
            put_inside(padded, x[n], pad_h, pad_w)
            columns_of(columns, padded, memory, kh, kw, stride_h, stride_w, height, width)
            for o in range(outputs):
                for r in range(height):
                    put(share[o, r * step:r * step + width], g[n, o, r])
                biases[part, o] += total(share[o])
            turn(turned, share, 1)
            multiply(sums[part], columns, turned, True)
            if dx.size:
                multiply(columns, transposed, share, False)
                back[:] = 0
                add_columns(padded_back, back, columns, kh, kw, stride_h, stride_w, height, width)
                for c in range(channels):
                    for i in range(h):
                        put(dx[n, c, i], padded_back[c, pad_h + i, pad_w:pad_w + w])
    dbias[:] = 0
    dweight[:] = 0
    flat = dweight.reshape(outputs, rows)
    for part in range(parts):
        add(dbias, biases[part])
        for o in range(outputs):
            for i in range(rows):
                flat[o, i] += sums[part, i, o]


# ---------------------------------------------------------------------------------------------------------- pooling

@jit
def inside(offset, stride, size, count):
    """The first and last + 1 of `count` windows whose number `offset` (counted from the edge) lies inside `size`."""
    lo = 0 if offset >= 0 else (-offset + stride - 1) // stride
    hi = (size - 1 - offset) // stride + 1 if size > offset else 0
    return min(lo, count), min(max(hi, lo), count)


@jit
def larger(best, where, row, begin, offset, stride, lo, hi):
    for s in range(lo, hi):
        k = s * stride + offset
        v = row[k]
        if v > best[s] or v != v:  # noqa: PLR0124  (a NaN wins)
            best[s] = v
            where[s] = begin + k


@kernel
def max_pool2d(y, where, x, kh, kw, stride_h, stride_w, pad_h, pad_w, parts):
    """y[n, c, r, s] = the largest number of the window; where (int32) is its place in the channel, for the way back."""
    batch, channels, h, w = x.shape
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            for r in range(y.shape[2]):
                best, places = y[n, c, r], where[n, c, r]
                best[:] = -np.inf
                places[:] = max(r * stride_h - pad_h, 0) * w
                for i in range(max(r * stride_h - pad_h, 0), min(r * stride_h - pad_h + kh, h)):
                    for j in range(kw):
                        first, last = inside(j - pad_w, stride_w, w, best.size)
                        larger(best, places, x[n, c, i], i * w, j - pad_w, stride_w, first, last)


@kernel
def max_pool2d_backward(dx, g, where, parts):
    """Each window's gradient goes to its largest number."""
    batch, channels, _, w = dx.shape
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            dx[n, c] = 0
            for r in range(g.shape[2]):
                for s in range(g.shape[3]):
                    k = where[n, c, r, s]
                    dx[n, c, k // w, k % w] += g[n, c, r, s]


@jit
def add_every(y, row, offset, stride, lo, hi):
    for s in range(lo, hi):
        y[s] += row[s * stride + offset]


@jit
def give_every(row, g, offset, stride, lo, hi, factor):
    for s in range(lo, hi):
        row[s * stride + offset] += g[s] * factor


@kernel
def avg_pool2d(y, x, kh, kw, stride_h, stride_w, pad_h, pad_w, parts):
    """y[n, c, r, s] = Σ window / (kh kw); the padding counts as zeros, as in PyTorch."""
    batch, channels, h, w = x.shape
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            for r in range(y.shape[2]):
                sums = y[n, c, r]
                sums[:] = 0
                for i in range(max(r * stride_h - pad_h, 0), min(r * stride_h - pad_h + kh, h)):
                    for j in range(kw):
                        first, last = inside(j - pad_w, stride_w, w, sums.size)
                        add_every(sums, x[n, c, i], j - pad_w, stride_w, first, last)
                for s in range(sums.size):
                    sums[s] /= y.dtype.type(kh * kw)


@kernel
def avg_pool2d_backward(dx, g, kh, kw, stride_h, stride_w, pad_h, pad_w, parts):
    """Each number of a window receives the window's gradient / (kh kw)."""
    batch, channels, h, w = dx.shape
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            dx[n, c] = 0
            for r in range(g.shape[2]):
                for i in range(max(r * stride_h - pad_h, 0), min(r * stride_h - pad_h + kh, h)):
                    for j in range(kw):
                        first, last = inside(j - pad_w, stride_w, w, g.shape[3])
                        give_every(dx[n, c, i], g[n, c, r], j - pad_w, stride_w, first, last,
                                   dx.dtype.type(1 / (kh * kw)))


# ------------------------------------------------------------------------------------------------------- batch norm

@jit
def squares(x, mean):
    s = x[0] * 0
    for i in range(x.size):
        d = x[i] - mean
        s += d * d
    return s


@kernel(measure=2)
def channel_moments(mean, variance, x, parts):
    """The mean and the (biased) variance of each channel of x (batch, channels, pixels)."""
    batch, channels, pixels = x.shape
    count = batch * pixels
    for part in prange(parts):
        lo, hi = span(channels, part, parts)
        for c in range(lo, hi):
            s = 0.0
            for n in range(batch):
                s += total(x[n, c])
            mean[c] = s / count
            s = 0.0
            for n in range(batch):
                s += squares(x[n, c], mean[c])
            variance[c] = s / count


@jit
def stretch(y, x, factor, shift):
    for i in range(x.size):
        y[i] = x[i] * factor + shift


@kernel
def batch_norm(y, x, mean, variance, weight, bias, eps, parts):
    """y[n, c] = (x[n, c] - mean[c]) / √(variance[c] + eps) · weight[c] + bias[c]. Ioffe and Szegedy (2015)."""
    batch, channels, _ = x.shape
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            factor = weight[c] / np.sqrt(variance[c] + x.dtype.type(eps))
            stretch(y[n, c], x[n, c], factor, bias[c] - mean[c] * factor)


@jit
def products_with(g, x, mean):
    s = x[0] * 0
    for i in range(x.size):
        s += g[i] * (x[i] - mean)
    return s


@jit
def normalised_slopes(dx, g, x, mean, factor, shift, slope):
    for i in range(x.size):
        dx[i] = g[i] * factor - shift - (x[i] - mean) * slope


@kernel
def batch_norm_backward(dx, dweight, dbias, g, x, mean, variance, weight, eps, trained, parts):
    """The gradients where mean and variance are those of x (`trained`), or constants.

    With x̂ = (x - mean) r, r = 1 / √(variance + eps): dweight = Σ g x̂, dbias = Σ g, and
    dx = weight r (g - dbias / count - x̂ dweight / count), the last two terms where `trained`.
    """
    batch, channels, pixels = x.shape
    count = batch * pixels
    for part in prange(parts):
        lo, hi = span(channels, part, parts)
        for c in range(lo, hi):
            r = 1.0 / np.sqrt(variance[c] + eps)
            a, b = 0.0, 0.0
            for n in range(batch):
                a += products_with(g[n, c], x[n, c], mean[c])
                b += total(g[n, c])
            dweight[c], dbias[c] = a * r, b
            factor = weight[c] * r
            shift, slope = (factor * b / count, factor * r * r * a / count) if trained else (0.0, 0.0)
            real = x.dtype.type
            for n in range(batch):
                normalised_slopes(dx[n, c], g[n, c], x[n, c], mean[c], real(factor), real(shift), real(slope))
