"""What can go wrong around the mathematics: overflow, threads, forks, memory."""

import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tinynet
from tinynet import Value, detect_anomaly, graph, nn, no_grad, optim, tensor
from tinynet import functional as F
from tinynet.kernels.backend import compiled

ROOT = Path(__file__).parents[1]


# ------------------------------------------------------------------------------------------- the first nan or infinity

class Net(nn.Module):
    """Two linear layers with a function between them."""

    def __init__(self, between):
        self.layers, self.between = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), between

    def forward(self, x):
        return self.layers[2](self.between(self.layers[:2](x)))


def watched(function, *args):
    """What detect_anomaly says about function(*args)."""
    with detect_anomaly(), pytest.raises(ValueError) as caught:
        function(*args)
    return str(caught.value)


FORMS = {"kernel": contextlib.nullcontext, "reference": graph.textbook}


@pytest.mark.parametrize("make, sentence", [
    (lambda: Value(1e200) * Value(1e200), r"\* gives inf from finite numbers"),
    (lambda: Value(float("inf")) - float("inf"), "- gives nan from inputs that hold inf"),
    (lambda: Value(float("nan")) + 1.0, r"\+ gives nan from inputs that hold nan"),
    (lambda: tensor([1.0, 0.0]).log(), r"log gives inf at \[1\] from finite numbers"),
    (lambda: tensor([[1.0, 2.0], [0.0, 1.0]]) / 0.0, r"/ gives nan at \[1, 0\] from finite numbers"),
    (lambda: tensor([1e30]) ** 2, r"\*\* gives inf at \[0\] from finite numbers"),
    (lambda: tensor([float("nan")]) @ tensor([1.0]), "@ gives nan from inputs that hold nan"),
])
def test_the_operation_is_named(make, sentence):
    assert pytest.raises(ValueError, detect_anomaly()(make)).match(f"^detect_anomaly: {sentence}$")


def test_a_backward_pass_is_checked():
    x = tensor([4.0, 0.0], requires_grad=True)
    assert watched(x.sqrt().sum().backward) == (
        "detect_anomaly: backward of sqrt gives inf at [1] from finite numbers")
    x = Value(1e-200)
    y = x ** 0.5 * 1e-100 / Value(1e-300)
    assert watched((y * 1e250 * 1e250 ** 0.5).backward).startswith("detect_anomaly: backward of ")


@pytest.mark.parametrize("engine", ["tensor", "scalar"])
def test_the_layer_is_named(engine):
    model = Net(lambda h: h * 1e200 * 1e200).to("tensor").double().to(engine)
    x = np.ones((1, 2))
    for p in model.parameters():
        p.data = p.data * 0.0 + 1.0
    assert "* in Net gives inf" in watched(model, x)
    model.between = lambda h: h
    for p in model.layers[0].parameters():
        p.data = p.data * 0.0 + 1e200
    for p in model.layers[2].parameters():
        p.data = p.data * 0.0 + 1e200
    name = {"tensor": "linear", "scalar": r"*"}[engine]
    assert watched(model, x).startswith(f"detect_anomaly: {name} in layers.2 (Linear(3 -> 1)) gives inf")
    assert watched(model, x * np.nan).startswith(f"detect_anomaly: {name} in layers.0 (Linear(2 -> 3)) gives nan")


def test_a_value_that_cannot_be_computed_names_its_layer_too():
    model = Net(lambda h: np.log(h - h)).to("scalar")
    with pytest.raises(ValueError, match="^log is not defined at 0") as caught:
        model(np.ones((1, 2)))
    assert caught.value.__notes__ == ["in Net"]


@pytest.mark.parametrize("form", FORMS)
def test_an_infinite_mask_is_no_anomaly(form):
    mask = np.array([[0.0, -np.inf], [0.0, 0.0]], np.float32)
    x = tinynet.randn(2, 4, requires_grad=True)
    with detect_anomaly(), FORMS[form]():
        F.scaled_dot_product_attention(x, x, x, attn_mask=mask).sum().backward()
        assert (tensor([float("inf")]) + 1.0).item() == np.inf


def test_captured_steps_check_every_replay():
    model = nn.Linear(2, 1)
    model.weight.data = [[1.0, 1.0]]
    optimizer = optim.SGD(model.parameters(), lr=0.001)

    @tinynet.capture
    def step(x):
        loss = model(x).exp().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    x = tinynet.ones(4, 2)
    with detect_anomaly():
        step(x)
        step(x)
        assert watched(step, x * 1e30) == "detect_anomaly: exp gives inf at [0, 0] from finite numbers"
    assert np.isinf(step(x * 1e30).item())  # another plan, without checks


