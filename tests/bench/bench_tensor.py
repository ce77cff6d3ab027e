"""Tensor: a whole training step (forward, loss, backward, Adam), float32.

Every peer gets the same data, and weights of the same shapes. NumPy's version is written by hand, as one would write it
who knows the derivatives and wants speed.
"""

import numpy as np

from .peers import ADAM, jax_training
from .workloads import Workload

ORDER = 2


def batch_of(sizes, batch):
    """(x, target): class indices where there are ten outputs, numbers where there is one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, sizes[0]), dtype=np.float32)
    if sizes[-1] > 1:
        return x, rng.integers(0, sizes[-1], batch)
    return x, rng.standard_normal((batch, 1), dtype=np.float32)


def weights_of(sizes):
    rng = np.random.default_rng(1)
    return [[rng.uniform(-1, 1, (m, n)).astype(np.float32) / np.float32(n) ** np.float32(0.5),
             np.zeros(m, np.float32)] for n, m in zip(sizes, sizes[1:])]


def in_the_manner_of_torch(torch, nn, optim, sizes, batch):
    """The step in PyTorch's words, which are tinynet's too."""
    layers = []
    for n, m in zip(sizes, sizes[1:]):
        layers += [nn.Linear(n, m), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    x, target = map(torch.tensor, batch_of(sizes, batch))
    loss_of = nn.CrossEntropyLoss() if sizes[-1] > 1 else nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), **ADAM)

    def step(x, target):
        loss = loss_of(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, x, target


def eager(sizes, batch):
    import tinynet

    step, x, target = in_the_manner_of_torch(tinynet, tinynet.nn, tinynet.optim, sizes, batch)
    return lambda: step(x, target)


def captured(sizes, batch):
    import tinynet

    step, x, target = in_the_manner_of_torch(tinynet, tinynet.nn, tinynet.optim, sizes, batch)
    step = tinynet.capture(step)
    return lambda: step(x, target)


def pytorch(sizes, batch):
    import torch

    step, x, target = in_the_manner_of_torch(torch, torch.nn, torch.optim, sizes, batch)
    return lambda: step(x, target)


def jax_jit(sizes, batch):
    import jax
    import jax.numpy as jnp

    x, target = map(jnp.asarray, batch_of(sizes, batch))
    weights = jax.tree.map(jnp.asarray, weights_of(sizes))

    def loss_of(weights):
        h = x
        for w, b in weights[:-1]:
            h = jax.nn.relu(h @ w.T + b)
        w, b = weights[-1]
        y = h @ w.T + b
        if sizes[-1] > 1:
            return -jnp.take_along_axis(jax.nn.log_softmax(y), target[:, None], axis=1).mean()
        return ((y - target) ** 2).mean()

    return jax_training(loss_of, weights)


def numpy_by_hand(sizes, batch):
    x, target = batch_of(sizes, batch)
    weights = weights_of(sizes)
    moments = [[[np.zeros_like(p), np.zeros_like(p), np.empty_like(p)] for p in layer] for layer in weights]
    (b1, b2), lr, eps = ADAM["betas"], ADAM["lr"], ADAM["eps"]
    one_hot = np.eye(sizes[-1], dtype=np.float32)[target] if sizes[-1] > 1 else None
    t = 0

    def step():
        nonlocal t
        t += 1
        inputs, y = [], x
        for i, (w, b) in enumerate(weights):
            inputs.append(y)
            y = y @ w.T
            y += b
            if i < len(weights) - 1:
                np.maximum(y, 0, out=y)
        if sizes[-1] > 1:
            e = np.exp(y - y.max(axis=1, keepdims=True))
            p = e / e.sum(axis=1, keepdims=True)
            loss = -np.log(p[np.arange(batch), target]).mean()
            g = (p - one_hot) / np.float32(batch)
        else:
            g = y - target
            loss = (g * g).mean()
            g *= np.float32(2 / batch)
        rate, correction = np.float32(lr / (1 - b1 ** t)), np.float32((1 - b2 ** t) ** -0.5)
        for i in reversed(range(len(weights))):
            w, _ = weights[i]
            gradients = g.T @ inputs[i], g.sum(axis=0)
            if i:
                g = g @ w
                g *= inputs[i] > 0
            for p, (m, v, s), dp in zip(weights[i], moments[i], gradients):
                m *= b1
                np.multiply(dp, 1 - b1, out=s)
                m += s
                v *= b2
                np.multiply(dp, dp, out=s)
                s *= 1 - b2
                v += s
                np.sqrt(v, out=s)
                s *= correction
                s += eps
                np.divide(m, s, out=s)
                s *= rate
                p -= s
        return loss

    return step


def network(sizes, batch, loss, goals):
    peers = {"tinynet, captured": captured, "tinynet, eager": eager, "PyTorch": pytorch, "JAX, jit": jax_jit,
             "NumPy by hand": numpy_by_hand}
    return Workload(f"MLP {'-'.join(map(str, sizes))}, batch {batch}, {loss}",
                    {name: (lambda make=make: make(sizes, batch)) for name, make in peers.items()},
                    [("tinynet, captured", "PyTorch", goals[0]), ("tinynet, captured", "JAX, jit", goals[1]),
                     ("tinynet, eager", "PyTorch", goals[2])])


WORKLOADS = [
    network((10, 64, 64, 1), 32, "MSE", (0.06, 0.25, 0.30)),
    network((784, 128, 10), 128, "cross-entropy", (0.5, 0.6, 0.8)),
    network((784, 1024, 1024, 10), 256, "cross-entropy", (0.8, 1.0, 0.95)),
    network((30, 100, 50, 3), 48, "cross-entropy", (1.0, 1.0, 1.0)),
]
