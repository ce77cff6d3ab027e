"""Graphs of Values as programs: against micrograd, PyTorch and the interpreted engine, and how the cost grows.

    python -m tests.bench.bench_program            all figures, about a minute
    python -m tests.bench.bench_program moons      one of: moons, nodes, growth

Times are medians of alternating runs, whole training steps with plain gradient descent by hand, as micrograd's own
demonstration does it: `for p in parameters: p.data -= lr * p.grad`.
"""

import statistics
import sys
import time

import numpy as np

from tinynet import Value, compile, nn
from tinynet.graph import topological


def alternating(steps, seconds=3.0, least=3):
    """Median seconds of each step {name: function}, taken in turns for about `seconds`; the first turns do not count."""
    times = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def descend(parameters, run, rate=0.1):
    """A training step: forget the gradients, run forward and backward, go down the slope."""

    def step():
        for p in parameters:
            p.grad = None
        run()
        for p in parameters:
            p.data -= rate * p.grad

    return step


def moons_graph():
    """(loss, inputs, parameters): MLP(2, [16, 16, 1]) and the hinge loss of one sample (x0, x1, y = ±1)."""
    model = nn.MLP(2, [16, 16, 1]).to("scalar")
    x, y = [Value(0.5, label="x0"), Value(0.5, label="x1")], Value(1.0, label="y")
    loss = (1 - y * model(np.array(x, dtype=object))[0]).relu()
    return loss, [*x, y], list(model.parameters())


def samples(n, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 2))
    return np.column_stack([points, np.where(points[:, 0] * points[:, 1] > 0, 1.0, -1.0)])


def moons():
    """One training step of MLP(2, [16, 16, 1]) on 100 samples, by every engine at hand."""
    data = samples(100)
    steps = {}
    for dtype in "float32", "float64":
        loss, inputs, parameters = moons_graph()
        steps[f"tinynet program, {dtype}"] = descend(parameters, lambda p=compile(loss, inputs, parameters, dtype),
                                                     batch=data.astype(dtype): p.backward(batch))
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: left out")
    else:
        torch.set_num_threads(2)
        net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(),
                                  torch.nn.Linear(16, 1))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        x, y = torch.tensor(data[:, :2], dtype=torch.float32), torch.tensor(data[:, 2], dtype=torch.float32)

        def torch_step():
            optimizer.zero_grad()
            (1 - y * net(x)[:, 0]).relu().mean().backward()
            optimizer.step()

        steps["PyTorch eager, float32"] = torch_step
    found = alternating(steps)

    slow = {}
    model = nn.MLP(2, [16, 16, 1]).to("scalar")

    def interpreted():
        scores = model(data[:, :2].tolist())[:, 0]
        (sum((1 - s * t).relu() for s, t in zip(scores, data[:, 2].tolist())) / 100).backward()

    slow["tinynet interpreted"] = descend(list(model.parameters()), interpreted)
    try:
        from micrograd.nn import MLP
    except ImportError:
        print("micrograd is not installed: left out")
    else:
        small = MLP(2, [16, 16, 1])

        def micrograd_step():
            losses = [(1 + -t * small(x)).relu() for x, t in zip(data[:, :2].tolist(), data[:, 2].tolist())]
            small.zero_grad()
            (sum(losses) * (1 / len(losses))).backward()
            for p in small.parameters():
                p.data -= 0.1 * p.grad

        slow["micrograd"] = micrograd_step
    found |= alternating(slow, seconds=5.0, least=2)
    ours = found["tinynet program, float32"]
    print("\nA training step of MLP(2, [16, 16, 1]) on 100 samples")
    for name, seconds in found.items():
        print(f"  {name:26} {seconds * 1e6:12,.0f} µs   {seconds / ours:10,.1f}×")


def recurrent_graph(nodes, width=16):
    """(loss, inputs, parameters) of a recurrent network of `width` tanh neurons, unrolled until it has so many nodes."""
    rng = np.random.default_rng(0)
    weights = np.array([[Value(w) for w in row] for row in rng.normal(size=(width, width)) / width ** 0.5], dtype=object)
    inputs = [Value(x) for x in rng.normal(size=width)]
    h = np.array(inputs, dtype=object)
    for _ in range(max(1, round(nodes / (2 * width * width)))):
        h = np.array([z.tanh() for z in weights @ h], dtype=object)
    return h.sum(), inputs, list(weights.flat)


def batch_graph(n):
    """(loss, (), parameters): the loss of n samples in one graph, the samples being constants."""
    model = nn.MLP(2, [16, 16, 1]).to("scalar")
    data = samples(n)
    scores = model(data[:, :2].tolist())[:, 0]
    return sum((1 - s * t).relu() for s, t in zip(scores, data[:, 2].tolist())) / n, (), list(model.parameters())


def per_node(loss, inputs, parameters, batch, dtype):
    """(nodes, seconds of forward + backward for each node and sample)"""
    program = compile(loss, inputs, parameters, dtype)
    numbers = np.random.default_rng(0).normal(size=(batch, len(inputs))).astype(dtype) if inputs else None
    seconds = alternating({"program": lambda: program.backward(numbers)}, seconds=1.0)["program"]
    return len(program.opcode), seconds / len(program.opcode) / batch


def nodes():
    """Forward + backward, for each node and sample."""
    print("\nForward and backward, for each node and sample")
    for name, graph, batch in (("MLP(2, [16, 16, 1])", moons_graph(), 1024),
                               ("the same", moons_graph(), 16384),
                               ("RNN, 16 neurons, 12 steps", recurrent_graph(6000), 1024),
                               ("RNN, 16 neurons, 390 steps", recurrent_graph(200_000), 1),
                               ("MLP, 200 samples in one graph", batch_graph(200), 1)):
        for dtype in "float32", "float64":
            count, seconds = per_node(*graph, batch, dtype)
            print(f"  {name:30} {count:8,} nodes, batch {batch:6,}, {dtype}: {seconds * 1e9:7.3f} ns")


def growth():
    """How the cost of making and of running a program grows with the nodes and the samples."""
    print("\nGrowth: a recurrent network unrolled, float32")
    print("     nodes   backward, interpreted   compile   first run    batch 1   batch 64   batch 1024  (ns a node, a sample)")
    for size in 100, 1_000, 10_000, 100_000, 1_000_000:
        loss, inputs, parameters = recurrent_graph(size, width=4 if size == 100 else 16)
        count = len(topological(loss))
        clock = [time.perf_counter()]
        loss.backward()
        clock.append(time.perf_counter())
        program = compile(loss, inputs, parameters, "float32")
        clock.append(time.perf_counter())
        program.backward(np.zeros((1, len(inputs)), "float32"))
        clock.append(time.perf_counter())
        made = [(b - a) / count * 1e9 for a, b in zip(clock, clock[1:])]
        run = []
        for batch in 1, 64, 1024:
            numbers = np.random.default_rng(0).normal(size=(batch, len(inputs))).astype("float32")
            seconds = alternating({"program": lambda x=numbers: program.backward(x)}, seconds=0.5)["program"]
            run.append(seconds / count / batch * 1e9)
        print(f"{count:10,}   {made[0]:21.0f}   {made[1]:7.0f}   {made[2]:9.0f}    " +
              "   ".join(f"{r:8.3f}" for r in run))


if __name__ == "__main__":
    for part in sys.argv[1:] or ("moons", "nodes", "growth"):
        {"moons": moons, "nodes": nodes, "growth": growth}[part]()
