"""Attention, and the small products in it, against their definitions in double precision."""

import numpy as np
import pytest

from tests.kernels.common import both_dtypes, call, directional, doubles, normal, same, softmax, variants
from tinynet.kernels import attention, launch, small_gemm


@both_dtypes
@pytest.mark.parametrize("m, n, depth", [(1, 1, 1), (3, 40, 7), (8, 32, 16), (17, 23, 0), (21, 101, 5)])
def test_small_products(m, n, depth, dtype):
    rowwise, c = normal(m, depth, dtype=dtype), normal(m, n + 3, dtype=dtype)
    b = normal(depth, n + 3, dtype=dtype)[:, 1:1 + n]
    for a in (rowwise, np.asfortranarray(rowwise)):
        for add in (False, True):
            around = c.copy()
            small_gemm.multiply(around[:, 2:2 + n], a, b, add)
            A, B, C = doubles(a, b, c)
            C[:, 2:2 + n] = A @ B + (C[:, 2:2 + n] if add else 0)  # and what lies beside it stays as it was
            same(around, C, 4)


def attend(q, k, v, mask, causal, scale):
    scores = q @ k.swapaxes(-1, -2) * scale + (mask if mask.size else 0)
    return softmax(np.where(np.tri(*scores.shape[-2:]) > 0, scores, -np.inf) if causal else scores) @ v


def heads_of(batch, heads, tokens, features, dtype, packed):
    """(batch, heads, tokens, features), or as a layer holds it: the heads of a token side by side."""
    if packed:
        return normal(batch, tokens, heads, features, dtype=dtype).swapaxes(1, 2)
    return normal(batch, heads, tokens, features, dtype=dtype)


@variants
@pytest.mark.parametrize("queries, keys, features, causal, masked, packed", [
    (1, 1, 5, True, False, False), (7, 7, 16, True, False, True), (67, 67, 5, True, True, True),
    (131, 131, 37, True, False, True), (70, 150, 33, False, False, False), (150, 40, 5, True, False, False),
    (5, 67, 64, False, True, False)])
def test_attention(queries, keys, features, causal, masked, packed, dtype, chunks):
    shape, scale = (2, 3), 2 / (4 + features)
    q, g = (heads_of(*shape, queries, features, dtype, packed) for _ in range(2))
    k, v = (heads_of(*shape, keys, features, dtype, packed) for _ in range(2))
    mask = normal(*shape, queries, keys, dtype=dtype) if masked else np.empty((0, 0, 0, 0), dtype)
    out, dq, dk, dv = (np.full_like(a, np.nan) for a in (q, q, k, v))
    lse = np.empty((*shape, queries), dtype)
    call(attention.attention, chunks, out, lse, q, k, v, mask, causal, scale)
    call(attention.attention_backward, chunks, dq, dk, dv, g, out, lse, q, k, v, mask, causal, scale)
    q, k, v, g, mask = doubles(q, k, v, g, mask)
    same(out, attend(q, k, v, mask, causal, scale), 4)
    directional(lambda *a: attend(*a, mask, causal, scale), (q, k, v), (dq, dk, dv), g)


def test_attention_of_nothing():
    q, k, v = (normal(1, 1, 3, 5) for _ in range(3))
    mask = np.zeros((3, 3), np.float32)
    mask[1] = -np.inf
    out, lse = np.full_like(q, np.nan), np.empty(q.shape[:3], np.float32)
    launch(attention.attention, out, lse, q, k, v, np.broadcast_to(mask, (1, 1, 3, 3)), False, 1.0)
    assert not out[0, 0, 1].any() and out[0, 0, ::2].all()
    dq, dk, dv = (np.full_like(q, np.nan) for _ in range(3))
    launch(attention.attention_backward, dq, dk, dv, q, out, lse, q, k, v, np.broadcast_to(mask, (1, 1, 3, 3)), False,
           1.0)
    assert not dq[0, 0, 1].any() and np.isfinite(dk).all() and np.isfinite(dv).all()
    for shape in ((0, 3, 4, 5), (2, 3, 0, 5)):
        q = np.empty(shape, np.float32)
        nothing = np.empty((0,) * 4, np.float32)
        launch(attention.attention, q.copy(), np.empty(shape[:3], np.float32), q, q, q, nothing, True,
               1.0)
        launch(attention.attention_backward, q.copy(), q.copy(), q.copy(), q, q, np.empty(shape[:3], np.float32), q, q,
               q, np.empty((0,) * 4, np.float32), True, 1.0)
