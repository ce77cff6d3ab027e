"""Lesson 16: a GPT of Values, compiled, learns names in seconds."""

# %% [markdown]
# # A scalar GPT
# There is a well-known GPT in 200 lines of pure Python, with one object for each scalar: one layer, four heads, width
# 16, 16 tokens (Karpathy, 2026). A thousand training steps of one name each take it minutes. Here is a GPT of that size
# made of Values, and compiled: a thousand steps of 64 names each, in seconds.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import GREY, ORANGE, picture, save
from tqdm import tqdm

import tinynet
from tinynet import Value, nn, optim
from tinynet import functional as F
from tinynet.data import CharTokenizer, next_tokens_of_each, one_hot, train_test_split
from tinynet.datasets import names

CONTEXT = 16
tinynet.manual_seed(0)
everyone = names()
tokenizer = CharTokenizer(["\n", *everyone])  # token 0, "\n", ends a name
VOCAB = len(tokenizer)
model = nn.GPT(VOCAB, layers=1, heads=4, width=16, context=CONTEXT).to("scalar")
print(f"{len(model.parameters()):,} parameters, each one a Value")

# %% [markdown]
# # One-hot inputs
# A program executes the same operations for every sample. An embedding lookup, `table[3]`, would make the 3 a constant
# of the program. But the product of a **one-hot** row, zeros with a 1 at index 3, and the table is row 3 as well, and
# the index has become data: `nn.GPT` accepts such rows of Values instead of indices. The targets are one-hot too: the
# loss of a name is the sum of -target · log p over its letters, and a row of zeros is ignored, as in the padding.


# %%
def batch_of(some):
    """One row for each name, letters then targets, one-hot; and the number of targets that are no padding."""
    tokens, labels = next_tokens_of_each([tokenizer.encode(name) for name in some], CONTEXT).arrays
    valid = labels >= 0
    letters, targets = one_hot(tokens, VOCAB), one_hot(labels * valid, VOCAB) * valid[..., None]
    return np.concatenate([letters, targets], axis=1).reshape(len(some), -1), valid.sum()


emma = batch_of(["emma"])[0]
began = time.perf_counter()
letters, targets = np.array([Value(x, "x") for x in emma.flat]).reshape(2, CONTEXT, VOCAB)
logits = model(letters[None])[0]
loss = -(targets * F.log_softmax(logits)).sum()
loss.label = "loss"
built = time.perf_counter()
program = tinynet.compile(loss, inputs=[letters, targets], parameters=model.parameters())
predict = tinynet.compile(logits, inputs=letters, parameters=model.parameters())
print(f"graph built in {built - began:.1f} s, compiled in {time.perf_counter() - built:.1f} s: {program!r}")

# %% [markdown]
# # Comparison with the interpreted engine
# One name, interpreted, with the usual embedding lookup.

# %%
name = tokenizer.encode("emma")
began = time.perf_counter()
interpreted = F.cross_entropy(model(np.r_[0, name][None])[0], np.r_[name, 0], reduction="sum")
interpreted.backward()
seconds = time.perf_counter() - began
interpreted.label = "loss"
tinynet.draw(interpreted, depth=1).save(picture("16_scalar_gpt.svg"))
gradients = [p.grad or 0.0 for p in model.parameters()]
model.zero_grad()
compiled = program.backward(emma)
difference = max(abs((p.grad or 0.0) - g) for p, g in zip(model.parameters(), gradients))
print(f"'emma': loss {interpreted.data:.12f} interpreted, {compiled:.12f} compiled; "
      f"the largest difference of a gradient is {difference:.1e}")

# %% [markdown]
# # Training
# The optimizer is that of the other lessons, and updates each Value by its gradient. No graph is built between two
# steps.

# %%
STEPS, BATCH = 1000, 64
train_names, valid_names = train_test_split(everyone, test_size=0.1, seed=0)
valid, valid_letters = batch_of(valid_names)


def held_out():
    return program(valid).sum() / valid_letters


optimizer = optim.Adam(model.parameters(), lr=0.01)
schedule = optim.CosineAnnealingLR(optimizer, STEPS)
order, losses, checks = np.random.default_rng(0), [], []
began = time.perf_counter()
bar = tqdm(range(1, STEPS + 1), desc="steps")
for step in bar:
    batch, count = batch_of(order.choice(train_names, BATCH, replace=False))
    optimizer.zero_grad()
    losses.append(program.backward(batch) * BATCH / count)
    optimizer.step()
    schedule.step()
    if step % 50 == 0:
        checks.append((step, held_out()))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", held_out=f"{checks[-1][1]:.3f}")
elapsed = time.perf_counter() - began
print(f"\n{STEPS:,} steps of {BATCH} names in {elapsed:.1f} s, {STEPS / elapsed:.0f} steps a second; the interpreted "
      f"engine takes {seconds:.2f} s for one name, so it would take {STEPS * BATCH * seconds / 3600:.0f} hours")
print(f"loss on {len(valid_names)} held-out names: {checks[-1][1]:.3f} per letter")

# %% [markdown]
# # Sampling
# The second program computes the logits of all positions for many names at once. Each position of every name is sampled
# in turn.


# %%
def invent(count, seed=0):
    tokens, rng = np.zeros((count, CONTEXT), int), np.random.default_rng(seed)
    for position in range(CONTEXT - 1):
        logits = predict(one_hot(tokens, VOCAB).reshape(count, -1))[:, position]
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        tokens[:, position + 1] = [rng.choice(VOCAB, p=row) for row in p]
    return [tokenizer.decode(row[1:]).split("\n")[0] for row in tokens]


print("samples:", ", ".join([name for name in invent(30) if name not in everyone][:15]))

# %%
plt.figure(figsize=(6.5, 4))
plt.plot(range(1, STEPS + 1), losses, color=GREY, linewidth=0.5, label="training batches")
plt.plot(*zip(*checks), color=ORANGE, marker="o", markersize=3, label="held-out names")
plt.gca().set(title=f"a GPT of Values, {STEPS:,} steps in {elapsed:.0f} s", xlabel="step",
              ylabel="loss (nats per letter)")
plt.legend()
save("16_scalar_gpt_loss.png")

# %% [markdown]
# # The same model as tensors
# A model trained as Values can continue as tensors: `to("tensor")` gathers the Values into arrays, and `generate`
# completes the beginning of a name.

# %%
logits = predict(batch_of(["christopher"])[0][:, :CONTEXT * VOCAB])[0]
model.to("tensor")
tokens = np.r_[0, tokenizer.encode("christopher")]
difference = abs(model(tokens[None]).detach().numpy()[0] - logits[:len(tokens)]).max()
print(f"\nas tensors the logits differ by at most {difference:.1e}")
text = model.generate(np.r_[0, tokenizer.encode("chr")], 12, temperature=0.5, seed=0)
print("completion of 'chr':", tokenizer.decode(text[1:]).split("\n")[0])
