"""Lesson 2: one neuron as a graph; its weights and bias changed by hand, then by gradient descent."""

# %% [markdown]
# # A neuron
# A **neuron** multiplies each input by a **weight**, adds a **bias**, and applies a nonlinearity, its **activation
# function**: y = tanh(w₀x₀ + w₁x₁ + b).

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
# # Changes by hand
# Before you run this, predict the effect of each change. The gradients in the picture tell: the sign says whether y
# increases or decreases, the size by how much.

# %%
print("\nChange one number by +0.1, and compare with the prediction of its gradient:")
before = y.data
for p in (w0, w1, b):
    predicted = 0.1 * p.grad
    p.data += 0.1
    print(f"  {p.label:2} + 0.1: y changes by {neuron().data - before:+.4f}, predicted {predicted:+.4f}")
    p.data -= 0.1

# %% [markdown]
# # The effect of weight and bias
# The weight sets the steepness, and its sign the direction; the bias shifts the curve.

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
# # Gradient descent
# The target is y = 0.8. The **loss** (y - 0.8)² is a node of the same graph, so its gradients say how to change each
# weight and the bias. The inputs stay fixed.

# %%
print("\nTraining the neuron to output 0.8:")
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
