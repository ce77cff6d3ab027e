"""Lesson 15: a graph of Values compiled to a program, thousands of times faster than the interpreted graph."""

# %% [markdown]
# # A graph as a program
# Lesson 5 trained a network of Values on 100 points. Each step created 65,000 Python objects, ran the backward pass
# through them and discarded them, only to build the same graph again in the next step. `compile` keeps the graph: it
# becomes a list of instructions, and one loop executes that list for many samples at once.
#
# So we build the graph of **one** sample. Its inputs and its target are leaves, to be replaced by other samples.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import BLUE, picture, region, save
from tqdm import tqdm

import tinynet
from tinynet import Value, nn, optim
from tinynet.datasets import moons

tinynet.manual_seed(7)
X, y = moons(10_000, noise=0.2, seed=0)
model = nn.MLP(2, [16, 16, 1]).to("scalar")
loss_function = nn.BCEWithLogitsLoss()
x = np.array([[Value(X[0, 0], "x0"), Value(X[0, 1], "x1")]])
target = np.array([[Value(y[0], "target")]])
output = model(x)
loss = loss_function(output, target)
loss.label = "loss"
loss.backward()

began = time.perf_counter()
program = tinynet.compile(loss, inputs=[x, target], parameters=model.parameters())
print(f"{program!r}, compiled in {(time.perf_counter() - began) * 1e3:.0f} ms")
program.draw(depth=1).save(picture("15_graph.svg"))

# %% [markdown]
# # The listing
# A line for each node of the graph: its index, the operation and the indices of its inputs, and after `#` the same with
# their labels. The first ten lines are one hidden neuron; the loss comes last.

# %%
lines = str(program).splitlines()
print(*[f"  {line}" for line in [*lines[:10], "…", *lines[-6:]]], sep="\n")

# %% [markdown]
# # Identical results
# A copy with the same weights trains as in lesson 5, interpreted. Both train on the first 100 points with the same
# optimizer, and every loss, gradient and weight is compared. Where the order of summation differs, so may the last
# digits of double precision.

# %%
samples = np.column_stack([X, y]).astype(float)  # a row for each sample: x0, x1, target
copy = nn.MLP(2, [16, 16, 1])
copy.load_state_dict(model.state_dict())
copy.to("scalar")
runs = [(model, optim.Adam(model.parameters(), lr=0.01)), (copy, optim.Adam(copy.parameters(), lr=0.01))]
largest, seconds = 0.0, ([], [])
print("\nstep   loss, compiled       loss, interpreted")
for step in range(5):
    losses = []
    for (network, optimizer), times in zip(runs, seconds):
        began = time.perf_counter()
        optimizer.zero_grad()
        if network is model:
            losses.append(program.backward(samples[:100]))
        else:
            error = loss_function(network(X[:100]), y[:100, None].astype(float))
            error.backward()
            losses.append(error.data)
        optimizer.step()
        times.append(time.perf_counter() - began)
    pairs = list(zip(model.parameters(), copy.parameters()))
    largest = max(largest, abs(losses[0] - losses[1]), *(abs(p.data - q.data) for p, q in pairs),
                  *(abs(p.grad - q.grad) for p, q in pairs))
    print(f"{step:4}   {losses[0]:.15f}    {losses[1]:.15f}")
print(f"largest difference of a loss, a gradient or a weight: {largest:.1e}")

# %% [markdown]
# # Speed


# %%
def seconds_of(step, repeats=200):
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return min(times)  # the least disturbed


optimizer = runs[0][1]


def step(batch):
    optimizer.zero_grad()
    error = program.backward(batch)
    optimizer.step()
    return error


rows = {"interpreted, 100 samples": min(seconds[1]),
        "compiled, 100 samples": seconds_of(lambda: step(samples[:100])),
        "compiled, 10,000 samples": seconds_of(lambda: step(samples), 20)}
print("\nOne training step:")
for name, t in rows.items():
    print(f"  {name:26} {t * 1e3:10.2f} ms")
print(f"On the same 100 samples the program is {rows['interpreted, 100 samples'] / rows['compiled, 100 samples']:,.0f} "
      "times as fast")

# %% [markdown]
# # Training on ten thousand points
# New initial weights, and 20 epochs in batches of 100. The optimizer is unchanged: it reads each Value's `grad` and
# writes its `data`, which the program reads. A second program, of the same graph up to the network's output, predicts
# for any number of points.

# %%
model.load_state_dict(nn.MLP(2, [16, 16, 1]).state_dict())
optimizer = optim.Adam(model.parameters(), lr=0.01)
predict = tinynet.compile(output[0, 0], inputs=x, parameters=model.parameters())
X_new, y_new = moons(2_000, noise=0.2, seed=1)
EPOCHS, losses, order = 20, [], np.random.default_rng(0)
began = time.perf_counter()
bar = tqdm(range(EPOCHS), desc="epochs")
for _ in bar:
    shuffled = order.permutation(samples)
    losses.append(np.mean([step(batch) for batch in np.split(shuffled, 100)]))
    bar.set_postfix(loss=f"{losses[-1]:.4f}")
elapsed = time.perf_counter() - began
accuracy = np.mean((predict(X_new) > 0) == y_new)
print(f"\n{EPOCHS * 100:,} steps through {EPOCHS * len(X):,} samples in {elapsed:.1f} s; interpreted, they would "
      f"take {EPOCHS * 100 * rows['interpreted, 100 samples'] / 60:.0f} minutes")
print(f"On 2,000 held-out points: {accuracy:.1%}")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 3.8))
region(left, predict, X_new[::5], y_new[::5], steps=200)
left.set_title("decision boundary")
middle.plot(range(1, EPOCHS + 1), losses)
middle.set(title=f"loss on 10,000 points ({elapsed:.1f} s)", xlabel="epoch", yscale="log")
bars = right.barh(list(rows), [t * 1e3 for t in rows.values()], color=BLUE)
right.bar_label(bars, [f" {t * 1e3:,.2f} ms" for t in rows.values()])
right.set(xscale="log", xlim=(0.01, 1e5), title="one training step", xlabel="ms (each mark is ten times the last)")
right.invert_yaxis()
right.grid(axis="y", visible=False)
save("15_program.png")

# %% [markdown]
# # Control flow
# The program is the graph as it was built. An `if` or a `for` of Python was evaluated then, once for all samples;
# `relu`, `max` and `abs`, operations of the derivative table, still branch for each sample.
