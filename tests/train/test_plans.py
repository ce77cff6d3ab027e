"""Capture: eager and replayed steps give identical numbers, and what a replay could not repeat raises."""

import contextlib
import threading

import numpy as np
import pytest

import tinynet
from tinynet import Tensor, capture, nn, optim, randint, randn, textbook


class Net(nn.Module):
    def __init__(self):
        self.embed, self.norm = nn.Embedding(5, 6), nn.LayerNorm(6)
        self.fc, self.drop, self.out = nn.Perceptron(6, 8, "gelu"), nn.Dropout(0.3), nn.Linear(8, 3)

    def forward(self, i):
        x = self.embed(i)
        h = self.drop(self.fc(self.norm(x.mean(1) + x[:, 0] * 0.5)))
        return self.out(h.tanh() + h.clip(-0.5, 0.5))


def training(captured, optimizer="Adam", clear=True, steps=12):
    """All losses of a training, and the weights at its end."""
    tinynet.manual_seed(0)
    model = Net()
    opt = getattr(optim, optimizer)(model.parameters(), lr=0.01)
    schedule = optim.CosineAnnealingLR(opt, 10)

    def step(i, y):
        loss = nn.functional.cross_entropy(model(i), y)
        if clear:
            opt.zero_grad()
        loss.backward()
        opt.step()
        return loss

    run = capture(step) if captured else step
    batches = [(randint(0, 5, (4, 3)), randint(0, 3, (4,))) for _ in range(steps)]
    batches[5] = randint(0, 5, (2, 3)), randint(0, 3, (2,))  # the smaller batch at the end of an epoch
    losses = []
    for n, batch in enumerate(batches):
        losses.append(run(*batch))
        if n % 3 == 2:
            schedule.step()
    return [loss.item() for loss in losses], model.state_dict(), run


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.parametrize("clear", [True, False])
def test_replayed_steps_equal_eager_steps(optimizer, clear):
    eager, weights, _ = training(False, optimizer, clear)
    replayed, others, run = training(True, optimizer, clear)
    assert eager == replayed and len(set(eager)) > 6
    assert all(np.array_equal(weights[k], others[k]) for k in weights)
    plans = [plan for same in run.plans.values() for plan in same]
    assert len(run.plans) == 2 and len(plans) <= 4  # one for each shape (two where gradients were not there at first)


def test_results_are_the_callers_to_keep():
    double = capture(lambda x: (x * 2, x.sum()))
    a, b = double(tinynet.ones(3)), double(tinynet.zeros(3))
    assert a[0].tolist() == [2, 2, 2] and a[1].item() == 3 and b[0].tolist() == [0, 0, 0]


def test_dropout_stays_random_and_modes_are_noticed():
    drop = nn.Dropout(0.5)
    run = capture(lambda x: drop(x))
    x = tinynet.ones(200)
    first, second = run(x).numpy(), run(x).numpy()
    assert not np.array_equal(first, second) and set(np.unique(second)) == {0.0, 2.0}
    drop.eval()
    assert np.array_equal(run(x).numpy(), x.numpy())
    drop.train()
    assert not np.array_equal(run(x).numpy(), x.numpy())


def test_gradients_are_there_after_a_replay():
    w = Tensor(np.ones(3, np.float32), requires_grad=True)

    @capture
    def step(x):
        w.zero_grad()
        loss = (w * x).sum()
        loss.backward()
        return loss

    for k in range(4):
        step(tinynet.full((3,), float(k)))
        assert w.grad.tolist() == [k, k, k]
        w.grad = None
    outside = capture(lambda x: (w * x).sum().backward())
    outside(tinynet.ones(3))
    outside(tinynet.ones(3))
    outside(tinynet.ones(3))
    assert w.grad.tolist() == [3, 3, 3]  # without zero_grad they add up
    w.zero_grad()
    outside(tinynet.ones(3))
    assert w.grad.tolist() == [1, 1, 1]


def test_assigned_and_loaded_weights_are_seen():
    model = nn.Linear(2, 1, bias=False)
    run = capture(lambda x: model(x))
    x = tinynet.ones(1, 2)
    run(x)
    model.load_state_dict({"weight": np.array([[1.0, 2.0]])})
    assert run(x).item() == 3.0
    model.weight.data = np.array([[3.0, 4.0]], np.float32)
    assert run(x).item() == 7.0
    model.weight.data *= 2
    assert run(x).item() == 14.0


