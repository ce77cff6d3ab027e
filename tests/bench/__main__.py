"""Measures every workload of this folder with every peer: `make bench`, or python -m tests.bench [names] [--quick].

Each peer of a workload runs in a process of its own, because thread pools of different libraries get in each other's
way within one. The processes take turns, one works while the others sleep, for several rounds: what the machine does
besides then falls on all of them alike; turns during which anything else ran are not counted, as far as possible.
A figure is the median of all steps of all rounds. Figures are kept in
results.json, from which the tables in README.md and the chart results.svg are made.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata

from . import quiet
from .report import write_report
from .workloads import FOLDER, families, family, figure_text

RESULTS = FOLDER / "results.json"
PEERS = ("numpy", "numba", "torch", "jax", "micrograd")


class Worker:
    """The process of one peer."""

    def __init__(self, family_name, workload, peer):
        command = [sys.executable, "-m", f"{__package__}.worker", family_name, workload.name, peer,
                   str(workload.threads[peer])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        cwd=FOLDER.parent.parent)
        self.turns = []  # (how much others worked meanwhile, figures)
        greeting = self.process.stdout.readline()
        self.trouble = None if greeting == '"ready"\n' else json.loads(greeting or f'"{peer} ended"')

    def work(self, seconds):
        """A turn of about so many seconds."""
        watch = quiet.Watch(self.process.pid)
        print(seconds, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if line:
            self.turns.append((watch.others(), json.loads(line)))
        else:
            self.trouble = "ended while working"

    def undisturbed(self):
        """The turns during which nobody else worked."""
        return [figures for others, figures in self.turns if others < 0.15]

    def median(self):
        """The median of the undisturbed turns, or of the three least disturbed; None without any."""
        turns = self.undisturbed()
        if len(turns) < 3:
            turns = [figures for _, figures in sorted(self.turns)[:3]]
        return None if self.trouble else statistics.median(x for figures in turns for x in figures)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(family_name, workload, rounds, seconds, patience):
    """{peer: median figure, or None where the peer is missing}"""
    workers = {}
    try:
        for peer in workload.peers:
            workers[peer] = Worker(family_name, workload, peer)
            if workers[peer].trouble:
                print(f"    {workers[peer].trouble}")
        end = time.monotonic() + patience + 1.5 * rounds * seconds * len(workers)
        while time.monotonic() < end and any(len(worker.undisturbed()) < rounds for worker in workers.values()
                                             if not worker.trouble):
            for worker in workers.values():
                if not worker.trouble:
                    quiet.wait(patience / 4)
                    worker.work(seconds)
    finally:
        for worker in workers.values():
            worker.close()
    disturbed = [peer for peer, worker in workers.items() if worker.turns and len(worker.undisturbed()) < 3]
    if disturbed:
        print(f"    something else was running during the turns of {' and '.join(disturbed)}")
    return {peer: worker.median() for peer, worker in workers.items()}


def machine():
    """What the figures depend on: the processor, and the versions of everybody."""
    try:
        with open("/proc/cpuinfo") as file:
            processor = next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    versions = [f"Python {platform.python_version()}"]
    for package in PEERS:
        try:
            versions.append(f"{package} {metadata.version(package).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            pass
    return f"{processor}, two threads; {', '.join(versions)}"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", help="families (scalar, …) or parts of workload names; default: all")
    parser.add_argument("--quick", action="store_true", help="few and short rounds; nothing is written")
    options = parser.parse_args()
    # patience: how many seconds to wait, in each workload, for others to finish
    rounds, seconds, patience = (2, 0.1, 1) if options.quick else (10, 0.3, 40)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"figures": {}}
    measured = []
    for family_name in families():
        for workload in family(family_name)[1].values():
            if not options.names or any(n == family_name or n in workload.name for n in options.names):
                print(f"{family_name}: {workload.name}", flush=True)
                figures = measure(family_name, workload, rounds, seconds, patience)
                results["figures"].setdefault(family_name, {})[workload.name] = figures
                measured.append((workload, figures))
                print(summary(workload, figures), flush=True)
    if not measured:
        sys.exit(f"no workload is called {' or '.join(options.names)}; families: {', '.join(families())}")
    if not options.quick:
        results["machine"] = machine()
        RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        write_report(results)


def summary(workload, figures):
    lines = [f"    {peer:24} {'—' if x is None else f'{figure_text(x):>10} {workload.measured}'}"
             for peer, x in figures.items()]
    return "\n".join([*lines, *(f"    {line}" for line in workload.verdicts(figures))])


if __name__ == "__main__":
    main()
