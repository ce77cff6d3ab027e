"""Lesson 9: from a CSV file to a prediction: reading, cleaning, splitting, scaling, training, evaluation."""

# %% [markdown]
# # The data
# 442 people with diabetes: ten features of each, and the disease progression after a year (Efron et al., 2004).
# scikit-learn includes them; here they become a CSV file with missing values.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from easel import BLUE, GREY, ORANGE, picture, save
from sklearn.datasets import load_diabetes
from tqdm import tqdm

import tinynet
from tinynet import nn, optim
from tinynet.data import DataFrameDataset, DataLoader, StandardScaler, TensorDataset, train_test_split

tinynet.manual_seed(0)
frame = load_diabetes(as_frame=True, scaled=False).frame
frame["sex"] = frame["sex"].map({1.0: "a", 2.0: "b"})
frame.loc[frame.sample(20, random_state=0).index, "bmi"] = np.nan
frame.to_csv(path := picture("09_diabetes.csv"), index=False)

# %% [markdown]
# # Text columns and missing values
# Both raise an error until an option says how to encode or fill them.

# %%
table = pd.read_csv(path)
print(table.head(3).to_string())
for options in ({}, {"text": "one-hot"}):
    try:
        DataFrameDataset(table, "target", **options)
    except ValueError as error:
        print("ValueError:", error)

# %% [markdown]
# # Splitting, imputation and scaling
# Means and **standard deviations** are computed from the **training set** alone: the **test set** stands for unseen
# people.

# %%
train_rows, test_rows = train_test_split(table, test_size=0.25, seed=0)
train = DataFrameDataset(train_rows, "target", text="one-hot", missing="mean")
test = DataFrameDataset(test_rows, "target", like=train)
print("features:", ", ".join(train.features))
scale_x, scale_y = StandardScaler().fit(train.arrays[0]), StandardScaler().fit(train.arrays[1])
X_train, y_train = scale_x.transform(train.arrays[0]), scale_y.transform(train.arrays[1])
X_test, y_test = scale_x.transform(test.arrays[0]), test.arrays[1]

# %% [markdown]
# # Training on mini-batches, evaluation on the test set

# %%
model = nn.Sequential(nn.Linear(len(train.features), 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1))
mse = nn.MSELoss()
optimizer = optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
loader = DataLoader(TensorDataset(X_train, y_train), batch_size=32, shuffle=True, seed=0)


@tinynet.capture
def step(inputs, targets):
    loss = mse(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def predict(X):
    model.eval()
    with tinynet.no_grad():
        return scale_y.inverse_transform(model(tinynet.tensor(X)).numpy())


history = []
for _ in tqdm(range(80), desc="epochs"):
    model.train()
    loss = np.mean([step(*batch).item() for batch in loader])
    history.append((loss, np.mean((predict(X_test) - y_test) ** 2) / scale_y.scale_[0] ** 2))

# %%
mean = float(train.arrays[1].mean())
coefficients = np.linalg.lstsq(np.c_[X_train, np.ones(len(X_train))], y_train, rcond=None)[0]
linear = scale_y.inverse_transform(np.c_[X_test, np.ones(len(X_test))] @ coefficients)
predictions = {"baseline: the mean": np.full_like(y_test, mean), "linear regression": linear,
               "the network": predict(X_test)}
print(f"\nMean absolute error on {len(y_test)} held-out people (targets range from 25 to 346):")
for name, prediction in predictions.items():
    print(f"  {name:32} ± {np.abs(prediction - y_test).mean():.1f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
left.plot(history, label=["training", "held out"])
left.set(title="mean squared error", xlabel="epoch")
left.legend()
right.scatter(y_test, predictions["the network"], color=BLUE, s=18)
right.plot([25, 346], [25, 346], color=GREY, linewidth=1, label="perfect prediction")
right.axhline(mean, color=ORANGE, linewidth=1, linestyle=":", label="the mean")
right.set(title="held-out people", xlabel="actual", ylabel="predicted")
right.legend()
save("09_regression.png")
