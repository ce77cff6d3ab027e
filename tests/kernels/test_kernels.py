"""Every kernel, serial and shared among threads, against its definition in double precision."""

import math
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tinynet
from tinynet import kernels
from tinynet.graph import mode
from tinynet.kernels import (
    activations,
    attention,
    compiled,
    convolution,
    dense,
    launch,
    losses,
    normalization,
    optimizers,
    replay,
    small,
    updates,
)

INTERPRETED = bool(int(os.environ.get("NUMBA_DISABLE_JIT", "0")))
SIZES = (0, 1, 7, 61)
SHAPES = ((0, 3), (1, 1), (5, 7), (61, 13))
DTYPES = (np.float32, np.float64)
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-13}
PARTS = (1, 3)  # how many threads share the work

rng = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def call(kernel, parts, *args):
    """The kernel with its work split into so many parts, whatever its size."""
    (kernel.serial if parts == 1 else kernel.parallel)(*args, parts)


def same(found, wanted, factor=1.0):
    tolerance = TOLERANCE[found.dtype] * factor
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def doubles(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
variants = pytest.mark.parametrize("dtype, parts", [(np.float32, 1), (np.float32, 3), (np.float64, 1)],
                                   ids=["float32", "float32 shared", "float64"])


# --------------------------------------------------------------------------------------------- the page of calculus

erf = np.vectorize(math.erf, otypes=[float])
normal_cdf = lambda x: 0.5 * (1 + erf(x / math.sqrt(2)))
logistic = lambda x: 0.5 * (1 + np.tanh(x / 2))
FUNCTIONS = {
    "exp": (np.exp, np.exp),
    "log": (np.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda x: -np.sin(x)),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "sigmoid": (logistic, lambda x: logistic(x) * logistic(-x)),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "erf": (erf, lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)),
    "gelu": (lambda x: x * normal_cdf(x), lambda x: normal_cdf(x) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
    "softplus": (lambda x: np.logaddexp(0, x), logistic),
    "neg": (lambda x: -x, lambda x: -np.ones_like(x)),
    "abs": (np.abs, np.sign),
}


@variants
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_with_one_operand(name, dtype, parts):
    function, slope = FUNCTIONS[name]
    for n in SIZES:
        x, g = 2 * normal(n, dtype=dtype), normal(n, dtype=dtype)
        if name in ("log", "sqrt"):
            x = np.abs(x) + dtype(0.01)
        y, dx = np.empty_like(x), np.empty_like(x)
        call(activations.unary(name), parts, y, x)
        same(y, function(*doubles(x)))
        call(activations.unary_backward(name), parts, dx, g, x, y)
        same(dx, np.multiply(*doubles(g, slope(*doubles(x)))))


@pytest.mark.parametrize("name, low, high", [("exp", -86, 88), ("tanh", -12, 12), ("sigmoid", -86, 88), ("erf", -5, 5),
                                             ("log", 1e-30, 1e30), ("softplus", -86, 88)])
def test_single_precision_is_accurate_everywhere(name, low, high):
    x = np.linspace(low, high, 20_000, dtype=np.float32)
    x = np.concatenate([x, np.geomspace(1e-30, 0.9 * high, 20_000).astype(np.float32)])
    y = np.empty_like(x)
    launch(activations.unary(name), y, x)
    if name in ("softplus", "sigmoid"):  # the oracles above lose the tails
        wanted = {"sigmoid": 1 / (1 + np.exp(-x.astype(float))), "softplus": np.log1p(np.exp(x.astype(float)))}[name]
    else:
        wanted = FUNCTIONS[name][0](x.astype(float))
    assert np.max(np.abs(y - wanted) / np.maximum(np.abs(wanted), 1e-37)) < 5e-7


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh", "sigmoid", "relu", "erf", "softplus", "neg", "abs"])
@both_dtypes
def test_infinities_and_nan(name, dtype):
    x = np.array([-math.inf, math.inf, math.nan, 0.0, -1e30, 1e30], dtype)
    y = np.empty_like(x)
    with np.errstate(all="ignore"):
        launch(activations.unary(name), y, x)
        wanted = FUNCTIONS[name][0](x.astype(float))
    np.testing.assert_allclose(y, wanted.astype(dtype), rtol=1e-6)


@both_dtypes
def test_gelu_from_the_smallest_to_the_largest_numbers(dtype):
    sizes = np.array([1e-45, 1e-38, 1e-30, 1e-3, 1, 5, 13.5, 100, 3e38], dtype)
    x = np.concatenate([[0], sizes, -sizes], dtype=dtype)
    y, dx = np.empty_like(x), np.empty_like(x)
    launch(activations.unary("gelu"), y, x)
    launch(activations.unary_backward("gelu"), dx, np.ones_like(x), x, y)
    with np.errstate(over="ignore"):
        for found, wanted in zip((y, dx), FUNCTIONS["gelu"]):
            same(found, wanted(x.astype(float)))


@pytest.mark.parametrize("name, i, slope", [
    ("**", 0, lambda a, b: b * a ** (b - 1)), ("**", 1, lambda a, b: a ** b * np.log(a)),
    ("max", 0, lambda a, b: (a > b) + 0.5 * (a == b)), ("min", 1, lambda a, b: (b < a) + 0.5 * (a == b))])
@both_dtypes
def test_a_row_with_two_operands_broadcasts(name, i, slope, dtype):
    a, b, g = np.abs(normal(4, 1, dtype=dtype)) + dtype(0.1), np.abs(normal(3, dtype=dtype)), normal(4, 3, dtype=dtype)
    a[0], b[0] = 1, 1
    y = np.power(a, b) if name == "**" else np.maximum(a, b) if name == "max" else np.minimum(a, b)
    out = np.empty_like(g)
    launch(activations.binary_backward(name, i), g, a, b, y, out)
    a, b, g = doubles(a, b, g)
    same(out, g * slope(a, b), 10)


@variants
def test_copies(dtype, parts):
    for n in SIZES:
        x, y = normal(n, dtype=dtype), normal(n, dtype=dtype)
        sums = np.add(x, y)
        call(activations.accumulate, parts, y, x)
        assert np.array_equal(y, sums)
        call(activations.copy, parts, y, x)
        assert np.array_equal(y, x)
        call(activations.scale, parts, y, x, 0.1)
        same(y, 0.1 * x)
        call(activations.fill, parts, y, 2.5)
        assert np.array_equal(y, np.full(n, 2.5))


@variants
def test_dropout(dtype, parts):
    x, u = normal(61, dtype=dtype), rng.random(61).astype(dtype)
    y = np.empty_like(x)
    for p in (0.0, 0.3, 1.0):
        call(activations.dropout, parts, y, x, u, p)
        same(y, np.where(u >= p, x / (1 - p) if p < 1 else 0, 0))


# --------------------------------------------------------------------------------------------------- linear algebra

@both_dtypes
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 1), (2, 61, 13), (61, 2, 13), (61, 13, 1), (0, 3, 4), (3, 0, 4),
                                   (3, 4, 0), (97, 101, 103), (1, 150, 37), (150, 1, 37)])
