"""Kernels of attention, softmax(Q Kᵀ · scale + mask) V, which never hold all scores of a long sequence.

A thread takes one head at a time, and of it a block of queries at a time: the scores of the block's queries with all
keys that they may see lie in a few hundred kilobytes, their softmax is taken where they lie, and the next block writes
over them. The backward pass computes the scores again from the logarithms of the softmax's denominators. Memory grows
with the tokens, not with their square; a causal block stops at its own last token. (The idea: Rabe and Staats, 2021;
Dao et al., 2022, who tile the keys as well.)

Arrays are (batch, heads, tokens, features); they may be views, as long as the features of a token lie in one piece.
"""

import numpy as np

from .compiled import jit, kernel, prange, span
from .linear import alone, gemm
from .math32 import exp_of, log_of
from .rows import largest

BLOCK = 64  # queries whose scores are held at a time


@jit
def exponentials(y, shift):
    """y ← exp(y - shift); returns the sum."""
    s = y.dtype.type(0)
    for i in range(y.size):
        e = exp_of(y[i] - shift)
        y[i] = e
        s += e
    return s


@jit
def multiply(y, factor):
    for i in range(y.size):
        y[i] *= factor


@jit
def slopes(ds, p, scale):
    """ds, which holds ∂L/∂p, becomes ∂L/∂s = scale · p (∂L/∂p - Σ p ∂L/∂p)."""
    mean = p.dtype.type(0)
    for i in range(p.size):
        mean += p[i] * ds[i]
    for i in range(p.size):
        ds[i] = scale * p[i] * (ds[i] - mean)


@jit
def seen(query, keys, causal):
    """How many keys the query may see."""
    return min(query + 1, keys) if causal else keys


@jit
def turn(y, x, factor):
    """y = factor · xᵀ. (Small products whose right operand is transposed would take twice the time.)"""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[j, i] = x[i, j] * factor


