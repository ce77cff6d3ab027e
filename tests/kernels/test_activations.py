"""Kernels of single elements against their definitions in double precision."""

import math

import numpy as np
import pytest

from tests.kernels.common import FUNCTIONS, SIZES, both_dtypes, call, doubles, normal, rng, same, variants
from tinynet.kernels import activations, launch


@variants
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_with_one_operand(name, dtype, chunks):
    function, derivative = FUNCTIONS[name]
    for n in SIZES:
        x, g = 2 * normal(n, dtype=dtype), normal(n, dtype=dtype)
        if name in ("log", "sqrt"):
            x = np.abs(x) + dtype(0.01)
        y, dx = np.empty_like(x), np.empty_like(x)
        call(activations.unary(name), chunks, y, x)
        same(y, function(*doubles(x)))
        call(activations.unary_backward(name), chunks, dx, g, x, y)
        same(dx, np.multiply(*doubles(g, derivative(*doubles(x)))))


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


@pytest.mark.parametrize("name, i, derivative", [
    ("**", 0, lambda a, b: b * a ** (b - 1)), ("**", 1, lambda a, b: a ** b * np.log(a)),
    ("max", 0, lambda a, b: (a > b) + 0.5 * (a == b)), ("min", 1, lambda a, b: (b < a) + 0.5 * (a == b))])
@both_dtypes
def test_a_row_with_two_operands_broadcasts(name, i, derivative, dtype):
    a, b, g = np.abs(normal(4, 1, dtype=dtype)) + dtype(0.1), np.abs(normal(3, dtype=dtype)), normal(4, 3, dtype=dtype)
    a[0], b[0] = 1, 1
    y = np.power(a, b) if name == "**" else np.maximum(a, b) if name == "max" else np.minimum(a, b)
    out = np.empty_like(g)
    launch(activations.binary_backward(name, i), g, a, b, y, out)
    a, b, g = doubles(a, b, g)
    same(out, g * derivative(a, b), 10)


@variants
def test_copies(dtype, chunks):
    for n in SIZES:
        x, y = normal(n, dtype=dtype), normal(n, dtype=dtype)
        sums = np.add(x, y)
        call(activations.accumulate, chunks, y, x)
        assert np.array_equal(y, sums)
        call(activations.copy, chunks, y, x)
        assert np.array_equal(y, x)
        call(activations.scale, chunks, y, x, 0.1)
        same(y, 0.1 * x)
        call(activations.fill, chunks, y, 2.5)
        assert np.array_equal(y, np.full(n, 2.5))


@variants
def test_dropout(dtype, chunks):
    x, u = normal(61, dtype=dtype), rng.random(61).astype(dtype)
    y = np.empty_like(x)
    for p in (0.0, 0.3, 1.0):
        call(activations.dropout, chunks, y, x, u, p)
        same(y, np.where(u >= p, x / (1 - p) if p < 1 else 0, 0))