def test_products(shape, dtype):
    m, n, k = shape
    for ta in (False, True):
        for tb in (False, True):
            a = normal(k, m, dtype=dtype).T if ta else normal(m, k, dtype=dtype)
            b = normal(n, k, dtype=dtype).T if tb else normal(k, n, dtype=dtype)
            c = np.full((m, n), np.nan, dtype)
            launch(kernels.matmul, c, a, b)
            same(c, np.matmul(*doubles(a, b)), 20)
            if a.size and b.size and dense.blas.found:
                for parts in PARTS:
                    c[...] = np.nan
                    call(dense.product, parts, c, a.T if ta else a, b.T if tb else b, ta, tb)
                    same(c, np.matmul(*doubles(a, b)), 20)


@both_dtypes
def test_stacks_of_products(dtype):
    for lead in ((), (1,), (3,), (2, 3), (0, 2)):
        a, b = normal(*lead, 5, 4, dtype=dtype), normal(*lead, 6, 4, dtype=dtype)
        c = np.full((*lead, 5, 6), np.nan, dtype)
        launch(kernels.batched, c, a, b.swapaxes(-1, -2))
        wanted = np.matmul(*doubles(a, b.swapaxes(-1, -2)))
        same(c, wanted, 10)
        if len(lead) == 1 and dense.blas.found:
            for parts in PARTS:
                c[...] = np.nan
                call(dense.products, parts, c, a, b, False, True)
                same(c, wanted, 10)
    c = np.empty((2, 3, 3))
    launch(kernels.batched, c, np.ones((2, 3, 4)), np.ones((1, 4, 3)))  # broadcast: NumPy's own product
    assert np.all(c == 4)


@compiled.jit
def gemm(c, a, b, ta, tb, alpha, beta):
    dense.gemm(c, a, b, ta, tb, alpha, beta)


@both_dtypes
@pytest.mark.parametrize("m, n, k", [(1, 1, 1), (3, 16, 8), (9, 33, 17), (17, 8, 300), (64, 257, 130), (100, 300, 255),
                                     (400, 40, 513), (8, 50, 0), (1, 150, 37), (150, 1, 37), (1, 5, 0), (5, 1, 0)])
