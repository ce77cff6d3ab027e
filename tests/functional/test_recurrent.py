"""Recurrent layers and the clipping of gradients: definition = kernel = scalar engine = PyTorch."""

import contextlib
import math
import re

import numpy as np
import pytest

import tinynet
from tests.functional.test_engines import outcome
from tinynet import Tensor, Value, capture, nn, optim, textbook
from tinynet import functional as F
from tinynet.kernels.backend.compiled import ChunkedKernel

rng = np.random.default_rng(0)
KINDS = ("RNN", "LSTM", "GRU")


def make(kind, *sizes, **settings):
    tinynet.manual_seed(1)
    return getattr(nn, kind)(*sizes, **settings)


def parts(result):
    """(output, h) or (output, h, c)"""
    output, last = result
    return (output, *last) if isinstance(last, tuple) else (output, last)


# ----------------------------------------------------------------------------------------- kernel = definition = engine

CASES = {
    "plain": ((2, 3), {}, (4, 2, 2)),
    "one step": ((3, 2), {}, (1, 2, 3)),
    "one sample, one number": ((1, 1), {}, (3, 1, 1)),
    "batch first": ((2, 3), {"batch_first": True}, (2, 4, 2)),
    "unbatched": ((2, 3), {"batch_first": True, "num_layers": 2}, (3, 2)),
    "two layers": ((2, 3), {"num_layers": 2, "bias": False}, (3, 2, 2)),
    "both directions": ((2, 2), {"num_layers": 2, "bidirectional": True}, (3, 2, 2)),
    "dropout": ((2, 3), {"num_layers": 2, "dropout": 0.5}, (3, 2, 2)),
}


