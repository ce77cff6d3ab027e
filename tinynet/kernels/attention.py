"""Kernels of attention, softmax(Q Kᵀ · scale + mask) V, which never hold all scores of a long sequence.

A thread takes one head at a time, of it a block of queries at a time, and goes through the keys block by block. The
scores of a block of queries with a block of keys lie in the nearest cache; their softmax is kept up to date while the
blocks go by (the maximum so far, and the sum of the exponentials relative to it). The backward pass computes the scores
again from the logarithms of the softmax's denominators. Memory grows with the tokens, not with their square. (The idea:
Milakov and Gimelshein, 2018; Rabe and Staats, 2021; Dao et al., 2022.)

Scores lie with a key to a row and a query to a column: what is done to them is then done to many queries at once.
Arrays are (batch, heads, tokens, features); they may be views, as long as the features of a token lie in one piece.
"""

import numpy as np

from .backend.compiled import chunk_bounds, jit, kernel, prange
from .backend.math32 import exp_of, log_of, maximum
from .backend.small_gemm import ROWS, tile_row, transpose_scaled
from .normalization import put

QUERIES, KEYS = 64, 128  # of a block: its scores take 32 KB
COLUMNS = 16  # of queries: what no key of a row may be seen by is left out in steps of so many, a multiple of ROWS


@jit
def columns(tokens):
    """How many columns of scores a block of queries has: full vectors."""
    return min(QUERIES, (tokens + COLUMNS - 1) // COLUMNS * COLUMNS)


# Query i of a block may see the keys up to i + ahead, counted from the beginning of the block of keys. So the scores
# are a triangle wherever the diagonal passes through a block, and the products leave out the other half of it.

@jit
def first_query(key, ahead):
    """The first column of which the key's row of scores is computed; no query before it may see the key."""
    return max(0, key - ahead) // COLUMNS * COLUMNS


@jit
def scores_of(scores, k, queries, ahead):
    """scores[key, query] = k[key] · queries[:, query]"""
    for j in range(0, scores.shape[0], ROWS):
        tile_row(scores, k, queries, j, first_query(j, ahead), 0, k.shape[1], False)


@jit
def add_to_queries(out, scores, v, ahead):
    """out[query] += Σ over the keys that it may see of scores[key, query] · v[key]"""
    for i in range(0, out.shape[0], ROWS):
        tile_row(out, scores.T, v, i, 0, 0, min(v.shape[0], i + ROWS + ahead), True)


@jit
def add_to_keys(out, scores, q, ahead):
    """out[key] += Σ over the queries that may see it of scores[key, query] · q[query]"""
    for j in range(0, out.shape[0], ROWS):
        tile_row(out, scores, q, j, 0, max(0, j - ahead), q.shape[0], True)


@jit
def add_mask(scores, mask, lo, first):
    """scores[key, query] += mask[query, key], whose block begins at query `lo` and key `first`."""
    for i in range(min(scores.shape[1], mask.shape[0] - lo)):
        for j in range(scores.shape[0]):
            scores[j, i] += mask[lo + i, first + j]


@jit
def mask_causal(scores, ahead):
    """scores[key, query] = -∞ where the query may not see the key"""
    for j in range(ahead + 1, scores.shape[0]):
        row = scores[j]
        for i in range(min(row.size, j - ahead)):
            row[i] = -np.inf


@jit
def update_maximum(top, scores):
    """top[query] ← the largest of itself and of scores[:, query]"""
    for j in range(scores.shape[0]):
        for i in range(top.size):
            top[i] = maximum(top[i], scores[j, i])


@jit
def finite_or_zero(y, x):
    for i in range(x.size):
        y[i] = x[i] if x[i] != -np.inf else x.dtype.type(0)


@jit
def rescale(total, factor, shift):
    """factor ← exp(factor - shift); total ← total · factor"""
    zero = total.dtype.type(0)
    for i in range(total.size):
        x = factor[i] - shift[i]
        factor[i] = exp_of(x) if x != -np.inf else zero
        total[i] *= factor[i]


@jit
def exponentials(total, scores, shift):
    """scores ← exp(scores - shift); total[query] += Σ scores[:, query]"""
    zero = scores.dtype.type(0)
    for j in range(scores.shape[0]):
        for i in range(shift.size):
            x = scores[j, i] - shift[i]
            e = exp_of(x) if x != -np.inf else zero
            scores[j, i] = e
            total[i] += e


@jit
def score_gradients(ds, p, shift, mean, scale):
    """p, which holds the scores s, becomes exp(s - shift), the probabilities; ds, which holds ∂L/∂p, becomes
    ∂L/∂s = scale · p (∂L/∂p - Σ p ∂L/∂p)."""
    zero = p.dtype.type(0)
    for j in range(p.shape[0]):
        for i in range(shift.size):
            x = p[j, i] - shift[i]
            e = exp_of(x) if x != -np.inf else zero
            p[j, i] = e
            ds[j, i] = scale * e * (ds[j, i] - mean[i])


@jit
def dots(out, a, b):
    """out[i] = a[i] · b[i]"""
    for i in range(a.shape[0]):
        s = out.dtype.type(0)
        for j in range(a.shape[1]):
            s += a[i, j] * b[i, j]
        out[i] = s


@jit
def scale_rows(out, factors):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] *= factors[i]


@jit
def finish(out, lse, top, total, factor):
    """out ← out / total, and the logarithms of the sums; 0 and ∞ for a query that may see nothing."""
    for i in range(lse.size):
        s = total[i]
        factor[i] = 1 / s if s != 0 else s
        lse[i] = top[i] + log_of(s) if s != 0 else np.inf
    scale_rows(out, factor)


