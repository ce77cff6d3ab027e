"""Lesson 12: a character-level GPT learns first names and generates new ones."""

# %% [markdown]
# # Next-token prediction
# 5,163 first names of the census of the United States of 1990. A name is a sequence of **tokens**, one for each letter,
# and one for its end. The model predicts the probability of each next token from those before it; the causal mask
# allows training on all positions of a name at once. Names differ in length: shorter ones are **padded**, with the
# target -100, which the loss ignores.

# %%
import matplotlib.pyplot as plt
import numpy as np
from easel import GREY, heat, save
from tqdm import tqdm

import tinynet
from tinynet import fit, nn, optim
from tinynet import functional as F
from tinynet.data import CharTokenizer, DataLoader, next_tokens_of_each, train_test_split
from tinynet.datasets import names

tinynet.manual_seed(0)
everyone = names()
tokenizer = CharTokenizer(["\n", *everyone])  # token 0, "\n", ends a name
VOCAB, CONTEXT = len(tokenizer), 1 + max(map(len, everyone))
train_names, valid_names = train_test_split(everyone, test_size=0.1, seed=0)


def as_tokens(some):
    return next_tokens_of_each([tokenizer.encode(name) for name in some], CONTEXT)


inputs, targets = as_tokens(["emma"])[0]
print(f"{len(train_names)} training names, {len(valid_names)} held out; {VOCAB} tokens, context of {CONTEXT}")
print("emma, in: ", inputs.tolist())
print("emma, out:", targets.tolist())

# %% [markdown]
# # Baselines
# A **bigram** model counts which letter follows which; a **trigram** model conditions on two letters. They are strong
# **baselines**, since names are short. The loss is the **cross-entropy**, the mean of -log p of the correct token;
# e^loss is the **perplexity**.


# %%
def ngram_loss(n, added=0.1):
    """The loss on the held-out names of an n-gram model: counts of each token after the n - 1 before it."""
    counts = np.full((VOCAB,) * n, added)  # smoothing: no probability is 0

    def ngrams(some):
        rows = [np.r_[np.zeros(n - 1, int), tokenizer.encode(name), 0] for name in some]
        return tuple(np.concatenate([row[i:len(row) - n + 1 + i] for row in rows]) for i in range(n))

    np.add.at(counts, ngrams(train_names), 1)
    return -np.log(counts / counts.sum(-1, keepdims=True))[ngrams(valid_names)].mean()


baselines = {"bigram": ngram_loss(2), "trigram": ngram_loss(3)}
print(f"\nheld-out loss: uniform {np.log(VOCAB):.3f} (perplexity {VOCAB})",
      *[f"{name} {x:.3f} (perplexity {np.exp(x):.1f})" for name, x in baselines.items()], sep=", ")

# %% [markdown]
# # The model
# Each token has an **embedding**, and each position too; two blocks of attention and an MLP, each with a **residual
# connection**, transform them; a last layer maps each vector to **logits**. After some epochs we sample names.

# %%
EPOCHS = 15
model = nn.GPT(VOCAB, layers=2, heads=4, width=48, context=CONTEXT)
optimizer = optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.1)
print(f"\na GPT with {sum(p.numel() for p in model.parameters()):,} parameters. Samples during training:")


def invent(count, **options):
    """New names, sampled after the token that ends a name."""
    texts = model.generate(np.zeros((count, 1), int), CONTEXT - 1, **options)
    return [tokenizer.decode(row).split("\n")[1] for row in texts]


def show(history, model):
    if len(history) in (1, 2, 5, 10, EPOCHS):
        tqdm.write(f"  epoch {len(history):2}: " + ", ".join(invent(7, seed=len(history))))


def next_token_loss(logits, targets):
    return F.cross_entropy(logits.reshape(-1, VOCAB), targets.reshape(-1))


