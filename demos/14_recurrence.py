"""Lesson 14: a network that reads letter after letter and remembers, beside a small GPT on the same names."""

# %% [markdown]
# # A neuron with a memory
# A recurrent neuron has two inputs: what it reads now, and what it answered a moment ago. Reading three numbers means
# using the same two weights three times, one after the other. So the graph of a sequence is a chain, and the gradient
# of a weight is the sum of what it gets in every link: backpropagation through time.

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
# # Names
# Every name begins after the end of the one before, and ends with an end: "\n", token 0. The model reads the beginning
# of a name and says, at each letter, how likely each next one is. Names are filled up to one length; what was filled up
# is left out of the loss.

# %%
words = names()
tokenizer = CharTokenizer(["\n", *words])
training, held_out = train_test_split(words, test_size=500, seed=0)
train, valid = (next_tokens_of_each([tokenizer.encode(word) for word in part], context=12)
                for part in (training, held_out))
print(f"\n{len(training)} names to learn from, {len(held_out)} held out, {len(tokenizer)} tokens")
print("for", training[0], "read", train[0][0].tolist(), "and say", train[0][1].tolist())

# %% [markdown]
# # Two ways to read
# The **recurrent network** passes a state of 128 numbers from letter to letter; its gates (a GRU) learn what to keep.
# All that it knows of the beginning of a name has to fit into these. The **GPT** keeps every letter, and looks at all
# earlier ones each time. Both have about as many weights.

# %%
VOCAB, EPOCHS = len(tokenizer), 20


class Reader(nn.Module):
    """Letters to vectors, through recurrent units, to logits of the next letter."""

    def __init__(self, width=32, hidden=128):
        self.embed, self.head = nn.Embedding(VOCAB, width), nn.Linear(hidden, VOCAB)
        self.units = nn.GRU(width, hidden, batch_first=True)

    def forward(self, tokens, state=None):
        states, last = self.units(self.embed(tokens), state)
        return self.head(states), last

    @tinynet.no_grad()
    def generate(self, count, letters, seed):
        """`count` texts at once: at every letter the state goes on, and one letter is drawn."""
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
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # a product of many steps may become large
        optimizer.step()
        return loss

    everything = next(iter(DataLoader(valid, batch_size=len(valid))))
    rows, steps, clock = [], [], 0.0
    step(*next(iter(loader)))  # records the step, and compiles what was not compiled yet
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


print("\n            weights   µs a step   validation loss (nats a letter)")
models = {kind: fresh(kind) for kind in ("recurrent", "GPT")}
curves = {}
for kind, model in models.items():
    curves[kind], microseconds = learn(kind, model)
    print(f"{kind:10}  {sum(p.numel() for p in model.parameters()):7,}   {microseconds:9.0f}   "
          f"{curves[kind][-1, 1]:.3f} (guessing: {np.log(VOCAB):.3f})")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True)
for i, (kind, rows) in enumerate(curves.items()):
    for ax, x in zip(axes, (np.arange(1, EPOCHS + 1), rows[:, 2])):
        ax.plot(x, rows[:, 0], ":", color=f"C{i}", label=f"{kind}, training")
        ax.plot(x, rows[:, 1], color=f"C{i}", label=f"{kind}, held-out names")
axes[0].set(title="by epochs", xlabel="epoch", ylabel="loss, nats a letter")
axes[0].xaxis.get_major_locator().set_params(integer=True)
axes[1].set(title="by the clock", xlabel="seconds")
axes[1].legend()
save("14_losses.png")

# %% [markdown]
# # Names that nobody has
# Both go on from an end, letter by letter, each drawn with the probability that the model gives it. A name that is not
# among those it learned from bears a star.

# %%
known = set(training)
written = {"recurrent": models["recurrent"].generate(12, 12, seed=0),
           "GPT": models["GPT"].generate(np.zeros((12, 1), int), 12, seed=0)}
print()
for kind, texts in written.items():
    invented = [tokenizer.decode(text[1:]).partition("\n")[0] for text in texts]
    print(f"{kind:10}", " ".join(f"{name}{'' if name in known else '*'}" for name in invented))

# %% [markdown]
# # What they expect
# The longest held-out name, letter by letter: each column shows what a model expects next, blue where it is sure. The
# rings are what came. Both soon expect an end: few names are so long.

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
    chance = np.exp(np.log(p[np.arange(len(read)), [*read[1:], 0]]).mean())
    print(f"{kind}: {name!r} got {chance:.0%} a letter (geometric mean)")
save("14_expectations.png")
