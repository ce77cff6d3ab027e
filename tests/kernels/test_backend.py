"""How kernels are launched, captured, split among threads, cached, and run without a compiler."""

import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tinynet
from tests.kernels.common import INTERPRETED, call, doubles, normal, same
from tinynet import kernels
from tinynet.graph import mode
from tinynet.kernels import activations, dense, launch


class Plan:
    def __init__(self):
        self.steps = []


def test_a_plan_notes_what_ran_and_can_repeat_it():
    x, y, z = normal(5), np.empty(5, np.float32), np.empty(5, np.float32)
    mode.plan = plan = Plan()
    try:
        launch(activations.unary("tanh"), y, x)
        launch(np.add, y, y, z)
    finally:
        mode.plan = None
    x[:] = normal(5)
    for kernel, args in plan.steps:
        kernel(*args)
    same(z, 2 * np.tanh(*doubles(x)))
    launch(np.add, y, y, z)
    assert len(plan.steps) == 2


def test_small_work_stays_on_one_thread():
    kernel = activations.unary("relu")
    small, large = np.zeros(100, np.float32), np.zeros(1_000_000, np.float32)
    assert kernel.dispatch((small, small))[0] is kernel.serial
    if kernels.get_num_threads() > 1:
        assert kernel.dispatch((large, large))[0] is kernel.parallel


def test_threads_can_be_limited():
    before = kernels.get_num_threads()
    large = np.zeros(1_000_000, np.float32)
    try:
        kernels.set_num_threads(1)
        assert kernels.get_num_threads() == 1
        assert activations.unary("relu").dispatch((large, large))[1][-1] == 1
    finally:
        kernels.set_num_threads(before)
    for wrong in (0, 10_000, 1.5):
        with pytest.raises(ValueError, match="set_num_threads: expected an integer from 1 to"):
            kernels.set_num_threads(wrong)


def test_shared_sums_come_out_the_same_every_time():
    x, sums = normal(501, 33), set()
    for _ in range(20):
        out = np.empty(33, np.float32)
        call(dense.column_sums, 3, out, x)
        sums.add(out.tobytes())
    assert len(sums) == 1


def python(code, folder, **environment):
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment})


def test_importing_kernels_imports_no_numba():
    code = "import sys, tinynet.kernels.updates; assert not {'numba', 'numpy'} & set(sys.modules), 'imported'"
    done = python(code, pathlib.Path(tinynet.__file__).parents[1])
    assert done.returncode == 0, done.stderr


RELU = """
import numpy as np
from tinynet.kernels import attention, activations, launch
x = np.array([-2.0, 3.0], np.float32)
y = np.empty_like(x)
launch(activations.unary('relu'), y, x)
print(y.tolist())
"""


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_the_cache_outlives_the_process_and_follows_the_derivative_table(tmp_path):
    package = tmp_path / "tinynet"
    shutil.copytree(pathlib.Path(tinynet.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    for folder in (package, package / "kernels"):
        (folder / "__pycache__").write_text("no folder can be made here")  # as in a package nobody may write to
    first, second = python(RELU, tmp_path, **home), python(RELU, tmp_path, **home)
    assert first.stdout == second.stdout == "[0.0, 3.0]\n", first.stderr
    assert first.stderr.count("first run only") == 1 and not second.stderr
    assert list((tmp_path / "home").rglob("*.nbc"))
    table = package / "value.py"
    text = table.read_text()
    assert "0.0 if a <= 0.0 else a," in text
    table.write_text(text.replace("0.0 if a <= 0.0 else a,", "-1.0 if a <= 0.0 else a,"))
    assert python(RELU, tmp_path, **home).stdout == "[-1.0, 3.0]\n"


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the second run")
def test_everything_holds_without_the_compiler(tmp_path):
    here = pathlib.Path(__file__).resolve()
    code = f"import sys, pytest; sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', {str(here.parent)!r}]))"
    done = python(code, here.parents[2], NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stdout[-3000:]
