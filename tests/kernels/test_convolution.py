"""Convolutions and pooling against their definitions in double precision."""

import numpy as np
import pytest

from tests.kernels.common import call, directional, doubles, normal, rng, same, variants
from tinynet.kernels import convolution, launch


def windows(x, kernel, stride, padding, value=0.0):
    """(batch, channels, rows, columns, kh, kw)"""
    x = np.pad(x, [(0, 0), (0, 0), *[(p, p) for p in padding]], constant_values=value)
    return np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, ::stride[0], ::stride[1]]


def convolve(x, weight, bias, stride, padding):
    return np.einsum("ncrsij,ocij->nors", windows(x, weight.shape[2:], stride, padding), weight) + bias[:, None, None]


@variants
@pytest.mark.parametrize("image, kernel, stride, padding", [
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)), ((4, 3, 9, 8), (3, 2), (1, 1), (0, 0)),
    ((3, 2, 7, 8), (3, 3), (1, 1), (1, 2)), ((2, 3, 9, 8), (3, 3), (2, 2), (1, 1)),
    ((3, 2, 11, 7), (4, 3), (2, 1), (0, 1)), ((0, 2, 5, 5), (3, 3), (1, 1), (1, 1)),
    ((6, 5, 20, 19), (5, 4), (3, 2), (2, 3)), ((5, 2, 6, 40), (1, 40), (1, 1), (0, 0)),
    ((2, 3, 7, 7), (1, 1), (2, 3), (0, 0)), ((9, 1, 3, 3), (2, 2), (1, 1), (3, 4)),
    ((1, 1, 1, 900), (1, 700), (1, 2), (0, 30))])
def test_convolution(image, kernel, stride, padding, dtype, chunks):
    x, weight, bias = (normal(*s, dtype=dtype) for s in (image, (5, image[1], *kernel), (5,)))
    wanted = convolve(*doubles(x, weight, bias), stride, padding)
    y, g = np.full(wanted.shape, np.nan, dtype), normal(*wanted.shape, dtype=dtype)
    gradients = [np.full_like(a, np.nan) for a in (x, weight, bias)]
    call(convolution.conv2d, chunks, y, x, weight, bias, *stride, *padding)
    same(y, wanted, 20)
    call(convolution.conv2d_backward, chunks, *gradients, g, x, weight, *stride, *padding)
    directional(lambda x, w, b: convolve(x, w, b, stride, padding), doubles(x, weight, bias), gradients, g)
    others = [np.full_like(a, np.nan) for a in (weight, bias)]
    call(convolution.conv2d_backward, chunks, np.empty((0,) * 4, dtype), *others, g, x, weight, *stride, *padding)
    assert all(np.array_equal(a, b) for a, b in zip(others, gradients[1:]))


@variants
@pytest.mark.parametrize("image, kernel, stride, padding", [
    ((2, 3, 8, 8), (2, 2), (2, 2), (0, 0)), ((2, 3, 9, 7), (3, 2), (1, 2), (1, 1)),
    ((1, 1, 1, 1), (1, 1), (1, 1), (0, 0)), ((2, 3, 9, 7), (3, 3), (2, 2), (1, 1)),
    ((0, 3, 9, 7), (3, 3), (2, 2), (1, 1))])
def test_pooling(image, kernel, stride, padding, dtype, chunks):
    x = (rng.permutation(int(np.prod(image))).reshape(image) / 10).astype(dtype)  # no two are nearly the same
    maxima = lambda x: windows(x, kernel, stride, padding, -np.inf).max((-2, -1), initial=-np.inf)
    largest = maxima(x)
    y, g = np.full(largest.shape, np.nan, dtype), normal(*largest.shape, dtype=dtype)
    where, dx = np.full(largest.shape, -1, np.int32), np.full_like(x, np.nan)
    settings = (*kernel, *stride, *padding)
    call(convolution.max_pool2d, chunks, y, where, x, *settings)
    assert np.array_equal(y, largest)
    call(convolution.max_pool2d_backward, chunks, dx, g, where)
    directional(maxima, doubles(x), [dx], g)
    call(convolution.avg_pool2d, chunks, y, x, *settings)
    same(y, windows(*doubles(x), kernel, stride, padding).mean((-2, -1)))
    call(convolution.avg_pool2d_backward, chunks, dx, g, *settings)
    directional(lambda x: windows(x, kernel, stride, padding).mean((-2, -1)), doubles(x), [dx], g)


def test_the_largest_of_a_window_with_nan_is_nan():
    x, where = np.array([[[[1.0, np.nan, 3.0, 4.0]]]], np.float32), np.empty((1, 1, 1, 2), np.int32)
    y = np.empty((1, 1, 1, 2), np.float32)
    launch(convolution.max_pool2d, y, where, x, 1, 2, 1, 2, 0, 0)
    assert np.isnan(y[0, 0, 0, 0]) and y[0, 0, 0, 1] == 4
