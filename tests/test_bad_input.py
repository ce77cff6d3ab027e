"""The table of docs/errors.md: each call raises what the table says. `python -m tests.test_bad_input` writes it anew.

Read the changes before they are committed: a sentence says what was expected and what it got.
"""

import os
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinynet
from tinynet import data, datasets, nn, optim

TABLE = Path(__file__).parents[1] / "docs" / "errors.md"
ROW = re.compile(r"^\| `(.+?)` \| (\w+): (.+) \|$", re.MULTILINE)
ROWS = ROW.findall(TABLE.read_text("utf-8"))
NAMES = {name: getattr(tinynet, name) for name in tinynet.__all__}
NAMES |= {"np": np, "nn": nn, "optim": optim, "data": data, "datasets": datasets, "F": nn.functional}
FILES = {"broken.npz": b"PK\x03\x04 and no more", "ragged.csv": b"a,b\n1,2\n3\n", "image.idx": b"\x89PNG\r\n"}


def error_of(call, folder):
    """The error that a call raises in a folder with files that are not what they should be."""
    for name, content in FILES.items():
        (Path(folder) / name).write_bytes(content)
    with warnings.catch_warnings(), pytest.raises((TypeError, ValueError, IndexError, KeyError, OSError)) as caught:
        warnings.simplefilter("ignore")
        eval(call, dict(NAMES))
    return caught.value


def says(sentence, error):
    return re.fullmatch(re.escape(sentence).replace("…,", ".+,"), str(error))


def test_the_table_is_read():
    assert len(ROWS) >= 60 and {kind for _, kind, _ in ROWS} == {"TypeError", "ValueError", "IndexError",
                                                                 "FileNotFoundError"}


@pytest.mark.parametrize("call, kind, sentence", ROWS, ids=[call for call, _, _ in ROWS])
def test_a_wrong_call(call, kind, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = error_of(call, tmp_path)
    assert type(error).__name__ == kind and says(sentence, error), f"{type(error).__name__}: {error}"


# ------------------------------------------------------------------------------------------------ errors inside a model

class Broken(nn.Module):
    """A user's layer that fails."""

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


def test_an_error_inside_a_model_has_the_path_of_the_layer_as_a_note():
    with pytest.raises(ValueError, match="784") as caught:
        nn.MLP(784, [128, 10])(tinynet.ones(32, 100))
    assert any("layers.0 (" in note for note in getattr(caught.value, "__notes__", ()))


def written(row):
    call, kind, sentence = row.groups()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        error = error_of(call, folder)
    same = type(error).__name__ == kind and says(sentence, error)
    return row[0] if same else f"| `{call}` | {type(error).__name__}: {error} |"


if __name__ == "__main__":
    TABLE = TABLE.resolve()
    TABLE.write_text(ROW.sub(written, TABLE.read_text("utf-8")), "utf-8")
