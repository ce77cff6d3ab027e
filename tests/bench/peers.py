"""What the peers of several files share: Adam's settings, and a training step in JAX's words."""

ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}


def jax_training(loss_of, weights):
    """A step that takes a loss's gradients and lets Adam change the weights, compiled as one."""
    import jax
    import jax.numpy as jnp

    weights = jax.tree.map(jnp.asarray, weights)
    state = [weights, jax.tree.map(jnp.zeros_like, weights), jax.tree.map(jnp.zeros_like, weights), jnp.float32(0)]
    (b1, b2), lr, eps = ADAM["betas"], ADAM["lr"], ADAM["eps"]

    def update(state):
        weights, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(weights)
        t = t + 1
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, g)
        weights = jax.tree.map(lambda p, m, v: p - lr * (m / (1 - b1 ** t)) / (jnp.sqrt(v / (1 - b2 ** t)) + eps),
                               weights, m, v)
        return [weights, m, v, t], loss

    update = jax.jit(update, donate_argnums=0)

    def step():
        state[:], loss = update(state)
        return jax.block_until_ready((loss, state))

    return step
