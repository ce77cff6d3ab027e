"""Functions on 1024×1024 numbers, forward and backward, float32."""

import numpy as np

from .workloads import Workload

ORDER = 3


def inputs():
    rng = np.random.default_rng(0)
    return rng.standard_normal((1024, 1024), dtype=np.float32), rng.standard_normal((1024, 1024), dtype=np.float32)


def called(functional, name):
    """The function called `name`, of x alone."""
    if name == "softmax":
        return lambda x: functional.softmax(x, -1)
    if name == "layer norm":
        return lambda x: functional.layer_norm(x, (1024,))
    return getattr(functional, name)


def tinynet_eager(name):
    import tinynet

    x, g = map(tinynet.tensor, inputs())
    x.requires_grad, function = True, called(tinynet.nn.functional, name)

    def step():
        x.grad = None
        function(x).backward(g)

    return step


def pytorch(name):
    import torch

    x, g = map(torch.tensor, inputs())
    function = called(torch.nn.functional, name) if name != "tanh" else torch.tanh
    x.requires_grad = True

    def step():
        x.grad = None
        function(x).backward(g)

    return step


def jax_jit(name):
    import jax
    import jax.numpy as jnp

    def layer_norm(x):
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5)

    function = {"tanh": jnp.tanh, "gelu": lambda x: jax.nn.gelu(x, approximate=False), "layer norm": layer_norm}.get(
        name) or getattr(jax.nn, name)
    x, g = map(jnp.asarray, inputs())

    def forward_and_backward(x, g):
        y, pull = jax.vjp(function, x)
        return y, pull(g)

    compiled = jax.jit(forward_and_backward)
    return lambda: jax.block_until_ready(compiled(x, g))


WORKLOADS = [Workload(f"{name} 1024×1024", {"tinynet, eager": lambda name=name: tinynet_eager(name),
                                            "PyTorch": lambda name=name: pytorch(name),
                                            "JAX, jit": lambda name=name: jax_jit(name)},
                      [("tinynet, eager", "PyTorch", 1.0)])
             for name in ("relu", "tanh", "softmax", "layer norm", "gelu")]
