"""Recurrence: a whole training step (forward through all time steps, loss, backward, Adam), float32.

The model is a recurrent layer and a linear one on its last output. Every peer gets the same data, and weights of the
same shapes.
"""

import numpy as np

from .peers import ADAM, jax_training
from .workloads import Workload

ORDER = 4
CLASSES = 10
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def batch_of(features, steps, batch):
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, steps, features), dtype=np.float32), rng.integers(0, CLASSES, batch)


def in_the_manner_of_torch(torch, nn, optim, kind, features, hidden, steps, batch):
    """The step in PyTorch's words, which are tinynet's too."""
    layer, head = getattr(nn, kind)(features, hidden, batch_first=True), nn.Linear(hidden, CLASSES)
    x, target = map(torch.tensor, batch_of(features, steps, batch))
    loss_of = nn.CrossEntropyLoss()
    optimizer = optim.Adam([*layer.parameters(), *head.parameters()], **ADAM)

    def step(x, target):
        output, _ = layer(x)
        loss = loss_of(head(output[:, -1]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, x, target


def eager(*sizes):
    import tinynet

    step, x, target = in_the_manner_of_torch(tinynet, tinynet.nn, tinynet.optim, *sizes)
    return lambda: step(x, target)


def captured(*sizes):
    import tinynet

    step, x, target = in_the_manner_of_torch(tinynet, tinynet.nn, tinynet.optim, *sizes)
    step = tinynet.capture(step)
    return lambda: step(x, target)


def pytorch(*sizes):
    import torch

    step, x, target = in_the_manner_of_torch(torch, torch.nn, torch.optim, *sizes)
    return lambda: step(x, target)


def jax_jit(kind, features, hidden, steps, batch):
    import jax
    import jax.numpy as jnp

    x, target = map(jnp.asarray, batch_of(features, steps, batch))
    rng, rows, bound = np.random.default_rng(1), GATES[kind] * hidden, hidden ** -0.5
    weights = [jnp.asarray(rng.uniform(-bound, bound, shape), jnp.float32) for shape in (
        (rows, features), (rows, hidden), (rows,), (rows,), (CLASSES, hidden), (CLASSES,))]

    def loss_of(weights):
        w_ih, w_hh, b_ih, b_hh, w, b = weights

        def rnn(h, x):
            return jnp.tanh(x + h @ w_hh.T + b_hh)

        def lstm(hc, x):
            h, c = hc
            i, f, g, o = jnp.split(x + h @ w_hh.T + b_hh, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return jax.nn.sigmoid(o) * jnp.tanh(c), c

        def gru(h, x):
            (x_r, x_z, x_n), (a_r, a_z, a_n) = jnp.split(x, 3, axis=1), jnp.split(h @ w_hh.T + b_hh, 3, axis=1)
            r, z = jax.nn.sigmoid(x_r + a_r), jax.nn.sigmoid(x_z + a_z)
            return (1 - z) * jnp.tanh(x_n + r * a_n) + z * h

        cell, nothing = {"RNN": rnn, "LSTM": lstm, "GRU": gru}[kind], jnp.zeros((batch, hidden))
        inputs = jnp.swapaxes(x, 0, 1) @ w_ih.T + b_ih
        last, _ = jax.lax.scan(lambda h, x: (cell(h, x), None), (nothing, nothing) if kind == "LSTM" else nothing,
                               inputs)
        y = (last[0] if kind == "LSTM" else last) @ w.T + b
        return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], axis=1).mean()

    return jax_training(loss_of, weights)


def network(kind, features, hidden, steps, batch, goals=()):
    peers = {"tinynet, captured": captured, "tinynet, eager": eager, "PyTorch": pytorch, "JAX, jit": jax_jit}
    return Workload(f"{kind} {features}→{hidden}, {steps} steps, batch {batch}",
                    {name: (lambda make=make: make(kind, features, hidden, steps, batch))
                     for name, make in peers.items()}, goals)


WORKLOADS = [
    network("RNN", 32, 128, 64, 64, [("tinynet, captured", "PyTorch", 0.6)]),
    network("LSTM", 32, 128, 64, 64),
    network("GRU", 50, 100, 30, 48),
]
