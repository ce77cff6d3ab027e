"""The README's table of wrong calls: each is made, and says what the table says."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinynet
from tinynet import data, datasets, nn, optim

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
SECTION = README.split("\n## What goes wrong, and what it says\n")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| `(.+?)` \| (\w+): (.+) \|$", SECTION, re.MULTILINE)
NAMES = {name: getattr(tinynet, name) for name in tinynet.__all__}
NAMES |= {"np": np, "nn": nn, "optim": optim, "data": data, "datasets": datasets, "F": nn.functional}
FILES = {"broken.npz": b"PK\x03\x04 and no more", "ragged.csv": b"a,b\n1,2\n3\n", "image.idx": b"\x89PNG\r\n"}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)


def test_the_table_is_read():
    assert len(ROWS) >= 60 and {kind for _, kind, _ in ROWS} == {"TypeError", "ValueError", "IndexError",
                                                               "FileNotFoundError"}


@pytest.mark.parametrize("call, kind, sentence", ROWS, ids=[call for call, _, _ in ROWS])
def test_a_wrong_call(call, kind, sentence, files):
    with warnings.catch_warnings(), pytest.raises((TypeError, ValueError, IndexError, OSError)) as caught:
        warnings.simplefilter("ignore")
        eval(call, dict(NAMES))
    assert type(caught.value).__name__ == kind
    assert re.fullmatch(re.escape(sentence).replace("…,", ".+,"), str(caught.value)), str(caught.value)


# ------------------------------------------------------------------------------------------ how sentences are completed

class Broken(nn.Module):
    """A layer of a user's that fails by itself."""

    def forward(self, x):
        return {"weight": x}["bias"]


@pytest.mark.parametrize("call, error", [
    (lambda: Broken()(tinynet.ones(1)), KeyError),
    (lambda: nn.Sequential(Broken())(tinynet.ones(1)), KeyError),
    (lambda: nn.Linear(2, 2).apply(lambda module: module.weigth), AttributeError),
    (lambda: tinynet.gradcheck(lambda x: 1 / 0, [tinynet.ones(2, dtype=np.float64, requires_grad=True)]),
     ZeroDivisionError),
])
def test_errors_of_the_users_functions_pass_through(call, error):
    with pytest.raises(error):
        call()


def test_an_error_from_below_is_raised_in_the_name_of_the_call_with_its_cause():
    with pytest.raises(TypeError) as caught:
        tinynet.randint([1], "x")
    assert re.match(r"randint: cannot work with low = \[1\], high = 'x' \(", str(caught.value))
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(TypeError, match=r"^LayerNorm: cannot work with normalized_shape = 2.5 \("):
        nn.LayerNorm(2.5)


def test_a_layer_inside_a_layer_says_who_it_is_for():
    with pytest.raises(ValueError, match="^TransformerEncoderLayer: MultiheadAttention: embed_dim is a whole number"):
        nn.TransformerEncoderLayer(0, 2)