@jit
def reach(rows, features):
    """How many keys make a product with so many rows and features one that BLAS does without packing its operands."""
    return max(16, 1000000 // (rows * features) // 16 * 16)


@jit
def wide_product(c, a, b):
    """C = A B, where B is wide."""
    width = reach(*a.shape)
    for lo in range(0, b.shape[1], width):
        gemm(c[:, lo:lo + width], a, b[:, lo:lo + width], False, False, 1, 0)


@jit
def add_product(c, a, b):
    """C ← C + A B, where A is wide and B is deep."""
    depth = reach(*c.shape)
    for lo in range(0, b.shape[0], depth):
        gemm(c, a[:, lo:lo + depth], b[lo:lo + depth], False, False, 1, 1)


@jit
def add_tall_product(c, a, b):
    """C ← C + Aᵀ B, where C is tall."""
    height = reach(*b.shape)
    for lo in range(0, c.shape[0], height):
        gemm(c[lo:lo + height], a[:, lo:lo + height], b, True, False, 1, 1)


@jit
def add_mask(scores, mask, lo):
    """scores ← scores + mask for the queries lo, lo + 1, …"""
    for i in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            scores[i, j] += mask[lo + i, j]


@jit
def attend(out, lse, q, k, v, mask, causal, scale, memory, turned):
    """One head: out = softmax(q kᵀ scale + mask) v, lse = the logarithm of each softmax's denominator."""
    tokens, keys = q.shape[0], k.shape[0]
    turn(turned, k, scale)
    for lo in range(0, tokens, BLOCK):
        hi = min(lo + BLOCK, tokens)
        n = seen(hi - 1, keys, causal)
        p = memory[:(hi - lo) * n].reshape(hi - lo, n)
        wide_product(p, q[lo:hi], turned[:, :n])
        if mask.size:
            add_mask(p, mask, lo)
        for i in range(hi - lo):
            limit = seen(lo + i, keys, causal)
            row = p[i, :limit]
            m = largest(row)
            if m == -np.inf:  # a query that may see nothing: its weights are 0
                row[:] = 0
                lse[lo + i] = np.inf
            else:
                s = exponentials(row, m)
                multiply(row, 1 / s)
                lse[lo + i] = m + log_of(s)
            p[i, limit:] = 0
        out[lo:hi] = 0
        add_product(out[lo:hi], p, v[:n])


@jit
def head_mask(mask, b, h):
    """The mask of one head, empty where there is none."""
    return mask[b, h] if mask.size else np.empty((0, 0), mask.dtype)


@kernel(grain=4096)
def attention(out, lse, q, k, v, mask, causal, scale, parts):
    """out[b, h] = softmax(q[b, h] k[b, h]ᵀ · scale + mask[b, h]) v[b, h]; lse (batch, heads, queries) is kept.

    mask (batch, heads, queries, keys) is added to the scores (a broadcast view will do; of size 0 for none). With
    `causal` query i sees the keys 0 … i only. A query whose mask is -∞ for every key gets 0. Vaswani et al. (2017).
    """
    heads = q.shape[1]
    before = alone(1)
    for part in prange(parts):
        memory = np.empty(min(BLOCK, q.shape[2]) * k.shape[2], out.dtype)
        turned = np.empty((k.shape[3], k.shape[2]), out.dtype)
        lo, hi = span(q.shape[0] * heads, part, parts)
        for i in range(lo, hi):
            b, h = i // heads, i % heads
            attend(out[b, h], lse[b, h], q[b, h], k[b, h], v[b, h], head_mask(mask, b, h),
                   causal, out.dtype.type(scale), memory, turned)
    alone(before)


@jit
def attend_backward(dq, dk, dv, g, lse, q, k, v, mask, causal, scale, memory, second, turned_k, turned_v):
    """One head. With p the probabilities: dv = pᵀ g, ∂L/∂p = g vᵀ, dq = ∂L/∂s k, dk = ∂L/∂sᵀ q."""
    tokens, keys = q.shape[0], k.shape[0]
    turn(turned_k, k, scale)
    turn(turned_v, v, 1)
    dk[:, :] = 0
    dv[:, :] = 0
    for lo in range(0, tokens, BLOCK):
        hi = min(lo + BLOCK, tokens)
        n = seen(hi - 1, keys, causal)
        p = memory[:(hi - lo) * n].reshape(hi - lo, n)
        ds = second[:(hi - lo) * n].reshape(hi - lo, n)
        wide_product(p, q[lo:hi], turned_k[:, :n])
        if mask.size:
            add_mask(p, mask, lo)
        wide_product(ds, g[lo:hi], turned_v[:, :n])
        for i in range(hi - lo):
            limit = seen(lo + i, keys, causal)
            exponentials(p[i, :limit], lse[lo + i])
            slopes(ds[i, :limit], p[i, :limit], scale)
            p[i, limit:] = 0
            ds[i, limit:] = 0
        add_tall_product(dv[:n], p, g[lo:hi])
        dq[lo:hi] = 0
        add_product(dq[lo:hi], ds, k[:n])
        add_tall_product(dk[:n], ds, q[lo:hi])


@kernel(grain=4096)
def attention_backward(dq, dk, dv, g, lse, q, k, v, mask, causal, scale, parts):
    """The gradients of q, k and v, for the gradient g of out."""
    heads = q.shape[1]
    before = alone(1)
    for part in prange(parts):
        memory = np.empty((2, min(BLOCK, q.shape[2]) * k.shape[2]), dq.dtype)
        turned_k, turned_v = np.empty((k.shape[3], k.shape[2]), dq.dtype), np.empty((v.shape[3], v.shape[2]), dq.dtype)
        lo, hi = span(q.shape[0] * heads, part, parts)
        for i in range(lo, hi):
            b, h = i // heads, i % heads
            attend_backward(dq[b, h], dk[b, h], dv[b, h], g[b, h], lse[b, h], q[b, h], k[b, h], v[b, h],
                            head_mask(mask, b, h), causal, dq.dtype.type(scale), memory[0],
                            memory[1], turned_k, turned_v)
    alone(before)