history = fit(model, DataLoader(as_tokens(train_names), batch_size=64, shuffle=True, seed=0), next_token_loss,
              optimizer, EPOCHS, validation=DataLoader(as_tokens(valid_names), batch_size=len(valid_names)),
              scheduler=optim.CosineAnnealingLR(optimizer, EPOCHS), callbacks=show)
best = min(history["val_loss"])
print(f"held-out loss {best:.3f} after {len(history)} epochs of {np.median(history['seconds']):.1f} s: "
      f"{baselines['trigram'] - best:.3f} below the trigram's")

invented = invent(1000, seed=0)
new = [name for name in invented if name not in set(everyone)]
print(f"of 1,000 sampled names {len(new)} are new, such as " + ", ".join(new[:6])
      + f"; {len(set(invented) & set(valid_names))} are held-out names")

# %%
epochs = range(1, EPOCHS + 1)
plt.figure(figsize=(6.5, 4))
plt.plot(epochs, history["loss"], label="GPT, training names")
plt.plot(epochs, history["val_loss"], label="GPT, held-out names")
for (name, loss), style in zip(baselines.items(), (":", "--")):
    plt.axhline(loss, color=GREY, linestyle=style, label=f"{name}, held-out names")
plt.gca().set(title="next-character cross-entropy", xlabel="epoch", ylabel="loss (nats per token)")
plt.legend()
save("12_gpt_loss.png")

# %% [markdown]
# # Attention maps
# Every head of every layer has its matrix of attention weights: a row for each query, a column for each key. The causal
# mask keeps the upper right empty. The heads have learned what to attend to from the loss alone.

# %%
name = "christopher"
tokens = np.r_[0, tokenizer.encode(name)][None]
letters = ["·", *name]
with tinynet.no_grad():
    x = model.token(tokens) + model.position(np.arange(len(letters)))
    maps = []
    for block in model.blocks:
        h = block.norm1(x)
        maps.append(block.self_attn(h, h, h, is_causal=True, average_attn_weights=False)[1].numpy()[0])
        x = block(x, is_causal=True)
figure, axes = plt.subplots(len(maps), len(maps[0]), figsize=(13, 6.6))
for i, row in enumerate(axes):
    for j, ax in enumerate(row):
        heat(ax, maps[i][j], letters, letters, f"layer {i}, head {j}", numbers=False)
save("12_gpt_attention.png")
back = [[np.trace(weights, -1) / (len(letters) - 1) for weights in layer] for layer in maps]
i, j = np.unravel_index(np.argmax(back), np.shape(back))
print(f"\nthe head that attends most to the previous token is head {j} of layer {i}: {back[i][j]:.0%} of its weight")

# %% [markdown]
# # The same model as Values
# A GPT consists of sums, products, exponentials and a few more scalar operations. A tiny one, on both engines:

# %%
tiny = nn.GPT(VOCAB, layers=1, heads=2, width=4, context=5).double()
scalars = nn.GPT(VOCAB, layers=1, heads=2, width=4, context=5).double()
scalars.load_state_dict(tiny.state_dict())
scalars.to("scalar")
inputs, targets = np.r_[0, tokenizer.encode("emma")][None], np.r_[tokenizer.encode("emma"), 0]
losses = [F.cross_entropy(gpt(inputs)[0], targets) for gpt in (tiny, scalars)]
for loss in losses:
    loss.backward()
values = dict(scalars.named_parameters())
difference = 0.0
for path, p in tiny.named_parameters():
    for index, g in np.ndenumerate(p.grad.numpy()):
        difference = max(difference, abs(g - (values[f"{path}[{','.join(map(str, index))}]"].grad or 0.0)))
print(f"\none name through a tiny GPT: a graph of {len(tinynet.graph.topological(losses[0])):,} Tensors, or of "
      f"{len(tinynet.graph.topological(losses[1])):,} Values")
print(f"losses {losses[0].item():.12f} and {losses[1].item():.12f}; the largest difference of a gradient is "
      f"{difference:.1e}")
