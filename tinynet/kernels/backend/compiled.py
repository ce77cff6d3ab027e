"""How kernels are compiled, cached and shared among threads.

A kernel is written once, as a loop over `chunks`:

    def kernel(y, x, chunks):
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(x.size, chunk, chunks)
            apply(y[lo:hi], x[lo:hi])

and compiled twice, each on first use: serially, for chunks = 1, and with a thread for each chunk. The size of the work
decides. Results depend on the number of chunks, never on which thread was first, nor on what other Python threads
compute meanwhile.
"""

import functools
import hashlib
import os
import pathlib
import sys
import threading
from types import FunctionType

# Idle threads of one pool must not spin on the cores that another pool (BLAS, PyTorch) wants: set before Numba starts.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import numba
from llvmlite.binding import ffi
from numba import prange  # noqa: F401
from numba.core import event
from numba.core.compiler_lock import global_compiler_lock as compiling

from .launches import Kernel

INTERPRETED = bool(numba.config.DISABLE_JIT)

# Numba drops a cached kernel when the kernel's own file changes. Kernels are also made of functions of other files here
# and of the derivative table, so the contents of all of these are part of each kernel's name in the cache.
KERNELS = pathlib.Path(__file__).parents[1]
SOURCES = [KERNELS.parent / "value.py", *sorted(KERNELS.rglob("*.py"))]
STAMP = hashlib.sha1(b"".join(path.read_bytes() for path in SOURCES)).hexdigest()[:10]

SAME_ORDER = {"contract"}  # multiply and add in one rounding; sums in the order in which they are written
ANY_ORDER = {"contract", "reassoc", "nsz", "arcp"}  # sums may be split over a vector's lanes; NaN and ∞ still count

threads = numba.config.NUMBA_NUM_THREADS


def set_num_threads(n):
    global threads
    limit = numba.config.NUMBA_NUM_THREADS
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= limit:
        raise ValueError(f"set_num_threads: expected an integer from 1 to {limit}, got {n!r}")
    numba.set_num_threads(n)
    threads = n


launching = threading.Lock()  # one parallel kernel at a time: not every pool of threads that Numba can use bears two
llvm = ffi.lib._lock  # whoever calls LLVM holds it
orphaned = False  # this process is the child of a fork, and the pool of threads stayed with the parent


class Launch:
    """The parallel form of a kernel, as a function. In the child of a fork it runs serially, over the same chunks,
    and so with the same results: GNU OpenMP ends a child that asks for threads."""

    __slots__ = ("parallel", "serial")

    def __init__(self, parallel, serial):
        self.parallel, self.serial = parallel, serial

    def __call__(self, *args):
        if orphaned:
            self.serial(*args)
        else:
            with launching:
                self.parallel(*args)


def before_fork():
    """Wait until no other thread launches or compiles: the child would inherit a lock that nobody gives back."""
    launching.acquire()
    compiling.acquire()
    llvm.__enter__()


def after_fork():
    llvm.__exit__(None, None, None)
    compiling.release()
    launching.release()


def after_fork_in_child():
    global orphaned
    after_fork()
    try:
        numba.threading_layer()
    except ValueError:  # no pool was started
        return
    orphaned = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=after_fork_in_child)


def jit(function=None, *, name=None, parallel=False, math=ANY_ORDER, cache=True, inline=True, **names):
    """The function compiled. `names` are given to it beside the globals of its file; `name` tells its copies apart.

    With `inline` its code becomes part of each function that calls it: only so do loops vectorise, and only so do
    results depend on the calling kernel alone. Of copies that are called, each optimised together with another kernel
    and so adding in another order, a process uses the one that it met first.
    """
    if function is None:
        return functools.partial(jit, name=name, parallel=parallel, math=math, cache=cache, inline=inline, **names)
    scope = {**function.__globals__, **names} if names else function.__globals__
    name = name or function.__name__
    copy = FunctionType(function.__code__, scope, name, function.__defaults__, function.__closure__)
    copy.__module__, copy.__doc__ = function.__module__ or __name__, function.__doc__
    copy.__qualname__ = f"{name}{'_parallel' * parallel}_{STAMP}"
    return numba.njit(copy, cache=cache, parallel=parallel, fastmath=math, forceinline=inline, no_cfunc_wrapper=True,
                      error_model="numpy", nogil=True)


class ChunkedKernel(Kernel):
    """A kernel of `chunks`: serial below `grain` elements (of argument number `measure`) for each thread."""

    def __init__(self, function, name, grain, measure, math, names):
        self.name, self.grain, self.measure, self.__doc__ = name, grain, measure, function.__doc__
        self.serial = jit(function, name=name, math=math, inline=False, **names)
        self.parallel = Launch(jit(function, name=name, math=math, parallel=True, inline=False, **names), self.serial)

    def __repr__(self):
        return f"<kernel {self.name}>"

    def dispatch(self, args):
        chunks = args[self.measure].size // self.grain
        if chunks > 1 and threads > 1:
            return self.parallel, (*args, min(chunks, threads))
        return self.serial, (*args, 1)


def kernel(function=None, *, name=None, grain=16384, measure=0, math=ANY_ORDER, **names):
    """The function, whose last argument is `chunks`, as a kernel."""
    if function is None:
        return functools.partial(kernel, name=name, grain=grain, measure=measure, math=math, **names)
    return ChunkedKernel(function, name or function.__name__, grain, measure, math, names)


@jit
def chunk_bounds(n, chunk, chunks):
    """Where chunk number `chunk` of n items begins and ends."""
    return n * chunk // chunks, n * (chunk + 1) // chunks


class Notice(event.Listener):
    """Says once that the first run compiles."""

    said = False

    def on_start(self, happening):
        function = getattr(happening.data.get("dispatcher"), "py_func", None)
        if not Notice.said and function is not None and function.__module__.startswith("tinynet.kernels"):
            Notice.said = True
            print(f"tinynet: compiling {function.__name__} … (first run only)", file=sys.stderr, flush=True)

    def on_end(self, happening):
        pass


event.register("numba:compile", Notice())