def test_products_within_larger_arrays(m, n, k, dtype):
    for ta in (False, True):
        for tb in (False, True):
            a, b = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype)
            left, right = np.array(a.T if ta else a, order="C"), np.array(b.T if tb else b, order="C")
            for alpha, beta in ((1, 0), (0.5, 2)):
                around = normal(m + 2, n + 5, dtype=dtype)
                wanted = around.astype(np.float64)
                wanted[1:-1, 2:2 + n] = alpha * np.matmul(*doubles(a, b)) + beta * wanted[1:-1, 2:2 + n]
                if beta == 0:
                    around[1:-1, 2:2 + n] = np.nan  # is not read
                gemm(around[1:-1, 2:2 + n], left, right, ta, tb, alpha, beta)
                same(around, wanted, 40)  # and what lies beside it stays as it was


def test_a_product_of_strided_operands():
    a, b, c = normal(10, 12)[::2, ::3], normal(12, 6)[::-3], np.empty((5, 6), np.float32)
    launch(kernels.matmul, c, a, b)
    same(c, np.matmul(*doubles(a, b)), 10)


@pytest.mark.skipif(not dense.blas.found, reason="no BLAS with 64-bit integers")
def test_products_leave_the_threads_of_blas_alone():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    threads = lambda: [pool["num_threads"] for pool in threadpoolctl.threadpool_info()
                       if pool["user_api"] == "blas"]
    before = threads()
    launch(kernels.matmul, np.empty((300, 300), np.float32), normal(300, 300), normal(300, 300))
    assert threads() == before


@variants
@pytest.mark.parametrize("name", [None, "relu", "tanh", "sigmoid", "gelu", "softplus"])
def test_a_layer_and_its_gradient(name, dtype, parts):
    function, slope = FUNCTIONS[name] if name else (lambda z: z, np.ones_like)
    for shape in SHAPES:
        x, w = normal(shape[0], 4, dtype=dtype), normal(shape[1], 4, dtype=dtype)
        b, g = normal(shape[1], dtype=dtype), normal(*shape, dtype=dtype)
        z = x.astype(float) @ w.T + b
        y = np.full(shape, np.nan, dtype)
        kept = np.full_like(y, np.nan) if dense.keeps_input(name) else y
        call(dense.layer(name).parts, parts, y, kept, x, w, b)
        same(y, function(z), 4)
        if dense.keeps_input(name):
            same(kept, z, 4)
        again, kept_again = y.copy(), kept.copy()
        dense.layer(name).by_numpy(again, kept_again if dense.keeps_input(name) else again, x, w, b)
        same(again, y, 4)
        wanted = g.astype(float) @ w, g.T.astype(float) @ x, g.astype(float).sum(0)
        for function_of in (dense.layer_backward.by_numpy,
                            lambda *arrays: call(dense.layer_backward_together, parts, *arrays)):
            for which in ((1, 1, 1), (0, 1, 1), (1, 0, 0)):
                found = [np.full(a.shape, np.nan, dtype) if kept else None for a, kept in zip(wanted, which)]
                function_of(*found, g, x, w)
                for a, b_ in zip(found, wanted):
                    if a is not None:
                        same(a, b_, 40)
        if name is None:
            continue
        for dz in (np.empty_like(g), g.copy()):  # the second time in place
            db = np.full_like(b, np.nan)
            call(dense.bias_act_backward(name), parts, dz, db, dz if np.array_equal(dz, g) else g, kept, y)
            same(dz, g * slope(z), 8)
            same(db, (g * slope(z)).sum(0), 60)


@variants
def test_sums_and_transposes(dtype, parts):
    for shape in SHAPES:
        x = normal(*shape, dtype=dtype)
        columns, total, turned = np.empty(shape[1], dtype), np.empty(1, dtype), np.empty(shape[::-1], dtype)
        call(dense.column_sums, parts, columns, x)
        same(columns, x.astype(float).sum(0), 20)
        call(dense.total, parts, total, x.reshape(-1), 0.5)
        same(total, [x.astype(float).sum() / 2], 20)
        call(dense.total_of_squares, parts, total, x.reshape(-1))
        same(total, [(x.astype(float) ** 2).sum()], 2)
        call(dense.transpose, parts, turned, x)
        assert np.array_equal(turned, x.T)


@pytest.mark.skipif(INTERPRETED, reason="sums lie in the lanes of vectors")
def test_a_long_sum_keeps_its_accuracy():
    total = np.empty(1, np.float32)
    launch(dense.total, total, np.full(300_000, 0.1, np.float32), 1.0)
    assert abs(total[0] / (300_000 * float(np.float32(0.1))) - 1) < 1e-6