@pytest.mark.parametrize("peek", [
    lambda x: x.sum().item(), lambda x: float(x.sum()), lambda x: bool(x.sum() > 0), lambda x: x.numpy(),
    lambda x: x.data, lambda x: np.asarray(x), lambda x: x.tolist(), lambda x: repr(x),
    lambda x: x[x > 0], lambda x: x.grad,
])
def test_reading_numbers_inside_a_step_raises(peek):
    run = capture(lambda x: peek(x))
    with pytest.raises(ValueError, match="capture: .* inside a captured step would be read once"):
        run(tinynet.ones(2))
    assert tinynet.ones(2).sum().item() == 2  # allowed outside, afterwards


def test_wrong_uses_say_so():
    with pytest.raises(TypeError, match="capture: expected a function, got int"):
        capture(3)
    with pytest.raises(TypeError, match="takes its inputs by position"):
        capture(lambda x: x)(x=tinynet.ones(1))
    with pytest.raises(TypeError, match="to return tensors"):
        capture(lambda x: {"y": x})(tinynet.ones(1))
    with pytest.raises(ValueError, match=r"do not broadcast"):
        capture(lambda x: x + tinynet.ones(3))(tinynet.ones(2))


def test_wrong_labels_are_found_in_replays_too():
    run = capture(lambda x, y: nn.functional.cross_entropy(x, y))
    run(randn(3, 4), Tensor(np.array([0, 1, 2])))
    with pytest.raises(IndexError, match="target 4 is outside 0 … 3"):
        run(randn(3, 4), Tensor(np.array([0, 4, 2])))


@pytest.mark.parametrize("switch", [contextlib.nullcontext, textbook])
def test_replays_count_anew_what_is_ignored(switch):
    run = capture(lambda x, y: nn.functional.cross_entropy(x, y))
    x = randn(3, 4)
    with switch():
        for targets in ([0, -100, 2], [0, 1, 2], [-100, 3, -100]):
            kept = [i for i, t in enumerate(targets) if t >= 0]
            wanted = nn.functional.cross_entropy(x[kept], [targets[i] for i in kept])
            assert run(x, Tensor(np.array(targets))).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_threads_have_plans_of_their_own():
    def train(seed, results):
        rng = np.random.default_rng(seed)
        w = Tensor(rng.normal(size=(4, 4)), requires_grad=True)
        optimizer = optim.SGD([w], lr=0.1)

        def step(x):
            loss = ((w @ x).tanh() ** 2.0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = capture(step)
        results[seed] = [run(Tensor(rng.normal(size=(4, 4)))).item() for _ in range(30)]

    alone, together = {}, {}
    for seed in (1, 2):
        train(seed, alone)
    threads = [threading.Thread(target=train, args=(seed, together)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert alone == together


def test_changes_in_place_are_replayed():
    def run(captured):
        w, average = tinynet.tensor([1.0, 2.0], requires_grad=True), tinynet.zeros(2)

        def step(x):
            nonlocal average
            y = w * x
            y.sum().backward()
            average *= 0.5
            average += x
            average.clamp_(max=6.0)
            with tinynet.no_grad():
                for p in [w]:
                    p -= tinynet.tensor([0.1, 0.1]) * x
            w.zero_grad()
            return average.max(dim=0).values + w.sum().detach(), x.topk(1).indices

        step = capture(step) if captured else step
        return [[part.tolist() for part in step(tinynet.tensor([i, -i + 1.0]))] for i in range(5)]

    assert run(True) == run(False)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("settings", [{}, {"need_weights": False}, {"need_weights": False, "is_causal": True}])
def test_a_replay_reads_its_masks_and_indices_anew(settings, fused):
    attention, q, table = nn.MultiheadAttention(4, 2), randn(3, 2, 4), randn(5, 3)

    def step(padding, scores, indices, many):
        y, weights = attention(q, q, q, padding, attn_mask=scores, **settings)
        z = nn.functional.scaled_dot_product_attention(many, many, many, scores == 0.0)
        return y, weights, nn.functional.embedding(indices, table), z

    replayed = capture(step)
    with contextlib.nullcontext() if fused else textbook():
        for i, padding in enumerate(([[False] * 3, [False, False, True]], [[True, False, False], [False] * 3],
                                     [[False, True, True], [True] * 3])):
            inputs = [np.array(padding), np.eye(3, dtype=np.float32) * i, np.array([i, 4 - i], np.int32),
                      randn(1, 2, 2, 3, 4)]
            for ours, expected in zip(replayed(*inputs), step(*map(tinynet.tensor, inputs))):
                if expected is not None:
                    assert np.allclose(ours.numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
