"""Transformers: a whole training step of a GPT (forward, cross-entropy, backward, Adam), and attention alone, float32.

The models are the same: learned positions, blocks with the layer norm in front, exact GELU, four times the width in
the perceptron, biases everywhere. PyTorch's attention is its own fused one, JAX's its own function under jit.
"""

import math

import numpy as np

from .peers import ADAM, jax_training
from .workloads import Workload

ORDER = 3


# -------------------------------------------------------------------------------------------------------------- a GPT

def batch_of(vocab, tokens, batch):
    """(tokens, the tokens that follow them)"""
    text = np.random.default_rng(0).integers(0, vocab, (batch, tokens + 1))
    return text[:, :-1], text[:, 1:]


def training(functional, optim, model, vocab):
    """A step in PyTorch's words, which are tinynet's too."""
    optimizer = optim.Adam(model.parameters(), **ADAM)

    def step(x, target):
        loss = functional.cross_entropy(model(x).reshape(-1, vocab), target.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def eager(layers, heads, width, tokens, batch, vocab):
    import tinynet
    from tinynet import nn, optim

    x, target = map(tinynet.tensor, batch_of(vocab, tokens, batch))
    step = training(nn.functional, optim, nn.GPT(vocab, layers, heads, width, tokens), vocab)
    return lambda: step(x, target)


def captured(layers, heads, width, tokens, batch, vocab):
    import tinynet
    from tinynet import nn, optim

    x, target = map(tinynet.tensor, batch_of(vocab, tokens, batch))
    step = tinynet.capture(training(nn.functional, optim, nn.GPT(vocab, layers, heads, width, tokens), vocab))
    return lambda: step(x, target)


def pytorch(layers, heads, width, tokens, batch, vocab):
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (y.view(b, t, heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(width, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = nn.Embedding(vocab, width), nn.Embedding(tokens, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab)
            self.register_buffer("places", torch.arange(tokens))

        def forward(self, x):
            return self.head(self.norm(self.blocks(self.token(x) + self.position(self.places))))

    x, target = map(torch.tensor, batch_of(vocab, tokens, batch))
    step = training(F, torch.optim, GPT(), vocab)
    return lambda: step(x, target)


def jax_jit(layers, heads, width, tokens, batch, vocab):
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(1)

    def linear(n, m):
        return {"w": rng.uniform(-1, 1, (m, n)).astype(np.float32) / np.float32(math.sqrt(n)),
                "b": np.zeros(m, np.float32)}

    def norm():
        return {"w": np.ones(width, np.float32), "b": np.zeros(width, np.float32)}

    def table(n):
        return rng.standard_normal((n, width), dtype=np.float32) * np.float32(0.02)

    weights = {"token": table(vocab), "position": table(tokens), "norm": norm(), "head": linear(width, vocab),
               "blocks": [{"norm1": norm(), "qkv": linear(width, 3 * width), "out": linear(width, width),
                           "norm2": norm(), "up": linear(width, 4 * width), "down": linear(4 * width, width)}
                          for _ in range(layers)]}
    weights = jax.tree.map(jnp.asarray, weights)
    x, target = map(jnp.asarray, batch_of(vocab, tokens, batch))

    def apply(p, h):
        return h @ p["w"].T + p["b"]

    def normalised(p, h):
        return jax.nn.standardize(h, epsilon=1e-5) * p["w"] + p["b"]

    def loss_of(weights):
        h = weights["token"][x] + weights["position"]
        for p in weights["blocks"]:
            q, k, v = (y.reshape(batch, tokens, heads, -1)
                       for y in jnp.split(apply(p["qkv"], normalised(p["norm1"], h)), 3, axis=2))
            y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
            h = h + apply(p["out"], y.reshape(batch, tokens, width))
            h = h + apply(p["down"], jax.nn.gelu(apply(p["up"], normalised(p["norm2"], h)), approximate=False))
        y = apply(weights["head"], normalised(weights["norm"], h))
        return -jnp.take_along_axis(jax.nn.log_softmax(y), target[..., None], axis=2).mean()

    return jax_training(loss_of, weights)


def gpt(layers, heads, width, tokens, batch, vocab, goals):
    peers = {"tinynet, captured": captured, "tinynet, eager": eager, "PyTorch": pytorch, "JAX, jit": jax_jit}
    return Workload(f"GPT {layers} layer{'s' * (layers > 1)}, {heads} heads, width {width}, {tokens} tokens, "
                    f"batch {batch}, vocab {vocab}",
                    {name: (lambda make=make: make(layers, heads, width, tokens, batch, vocab))
                     for name, make in peers.items()},
                    [("tinynet, captured", peer, goal) for peer, goal in goals.items()])


# ---------------------------------------------------------------------------------------------------- attention alone

def queries_keys_values_gradient(shape):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(4)]


def attention_in_the_manner_of_torch(torch, shape):
    *leaves, g = map(torch.tensor, queries_keys_values_gradient(shape))
    for x in leaves:
        x.requires_grad_()

    def step():
        y = torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)
        for x in leaves:
            x.grad = None
        y.backward(g)
        return y

    return step


def attention_eager(shape):
    import tinynet

    return attention_in_the_manner_of_torch(tinynet, shape)


def attention_captured(shape):
    import tinynet

    return tinynet.capture(attention_in_the_manner_of_torch(tinynet, shape))


def attention_pytorch(shape):
    import torch

    return attention_in_the_manner_of_torch(torch, shape)


def attention_jax(shape):
    import jax
    import jax.numpy as jnp

    # its function wants (batch, tokens, heads, features)
    q, k, v, g = (jnp.asarray(np.ascontiguousarray(x.swapaxes(1, 2))) for x in queries_keys_values_gradient(shape))

    @jax.jit
    def both(q, k, v, g):
        y, back = jax.vjp(lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True), q, k, v)
        return y, back(g)

    return lambda: jax.block_until_ready(both(q, k, v, g))


def attention(shape, goal):
    peers = {"tinynet, captured": attention_captured, "tinynet, eager": attention_eager, "PyTorch": attention_pytorch,
             "JAX, jit": attention_jax}
    return Workload(f"causal attention, forward + backward, {shape}",
                    {name: (lambda make=make: make(shape)) for name, make in peers.items()},
                    [("tinynet, captured", "PyTorch", goal)])


WORKLOADS = [
    gpt(1, 4, 16, 16, 32, 27, {"PyTorch": 0.3, "JAX, jit": 0.5}),
    gpt(4, 4, 128, 64, 32, 65, {"PyTorch": 0.85}),
    gpt(2, 4, 128, 512, 4, 65, {"PyTorch": 0.85}),
    attention((32, 4, 128, 32), 0.45),
    attention((2, 4, 2048, 64), 0.9),
]