def test_anomaly_mode_ends_with_its_block_and_leaves_no_grad_alone():
    with detect_anomaly():
        with no_grad():
            assert np.isinf(tensor([0.0]).log().item()) and not (Value(2.0) * 3.0).inputs
        assert (Value(2.0) * 3.0).inputs
    with no_grad(), detect_anomaly():
        assert not (Value(2.0) * 3.0).inputs
    assert np.isinf(tensor([0.0]).log().item())


# ------------------------------------------------------------------------------------------- stable by construction

LOGITS = np.array([[1e4, -1e4, 0.0, 9999.0], [-1e4, -1e4, -1e4, -1e4], [1e4, 1e4, 9998.5, 1e4],
                   [0.5, -0.25, 2.0, 1.0]])
CLASSES = np.array([1, 0, 2, 3])
SHARES = np.array([[0.0, 1.0, 0.5, 1.0], [1.0, 0.0, 0.25, 0.5], [0.0, 1.0, 1.0, 0.5], [0.0, 1.0, 0.3, 1.0]])
WEIGHTS = np.random.default_rng(0).uniform(0.5, 1.5, (4, 4))


STABLE = {
    "softmax": lambda x: F.softmax(x) * WEIGHTS.astype(getattr(x, "dtype", float)),
    "log_softmax": lambda x: F.log_softmax(x) * WEIGHTS.astype(getattr(x, "dtype", float)),
    "logsumexp": lambda x: F.logsumexp(x, 1),
    "sigmoid": F.sigmoid,
    "softplus": F.softplus,
    "cross_entropy": lambda x: F.cross_entropy(x, CLASSES, reduction="none"),
    "binary_cross_entropy_with_logits": lambda x: F.binary_cross_entropy_with_logits(
        x, tensor(SHARES.astype(x.dtype)) if isinstance(x, tinynet.Tensor) else SHARES, reduction="none"),
    "layer_norm": lambda x: F.layer_norm(x, 4) * WEIGHTS.astype(getattr(x, "dtype", float)),
}


def computed(function, engine, dtype):
    """(function(LOGITS), the gradient of its sum) on one engine."""
    if engine == "scalar":
        x = F.as_values(LOGITS)
        for place in np.ndindex(x.shape):
            x[place] = Value(LOGITS[place])
        y = function(x)
        np.sum(y).backward()
        return np.vectorize(float)(y), np.vectorize(lambda v: v.grad or 0.0)(x)
    x = tensor(LOGITS.astype(dtype), requires_grad=True)
    y = function(x)
    y.sum().backward()
    return y.data, x.grad


def exact(name):
    """The same in float64 arithmetic that avoids every overflow, written down anew."""
    m = LOGITS.max(1, keepdims=True)
    s = np.exp(LOGITS - m).sum(1, keepdims=True)
    p, lse = np.exp(LOGITS - m) / s, m + np.log(s)
    centred = LOGITS - LOGITS.mean(1, keepdims=True)
    sigma = 1 / (1 + np.exp(-np.clip(LOGITS, -700, 700)))
    plus = np.maximum(LOGITS, 0) + np.log1p(np.exp(-abs(LOGITS)))
    return {"softmax": p * WEIGHTS, "log_softmax": (LOGITS - m - np.log(s)) * WEIGHTS, "logsumexp": lse[:, 0],
            "sigmoid": sigma, "softplus": plus, "cross_entropy": (lse - LOGITS)[range(4), CLASSES],
            "binary_cross_entropy_with_logits": plus - LOGITS * SHARES,
            "layer_norm": centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * WEIGHTS}[name]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STABLE)
