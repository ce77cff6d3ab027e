"""The matrix product of the BLAS that NumPy brought, for use inside kernels.

NumPy's own product starts BLAS's threads, and a second pool of threads beside Numba's costs more than it gains (each
pool's idle threads spin on the other's cores). So kernels call the single-threaded product themselves, one call for
each of Numba's threads. Where no BLAS with 64-bit integers is found, `found` is False and NumPy does the products.
"""

import ctypes
import pathlib

import numpy as np
from llvmlite import binding
from numba import types

from .compiled import INTERPRETED

ROWS, AS_IT_IS, TRANSPOSED = 101, 111, 112  # CBLAS's numbers for row-major, A and Aᵀ


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
        binding.add_symbol(f"tinynet_{ours}", ctypes.cast(symbol, ctypes.c_void_p).value)
    return True


found = find()
int32, int64 = types.int32, types.int64


def product(name, real):
    pointer = types.CPointer(real)
    return types.ExternalFunction(name, types.void(int32, int32, int32, int64, int64, int64, real, pointer, int64,
                                                   pointer, int64, real, pointer, int64))


sgemm, dgemm = product("tinynet_sgemm", types.float32), product("tinynet_dgemm", types.float64)
set_blas_threads = types.ExternalFunction("tinynet_set_blas_threads", types.void(int32))
get_blas_threads = types.ExternalFunction("tinynet_get_blas_threads", int32())
