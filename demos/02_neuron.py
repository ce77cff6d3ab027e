"""Lesson 2: one neuron, drawn; its weights and its bias changed by hand, then by their gradients."""

# %% [markdown]
# # A neuron
# A neuron multiplies each input by a weight, adds a bias, and bends the sum: y = tanh(w₀x₀ + w₁x₁ + b).

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import picture, save

from tinynet import Value, draw

x0, x1 = Value(2.0, label="x0"), Value(0.5, label="x1")
w0, w1, b = Value(-0.6, label="w0"), Value(1.0, label="w1"), Value(0.3, label="b")


def neuron():
    s = w0 * x0 + w1 * x1 + b
    s.label = "sum"
    y = s.tanh()
    y.label = "y"
    return y


y = neuron()
y.backward()
print(f"x = (2, 0.5), w = (-0.6, 1), b = 0.3:  y = {y.data:.4f}")
draw(y, derivatives=True).save(picture("02_neuron.svg"))

# %% [markdown]
# # By hand
# Before you run this, say what each change will do. The gradients in the picture already know: their sign says which
# way y moves, their size says how much.

# %%
print("\nChange one number by +0.1, and compare with what its gradient promised:")
before = y.data
for p in (w0, w1, b):
    promised = 0.1 * p.grad
    p.data += 0.1
    print(f"  {p.label:2} + 0.1: y changes by {neuron().data - before:+.4f}, promised {promised:+.4f}")
    p.data -= 0.1

# %% [markdown]
# # What weights and bias do
# The weight sets how steep the bend is, and its sign which way it goes; the bias shifts it along.

# %%
xs = np.linspace(-4, 4, 200)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
for w in (-1.0, 0.3, 1.0, 4.0):
    left.plot(xs, np.tanh(w * xs), label=f"w = {w:g}")
for bias in (-2.0, 0.0, 2.0):
    right.plot(xs, np.tanh(xs + bias), label=f"b = {bias:g}")
left.set(title="y = tanh(w·x): steepness and direction", xlabel="x", ylabel="y")
right.set(title="y = tanh(x + b): position", xlabel="x")
left.legend()
right.legend()
print()
save("02_weight_and_bias.png")

# %% [markdown]
# # By gradient
# Let us ask for y = 0.8. The error (y - 0.8)² is a number in the same graph, so its gradients say how to change each
# weight. The inputs stay as they are.

# %%
print("\nTeaching the neuron to answer 0.8:")
for step in range(31):
    y = neuron()
    loss = (y - 0.8) ** 2
    if step % 6 == 0:
        print(f"  step {step:2}: w0 = {w0.data:+.3f}, w1 = {w1.data:+.3f}, b = {b.data:+.3f}, "
              f"y = {y.data:+.4f}, loss = {loss.data:.5f}")
    for p in (w0, w1, b):
        p.zero_grad()
    loss.backward()
    for p in (w0, w1, b):
        p.data -= 0.1 * p.grad
loss.label = "loss"
draw(loss).save(picture("02_neuron_that_learned.svg"))
