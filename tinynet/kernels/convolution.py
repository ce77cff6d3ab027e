"""Kernels of convolutions, pooling and batch norm on images (batch, channels, height, width).

A convolution is a matrix product: y[o, p] = Σₖ weight[o, k] windows[k, p], where k = (c, i, j) runs over the places in
a window and p = (r, s) over the windows. The matrix of windows is never written down. A padded image is laid out as one
long line, rows one after another; then row k of that matrix is a piece of the line that begins at `begins[k]`, and the
product reads it there. Pieces are as wide as the padded image, so the last few numbers of each of its rows are no
windows: what comes out there is dropped, and its gradient is 0.

With a stride the image is dealt out first: pixels (a, b), (a, b + stride), … make a smaller image for each a and b
below the stride, and in each of these the windows advance by one.

Backward, ∂weight[o, k] = Σₚ g[o, p] windows[k, p]; and ∂x is again a convolution, of g (with a margin of zeros) by the
weight turned round. A thread takes a few images at a time, so that they stay in its cache.
"""

import numpy as np

from .backend.compiled import jit, kernel, prange, span
from .backend.simd import (
    even,
    lane_sum,
    lanes,
    larger,
    load,
    load_every,
    load_next,
    load_some,
    madd,
    nowhere,
    plus,
    store,
    store_some,
    zero,
)
from .normalization import total

TALL, WIDE = 4, 3  # rows and vectors of a tile of the product: its 12 sums and their factors fit into 16 registers
TOGETHER = 4  # images whose gradients are summed up in registers


@jit
def up(n, step):
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step


# -------------------------------------------------------------------------------------------------- the two products

@jit
def add_tile(product, at, step, packed, first, line, start, begins):
    """TALL × WIDE vectors of the product: rows of `packed` from `first` on, places of the line from `start` on."""
    n = lanes(line)
    a0, a1, a2, b0, b1, b2 = zero(line), zero(line), zero(line), zero(line), zero(line), zero(line)
    c0, c1, c2, d0, d1, d2 = zero(line), zero(line), zero(line), zero(line), zero(line), zero(line)
    for k in range(begins.size):
        i, w = start + begins[k], first + TALL * k
        x0, x1, x2 = load(line, i), load(line, i + n), load(line, i + 2 * n)
        a, b, c, d = packed[w], packed[w + 1], packed[w + 2], packed[w + 3]
        a0, a1, a2 = madd(a0, x0, a), madd(a1, x1, a), madd(a2, x2, a)
        b0, b1, b2 = madd(b0, x0, b), madd(b1, x1, b), madd(b2, x2, b)
        c0, c1, c2 = madd(c0, x0, c), madd(c1, x1, c), madd(c2, x2, c)
        d0, d1, d2 = madd(d0, x0, d), madd(d1, x1, d), madd(d2, x2, d)
    store(product, at, a0), store(product, at + n, a1), store(product, at + 2 * n, a2)
    at += step
    store(product, at, b0), store(product, at + n, b1), store(product, at + 2 * n, b2)
    at += step
    store(product, at, c0), store(product, at + n, c1), store(product, at + 2 * n, c2)
    at += step
    store(product, at, d0), store(product, at + n, d1), store(product, at + 2 * n, d2)


@jit
def multiply(product, step, packed, rows, line, start, begins):
    """product[m, p] = Σₖ matrix[m, k] · line[start + begins[k] + p] for p < step; the product lies flat, row by row."""
    width = WIDE * lanes(line)
    for m in range(0, rows, TALL):
        for p in range(0, step, width):
            add_tile(product, m * step + p, step, packed, m * begins.size, line, start + p, begins)