@jit
def attend(out, lse, q, k, v, mask, causal, scale, q_t, memory, top, shift, total, factor):
    """One head: out = softmax(q kᵀ scale + mask) v, lse = the logarithm of each softmax's denominator."""
    for lo in range(0, q.shape[0], QUERIES):
        hi = min(lo + QUERIES, q.shape[0])
        transpose_scaled(q_t, q[lo:hi], scale)
        top[:], total[:], out[lo:hi] = -np.inf, 0, 0
        end = min(hi, k.shape[0]) if causal else k.shape[0]
        for first in range(0, end, KEYS):
            last = min(first + KEYS, end)
            ahead = lo - first if causal else KEYS
            scores = memory[:last - first]
            scores_of(scores, k[first:last], q_t, ahead)
            if mask.size:
                add_mask(scores, mask, lo, first)
            mask_causal(scores, ahead)
            put(factor, top)
            update_maximum(top, scores)
            finite_or_zero(shift, top)  # where no key was seen yet
            rescale(total, factor, shift)
            exponentials(total, scores, shift)
            if first:
                scale_rows(out[lo:hi], factor)
            add_to_queries(out[lo:hi], scores, v[first:last], ahead)
        finish(out[lo:hi], lse[lo:hi], top, total, factor)


@jit
def head_mask(mask, b, h):
    """The mask of one head, empty where there is none."""
    return mask[b, h] if mask.size else np.empty((0, 0), mask.dtype)


@kernel(grain=4096)
def attention(out, lse, q, k, v, mask, causal, scale, chunks):
    """out[b, h] = softmax(q[b, h] k[b, h]ᵀ · scale + mask[b, h]) v[b, h]; lse (batch, heads, queries) is kept.

    mask (batch, heads, queries, keys) is added to the scores (a broadcast view will do; of size 0 for none). With
    `causal` query i sees the keys 0 … i only. A query whose mask is -∞ for every key gets 0. Vaswani et al. (2017).
    """
    heads, width = q.shape[1], columns(q.shape[2])
    for chunk in prange(chunks):
        q_t, memory = np.empty((q.shape[3], width), out.dtype), np.empty((KEYS, width), out.dtype)
        top, shift, total, factor = (np.empty(width, out.dtype), np.empty(width, out.dtype),
                                     np.empty(width, out.dtype), np.empty(width, out.dtype))
        lo, hi = chunk_bounds(q.shape[0] * heads, chunk, chunks)
        for i in range(lo, hi):
            b, h = i // heads, i % heads
            attend(out[b, h], lse[b, h], q[b, h], k[b, h], v[b, h], head_mask(mask, b, h), causal,
                   out.dtype.type(scale), q_t, memory, top, shift, total, factor)


@jit
def attend_backward(dq, dk, dv, g, out, lse, q, k, v, mask, causal, scale, q_t, g_t, memory, second, shift,
                    mean):
    """One head. With p the probabilities: dv = pᵀ g, ∂L/∂p = g vᵀ, dq = ∂L/∂s k, dk = ∂L/∂sᵀ q; Σ p ∂L/∂p = g · out.
    """
    dk[:, :] = 0
    dv[:, :] = 0
    for lo in range(0, q.shape[0], QUERIES):
        hi = min(lo + QUERIES, q.shape[0])
        transpose_scaled(q_t, q[lo:hi], scale)
        transpose_scaled(g_t, g[lo:hi], g.dtype.type(1))
        shift[:], mean[:], dq[lo:hi] = 0, 0, 0
        put(shift, lse[lo:hi])
        dots(mean, g[lo:hi], out[lo:hi])
        end = min(hi, k.shape[0]) if causal else k.shape[0]
        for first in range(0, end, KEYS):
            last = min(first + KEYS, end)
            ahead = lo - first if causal else KEYS
            p, ds = memory[:last - first], second[:last - first]
            scores_of(p, k[first:last], q_t, ahead)
            scores_of(ds, v[first:last], g_t, ahead)
            if mask.size:
                add_mask(p, mask, lo, first)
            mask_causal(p, ahead)
            score_gradients(ds, p, shift, mean, scale)
            add_to_keys(dv[first:last], p, g[lo:hi], ahead)
            add_to_keys(dk[first:last], ds, q[lo:hi], ahead)
            add_to_queries(dq[lo:hi], ds, k[first:last], ahead)


@kernel(grain=4096)
def attention_backward(dq, dk, dv, g, out, lse, q, k, v, mask, causal, scale, chunks):
    """The gradients of q, k and v, for the gradient g of out."""
    heads, width = q.shape[1], columns(q.shape[2])
    for chunk in prange(chunks):
        q_t, g_t = np.empty((q.shape[3], width), dq.dtype), np.empty((v.shape[3], width), dq.dtype)
        memory, second = np.empty((KEYS, width), dq.dtype), np.empty((KEYS, width), dq.dtype)
        shift, mean = np.empty(width, dq.dtype), np.empty(width, dq.dtype)
        lo, hi = chunk_bounds(q.shape[0] * heads, chunk, chunks)
        for i in range(lo, hi):
            b, h = i // heads, i % heads
            attend_backward(dq[b, h], dk[b, h], dv[b, h], g[b, h], out[b, h], lse[b, h], q[b, h], k[b, h], v[b, h],
                            head_mask(mask, b, h), causal, dq.dtype.type(scale), q_t, g_t, memory, second,
                            shift, mean)
