"""Convolutions: a whole training step (forward, loss, backward, Adam), float32.

The same data and layers for every peer: 3 × 3 convolutions with a margin of one, ReLU, the largest of 2 × 2, and a
linear layer to ten classes.
"""

import numpy as np

from .peers import ADAM, jax_training
from .workloads import Workload

ORDER = 3
BATCH, SIDE, WIDTHS = 64, 28, (1, 16, 32)


def digits():
    rng = np.random.default_rng(0)
    return rng.standard_normal((BATCH, 1, SIDE, SIDE), dtype=np.float32), rng.integers(0, 10, BATCH)


def in_the_manner_of_torch(torch, nn, optim):
    """The step in PyTorch's words, which are tinynet's too."""
    layers = []
    for n, m in zip(WIDTHS, WIDTHS[1:]):
        layers += [nn.Conv2d(n, m, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * (SIDE // 4) ** 2, 10))
    x, target = map(torch.tensor, digits())
    loss_of, optimizer = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), **ADAM)

    def step(x, target):
        loss = loss_of(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, x, target


def eager():
    import tinynet

    step, x, target = in_the_manner_of_torch(tinynet, tinynet.nn, tinynet.optim)
    return lambda: step(x, target)


def captured():
    import tinynet

    step, x, target = in_the_manner_of_torch(tinynet, tinynet.nn, tinynet.optim)
    step = tinynet.capture(step)
    return lambda: step(x, target)


def pytorch():
    import torch

    step, x, target = in_the_manner_of_torch(torch, torch.nn, torch.optim)
    return lambda: step(x, target)


def jax_jit():
    import jax
    import jax.numpy as jnp
    from jax import lax

    x, target = map(jnp.asarray, digits())
    rng = np.random.default_rng(1)
    shapes = [(m, n, 3, 3) for n, m in zip(WIDTHS, WIDTHS[1:])] + [(10, WIDTHS[-1] * (SIDE // 4) ** 2)]
    weights = [[jnp.asarray(rng.uniform(-1, 1, s).astype(np.float32) / np.float32(np.prod(s[1:])) ** np.float32(0.5)),
                jnp.zeros(s[0])] for s in shapes]

    def loss_of(weights):
        h = x
        for w, b in weights[:-1]:
            h = lax.conv_general_dilated(h, w, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
            h = jax.nn.relu(h + b[:, None, None])
            h = lax.reduce_window(h, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        w, b = weights[-1]
        y = h.reshape(BATCH, -1) @ w.T + b
        return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], axis=1).mean()

    return jax_training(loss_of, weights)


WORKLOADS = [
    Workload(f"CNN {SIDE}×{SIDE}, batch {BATCH}: conv {WIDTHS[1]} – pool – conv {WIDTHS[2]} – pool – linear",
             {"tinynet, captured": captured, "tinynet, eager": eager, "PyTorch": pytorch, "JAX, jit": jax_jit},
             [("tinynet, captured", "PyTorch", 0.4)]),
]
