"""Attention and transformers: definition = kernel = scalar engine = PyTorch."""

import subprocess
import sys

import numpy as np
import pytest

import tinynet
from tests.functional.test_engines import outcome
from tinynet import Tensor, capture, data, datasets, nn, optim, textbook
from tinynet import functional as F

rng = np.random.default_rng(0)

SHAPES = [(2, 3, 5, 5, 4), (1, 2, 70, 70, 8), (2, 1, 130, 130, 16), (1, 1, 3, 9, 4), (1, 1, 9, 3, 4), (1, 1, 1, 1, 2)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_equals_the_equation(shape, mask, causal):
    batch, heads, queries, keys, d = shape
    q, k, v = (rng.normal(size=(batch, heads, n, d)) for n in (queries, keys, keys))
    added = {None: 0.0, "bool": np.where(rng.random((queries, keys)) < 0.7, 0.0, -np.inf),
             "float": rng.normal(size=(batch, 1, queries, keys))}[mask]
    given = None if mask is None else added == 0 if mask == "bool" else added
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(d) + added
    if causal:
        scores = np.where(np.tril(np.ones((queries, keys), bool)), scores, -np.inf)
    e = np.exp(scores - np.where(np.isinf(m := scores.max(-1, keepdims=True)), 0, m))
    total = e.sum(-1, keepdims=True)
    expected = e / np.where(total == 0, 1, total) @ v  # a query that may see nothing gets 0
    results = []
    for switch in (None, textbook):
        leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
        if switch is textbook:
            with textbook():
                y = F.scaled_dot_product_attention(*leaves, given, is_causal=causal)
        else:
            y = F.scaled_dot_product_attention(*leaves, given, is_causal=causal)
        (y * y + y).sum().backward()
        np.testing.assert_allclose(y.data, expected, rtol=1e-9, atol=1e-11)
        results.append([x.grad for x in leaves])
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)


def test_empty_batches_and_leading_axes():
    empty = tinynet.zeros(0, 2, 5, 4)
    assert F.scaled_dot_product_attention(empty, empty, empty).shape == (0, 2, 5, 4)
    q, k, v = (tinynet.randn(3, 7, 4) for _ in range(3))
    y = F.scaled_dot_product_attention(q, k, v)
    for i in range(3):
        np.testing.assert_allclose(y[i].numpy(), F.scaled_dot_product_attention(q[i], k[i], v[i]).numpy(), rtol=1e-5,
                                   atol=1e-6)


MODELS = {
    "attention": (lambda: nn.MultiheadAttention(6, 2, batch_first=True),
                  lambda m, x: m(x, x, x, need_weights=False)[0]),
    "attention, causal": (lambda: nn.MultiheadAttention(6, 2, bias=False),
                          lambda m, x: m(x, x, x, need_weights=False, is_causal=True)[0]),
    "attention with weights": (lambda: nn.MultiheadAttention(6, 3, batch_first=True), lambda m, x: m(x, x, x)[0]),
    "attention across": (lambda: nn.MultiheadAttention(6, 2, batch_first=True),
                         lambda m, x: m(x[:, :2], x, x, need_weights=False)[0]),
    "padding": (lambda: nn.MultiheadAttention(6, 2, batch_first=True),
                lambda m, x: m(x, x, x, np.array([[False, True, False, False]] * 2), need_weights=False)[0]),
    "post-norm": (lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, batch_first=True), lambda m, x: m(x)),
    "pre-norm": (lambda: nn.TransformerEncoderLayer(6, 2, 8, 0.0, "gelu", batch_first=True, norm_first=True),
                 lambda m, x: m(x, is_causal=True)),
    "positions": (lambda: nn.Sequential(nn.PositionalEncoding(6), nn.Linear(6, 2)), lambda m, x: m(x)),
}


class Wrapped(nn.Module):
    def __init__(self, inner, call):
        self.inner, self.call = inner, call

    def forward(self, x):
        return self.call(self.inner, x)