@jit
def pack(packed, matrix):
    """TALL rows of the matrix side by side, column after column, then the next; missing rows are zeros."""
    packed[:] = 0
    depth = matrix.shape[1]
    for m in range(matrix.shape[0]):
        for k in range(depth):
            packed[(m // TALL * depth + k) * TALL + m % TALL] = matrix[m, k]


@jit
def add_dots(sums, m, k, g, g_start, g_step, g_image, line, image, begins, size, images):
    """sums[m + …, k + …] += Σ g · line over the places and the images, for TALL rows and WIDE columns."""
    n = lanes(line)
    a0, a1, a2, b0, b1, b2 = zero(line), zero(line), zero(line), zero(line), zero(line), zero(line)
    c0, c1, c2, d0, d1, d2 = zero(line), zero(line), zero(line), zero(line), zero(line), zero(line)
    for each in range(images):
        first, at = each * g_image + g_start + m * g_step, each * image
        i0, i1, i2 = at + begins[k], at + begins[k + 1], at + begins[k + 2]
        for p in range(0, size, n):
            x0, x1, x2 = load(line, i0 + p), load(line, i1 + p), load(line, i2 + p)
            i = first + p
            a, b, c, d = load(g, i), load(g, i + g_step), load(g, i + 2 * g_step), load(g, i + 3 * g_step)
            a0, a1, a2 = madd(a0, x0, a), madd(a1, x1, a), madd(a2, x2, a)
            b0, b1, b2 = madd(b0, x0, b), madd(b1, x1, b), madd(b2, x2, b)
            c0, c1, c2 = madd(c0, x0, c), madd(c1, x1, c), madd(c2, x2, c)
            d0, d1, d2 = madd(d0, x0, d), madd(d1, x1, d), madd(d2, x2, d)
    put_sums(sums[m], k, a0, a1, a2)
    put_sums(sums[m + 1], k, b0, b1, b2)
    put_sums(sums[m + 2], k, c0, c1, c2)
    put_sums(sums[m + 3], k, d0, d1, d2)


@jit
def put_sums(row, k, x, y, z):
    row[k] += lane_sum(x)
    row[k + 1] += lane_sum(y)
    row[k + 2] += lane_sum(z)


# -------------------------------------------------------------------------------------------------- images as lines

@jit
def copy_row(y, i, x, j, count, number):
    """y[i + …] = x[j + …] + number, for so many of them."""
    n = lanes(x)
    for p in range(0, count, n):
        store_some(y, i + p, plus(load_some(x, j + p, count - p), number), count - p)


@jit
def deal(line, at, x, j, c, h, w, stride_h, stride_w, pad_h, pad_w, rows, columns):
    """Lay channel c of an image out: pixel (r, s) of the padded image goes to the small image (r % stride, s % stride).

    x is flat, and the channel begins at j; each small image has rows × columns places, `at` is where the first begins.
    """
    for r in range(h):
        top = (c * stride_h + (r + pad_h) % stride_h) * stride_w
        i = (r + pad_h) // stride_h * columns
        if stride_w == 1:
            copy_row(line, at + top * rows * columns + i + pad_w, x, j + r * w, w, 0)
        else:
            for s in range(w):
                small, place = (s + pad_w) % stride_w, (s + pad_w) // stride_w
                line[at + (top + small) * rows * columns + i + place] = x[j + r * w + s]


@jit
def beginnings(channels, kh, kw, stride_h, stride_w, rows, columns):
    """Where the pieces of the line begin that are the rows k = (c, i, j) of the matrix of windows; some 0 follow."""
    begins = np.zeros(up(channels * kh * kw, WIDE), np.int64)
    k = 0
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                small = (c * stride_h + i % stride_h) * stride_w + j % stride_w
                begins[k] = small * rows * columns + i // stride_h * columns + j // stride_w
                k += 1
    return begins


@kernel(grain=8192)
def conv2d(y, x, weight, bias, stride_h, stride_w, pad_h, pad_w, parts):
    """y[n, o] = bias[o] + Σ_c weight[o, c] ⋆ x[n, c]

    x (batch, channels, h, w) is padded by pad_h and pad_w zeros on each side; weight (outputs, channels, kh, kw), bias
    (outputs,); y (batch, outputs, (h + 2 pad_h - kh) // stride_h + 1, (w + 2 pad_w - kw) // stride_w + 1).
    """
    _, outputs, height, width = y.shape
    _, channels, h, w = x.shape
    kh, kw = weight.shape[2:]
    depth = channels * kh * kw
    rows, columns = (h + 2 * pad_h - 1) // stride_h + 1, (w + 2 * pad_w - 1) // stride_w + 1
    size = channels * stride_h * stride_w * rows * columns
    slack = columns + WIDE * lanes(x)  # numbers behind the last image, where the last tile reads what nobody needs
    begins = beginnings(channels, kh, kw, stride_h, stride_w, rows, columns)[:depth]
    packed = np.empty(up(outputs, TALL) * depth, x.dtype)
    pack(packed, weight.reshape(outputs, depth))
    step = up(height * columns, WIDE * lanes(x))
    out, pixels = y.reshape(y.size), x.reshape(x.size)
    for part in prange(parts):
        line = np.zeros(size + slack, x.dtype)
        product = np.empty(up(outputs, TALL) * step, x.dtype)
        lo, hi = span(x.shape[0], part, parts)
        for n in range(lo, hi):
            for c in range(channels):
                deal(line, 0, pixels, (n * channels + c) * h * w, c, h, w, stride_h, stride_w, pad_h, pad_w, rows,
                     columns)
            multiply(product, step, packed, outputs, line, 0, begins)
            for o in range(outputs):
                at = (n * outputs + o) * height * width
                for r in range(height):
                    copy_row(out, at + r * width, product, o * step + r * columns, width, bias[o])


@jit
def turned_weight(weight, stride_h, stride_w, g_step, columns):
    """What makes the gradients of the small images: packed matrices (channels, depth) and, for each row of the windows
    of g, where it begins; those of small image number m from ends[m] to ends[m + 1]."""
    outputs, channels, kh, kw = weight.shape
    tall = up(channels, TALL)
    packed, begins = np.zeros(tall * outputs * kh * kw, weight.dtype), np.empty(outputs * kh * kw, np.int64)
    ends = np.zeros(stride_h * stride_w + 1, np.int64)
    k = 0
    for m in range(stride_h * stride_w):
        first, a, b = k, m // stride_w, m % stride_w
        depth = outputs * max((kh - a + stride_h - 1) // stride_h, 0) * max((kw - b + stride_w - 1) // stride_w, 0)
        matrix = np.empty((channels, depth), weight.dtype)
        for o in range(outputs):
            for i in range(a, kh, stride_h):
                for j in range(b, kw, stride_w):
                    begins[k] = o * g_step - i // stride_h * columns - j // stride_w
                    for c in range(channels):
                        matrix[c, k - first] = weight[o, c, i, j]
                    k += 1
        pack(packed[tall * first:tall * k], matrix)
        ends[m + 1] = k
    return packed, begins, ends


@jit
def put_back(dx, image, x_channels, h, w, product, step, first, last, a, b, stride_h, stride_w, pad_h, pad_w, columns):
    """Write the gradient of the small images (a, b), of which the product holds the rows from `first` to `last`."""
    for c in range(x_channels):
        for r in range(first, last):
            i = ((image * x_channels + c) * h + r * stride_h + a - pad_h) * w
            j = c * step + (r - first) * columns
            if stride_w == 1:
                copy_row(dx, i, product, j + pad_w, w, 0)
            else:
                for s in range((pad_w - b + stride_w - 1) // stride_w, (w + pad_w - b + stride_w - 1) // stride_w):
                    dx[i + s * stride_w + b - pad_w] = product[j + s]


@kernel(grain=8192, measure=3)
def conv2d_backward(dx, dweight, dbias, g, x, weight, stride_h, stride_w, pad_h, pad_w, parts):
    """The gradients of x, weight and bias for the gradient g of y; a dx of size 0 is not wanted."""
    _, outputs, height, width = g.shape
    _, channels, h, w = x.shape
    kh, kw = weight.shape[2:]
    depth = channels * kh * kw
    rows, columns = (h + 2 * pad_h - 1) // stride_h + 1, (w + 2 * pad_w - 1) // stride_w + 1
    size = channels * stride_h * stride_w * rows * columns
    slack = columns + WIDE * lanes(x)  # numbers behind the last image, where the last tile reads what nobody needs
    begins = beginnings(channels, kh, kw, stride_h, stride_w, rows, columns)
    margin = (kh - 1) // stride_h * columns + (kw - 1) // stride_w  # zeros before each plane of g, and as many behind
    g_step = margin + up(rows * columns, lanes(x)) + lanes(x)
    g_size = up(outputs, TALL) * g_step
    tall, deep = up(outputs, TALL), begins.size
    sums, biases = np.zeros((parts, tall, deep), x.dtype), np.zeros((parts, outputs), x.dtype)
    slopes, pixels, back = g.reshape(g.size), x.reshape(x.size), dx.reshape(dx.size)
    packed, pieces, ends = turned_weight(weight, stride_h, stride_w, g_step, columns)
    for part in prange(parts):
        line = np.zeros(TOGETHER * size + slack, x.dtype)
        share = np.zeros(TOGETHER * g_size + slack, x.dtype)
        product = np.empty(up(channels, TALL) * up(rows * columns, WIDE * lanes(x)) if dx.size else 0, x.dtype)
        lo, hi = span(x.shape[0], part, parts)
        for begin in range(lo, hi, TOGETHER):
            images = min(TOGETHER, hi - begin)
            for each in range(images):
                for c in range(channels):
                    deal(line, each * size, pixels, ((begin + each) * channels + c) * h * w, c, h, w, stride_h,
                         stride_w, pad_h, pad_w, rows, columns)
                for o in range(outputs):
                    at, i = ((begin + each) * outputs + o) * height * width, each * g_size + o * g_step + margin
                    for r in range(height):
                        copy_row(share, i + r * columns, slopes, at + r * width, width, 0)
                    biases[part, o] += line_sum(slopes, at, height * width)
            for m in range(0, outputs, TALL):
                for k in range(0, deep, WIDE):
                    add_dots(sums[part], m, k, share, margin, g_step, g_size, line, size, begins, height * columns,
                             images)
            if dx.size:
                for m in range(stride_h * stride_w):
                    a, b = m // stride_w, m % stride_w
                    first = max((pad_h - a + stride_h - 1) // stride_h, 0)
                    last = max((h + pad_h - a + stride_h - 1) // stride_h, first)
                    step = up((last - first) * columns, WIDE * lanes(x))
                    for each in range(images):
                        multiply(product, step, packed[up(channels, TALL) * ends[m]:up(channels, TALL) * ends[m + 1]],
                                 channels, share, each * g_size + margin + first * columns, pieces[ends[m]:ends[m + 1]])
                        put_back(back, begin + each, channels, h, w, product, step, first, last, a, b, stride_h,
                                 stride_w, pad_h, pad_w, columns)
    flat = dweight.reshape(outputs, depth)
    dbias[:] = 0
    flat[:] = 0
    for part in range(parts):
        for o in range(outputs):
            dbias[o] += biases[part, o]
            for k in range(depth):
                flat[o, k] += sums[part, o, k]


@jit
def line_sum(x, i, count):
    n, s = lanes(x), zero(x)
    for p in range(0, count, n):
        s = plus(s, load_some(x, i + p, count - p))
    return lane_sum(s)


# ---------------------------------------------------------------------------------------------------------- pooling

@jit
def numbers_of_windows(x, begin, i, step, n):
    """load_every; with steps of one and two, from neighbours that are read at once, which is quicker."""
    if step == 1:
        return load_next(x, begin, i, n)
    if step == 2:
        return even(load_next(x, begin, i, n), load_next(x, begin, i + lanes(x), n))
    return load_every(x, begin, i, step, n)


@jit
def largest_of_row(y, where, at, count, x, channel, w, top, bottom, kw, stride, pad):
    """A row of `count` windows, the rows `top` to `bottom` of the channel; a vector of windows at a time."""
    n = lanes(x)
    for s in range(0, count, n):
        best, places = zero(x), nowhere(x)
        for i in range(top, bottom):
            for j in range(kw):
                first = s * stride + j - pad
                v = numbers_of_windows(x, channel + i * w, first, stride, w)
                best, places = larger(best, places, v, i * w, first, stride, w)
        store_some(y, at + s, best, count - s)
        store_some(where, at + s, places, count - s)


@kernel
def max_pool2d(y, where, x, kh, kw, stride_h, stride_w, pad_h, pad_w, parts):
    """y[n, c, r, s] = the largest number of the window; where (int32) is its place in the channel, for the way back."""
    batch, channels, h, w = x.shape
    rows, count = y.shape[2:]
    out, places, pixels = y.reshape(y.size), where.reshape(where.size), x.reshape(x.size)
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            for r in range(rows):
                top = r * stride_h - pad_h
                largest_of_row(out, places, (m * rows + r) * count, count, pixels, m * h * w, w, max(top, 0),
                               min(top + kh, h), kw, stride_w, pad_w)


@jit
def give_to_largest(dx, g, where):
    dx[:] = 0
    for i in range(g.size):
        dx[where[i]] += g[i]


@kernel
def max_pool2d_backward(dx, g, where, parts):
    """Each window's gradient goes to its largest number."""
    channels = dx.shape[0] * dx.shape[1]
    windows = g.shape[2] * g.shape[3]
    back, slopes, places = (dx.reshape(channels, dx.shape[2] * dx.shape[3]), g.reshape(channels, windows),
                            where.reshape(channels, windows))
    for part in prange(parts):
        lo, hi = span(channels, part, parts)
        for m in range(lo, hi):
            give_to_largest(back[m], slopes[m], places[m])


@jit
def mean_of_row(y, at, count, x, channel, w, top, bottom, kw, stride, pad, factor):
    n = lanes(x)
    for s in range(0, count, n):
        mean = zero(x)
        for i in range(top, bottom):
            for j in range(kw):
                v = numbers_of_windows(x, channel + i * w, s * stride + j - pad, stride, w)
                mean = madd(mean, v, factor)
        store_some(y, at + s, mean, count - s)


@kernel
def avg_pool2d(y, x, kh, kw, stride_h, stride_w, pad_h, pad_w, parts):
    """y[n, c, r, s] = Σ window / (kh kw); the padding counts as zeros, as in PyTorch."""
    batch, channels, h, w = x.shape
    rows, count = y.shape[2:]
    out, pixels = y.reshape(y.size), x.reshape(x.size)
    for part in prange(parts):
        lo, hi = span(batch * channels, part, parts)
        for m in range(lo, hi):
            for r in range(rows):
                top = r * stride_h - pad_h
                mean_of_row(out, (m * rows + r) * count, count, pixels, m * h * w, w, max(top, 0), min(top + kh, h), kw,
                            stride_w, pad_w, x.dtype.type(1 / (kh * kw)))


@jit
def inside(offset, stride, size, count):
    """The first and last + 1 of `count` windows whose number `offset` (counted from the edge) lies inside `size`."""
    lo = 0 if offset >= 0 else (-offset + stride - 1) // stride
    hi = (size - 1 - offset) // stride + 1 if size > offset else 0
    return min(lo, count), min(max(hi, lo), count)


@jit
def give_every(row, g, offset, stride, lo, hi, factor):
    for s in range(lo, hi):
        row[s * stride + offset] += g[s] * factor


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

# Inlined, for the sake of the last bits: sums may be taken in any order, and a copy of a function that is compiled by
# itself may take another one than the copy inside its caller. A kernel fresh from the compiler would run the former,
# the same kernel from the cache the latter.

@jit
def squares(x, mean):
    s = x.dtype.type(0)
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
    s = x.dtype.type(0)
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
