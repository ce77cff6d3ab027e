"""Lesson 6: four optimisers race down two loss surfaces."""

# %% [markdown]
# # Which way is down, and how far?
# The gradient says where the loss falls fastest *here*. What to make of it is the optimiser's business:
#
# - **SGD** takes a step against the gradient: $p \leftarrow p - \eta\, g$.
# - **Momentum** lets the steps gather speed, as a ball does: $v \leftarrow \mu v + g$, $p \leftarrow p - \eta\, v$.
# - **RMSprop** divides by the size that the gradient of *this* parameter has had lately, $\sqrt{s}$ with
#   $s \leftarrow \alpha s + (1-\alpha) g^2$, so that steep and flat directions are walked at the same pace.
# - **Adam** does both, with a correction for the first steps, in which the averages still remember their zeros.
#
# A surface with two parameters can be looked at. Each of them is one Value.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import save

from tinynet import Value, optim


def valley(x, y):
    """Twenty times steeper across than along: what badly scaled features make of a loss."""
    return x * x / 20 + y * y


def saddle(x, y):
    """Down to x = 0, but the true ways down lead along y, to ±1.58, and begin almost level."""
    return x * x + y * y * y * y / 5 - y * y + 1.25


RACERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.8),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.1, alpha=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.3),
}


def race(surface, start, make, steps):
    """The way of an optimiser: a row (x, y, loss) for each step."""
    x, y = Value(start[0], label="x"), Value(start[1], label="y")
    optimizer = make([x, y])
    way = []
    for _ in range(steps + 1):
        loss = surface(x, y)
        way.append((x.data, y.data, loss.data))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.array(way)


# %% [markdown]
# # The race
# All start from the same place, and the learning rates are such as one would try first.

# %%
SURFACES = [("a long valley", valley, (-7.0, 2.0), 60, (-8, 4, -2.6, 2.6)),
            ("a saddle", saddle, (-2.0, 0.01), 60, (-2.5, 2.5, -0.6, 2.4))]
figure, axes = plt.subplots(2, 2, figsize=(11, 8), width_ratios=[3, 2])
for (title, surface, start, steps, (left, right, bottom, top)), (plane, curve) in zip(SURFACES, axes):
    a, b = np.meshgrid(np.linspace(left, right, 200), np.linspace(bottom, top, 200))
    height = surface(a, b)  # the same function, on arrays
    plane.contourf(a, b, height ** 0.5, levels=24, cmap="Greys", alpha=0.55)
    print(f"{title}: steps until the loss is below 0.01, and the loss after {steps}")
    for name, make in RACERS.items():
        way = race(surface, start, make, steps)
        arrived = np.argmax(way[:, 2] < 0.01) if (way[:, 2] < 0.01).any() else None
        print(f"  {name:9} {'never' if arrived is None else arrived:>5}   {way[-1, 2]:.6f}")
        line, = plane.plot(*way[:, :2].T, marker=".", markersize=5, linewidth=1.4, label=name)
        plane.plot(*way[-1, :2], marker="o", markersize=9, color=line.get_color(), markeredgecolor="white")
        curve.semilogy(np.maximum(way[:, 2], 1e-7), label=name)
    plane.plot(*start, marker="x", color="black", markersize=9)
    plane.set(title=f"{title}: from ✗, {steps} steps", xlabel="x", ylabel="y",
              xlim=(left, right), ylim=(bottom, top))
    plane.grid(False)
    curve.set(title="loss", xlabel="step")
    curve.set_ylim(bottom=max(curve.get_ylim()[0], 1e-6))
    curve.legend()
save("06_optimizers.png")

# %% [markdown]
# # What to see
# In the valley SGD crawls: a step that is safe across the valley is tiny along it. Momentum swings from side to side,
# but arrives. RMSprop and Adam set out diagonally: both directions count alike. On the saddle SGD rolls down to the
# ridge and hardly moves for twenty steps, while those who divide by the gradient's own size do not notice that it is
# small. That has its price at the bottom, where RMSprop divides almost nothing by almost nothing, and leaps: it wants
# a learning rate that falls; and where Adam, which gathers speed as momentum does, runs past the goal and circles it.
# None is best everywhere: change a learning rate above, and another one wins.
