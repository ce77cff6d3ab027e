"""Kernels of normalization: of each row by itself (softmax, its logarithm, layer norm; arrays are rows × n), and of
each channel over the batch (batch norm)."""

import numpy as np

from .backend.compiled import SAME_ORDER, chunk_bounds, jit, kernel, prange
from .backend.math32 import exp_of, log_of, maximum


@jit
def largest(x):
    """The maximum. It may overlook a NaN, which the sum of the exponentials then finds."""
    m = x[0]
    for i in range(1, x.size):
        m = maximum(m, x[i])
    return m


@jit
def shifted_exponentials(y, x):
    """y = exp(x - max x); returns max x and the sum of y."""
    m = largest(x)
    s = x.dtype.type(0)
    for i in range(x.size):
        e = exp_of(x[i] - m)
        y[i] = e
        s += e
    return m, s


@jit
def sum_of_exponentials(x, m):
    s = x.dtype.type(0)
    for i in range(x.size):
        s += exp_of(x[i] - m)
    return s


@jit
def dot(a, b):
    s = a.dtype.type(0)
    for i in range(a.size):
        s += a[i] * b[i]
    return s


@jit
def total(a):
    s = a.dtype.type(0)
    for i in range(a.size):
        s += a[i]
    return s


@jit
def add(y, x):
    for i in range(x.size):
        y[i] += x[i]


@jit
def put(y, x):
    for i in range(x.size):
        y[i] = x[i]


@jit
def add_rows(out, x):
    """out[j] = Σᵢ x[i, j], row after row."""
    out[:] = 0
    for i in range(x.shape[0]):
        add(out, x[i])


@jit(math=SAME_ORDER)
def minus(x, a, b):
    """(x - a) - b, in this order: with a = 10⁴, a + b would lose what b has to say."""
    return (x - a) - b


@jit
def softmax_rows(y, x):
    """y[i, j] = exp(x[i, j]) / Σₖ exp(x[i, k]), shifted by the row's maximum so that nothing overflows"""
    for i in range(x.shape[0]):
        p = y[i]
        _, s = shifted_exponentials(p, x[i])
        inverse = y.dtype.type(1) / s
        for j in range(p.size):
            p[j] *= inverse


@jit
def softmax_backward_rows(dx, g, y):
    """dx[i, j] = y[i, j] (g[i, j] - Σₖ g[i, k] y[i, k])"""
    for i in range(y.shape[0]):
        row, p, grad = dx[i], y[i], g[i]
        s = dot(grad, p)
        for j in range(p.size):
            row[j] = p[j] * (grad[j] - s)


@jit
def log_softmax_rows(y, x):
    """y[i, j] = x[i, j] - max - log Σₖ exp(x[i, k] - max)"""
    for i in range(x.shape[0]):
        row, out = x[i], y[i]
        m = largest(row)
        shift = log_of(sum_of_exponentials(row, m))
        for j in range(row.size):
            out[j] = minus(row[j], m, shift)


@jit
def log_softmax_backward_rows(dx, g, y):
    """dx[i, j] = g[i, j] - exp(y[i, j]) Σₖ g[i, k]"""
    for i in range(y.shape[0]):
        row, out, grad = y[i], dx[i], g[i]
        s = total(grad)
        for j in range(row.size):
            out[j] = grad[j] - exp_of(row[j]) * s


def forward_form(y, x, chunks):
    if x.size:
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(x.shape[0], chunk, chunks)
            rows(y[lo:hi], x[lo:hi])  # noqa: F821


def backward_form(dx, g, y, chunks):
    if y.size:
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(y.shape[0], chunk, chunks)
            rows(dx[lo:hi], g[lo:hi], y[lo:hi])  # noqa: F821


softmax = kernel(forward_form, name="softmax", rows=softmax_rows)
softmax_backward = kernel(backward_form, name="softmax_backward", rows=softmax_backward_rows)
log_softmax = kernel(forward_form, name="log_softmax", rows=log_softmax_rows)
log_softmax_backward = kernel(backward_form, name="log_softmax_backward", rows=log_softmax_backward_rows)


# --------------------------------------------------------------------------------------------------------- layer norm

@jit
def squares(x, mean):
    s = x.dtype.type(0)
    for i in range(x.size):
        d = x[i] - mean
        s += d * d
    return s


@jit
def layer_norm_rows(y, mean, rstd, x, weight, bias, eps):
    one = x.dtype.type(1)
    n = x.dtype.type(x.shape[1])
    for i in range(x.shape[0]):
        row, out = x[i], y[i]
        mu = total(row) / n
        r = one / np.sqrt(squares(row, mu) / n + eps)
        mean[i], rstd[i] = mu, r
        for j in range(row.size):
            out[j] = (row[j] - mu) * r * weight[j] + bias[j]


