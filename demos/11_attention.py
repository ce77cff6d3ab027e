"""Lesson 11: attention on three words, and how attention weights are learned."""

# %% [markdown]
# # Queries, keys and values
# Each token has three vectors: a **query** q (what it searches for), a **key** k (what it is found by) and a **value**
# v (what it contributes). A token compares its query with every key: the score q·k/√d is large where they point in the
# same direction. **Softmax** turns the scores into **attention weights**, positive numbers that sum to 1, and the
# output is the weighted sum of the values:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\left(QK^\top/\sqrt{d}\right)V$$
#
# (Vaswani et al., 2017.) It consists of products, sums, exp and a division, all of them in the derivative table.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import heat, picture, save

import tinynet
from tinynet import Value, draw, nn, optim
from tinynet import functional as F

WORDS = ["the", "cat", "sleeps"]


def values(numbers, name):
    """A matrix of leaves, labelled by word."""
    return np.array([[Value(x, f"{name}{i}({word})") for i, x in enumerate(row)] for word, row in zip(WORDS, numbers)])


q = values([[1.0, 0.0], [0.5, 1.5], [0.5, 1.0]], "q")
k = values([[1.0, 0.0], [0.0, 1.5], [1.0, 1.0]], "k")
v = values([[1.0], [2.0], [3.0]], "v")

# %% [markdown]
# # The output for one query
# The query is that of the last word, "sleeps". Its weights say how much each word contributes; its output is the
# weighted sum.

# %%
scores = q[2:] @ k.T / np.sqrt(2)
e = np.exp(scores)
weights = e / e.sum()
(output,) = (weights @ v)[0]
for j, word in enumerate(WORDS):
    scores[0, j].label, weights[0, j].label = f"score({word})", f"weight({word})"
output.label = "output"
output.backward()
print("word     score   weight   value")
for word, s, w, x in zip(WORDS, scores[0], weights[0], v[:, 0]):
    print(f"{word:7} {s.data:6.3f}   {w.data:6.3f}   {x.data:5.1f}")
print(f"output for 'sleeps': {output.data:.4f}, the sum of weight × value; the weights add up to "
      f"{sum(w.data for w in weights[0]):.4f}")
draw(output).save(picture("11_attention.svg"))

# %% [markdown]
# The gradient of a *value* is its weight. The gradient of a *key* says how to change its weight: the output would grow
# if "sleeps" attended more to itself, whose value is the largest. Attention is a differentiable lookup.

# %%
print("\nThe gradient of the output for each value is that value's weight:",
      ", ".join(f"{x.grad:.3f}" for x in v[:, 0]))

# %% [markdown]
# # Learned attention weights
# The weights of all three words form a matrix, with a row for each query and a column for each key. Suppose that
# "sleeps" should attend to "cat". The loss -log(weight of "cat" in the row of "sleeps") is a node of the same graph,
# and its gradients change the queries and keys.


# %%
def all_weights(causal=False):
    return F.attention_weights(q, k, causal=causal, scale=1 / np.sqrt(2))


def plain(table):
    return np.vectorize(float)(table)


before = plain(all_weights())
optimizer = optim.SGD([*q.flat, *k.flat], lr=0.3)
print("\nTraining 'sleeps' to attend to 'cat':")
for step in range(31):
    loss = -all_weights()[2, 1].log()
    if step % 10 == 0:
        print(f"  step {step:2}: weights of 'sleeps' {plain(all_weights())[2].round(3)}, loss {loss.data:.3f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
after = plain(all_weights())

# %% [markdown]
# # The causal mask
# A model that predicts the next token must not see it. The **causal mask** sets the scores of all later tokens to -∞,
# so that their weights are exactly 0, and every gradient through them too.

# %%
causal = plain(all_weights(causal=True))
outputs = (F.scaled_dot_product_attention(q, k, v, is_causal=True))[:, 0]
jacobian = np.zeros((3, 3))
for i, output in enumerate(outputs):
    for x in v.flat:
        x.zero_grad()
    output.backward()
    jacobian[i] = [x.grad or 0.0 for x in v[:, 0]]
assert (jacobian[np.triu_indices(3, 1)] == 0).all()
print("\nWith the causal mask, gradient of each output (row) for each value (column):")
print(jacobian.round(3))

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6))
heat(axes[0], before, WORDS, WORDS, "initial weights")
heat(axes[1], after, WORDS, WORDS, "after training: 'sleeps' attends to 'cat'")
heat(axes[2], causal, WORDS, WORDS, "the same with a causal mask")
for ax in axes:
    ax.set(xlabel="key", ylabel="query")
save("11_weights.png")

# %% [markdown]
# # Multi-head attention
# One matrix of weights expresses one relation between tokens, so a layer has several **heads**, each with its own
# smaller queries, keys and values, all projected from the tokens by the rows of one matrix, `in_proj_weight`. Their
# outputs are concatenated and projected by `out_proj`.


# %%
class Reader(nn.Module):
    """Attention with two heads, and one output for each word."""

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
# Folded, it is a few boxes. Opened at head 0, it shows the equation from top to bottom: the projection, q·k, the scale,
# softmax (subtract the maximum, exp, sum, divide), and the weighted sum of the values. Head 1 stays folded.

# %%
draw(loss, depth=1).save(picture("11_folded.svg"))
draw(loss, depth=1, focus="attention[0]", direction="TB").save(picture("11_one_head.svg"))
_, heads = reader.attention(words, words, words, average_attn_weights=False)
for h, table in enumerate(plain(heads)[0]):
    print(f"  head {h}: 'sleeps' attends to " + ", ".join(f"{word} {w:.2f}" for word, w in zip(WORDS, table[2])))
