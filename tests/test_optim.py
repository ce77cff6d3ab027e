"""Optimizers: both engines agree, and 100 steps follow PyTorch's trajectory."""

import numpy as np
import pytest

import tinynet
from tinynet import Tensor, Value, nn, optim

SETTINGS = [
    ("SGD", {"lr": 0.05}), ("SGD", {"lr": 0.05, "weight_decay": 0.1}), ("SGD", {"lr": 0.02, "momentum": 0.9}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    ("Adam", {"lr": 0.05}), ("Adam", {"lr": 0.05, "betas": (0.7, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05}), ("AdamW", {"lr": 0.05, "weight_decay": 0.3}),
    ("RMSprop", {"lr": 0.01}), ("RMSprop", {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "centered": True, "momentum": 0.3}),
]
START, TARGET = np.linspace(-1, 1, 6).reshape(2, 3), np.arange(6.0).reshape(2, 3) / 3


def trajectory(name, settings, kind, steps=100):
    """100 steps on Σ (p - target)⁴ + Σ p²."""
    if kind == "scalar":
        p = np.vectorize(Value, otypes=[object])(START)
        leaves = list(p.flat)
    else:
        p = Tensor(START.copy(), requires_grad=True)
        leaves = [p]
    optimizer = getattr(optim, name)(leaves, **settings)
    schedule = optim.StepLR(optimizer, 40, 0.5)
    path = []
    for _ in range(steps):
        d = p - TARGET
        loss = (d * d * d * d).sum() + (p * p).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        path.append([float(v) for v in p.flat] if kind == "scalar" else p.detach().numpy().ravel().tolist())
    return np.array(path)


@pytest.mark.parametrize("name, settings", SETTINGS)
def test_engines_agree_and_follow_pytorch(name, settings):
    ours = trajectory(name, settings, "tensor")
    np.testing.assert_allclose(trajectory(name, settings, "scalar"), ours, rtol=1e-10, atol=1e-12)
    torch = pytest.importorskip("torch")
    p = torch.tensor(START, requires_grad=True)
    optimizer = getattr(torch.optim, name)([p], **settings)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 40, 0.5)
    for expected in ours:
        loss = ((p - torch.tensor(TARGET))**4).sum() + (p * p).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        np.testing.assert_allclose(p.detach().numpy().ravel(), expected, rtol=1e-9, atol=1e-11)


def test_first_step_by_hand():
    x = Value(1.0)
    optimizer = optim.Adam([x], lr=0.1)
    (x * 3).backward()
    optimizer.step()  # m̂ / √v̂ is the sign of the gradient at the first step
    assert x.data == pytest.approx(0.9, abs=1e-8)


def test_schedules():
    optimizer = optim.SGD([Value(1.0)], lr=0.4)
    step = optim.StepLR(optimizer, step_size=2, gamma=0.5)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        step.step()
    assert rates == [0.4, 0.4, 0.2, 0.2, 0.1]
    optimizer = optim.SGD([Value(1.0)], lr=1.0)
    cosine = optim.CosineAnnealingLR(optimizer, T_max=4, eta_min=0.2)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        cosine.step()
    assert rates == pytest.approx([1.0, 0.6 + 0.4 * np.sqrt(0.5), 0.6, 0.6 - 0.4 * np.sqrt(0.5), 0.2])


def test_parameters_without_gradients_keep_their_own_count():
    def run(both_at):
        a, b = Tensor(np.array([1.0]), requires_grad=True), Tensor(np.array([1.0]), requires_grad=True)
        optimizer = optim.Adam([a, b], lr=0.1)
        for t in range(4):
            optimizer.zero_grad()
            (a * 2.0).sum().backward()
            if t in both_at:
                (b * b).sum().backward()
            optimizer.step()
        return a[0].item(), b[0].item(), optimizer.state[b][0].t

    every = run({0, 1, 2, 3})
    some = run({0, 3})
    assert some[0] == every[0] and every[2] == 4 and some[2] == 2
    assert some[1] == run({0, 1})[1]  # b's second step is a second step, whenever it comes


def test_groups_and_state_are_loaded():
    model = nn.MLP(3, [4, 1])
    groups = [{"params": model.layers[0].parameters(), "lr": 0.5}, {"params": model.layers[1].parameters()}]
    optimizer = optim.Adam(groups, lr=0.01)
    x, y = tinynet.randn(8, 3), tinynet.randn(8, 1)

    def step(model, optimizer):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    for _ in range(3):
        step(model, optimizer)
    twin = nn.MLP(3, [4, 1])
    twin.load_state_dict(model.state_dict())
    other = optim.Adam([{"params": layer.parameters()} for layer in twin.layers])
    other.load_state_dict(optimizer.state_dict())
    assert [g["lr"] for g in other.param_groups] == [0.5, 0.01]
    assert [step(model, optimizer) for _ in range(3)] == [step(twin, other) for _ in range(3)]


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda p: optim.SGD(p, learning_rate=0.1), TypeError, "unexpected keyword argument 'learning_rate'"),
    (lambda p: optim.SGD(p, lr=-1), ValueError, "SGD: expected lr to be a non-negative number, got -1"),
    (lambda p: optim.SGD(p, lr="fast"), TypeError, "SGD: expected lr to be a number, got 'fast'"),
    (lambda p: optim.SGD(p, nesterov=True), ValueError, "nesterov needs a momentum"),
    (lambda p: optim.Adam(p, betas=(0.9, 1.0)), ValueError, "expected betas to be two numbers in"),
    (lambda p: optim.Adam([]), ValueError, "Adam: expected parameters, got an empty list"),
    (lambda p: optim.Adam([1.0]), TypeError, "expected parameters .* got 1.0"),
    (lambda p: optim.Adam([p[0] * 2]), TypeError, "got the result of an operation"),
    (lambda p: optim.Adam([{"params": p, "rate": 1}]), TypeError, "unknown setting 'rate'"),
    (lambda p: optim.StepLR(optim.SGD(p), 0), ValueError, "StepLR: expected step_size to be a positive integer, got 0"),
    (lambda p: optim.CosineAnnealingLR(p, 5), TypeError, "expected an optimizer"),
])
def test_wrong_settings_raise(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong([Value(1.0)])
