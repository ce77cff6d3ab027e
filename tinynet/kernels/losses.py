"""Kernels of losses. `loss` has one element for a sum or a mean (its terms are multiplied by `factor`: 1 for a sum,
1/elements for a mean), or one for each term (`factor` 1). The gradient g has the shape of the loss."""

import numpy as np

from .backend.compiled import chunk_bounds, jit, kernel, prange
from .backend.math32 import exp_of, log1p_of, log_of, sigmoid_of
from .normalization import minus, shifted_exponentials


@jit
def cross_entropy_rows(losses, p, logits, targets, ignored):
    """Fills p and the losses (where there is one for each row), and returns their sum."""
    total = 0.0
    n = logits.shape[1]
    for i in range(logits.shape[0]):
        out = p[i]
        m, s = shifted_exponentials(out, logits[i])
        inverse = p.dtype.type(1) / s
        for j in range(n):
            out[j] *= inverse
        k = targets[i]
        term = s * 0 if k == ignored else -minus(logits[i, k], m, log_of(s)) if 0 <= k < n else s * np.nan
        total += term
        if losses.size:
            losses[i] = term
    return total


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
def cross_entropy(loss, p, logits, targets, ignored, mean, chunks):
    """loss = Σᵢ -log pᵢ[targets[i]], over the rows for a mean, with p = softmax(logits), kept for the backward pass.

    logits (rows, n), targets (rows,) integers in [0, n), or `ignored` in rows that do not count; any other target makes
    the loss NaN.
    """
    rows = targets.size
    each = loss.size == rows and rows > 1
    sums = np.zeros(chunks)
    if logits.size:
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(rows, chunk, chunks)
            sums[chunk] = cross_entropy_rows(loss[lo:hi] if each else loss[0:0], p[lo:hi], logits[lo:hi],
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
        grad = (g[i] if g.size > 1 else g[0]) * factor
        for j in range(q.size):
            out[j] = q[j] * grad
        if 0 <= k < q.size:
            out[k] -= grad


@kernel
def cross_entropy_backward(dlogits, g, p, targets, ignored, mean, chunks):
    """dlogits[i, j] = g (p[i, j] - [j = targets[i]]), over the rows for a mean; 0 in the rows that are ignored."""
    rows = targets.size
    factor = p.dtype.type(weight(targets, ignored, mean))
    each = g.size == rows and rows > 1
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(rows, chunk, chunks)
        cross_entropy_backward_rows(dlogits[lo:hi], g[lo:hi] if each else g, p[lo:hi], targets[lo:hi], ignored, factor)


# ---------------------------------------------------------------------------------------- losses element by element

def terms_form(losses, y, target):
    for i in range(y.size):
        losses[i] = term(y[i], target[i])  # noqa: F821


def sum_form(y, target):
    """Blocks are added up in double precision, so that long sums keep their accuracy."""
    s = 0.0
    for lo in range(0, y.size, 4096):
        block, wanted = y[lo:lo + 4096], target[lo:lo + 4096]
        partial = y.dtype.type(0)
        for i in range(block.size):
            partial += term(block[i], wanted[i])  # noqa: F821
        s += partial
    return s


def loss_form(loss, y, target, factor, chunks):
    """loss = factor Σᵢ term(y[i], target[i]), or the terms themselves; y and target 1-D."""
    each = loss.size == y.size and y.size > 1
    sums = np.zeros(chunks)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(y.size, chunk, chunks)
        if each:
            terms(loss[lo:hi], y[lo:hi], target[lo:hi])  # noqa: F821
        else:
            sums[chunk] = sum_of_terms(y[lo:hi], target[lo:hi])  # noqa: F821
    if not each and loss.size:
        loss[0] = sums.sum() * factor


def derivative_form(dy, g, y, target, factor):
    if g.size > 1:
        for i in range(y.size):
            dy[i] = g[i] * factor * derivative(y[i], target[i])  # noqa: F821
    elif y.size:
        grad = g[0] * factor
        for i in range(y.size):
            dy[i] = grad * derivative(y[i], target[i])  # noqa: F821


def loss_backward_form(dy, g, y, target, factor, chunks):
    """dy[i] = g factor ∂term/∂y"""
    each = g.size == y.size and y.size > 1
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(y.size, chunk, chunks)
        apply(dy[lo:hi], g[lo:hi] if each else g, y[lo:hi], target[lo:hi], y.dtype.type(factor))  # noqa: F821


def element_loss(name, term, derivative):
    """The kernels (loss, y, target, factor) and (dy, g, y, target, factor) of a loss that is a sum over elements."""
    terms, sum_of_terms = jit(terms_form, name=f"{name}_terms", term=term), jit(sum_form, name=f"{name}_sum", term=term)
    apply = jit(derivative_form, name=f"{name}_derivative", derivative=derivative)
    return (kernel(loss_form, name=name, measure=1, terms=terms, sum_of_terms=sum_of_terms),
            kernel(loss_backward_form, name=f"{name}_backward", apply=apply))


@jit
def squared_error(y, t):
    """(y - t)²"""
    return (y - t) * (y - t)


@jit
def squared_error_derivative(y, t):
    """2 (y - t)"""
    return (y - t) + (y - t)


@jit
def logistic_loss(z, t):
    """-t log σ(z) - (1 - t) log(1 - σ(z)) = max(z, 0) - z t + log(1 + e^-|z|)"""
    return (z if z > 0 else z * 0) - z * t + log1p_of(exp_of(-abs(z)))


@jit
def logistic_loss_derivative(z, t):
    """σ(z) - t"""
    return sigmoid_of(z) - t


mse, mse_backward = element_loss("mse", squared_error, squared_error_derivative)
bce_with_logits, bce_with_logits_backward = element_loss("bce_with_logits", logistic_loss, logistic_loss_derivative)
