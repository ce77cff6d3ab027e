"""Lesson 14: a recurrent network and a small GPT, trained on the same names."""

# %% [markdown]
# # Recurrent neurons
# A **recurrent** neuron has two inputs: the current input and its previous **hidden state**. A sequence of three inputs
# uses the same two weights three times. So the graph of a sequence is a chain, and the gradient of a weight is the sum
# of the contributions of all steps: **backpropagation through time**.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
from easel import ORANGE, heat, picture, save
from tqdm import tqdm

import tinynet
from tinynet import nn, optim
from tinynet.data import CharTokenizer, DataLoader, next_tokens_of_each, train_test_split
from tinynet.datasets import names

tinynet.manual_seed(3)
neuron = nn.RNN(1, 1, bias=False).to("scalar")
neuron.weight_ih_l0[0, 0].label, neuron.weight_hh_l0[0, 0].label = "w", "u"
sequence = np.array([[tinynet.Value(x, label=f"x{t}")] for t, x in enumerate([1.0, -0.5, 2.0], 1)])
states, last = neuron(sequence)
for t in range(3):
    states[t, 0].label = f"h{t + 1}"
last[0, 0].backward()
w, u = neuron.parameters()
print(f"h = {[round(h.data, 3) for h in states[:, 0]]}, dh3/dw = {w.grad:.4f}, dh3/du = {u.grad:.4f}")
tinynet.draw(last[0, 0]).save(picture("14_unrolled.svg"))

# %% [markdown]
# # The data
# Every name starts after the end token of the previous one, and ends with one: "\n", token 0. The model predicts, at
# each letter, the probability of each next one. Names are padded to one length; the loss ignores the padding.

# %%
words = names()
tokenizer = CharTokenizer(["\n", *words])
training, held_out = train_test_split(words, test_size=500, seed=0)
train, valid = (next_tokens_of_each([tokenizer.encode(word) for word in part], context=12)
                for part in (training, held_out))
print(f"\n{len(training)} training names, {len(held_out)} held out, {len(tokenizer)} tokens")
print(training[0], "inputs", train[0][0].tolist(), "targets", train[0][1].tolist())

# %% [markdown]
# # Two architectures
# The **recurrent network** passes a hidden state of 128 numbers from letter to letter; its **gates** (a GRU) learn what
# to keep. The state must hold everything about the beginning of a name. The **GPT** attends to all earlier letters at
# each step. Both have about as many parameters.

# %%
VOCAB, EPOCHS = len(tokenizer), 20


class Reader(nn.Module):
    """Embeddings, a GRU, and a linear layer to the logits of the next letter."""

    def __init__(self, width=32, hidden=128):
        self.embed, self.head = nn.Embedding(VOCAB, width), nn.Linear(hidden, VOCAB)
        self.units = nn.GRU(width, hidden, batch_first=True)

    def forward(self, tokens, state=None):
        states, last = self.units(self.embed(tokens), state)
        return self.head(states), last

    @tinynet.no_grad()
    def generate(self, count, letters, seed):
        """`count` texts at once: each step updates the hidden state and samples one letter."""
        rng, tokens, state = np.random.default_rng(seed), np.zeros((count, 1), int), None
        texts = tokens
        for _ in range(letters):
            logits, state = self(tokens, state)
            p = nn.functional.softmax(logits[:, -1]).numpy()
            tokens = (p.cumsum(1) < rng.random((count, 1))).sum(1, keepdims=True).clip(max=VOCAB - 1)
            texts = np.hstack([texts, tokens])
        return texts


def fresh(kind):
    tinynet.manual_seed(0)
    return Reader() if kind == "recurrent" else nn.GPT(VOCAB, layers=2, heads=4, width=48, context=12)


def logits_of(model, tokens):
    return model(tokens)[0] if isinstance(model, Reader) else model(tokens)


def loss_of(model, tokens, targets):
    return nn.functional.cross_entropy(logits_of(model, tokens).reshape(-1, VOCAB), targets.reshape(-1))


