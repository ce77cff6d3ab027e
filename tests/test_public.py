"""The public names: each exists, is loaded on first use, and is what editors are told."""

import subprocess
import sys
from pathlib import Path

import pytest

import tinynet

from . import stub


@pytest.mark.parametrize("name", [*tinynet.HOME, *tinynet.PARTS])
def test_every_public_name_exists(name):
    assert getattr(tinynet, name) is not None
    assert name in dir(tinynet)


def test_the_stub_is_the_one_that_is_generated():
    assert stub.PATH.read_text("utf-8") == stub.stub(), "run python -m tests.stub"


def test_unknown_names_raise():
    with pytest.raises(AttributeError, match="'tinynet' has no attribute 'tensr'"):
        _ = tinynet.tensr


@pytest.mark.parametrize("line, absent", [
    ("import tinynet", {"numpy", "numba", "graphviz"}), ("from tinynet import Value", {"numpy", "numba", "graphviz"}),
    ("from tinynet import Value, draw, explain; explain(Value(1.0) * 2)", {"numba"}),
])
def test_what_an_import_leaves_out(line, absent):
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{line}\n"
                           "print(*sys.modules)"], capture_output=True, text=True, check=True)
    assert not absent & set(done.stdout.split())


def test_importing_warns_of_nothing():
    done = subprocess.run([sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n"
                           "import tinynet, tinynet.tensors"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("line", [
    "import tinynet.nn.functional as F; F.relu", "from tinynet.nn import functional as F; F.relu",
    "from tinynet.utils.data import DataLoader, Dataset, TensorDataset",
    "import tinynet as torch; torch.utils.data.DataLoader; torch.nn.functional.relu; torch.nn.utils.clip_grad_norm_",
    "from tinynet.optim.lr_scheduler import StepLR", "from tinynet.optim import lr_scheduler; lr_scheduler.StepLR",
    "import tinynet as torch; torch.optim.lr_scheduler.StepLR",
])
def test_names_are_found_under_the_paths_of_pytorch(line):
    subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n{line}"], check=True)
