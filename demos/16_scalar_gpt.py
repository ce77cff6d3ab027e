"""Lesson 16: a GPT made of single numbers learns names in seconds."""

# %% [markdown]
# # A GPT that one could draw
# There is a well-known GPT in 200 lines of pure Python, in which every number is an object: one layer, four heads,
# width 16, 16 tokens (Karpathy, 2026). It learns names; a thousand steps, of one name each, take it minutes. Here is a
# GPT of that size made of Values, and compiled: a thousand steps, of 64 names each, in seconds.

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
# # Letters as numbers
# A program does the same operations for every sample, only with other numbers. Looking a letter up in a table,
# `table[3]`, would freeze the 3 into the program. But the product of the table with a row of zeros that has a 1 in
# place 3 (*one-hot*) is row 3 as well, and which letter it is has become a matter of numbers: `nn.GPT` takes
# such rows of Values in place of indices. The targets are one-hot too: the loss of a name is the sum of -target · log p
# over its letters, and a row of zeros leaves a place out, as those after the end of a shorter name.


# %%
def batch_of(some):
    """A line of numbers for each name, letters then targets, and how many targets there are."""
    tokens, wanted = next_tokens_of_each([tokenizer.encode(name) for name in some], CONTEXT).arrays
    counted = wanted >= 0
    letters, targets = one_hot(tokens, VOCAB), one_hot(wanted * counted, VOCAB) * counted[..., None]
    return np.concatenate([letters, targets], axis=1).reshape(len(some), -1), counted.sum()


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
# # The same as the interpreted engine
# One name, Value by Value, with the letters looked up in the table as always.

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
# # A thousand steps
# The optimiser is that of the other lessons, and moves each Value by its gradient. Nothing is built between two steps.

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
      f"engine takes {seconds:.2f} s for one name, so it would need {STEPS * BATCH * seconds / 3600:.0f} hours")
print(f"loss on {len(valid_names)} held-out names: {checks[-1][1]:.3f} a letter")

# %% [markdown]
# # New names
# The second program gives the scores of all places for many names at once. A letter is drawn for the next place of each
# name, then for the place after it, and so on to the end.


# %%
def invent(count, seed=0):
    tokens, rng = np.zeros((count, CONTEXT), int), np.random.default_rng(seed)
    for place in range(CONTEXT - 1):
        scores = predict(one_hot(tokens, VOCAB).reshape(count, -1))[:, place]
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        tokens[:, place + 1] = [rng.choice(VOCAB, p=row) for row in p]
    return [tokenizer.decode(row[1:]).split("\n")[0] for row in tokens]


print("it invents:", ", ".join([name for name in invent(30) if name not in everyone][:15]))

# %%
plt.figure(figsize=(6.5, 4))
plt.plot(range(1, STEPS + 1), losses, color=GREY, linewidth=0.5, label="each step's names")
plt.plot(*zip(*checks), color=ORANGE, marker="o", markersize=3, label="held-out names")
plt.gca().set(title=f"a GPT of single numbers, {STEPS:,} steps in {elapsed:.0f} s", xlabel="step",
              ylabel="loss (nats a letter)")
plt.legend()
save("16_scalar_gpt_loss.png")

# %% [markdown]
# # The same model, as tensors
# What has learned as single numbers can go on as arrays: `to("tensor")` gathers the Values, and `generate` goes on from
# the beginning of a name.

# %%
scores = predict(batch_of(["christopher"])[0][:, :CONTEXT * VOCAB])[0]
model.to("tensor")
tokens = np.r_[0, tokenizer.encode("christopher")]
difference = abs(model(tokens[None]).detach().numpy()[0] - scores[:len(tokens)]).max()
print(f"\nas tensors its scores differ by at most {difference:.1e}")
text = model.generate(np.r_[0, tokenizer.encode("chr")], 12, temperature=0.5, seed=0)
print("a name that begins with chr:", tokenizer.decode(text[1:]).split("\n")[0])
