"""Softmax, layer norm and batch norm against their definitions in double precision."""

import math

import numpy as np
import pytest

from tests.kernels.common import SHAPES, both_dtypes, call, directional, doubles, normal, rng, same, softmax, variants
from tinynet.kernels import launch, normalization


@variants
def test_softmax(dtype, chunks):
    for shape in SHAPES:
        x, g = 3 * normal(*shape, dtype=dtype), normal(*shape, dtype=dtype)
        p = softmax(*doubles(x))
        y, dx = np.empty_like(x), np.empty_like(x)
        call(normalization.softmax, chunks, y, x)
        same(y, p)
        call(normalization.softmax_backward, chunks, dx, g, y)
        jacobians = [np.diag(row) - np.outer(row, row) for row in p]
        same(dx, np.array([J @ row for J, row in zip(jacobians, g)]).reshape(shape), 4)
        call(normalization.log_softmax, chunks, y, x)
        same(y, np.log(p), 4)
        call(normalization.log_softmax_backward, chunks, dx, g, y)
        same(dx, np.array([(np.eye(len(row)) - row[:, None]) @ grad for row, grad in zip(p, g)]).reshape(shape), 20)


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
def test_layer_norm(dtype, chunks):
    for shape in ((0, 3), (5, 7), (31, 13)):
        n, eps = shape[1], 1e-5
        x, g, w, b = (normal(*s, dtype=dtype) for s in (shape, shape, (n,), (n,)))
        y, dx, dw, db = (np.full_like(a, np.nan) for a in (x, x, w, b))
        mean, rstd = np.empty(shape[0], dtype), np.empty(shape[0], dtype)
        call(normalization.layer_norm, chunks, y, mean, rstd, x, w, b, eps)
        call(normalization.layer_norm_backward, chunks, dx, dw, db, g, x, mean, rstd, w)
        x, g, w, b = doubles(x, g, w, b)
        same(y, layer_norm(x, w, b, eps), 4)
        directional(lambda x, w, b: layer_norm(x, w, b, 1e-5), (x, w, b), (dx, dw, db), g)


def batch_norm(x, weight, bias, mean=None, variance=None):
    mean = x.mean((0, 2)) if mean is None else mean
    variance = x.var((0, 2)) if variance is None else variance
    column = lambda a: a[:, None]
    return (x - column(mean)) / np.sqrt(column(variance) + 1e-5) * column(weight) + column(bias)


@variants
@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 7)])
def test_batch_norm(shape, dtype, chunks):
    x, g = 2 * normal(*shape, dtype=dtype) + dtype(1), normal(*shape, dtype=dtype)
    weight, bias = normal(shape[1], dtype=dtype), normal(shape[1], dtype=dtype)
    for trained in (True, False):
        mean, variance = normal(shape[1], dtype=dtype), rng.random(shape[1]).astype(dtype)
        if trained:
            call(normalization.channel_moments, chunks, mean, variance, x)
            same(mean, x.astype(float).mean((0, 2)))
            same(variance, x.astype(float).var((0, 2)), 4)
        constants = () if trained else doubles(mean, variance)
        y, gradients = np.empty_like(x), [np.full_like(a, np.nan) for a in (x, weight, bias)]
        call(normalization.batch_norm, chunks, y, x, mean, variance, weight, bias, 1e-5)
        same(y, batch_norm(*doubles(x, weight, bias), *constants), 20)
        call(normalization.batch_norm_backward, chunks, *gradients, g, x, mean, variance, weight, 1e-5, trained)
        directional(lambda *a, c=constants: batch_norm(*a, *c), doubles(x, weight, bias), gradients, g)
