"""The README keeps its word: its tour runs, its links lead somewhere, and it lists every lesson and every file."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\]\(([^)#]+)\)", README)


def test_the_tour_runs_from_top_to_bottom(tmp_path):
    pytest.importorskip("numba")
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 5
    tour = tmp_path / "tour.py"
    tour.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
                           f"import runpy; runpy.run_path({str(tour)!r})"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "layers.0.weight[0,1]" in done.stdout
    assert {"f.svg", "loss.svg"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("link", [link for link in LINKS if "://" not in link])
def test_links_lead_to_files(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("lesson", sorted(path.name for path in (ROOT / "demos").glob("[0-9]*.py")))
def test_every_lesson_is_listed(lesson):
    assert f"demos/{lesson}" in LINKS


def test_lessons_are_in_reading_order():
    lessons = [link for link in LINKS if re.match(r"demos/\d", link)]
    assert lessons == sorted(lessons)


# ------------------------------------------------------------------------------------------------------ contributing

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"[\w/]+\.(?:py|md|js|css|pyi)\b", CONTRIBUTING)))


@pytest.mark.parametrize("path", PATHS)
def test_contributing_names_files_that_exist(path):
    folders = ("", "tinynet", "tinynet/viz", "tinynet/viz/assets", "tests/viz")
    assert any((ROOT / folder / path).exists() for folder in folders)


@pytest.mark.parametrize("file, name", [
    ("kernels/backend/math32.py", "def gelu"), ("kernels/activations.py", "def unary"),
    ("kernels/dense.py", "def layer("),
    ("nn/module.py", "def as_input"), ("viz/drawings.py", '"negative1"'), ("kernels/updates.py", "def adam_update"),
    ("data/batches.py", ".shuffle(order)"), ("functional/dense.py", "def fused_dropout"), ("value.py", "RULES"),
])
def test_contributing_tells_where_things_are(file, name):
    assert file in CONTRIBUTING and name in (ROOT / "tinynet" / file).read_text(encoding="utf-8")
