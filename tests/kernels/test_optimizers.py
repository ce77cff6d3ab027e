"""Optimizer kernels against their formulas, and against PyTorch's trajectories."""

import numpy as np
import pytest

from tests.kernels.common import INTERPRETED, call, normal, same, variants
from tinynet.kernels import launch, optimizers, updates

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
def test_an_optimizer_is_its_formula(name, dtype, chunks):
    formula, terms, states, settings, *_ = OPTIMIZERS[name]
    update = getattr(updates, f"{formula}_update") if formula else None
    n = 7
    p, state = normal(n, dtype=dtype), [np.zeros(n, dtype) for _ in range(states)]
    numbers = [[float(x), *[0.0] * states] for x in p]
    for t in range(1, 6):
        g, h = normal(n, dtype=dtype), np.array(getattr(updates, f"{terms}_terms")(t, **settings))
        call(getattr(optimizers, name.split()[0]), chunks, p, g, *state, h)
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
