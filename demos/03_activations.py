"""Lesson 3: activation functions, their derivatives, and where they saturate."""

# %% [markdown]
# # Why activation functions?
# A layer without a **nonlinearity** is a matrix product, and the product of two matrices is one matrix: without
# **activation functions** a deep network is equivalent to a single layer.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import BLUE, ORANGE, save

from tinynet import Value
from tinynet.value import RULES

A, B = np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([[0.3, -1.0], [2.0, 1.0]])
x = np.array([1.5, -0.5])
print("Two layers without a nonlinearity: B(Ax) =", B @ (A @ x), "and one layer (BA)x =", (B @ A) @ x)

# %% [markdown]
# # Activation functions and their derivatives
# The backward pass multiplies the upstream gradient by the derivative of the activation. Where the derivative is nearly
# zero (shaded) the function is **saturated**: almost no gradient reaches earlier weights. (The thin stripe in gelu is
# only its minimum, which a weight soon leaves again.)


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
print("\nfunction   largest derivative   fraction of [-6, 6] where the derivative is below 0.05")
for name, ax in zip(names, axes, strict=True):
    y, derivative = with_derivative(name, xs)
    flat = np.abs(derivative) < 0.05
    ax.plot(xs, y, color=BLUE, label="f(x)")
    ax.plot(xs, derivative, color=ORANGE, linestyle="--", label="f'(x)")
    ax.fill_between(xs, -1.2, 2.5, where=flat, color="grey", alpha=0.18, linewidth=0, label="saturated")
    ax.set(title=name, xlabel="x", ylim=(-1.2, 2.5))
    print(f"  {name:9} {derivative.max():18.3f} {flat.mean():14.0%}")
axes[0].legend(loc="upper left")
print()
save("03_activations.png")

# %% [markdown]
# # Vanishing gradients
# Sigmoid's derivative is at most 1/4. Ten sigmoids in a row divide a gradient by at least 4¹⁰, about a million: the
# **vanishing gradient** problem. Tanh shrinks it less, and relu passes it unchanged wherever its input is positive.

# %%
depths = range(1, 21)
print("\nThe gradient after 10 of them in a row (starting at x = 0.5):")
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
plt.gca().set(title="gradient after n activations", xlabel="n", ylabel="gradient",
              xticks=range(0, 21, 5))
plt.legend()
print()
save("03_vanishing_gradient.png")

# %% [markdown]
# # Dead relus
# A relu neuron whose weighted sum is negative for every sample has gradient zero, and its weights never change: it is
# **dead**.

# %%
w, b = Value(0.5, label="w"), Value(-10.0, label="b")
for sample in (-1.0, 0.5, 2.0):
    (w * sample + b).relu().backward()
print(f"\nA relu neuron with bias -10 on three samples: gradients w {w.grad}, b {b.grad}: it is dead.")