@variants
def test_embedding(dtype, parts):
    weight, indices = normal(11, 5, dtype=dtype), rng.integers(0, 9, 40)
    out, g, dweight = np.empty((40, 5), dtype), normal(40, 5, dtype=dtype), np.full((11, 5), np.nan, dtype)
    call(dense.embedding, parts, out, weight, indices)
    assert np.array_equal(out, weight[indices])
    call(dense.embedding_backward, parts, dweight, g, indices)
    wanted = np.zeros((11, 5))
    np.add.at(wanted, indices, g)
    same(dweight, wanted, 10)


# ------------------------------------------------------------------------------------------------------------- rows

def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True, initial=-1e300))
    return e / e.sum(-1, keepdims=True)


@variants
def test_softmax(dtype, parts):
    for shape in SHAPES:
        x, g = 3 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
        p = softmax(*doubles(x))
        y, dx = np.empty_like(x), np.empty_like(x)
        call(normalization.softmax, parts, y, x)
        same(y, p)
        call(normalization.softmax_backward, parts, dx, g, y)
        jacobians = [np.diag(row) - np.outer(row, row) for row in p]
        same(dx, np.array([J @ row for J, row in zip(jacobians, g)]).reshape(shape), 4)
        call(normalization.log_softmax, parts, y, x)
        same(y, np.log(p), 4)
        call(normalization.log_softmax_backward, parts, dx, g, y)
        same(dx, np.array([(np.eye(len(row)) - row[:, None]) @ share for row, share in zip(p, g)]).reshape(shape), 20)


@both_dtypes
def test_softmax_of_huge_numbers(dtype):
    x = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, -math.inf]], dtype)
    y = np.empty_like(x)
    launch(normalization.softmax, y, x)
    same(y, [[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]])
    launch(normalization.log_softmax, y, x)
    same(y, [[0, -2e4, -1e4], [-math.log(3)] * 3, [-math.log(2), -math.log(2), -math.inf]])


def test_softmax_passes_nan_on():
    x = np.zeros((2, 40), np.float32)
    x[0, 17] = np.nan
    y = np.empty_like(x)
    launch(normalization.softmax, y, x)
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()


def layer_norm(x, w, b, eps):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * w + b


@variants
def test_layer_norm(dtype, parts):
    for shape in ((0, 3), (5, 7), (31, 13)):
        n, eps = shape[1], 1e-5
        x, g, w, b = (normal(*s, dtype=dtype) for s in (shape, shape, (n,), (n,)))
        y, dx, dw, db = (np.full_like(a, np.nan) for a in (x, x, w, b))
        mean, rstd = np.empty(shape[0], dtype), np.empty(shape[0], dtype)
        call(normalization.layer_norm, parts, y, mean, rstd, x, w, b, eps)
        call(normalization.layer_norm_backward, parts, dx, dw, db, g, x, mean, rstd, w)
        x, g, w, b = doubles(x, g, w, b)
        same(y, layer_norm(x, w, b, eps), 4)
        for found, i in ((dx, 0), (dw, 1), (db, 2)):  # along random directions, by central differences
            d = 1e-5 * rng.standard_normal(found.shape)
            up, down = ([a + sign * d if j == i else a for j, a in enumerate((x, w, b))] for sign in (1, -1))
            difference = (g * (layer_norm(*up, eps) - layer_norm(*down, eps))).sum()
            assert 2 * (found * d).sum() == pytest.approx(difference, rel=1e-3, abs=1e-8)


# ------------------------------------------------------------------------------------------------------ joined calls

@compiled.jit
def scaled_unless(y, x, factor, refuse):
    if refuse:
        raise ValueError("refused")
    for i in range(x.size):
        y[i] = x[i] * factor


def test_joined_calls_do_what_the_calls_did():
    x, y, z, w, sums = normal(7), normal(7), normal(7), normal(2, 3, dtype=np.float64), np.zeros(1)
    calls = [(scaled_unless, (y, x, 3.0, False)), (scaled_unless, (z, y[::-1], 2.0, False)), (np.copyto, (x, z)),
             (scaled_unless, (y, x, 0.5, False)), (dense.total.serial, (sums, w.reshape(-1), 2.0, 1))]
    start = x.copy()
    for kernel, args in calls:
        kernel(*args)  # compiles
    w[:] = 1.0
    functions = replay.joined(calls)
    assert INTERPRETED or len(functions) == 3  # what goes through NumPy stands between two runs of compiled kernels
    for repeat in (1, 2):
        x[:], y[:], z[:] = start * repeat, 0, 0
        for function in functions:
            function()
        same(z, (6 * repeat * start[::-1]), 1)
        same(y, 0.5 * z, 1)
    assert sums[0] == 12


