"""Lesson 3: activation functions, each beside its derivative, and the places where they stop learning."""

# %% [markdown]
# # Why bend at all?
# A layer without a bend is a matrix, and two matrices in a row are one matrix: without activation functions a deep
# network is no more than a single layer.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import BLUE, ORANGE, save

from tinynet import Value
from tinynet.value import RULES

A, B = np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([[0.3, -1.0], [2.0, 1.0]])
x = np.array([1.5, -0.5])
print("Two layers without a bend: B(Ax) =", B @ (A @ x), "and one layer (BA)x =", (B @ A) @ x)

# %% [markdown]
# # Each with its derivative
# What flows back through an activation is multiplied by its derivative. Where the derivative is nearly zero (shaded)
# the function is *saturated*: whatever the loss has to say, the weights before it do not hear it. (The thin stripe in
# gelu is only its lowest point, which a weight soon leaves again.)


# %%
def with_derivative(name, xs):
    """The function and its derivative at each x, from the graph."""
    leaves = np.array([Value(x) for x in xs])
    outputs = [getattr(leaf, name)() for leaf in leaves]
    for y in outputs:
        y.backward()
    return np.array([y.data for y in outputs]), np.array([leaf.grad for leaf in leaves])


names = ("sigmoid", "tanh", "relu", "gelu", "softplus")
assert all(name in RULES for name in names)
xs = np.linspace(-6, 6, 241)
figure, axes = plt.subplots(1, len(names), figsize=(15, 3.2))
print("\nfunction   largest derivative   share of [-6, 6] where the derivative is below 0.05")
for name, ax in zip(names, axes, strict=True):
    y, slope = with_derivative(name, xs)
    flat = np.abs(slope) < 0.05
    ax.plot(xs, y, color=BLUE, label="f(x)")
    ax.plot(xs, slope, color=ORANGE, linestyle="--", label="f'(x)")
    ax.fill_between(xs, -1.2, 2.5, where=flat, color="grey", alpha=0.18, linewidth=0, label="saturated")
    ax.set(title=name, xlabel="x", ylim=(-1.2, 2.5))
    print(f"  {name:9} {slope.max():18.3f} {flat.mean():14.0%}")
axes[0].legend(loc="upper left")
print()
save("03_activations.png")

# %% [markdown]
# # The vanishing gradient
# Sigmoid's derivative is at most 1/4. Through ten sigmoids in a row a gradient is divided by at least 4¹⁰, about a
# million. Tanh loses less, and relu passes it unchanged wherever it is open.

# %%
depths = range(1, 21)
print("\nThe gradient that is left after 10 of them in a row (starting at x = 0.5):")
for name in ("sigmoid", "tanh", "relu"):
    left = []
    for depth in depths:
        leaf = y = Value(0.5)
        for _ in range(depth):
            y = getattr(y, name)()
        y.backward()
        left.append(leaf.grad)
    plt.semilogy(depths, left, marker="o", markersize=3, label=name)
    print(f"  {name:8} {left[9]:.2e}")
plt.gcf().set_size_inches(5.5, 3.4)
plt.gca().set(title="What is left of a gradient after n activations", xlabel="n", ylabel="gradient",
              xticks=range(0, 21, 5))
plt.legend()
print()
save("03_vanishing_gradient.png")

# %% [markdown]
# # A dead relu
# Relu has its own trap: a neuron whose sum is negative for every sample has gradient zero, and stays as it is for ever.

# %%
w, b = Value(0.5, label="w"), Value(-10.0, label="b")
for sample in (-1.0, 0.5, 2.0):
    (w * sample + b).relu().backward()
print(f"\nA relu neuron with bias -10 on three samples: gradients w {w.grad}, b {b.grad}: it is dead.")
