"""Each lesson runs alone, prints what it should, and saves the pictures that it names."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

for package in ("numba", "matplotlib", "sklearn", "pandas", "names"):
    pytest.importorskip(package)

DEMOS = Path(__file__).resolve().parent.parent / "demos"
SAYS = {
    "01_derivatives": ["dy/dx = 14.0", "df/da = -3.0", "df/db = -8.0", "x =  0.6667",
                       "the second derivative: 12", "9. df/da (2 of 2) = (-6) + df/dv1 * ∂v1/∂a"],
    "02_neuron": ["y = -0.3799", "picture"],
    "03_activations": ["it is dead", "sigmoid"],
    "04_perceptron": ["one neuron, XOR  loss 0.6931", "[0 1 1 0], predicted probabilities [0. 1. 1. 0.]"],
    "05_moons": ["337 parameters, each one a Value", "65,038 Values in each", "accuracy 100%", "a training replay"],
    "06_optimizers": ["a saddle", "momentum"],
    "07_epochs": ["with early stopping"],
    "08_scalar_to_tensor": ["times as fast as Values"],
    "09_regression": ["ValueError: DataFrameDataset: ", "the network"],
    "10_digits": ["digits are classified correctly", "misclassified"],
    "11_attention": ["the weights add up to 1.0000", "each output (row) for each value", "two heads"],
    "12_gpt": ["emma, out: [5, 13, 13, 1, 0, -100", "epoch 15: ", "are new"],
    "13_convolution": ["two windows of 2 × 2", "classified correctly"],
    "14_recurrence": ["27 tokens", "dh3/dw = 0.1586", "per letter (geometric mean)"],
    "15_program": ["%2 = mul %0, %1", "times as fast"],
    "16_scalar_gpt": ["nodes, float64", "samples: "],
}
SLOW = ("12_gpt", "14_recurrence", "15_program", "16_scalar_gpt")
# numbers that a lesson prints, and their bounds
FIGURES = {
    "10_digits": [(r"([\d.]+)% of the \d+ held-out", 97, 100)],
    "11_attention": [(r"step 30: weights of 'sleeps' \[\S+ +(\S+)", 0.95, 1)],
    # on the same held-out names a trigram's loss is 2.085 (lesson 12 prints it)
    "12_gpt": [(r"held-out loss ([\d.]+) after", 1, 1.95), (r"trigram ([\d.]+) \(", 2, 2.1),
               (r"difference of a gradient is (\S+)", 0, 1e-12)],
    "13_convolution": [(r"([\d.]+)% of the \d+ held-out", 98.5, 100), (r"shifted left by a pixel: ([\d.]+)%", 97, 100)],
    "14_recurrence": [(r"recurrent +[\d,]+ +\d+ +([\d.]+)", 1.6, 1.9), (r"GPT +[\d,]+ +\d+ +([\d.]+)", 1.6, 2.0)],
    "15_program": [(r"gradient or a weight: (\S+)", 0, 1e-12), (r"held-out points: ([\d.]+)%", 96, 100)],
    "16_scalar_gpt": [(r"difference of a gradient is (\S+)", 0, 1e-12),
                      (r"held-out names: ([\d.]+) per letter", 1, 2.07),
                      (r"differ by at most (\S+)", 0, 1e-12)],
}


def names(lesson):
    """The pictures that a lesson names."""
    return set(re.findall(r'(?:picture|save)\(f?"([^"{]+)"\)', (DEMOS / f"{lesson}.py").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the lessons, so that their pictures are not saved in the project."""
    copy = tmp_path_factory.mktemp("lessons") / "demos"
    shutil.copytree(DEMOS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def check_picture(path):
    content = path.read_bytes()
    if path.suffix == ".png":
        assert content.startswith(b"\x89PNG") and len(content) > 5000
    elif path.suffix == ".svg":
        assert ElementTree.fromstring(content).findall(".//{*}text")
    elif path.suffix == ".html":
        assert content.startswith(b"<!doctype html>") and content.rstrip().endswith(b"</html>")


@pytest.mark.parametrize("lesson", [
    pytest.param(lesson, marks=pytest.mark.slow) if lesson in SLOW else lesson for lesson in SAYS])
def test_a_lesson_runs_and_leaves_its_pictures(lesson, folder):
    done = subprocess.run([sys.executable, f"{lesson}.py"], cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(DEMOS.parent), "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr[-3000:]
    for sentence in SAYS[lesson]:
        assert sentence in done.stdout
    assert names(lesson), "every lesson leaves a picture"
    for name in names(lesson):
        check_picture(folder.parent / "pictures" / name)
    for pattern, lowest, highest in FIGURES.get(lesson, ()):
        assert lowest <= float(re.search(pattern, done.stdout)[1]) <= highest, pattern


def test_every_numbered_lesson_is_tested():
    assert {path.stem for path in DEMOS.glob("[0-9]*.py")} == set(SAYS)
