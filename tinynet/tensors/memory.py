"""Memory for the results of operations. Every array that a kernel writes comes from `empty_array`, and every number in
it is written through `launch`: that is all that `capture` needs to record a step and to replay it.
"""

from __future__ import annotations

import ctypes
import os
import sys

import numpy as np

from .. import kernels
from ..graph import mode
from ..kernels import launch

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def keep_freed_memory() -> None:
    """Let the C library keep freed arrays for the next ones, up to a gigabyte. By its own rules it gives much of that
    back to the system after each step, and taking it again costs a page fault for every 4 KiB: more than all the
    arithmetic of a convolution. What the environment says about it (MALLOC_…) is left as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None  # GNU's library has it
    if mallopt is not None and not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 1 << 30)
        mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 1 << 25)  # older versions take no more


keep_freed_memory()


def empty_array(shape, dtype) -> np.ndarray:
    """A new array for a kernel to write: the one function that allocates memory for results."""
    try:
        array = np.empty(shape, dtype)
    except (MemoryError, OverflowError):
        raise ValueError(f"tensor: there is not enough memory for shape {shape}, {np.dtype(dtype)}") from None
    if mode.plan is not None:
        mode.plan.own_memory(array)
    return array


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array itself where it is C-contiguous, else a copy that is: kernels read no other."""
    return array if array.flags.c_contiguous else copied(array)


def copied(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy."""
    out = empty_array(array.shape, array.dtype)
    launch(np.copyto, out, array)
    return out


def cast(array: np.ndarray, dtype) -> np.ndarray:
    """The array itself, or a copy of that dtype."""
    if array.dtype == dtype:
        return array
    out = empty_array(array.shape, dtype)
    launch(np.copyto, out, array)
    return out


def filled(shape, dtype, number) -> np.ndarray:
    """A new array with one number everywhere."""
    out = empty_array(shape, dtype)
    if out.dtype in FLOATS:
        launch(kernels.activations.fill, out.ravel(), number)
    else:
        launch(np.copyto, out, number)
    return out


def added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b, as a new array."""
    out = empty_array(a.shape, a.dtype)
    launch(np.add, a, b, out)
    return out


def owner(array: np.ndarray) -> np.ndarray:
    """The array whose memory it is, of which others may be views."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def same_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays of one shape and dtype are the same elements in memory."""
    return a.strides == b.strides and a.__array_interface__["data"] == b.__array_interface__["data"]
