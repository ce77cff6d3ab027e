"""The matrix product of the BLAS that NumPy brought, for use inside kernels.

NumPy's own product starts BLAS's threads, and a second pool of threads beside Numba's costs more than it gains (each
pool's idle threads spin on the other's cores). So kernels call the single-threaded product themselves, one call for
each of Numba's threads. Where no BLAS with 64-bit integers is found, `found` is False and NumPy does the products.
"""

import ctypes
import os
import pathlib

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, overload

from .compiled import INTERPRETED, jit

ROW_MAJOR, NOT_TRANSPOSED, TRANSPOSED = 101, 111, 112  # CBLAS's numbers


def library():
    """The OpenBLAS inside NumPy's wheel, or None."""
    home = pathlib.Path(np.__file__).parent
    for folder in (home.parent / "numpy.libs", home / ".dylibs"):
        for path in sorted(folder.glob("*openblas*")):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                continue
    return None


def function(lib, *names):
    """The first of the names that the library has, or None."""
    return next((getattr(lib, name) for name in names if hasattr(lib, name)), None)


def find():
    """Give the BLAS's functions names of ours, which compiled code keeps over processes. Returns whether all exist."""
    lib = None if INTERPRETED else library()
    if lib is None:
        return False
    for ours, theirs in (("sgemm", "cblas_sgemm64_"), ("dgemm", "cblas_dgemm64_"),
                         ("set_blas_threads", "openblas_set_num_threads64_"),
                         ("get_blas_threads", "openblas_get_num_threads64_")):
        symbol = function(lib, f"scipy_{theirs}", theirs)
        if symbol is None:
            return False
        functions[ours] = symbol
        binding.add_symbol(f"tinynet_{ours}", ctypes.cast(symbol, ctypes.c_void_p).value)
    return True


functions = {}
found = find()
int32, int64 = types.int32, types.int64


def external_gemm(name, real):
    pointer = types.CPointer(real)
    return types.ExternalFunction(name, types.void(int32, int32, int32, int64, int64, int64, real, pointer, int64,
                                                   pointer, int64, real, pointer, int64))


sgemm, dgemm = external_gemm("tinynet_sgemm", types.float32), external_gemm("tinynet_dgemm", types.float64)
set_blas_threads = types.ExternalFunction("tinynet_set_blas_threads", types.void(int32))
get_blas_threads = types.ExternalFunction("tinynet_get_blas_threads", int32())


# ------------------------------------------------------------------------------------------------------- the product

@jit
def leading_dimension(x):
    """How many elements lie between the beginnings of two rows."""
    return max(x.strides[0] // x.itemsize, x.shape[1], 1)


def gemm(c, a, b, ta, tb, alpha, beta):
    """C ← α A B + β C. c, a, b are 2-D with their rows in one piece; a holds Aᵀ where `ta`, b holds Bᵀ where `tb`."""
    product = alpha * ((a.T if ta else a) @ (b.T if tb else b))
    c[...] = product + beta * c if beta else product


@overload(gemm, jit_options={"nogil": True})
def compiled_gemm(c, a, b, ta, tb, alpha, beta):
    product, real = (sgemm, np.float32) if c.dtype == types.float32 else (dgemm, np.float64)

    def call(c, a, b, ta, tb, alpha, beta):
        m, n = c.shape
        k = a.shape[0] if ta else a.shape[1]
        product(ROW_MAJOR, TRANSPOSED if ta else NOT_TRANSPOSED, TRANSPOSED if tb else NOT_TRANSPOSED, m, n, k,
                real(alpha), a.ctypes, leading_dimension(a), b.ctypes, leading_dimension(b), real(beta), c.ctypes,
                leading_dimension(c))

    return call


# ------------------------------------------------------------------------------------------------ one thread at a time
# How many threads BLAS uses is one number for the whole process, and kernels run in several Python threads at once.
# So it is counted how many of them want BLAS to use one thread: the first to come sets it, the last to leave puts back
# what the first had found.

LOCK, USERS, BEFORE = range(3)
shared = (ctypes.c_int64 * 3)()
binding.add_symbol("tinynet_blas_shared", ctypes.addressof(shared))


def atomic(operation):
    """A function (place, number) of compiled code that does operation on shared[place] and returns what was there."""
    def typing(context, place, number):
        def lower(context, builder, signature, args):
            first = context.get_c_value(builder, ir.IntType(64), "tinynet_blas_shared")
            place, number = (context.cast(builder, x, t, int64) for x, t in zip(args, signature.args))
            return builder.atomic_rmw(operation, builder.gep(first, [place]), number, "seq_cst")

        return int64(place, number), lower

    return intrinsic(typing)


swap, add = atomic("xchg"), atomic("add")


@jit
def single_threaded(threads):
    """single_threaded(1) begins a stretch in which BLAS uses one thread, and returns the argument that ends it, 0."""
    if found:
        while swap(LOCK, 1):  # held by another for a few nanoseconds
            pass
        if threads:
            if add(USERS, 1) == 0:
                swap(BEFORE, get_blas_threads())
                set_blas_threads(1)
        elif add(USERS, -1) == 1:
            set_blas_threads(swap(BEFORE, 0))
        swap(LOCK, 0)
    return 0


def after_fork():
    """In the child: the kernels that wanted BLAS to use one thread run on in the parent."""
    if found and shared[USERS]:
        functions["set_blas_threads"](shared[BEFORE])
    shared[:] = 0, 0, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)
