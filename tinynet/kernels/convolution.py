"""Kernels of convolutions and pooling on images (batch, channels, height, width).

A convolution is a matrix product: y[o, p] = Σₖ weight[o, k] windows[k, p], where k = (c, i, j) runs over the taps of a
window and p = (r, s) over the windows. The matrix of windows (im2col) is never written down. A padded image is laid out
flat, rows one after another; then row k of that matrix is a piece of it that begins at `offsets[k]`, and the product
reads it there. Pieces are as wide as the padded image, so the last few numbers of each of its rows are no windows: what
comes out there is dropped, and its gradient is 0.

With a stride the image is rearranged first (space to depth): the pixels (a, b), (a, b + stride), … make phase (a, b), a
smaller image, for each a and b below the stride, and in each phase the windows advance by one.

Backward, ∂weight[o, k] = Σₚ g[o, p] windows[k, p]; and ∂x is again a convolution, of g (with a margin of zeros) by the
flipped weight. A thread takes a few images at a time, so that they stay in its cache.
"""

import numpy as np

from .backend.compiled import chunk_bounds, jit, kernel, prange
from .backend.simd import (
    add_lane_sums,
    add_outer,
    broadcast_rows,
    join,
    lanes,
    load,
    load_rows,
    plus,
    row_starts,
    store,
    store_rows,
    zero,
)
from .normalization import total

TALL, WIDE, TILE = 4, 3, 12  # rows and registers of a tile of the product: 12 of 16 registers
TOGETHER = 4  # images whose gradients are summed up in registers


@jit
def round_up(n, step):
    """n rounded up to a multiple of step."""
    return (n + step - 1) // step * step


# -------------------------------------------------------------------------------------------------- the two products

@jit
def product_tile(product, at, step, packed, first, flat, start, offsets):
    """TALL rows × WIDE registers of the product: rows of `packed` from `first` on, windows from `start` on."""
    s = zero(flat, TILE)
    starts = row_starts(first, 1, TALL - 1, TALL)
    for k in range(offsets.size):
        s = add_outer(s, load(flat, start + offsets[k], None, WIDE), broadcast_rows(packed, starts, TALL * k))
    store_rows(product, at, step, TALL - 1, None, s, TALL)


@jit
def multiply(product, step, packed, rows, flat, start, offsets):
    """product[m, p] = Σₖ matrix[m, k] · flat[start + offsets[k] + p] for p < step; the product is flat, row by row."""
    width = WIDE * lanes(flat)
    for m in range(0, rows, TALL):
        for p in range(0, step, width):
            product_tile(product, m * step + p, step, packed, m * offsets.size, flat, start + p, offsets)