def learn(kind, model):
    """(training losses, validation losses, seconds) after each epoch, and the median time of a step in µs."""
    optimizer = optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
    schedule = optim.CosineAnnealingLR(optimizer, T_max=EPOCHS)
    loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True, seed=0)

    @tinynet.capture
    def step(tokens, targets):
        loss = loss_of(model, tokens, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # through many steps a gradient may explode
        optimizer.step()
        return loss

    everything = next(iter(DataLoader(valid, batch_size=len(valid))))
    rows, steps, clock = [], [], 0.0
    step(*next(iter(loader)))  # records the step, and compiles its kernels
    for _ in tqdm(range(EPOCHS), desc=f"{kind}, epochs"):
        losses = []
        for batch in loader:
            began = time.perf_counter()
            losses.append(step(*batch).item())
            steps.append(time.perf_counter() - began)
        clock += sum(steps[-len(losses):])
        schedule.step()
        with tinynet.no_grad():
            rows.append((np.mean(losses), loss_of(model, *everything).item(), clock))
    return np.array(rows), np.median(steps) * 1e6


print("\n         parameters   µs a step   validation loss (nats per letter)")
models = {kind: fresh(kind) for kind in ("recurrent", "GPT")}
curves = {}
for kind, model in models.items():
    curves[kind], microseconds = learn(kind, model)
    print(f"{kind:10}  {sum(p.numel() for p in model.parameters()):7,}   {microseconds:9.0f}   "
          f"{curves[kind][-1, 1]:.3f} (uniform: {np.log(VOCAB):.3f})")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for i, (kind, rows) in enumerate(curves.items()):
    for ax, x in zip(axes, (np.arange(1, EPOCHS + 1), rows[:, 2])):
        ax.plot(x, rows[:, 0], ":", color=f"C{i}", label=f"{kind}, training")
        ax.plot(x, rows[:, 1], color=f"C{i}", label=f"{kind}, held-out names")
axes[0].set(title="by epochs", xlabel="epoch", ylabel="loss (nats per letter)")
axes[0].xaxis.get_major_locator().set_params(integer=True)
axes[1].set(title="by time", xlabel="seconds")
axes[1].legend()
save("14_losses.png")

# %% [markdown]
# # Sampling
# Both continue after an end token, and sample each letter from the predicted distribution. A star marks names that are
# not in the training set.

# %%
known = set(training)
samples = {"recurrent": models["recurrent"].generate(12, 12, seed=0),
           "GPT": models["GPT"].generate(np.zeros((12, 1), int), 12, seed=0)}
print()
for kind, texts in samples.items():
    invented = [tokenizer.decode(text[1:]).partition("\n")[0] for text in texts]
    print(f"{kind:10}", " ".join(f"{name}{'' if name in known else '*'}" for name in invented))

# %% [markdown]
# # Predicted distributions
# The longest held-out name, letter by letter: each column shows the predicted distribution of the next letter. The
# rings mark the actual letters. Both models soon predict the end: few names are so long.

# %%
name = max(held_out, key=len)
read = [0, *tokenizer.encode(name)]
letters = ["end", *tokenizer.chars[1:]]
figure, axes = plt.subplots(1, 2, figsize=(9, 6.5), sharey=True)
for ax, (kind, model) in zip(axes, models.items()):
    with tinynet.no_grad():
        p = nn.functional.softmax(logits_of(model, np.array([read]))[0]).numpy()
    heat(ax, p.T, letters, ["·", *name], f"{kind}: after each letter of {name!r}", numbers=False)
    ax.scatter(range(len(read)), [*read[1:], 0], s=60, facecolors="none", edgecolors=ORANGE, linewidths=1.5)
    ax.set_aspect("auto")
    probability = np.exp(np.log(p[np.arange(len(read)), [*read[1:], 0]]).mean())
    print(f"{kind}: probability of {name!r}: {probability:.0%} per letter (geometric mean)")
save("14_expectations.png")
