"""Lesson 8: the same network on both engines: identical gradients, different speed."""

# %% [markdown]
# # One definition, two engines
# The layers are written once. `model.to("scalar")` makes each weight a `Value`, a node of a graph that can be drawn and
# read; `model.to("tensor")` makes each layer's weights one array, and computes a whole batch at once.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import BLUE, picture, save

import tinynet
from tinynet import draw, nn, optim
from tinynet.datasets import moons

tinynet.manual_seed(0)
X, y = moons(100, seed=0)
y = y.reshape(-1, 1).astype(np.float32)
loss_function = nn.BCEWithLogitsLoss()

tensors = nn.MLP(2, [16, 16, 1]).double()
scalars = nn.MLP(2, [16, 16, 1])
scalars.load_state_dict(tensors.state_dict())
scalars.to("scalar")
inputs, targets = tinynet.tensor(X.astype(np.float64)), tinynet.tensor(y.astype(np.float64))
inputs.label, targets.label = "x", "target"

# %% [markdown]
# # Identical gradients
# In double precision the two engines agree to the last digits; only the order of summation differs.

# %%
tensors.load_state_dict(scalars.state_dict())
loss_tensor, loss_scalar = loss_function(tensors(inputs), targets), loss_function(scalars(X), y)
loss_tensor.backward()
loss_scalar.backward()
print(f"loss  tensor {loss_tensor.item():.15f}\n      scalar {loss_scalar.item():.15f}")
for path, p in tensors.named_parameters():
    values = [v for name, v in scalars.named_parameters() if name.startswith(f"{path}[")]
    g = np.reshape([v.grad for v in values], p.shape)
    print(f"  {path:18} one Tensor {str(p.shape):9} or {len(values):3} Values; "
          f"gradients differ by at most {abs(g - p.grad.numpy()).max():.1e}")

# %% [markdown]
# # The same graph
# Folded, the graph of 65,000 Values and the graph of a few Tensors show the same layers. Both also flag the same
# problem (⚠): with these random initial weights some neurons output 0 for every sample. They are dead, as in lesson 3.

# %%
draw(loss_scalar, depth=1).save(picture("08_scalar.svg"))
draw(loss_tensor, depth=1).save(picture("08_tensor.svg"))

# %% [markdown]
# # Speed


# %%
def training_step(model, inputs, targets):
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(inputs, targets):
        loss = loss_function(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def seconds(step, inputs, targets, repeats):
    step(inputs, targets)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step(inputs, targets)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


tensors.float()
inputs, targets = tinynet.tensor(X), tinynet.tensor(y)
rows = {
    "Values": seconds(training_step(scalars, X, y), X, y, 3),
    "Tensors": seconds(training_step(tensors, inputs, targets), inputs, targets, 200),
    "Tensors, captured": seconds(tinynet.capture(training_step(tensors, inputs, targets)), inputs, targets, 2000),
}
print("\nOne training step on 100 samples:")
for name, t in rows.items():
    print(f"  {name:18} {t * 1e6:12,.0f} µs   {rows['Values'] / t:10,.0f} times as fast as Values")
figure, ax = plt.subplots(figsize=(7, 2))
bars = ax.barh(list(rows), [t * 1e6 for t in rows.values()], color=BLUE)
ax.bar_label(bars, [f" {t * 1e6:,.0f} µs" for t in rows.values()])
ax.set(xscale="log", xlim=(5, 1e7), xlabel="µs for one training step (each mark is ten times the one before)")
ax.invert_yaxis()
save("08_scalar_to_tensor.png")
