"""What the tests of all kernels share: calls with the work split, tolerances, definitions in double precision."""

import math
import os

import numpy as np
import pytest

INTERPRETED = bool(int(os.environ.get("NUMBA_DISABLE_JIT", "0")))
SIZES = (0, 1, 7, 61)
SHAPES = ((0, 3), (1, 1), (5, 7), (61, 13))
DTYPES = (np.float32, np.float64)
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-13}
CHUNKS = (1, 3)  # how many threads share the work

rng = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return rng.standard_normal(shape).astype(dtype)


def call(kernel, chunks, *args):
    """The kernel with its work split into so many chunks, whatever its size."""
    (kernel.serial if chunks == 1 else kernel.parallel)(*args, chunks)


def same(found, wanted, factor=1.0):
    tolerance = TOLERANCE[found.dtype] * factor
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def doubles(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


both_dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.__name__)
variants = pytest.mark.parametrize("dtype, chunks", [(np.float32, 1), (np.float32, 3), (np.float64, 1)],
                                   ids=["float32", "float32 shared", "float64"])


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


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True, initial=-1e300))
    return e / e.sum(-1, keepdims=True)


def directional(function, arrays, found, g):
    """`found` are the gradients of Σ g · function(*arrays), by differences along random directions."""
    for i, gradient in enumerate(found):
        d = 1e-5 * rng.standard_normal(gradient.shape)
        up, down = ([a + sign * d if j == i else a for j, a in enumerate(arrays)] for sign in (1, -1))
        difference = (g * (function(*up) - function(*down))).sum()
        assert 2 * (gradient * d).sum() == pytest.approx(difference, rel=1e-3, abs=1e-7)
