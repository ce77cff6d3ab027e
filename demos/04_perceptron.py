"""Lesson 4: a perceptron learns AND but not XOR; a network with a hidden layer learns XOR."""

# %% [markdown]
# # Linear separability
# A **perceptron** outputs 1 on one side of a line and 0 on the other, its **decision boundary**. AND is **linearly
# separable**. XOR is not: its two positive corners lie across from each other (Minsky and Papert, 1969).

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import picture, region, save
from tqdm import tqdm

import tinynet
from tinynet import draw, nn, optim
from tinynet.datasets import xor

tinynet.manual_seed(1)
X, y_xor = xor()
y_and = X.prod(axis=1).astype(int)
bce = nn.BCEWithLogitsLoss()


def train(model, X, y, lr=0.5, steps=200):
    """Train on all samples at once with full-batch gradient descent; returns the loss of every step."""
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    targets, losses = y.reshape(-1, 1).astype(float), []
    for _ in tqdm(range(steps), desc="training"):
        loss = bce(model(X), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def score(model, X):
    return np.array([float(v) for v in np.ravel(model(X))])


def neuron():
    return nn.Linear(2, 1).to("scalar")


def network():
    return nn.MLP(2, [4, 1], activation="tanh").to("scalar")


# %%
figure, axes = plt.subplots(1, 4, figsize=(15, 3.3))
trained = {}
for ax, (title, make, y) in zip(axes, (("one neuron, AND", neuron, y_and), ("one neuron, XOR", neuron, y_xor),
                                       ("MLP 2-4-1, XOR", network, y_xor)), strict=False):
    model = make()
    losses = train(model, X, y)
    chances = 1 / (1 + np.exp(-score(model, X)))
    region(ax, lambda points, model=model: score(model, points), X, y, steps=25)
    ax.set_title(title)
    axes[3].plot(losses, label=title)
    trained[title] = model
    print(f"{title:16} loss {losses[-1]:.4f}; targets {y}, predicted probabilities", chances.round(2))
axes[3].set(title="loss", xlabel="step")
axes[3].axhline(np.log(2), color="grey", linewidth=0.8, linestyle=":")
axes[3].legend(fontsize=8)
save("04_perceptron.png")
print("The loss of the neuron on XOR stays at ln 2 = 0.693: no better than chance.")

# %% [markdown]
# # The hidden layer
# The **hidden layer** maps the four corners to points that one line separates.

# %%
model = trained["MLP 2-4-1, XOR"]
output = model(X[1:2])[0, 0]
output.label = "logit"
model.zero_grad()  # clears the gradients of the last training step
output.backward()
draw(output).save(picture("04_xor_network.svg"))