@kernel
def layer_norm(y, mean, rstd, x, weight, bias, eps, chunks):
    """y[i, j] = (x[i, j] - mean[i]) · rstd[i] · weight[j] + bias[j], with rstd = 1 / √(variance + eps).

    mean and rstd (rows,) are kept for the backward pass. Ba, Kiros and Hinton (2016).
    """
    if x.size:
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(x.shape[0], chunk, chunks)
            layer_norm_rows(y[lo:hi], mean[lo:hi], rstd[lo:hi], x[lo:hi], weight, bias, x.dtype.type(eps))


@jit
def layer_norm_sums(grad, row, weight, mu, r):
    """Σ g w and Σ g w x̂"""
    a = row.dtype.type(0)
    b = row.dtype.type(0)
    for j in range(row.size):
        gw = grad[j] * weight[j]
        a += gw
        b += gw * ((row[j] - mu) * r)
    return a, b


@jit
def add_product(y, grad, row, mu, r):
    for j in range(row.size):
        y[j] += grad[j] * ((row[j] - mu) * r)


@jit
def layer_norm_backward_rows(dx, dweight, dbias, g, x, mean, rstd, weight):
    dweight[:] = 0
    dbias[:] = 0
    n = x.dtype.type(x.shape[1])
    for i in range(x.shape[0]):
        row, out, grad, mu, r = x[i], dx[i], g[i], mean[i], rstd[i]
        a, b = layer_norm_sums(grad, row, weight, mu, r)
        a, b = a / n, b / n
        for j in range(row.size):
            out[j] = r * (grad[j] * weight[j] - a - ((row[j] - mu) * r) * b)
        add_product(dweight, grad, row, mu, r)
        add(dbias, grad)


@kernel
def layer_norm_backward(dx, dweight, dbias, g, x, mean, rstd, weight, chunks):
    """With x̂ = (x - mean) rstd and means over j: dx = rstd (g w - mean(g w) - x̂ mean(g w x̂)),
    dweight = Σᵢ g x̂, dbias = Σᵢ g."""
    n = weight.size
    sums = np.zeros((2, chunks, n), weight.dtype)
    if x.size:
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(x.shape[0], chunk, chunks)
            layer_norm_backward_rows(dx[lo:hi], sums[0, chunk], sums[1, chunk], g[lo:hi], x[lo:hi], mean[lo:hi],
                                     rstd[lo:hi], weight)
    add_rows(dweight, sums[0])
    add_rows(dbias, sums[1])


# --------------------------------------------------------------------------------------------------------- batch norm

@kernel(measure=2)
def channel_moments(mean, variance, x, chunks):
    """The mean and the (biased) variance of each channel of x (batch, channels, pixels)."""
    batch, channels, pixels = x.shape
    count = batch * pixels
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(channels, chunk, chunks)
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
def batch_norm(y, x, mean, variance, weight, bias, eps, chunks):
    """y[n, c] = (x[n, c] - mean[c]) / √(variance[c] + eps) · weight[c] + bias[c]. Ioffe and Szegedy (2015)."""
    batch, channels, _ = x.shape
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(batch * channels, chunk, chunks)
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
def normalised_gradient(dx, g, x, mean, factor, shift, per_deviation):
    for i in range(x.size):
        dx[i] = g[i] * factor - shift - (x[i] - mean) * per_deviation


@kernel
def batch_norm_backward(dx, dweight, dbias, g, x, mean, variance, weight, eps, trained, chunks):
    """The gradients where mean and variance are those of x (`trained`), or constants.

    With x̂ = (x - mean) r, r = 1 / √(variance + eps): dweight = Σ g x̂, dbias = Σ g, and
    dx = weight r (g - dbias / count - x̂ dweight / count), the last two terms where `trained`.
    """
    batch, channels, pixels = x.shape
    count = batch * pixels
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(channels, chunk, chunks)
        for c in range(lo, hi):
            r = 1.0 / np.sqrt(variance[c] + eps)
            a, b = 0.0, 0.0
            for n in range(batch):
                a += products_with(g[n, c], x[n, c], mean[c])
                b += total(g[n, c])
            dweight[c], dbias[c] = a * r, b
            factor = weight[c] * r
            shift, per_deviation = (factor * b / count, factor * r * r * a / count) if trained else (0.0, 0.0)
            real = x.dtype.type
            for n in range(batch):
                normalised_gradient(dx[n, c], g[n, c], x[n, c], mean[c], real(factor), real(shift), real(per_deviation))