class Everything(nn.Module):
    """All that a recurrent layer gives, and its gradients for weights that differ from place to place."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        total = 0.0
        for i, part in enumerate(parts(self.layer(x))):
            weights = np.cos(np.arange(math.prod(part.shape)) + i).reshape(part.shape)
            total = total + (part * part * (Tensor(weights) if isinstance(part, Tensor) else weights)).sum()
        return total


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["RNN", "RNN relu", "LSTM", "GRU"])
def test_kernel_equals_definition_equals_scalar_engine(kind, case):
    sizes, settings, shape = CASES[case]
    kind, _, relu = kind.partition(" ")
    model = Everything(make(kind, *sizes, **settings, **({"nonlinearity": relu} if relu else {}))).double()
    x = rng.normal(size=shape)

    def loss(y):
        return y

    kernel = outcome(model, x, loss, "tensor")
    with textbook():
        definition = outcome(model, x, loss, "tensor")
    scalar = outcome(model.to("scalar"), x, loss, "scalar")
    assert np.abs(kernel[2]).sum() > 0
    for other in (definition, scalar):
        for ours, theirs in zip(kernel, other):
            np.testing.assert_allclose(theirs, ours, rtol=1e-12, atol=1e-13)


def cells(kind, x, state, w_ih, w_hh, b_ih, b_hh):
    """All states after each step, as textbooks write them, in NumPy; (steps, arrays of the state, batch, n)."""
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    states, n = [], w_hh.shape[1]
    for t in range(len(x)):
        u, a = x[t] @ w_ih.T + b_ih, state[0] @ w_hh.T + b_hh
        if kind == "RNN":
            state = [np.tanh(u + a)]
        elif kind == "LSTM":
            i, f, g, o = np.split(u + a, 4, axis=1)
            c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
            state = [sigmoid(o) * np.tanh(c), c]
        else:
            r, z = sigmoid(u[:, :n] + a[:, :n]), sigmoid(u[:, n:2 * n] + a[:, n:2 * n])
            state = [(1 - z) * np.tanh(u[:, 2 * n:] + r * a[:, 2 * n:]) + z * state[0]]
        states.append(state)
    return np.array(states)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps, batch, features, n", [(1, 1, 1, 1), (5, 7, 3, 13), (19, 33, 5, 37), (3, 0, 2, 4)])
def test_layers_are_what_textbooks_write(kind, steps, batch, features, n):
    layer = make(kind, features, n).double()
    x, state = rng.normal(size=(steps, batch, features)), rng.normal(size=(1 + (kind == "LSTM"), batch, n))
    first = [Tensor(s[None]) for s in state]
    output, *last = parts(layer(Tensor(x), first if kind == "LSTM" else first[0]))
    expected = cells(kind, x, list(state), *layer.state_dict().values())
    np.testing.assert_allclose(output.data, expected[:, 0], rtol=1e-12, atol=1e-14)
    for i, s in enumerate(last):
        np.testing.assert_allclose(s.data, expected[-1:, i], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_the_samples_of_a_batch(kind, threads, monkeypatch):
    """However the samples are shared out, also where a thread gets none, the kernel gives what the definition gives."""
    monkeypatch.setattr(ChunkedKernel, "dispatch", lambda kernel, args: (kernel.serial, (*args, 1)) if threads == 1 else
                        (kernel.parallel, (*args, threads)))
    for batch in (2, 25):
        x, results = rng.normal(size=(6, batch, 3)), []
        for dtype, switch in ((np.float32, contextlib.nullcontext), (np.float64, textbook)):
            layer, leaf = make(kind, 3, 37).to(dtype), Tensor(x.astype(dtype), requires_grad=True)
            with switch():
                output, *last = parts(layer(leaf))
                ((output * output).sum() + sum(s.sum() for s in last)).backward()
            results.append([output.data, leaf.grad, *[p.grad for p in layer.parameters()]])
        for ours, theirs in zip(*results):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


# ------------------------------------------------------------------------------------------------------------ = PyTorch

def beside_pytorch(kind, *sizes, **settings):
    """A layer, and the same one in PyTorch, in double precision."""
    torch = pytest.importorskip("torch")
    ours, theirs = make(kind, *sizes, **settings).double(), getattr(torch.nn, kind)(*sizes, **settings).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert repr(ours) == repr(theirs) or "nonlinearity" in settings  # which PyTorch does not show
    ours.load_state_dict(theirs.state_dict())
    return torch, ours, theirs


@pytest.mark.parametrize("settings", [{}, {"batch_first": True, "num_layers": 2}, {"bias": False}, {"num_layers": 3},
                                      {"bidirectional": True, "num_layers": 2}, {"nonlinearity": "relu"}], ids=str)
@pytest.mark.parametrize("given", [False, True], ids=["from 0", "from states"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_equal_pytorch(kind, settings, given):
    if "nonlinearity" in settings and kind != "RNN":
        pytest.skip("for RNN alone")
    torch, ours, theirs = beside_pytorch(kind, 5, 7, **settings)
    arrays = [rng.normal(size=(3, 4, 5))]
    if given:
        count, batch = ours.num_layers * (1 + ours.bidirectional), 3 if ours.batch_first else 4
        arrays += [rng.normal(size=(count, batch, 7)) for _ in range(2 if kind == "LSTM" else 1)]
    a, b = [Tensor(x, requires_grad=True) for x in arrays], [torch.tensor(x, requires_grad=True) for x in arrays]
    results = []
    for layer, (x, *state) in ((ours, a), (theirs, b)):
        hx = (tuple(state) if kind == "LSTM" else state[0]) if given else None
        results.append(parts(layer(x, hx)))
        sum((part * part).sum() * (i + 1.0) for i, part in enumerate(results[-1])).backward()
    for y, z in zip(*results):
        np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-12, atol=1e-14)
    for p, q in zip([*a, *ours.parameters()], [*b, *theirs.parameters()]):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_sequence_alone_equals_pytorch(kind):
    torch, ours, theirs = beside_pytorch(kind, 4, 3, num_layers=2, batch_first=True)
    x, state = rng.normal(size=(5, 4)), rng.normal(size=(2, 2, 3))
    hx = tuple(state) if kind == "LSTM" else state[0]
    y = parts(ours(x, hx))
    z = parts(theirs(torch.tensor(x), tuple(map(torch.tensor, state)) if kind == "LSTM" else torch.tensor(hx)))
    for a, b in zip(y, z):
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps_of_training_equal_pytorch(kind):
    torch, ours, theirs = beside_pytorch(kind, 3, 6, num_layers=2, batch_first=True)
    x, target = rng.normal(size=(8, 9, 3)), rng.normal(size=(8, 6))
    losses = []
    for lib, layer, library in ((tinynet, ours, nn), (torch, theirs, torch.nn)):
        optimizer = (optim if lib is tinynet else torch.optim).Adam(layer.parameters(), lr=0.02)
        inputs, targets, trace = lib.tensor(x), lib.tensor(target), []
        for _ in range(20):
            loss = library.MSELoss()(layer(inputs)[0][:, -1], targets)
            optimizer.zero_grad()
            loss.backward()
            trace.append((loss.item(), library.utils.clip_grad_norm_(layer.parameters(), 0.15).item()))
            optimizer.step()
        losses.append(trace)
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    assert losses[0][-1][0] < 0.9 * losses[0][0][0] and max(norm for _, norm in losses[0]) > 0.15


# ---------------------------------------------------------------------------------------------------- capture, the rest

@pytest.mark.parametrize("kind", KINDS)
def test_captured_steps_equal_eager_ones(kind):
    limit = {"RNN": 0.2, "LSTM": 0.06, "GRU": 0.15}[kind]

    def train(captured):
        layer = make(kind, 3, 6, num_layers=2, batch_first=True, dropout=0.2, bidirectional=True)
        head = nn.Linear(12, 2)
        optimizer = optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)

        def step(x, y):
            output, last = layer(x)
            loss = F.cross_entropy(head(output.mean(1)), y)
            optimizer.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(layer.parameters(), limit)
            nn.utils.clip_grad_value_(head.parameters(), 0.02)
            optimizer.step()
            return loss, norm, last[1] if kind == "LSTM" else last

        run, data = capture(step) if captured else step, np.random.default_rng(3)
        return [[x.detach().numpy().copy() for x in run(Tensor(data.normal(size=(4, 5, 3)).astype(np.float32)),
                                                        Tensor(data.integers(0, 2, 4)))] for _ in range(12)]

    eager, replayed = train(False), train(True)
    assert all(np.array_equal(a, b) for x, y in zip(eager, replayed) for a, b in zip(x, y))
    assert max(norm for _, norm, _ in eager) > limit > min(norm for _, norm, _ in eager) > 0


def test_a_layer_tells_its_shapes_is_saved_and_drawn(tmp_path):
    model = make("LSTM", 3, 4, num_layers=2, batch_first=True)
    assert re.search(r"LSTM +\(2, 5, 4\) +304\n", str(tinynet.summary(model, (2, 5, 3))))
    np.savez(tmp_path / "weights.npz", **model.state_dict())
    other = nn.LSTM(3, 4, num_layers=2, batch_first=True)
    other.load_state_dict(dict(np.load(tmp_path / "weights.npz")))
    x = tinynet.randn(2, 5, 3)
    assert np.array_equal(model(x)[0].data, other(x)[0].data)
    model.to("scalar")
    assert model.weight_hh_l1[15, 3].label == "weight_hh_l1[15,3]"
    assert "LSTM" in tinynet.draw(model(np.ones((1, 2, 3)))[0][0, 1, 0], depth=1).source


def test_empty_batches():
    for kind in KINDS:
        layer = make(kind, 3, 4)
        output, *last = parts(layer(tinynet.zeros(5, 0, 3)))
        assert output.shape == (5, 0, 4) and all(s.shape == (1, 0, 4) for s in last)
        output.sum().backward()
        assert all((p.grad == 0).all() for p in layer.parameters())


def test_dropout_between_layers_alone():
    layer = make("RNN", 2, 50, num_layers=2, dropout=0.9)
    x = tinynet.ones(1, 1, 2)
    assert (layer(x)[0].data != 0).all() and not np.array_equal(layer(x)[0].data, layer(x)[0].data)
    layer.eval()
    assert np.array_equal(layer(x)[0].data, layer(x)[0].data)
    with pytest.warns(UserWarning, match="GRU: dropout acts between layers, and there is only one"):
        nn.GRU(2, 3, dropout=0.5)


# ------------------------------------------------------------------------------------------------ clipping of gradients

SIZES = [(3, 4), (5,), (), (0, 2), (70000,)]


@pytest.mark.parametrize("norm_type", [2.0, 1, math.inf, 3.0])
@pytest.mark.parametrize("max_norm", [0.5, 1e9, 0])
def test_clipping_by_the_norm_equals_pytorch(norm_type, max_norm):
    torch = pytest.importorskip("torch")
    grads = [rng.normal(size=size) for size in SIZES]
    ours = [Tensor(np.zeros(size), requires_grad=True) for size in SIZES]
    theirs = [torch.zeros(size, dtype=torch.float64, requires_grad=True) for size in SIZES if 0 not in size]
    for p, g in zip(ours, grads):
        p.grad = g.copy()
    for q, g in zip(theirs, (g for g in grads if g.size)):
        q.grad = torch.tensor(g)
    norm = nn.utils.clip_grad_norm_([*ours, Tensor(np.zeros(2), requires_grad=True)], max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.shape == () and norm.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip((p for p in ours if p.numel()), theirs):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("norm_type", [2, 1, math.inf])
def test_clipping_on_both_engines(norm_type):
    model, results = nn.MLP(3, [4, 2]).double(), []
    x = rng.normal(size=(5, 3))
    for engine in ("tensor", "scalar"):
        model.to(engine).zero_grad()
        y = model(x)
        (y * y).sum().backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.7, norm_type)
        clipped = np.concatenate([np.ravel(p.grad) for p in model.parameters()])
        assert np.linalg.norm(clipped, norm_type) == pytest.approx(0.7, rel=1e-5) and norm.item() > 0.7
        nn.utils.clip_grad_value_(model.parameters(), 0.05)
        values = np.concatenate([np.ravel(p.grad) for p in model.parameters()])
        assert np.array_equal(values, clipped.clip(-0.05, 0.05)) and np.abs(values).max() == 0.05
        results.append([norm.item(), *clipped])
    np.testing.assert_allclose(*results, rtol=1e-12)


def test_captured_clipping_finds_the_gradients_of_today():
    x, clip = Tensor(np.zeros((2, 2)), requires_grad=True), capture(lambda: nn.utils.clip_grad_norm_([x], 1.0))
    for largest in (3.0, 4.0, 5.0):
        x.grad = (np.eye(2) * largest).T
        assert clip().item() == pytest.approx(largest * 2 ** 0.5)
        np.testing.assert_allclose(x.grad, np.eye(2) / 2 ** 0.5, rtol=1e-5)


def test_gradients_that_are_no_numbers():
    x = Tensor(np.ones(2), requires_grad=True)
    x.grad = [np.inf, 1.0]
    with pytest.raises(ValueError, match="the norm of the gradients is inf"):
        nn.utils.clip_grad_norm_(x, 1.0, error_if_nonfinite=True)
    assert x.grad.tolist() == [np.inf, 1.0]
    v = Value(1.0)
    assert nn.utils.clip_grad_norm_([v], 1.0).item() == 0 and v.grad is None
    v.grad = math.nan
    nn.utils.clip_grad_value_(v, 1.0)
    assert math.isnan(v.grad)


# ------------------------------------------------------------------------------------------------------------ bad input

@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda: nn.RNN(0, 2), ValueError, "RNN: expected input_size to be a positive integer, got 0"),
    (lambda: nn.RNN(2, 2, nonlinearity="gelu"), ValueError,
     "RNN: expected nonlinearity to be 'tanh' or 'relu', got 'gelu'"),
    (lambda: nn.GRU(2, 2, num_layers=2, dropout=1.0), ValueError,
     "GRU: expected dropout to be a probability below 1, got 1.0"),
    (lambda: nn.RNN(2, 3)(tinynet.zeros(5, 1, 4)), ValueError, r"RNN\(2 -> 3\): input has 4 features"),
    (lambda: nn.RNN(2, 3)(tinynet.zeros(5, 1, 2, 2)), ValueError,
     r"RNN\(2 -> 3\): input has shape \(5, 1, 2, 2\), expected \(steps, batch, features\), or"),
    (lambda: nn.RNN(2, 3, batch_first=True)(tinynet.zeros(2)), ValueError, r"expected \(batch, steps, features\)"),
    (lambda: nn.LSTM(2, 3)(tinynet.zeros(0, 1, 2)), ValueError, r"LSTM\(2 -> 3\): the sequence has no steps"),
    (lambda: nn.GRU(2, 3)(tinynet.zeros(5, 4, 2), tinynet.zeros(1, 3, 3)), ValueError,
     r"GRU\(2 -> 3\): the initial state h has shape \(1, 3, 3\), expected \(1, 4, 3\) \(layers, batch, features\)"),
    (lambda: nn.LSTM(2, 3)(tinynet.zeros(5, 4, 2), tinynet.zeros(1, 4, 3)), TypeError,
     r"expected the initial states as a tuple \(h, c\), got Tensor"),
    (lambda: nn.RNN(2, 3).double()(tinynet.zeros(5, 1, 2)), TypeError, r"the input is float32"),
    (lambda: nn.RNN(1, 1)([[Value(1.0)]]), TypeError, 'call model.to\\("scalar"\\)'),
    (lambda: nn.utils.clip_grad_norm_([1.0], 1.0), TypeError, "clip_grad_norm_: expected parameters, got 1.0"),
    (lambda: nn.utils.clip_grad_norm_([], -1.0), ValueError, "expected max_norm to be a non-negative number, got -1.0"),
    (lambda: nn.utils.clip_grad_norm_([], 1.0, 0), ValueError, "expected norm_type to be positive, got 0"),
    (lambda: nn.utils.clip_grad_value_([], math.nan), ValueError,
     "expected clip_value to be a non-negative number, got nan"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong()
