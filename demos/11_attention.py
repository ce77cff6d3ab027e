"""Lesson 11: attention, on three words: who looks at whom, and how that is learned."""

# %% [markdown]
# # A question, three answers
# Each word of a text has three vectors: a **query** q (what am I looking for?), a **key** k (what do I offer?) and a
# **value** v (what do I say?). A word compares its query with every key: the score q·k/√d is large where they point the
# same way. Softmax makes weights of the scores, positive numbers that add up to 1, and the weights mix the values:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\left(QK^\top/\sqrt{d}\right)V$$
#
# (Vaswani et al., 2017.) There is nothing in it but products, sums, exp and a division: the page of calculus has all.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import heat, picture, save

import tinynet
from tinynet import Value, draw, nn, optim
from tinynet import functional as F

WORDS = ["the", "cat", "sleeps"]


def values(numbers, name):
    """A table of numbers as leaves of a graph, named by word."""
    return np.array([[Value(x, f"{name}{i}({word})") for i, x in enumerate(row)] for word, row in zip(WORDS, numbers)])


q = values([[1.0, 0.0], [0.5, 1.5], [0.5, 1.0]], "q")
k = values([[1.0, 0.0], [0.0, 1.5], [1.0, 1.0]], "k")
v = values([[1.0], [2.0], [3.0]], "v")

# %% [markdown]
# # One word looks around
# The last word, "sleeps", asks. Its weights say how much it listens to each word; its answer is the mixture.

# %%
scores = q[2:] @ k.T / np.sqrt(2)
e = np.exp(scores)
weights = e / e.sum()
(answer,) = (weights @ v)[0]
for j, word in enumerate(WORDS):
    scores[0, j].label, weights[0, j].label = f"score({word})", f"weight({word})"
answer.label = "answer"
answer.backward()
print("word     score   weight   value")
for word, s, w, x in zip(WORDS, scores[0], weights[0], v[:, 0]):
    print(f"{word:7} {s.data:6.3f}   {w.data:6.3f}   {x.data:5.1f}")
print(f"answer of 'sleeps': {answer.data:.4f}, the sum of weight × value; the weights add up to "
      f"{sum(w.data for w in weights[0]):.4f}")
draw(answer).save(picture("11_attention.svg"))

# %% [markdown]
# What flows back to a *value* is its weight. What flows back to a *key* says how to be listened to more, or less: the
# answer would grow if "sleeps" looked more at itself, whose value is the largest. Attention is differentiable looking.

# %%
print("\nThe gradient of the answer for each value is that value's weight:",
      ", ".join(f"{x.grad:.3f}" for x in v[:, 0]))

# %% [markdown]
# # Learning where to look
# All three words at once make a table of weights, a row for the word that looks, a column for the word that is looked
# at. Suppose that "sleeps" should find out *who* sleeps. The loss -log(weight of "cat" in the row of "sleeps") is one
# number in the same graph, and its gradients turn the queries and keys.


# %%
def all_weights(causal=False):
    return F.attention_weights(q, k, causal=causal, scale=1 / np.sqrt(2))


def plain(table):
    return np.vectorize(float)(table)


before = plain(all_weights())
optimizer = optim.SGD([*q.flat, *k.flat], lr=0.3)
print("\nTeaching 'sleeps' to look at 'cat':")
for step in range(31):
    loss = -all_weights()[2, 1].log()
    if step % 10 == 0:
        print(f"  step {step:2}: weights of 'sleeps' {plain(all_weights())[2].round(3)}, loss {loss.data:.3f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = plain(all_weights())

# %% [markdown]
# # No looking ahead
# A model that is to guess the next word must not see it. The **causal mask** sets the scores of all later words to -∞,
# so that their weights are exactly 0, and so is every gradient that would have to pass through them.

# %%
causal = plain(all_weights(causal=True))
answers = (F.scaled_dot_product_attention(q, k, v, is_causal=True))[:, 0]
hears = np.zeros((3, 3))
for i, answer in enumerate(answers):
    for x in v.flat:
        x.zero_grad()
    answer.backward()
    hears[i] = [x.grad or 0.0 for x in v[:, 0]]
assert (hears[np.triu_indices(3, 1)] == 0).all()
print("\nWith the causal mask, gradient of each answer (row) for each value (column):")
print(hears.round(3))

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
heat(axes[0], before, WORDS, WORDS, "weights at first")
heat(axes[1], after, WORDS, WORDS, "'sleeps' has learned to look at 'cat'")
heat(axes[2], causal, WORDS, WORDS, "the same with a causal mask")
for ax in axes:
    ax.set(xlabel="is looked at", ylabel="looks")
save("11_weights.png")

# %% [markdown]
# # Several heads
# One table of weights can look at one thing at a time, so a layer has several **heads**, each with its own small
# queries, keys and values, all computed from the words by the rows of one matrix, `in_proj_weight`. Their answers are
# laid side by side and mixed by `out_proj`.


# %%
class Reader(nn.Module):
    """Attention with two heads, and one number for each word."""

    def __init__(self):
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0])


tinynet.manual_seed(0)
reader = Reader().to("scalar")
words = np.random.default_rng(0).normal(size=(1, 3, 4))
loss = nn.MSELoss()(reader(words), np.ones((1, 3, 1)))
loss.label = "loss"
loss.backward()
print(f"\nA layer with two heads on three words of width 4: {len(tinynet.graph.topological(loss)):,} Values")

# %% [markdown]
# Folded, it is a few boxes. Opened at head 0, the equation can be read off from left to right: the projection, q·k,
# the scale, softmax (subtract the largest, exp, sum, divide), and the mixture of values. Head 1 stays in its box.

# %%
draw(loss, depth=1).save(picture("11_folded.svg"))
draw(loss, depth=1, focus="attention[0]", direction="TB").save(picture("11_one_head.svg"))
_, heads = reader.attention(words, words, words, average_attn_weights=False)
for h, table in enumerate(plain(heads)[0]):
    print(f"  head {h}: 'sleeps' looks at " + ", ".join(f"{word} {w:.2f}" for word, w in zip(WORDS, table[2])))
