"""Scalar: one training step of MLP(2, [16, 16, 1]) on 100 moons, hinge loss, plain gradient descent.

Pure Python against pure Python: tinynet's scalar engine and micrograd run the same graph, one number at a time. The
same model as a compiled program of its graph runs beside them.
"""

from .workloads import Workload

ORDER = 1


def moons():
    """(x, y): 100 points as lists of floats, and y = ±1."""
    from tinynet import datasets

    x, y = datasets.moons(100, noise=0.1, seed=0)
    return x.tolist(), (2 * y - 1).tolist()


def descend(parameters, rate=0.05):
    for p in parameters:
        p.data -= rate * p.grad


def tinynet_scalar():
    from tinynet import nn

    model = nn.MLP(2, [16, 16, 1]).to("scalar")
    parameters, (x, y) = model.parameters(), moons()

    def step():
        losses = [(1 - score * target).relu() for score, target in zip(model(x)[:, 0], y)]
        loss = sum(losses) / len(losses)
        model.zero_grad()
        loss.backward()
        descend(parameters)

    return step


def micrograd():
    from micrograd.nn import MLP

    model = MLP(2, [16, 16, 1])
    parameters, (x, y) = model.parameters(), moons()

    def step():
        losses = [(1 + -target * model(point)).relu() for point, target in zip(x, y)]
        loss = sum(losses) * (1 / len(losses))
        model.zero_grad()
        loss.backward()
        descend(parameters)

    return step


def tinynet_program():
    import numpy as np

    from tinynet import Value, compile, nn

    model = nn.MLP(2, [16, 16, 1]).to("scalar")
    point, target = [Value(0.0, label="x0"), Value(0.0, label="x1")], Value(1.0, label="y")
    loss = (1 - target * model(np.array(point))[0]).relu()
    program = compile(loss, [*point, target], model.parameters(), "float32")
    parameters, (x, y) = model.parameters(), moons()
    samples = np.column_stack([x, y]).astype(np.float32)

    def step():
        for p in parameters:
            p.grad = None
        program.backward(samples)
        descend(parameters)

    return step


def pytorch():
    import torch
    from torch import nn

    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
    x, y = map(torch.tensor, moons())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    def step():
        loss = (1 - y * model(x)[:, 0]).relu().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


WORKLOADS = [
    Workload("eager", {"tinynet, scalar": tinynet_scalar, "micrograd": micrograd},
             [("tinynet, scalar", "micrograd", 0.25)], chart="micrograd"),
    Workload("as a compiled program", {"tinynet, program": tinynet_program, "PyTorch": pytorch},
             [("tinynet, program", "PyTorch", 1 / 3)]),
]
