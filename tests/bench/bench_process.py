"""A fresh process: what starting costs, what memory is needed, and what a second thread brings."""

import os
import subprocess
import sys
import tempfile

from .bench_tensor import captured
from .workloads import Workload

ORDER = 9
CLOCK = "import time; start = time.perf_counter(); {}; print((time.perf_counter() - start) * 1e3)"
TRAIN = """import resource
import {0} as torch, {0}.nn as nn, {0}.optim as optim
model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer, loss_of = optim.Adam(model.parameters()), nn.CrossEntropyLoss()
x, y = torch.randn(128, 784), torch.randint(0, 10, (128,))
def step(x, y):
    loss = loss_of(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
{1}
for _ in range({2}):
    float(step(x, y))
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""


def fresh(code, **environment):
    """The number that a new Python prints after running the code."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env={**os.environ, **environment})
    if result.returncode:
        raise (ImportError if "ModuleNotFoundError" in result.stderr else RuntimeError)(result.stderr.splitlines()[-1])
    return float(result.stdout)


def timed(statement):
    """The ms that a statement takes in a fresh process."""
    return lambda: lambda: fresh(CLOCK.format(statement))


def first_step(package, cold=False):
    """ms from `import` to the end of the first training step, of 784-128-10."""
    code = CLOCK.format(f"exec({TRAIN.format(package, '', 1)!r})")

    def step():
        with tempfile.TemporaryDirectory() as folder:
            return fresh(code, **({"NUMBA_CACHE_DIR": folder} if cold else {}))

    return lambda: step


def memory(package, captured=""):
    """MB at most, importing and fifty training steps of 784-128-10 together."""
    code = TRAIN.format(package, captured, 50) + "print(memory)"
    return lambda: lambda: fresh(code)


def large():
    return captured((784, 1024, 1024, 10), 256)


WORKLOADS = [
    Workload("import Value, ms", {"tinynet": timed("from tinynet import Value")},
             [("tinynet", None, 20)], measured="ms", chart=None),
    Workload("import and first training step, ms", {"tinynet": first_step("tinynet"), "PyTorch": first_step("torch")},
             [("tinynet", None, 1500)], measured="ms", chart=None),
    Workload("the same before any kernel was compiled, ms", {"tinynet": first_step("tinynet", cold=True)},
             [("tinynet", None, 10_000)], measured="ms", chart=None),
    Workload("784-128-10, memory at most, MB",
             {"tinynet": memory("tinynet", "step = torch.capture(step)"), "PyTorch": memory("torch")},
             [("tinynet", "PyTorch", 1.0)], measured="MB", chart=None),
    Workload("784-1024-1024-10, captured, µs", {"two threads": large, "one thread": large},
             [("two threads", "one thread", 0.59)], threads={"two threads": 2, "one thread": 1}, chart=None),
]