@pytest.mark.parametrize("name", MODELS)
def test_engines_agree(name):
    make, call = MODELS[name]
    tinynet.manual_seed(1)
    model = Wrapped(make(), call).double()
    x = rng.normal(size=(2, 4, 6))
    kernel = outcome(model, x, None, "tensor")
    with textbook():
        definition = outcome(model, x, None, "tensor")
    scalar = outcome(model.to("scalar"), x, None, "scalar")
    for other in (definition, scalar):
        for ours, theirs in zip(kernel, other):
            np.testing.assert_allclose(theirs, ours, rtol=1e-10, atol=1e-12)


def test_gpt_on_both_engines_and_in_text():
    tinynet.manual_seed(0)
    model = nn.GPT(vocab=5, layers=2, heads=2, width=4, context=6).double()
    tokens, target = rng.integers(0, 5, (2, 4)), rng.integers(0, 5, 8)

    def loss(y):
        return F.cross_entropy(y.reshape(-1, 5), target)

    kernel = outcome(model, tokens, loss, "tensor")
    text = model.generate([1, 2], 4, temperature=0)
    scalar = outcome(model.to("scalar"), tokens, loss, "scalar")
    for ours, theirs in zip(kernel[:3], scalar[:3]):
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, atol=1e-12)
    assert np.array_equal(model.generate([1, 2], 4, temperature=0), text)


def test_tokens_may_be_one_hot_values_so_that_a_program_takes_any():
    tinynet.manual_seed(0)
    model = nn.GPT(vocab=5, layers=1, heads=2, width=4, context=3).to("scalar")
    onehot = F.as_values(np.eye(5)[[[0, 0, 0]]], "token")  # the graph is made for one text, and run for others
    program = tinynet.compile(model(onehot), inputs=onehot, parameters=model.parameters())
    tokens = rng.integers(0, 5, (6, 3))
    logits = program(np.eye(5)[tokens].reshape(6, -1))
    np.testing.assert_allclose(logits[:, 0], np.vectorize(float)(model(tokens)), rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="for a table of 4 entries on the scalar engine, got"):
        model(onehot[:, :, :4])
    with pytest.raises(ValueError, match=r"got \(5, 4\) of tensors"):
        model.to("tensor")(onehot)


def test_cached_generation_gives_the_same_text():
    tinynet.manual_seed(0)
    model = nn.GPT(vocab=11, layers=2, heads=2, width=8, context=12)
    for p in model.parameters():
        p.data *= 5  # so that the likeliest token depends on the text
    for settings in ({"temperature": 0}, {"temperature": 0.8, "top_k": 4, "seed": 3}, {"seed": 1}):
        for prompt in ([3], [[1, 2, 3], [4, 5, 6]]):
            cached = model.generate(prompt, 16, **settings)  # outgrows the context
            assert np.array_equal(cached, model.generate(prompt, 16, cached=False, **settings))
            assert np.shape(cached)[-1] == np.shape(prompt)[-1] + 16
    assert len(set(model.generate([3], 30, seed=0))) > 3


def test_scalars_generate_what_tensors_generate():
    tinynet.manual_seed(0)
    model = nn.GPT(vocab=5, layers=1, heads=2, width=4, context=4).double()
    for p in model.parameters():
        p.data *= 5
    settings = [{"temperature": 0}, {"temperature": 0.7, "seed": 2}, {"temperature": 2.0, "top_k": 3, "seed": 5}]
    texts = [model.generate([2], 5, **setting) for setting in settings]  # the fifth outgrows the context
    model.to("scalar")
    for setting, text in zip(settings, texts):
        assert np.array_equal(model.generate([2], 5, **setting), text)
        assert np.array_equal(model.generate([2], 5, cached=False, **setting), text)


def test_temperature_and_top_k_choose_as_their_equations_say():
    logits = np.log([[0.1, 0.2, 0.3, 0.4]])

    def vjp(temperature, top_k, n=20000):
        stream = np.random.default_rng(0)
        drawn = nn.transformer.choose_token(np.repeat(logits, n, 0), temperature, top_k, stream)
        return np.bincount(drawn.reshape(-1), minlength=4) / n

    np.testing.assert_allclose(vjp(1.0, None), [0.1, 0.2, 0.3, 0.4], atol=0.015)
    np.testing.assert_allclose(vjp(0.5, None), np.array([1, 4, 9, 16]) / 30, atol=0.015)  # p² over their sum
    np.testing.assert_allclose(vjp(1.0, 2), [0, 0, 3 / 7, 4 / 7], atol=0.015)
    assert vjp(0, None)[3] == vjp(1.0, 1)[3] == 1


