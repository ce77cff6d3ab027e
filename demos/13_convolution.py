"""Lesson 13: a convolutional network on handwritten digits, and its filters."""

# %% [markdown]
# # Filters
# A **convolution** slides a small **filter** over an image and computes the dot product with each window. Of the two
# filters below one detects upper edges, with ink below and none above; the other detects left edges.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import LOW_TO_HIGH, picture, save

import tinynet
from tinynet import nn, optim
from tinynet.data import DataLoader, TensorDataset, train_test_split
from tinynet.datasets import digits
from tinynet.nn import functional as F

tinynet.manual_seed(0)
X, y = digits()
X = X.reshape(-1, 1, 8, 8)  # (images, channels, rows, columns)
lower = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]], np.float32)
filters = np.stack([lower, lower.T])[:, None]  # (filters, channels, rows, columns)
example = X[0]
outputs = F.conv2d(tinynet.tensor(example), tinynet.tensor(filters), padding=1).numpy()


def show(ax, image, title="", colours="gray_r", lowest=0.0, largest=1.0):
    ax.imshow(image, cmap=colours, vmin=lowest, vmax=largest)
    ax.set_title(title, fontsize=9)
    ax.set(xticks=[], yticks=[])
    ax.grid(False)
    ax.spines[:].set(visible=True, color="#c3c9d1")


figure, axes = plt.subplots(1, 5, figsize=(9, 2.1))
show(axes[0], example[0], "a digit")
titles = "filter: upper edges", "feature map (blue: edge)", "filter: left edges", "feature map"
for ax, image, title in zip(axes[1:], (lower, outputs[0], lower.T, outputs[1]), titles, strict=True):
    show(ax, image, title, LOW_TO_HIGH, -np.abs(image).max(), np.abs(image).max())
save("13_edges.png")

# %% [markdown]
# # Shared weights
# On the scalar engine the same layer is a graph of Values. Four pixels, four weights and a bias give one output. All
# windows share the weights, so the gradient of a weight is the sum of the contributions of all windows.

# %%
layer = nn.Conv2d(1, 1, 2).to("scalar")
windows = layer(example[:, 1:3, 1:4])  # (1, 1, 2): two adjacent windows
total = windows.sum()
total.label = "sum"
total.backward()
print(f"two windows of 2 × 2: {[round(v.data, 4) for v in windows.ravel()]}; the first weight's gradient "
      f"{layer.weight[0, 0, 0, 0].grad:.4f} = the sum of its pixels {example[0, 1, 1] + example[0, 1, 2]:.4f}")
tinynet.draw(total).save(picture("13_windows.svg"))

# %% [markdown]
# # A convolutional network
# 16 filters detect simple features, 32 filters combine them, **max pooling** keeps the largest output of each 2 × 2
# window, and a linear layer computes the logits. A digit shifted by a pixel is the same digit: with this **data
# augmentation** every training image is used at five positions.

# %%
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, seed=0)


def moved(images, down, right):
    """The images shifted by up to one pixel, padded with zeros."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return padded[:, :, 1 - down:9 - down, 1 - right:9 - right]


SHIFTS = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
augmented = np.concatenate([moved(X_train, *shift) for shift in SHIFTS])
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 10))
print()
print(tinynet.summary(model, (128, 1, 8, 8)))

# %%
EPOCHS = 10
loader = DataLoader(TensorDataset(augmented, np.tile(y_train, len(SHIFTS))), batch_size=128, shuffle=True, seed=0)
held_out = DataLoader(TensorDataset(X_test, y_test), batch_size=450)
optimizer = optim.AdamW(model.parameters(), lr=0.005, weight_decay=0.05)
began = time.perf_counter()
history = tinynet.fit(model, loader, nn.CrossEntropyLoss(), optimizer, EPOCHS, validation=held_out,
                      metrics={"accuracy": lambda outputs, targets: np.mean(outputs.argmax(1) == targets)},
                      scheduler=optim.CosineAnnealingLR(optimizer, T_max=EPOCHS))
seconds = time.perf_counter() - began


def predict(images):
    model.eval()
    with tinynet.no_grad():
        return model(tinynet.tensor(images)).numpy().argmax(1)


correct = predict(X_test) == y_test
print(f"\n{EPOCHS} epochs in {seconds:.1f} s; {correct.mean():.1%} of the {len(y_test)} held-out digits are classified "
      f"correctly, {(~correct).sum()} are not")
for i in np.flatnonzero(~correct):
    print(f"  a {y_test[i]} classified as {predict(X_test[i:i + 1])[0]}")
for shift, name in zip(SHIFTS[1:], ("down", "up", "right", "left")):
    print(f"shifted {name} by a pixel: {np.mean(predict(moved(X_test, *shift)) == y_test):.1%}")

# %% [markdown]
# # Learned filters and feature maps
# The filters of the first layer act on pixels: blue weights are positive, orange ones negative. Below each is its
# **feature map** for one digit.

# %%
first, second = model[:3], model[:6]
digit = X_test[y_test == 3][3]
with tinynet.no_grad():
    maps = first(tinynet.tensor(digit[None])).numpy()[0]
weights = model[0].weight.data.numpy()[:, 0]
figure = plt.figure(figsize=(10, 5))
left, right_part = figure.subfigures(1, 2, width_ratios=(1, 4.6))
show(left.subplots(), digit[0], "a digit")
axes = right_part.subplots(4, 8)
for i in range(16):
    row, column = 2 * (i // 8), i % 8
    show(axes[row, column], weights[i], f"filter {i}", LOW_TO_HIGH, -np.abs(weights).max(), np.abs(weights).max())
    show(axes[row + 1, column], maps[i], "", "Blues", 0, maps[i].max())
save("13_filters.png")

# %% [markdown]
# The filters of the second layer act on the feature maps of the first, with a larger **receptive field**: they detect
# corners, ends and loops. Each column below shows the feature maps of one filter for four digits; the filters are those
# that differ most between these digits.

# %%
four = np.stack([X_test[y_test == d][i] for d, i in ((0, 11), (1, 7), (4, 8), (7, 3))])
with tinynet.no_grad():
    maps = second(tinynet.tensor(four)).numpy()
chosen = np.argsort(-maps.mean((2, 3)).std(0))[:10]
figure, axes = plt.subplots(4, 11, figsize=(10, 3.8))
for row, image in enumerate(four):
    show(axes[row, 0], image[0], "digit" if row == 0 else "")
    for column, i in enumerate(chosen, 1):
        show(axes[row, column], maps[row, i], f"filter {i}" if row == 0 else "", "Blues", 0, maps[:, i].max())
save("13_maps.png")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
epochs = range(1, len(history) + 1)
left.semilogy(epochs, history["loss"], label="training, with dropout")
left.semilogy(epochs, history["val_loss"], label="held out")
left.set(title="loss", xlabel="epoch")
left.legend()
right.plot(epochs, 100 * np.array(history["accuracy"]), label="training")
right.plot(epochs, 100 * np.array(history["val_accuracy"]), label="held out")
right.axhline(98.5, color="#6b7480", linewidth=0.8, linestyle=":")
right.set(title="accuracy, %", xlabel="epoch", ylim=(90, 100.3))
right.legend(loc="lower right")
save("13_training.png")
