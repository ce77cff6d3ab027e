"""Launch lists do what the calls do."""

import numpy as np
import pytest

from tests.kernels.common import INTERPRETED, normal, same
from tinynet.kernels import compiled, dense, replay


@compiled.jit
def scaled_unless(y, x, factor, fail):
    if fail:
        raise ValueError("failed")
    for i in range(x.size):
        y[i] = x[i] * factor


def test_a_launch_list_does_what_the_calls_did():
    x, y, z, w, sums = normal(7), normal(7), normal(7), normal(2, 3, dtype=np.float64), np.zeros(1)
    calls = [(scaled_unless, (y, x, 3.0, False)), (scaled_unless, (z, y[::-1], 2.0, False)), (np.copyto, (x, z)),
             (scaled_unless, (y, x, 0.5, False)), (dense.total.serial, (sums, w.reshape(-1), 2.0, 1))]
    start = x.copy()
    for kernel, args in calls:
        kernel(*args)  # compiles
    w[:] = 1.0
    functions = replay.launch_list(calls)
    assert INTERPRETED or len(functions) == 3  # what goes through NumPy stands between two runs of compiled kernels
    for repeat in (1, 2):
        x[:], y[:], z[:] = start * repeat, 0, 0
        for function in functions:
            function()
        same(z, (6 * repeat * start[::-1]), 1)
        same(y, 0.5 * z, 1)
    assert sums[0] == 12


def test_a_launch_list_raises_what_a_call_raises():
    x = normal(3)
    scaled_unless(x, x, 1.0, False)
    calls = [(scaled_unless, (x, x, 2.0, False)), (scaled_unless, (x, x, 1.0, True))]
    before = x.copy()
    with pytest.raises(ValueError, match="failed"):
        for function in replay.launch_list(calls):
            function()
    assert np.array_equal(x, 2 * before)
