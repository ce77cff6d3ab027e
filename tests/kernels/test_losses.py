"""Losses against their definitions in double precision."""

import numpy as np
import pytest

from tests.kernels.common import SHAPES, SIZES, call, doubles, logistic, normal, rng, same, softmax, variants
from tinynet.kernels import launch, losses


def reductions(n):
    """(size of the loss, factor) of a mean, a sum and no reduction."""
    return (1, 1 / n), (1, 1.0), (n, 1.0)


@variants
def test_cross_entropy(dtype, chunks):
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
                call(losses.cross_entropy, chunks, loss, kept, x, targets, ignored, mean)
                same(loss, terms if size > 1 else [terms.sum() * factor], 4)
                call(losses.cross_entropy_backward, chunks, dx, g, kept, targets, ignored, mean)
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
@pytest.mark.parametrize("kernel, backward, terms, derivative", [
    ("mse", "mse_backward", lambda y, t: (y - t) ** 2, lambda y, t: 2 * (y - t)),
    ("bce_with_logits", "bce_with_logits_backward", lambda y, t: np.logaddexp(0, y) - y * t,
     lambda y, t: logistic(y) - t)])
def test_losses_of_elements(kernel, backward, terms, derivative, dtype, chunks):
    for n in SIZES[1:]:
        y, t = 3 * normal(n, dtype=dtype), rng.random(n).astype(dtype)
        for size, factor in reductions(n):
            loss, g, dy = np.empty(size, dtype), normal(size, dtype=dtype), np.empty_like(y)
            call(getattr(losses, kernel), chunks, loss, y, t, factor)
            wanted = terms(*doubles(y, t))
            same(loss, wanted if size > 1 else [wanted.sum() * factor], 10)
            call(getattr(losses, backward), chunks, dy, g, y, t, factor)
            same(dy, g.astype(float) * factor * derivative(*doubles(y, t)), 4)
