"""Lesson 10: a network classifies handwritten digits, and shows its errors."""

# %% [markdown]
# # The data
# 1,797 handwritten digits (Alpaydin and Kaynak, 1998), 8 × 8 grey levels each. A quarter is held out.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import save
from tqdm import tqdm

import tinynet
from tinynet import nn, optim
from tinynet.data import DataLoader, TensorDataset, train_test_split
from tinynet.datasets import digits

tinynet.manual_seed(0)
X, y = digits()
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, seed=0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
print(model)

# %% [markdown]
# # Training
# `capture` records the step once and replays it afterwards, without Python in between: identical results, faster.

# %%
EPOCHS = 60
loss_function = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=0.003)
schedule = optim.CosineAnnealingLR(optimizer, T_max=EPOCHS)
loader = DataLoader(TensorDataset(X_train, y_train), batch_size=64, shuffle=True, seed=0)


@tinynet.capture
def step(inputs, labels):
    loss = loss_function(model(inputs), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def predict(X):
    model.eval()
    with tinynet.no_grad():
        return nn.functional.softmax(model(tinynet.tensor(X))).numpy()


losses, accuracies, seconds = [], [], []
bar = tqdm(range(EPOCHS), desc="epochs")
for _ in bar:
    began = time.perf_counter()
    model.train()
    losses.append(np.mean([step(*batch).item() for batch in loader]))
    seconds.append(time.perf_counter() - began)
    schedule.step()
    accuracies.append(np.mean(predict(X_test).argmax(1) == y_test))
    bar.set_postfix(loss=f"{losses[-1]:.4f}", accuracy=f"{accuracies[-1]:.1%}")
print(f"{EPOCHS} epochs of {len(X_train)} digits in {sum(seconds):.1f} s (the first one compiles: {seconds[0]:.1f} s), "
      f"{len(X_train) / np.median(seconds):,.0f} digits a second; {accuracies[-1]:.1%} of the {len(X_test)} held-out "
      "digits are classified correctly")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.semilogy(losses)
left.set(title="training loss", xlabel="epoch")
right.plot(np.array(accuracies) * 100)
right.set(title="accuracy on held-out digits, %", xlabel="epoch", ylim=(80, 100.5))
save("10_training.png")

# %% [markdown]
# # The confusion matrix
# A **confusion matrix** counts how often each digit (row) is classified as each digit (column).

# %%
probabilities = predict(X_test)
predictions = probabilities.argmax(1)
confusion = np.zeros((10, 10), int)
np.add.at(confusion, (y_test, predictions), 1)
figure, ax = plt.subplots(figsize=(5, 4.6))
ax.imshow(np.log1p(confusion), cmap="Blues")
for (i, j), count in np.ndenumerate(confusion):
    if count:
        ax.text(j, i, count, ha="center", va="center", color="white" if i == j else "black")
ax.set(title="confusion matrix", xlabel="predicted", ylabel="actual", xticks=range(10), yticks=range(10))
ax.grid(False)
save("10_confusion.png")

# %%
wrong = np.flatnonzero(predictions != y_test)
wrong = wrong[np.argsort(-probabilities[wrong].max(1))]  # the most confident errors first
print(f"\n{len(wrong)} misclassified; the most confident errors:")
for i in wrong[:5]:
    print(f"  a {y_test[i]} classified as {predictions[i]}, with probability {probabilities[i].max():.0%}")
shown = np.r_[wrong, np.flatnonzero(predictions == y_test)][:12]
figure, axes = plt.subplots(2, 6, figsize=(9, 3.6))
for ax, i in zip(axes.flat, shown, strict=True):
    ax.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
    correct = predictions[i] == y_test[i]
    ax.set_title(f"{y_test[i]} as {predictions[i]}", fontsize=9, color="black" if correct else "#b3261e")
    ax.axis("off")
figure.suptitle("misclassified digits (red), then some classified correctly")
save("10_misread.png")
