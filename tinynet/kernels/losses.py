"""Kernels of losses. `loss` has one element for a sum or a mean (its terms are multiplied by `factor`: 1 for a sum,
1/elements for a mean), or one for each term (`factor` 1). The gradient g has the shape of the loss."""

import numpy as np

from .backend.compiled import jit, kernel, prange, span
from .backend.math32 import exp_of, log1p_of, log_of, sigmoid_of
from .normalization import minus, shifted_exponentials


@jit
def cross_entropy_rows(losses, p, logits, targets, ignored):
    """Fills p and the losses (where there is one for each row), and returns their sum."""
    summed = 0.0
    n = logits.shape[1]
    for i in range(logits.shape[0]):
        out = p[i]
        m, s = shifted_exponentials(out, logits[i])
        inverse = p.dtype.type(1) / s
        for j in range(n):
            out[j] *= inverse
        k = targets[i]
        term = s * 0 if k == ignored else -minus(logits[i, k], m, log_of(s)) if 0 <= k < n else s * np.nan
        summed += term
        if losses.size:
            losses[i] = term
    return summed


@jit
def weight(targets, ignored, mean):
    """What each row counts: 1, or for a mean one over the number of rows that are not ignored."""
    if not mean:
        return 1.0
    kept = 0
    for i in range(targets.size):
        kept += targets[i] != ignored
    return 1.0 / kept


@kernel(measure=1, grain=8192)
def cross_entropy(loss, p, logits, targets, ignored, mean, parts):
    """loss = Σᵢ -log pᵢ[targets[i]], over the rows for a mean, with p = softmax(logits), kept for the backward pass.

    logits (rows, n), targets (rows,) integers in [0, n), or `ignored` in rows that do not count; any other target makes
    the loss NaN.
    """
    rows = targets.size
    each = loss.size == rows and rows > 1
    sums = np.zeros(parts)
    if logits.size:
        for part in prange(parts):
            lo, hi = span(rows, part, parts)
            sums[part] = cross_entropy_rows(loss[lo:hi] if each else loss[0:0], p[lo:hi], logits[lo:hi],
                                            targets[lo:hi], ignored)
    if not each and loss.size:
        loss[0] = sums.sum() * weight(targets, ignored, mean)


@jit
def cross_entropy_backward_rows(dlogits, g, p, targets, ignored, factor):
    for i in range(targets.size):
        out, q, k = dlogits[i], p[i], targets[i]
        if k == ignored:
            out[:] = 0
            continue
        share = (g[i] if g.size > 1 else g[0]) * factor
        for j in range(q.size):
            out[j] = q[j] * share
        if 0 <= k < q.size:
            out[k] -= share


@kernel
def cross_entropy_backward(dlogits, g, p, targets, ignored, mean, parts):
    """dlogits[i, j] = g (p[i, j] - [j = targets[i]]), over the rows for a mean; 0 in the rows that are ignored."""
    rows = targets.size
    factor = p.dtype.type(weight(targets, ignored, mean))
    each = g.size == rows and rows > 1
    for part in prange(parts):
        lo, hi = span(rows, part, parts)
        cross_entropy_backward_rows(dlogits[lo:hi], g[lo:hi] if each else g, p[lo:hi], targets[lo:hi], ignored, factor)


@jit
def squared_errors(losses, y, target):
    for i in range(y.size):
        d = y[i] - target[i]
        losses[i] = d * d


@jit
def sum_of_squared_errors(y, target):
    s = y.dtype.type(0)
    for i in range(y.size):
        d = y[i] - target[i]
        s += d * d
    return s


@jit
def blocked_squared_errors(y, target):
    """Their sum; blocks are added up in double precision, so that long sums keep their accuracy."""
    s = 0.0
    for lo in range(0, y.size, 4096):
        s += sum_of_squared_errors(y[lo:lo + 4096], target[lo:lo + 4096])
    return s


@kernel(measure=1)
def mse(loss, y, target, factor, parts):
    """loss = factor Σᵢ (y[i] - target[i])², or the terms themselves; y and target 1-D."""
    each = loss.size == y.size and y.size > 1
    sums = np.zeros(parts)
    for part in prange(parts):
        lo, hi = span(y.size, part, parts)
        if each:
            squared_errors(loss[lo:hi], y[lo:hi], target[lo:hi])
        else:
            sums[part] = blocked_squared_errors(y[lo:hi], target[lo:hi])
    if not each and loss.size:
        loss[0] = sums.sum() * factor


@jit
def mse_backward_chunk(dy, g, y, target, factor):
    if g.size > 1:
        for i in range(y.size):
            dy[i] = g[i] * factor * (y[i] - target[i])
    elif y.size:
        share = g[0] * factor
        for i in range(y.size):
            dy[i] = share * (y[i] - target[i])


@kernel
def mse_backward(dy, g, y, target, factor, parts):
    """dy[i] = 2 g factor (y[i] - target[i])"""
    each = g.size == y.size and y.size > 1
    for part in prange(parts):
        lo, hi = span(y.size, part, parts)
        mse_backward_chunk(dy[lo:hi], g[lo:hi] if each else g, y[lo:hi], target[lo:hi], y.dtype.type(2 * factor))


@jit
def logistic_loss(z, t):
    """-t log σ(z) - (1 - t) log(1 - σ(z)) = max(z, 0) - z t + log(1 + e^-|z|)"""
    return (z if z > 0 else z * 0) - z * t + log1p_of(exp_of(-abs(z)))


@jit
def logistic_losses(losses, z, target):
    for i in range(z.size):
        losses[i] = logistic_loss(z[i], target[i])


@jit
def blocked_logistic_losses(z, target):
    s = 0.0
    for lo in range(0, z.size, 4096):
        block, wanted = z[lo:lo + 4096], target[lo:lo + 4096]
        part = z.dtype.type(0)
        for i in range(block.size):
            part += logistic_loss(block[i], wanted[i])
        s += part
    return s


@kernel(measure=1)
def bce_with_logits(loss, z, target, factor, parts):
    """loss = factor Σᵢ -t log σ(z) - (1 - t) log(1 - σ(z)), or the terms themselves; z and target 1-D."""
    each = loss.size == z.size and z.size > 1
    sums = np.zeros(parts)
    for part in prange(parts):
        lo, hi = span(z.size, part, parts)
        if each:
            logistic_losses(loss[lo:hi], z[lo:hi], target[lo:hi])
        else:
            sums[part] = blocked_logistic_losses(z[lo:hi], target[lo:hi])
    if not each and loss.size:
        loss[0] = sums.sum() * factor


@jit
def bce_with_logits_backward_chunk(dz, g, z, target, factor):
    for i in range(z.size):
        dz[i] = (g[i] if g.size > 1 else g[0]) * factor * (sigmoid_of(z[i]) - target[i])


@kernel
def bce_with_logits_backward(dz, g, z, target, factor, parts):
    """dz[i] = g factor (σ(z[i]) - t[i])"""
    each = g.size == z.size and z.size > 1
    for part in prange(parts):
        lo, hi = span(z.size, part, parts)
        bce_with_logits_backward_chunk(dz[lo:hi], g[lo:hi] if each else g, z[lo:hi], target[lo:hi],
                                       z.dtype.type(factor))
