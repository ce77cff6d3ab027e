"""One peer of one workload, in a process of its own: python -m tests.bench.worker family workload peer threads

It builds the step, warms up, and says "ready". From then on it answers each line "seconds" from its input with a line
of figures (JSON): the steps that it ran in about that time. While it waits it does nothing, so that another can work.
"""

import contextlib
import gc
import json
import os
import sys
import time

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def main(family_name, name, peer, threads):
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a peer prints must not come between the answers

    def answer(x):
        print(json.dumps(x), file=answers, flush=True)

    for variable in THREADS:
        os.environ[variable] = threads
    os.environ.pop("OPENBLAS_CORETYPE", None)  # every library chooses by the processor itself
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={str(threads != '1').lower()} " \
                              f"intra_op_parallelism_threads={threads}"
    from .workloads import family

    workload = family(family_name)[1][name]
    try:
        step = workload.peers[peer]()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(int(threads))
        for _ in range(3):
            step()
    except ImportError as error:
        return answer(f"{peer} is missing: {error}")
    except Exception as error:  # a peer that fails is reported, and the others go on
        return answer(f"{peer} failed: {type(error).__name__}: {error}")
    if workload.measured == "µs":
        timed(step, 0.3)
    answer("ready")
    gc.collect()
    for line in sys.stdin:
        answer(timed(step, float(line)) if workload.measured == "µs" else [step()])


def timed(step, seconds):
    """The times in µs of at least three steps, and of as many as fit into `seconds`."""
    times, end = [], time.perf_counter_ns() + seconds * 1e9
    before = time.perf_counter_ns()
    while len(times) < 3 or before < end:
        step()
        now = time.perf_counter_ns()
        times.append((now - before) / 1e3)
        before = now
    return times


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main(*sys.argv[1:])