@pytest.mark.parametrize("switch", [None, textbook])
def test_dropout_leaves_out_weights(switch):
    """With the identity as values the output is the weights themselves: each is 0, or what it was over 1 - p."""
    tinynet.manual_seed(0)
    n, p = 40, 0.25
    q, k = tinynet.randn(3, 2, n, 8), tinynet.randn(3, 2, n, 8)
    v = tinynet.tensor(np.broadcast_to(np.eye(n, dtype=np.float32), (3, 2, n, n)))
    weights = F.scaled_dot_product_attention(q, k, v).numpy()
    with (switch or tinynet.no_grad)():
        kept = F.scaled_dot_product_attention(q, k, v, dropout_p=p).numpy()
    np.testing.assert_allclose(kept[kept != 0], weights[kept != 0] / (1 - p), rtol=1e-5)
    assert abs((kept == 0).mean() - p) < 0.02
    layer = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x = tinynet.randn(2, 5, 8)
    out = lambda: layer(x, x, x, need_weights=False)[0].detach().numpy()
    assert not np.array_equal(out(), out())
    layer.eval()
    assert np.array_equal(out(), out())


def test_one_token_and_an_empty_batch_pass_through_a_gpt():
    model = nn.GPT(vocab=5, layers=1, heads=2, width=4, context=3)
    tokens = np.array([[1, 2, 3]])
    np.testing.assert_allclose(model(tokens[:, :1]).data, model(tokens).data[:, :1], rtol=1e-5, atol=1e-6)
    y = model(np.zeros((0, 3), int))
    assert y.shape == (0, 3, 5)
    y.sum().backward()
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def torch_pair(ours, theirs):
    """The weights of ours in theirs."""
    torch = pytest.importorskip("torch")
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_encoder_layers_equal_pytorch(norm_first, batch_first):
    torch = pytest.importorskip("torch")
    settings = {"dropout": 0.0, "activation": "gelu", "batch_first": batch_first, "norm_first": norm_first}
    ours, theirs = torch_pair(nn.TransformerEncoderLayer(8, 2, 16, **settings),
                              torch.nn.TransformerEncoderLayer(8, 2, 16, **settings))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = rng.normal(size=(5, 5, 8)).astype(np.float32)
    hidden = np.triu(np.ones((5, 5), bool), 1)
    a, b = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a, hidden), theirs(b, torch.tensor(hidden))
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-4, atol=2e-6)
    (y * y).sum().backward()
    (z * z).sum().backward()
    np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-3, atol=2e-5)
    for (name, p), t in zip(ours.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("mask, causal", [(None, False), (None, True), ("bool", False), ("float", False)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 5, 4), (1, 2, 77, 77, 20), (1, 1, 1, 1, 2), (2, 1, 3, 131, 16)])
def test_attention_equals_pytorch(shape, mask, causal):
    torch = pytest.importorskip("torch")
    batch, heads, queries, keys, d = shape
    arrays = [rng.normal(size=(batch, heads, n, d)) for n in (queries, keys, keys)]
    seen = rng.random((queries, keys)) < 0.7
    seen[:, 0] = True
    given = {None: None, "bool": seen, "float": rng.normal(size=(queries, keys))}[mask]
    g = rng.normal(size=(batch, heads, queries, d))
    ours, theirs = [Tensor(x, requires_grad=True) for x in arrays], [torch.tensor(x).requires_grad_() for x in arrays]
    y = F.scaled_dot_product_attention(*ours, given, is_causal=causal)
    z = torch.nn.functional.scaled_dot_product_attention(
        *theirs, None if given is None else torch.tensor(given), is_causal=causal)
    y.backward(Tensor(g))
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-9, atol=1e-11)
    for a, b in zip(ours, theirs):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-8, atol=1e-10)


