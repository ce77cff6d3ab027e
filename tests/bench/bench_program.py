"""A graph of Values as a program: the scalar engine at machine speed.

A training step is plain gradient descent as micrograd's own demonstration does it, `p.data -= lr * p.grad` for every
parameter. Nanoseconds are those of forward and backward together, for each node of the graph and each sample.
"""

import time

import numpy as np

from .workloads import Workload

ORDER = 1


def samples(n):
    """(n, 3): points in the plane, and ±1."""
    points = np.random.default_rng(0).normal(size=(n, 2))
    return np.column_stack([points, np.where(points[:, 0] * points[:, 1] > 0, 1.0, -1.0)])


def descending(parameters, gradients, rate=0.1):
    """One step of gradient descent: reset the gradients, compute them, update the parameters."""

    def step():
        for p in parameters:
            p.grad = None
        gradients()
        for p in parameters:
            p.data -= rate * p.grad

    return step


def moons_graph():
    """(loss, inputs, parameters): MLP(2, [16, 16, 1]) and the hinge loss of one sample (x0, x1, y = ±1)."""
    from tinynet import Value, nn

    model = nn.MLP(2, [16, 16, 1]).to("scalar")
    x, y = [Value(0.5, label="x0"), Value(0.5, label="x1")], Value(1.0, label="y")
    return (1 - y * model(np.array(x, dtype=object))[0]).relu(), [*x, y], list(model.parameters())


def moons_in_one_graph(n):
    """(loss, inputs, parameters): the mean loss over n samples as one graph, in which the samples are constants."""
    from tinynet import nn

    model, data = nn.MLP(2, [16, 16, 1]).to("scalar"), samples(n)
    scores = model(data[:, :2].tolist())[:, 0]
    return sum((1 - s * t).relu() for s, t in zip(scores, data[:, 2].tolist())) / n, [], list(model.parameters())


def recurrent_graph(nodes, width=16):
    """(loss, inputs, parameters): a recurrent network of tanh neurons, unrolled until it has about so many nodes."""
    from tinynet import Value

    rng = np.random.default_rng(0)
    weights = np.array([Value(w) for w in rng.normal(size=width * width) / width ** 0.5], dtype=object)
    inputs = [Value(x) for x in rng.normal(size=width)]
    h, W = np.array(inputs, dtype=object), weights.reshape(width, width)
    for _ in range(round(nodes / (2 * width * width))):
        h = np.array([z.tanh() for z in W @ h], dtype=object)
    return h.sum(), inputs, list(weights)


def program(dtype):
    from tinynet import compile

    loss, inputs, parameters = moons_graph()
    run, batch = compile(loss, inputs, parameters, dtype), samples(100).astype(dtype)
    return descending(parameters, lambda: run.backward(batch))


def interpreted():
    from tinynet import nn

    model, data = nn.MLP(2, [16, 16, 1]).to("scalar"), samples(100)
    points, targets = data[:, :2].tolist(), data[:, 2].tolist()

    def gradients():
        (sum((1 - s * t).relu() for s, t in zip(model(points)[:, 0], targets)) / len(targets)).backward()

    return descending(list(model.parameters()), gradients)


def micrograd():
    from micrograd.nn import MLP

    model, data = MLP(2, [16, 16, 1]), samples(100)
    points, targets = data[:, :2].tolist(), data[:, 2].tolist()
    parameters = model.parameters()

    def step():
        losses = [(1 + -t * model(x)).relu() for x, t in zip(points, targets)]
        loss = sum(losses) * (1 / len(losses))
        for p in parameters:
            p.grad = 0
        loss.backward()
        for p in parameters:
            p.data -= 0.1 * p.grad

    return step


def pytorch():
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.tensor(samples(100), dtype=torch.float32)
    x, y = data[:, :2], data[:, 2]

    def step():
        loss = (1 - y * model(x)[:, 0]).relu().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def per_node(graph, size, batch, dtype="float32"):
    """A step that returns the nanoseconds of forward + backward for each node and sample."""
    from tinynet import compile

    loss, inputs, parameters = graph(*size)
    run = compile(loss, inputs, parameters, dtype)
    numbers = np.random.default_rng(0).normal(size=(batch, len(inputs))).astype(dtype) if inputs else None
    run.backward(numbers)

    def step():
        turns = []
        for _ in range(5):
            start = time.perf_counter_ns()
            run.backward(numbers)
            turns.append((time.perf_counter_ns() - start) / len(run.opcode) / batch)
        return sorted(turns)[2]

    return step


def flattening():
    """Making a program of 100,000 nodes: ready to compile what it lists, before the first batch."""
    from tinynet import compile

    loss, inputs, parameters = recurrent_graph(100_000)
    return lambda: compile(loss, inputs, parameters)


def python_backward():
    loss, _, _ = recurrent_graph(100_000)
    return loss.backward


def nanoseconds(name, graph, size, batch, goal=None):
    peers = {dtype: lambda dtype=dtype: per_node(graph, size, batch, dtype) for dtype in ("float32", "float64")}
    goals = [("float32", None, goal)] if goal else []
    return Workload(name, peers, goals, measured="ns", chart=None)


def growing(nodes):
    peers = {f"batch {batch}": lambda batch=batch: per_node(recurrent_graph, (nodes, 4 if nodes < 1000 else 16), batch)
             for batch in (1, 32, 1024)}
    return Workload(f"RNN unrolled, about {nodes:,} nodes", peers, measured="ns", chart=None)


WORKLOADS = [
    Workload("moons, MLP(2, [16, 16, 1]), 100 samples",
             {"program, float32": lambda: program("float32"), "program, float64": lambda: program("float64"),
              "interpreted": interpreted, "PyTorch": pytorch, "micrograd": micrograd},
             [("program, float32", "micrograd", 1 / 5000), ("program, float32", "PyTorch", 1 / 3)]),
    nanoseconds("MLP(2, [16, 16, 1]) and its loss, batch 1024", moons_graph, (), 1024, goal=0.5),
    nanoseconds("RNN of 16 neurons, 12 steps, batch 1024", recurrent_graph, (6000,), 1024, goal=0.5),
    nanoseconds("RNN of 16 neurons, 390 steps (200,000 nodes), batch 1", recurrent_graph, (200_000,), 1, goal=15),
    nanoseconds("MLP on 310 samples in one graph (200,000 nodes)", moons_in_one_graph, (310,), 1, goal=15),
    *[growing(10**k) for k in (2, 3, 4, 5, 6)],
    Workload("flattening 100,000 nodes", {"compile": flattening, "Python backward": python_backward},
             [("compile", "Python backward", 1.0)], chart=None),
]