def test_a_joined_call_says_what_went_wrong():
    x = normal(3)
    scaled_unless(x, x, 1.0, False)
    calls = [(scaled_unless, (x, x, 2.0, False)), (scaled_unless, (x, x, 1.0, True))]
    before = x.copy()
    with pytest.raises(ValueError, match="refused"):
        for function in replay.joined(calls):
            function()
    assert np.array_equal(x, 2 * before)


# -------------------------------------------------------------------------------------------------------- attention

@both_dtypes
@pytest.mark.parametrize("m, n, depth", [(1, 1, 1), (3, 40, 7), (8, 32, 16), (17, 23, 0), (21, 101, 5)])
def test_small_products(m, n, depth, dtype):
    rowwise, c = normal(m, depth, dtype=dtype), normal(m, n + 3, dtype=dtype)
    b = normal(depth, n + 3, dtype=dtype)[:, 1:1 + n]
    for a in (rowwise, np.asfortranarray(rowwise)):
        for add in (False, True):
            around = c.copy()
            small.multiply(around[:, 2:2 + n], a, b, add)
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
def test_attention(queries, keys, features, causal, masked, packed, dtype, parts):
    shape, scale = (2, 3), 2 / (4 + features)
    q, g = (heads_of(*shape, queries, features, dtype, packed) for _ in range(2))
    k, v = (heads_of(*shape, keys, features, dtype, packed) for _ in range(2))
    mask = normal(*shape, queries, keys, dtype=dtype) if masked else np.empty((0, 0, 0, 0), dtype)
    out, dq, dk, dv = (np.full_like(a, np.nan) for a in (q, q, k, v))
    lse = np.empty((*shape, queries), dtype)
    call(attention.attention, parts, out, lse, q, k, v, mask, causal, scale)
    call(attention.attention_backward, parts, dq, dk, dv, g, out, lse, q, k, v, mask, causal, scale)
    q, k, v, g, mask = doubles(q, k, v, g, mask)
    same(out, attend(q, k, v, mask, causal, scale), 4)
    for found, i in ((dq, 0), (dk, 1), (dv, 2)):
        d = 1e-5 * rng.standard_normal(found.shape)
        up, down = ([a + sign * d if j == i else a for j, a in enumerate((q, k, v))] for sign in (1, -1))
        difference = (g * (attend(*up, mask, causal, scale) - attend(*down, mask, causal, scale))).sum()
        assert 2 * (found * d).sum() == pytest.approx(difference, rel=1e-3, abs=1e-8)


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


# ----------------------------------------------------------------------------------------------- images

def windows(x, kernel, stride, padding, value=0.0):
    """(batch, channels, rows, columns, kh, kw)"""
    x = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]], constant_values=value)
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, ::stride[0], ::stride[1]]


def convolve(x, weight, bias, stride, padding):
    return np.einsum("ncrsij,ocij->nors", windows(x, weight.shape[2:], stride, padding), weight) + bias[:, None, None]


def directional(function, arrays, found, g):
    """`found` are the gradients of Σ g · function(*arrays), by differences along random directions."""
    for i, gradient in enumerate(found):
        d = 1e-5 * rng.standard_normal(gradient.shape)
        up, down = ([a + sign * d if j == i else a for j, a in enumerate(arrays)] for sign in (1, -1))
        difference = (g * (function(*up) - function(*down))).sum()
        assert 2 * (gradient * d).sum() == pytest.approx(difference, rel=1e-3, abs=1e-7)


@variants
@pytest.mark.parametrize("image, kernel, stride, padding", [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)), ((4, 3, 9, 8), (3, 2), (1, 1), (0, 0)),
    ((3, 2, 7, 8), (3, 3), (1, 1), (1, 2)), ((2, 3, 9, 8), (3, 3), (2, 2), (1, 1)),
    ((3, 2, 11, 7), (4, 3), (2, 1), (0, 1)), ((0, 2, 5, 5), (3, 3), (1, 1), (1, 1)),
    ((6, 5, 20, 19), (5, 4), (3, 2), (2, 3)), ((5, 2, 6, 40), (1, 40), (1, 1), (0, 0)),
    ((2, 3, 7, 7), (1, 1), (2, 3), (0, 0)), ((9, 1, 3, 3), (2, 2), (1, 1), (3, 4)),
    ((1, 1, 1, 900), (1, 700), (1, 2), (0, 30))])
