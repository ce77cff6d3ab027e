"""Whether the machine is doing something else: two threads that wait for each other suffer most from a third."""

import os
import time

TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def busy():
    """Seconds that all processors have worked since the machine started; None where nobody can tell (not Linux)."""
    try:
        with open("/proc/stat") as file:
            user, nice, system, idle, wait, *rest = map(int, file.readline().split()[1:])
    except OSError:
        return None
    return (user + nice + system + sum(rest[:3])) / TICK


def used_by(pid):
    """Seconds that one process has worked, in all its threads."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICK  # user, system, and those of its children


class Watch:
    """How much others worked, as a share of one processor, since the watch was made."""

    def __init__(self, pid):
        self.pid, self.started = pid, time.perf_counter()
        self.busy, self.own = busy(), used_by(pid)

    def others(self):
        if self.busy is None:
            return 0.0
        # the clocks tick 100 times a second, one for each processor: 0.03 s is their error
        return (busy() - self.busy - used_by(self.pid) + self.own - 0.03) / (time.perf_counter() - self.started)


def wait(patience):
    """Wait until the machine is quiet, for at most `patience` seconds. Returns the seconds it took."""
    start = time.perf_counter()
    while time.perf_counter() - start < patience:
        watch = Watch(os.getpid())
        time.sleep(0.1)
        if watch.others() < 0.2:
            break
    return time.perf_counter() - start
