"""What a workload is, and how to add one.

Write a file `bench_<something>.py` in this folder with a list `WORKLOADS`. A workload is the same work done by several
peers; each peer is a function that builds the work and returns one step of it, a function without arguments:

    def ours():
        from tinynet import nn, optim, capture        # imports go inside: each peer runs in a process of its own
        ...
        return step                                   # runs, and is timed, again and again

    WORKLOADS = [Workload("my model", {"tinynet": ours, "PyTorch": theirs}, goals=[("tinynet", "PyTorch", 0.5)])]

A step returns when its work is done (JAX: block_until_ready). A peer whose packages are missing is shown as —: let the
ImportError pass. Two threads, float32, the same shapes and the same optimiser for all. A step need not be timed: where
the workload has `measured="ms"` (or MB, …), the number that a step returns is the figure.

    make bench                                        measures everything, writes README.md and results.svg
    python -m tests.bench tensor --quick              the workloads of bench_tensor.py, a few rounds, nothing written
    python -m tests.bench 784-128-10                  the workloads with this in their names
"""

import importlib
from pathlib import Path

FOLDER = Path(__file__).parent


def figure_text(x):
    """Three digits at least, as people write them: 0.53, 17.2, 1,234."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


class Workload:
    """The same work for several peers.

    peers      {name: function that builds a step}; the first is the one that the table is about
    goals      (ours, theirs, r): the time of `ours` should be at most r times that of `theirs`; where theirs is None,
               at most r itself
    measured   the unit of what a step returns; "µs" where steps are timed
    threads    how many threads each peer may use; a dict {peer: n} where they differ
    chart      the peer that is 1.0 in the bar chart, or None to leave the workload out of it
    """

    def __init__(self, name, peers, goals=(), measured="µs", threads=2, chart="PyTorch"):
        self.name, self.peers, self.goals, self.measured = name, peers, goals, measured
        self.threads = threads if isinstance(threads, dict) else dict.fromkeys(peers, threads)
        self.chart = chart

    def verdicts(self, figures):
        """How each goal was met, as phrases: "captured 0.04× PyTorch (goal 0.06×)"."""
        phrases = []
        for ours, theirs, goal in self.goals:
            figure, base = figures.get(ours), figures.get(theirs) if theirs else 1.0
            if figure is not None and base is not None:
                r = figure / base
                missed = "" if r <= goal else "**missed** "
                phrases.append(f"{ours} {r:.2g}× {theirs} ({missed}goal {goal:.2g}×)" if theirs else
                               f"{ours} {figure_text(r)} {self.measured} ({missed}goal {goal:,})")
        return phrases


def bench(name):
    return importlib.import_module(f"{__package__}.bench_{name}")


def families():
    """The names of the files bench_<name>.py that define WORKLOADS, by their ORDER."""
    names = sorted(path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")
                   if "\nWORKLOADS = " in path.read_text())
    return sorted(names, key=lambda name: getattr(bench(name), "ORDER", 5))


def family(name):
    """(title, {name: Workload}) of bench_<name>.py; the title is the first line of the file."""
    return bench(name).__doc__.partition("\n")[0].rstrip("."), {w.name: w for w in bench(name).WORKLOADS}