def test_convolution(image, kernel, stride, padding, dtype, parts):
    x, weight, bias = (normal(*s, dtype=dtype) for s in (image, (5, image[1], *kernel), (5,)))
    wanted = convolve(*doubles(x, weight, bias), stride, padding)
    y, g = np.full(wanted.shape, np.nan, dtype), normal(*wanted.shape, dtype=dtype)
    gradients = [np.full_like(a, np.nan) for a in (x, weight, bias)]
    call(convolution.conv2d, parts, y, x, weight, bias, *stride, *padding)
    same(y, wanted, 20)
    call(convolution.conv2d_backward, parts, *gradients, g, x, weight, *stride, *padding)
    directional(lambda x, w, b: convolve(x, w, b, stride, padding), doubles(x, weight, bias), gradients, g)
    others = [np.full_like(a, np.nan) for a in (weight, bias)]
    call(convolution.conv2d_backward, parts, np.empty((0,) * 4, dtype), *others, g, x, weight, *stride, *padding)
    assert all(np.array_equal(a, b) for a, b in zip(others, gradients[1:]))


@variants
@pytest.mark.parametrize("image, kernel, stride, padding", [
    ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0)), ((2, 3, 9, 7), (3, 2), (1, 2), (1, 1)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)), ((2, 3, 9, 7), (3, 3), (2, 2), (1, 1)),
    ((0, 3, 9, 7), (3, 3), (2, 2), (1, 1))])
def test_pooling(image, kernel, stride, padding, dtype, parts):
    x = (rng.permutation(int(np.prod(image))).reshape(image) / 10).astype(dtype)  # no two are nearly the same
    maxima = lambda x: windows(x, kernel, stride, padding, -np.inf).max((-2, -1), initial=-np.inf)
    largest = maxima(x)
    y, g = np.full(largest.shape, np.nan, dtype), normal(*largest.shape, dtype=dtype)
    where, dx = np.full(largest.shape, -1, np.int32), np.full_like(x, np.nan)
    settings = (*kernel, *stride, *padding)
    call(convolution.max_pool2d, parts, y, where, x, *settings)
    assert np.array_equal(y, largest)
    call(convolution.max_pool2d_backward, parts, dx, g, where)
    directional(maxima, doubles(x), [dx], g)
    call(convolution.avg_pool2d, parts, y, x, *settings)
    same(y, windows(*doubles(x), kernel, stride, padding).mean((-2, -1)))
    call(convolution.avg_pool2d_backward, parts, dx, g, *settings)
    directional(lambda x: windows(x, kernel, stride, padding).mean((-2, -1)), doubles(x), [dx], g)


def test_the_largest_of_a_window_with_nan_is_nan():
    x, where = np.array([[[[1.0, np.nan, 3.0, 4.0]]]], np.float32), np.empty((1, 1, 1, 2), np.int32)
    y = np.empty((1, 1, 1, 2), np.float32)
    launch(convolution.max_pool2d, y, where, x, 1, 2, 1, 2, 0, 0)
    assert np.isnan(y[0, 0, 0, 0]) and y[0, 0, 0, 1] == 4


def batch_norm(x, weight, bias, mean=None, variance=None):
    mean = x.mean((0, 2)) if mean is None else mean
    variance = x.var((0, 2)) if variance is None else variance
    column = lambda a: a[:, None]
    return (x - column(mean)) / np.sqrt(column(variance) + 1e-5) * column(weight) + column(bias)


@variants
@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 7)])
def test_batch_norm(shape, dtype, parts):
    x, g = 2 * normal(*shape, dtype=dtype) + dtype(1), normal(*shape, dtype=dtype)
    weight, bias = normal(shape[1], dtype=dtype), normal(shape[1], dtype=dtype)
    for trained in (True, False):
        mean, variance = normal(shape[1], dtype=dtype), rng.random(shape[1]).astype(dtype)
        if trained:
            call(convolution.channel_moments, parts, mean, variance, x)
            same(mean, x.astype(float).mean((0, 2)))
            same(variance, x.astype(float).var((0, 2)), 4)
        constants = () if trained else doubles(mean, variance)
        y, gradients = np.empty_like(x), [np.full_like(a, np.nan) for a in (x, weight, bias)]
        call(convolution.batch_norm, parts, y, x, mean, variance, weight, bias, 1e-5)
        same(y, batch_norm(*doubles(x, weight, bias), *constants), 20)
        call(convolution.batch_norm_backward, parts, *gradients, g, x, mean, variance, weight, 1e-5, trained)
        directional(lambda *a, c=constants: batch_norm(*a, *c), doubles(x, weight, bias), gradients, g)


# ----------------------------------------------------------------------------------------------------------- losses

def reductions(n):
    """(size of the loss, factor) of a mean, a sum and no reduction."""
    return (1, 1 / n), (1, 1.0), (n, 1.0)


