"""Lesson 6: SGD, momentum, RMSprop and Adam race down one valley."""

# %% [markdown]
# # A valley that bends
# Rosenbrock's function f(x, y) = (1 - x)² + 10 (y - x²)² has steep walls and a floor that hardly slopes towards its
# lowest point (1, 1). Going straight downhill means bouncing from wall to wall; each optimiser has its own remedy.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import save

from tinynet import Value, optim

START, STEPS = (-1.6, 2.2), 300


def f(x, y):
    return (1 - x) ** 2 + 10 * (y - x**2) ** 2


RACERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.004),
    "SGD with momentum": lambda p: optim.SGD(p, lr=0.004, momentum=0.9),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.015),
    "Adam": lambda p: optim.Adam(p, lr=0.15),
}

# %% [markdown]
# # The race
# Every racer starts at the same place and may take 300 steps. Two Values are all there is to learn.

# %%
paths = {}
print(f"From {START} to (1, 1) in {STEPS} steps:")
for name, make in RACERS.items():
    x, y = Value(START[0], label="x"), Value(START[1], label="y")
    optimizer = make([x, y])
    path = [(x.data, y.data)]
    for _ in range(STEPS):
        optimizer.zero_grad()
        f(x, y).backward()
        optimizer.step()
        path.append((x.data, y.data))
    path = paths[name] = np.array(path)
    near = np.flatnonzero(np.hypot(*(path - 1).T) < 0.1)
    when = f"within 0.1 of the goal after {near[0]} steps" if len(near) else "not there yet"
    print(f"  {name:18} ends at ({x.data:+.3f}, {y.data:+.3f}), f = {f(*path[-1]):.2e}: {when}")

# %%
a, b = np.meshgrid(np.linspace(-2, 2, 200), np.linspace(-0.8, 3, 200))
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), width_ratios=(3, 2))
left.contourf(a, b, np.log10(f(a, b) + 1e-3), levels=25, cmap="Greys", alpha=0.75)
for name, path in paths.items():
    left.plot(*path.T, linewidth=1.4, label=name)
    right.semilogy(f(*path.T))
left.plot(1, 1, marker="*", color="black", markersize=13)
left.set(title="paths over the surface (darker is higher)", xlabel="x", ylabel="y")
left.grid(False)
left.legend(loc="lower left", frameon=True)
right.set(title="height after each step", xlabel="step", ylabel="f")
save("06_optimizers.png")

# %% [markdown]
# - **SGD** steps along the slope: large steps would jump over the valley, so small ones must do.
# - **Momentum** (Polyak, 1964) keeps rolling: what the walls push to and fro cancels, what the floor pushes adds up.
# - **RMSprop** (Hinton, 2012) divides by the size that each gradient usually has, so both directions move alike.
# - **Adam** (Kingma and Ba, 2015) does both.
