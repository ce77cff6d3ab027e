"""The same seed, thread count and machine give the same bits: in fresh processes, captured, taken up again, and in the
process that compiles."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import hashlib, os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import tinynet
from tinynet import nn, optim
from tinynet.data import DataLoader, TensorDataset

random = np.random.default_rng(0)
numbers = lambda *shape: random.normal(size=shape).astype(np.float32)
MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Dropout(0.2), nn.LayerNorm(200),
                                  nn.Linear(200, 9)),
            numbers(96, 300), random.integers(0, 9, 96)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
                                  nn.Flatten(), nn.Linear(8 * 14 * 14, 9)),
            numbers(64, 1, 28, 28), random.integers(0, 9, 64)),
    "gpt": (lambda: nn.GPT(30, layers=1, heads=2, width=32, context=64, dropout=0.1),
            random.integers(0, 30, (32, 64)), random.integers(0, 30, (32, 64))),
    "lstm": (lambda: nn.LSTM(16, 32, batch_first=True), numbers(64, 10, 16), random.integers(0, 32, (64, 10))),
}


class Run:
    def __init__(self, name, captured):
        make, x, y = MODELS[name]
        tinynet.manual_seed(7)
        self.model = make()
        self.optimizer = optim.Adam(self.model.parameters(), lr=1e-2)
        self.schedule = optim.StepLR(self.optimizer, 2, 0.5)
        self.loader = DataLoader(TensorDataset(x, y), 16, shuffle=True, seed=1)
        self.step = tinynet.capture(self.one) if captured else self.one
        self.parts = {"model": self.model, "optimizer": self.optimizer, "schedule": self.schedule,
                      "loader": self.loader, "random": tinynet.Generator}

    def one(self, x, y):
        y_hat = self.model(x)
        y_hat = y_hat[0] if isinstance(y_hat, tuple) else y_hat
        loss = nn.functional.cross_entropy(y_hat.reshape(-1, y_hat.shape[-1]), y.reshape(-1))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def epochs(self, n):
        for _ in range(n):
            for x, y in self.loader:
                self.step(x, y)
            self.schedule.step()
        return self

    def bits(self):
        digest = hashlib.sha256()
        for array in self.model.state_dict().values():
            digest.update(array.tobytes())
        for entry in self.optimizer.state_dict()["state"].values():
            digest.update(entry["exp_avg_sq"].tobytes())
        return digest.hexdigest()[:16]


folder, task, *names = sys.argv[2:]
for name in names:
    path = os.path.join(folder, name + ".npz")
    if task == "go on":
        run = Run(name, True)
        tinynet.load(path, run.parts)
        print(name, run.epochs(2).bits())
    else:
        run = Run(name, task == "captured").epochs(2)
        tinynet.save(run.parts, path)
        print(name, run.epochs(2).bits())
"""


def printed(folder, task, names=("mlp", "cnn", "gpt", "lstm"), **environment):
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(ROOT), str(folder), task, *names], capture_output=True,
                          text=True, timeout=600, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    lines = dict(line.split() for line in done.stdout.splitlines())
    assert list(lines) == list(names) and len(set(lines.values())) == len(names)
    return lines


def test_fresh_processes_agree_to_the_bit_eager_captured_and_taken_up_again(tmp_path):
    pytest.importorskip("numba")
    first = printed(tmp_path, "eager")
    assert printed(tmp_path, "captured") == first
    assert printed(tmp_path, "go on") == first


@pytest.mark.skipif(bool(os.environ.get("NUMBA_DISABLE_JIT")), reason="nothing is compiled")
def test_the_process_that_compiles_agrees_to_the_bit(tmp_path):
    pytest.importorskip("numba")
    names, cache = ["mlp", "gpt"], str(tmp_path / "cache")
    first = printed(tmp_path, "eager", names, NUMBA_CACHE_DIR=cache)
    assert any((tmp_path / "cache").rglob("*.nbc"))  # it did compile
    assert printed(tmp_path, "eager", names, NUMBA_CACHE_DIR=cache) == first
    assert printed(tmp_path, "captured", names[::-1], NUMBA_CACHE_DIR=cache) == first  # loads kernels in another order