def trajectories(ours, theirs, batches, loss_of_ours, loss_of_theirs, steps=20):
    """The losses of both over a training with Adam, from the same weights; the gradients of the first step, too."""
    import torch

    mine, other = optim.Adam(ours.parameters(), lr=0.01), torch.optim.Adam(theirs.parameters(), lr=0.01)
    losses = []
    for n in range(steps):
        batch = batches[n % len(batches)]
        a, b = loss_of_ours(*batch), loss_of_theirs(*map(torch.tensor, batch))
        mine.zero_grad()
        other.zero_grad()
        a.backward()
        b.backward()
        if n == 0:
            for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
                np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-7, atol=1e-12, err_msg=name)
        mine.step()
        other.step()
        losses.append((a.item(), b.item()))
    return np.array(losses).T


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layers_train_as_pytorch_does(norm_first):
    torch = pytest.importorskip("torch")
    tinynet.manual_seed(0)
    settings = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": norm_first}
    ours, theirs = torch_pair(nn.TransformerEncoderLayer(8, 2, 16, **settings).double(),
                              torch.nn.TransformerEncoderLayer(8, 2, 16, **settings).double())
    batches = [(rng.normal(size=(3, 7, 8)), rng.normal(size=(3, 7, 8))) for _ in range(2)]
    mine, other = trajectories(ours, theirs, batches, lambda x, y: F.mse_loss(ours(Tensor(x)), Tensor(y)),
                               lambda x, y: torch.nn.functional.mse_loss(theirs(x), y))
    np.testing.assert_allclose(mine, other, rtol=1e-8)
    assert mine[-1] < mine[0]


def test_a_gpt_trains_as_the_same_in_pytorch_does():
    torch = pytest.importorskip("torch")
    vocab, layers, heads, width, context = 11, 2, 4, 16, 9

    class GPT(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = torch.nn.Embedding(vocab, width), torch.nn.Embedding(context, width)
            self.blocks = torch.nn.ModuleList([torch.nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(layers)])
            self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, vocab)

        def forward(self, tokens):
            x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
            hidden = torch.nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=x.dtype)
            for block in self.blocks:
                x = block(x, src_mask=hidden, is_causal=True)
            return self.head(self.norm(x))

    tinynet.manual_seed(0)
    ours, theirs = torch_pair(nn.GPT(vocab, layers, heads, width, context).double(), GPT().double())
    text = rng.integers(0, vocab, (5, context + 1))
    batches = [(text[:, :-1], text[:, 1:]), (text[:3, :4], text[:3, 1:5])]  # the second one shorter
    mine, other = trajectories(
        ours, theirs, batches, lambda x, y: F.cross_entropy(ours(x).reshape(-1, vocab), y.reshape(-1)),
        lambda x, y: torch.nn.functional.cross_entropy(theirs(x).reshape(-1, vocab), y.reshape(-1)))
    np.testing.assert_allclose(mine, other, rtol=1e-8)
    assert mine[-2] < 0.8 * mine[0]


