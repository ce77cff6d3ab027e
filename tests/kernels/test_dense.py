"""Products, layers, sums and lookup against their definitions in double precision."""

import numpy as np
import pytest

from tests.kernels.common import (
    CHUNKS,
    FUNCTIONS,
    INTERPRETED,
    SHAPES,
    both_dtypes,
    call,
    doubles,
    normal,
    rng,
    same,
    variants,
)
from tinynet import kernels
from tinynet.kernels import compiled, dense, launch


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
                for chunks in CHUNKS:
                    c[...] = np.nan
                    call(dense.product, chunks, c, a.T if ta else a, b.T if tb else b, ta, tb)
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
            for chunks in CHUNKS:
                c[...] = np.nan
                call(dense.products, chunks, c, a, b, False, True)
                same(c, wanted, 10)
    c = np.empty((2, 3, 3))
    launch(kernels.batched, c, np.ones((2, 3, 4)), np.ones((1, 4, 3)))  # broadcast: NumPy's own product
    assert np.all(c == 4)


@compiled.jit
def gemm(c, a, b, ta, tb, alpha, beta):
    dense.gemm(c, a, b, ta, tb, alpha, beta)


@pytest.mark.skipif(not dense.blas.found and not INTERPRETED, reason="no BLAS with 64-bit integers")
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
def test_a_layer_and_its_gradient(name, dtype, chunks):
    function, derivative = FUNCTIONS[name] if name else (lambda z: z, np.ones_like)
    for shape in SHAPES:
        x, w = normal(shape[0], 4, dtype=dtype), normal(shape[1], 4, dtype=dtype)
        b, g = normal(shape[1], dtype=dtype), normal(*shape, dtype=dtype)
        z = x.astype(float) @ w.T + b
        y = np.full(shape, np.nan, dtype)
        kept = np.full_like(y, np.nan) if dense.keeps_input(name) else y
        call(dense.layer(name).kernel, chunks, y, kept, x, w, b)
        same(y, function(z), 4)
        if dense.keeps_input(name):
            same(kept, z, 4)
        again, kept_again = y.copy(), kept.copy()
        dense.layer(name).by_numpy(again, kept_again if dense.keeps_input(name) else again, x, w, b)
        same(again, y, 4)
        wanted = g.astype(float) @ w, g.T.astype(float) @ x, g.astype(float).sum(0)
        for function_of in (dense.layer_backward.by_numpy,
                            lambda *arrays: call(dense.layer_backward_together, chunks, *arrays)):
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
            call(dense.bias_act_backward(name), chunks, dz, db, dz if np.array_equal(dz, g) else g, kept, y)
            same(dz, g * derivative(z), 8)
            same(db, (g * derivative(z)).sum(0), 60)


@variants
def test_sums_and_transposes(dtype, chunks):
    for shape in SHAPES:
        x = normal(*shape, dtype=dtype)
        columns, total, transposed = np.empty(shape[1], dtype), np.empty(1, dtype), np.empty(shape[::-1], dtype)
        call(dense.column_sums, chunks, columns, x)
        same(columns, x.astype(float).sum(0), 20)
        call(dense.total, chunks, total, x.reshape(-1), 0.5)
        same(total, [x.astype(float).sum() / 2], 20)
        call(dense.total_of_squares, chunks, total, x.reshape(-1))
        same(total, [(x.astype(float) ** 2).sum()], 2)
        call(dense.transpose, chunks, transposed, x)
        assert np.array_equal(transposed, x.T)


@pytest.mark.skipif(INTERPRETED, reason="sums lie in the lanes of vectors")
def test_a_long_sum_keeps_its_accuracy():
    total = np.empty(1, np.float32)
    launch(dense.total, total, np.full(300_000, 0.1, np.float32), 1.0)
    assert abs(total[0] / (300_000 * float(np.float32(0.1))) - 1) < 1e-6


@variants
def test_embedding(dtype, chunks):
    weight, indices = normal(11, 5, dtype=dtype), rng.integers(0, 9, 40)
    out, g, dweight = np.empty((40, 5), dtype), normal(40, 5, dtype=dtype), np.full((11, 5), np.nan, dtype)
    call(dense.embedding, chunks, out, weight, indices)
    assert np.array_equal(out, weight[indices])
    call(dense.embedding_backward, chunks, dweight, g, indices)
    wanted = np.zeros((11, 5))
    np.add.at(wanted, indices, g)
    same(dweight, wanted, 10)