@jit
def pack(packed, matrix):
    """TALL rows of the matrix side by side, column after column, then the next; missing rows are zeros."""
    packed[:] = 0
    depth = matrix.shape[1]
    for m in range(matrix.shape[0]):
        for k in range(depth):
            packed[(m // TALL * depth + k) * TALL + m % TALL] = matrix[m, k]


@jit
def add_dots(sums, m, k, g, g_start, g_step, g_size, flat, size, offsets, count, images):
    """sums[m + …, k + …] += Σ g · flat over `count` windows of each image, for TALL rows and WIDE columns."""
    s = zero(flat, TILE)
    for image in range(images):
        first, at = image * g_size + g_start + m * g_step, image * size
        i, j, l = at + offsets[k], at + offsets[k + 1], at + offsets[k + 2]
        for p in range(0, count, lanes(flat)):
            x = join(load(flat, i + p, None, 1), load(flat, j + p, None, 1), load(flat, l + p, None, 1))
            s = add_outer(s, x, load_rows(g, first + p, g_step, TALL - 1, None, TALL, 1))
    add_lane_sums(sums.reshape(sums.size), m * offsets.size + k, offsets.size, s, WIDE)


# --------------------------------------------------------------------------------------------------- images laid flat

@jit
def copy_row(y, i, x, j, count, number):
    """y[i + …] = x[j + …] + number, for so many of them."""
    for p in range(0, count, lanes(x)):
        store(y, i + p, plus(load(x, j + p, count - p, 1), number), count - p)


@jit
def space_to_depth(flat, at, x, j, c, h, w, stride_h, stride_w, pad_h, pad_w, rows, columns):
    """Lay channel c of an image out: pixel (r, s) of the padded image goes to phase (r % stride, s % stride).

    x is flat, and the channel begins at j; each phase has rows × columns pixels, `at` is where the first begins.
    """
    for r in range(h):
        top = (c * stride_h + (r + pad_h) % stride_h) * stride_w
        i = (r + pad_h) // stride_h * columns
        if stride_w == 1:
            copy_row(flat, at + top * rows * columns + i + pad_w, x, j + r * w, w, 0)
        else:
            for s in range(w):
                phase, column = (s + pad_w) % stride_w, (s + pad_w) // stride_w
                flat[at + (top + phase) * rows * columns + i + column] = x[j + r * w + s]


@jit
def window_offsets(channels, kh, kw, stride_h, stride_w, rows, columns):
    """Where the pieces of the flat image begin that are the rows k = (c, i, j) of the matrix of windows; some 0 follow.
    """
    offsets = np.zeros(round_up(channels * kh * kw, WIDE), np.int64)
    k = 0
    for c in range(channels):
        for i in range(kh):
            for j in range(kw):
                phase = (c * stride_h + i % stride_h) * stride_w + j % stride_w
                offsets[k] = phase * rows * columns + i // stride_h * columns + j // stride_w
                k += 1
    return offsets


@kernel(grain=8192)
def conv2d(y, x, weight, bias, stride_h, stride_w, pad_h, pad_w, chunks):
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
    slack = columns + WIDE * lanes(x)  # numbers behind the image, which the last tile reads and nobody needs
    offsets = window_offsets(channels, kh, kw, stride_h, stride_w, rows, columns)[:depth]
    packed = np.empty(round_up(outputs, TALL) * depth, x.dtype)
    pack(packed, weight.reshape(outputs, depth))
    step = round_up(height * columns, WIDE * lanes(x))
    out, pixels = y.reshape(y.size), x.reshape(x.size)
    for chunk in prange(chunks):
        flat = np.zeros(size + slack, x.dtype)
        product = np.empty(round_up(outputs, TALL) * step, x.dtype)
        lo, hi = chunk_bounds(x.shape[0], chunk, chunks)
        for n in range(lo, hi):
            for c in range(channels):
                space_to_depth(flat, 0, pixels, (n * channels + c) * h * w, c, h, w, stride_h, stride_w, pad_h, pad_w,
                               rows, columns)
            multiply(product, step, packed, outputs, flat, 0, offsets)
            for o in range(outputs):
                at = (n * outputs + o) * height * width
                for r in range(height):
                    copy_row(out, at + r * width, product, o * step + r * columns, width, bias[o])


@jit
def flipped_weight(weight, stride_h, stride_w, g_step, columns):
    """What makes the gradients of the phases: packed matrices (channels, depth) and, for each row of the windows of g,
    its offset; those of phase m from ends[m] to ends[m + 1]."""
    outputs, channels, kh, kw = weight.shape
    tall = round_up(channels, TALL)
    packed, offsets = np.zeros(tall * outputs * kh * kw, weight.dtype), np.empty(outputs * kh * kw, np.int64)
    ends = np.zeros(stride_h * stride_w + 1, np.int64)
    k = 0
    for m in range(stride_h * stride_w):
        first, a, b = k, m // stride_w, m % stride_w
        depth = outputs * max((kh - a + stride_h - 1) // stride_h, 0) * max((kw - b + stride_w - 1) // stride_w, 0)
        matrix = np.empty((channels, depth), weight.dtype)
        for o in range(outputs):
            for i in range(a, kh, stride_h):
                for j in range(b, kw, stride_w):
                    offsets[k] = o * g_step - i // stride_h * columns - j // stride_w
                    for c in range(channels):
                        matrix[c, k - first] = weight[o, c, i, j]
                    k += 1
        pack(packed[tall * first:tall * k], matrix)
        ends[m + 1] = k
    return packed, offsets, ends


@jit
def depth_to_space(dx, image, channels, h, w, product, step, first, last, a, b, stride_h, stride_w, pad_h, pad_w,
                   columns):
    """Write the gradient of phase (a, b), of which the product holds the rows from `first` to `last`."""
    for c in range(channels):
        for r in range(first, last):
            i = ((image * channels + c) * h + r * stride_h + a - pad_h) * w
            j = c * step + (r - first) * columns
            if stride_w == 1:
                copy_row(dx, i, product, j + pad_w, w, 0)
            else:
                for s in range((pad_w - b + stride_w - 1) // stride_w, (w + pad_w - b + stride_w - 1) // stride_w):
                    dx[i + s * stride_w + b - pad_w] = product[j + s]


@jit
def input_gradient(dx, begin, images, channels, h, w, product, packed, offsets, ends, grads, margin, g_size, stride_h,
                   stride_w, pad_h, pad_w, columns):
    """dx of a few images, phase by phase."""
    tall = round_up(channels, TALL)
    for m in range(stride_h * stride_w):
        a, b = m // stride_w, m % stride_w
        first = max((pad_h - a + stride_h - 1) // stride_h, 0)
        last = max((h + pad_h - a + stride_h - 1) // stride_h, first)
        step = round_up((last - first) * columns, WIDE * lanes(grads))
        for image in range(images):
            multiply(product, step, packed[tall * ends[m]:tall * ends[m + 1]], channels, grads,
                     image * g_size + margin + first * columns, offsets[ends[m]:ends[m + 1]])
            depth_to_space(dx, begin + image, channels, h, w, product, step, first, last, a, b, stride_h, stride_w,
                           pad_h, pad_w, columns)


@kernel(grain=8192, measure=3)
def conv2d_backward(dx, dweight, dbias, g, x, weight, stride_h, stride_w, pad_h, pad_w, chunks):
    """The gradients of x, weight and bias for the gradient g of y; a dx of size 0 is not wanted."""
    _, outputs, height, width = g.shape
    _, channels, h, w = x.shape
    kh, kw = weight.shape[2:]
    rows, columns = (h + 2 * pad_h - 1) // stride_h + 1, (w + 2 * pad_w - 1) // stride_w + 1
    size = channels * stride_h * stride_w * rows * columns
    slack = columns + WIDE * lanes(x)
    offsets = window_offsets(channels, kh, kw, stride_h, stride_w, rows, columns)
    margin = (kh - 1) // stride_h * columns + (kw - 1) // stride_w  # zeros before each plane of g, and as many behind
    g_step = margin + round_up(rows * columns, lanes(x)) + lanes(x)
    g_size = round_up(outputs, TALL) * g_step
    sums = np.zeros((chunks, round_up(outputs, TALL), offsets.size), x.dtype)
    biases = np.zeros((chunks, outputs), x.dtype)
    gradients, pixels, back = g.reshape(g.size), x.reshape(x.size), dx.reshape(dx.size)
    packed, g_offsets, ends = flipped_weight(weight, stride_h, stride_w, g_step, columns)
    for chunk in prange(chunks):
        flat = np.zeros(TOGETHER * size + slack, x.dtype)
        grads = np.zeros(TOGETHER * g_size + slack, x.dtype)
        product = np.empty(round_up(channels, TALL) * round_up(rows * columns, WIDE * lanes(x)) if dx.size else 0,
                           x.dtype)
        lo, hi = chunk_bounds(x.shape[0], chunk, chunks)
        for begin in range(lo, hi, TOGETHER):
            images = min(TOGETHER, hi - begin)
            for image in range(images):
                for c in range(channels):
                    space_to_depth(flat, image * size, pixels, ((begin + image) * channels + c) * h * w, c, h, w,
                                   stride_h, stride_w, pad_h, pad_w, rows, columns)
                for o in range(outputs):
                    at, i = ((begin + image) * outputs + o) * height * width, image * g_size + o * g_step + margin
                    for r in range(height):
                        copy_row(grads, i + r * columns, gradients, at + r * width, width, 0)
                    biases[chunk, o] += total(gradients[at:at + height * width])
            for m in range(0, outputs, TALL):
                for k in range(0, offsets.size, WIDE):
                    add_dots(sums[chunk], m, k, grads, margin, g_step, g_size, flat, size, offsets, height * columns,
                             images)
            if dx.size:
                input_gradient(back, begin, images, channels, h, w, product, packed, g_offsets, ends, grads, margin,
                               g_size, stride_h, stride_w, pad_h, pad_w, columns)
    dbias[:] = biases.sum(0)
    dweight.reshape(outputs, channels * kh * kw)[:] = sums.sum(0)[:outputs, :channels * kh * kw]


# ---------------------------------------------------------------------------------------------------------- pooling

@jit
def take_larger(m, at, v, i):
    """(v, i) where v is larger than m, or not a number, else (m, at)"""
    larger = (v > m) | (v != v)
    return v if larger else m, i if larger else at


@jit
def max_of_windows(y, where, x, top, bottom, kw, stride, pad):
    """A row of windows over the rows `top` to `bottom` of x (h, w)."""
    w = x.shape[1]
    for s in range(y.size):
        lo, hi = max(s * stride - pad, 0), min(s * stride - pad + kw, w)
        m, at = x[top, lo], top * w + lo
        for i in range(top, bottom):
            for j in range(lo, hi):
                m, at = take_larger(m, at, x[i, j], i * w + j)
        y[s], where[s] = m, at


@jit
def max_of_squares(y, where, a, b, at_a, at_b):
    """A row of windows 2 × 2 side by side, over rows a and b: the usual case, four times as fast without loops."""
    for s in range(y.size):
        j = 2 * s
        m, at = take_larger(a[j], at_a + j, a[j + 1], at_a + j + 1)
        m, at = take_larger(m, at, b[j], at_b + j)
        y[s], where[s] = take_larger(m, at, b[j + 1], at_b + j + 1)


@kernel
def max_pool2d(y, where, x, kh, kw, stride_h, stride_w, pad_h, pad_w, chunks):
    """y[n, c, r, s] = the maximum of the window; where (int32) is its position in the channel, for backward."""
    channels, h, w = x.shape[1:]
    squares = kh == 2 and kw == 2 and stride_w == 2 and pad_h == 0 and pad_w == 0
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.shape[0] * channels, chunk, chunks)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            for r in range(y.shape[2]):
                top = r * stride_h - pad_h
                if squares:
                    max_of_squares(y[n, c, r], where[n, c, r], x[n, c, top], x[n, c, top + 1], top * w,
                                   top * w + w)
                else:
                    max_of_windows(y[n, c, r], where[n, c, r], x[n, c], max(top, 0), min(top + kh, h), kw, stride_w,
                                   pad_w)


@jit
def scatter_to_maximum(dx, g, where):
    dx[:] = 0
    for i in range(g.size):
        dx[where[i]] += g[i]


@kernel
def max_pool2d_backward(dx, g, where, chunks):
    """Each window's gradient goes to its maximum."""
    channels = dx.shape[0] * dx.shape[1]
    windows = g.shape[2] * g.shape[3]
    back, gradients, positions = (dx.reshape(channels, dx.shape[2] * dx.shape[3]), g.reshape(channels, windows),
                                  where.reshape(channels, windows))
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(channels, chunk, chunks)
        for m in range(lo, hi):
            scatter_to_maximum(back[m], gradients[m], positions[m])


@jit
def mean_of_windows(y, x, top, bottom, kw, stride, pad, factor):
    for s in range(y.size):
        mean = factor * 0
        for i in range(top, bottom):
            for j in range(max(s * stride - pad, 0), min(s * stride - pad + kw, x.shape[1])):
                mean += x[i, j] * factor
        y[s] = mean


@kernel
def avg_pool2d(y, x, kh, kw, stride_h, stride_w, pad_h, pad_w, chunks):
    """y[n, c, r, s] = Σ window / (kh kw); the padding counts as zeros, as in PyTorch."""
    channels, h = x.shape[1:3]
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.shape[0] * channels, chunk, chunks)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            for r in range(y.shape[2]):
                top = r * stride_h - pad_h
                mean_of_windows(y[n, c, r], x[n, c], max(top, 0), min(top + kh, h), kw, stride_w, pad_w,
                                x.dtype.type(1 / (kh * kw)))


@jit
def inside(offset, stride, size, count):
    """The first and last + 1 of `count` windows whose number `offset` (counted from the edge) lies inside `size`."""
    lo = 0 if offset >= 0 else (-offset + stride - 1) // stride
    hi = (size - 1 - offset) // stride + 1 if size > offset else 0
    return min(lo, count), min(max(hi, lo), count)


@jit
def scatter_to_all(row, g, offset, stride, lo, hi, factor):
    for s in range(lo, hi):
        row[s * stride + offset] += g[s] * factor


@kernel
def avg_pool2d_backward(dx, g, kh, kw, stride_h, stride_w, pad_h, pad_w, chunks):
    """Each number of a window receives the window's gradient / (kh kw)."""
    batch, channels, h, w = dx.shape
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(batch * channels, chunk, chunks)
        for m in range(lo, hi):
            n, c = m // channels, m % channels
            dx[n, c] = 0
            for r in range(g.shape[2]):
                for i in range(max(r * stride_h - pad_h, 0), min(r * stride_h - pad_h + kh, h)):
                    for j in range(kw):
                        first, last = inside(j - pad_w, stride_w, w, g.shape[3])
                        scatter_to_all(dx[n, c, i], g[n, c, r], j - pad_w, stride_w, first, last,
                                       dx.dtype.type(1 / (kh * kw)))
