"""Lesson 7: epochs, batch size and learning rate, and their effect on the loss curve."""

# %% [markdown]
# # Three hyperparameters
# An **epoch** is one pass through all training samples. The **batch size** is the number of samples of one step. The
# **learning rate** scales a step. A loader yields the batches; `fit` runs the loop and shows a progress bar.

# %%
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
from easel import save

from tinynet import fit, manual_seed, nn, optim
from tinynet.data import DataLoader, TensorDataset, train_test_split
from tinynet.datasets import moons, spiral
from tinynet.train import EarlyStopping, accuracy

X, y = spiral(900, noise=0.04, seed=0)
X_train, X_valid, y_train, y_valid = train_test_split(X, y, test_size=300, stratify=y, seed=0)
train, valid = TensorDataset(X_train, y_train), DataLoader(TensorDataset(X_valid, y_valid), batch_size=300)
print(f"three arms of a spiral: {len(train)} training samples, {len(X_valid)} validation samples")


def run(batch_size=32, lr=0.01, epochs=60, samples=train, hidden=32, validation=valid, **options):
    """Train a new network from the same initial weights."""
    manual_seed(1)
    model = nn.MLP(2, [hidden, hidden, 3], activation="tanh")
    loader = DataLoader(samples, batch_size, shuffle=True, seed=0)
    optimizer = optim.Adam(model.parameters(), lr=lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a diverging run is part of the lesson
        return fit(model, loader, nn.CrossEntropyLoss(), optimizer, epochs, validation=validation, metrics=accuracy,
                   progress=False, **options)


run(epochs=1)  # compiles the kernels
figure, axes = plt.subplots(2, 2, figsize=(11, 8))
(rates, sizes), (works, over) = axes

# %% [markdown]
# # The learning rate
# Too small, and 60 epochs are not enough. Too large, and each step overshoots the minimum.

# %%
print("\nlearning rate   loss after 60 epochs   validation accuracy")
for lr in (0.0003, 0.003, 0.03, 1.0):
    history = run(lr=lr)
    print(f"{lr:13}   {history['loss'][-1]:20.4f}   {history['val_accuracy'][-1]:19.1%}")
    rates.semilogy(history["loss"], label=f"lr = {lr}")
rates.set(title="the learning rate (batches of 32)", xlabel="epoch", ylabel="training loss")
rates.set_ylim(top=100)
rates.legend(ncols=2)

# %% [markdown]
# # The batch size
# A small batch estimates the gradient from few samples: many noisy steps an epoch. A large one: few steps of low
# variance, each efficient, since many samples share one call. So the same runs are drawn twice, by epochs and by
# seconds.

# %%
print("\nbatch   steps an epoch   ms an epoch   loss after 60 epochs")
for batch_size in (4, 32, 150, 600):
    began = time.perf_counter()
    history = run(batch_size)
    print(f"{batch_size:5}   {-(-len(train) // batch_size):14}   {np.median(history['seconds']) * 1e3:11.2f}   "
          f"{history['loss'][-1]:20.4f}")
    sizes.semilogy(history["loss"], label=f"batches of {batch_size}")
    works.semilogy(np.cumsum(history["seconds"]) * 1e3, history["loss"], label=f"batches of {batch_size}")
sizes.set(title="the batch size (learning rate 0.01)", xlabel="epoch", ylabel="training loss")
works.set(title="the same runs by time", xlabel="milliseconds", ylabel="training loss", xscale="log")
sizes.legend()
works.legend()

# %% [markdown]
# # Overfitting
# Thirty samples of two noisy moons and a large network: the training loss keeps falling while the validation loss
# rises: **overfitting**. The network memorizes the thirty samples. **Early stopping** restores the weights of the best
# epoch.

# %%
few = TensorDataset(*moons(30, noise=0.35, seed=1))
many = DataLoader(TensorDataset(*moons(600, noise=0.35, seed=2)), batch_size=600)
settings = {"batch_size": 10, "lr": 0.01, "epochs": 200, "samples": few, "hidden": 64, "validation": many}
long = run(**settings)
early = run(**settings, callbacks=EarlyStopping(patience=20))
print(f"\n30 samples, 200 epochs: training loss {long['loss'][-1]:.4f}, validation loss {long['val_loss'][-1]:.3f} "
      f"(best {min(long['val_loss']):.3f} in epoch {long.best})")
print(f"with early stopping: {len(early)} epochs, then back to the weights of epoch {early.best}")
over.semilogy(long["loss"], label="training")
over.semilogy(long["val_loss"], "--", label="validation")
over.axvline(early.best - 1, color="0.5", linestyle=":", label=f"best epoch, {early.best}")
over.set(title="overfitting on 30 samples", xlabel="epoch", ylabel="loss")
over.legend()
save("07_epochs.png")