def test_large_logits(name, form):
    """Values and gradients at ±10⁴ are finite, and those of float32 agree with those of float64 and of Values."""
    with FORMS[form]():
        (y, g), (y32, g32), (z, h) = (computed(STABLE[name], *kind) for kind in (
            ("tensor", np.float64), ("tensor", np.float32), ("scalar", None)))
    assert y32.dtype == g32.dtype == np.float32 and np.isfinite(y32).all() and np.isfinite(g32).all()
    np.testing.assert_allclose(y, exact(name), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(z, y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(h, g, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(y32, y, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(g32, g, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------- threads

def train(engine, seed, captured=False, width=96, steps=6):
    """The losses and the weights of a small training run, dropout and shuffling included."""
    tinynet.manual_seed(seed)
    rows = 512 if engine == "tensor" else 6
    width = width if engine == "tensor" else 3
    X = np.random.default_rng(seed).normal(size=(rows, 20 if engine == "tensor" else 2)).astype(np.float32)
    model = nn.Sequential(nn.Linear(X.shape[1], width), nn.Tanh(), nn.LayerNorm(width), nn.Dropout(0.2),
                          nn.Linear(width, 3)).to(engine)
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x, y):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step = tinynet.capture(step) if captured else step
    losses = []
    for _ in range(steps):
        order = tinynet.randperm(rows).numpy()
        x, y = X[order], order % 3
        losses.append(float(step(tensor(x), tensor(y)) if engine == "tensor" else step(x, y)))
    return losses + [x for array in model.state_dict().values() for x in array.ravel().tolist()]


def at_once(*calls):
    """The results of some calls, each in a thread of its own, all begun together."""
    results, gate = [None] * len(calls), threading.Barrier(len(calls))

    def work(i, call):
        gate.wait()
        results[i] = call()

    threads = [threading.Thread(target=work, args=(i, call)) for i, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return results


KINDS = [("scalar", False), ("tensor", False), ("tensor", True)]


@pytest.mark.parametrize("engine, captured", KINDS)
def test_threads_train_as_one_after_the_other(engine, captured):
    calls = [lambda seed=seed: train(engine, seed, captured) for seed in (1, 2, 3)]
    alone = [call() for call in calls]
    for _ in range(2 if engine == "tensor" else 1):
        assert at_once(*calls) == alone


def test_products_in_threads_keep_blas_at_its_number_of_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def blas():
        return {pool["filepath"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()
                if pool["user_api"] == "blas"}

    a = tinynet.randn(80, 120)  # small enough for one thread each: such products run at once
    before, expected = blas(), (a @ a.T).data

    def products():
        return all(np.array_equal((a @ a.T).data, expected) for _ in range(3000))

    assert at_once(products, products, products) == [True] * 3
    assert {path: n for path, n in blas().items() if path in before} == before


def test_modes_and_plans_are_per_thread():
    inside, done = threading.Event(), threading.Event()
    step = tinynet.capture(lambda x: x * 2.0)
    step(tinynet.ones(3))

    def other():
        with no_grad():
            inside.set()
            done.wait(60)
            return (Value(1.0) * 2.0).inputs, len(step.plans)

    def mine():
        inside.wait(60)
        found = bool((Value(1.0) * 2.0).inputs), graph.mode.grad_enabled
        done.set()
        return found

    assert at_once(other, mine) == [((), 0), (True, True)]
    assert len(step.plans) == 1


def test_a_thread_draws_from_its_own_stream():
    tinynet.manual_seed(7)
    here = tinynet.rand(5).tolist()
    first, second = at_once(lambda: tinynet.rand(5).tolist(), lambda: tinynet.rand(5).tolist())
    assert first == second == here
    assert tinynet.rand(5).tolist() != here


def script(text, **environment):
    """Run a Python script in a process of its own; what it printed."""
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, env={**os.environ, **environment}, timeout=240,
                          capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


PARALLEL = """
import threading, numpy as np, tinynet
from tinynet.kernels.backend import compiled
def work():
    x = tinynet.tensor(np.linspace(0, 1, 200_000, dtype=np.float32))
    for _ in range(50):
        y = x.exp()
    return y.data.sum()
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
import numba
print(numba.threading_layer())
"""


@pytest.mark.skipif(compiled.threads < 2 or compiled.INTERPRETED, reason="one thread: no kernel runs in parallel")
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_every_pool_of_numba_bears_threads(layer):
    """Numba's workqueue ends the process where two Python threads start a parallel kernel at once."""
    assert script(PARALLEL, NUMBA_THREADING_LAYER=layer).strip() == layer


FORK = """
import multiprocessing, os, threading, numpy as np, tinynet
from tests.test_faults import train
big = tinynet.tensor(np.linspace(0, 1, 200_000, dtype=np.float32))
def work(queue=None):
    got = [big.exp().data.sum().item(), *train("tensor", 1, True)]
    return got if queue is None else queue.put(got)
here = work()
step = tinynet.capture(lambda x: x.exp())
step(big)
stop, busy = threading.Event(), threading.Event()
def noise():
    while not stop.is_set():
        work(); busy.set()
thread = threading.Thread(target=noise, daemon=True)
thread.start(); busy.wait()
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0 if step(big).data.sum().item() == here[0] and work() == here else 7)
    assert os.waitpid(child, 0)[1] == 0, "os.fork"
stop.set(); thread.join()
queue = multiprocessing.get_context("fork").Queue()
child = multiprocessing.get_context("fork").Process(target=work, args=(queue,))
child.start(); assert queue.get(timeout=100) == here; child.join(); assert child.exitcode == 0
assert work() == here
print("same")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork_after_kernels_have_run():
    """The parent had used its pool of threads, and one of its threads is training at the moment of the fork."""
    assert script(FORK).strip() == "same"


def spawned(queue):
    queue.put(train("tensor", 1, True))


@pytest.mark.slow
def test_spawn_after_kernels_have_run():
    here = train("tensor", 1, True)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=spawned, args=(queue,))
    child.start()
    assert queue.get(timeout=100) == here
    child.join(60)
    assert child.exitcode == 0


def test_the_number_of_threads():
    before = tinynet.get_num_threads()
    assert before >= 1
    tinynet.set_num_threads(1)
    try:
        assert tinynet.get_num_threads() == 1
        for wrong in (0, -1, 10**6, 1.5, "2", None, True):
            with pytest.raises(ValueError, match=r"^set_num_threads: expected an integer from 1 to \d+, got "):
                tinynet.set_num_threads(wrong)
        assert tinynet.get_num_threads() == 1
    finally:
        tinynet.set_num_threads(before)


# -------------------------------------------------------------------------------------------------------------- memory

MEMORY = """
import gc, resource, threading, time
import numpy as np, tinynet
from tinynet import Value, nn, optim

gc.disable()  # nothing here is in a cycle

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20
"""
GRAPHS = MEMORY + """
def chain(n):
    x = y = Value(1.0)
    for _ in range(n // 3):  # two operations and a constant
        y = y * 1.0 + x
    return x, y

def wide(n):
    xs = [Value(0.5) for _ in range(1000)]
    for _ in range(n // 3000):
        xs = [a * 0.9 + b for a, b in zip(xs, xs[1:] + xs[:1])]
    return xs[0], sum(xs[1:], xs[0])

def tensors(n):
    x = y = tinynet.ones(1, requires_grad=True)
    for _ in range(n):
        y = tinynet.functional.softmax(y) + x
    return x, y.sum()

sizes = []
def work():
    for build, n, times in ((chain, 400_000, 3), (wide, 150_000, 3), (tensors, 20_000, 3)):
        sizes.append([])
        for _ in range(times):
            x, y = build(n)
            y.backward()
            assert x.grad is not None
            del x, y
            sizes[-1].append(resident())

threading.stack_size(STACK)
thread = threading.Thread(target=work)
thread.start()
thread.join()
for row in sizes:
    assert len(row) == 3 and row[2] - row[1] < 15, sizes  # megabytes, of the hundreds that a graph takes
print(sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_large_graph_is_freed():
    """Built, back-propagated and freed over and over, on a stack of 256 KiB."""
    assert script(GRAPHS.replace("STACK", str(256 * 1024)))


STEPS = MEMORY + """
model = nn.MLP(4, [8, 1])
optimizer = optim.Adam(model.parameters(), lr=1e-4)

@tinynet.capture
def step(x, y):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

x, y = tinynet.randn(8, 4), tinynet.randn(8, 1)
sizes = []
for _ in range(5):
    for _ in range(20_000):
        loss = step(x, y)
    sizes.append(resident())
assert np.isfinite(loss.item()) and max(sizes[1:]) - sizes[0] < 4, sizes
print(sizes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_captured_step_does_not_grow_memory():
    """100,000 replays; the first 20,000 may warm up."""
    assert script(STEPS)


# ------------------------------------------------------------------------------------------------------- hostile names

HOSTILE = ["</script><script>alert(1)</script>", "two\nlines\r\x00", "\x1b[31mred\x1b[2J", "\u202eevil\u2067",
           '"&<b>\'{{title}}']


@pytest.mark.parametrize("label", HOSTILE)
def test_a_listing_and_a_summary_keep_to_their_lines(label):
    x = Value(1.0, label=label)
    listing = str(tinynet.compile(x * 2.0, inputs=[x]))
    model = nn.Sequential(nn.Linear(2, 1))
    setattr(model, label, nn.Linear(1, 1))
    table = str(tinynet.summary(model, (1, 2)))
    assert len(listing.splitlines()) == 4 and len(table.splitlines()) == 5
    for line in [*listing.splitlines(), *table.splitlines()]:
        assert line.isprintable()


@pytest.mark.parametrize("label", HOSTILE)
def test_a_film_shows_a_hostile_title_and_hostile_layers_as_text(label):
    model = nn.Sequential(nn.Linear(2, 2))
    setattr(model, label.replace(".", ""), nn.Linear(2, 1))
    recorder = tinynet.Recorder(model, np.ones((2, 2), np.float32), [0, 1])
    recorder(model(tinynet.ones(2, 2)).sum())
    usual, page = tinynet.film(recorder).html, tinynet.film(recorder, title=label).html
    for tag in ("<script", "</script", "<b>", "<title"):
        assert page.count(tag) == usual.count(tag) == plain_page().count(tag)


@functools.cache
def plain_page():
    recorder = tinynet.Recorder(nn.Sequential(nn.Linear(2, 1)), np.ones((2, 2), np.float32), [0, 1])
    recorder(Value(1.0))
    return tinynet.film(recorder).html