@variants
def test_cross_entropy(dtype, parts):
    for shape in SHAPES[1:]:
        m, n = shape
        x, targets = 3 * normal(m, n, dtype=dtype), rng.integers(0, n, m)
        p = softmax(*doubles(x))
        for ignored in {-100, targets[0]}:
            counts = (targets != ignored).astype(float)
            terms = -np.log(p[np.arange(m), targets]) * counts
            for size, mean in ((1, True), (1, False), (m, False)):
                if mean and not counts.any():
                    continue
                factor = 1 / counts.sum() if mean else 1
                loss, kept, g, dx = np.empty(size, dtype), np.empty_like(x), normal(size, dtype=dtype), np.empty_like(x)
                call(losses.cross_entropy, parts, loss, kept, x, targets, ignored, mean)
                same(loss, terms if size > 1 else [terms.sum() * factor], 4)
                call(losses.cross_entropy_backward, parts, dx, g, kept, targets, ignored, mean)
                wanted = g.astype(float).reshape(-1, 1) * factor * (p - np.eye(n)[targets]) * counts[:, None]
                same(dx, wanted, 4)


def test_cross_entropy_of_huge_logits_and_of_wrong_targets():
    x = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
    loss, p = np.empty(2, np.float32), np.empty_like(x)
    launch(losses.cross_entropy, loss, p, x, np.array([0, 0]), -100, False)
    assert loss.tolist() == [0, 2e4]
    for wrong in (-1, 2):
        launch(losses.cross_entropy, loss, p, x, np.array([0, wrong]), -100, False)
        assert loss[0] == 0 and np.isnan(loss[1])


@variants
@pytest.mark.parametrize("kernel, backward, terms, slope", [
    ("mse", "mse_backward", lambda y, t: (y - t) ** 2, lambda y, t: 2 * (y - t)),
    ("bce_with_logits", "bce_with_logits_backward", lambda y, t: np.logaddexp(0, y) - y * t,
     lambda y, t: logistic(y) - t)])
def test_losses_of_elements(kernel, backward, terms, slope, dtype, parts):
    for n in SIZES[1:]:
        y, t = 3 * normal(n, dtype=dtype), rng.random(n).astype(dtype)
        for size, factor in reductions(n):
            loss, g, dy = np.empty(size, dtype), normal(size, dtype=dtype), np.empty_like(y)
            call(getattr(losses, kernel), parts, loss, y, t, factor)
            wanted = terms(*doubles(y, t))
            same(loss, wanted if size > 1 else [wanted.sum() * factor], 10)
            call(getattr(losses, backward), parts, dy, g, y, t, factor)
            same(dy, g.astype(float) * factor * slope(*doubles(y, t)), 4)


# ------------------------------------------------------------------------------------------------------- optimisers

OPTIMIZERS = {  # kernel: (formula, terms, number of states, settings, PyTorch's class and settings)
    "plain_sgd": (None, "sgd", 0, {"lr": 0.1, "weight_decay": 0.1}, "SGD", {}),
    "sgd": ("sgd", "sgd", 1, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, "SGD", {}),
    "sgd nesterov": ("sgd", "sgd", 1, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, "SGD", {}),
    "sgd dampened": ("sgd", "sgd", 1, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, "SGD", {}),
    "adam": ("adam", "adam", 2, {"lr": 0.01, "weight_decay": 0.1}, "Adam", {}),
    "adamw": ("adamw", "adamw", 2, {"lr": 0.01, "weight_decay": 0.1}, "AdamW", {}),
    "rmsprop": ("rmsprop", "rmsprop", 2, {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.5}, "RMSprop", {}),
    "rmsprop_centered": ("rmsprop_centered", "rmsprop", 3, {"lr": 0.01}, "RMSprop", {"centered": True}),
}


