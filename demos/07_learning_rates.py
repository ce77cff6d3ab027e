"""Lesson 7: what the learning rate, the size of a batch and the number of epochs do to the loss curve."""

# %% [markdown]
# # Three knobs
# An *epoch* shows the model every sample once, a *batch* is how many it sees before it takes a step, and the *learning
# rate* is how far it steps. A network on tensors learns three spiral arms here, again and again, with one knob turned.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import save
from tqdm import tqdm

import tinynet
from tinynet import nn, optim
from tinynet.data import DataLoader, TensorDataset
from tinynet.datasets import spiral

X, y = spiral(300, classes=3, seed=0)
cross_entropy = nn.CrossEntropyLoss()


def train(lr, batch_size, epochs, scheduler=None):
    """The mean loss of every epoch, and how many steps were taken."""
    tinynet.manual_seed(0)
    model = nn.MLP(2, [32, 32, 3])
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = scheduler(optimizer) if scheduler else None
    loader = DataLoader(TensorDataset(X, y), batch_size=batch_size, shuffle=True, seed=0)

    @tinynet.capture
    def step(inputs, labels):
        loss = cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    for _ in tqdm(range(epochs), desc=f"lr {lr}, batches of {batch_size}", leave=False):
        losses.append(np.mean([step(*batch).item() for batch in loader]))
        if schedule:
            schedule.step()
    return losses, epochs * len(loader)


# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 4), sharey=True)
print("The learning rate (batches of 32, 60 epochs):")
for lr in (0.001, 0.01, 0.1, 1.0):
    losses, _ = train(lr, 32, 60)
    left.plot(losses, label=f"{lr:g}")
    print(f"  {lr:<6g} loss {losses[0]:7.3f} -> {losses[-1]:.3f}")
left.set(title="learning rate: too small crawls, too large leaps", xlabel="epoch", ylabel="loss", yscale="log")

print("The size of a batch (learning rate 0.03, 60 epochs):")
for batch_size in (4, 32, 300):
    losses, steps = train(0.03, batch_size, 60)
    middle.plot(losses, label=f"{batch_size}: {steps} steps")
    print(f"  {batch_size:<6} loss {losses[-1]:.3f} after {steps} steps")
middle.set(title="batch size: small ones step often and jitter", xlabel="epoch")

print("Learning rates that shrink (0.2 at first, batches of 32, 100 epochs):")
schedules = {"constant": None, "StepLR": lambda o: optim.StepLR(o, step_size=30, gamma=0.3),
             "CosineAnnealingLR": lambda o: optim.CosineAnnealingLR(o, T_max=100)}
for name, schedule in schedules.items():
    losses, _ = train(0.2, 32, 100, schedule)
    right.plot(losses, label=name)
    print(f"  {name:18} loss {losses[-1]:.4f}")
right.set(title="schedules: far at first, then fine", xlabel="epoch")
for ax in (left, middle, right):
    ax.legend(fontsize=8)
save("07_learning_rates.png")
