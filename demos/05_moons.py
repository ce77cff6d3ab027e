"""Lesson 5: a network of Values learns to classify two moons."""

# %% [markdown]
# # The training loop
# **Forward pass**: compute the outputs of the network for every sample. **Loss**: measure the error as one number.
# **Backward pass**: compute the gradient of the loss for each of the 337 parameters. **Step**: move each parameter
# against its gradient. Repeat.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import picture, region, save
from tqdm import tqdm

import tinynet
from tinynet import Recorder, draw, film, nn, optim
from tinynet.datasets import moons

tinynet.manual_seed(7)
X, y = moons(100, noise=0.1, seed=0)
targets = y.reshape(-1, 1).astype(float)
model = nn.MLP(2, [16, 16, 1]).to("scalar")
loss_function = nn.BCEWithLogitsLoss()
optimizer = optim.Adam(model.parameters(), lr=0.1)
STEPS = 30
print(model)
print(f"{len(model.parameters())} parameters, each one a Value")


def score(points):
    with tinynet.no_grad():
        return np.array([float(v) for v in np.ravel(model(points))])


# %% [markdown]
# A `Recorder` copies the parameters after each step, so that the training run can be replayed.

# %%
recorder = Recorder(model, X, y)
losses, began = [], time.perf_counter()
bar = tqdm(range(STEPS), desc="training")
for _ in bar:
    outputs = model(X)
    loss = loss_function(outputs, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    recorder(loss)
    losses.append(loss.item())
    bar.set_postfix(loss=f"{loss.item():.4f}")
seconds = time.perf_counter() - began
nodes = len(tinynet.graph.topological(loss))
accuracy = np.mean((score(X) > 0) == y)
print(f"{STEPS} steps, {nodes:,} Values in each, {seconds:.1f} s: loss {losses[0]:.3f} -> {losses[-1]:.4f}, "
      f"accuracy {accuracy:.0%}")
X_new, y_new = moons(400, noise=0.1, seed=1)
print(f"On 400 held-out points: {np.mean((score(X_new) > 0) == y_new):.1%}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
region(left, score, X, y, steps=40)
left.set_title("decision boundary")
right.plot(losses)
right.set(title="loss", xlabel="step", yscale="log")
right.set_yticks([0.5, 0.2, 0.1, 0.05, 0.02, 0.01], ["0.5", "0.2", "0.1", "0.05", "0.02", "0.01"])
right.minorticks_off()
save("05_moons.png")

# %% [markdown]
# # A replay of the training run
# Open the page in a browser and move the slider: it shows the decision boundary, the weights, and the output of each of
# the 32 hidden neurons over the plane. The gradients shrink with the loss. Some neurons stay white: their ReLU outputs
# 0 everywhere, so they receive no gradient.

# %%
movie = film(recorder, "Two moons, one scalar at a time")
movie.save(picture("05_moons_film.html"))
print("  … a training replay: open it in a browser")
movie.frame(len(movie) // 2).save(picture("05_moons_halfway.png"))

# %% [markdown]
# # The graph of one step
# It is far too large to read node by node, so `draw` folds every layer into one box. ⚠ marks common mistakes.

# %%
draw(loss, depth=1).save(picture("05_moons_loss.svg"))

# %% [markdown]
# `focus` opens one neuron for one sample: neuron 2 of the first layer, sample 0.

# %%
draw(loss, depth=1, focus=(0, "layers.0[2]")).save(picture("05_moons_one_neuron.svg"))