def test_attention_weights_and_padding_equal_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = torch_pair(nn.MultiheadAttention(8, 2), torch.nn.MultiheadAttention(8, 2))
    x = rng.normal(size=(5, 3, 8)).astype(np.float32)
    padding = np.array([[False] * 5, [False, False, True, True, True], [False, True, False, True, False]])
    for average in (True, False):
        y, w = ours(x, x, x, padding, average_attn_weights=average)
        t = torch.tensor(x)
        z, u = theirs(t, t, t, torch.tensor(padding), average_attn_weights=average)
        np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(w.data, u.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_gpt_trains_the_same_captured():
    def train(captured):
        tinynet.manual_seed(0)
        model = nn.GPT(7, 2, 2, 8, 6, dropout=0.1)
        optimizer = optim.AdamW(model.parameters(), lr=0.01)

        def step(x, y):
            loss = F.cross_entropy(model(x).reshape(-1, 7), y.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = capture(step) if captured else step
        return [run(Tensor(np.arange(12).reshape(2, 6) * (i + 1) % 7), Tensor(np.arange(12).reshape(2, 6) % 7)).item()
                for i in range(20)]

    eager = train(False)
    assert eager == train(True) and eager[-1] < eager[0]


LONG = """
import resource
import sys
import numpy as np
import tinynet
from tinynet import nn, optim

peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
tinynet.manual_seed(0)
layer = nn.MultiheadAttention(8, 1, batch_first=True)
optimizer = optim.Adam(layer.parameters(), lr=0.01)

@tinynet.capture
def step(x):
    loss = ((layer(x, x, x, need_weights=False, is_causal=True)[0] - x) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

step(tinynet.randn(4, 512, 8))  # compiles
before, x = peak(), tinynet.randn(1, 8192, 8)
losses = [step(x).item() for _ in range(3)]
assert np.isfinite(losses).all() and losses[-1] < losses[0], losses
print(peak() - before)
"""


def test_long_sequences_hold_no_score_matrix():
    """Measured from outside, in a process of its own: what a kernel asks for is no business of Python's."""
    pytest.importorskip("resource")
    run = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 8192 * 8192 * 4 / 8


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: nn.MultiheadAttention(5, 2), ValueError, "expected embed_dim 5 to be divisible by num_heads 2"),
    (lambda: nn.MultiheadAttention(4, 2)(*[tinynet.zeros(3, 1, 5)] * 3), ValueError,
     r"MultiheadAttention\(4, heads=2\): input has 5 features"),
    (lambda: F.scaled_dot_product_attention(tinynet.zeros(2, 3), tinynet.zeros(2, 4), tinynet.zeros(2, 3)), ValueError,
     r"expected query \(…, queries, d\)"),
    (lambda: nn.GPT(5, 1, 1, 4, 3)(np.zeros((1, 4), int)), ValueError, "with 1 to 3 tokens, got shape"),
    (lambda: nn.GPT(5, 1, 1, 4, 3)(np.full((1, 2), 5)), IndexError, "index 5 is outside 0 … 4"),
    (lambda: nn.GPT(5, 1, 1, 4, 3)([[0.5]]), TypeError, "expected integers as tokens"),
    (lambda: nn.GPT(5, 1, 1, 4, 3).generate([], 2), TypeError, "integers as tokens"),
    (lambda: nn.TransformerEncoderLayer(4, 2, activation="step"), ValueError, "expected activation to be .relu. or"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()


def test_a_gpt_knows_names_better_than_a_trigram_model():
    """Names that neither has seen. The trigram model is the best there is: the shares of its trigrams, bigrams and
    letters are chosen on the very names that it is judged by."""
    pytest.importorskip("names")
    words = datasets.names()
    order = np.random.default_rng(0).permutation(len(words))
    cut = len(words) // 5
    tokenizer = data.CharTokenizer(["\n", *words])
    unseen, seen = ([tokenizer.encode(words[i]) for i in part] for part in (order[:cut], order[cut:]))
    letters = len(tokenizer)

    def trigrams(texts):
        counts = np.zeros((letters,) * 3)
        for text in texts:
            t = [0, 0, *text, 0]
            np.add.at(counts, (t[:-2], t[1:-1], t[2:]), 1)
        return counts

    counts, wanted = trigrams(seen), trigrams(unseen)
    three, two, one = (c / np.maximum(c.sum(-1, keepdims=True), 1) for c in (counts, counts.sum(0), counts.sum((0, 1))))
    trigram = min(-(wanted * np.log(a * three + b * two + (1 - a - b) * one)).sum() / wanted.sum()
                  for a in np.linspace(0.3, 0.8, 11) for b in np.linspace(0.1, 0.6, 11) if a + b < 0.99)

    tinynet.manual_seed(0)
    context = 1 + max(map(len, words))
    model = nn.GPT(letters, layers=2, heads=4, width=48, context=context)
    steps = 500
    optimizer = optim.AdamW(model.parameters(), lr=0.006, weight_decay=0.1)
    schedule = optim.CosineAnnealingLR(optimizer, steps)
    (x, y), (unseen_x, unseen_y) = (data.next_tokens_of_each(texts, context).tensors for texts in (seen, unseen))

    @capture
    def step(x, y):
        loss = F.cross_entropy(model(x).reshape(-1, letters), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    stream = np.random.default_rng(0)
    for _ in range(steps):
        rows = stream.integers(0, len(x), 64)
        step(x[rows], y[rows])
        schedule.step()
    model.eval()
    gpt = F.cross_entropy(model(unseen_x).reshape(-1, letters), unseen_y.reshape(-1)).item()
    assert gpt < trigram < 2.2
