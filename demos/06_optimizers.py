"""Lesson 6: four optimizers on two loss surfaces."""

# %% [markdown]
# # Update rules
# The gradient points where the loss increases fastest. An **optimizer** turns it into an update of the parameters:
#
# - **SGD** steps against the gradient: $p \leftarrow p - \eta\, g$.
# - **Momentum** accumulates past gradients into a velocity: $v \leftarrow \mu v + g$, $p \leftarrow p - \eta\, v$.
# - **RMSprop** divides by a moving average of the size of *this* parameter's gradient, $\sqrt{s}$ with
#   $s \leftarrow \alpha s + (1-\alpha) g^2$, so that steep and flat directions get steps of similar size.
# - **Adam** combines both, with a **bias correction** for the first steps, since the averages start at zero.
#
# A loss with two parameters can be drawn as a surface. Each parameter is one Value.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import save

from tinynet import Value, optim


def valley(x, y):
    """Twenty times steeper across than along: an ill-conditioned loss, as badly scaled features cause it."""
    return x * x / 20 + y * y


def saddle(x, y):
    """A saddle point at the origin; the minima lie at y = ±1.58, along a direction that starts almost flat."""
    return x * x + y * y * y * y / 5 - y * y + 1.25


OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.8),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.1, alpha=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.3),
}


def minimize(surface, start, make, steps):
    """The path of an optimizer: a row (x, y, loss) for each step."""
    x, y = Value(start[0], label="x"), Value(start[1], label="y")
    optimizer = make([x, y])
    path = []
    for _ in range(steps + 1):
        loss = surface(x, y)
        path.append((x.data, y.data, loss.data))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(path)


# %% [markdown]
# # The comparison
# All start from the same point, with typical learning rates.

# %%
SURFACES = [("a long valley", valley, (-7.0, 2.0), 60, (-8, 4, -2.6, 2.6)),
            ("a saddle", saddle, (-2.0, 0.01), 60, (-2.5, 2.5, -0.6, 2.4))]
figure, axes = plt.subplots(2, 2, figsize=(11, 8), width_ratios=[3, 2])
for (title, surface, start, steps, (left, right, bottom, top)), (plane, curve) in zip(SURFACES, axes):
    a, b = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    height = surface(a, b)  # the same function, on arrays
    plane.contourf(a, b, height ** 0.5, levels=24, cmap="Greys", alpha=0.55)
    print(f"{title}: steps until the loss is below 0.01, and the loss after {steps}")
    for name, make in OPTIMIZERS.items():
        path = minimize(surface, start, make, steps)
        arrived = np.argmax(path[:, 2] < 0.01) if (path[:, 2] < 0.01).any() else None
        print(f"  {name:9} {'never' if arrived is None else arrived:>5}   {path[-1, 2]:.6f}")
        line, = plane.plot(*path[:, :2].T, marker=".", markersize=5, linewidth=1.4, label=name)
        plane.plot(*path[-1, :2], marker="o", markersize=9, color=line.get_color(), markeredgecolor="white")
        curve.semilogy(np.maximum(path[:, 2], 1e-7), label=name)
    plane.plot(*start, marker="x", color="black", markersize=9)
    plane.set(title=f"{title}: from ✗, {steps} steps", xlabel="x", ylabel="y",
              xlim=(left, right), ylim=(bottom, top))
    plane.grid(False)
    curve.set(title="loss", xlabel="step")
    curve.set_ylim(bottom=max(curve.get_ylim()[0], 1e-6))
    curve.legend()
save("06_optimizers.png")

# %% [markdown]
# # Discussion
# In the valley SGD is slow: a step that is stable across the valley is tiny along it. Momentum oscillates, but arrives.
# RMSprop and Adam start diagonally, since they normalize both directions. On the saddle SGD hardly moves for twenty
# steps, because the gradient is small there; RMSprop and Adam divide by its size and leave at once. Near the minimum
# RMSprop divides a small gradient by its small average and jumps: it needs a decaying learning rate. Adam overshoots
# and oscillates around the minimum, as momentum does. No optimizer is best everywhere: with other learning rates above,
# another one wins.