@variants
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_its_formula(name, dtype, parts):
    formula, terms, states, settings, *_ = OPTIMIZERS[name]
    update = getattr(updates, f"{formula}_update") if formula else None
    n = 7
    p, state = normal(n, dtype=dtype), [np.zeros(n, dtype) for _ in range(states)]
    numbers = [[float(x), *[0.0] * states] for x in p]
    for t in range(1, 6):
        g, h = normal(n, dtype=dtype), np.array(getattr(updates, f"{terms}_terms")(t, **settings))
        call(getattr(optimizers, name.split()[0]), parts, p, g, *state, h)
        if update is None:
            numbers = [[updates.plain_sgd_update(x, float(d), h[0], h[3])] for (x,), d in zip(numbers, g)]
        else:
            numbers = [list(update(x, float(d), *s, *h.tolist())) for (x, *s), d in zip(numbers, g)]
    same(np.stack([p, *state], 1), numbers, 10)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_walks_as_in_pytorch(name):
    torch = pytest.importorskip("torch")
    _, terms, states, settings, theirs, more = OPTIMIZERS[name]
    p = normal(7, dtype=np.float64)
    twin = torch.nn.Parameter(torch.tensor(p))
    optimizer = getattr(torch.optim, theirs)([twin], **settings, **more)
    state = [np.zeros_like(p) for _ in range(states)]
    for t in range(1, 101):
        g = np.sin(p) + 0.1 * p
        twin.grad = torch.sin(twin.detach()) + 0.1 * twin.detach()
        optimizer.step()
        launch(getattr(optimizers, name.split()[0]), p, g, *state,
            np.array(getattr(updates, f"{terms}_terms")(t, **settings)))
    assert np.allclose(p, twin.detach().numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(INTERPRETED or not optimizers.X86, reason="the control register of x86")
def test_moments_too_small_to_matter_become_zero():
    p, g, m, v = (np.full(8, x, np.float32) for x in (1.0, 0.0, 1e-39, 1e-39))
    launch(optimizers.adam, p, g, m, v, np.array(updates.adam_terms(9, 1e-3)))
    assert not m.any() and not v.any()
    assert (np.full(8, 1e-39, np.float32) * np.float32(0.5)).all()  # everybody else's arithmetic is as before


# ------------------------------------------------------------------------------------------- the door, and the house

class Plan:
    def __init__(self):
        self.steps = []


def test_a_plan_notes_what_ran_and_can_repeat_it():
    x, y, z = normal(5), np.empty(5, np.float32), np.empty(5, np.float32)
    mode.plan = plan = Plan()
    try:
        launch(activations.unary("tanh"), y, x)
        launch(np.add, y, y, z)
    finally:
        mode.plan = None
    x[:] = normal(5)
    for kernel, args in plan.steps:
        kernel(*args)
    same(z, 2 * np.tanh(*doubles(x)))
    launch(np.add, y, y, z)
    assert len(plan.steps) == 2


def test_small_work_stays_on_one_thread():
    kernel = activations.unary("relu")
    small, large = np.zeros(100, np.float32), np.zeros(1_000_000, np.float32)
    assert kernel.pick((small, small))[0] is kernel.serial
    if kernels.get_num_threads() > 1:
        assert kernel.pick((large, large))[0] is kernel.parallel


def test_threads_can_be_limited():
    before = kernels.get_num_threads()
    large = np.zeros(1_000_000, np.float32)
    try:
        kernels.set_num_threads(1)
        assert kernels.get_num_threads() == 1
        assert activations.unary("relu").pick((large, large))[1][-1] == 1
    finally:
        kernels.set_num_threads(before)
    for wrong in (0, 10_000, 1.5):
        with pytest.raises(ValueError, match="set_num_threads: expected a whole number from 1 to"):
            kernels.set_num_threads(wrong)


def test_shared_sums_come_out_the_same_every_time():
    x, sums = normal(501, 33), set()
    for _ in range(20):
        out = np.empty(33, np.float32)
        call(dense.column_sums, 3, out, x)
        sums.add(out.tobytes())
    assert len(sums) == 1


def python(code, folder, **environment):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment})


def test_importing_kernels_imports_no_numba():
    code = "import sys, tinynet.kernels.updates; assert not {'numba', 'numpy'} & set(sys.modules), 'imported'"
    done = python(code, pathlib.Path(tinynet.__file__).parents[1])
    assert done.returncode == 0, done.stderr


RELU = """
import numpy as np
from tinynet.kernels import attention, activations, launch
x = np.array([-2.0, 3.0], np.float32)
y = np.empty_like(x)
launch(activations.unary('relu'), y, x)
print(y.tolist())
"""


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_the_cache_outlives_the_process_and_follows_the_page_of_calculus(tmp_path):
    package = tmp_path / "tinynet"
    shutil.copytree(pathlib.Path(tinynet.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    for folder in (package, package / "kernels"):
        (folder / "__pycache__").write_text("no folder can be made here")  # as in a package nobody may write to
    first, second = python(RELU, tmp_path, **home), python(RELU, tmp_path, **home)
    assert first.stdout == second.stdout == "[0.0, 3.0]\n", first.stderr
    assert first.stderr.count("first run only") == 1 and not second.stderr
    assert list((tmp_path / "home").rglob("*.nbc"))
    page = package / "value.py"
    text = page.read_text()
    assert "0.0 if a <= 0.0 else a," in text
    page.write_text(text.replace("0.0 if a <= 0.0 else a,", "-1.0 if a <= 0.0 else a,"))
    assert python(RELU, tmp_path, **home).stdout == "[-1.0, 3.0]\n"


@pytest.mark.skipif(INTERPRETED, reason="this is the second run")
def test_everything_holds_without_the_compiler(tmp_path):
    here = pathlib.Path(__file__).resolve()
    code = f"import sys, pytest; sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', {str(here)!r}]))"
    done = python(code, here.parents[2], NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stdout[-3000:]
