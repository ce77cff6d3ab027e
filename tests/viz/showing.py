"""The pictures of the README: `make showing` draws them anew, and a browser photographs the pages.

A test sees to it that the drawings among them are what the code draws today.
"""

from pathlib import Path

import numpy as np

import tinynet
from tinynet import Value, draw, film, nn, optim, tensor, walkthrough
from tinynet.datasets import moons
from tinynet.viz.films import Recorder

from .browser import Browser

FOLDER = Path(__file__).resolve().parents[2] / "demos" / "showing"


def example():
    a, b = Value(-2.0, label="a"), Value(3.0, label="b")
    f = (a * b) * (a + b)
    f.label = "f"
    f.backward()
    return f


def moons_loss():
    """The loss of a network of single numbers on 100 samples: a graph of 65,038 Values."""
    tinynet.manual_seed(7)
    x, y = moons(100, noise=0.1, seed=0)
    model = nn.MLP(2, [16, 16, 1], activation="tanh").to("scalar")
    loss = nn.BCEWithLogitsLoss()(model(x), y.reshape(-1, 1).astype(float))
    loss.label = "loss"
    loss.backward()
    return loss


def training(steps=200):
    """200 recorded steps of the same network on arrays."""
    tinynet.manual_seed(3)
    x, y = moons(200, noise=0.1, seed=0)
    model = nn.MLP(2, [16, 16, 1], activation="tanh")
    optimizer, criterion = optim.Adam(model.parameters(), lr=0.02), nn.BCEWithLogitsLoss()
    recorder = Recorder(model, x, y)
    inputs, targets = tensor(x.astype(np.float32)), tensor(y.reshape(-1, 1).astype(np.float32))
    for _ in range(steps):
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder(loss)
    return recorder


DRAWINGS = {"graph.svg": lambda: draw(example(), derivatives=True), "folded.svg": lambda: draw(moons_loss(), depth=1)}


def photographs(folder):
    walkthrough(example(), "f = (a·b)·(a+b)").save(folder / "walkthrough.html")
    film(training(), "Two moons").save(folder / "film.html")
    with Browser() as browser:
        page = browser.open(folder / "walkthrough.html", width=1000, height=640)
        page.press("ArrowRight", 9)
        page.screenshot(FOLDER / "walkthrough.webp", height=636)
        page = browser.open(folder / "film.html", width=1180, height=900)
        page.wait("document.body.dataset.ready === 'yes'")
        page.press("ArrowRight", 90)
        page.screenshot(FOLDER / "film.webp")


if __name__ == "__main__":
    import tempfile

    FOLDER.mkdir(exist_ok=True)
    for name, drawn in DRAWINGS.items():
        drawn().save(FOLDER / name)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder))
