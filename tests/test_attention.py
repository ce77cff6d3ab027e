"""Attention and transformers: definition = kernel = scalar engine = PyTorch."""

import numpy as np
import pytest

import tinynet
from tests.test_engines import outcome
from tinynet import Tensor, capture, nn, optim, textbook
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


def test_long_sequences_hold_no_score_matrix():
    import tracemalloc
    tinynet.manual_seed(0)
    for tokens in (64, 8192):  # the short one compiles
        q = tinynet.randn(1, 1, tokens, 8, requires_grad=True)
        tracemalloc.start()
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8192 * 8192 * 4 / 10 and np.isfinite(q.grad).all()


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: nn.MultiheadAttention(5, 2), ValueError, "embed_dim 5 is no multiple of num_heads 2"),
    (lambda: nn.MultiheadAttention(4, 2)(*[tinynet.zeros(3, 1, 5)] * 3), ValueError,
     r"MultiheadAttention\(4, heads=2\): input has 5 features"),
    (lambda: F.scaled_dot_product_attention(tinynet.zeros(2, 3), tinynet.zeros(2, 4), tinynet.zeros(2, 3)), ValueError,
     r"expected query \(…, queries, d\)"),
    (lambda: nn.GPT(5, 1, 1, 4, 3)(np.zeros((1, 4), int)), ValueError, "with 1 to 3 tokens, got shape"),
    (lambda: nn.GPT(5, 1, 1, 4, 3)(np.full((1, 2), 5)), IndexError, "index 5 is outside 0 … 4"),
    (lambda: nn.GPT(5, 1, 1, 4, 3)([[0.5]]), TypeError, "expected whole numbers as tokens"),
    (lambda: nn.GPT(5, 1, 1, 4, 3).generate([], 2), TypeError, "whole numbers"),
    (lambda: nn.TransformerEncoderLayer(4, 2, activation="step"), ValueError, "activation is one of"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()
