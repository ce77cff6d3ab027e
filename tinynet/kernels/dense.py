"""Kernels of linear algebra: products, bias and activation in one pass, sums of columns, lookup of rows."""

import functools

import numpy as np

from . import Kernel
from .backend import blas, compiled
from .backend.blas import gemm, single_threaded
from .backend.compiled import chunk_bounds, jit, kernel, prange
from .backend.math32 import compiled_rule
from .normalization import add, add_rows, put

# ---------------------------------------------------------------------------------------------------- matrix products


# Numba compiles a function anew for each literal that it is called with, and for each type of `chunk`; not for these.
YES, NO, integer = np.bool_(True), np.bool_(False), np.int64


@jit
def chunk_of_product(c, a, b, ta, tb, chunk, chunks):
    """One chunk of C = A B, whose longer side is split."""
    m, n = c.shape
    if m >= n:
        lo, hi = chunk_bounds(m, chunk, chunks)
        gemm(c[lo:hi], a[:, lo:hi] if ta else a[lo:hi, :], b, ta, tb, 1, 0)
    else:
        lo, hi = chunk_bounds(n, chunk, chunks)
        gemm(c[:, lo:hi], a, b[lo:hi, :] if tb else b[:, lo:hi], ta, tb, 1, 0)


@kernel
def product(c, a, b, ta, tb, chunks):
    """C = A B, shared among the threads. a holds A by rows, or Aᵀ where `ta`; b likewise."""
    before = single_threaded(1)
    for chunk in prange(chunks):
        chunk_of_product(c, a, b, ta, tb, integer(chunk), chunks)
    single_threaded(before)


@kernel
def products(c, a, b, ta, tb, chunks):
    """c[i] = A[i] B[i], the matrices split among the threads."""
    before = single_threaded(1)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(c.shape[0], chunk, chunks)
        for i in range(lo, hi):
            gemm(c[i], a[i], b[i], ta, tb, 1, 0)
    single_threaded(before)


def by_numpy(a, b, c):
    """C = A B for any arrays."""
    before = blas.single_threaded(1)
    try:
        np.matmul(a, b, c)
    finally:
        blas.single_threaded(before)


GRAIN = 1 << 20  # multiplications for each thread: about 10 µs


def memory_order(x):
    """(array, whether it holds the transposed matrices) of matrices that lie in memory row by row or column by column,
    else None."""
    if x.flags.c_contiguous:
        return x, False
    transposed = x.mT
    return (transposed, True) if transposed.flags.c_contiguous else None


class Product(Kernel):
    """C = A B for 2-D arrays, or for stacks of them with the same leading axes."""

    __slots__ = ()

    def dispatch(self, args):
        c, a, b = args
        left, right = memory_order(a), memory_order(b)
        if (left is None or right is None or not c.flags.c_contiguous or not a.size or not b.size
                or not c.dtype == a.dtype == b.dtype or c.dtype.kind != "f" or not blas.found
                or a.ndim != b.ndim or (a.ndim > 2 and a.shape[:-2] != b.shape[:-2])):
            return by_numpy, (a, b, c)
        (a, ta), (b, tb) = left, right
        if c.ndim > 2:
            c, a, b = (x.reshape(-1, *x.shape[-2:]) for x in (c, a, b))
            if len(c) == 1:
                c, a, b = c[0], a[0], b[0]
        function = product if c.ndim == 2 else products
        chunks = c.size * (a.shape[-2] if ta else a.shape[-1]) // GRAIN
        if chunks > 1 and compiled.threads > 1:
            return function.parallel, (c, a, b, ta, tb, min(chunks, compiled.threads, c.size if c.ndim < 3 else len(c)))
        return function.serial, (c, a, b, ta, tb, 1)


matmul = batched = Product()


# -------------------------------------------------------------------------------------------- a layer and its gradient

KEEP_OUTPUT = (None, "relu", "tanh", "sigmoid", "exp")  # f' is known from y = f(z) alone; others need z
ENOUGH = 65536  # elements of y that are worth waking the threads a second time


def keeps_input(name):
    """Whether the backward pass of the activation needs z, so that `layer` takes an array for it."""
    return name not in KEEP_OUTPUT


def add_bias(y, z, b):
    for i in range(y.shape[0]):
        out = y[i]
        for j in range(b.size):
            out[j] += b[j]


def add_bias_and_activate(y, z, b):
    for i in range(y.shape[0]):
        out = y[i]
        for j in range(b.size):
            out[j] = f(out[j] + b[j])  # noqa: F821


def add_bias_keep_and_activate(y, z, b):
    for i in range(y.shape[0]):
        out, kept = y[i], z[i]
        for j in range(b.size):
            kept[j] += b[j]
            out[j] = f(kept[j])  # noqa: F821


def layer_kernel(y, z, x, w, b, chunks):
    """z = x wᵀ + b; y = f(z)"""
    before = single_threaded(1)
    for chunk in prange(chunks):
        chunk_of_product(z, x, w, NO, YES, integer(chunk), chunks)
    single_threaded(before)
    if chunks > 1 and y.size > ENOUGH:
        for chunk in prange(chunks):
            lo, hi = chunk_bounds(y.shape[0], chunk, chunks)
            apply(y[lo:hi], z[lo:hi], b)  # noqa: F821
    else:
        apply(y, z, b)  # noqa: F821


class Layer(Kernel):
    """A linear layer: see `layer`."""

    def __init__(self, name):
        function, names = ((add_bias_keep_and_activate if keeps_input(name) else add_bias_and_activate,
                            {"f": compiled_rule(name)}) if name else (add_bias, {}))
        self.apply = jit(function, name=f"bias_{name}_chunk", **names)
        self.kernel = kernel(layer_kernel, name=f"layer_{name}", apply=self.apply)

    def dispatch(self, args):
        y, z, x, w, b = args
        if not blas.found:
            return self.by_numpy, args
        chunks = y.size * x.shape[1] // GRAIN
        if chunks > 1 and compiled.threads > 1:
            return self.kernel.parallel, (*args, min(chunks, compiled.threads))
        return self.kernel.serial, (*args, 1)

    def by_numpy(self, y, z, x, w, b):
        np.matmul(x, w.T, z)
        self.apply(y, z, b)


@functools.cache
def layer(name=None):
    """The kernel (y, z, x, w, b) of a linear layer with an activation: z = x wᵀ + b, y = f(z).

    x (rows, k), w (n, k), b (n,), y and z (rows, n). z is y itself, unless `keeps_input(name)`.
    """
    return Layer(name)


@kernel
def layer_backward_together(dx, dw, db, z, x, w, chunks):
    sums = np.zeros((chunks, z.shape[1]), z.dtype)
    before = single_threaded(1)
    for chunk in prange(chunks):
        if dx is not None:
            chunk_of_product(dx, z, w, NO, NO, integer(chunk), chunks)
        if dw is not None:
            chunk_of_product(dw, z, x, YES, NO, integer(chunk), chunks)
        if db is not None:
            lo, hi = chunk_bounds(z.shape[0], chunk, chunks)
            add_rows(sums[chunk], z[lo:hi])
    single_threaded(before)
    if db is not None:
        add_rows(db, sums)


class LayerBackward(Kernel):
    """(dx, dw, db, z, x, w): dx = z w, dw = zᵀ x, db = Σ rows of z; None for one that is not wanted."""

    __slots__ = ()

    def dispatch(self, args):
        dx, dw, _, z, _, w = args
        if not blas.found:
            return self.by_numpy, args
        chunks = w.size * z.shape[0] * ((dx is not None) + (dw is not None)) // GRAIN
        if chunks > 1 and compiled.threads > 1:
            return layer_backward_together.parallel, (*args, min(chunks, compiled.threads))
        return layer_backward_together.serial, (*args, 1)

    @staticmethod
    def by_numpy(dx, dw, db, z, x, w):
        if dx is not None:
            np.matmul(z, w, dx)
        if dw is not None:
            np.matmul(z.T, x, dw)
        if db is not None:
            np.sum(z, 0, None, db)


layer_backward = LayerBackward()


def derivatives(dz, g, z, y):
    for j in range(dz.size):
        dz[j] = g[j] * derivative(z[j], y[j])  # noqa: F821


def derivative_and_sums(dz, sums, g, z, y):
    sums[:] = 0
    new = np.empty_like(sums)  # a row of its own: dz may be g, and loops over overlapping arrays do not vectorise
    for i in range(g.shape[0]):
        derivatives(new, g[i], z[i], y[i])
        put(dz[i], new)
        add(sums, new)


def bias_act_backward_kernel(dz, db, g, z, y, chunks):
    """dz[i, j] = g[i, j] f'(z[i, j]); db[j] = Σᵢ dz[i, j]"""
    sums = np.zeros((chunks, db.size), db.dtype)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(g.shape[0], chunk, chunks)
        apply(dz[lo:hi], sums[chunk], g[lo:hi], z[lo:hi], y[lo:hi])  # noqa: F821
    add_rows(db, sums)


@functools.cache
def bias_act_backward(name):
    """The kernel (dz, db, g, z, y): dz = g · f', db = Σ rows of dz, where y = f(z), and z is y unless
    `keeps_input(name)`."""
    row_by_row = jit(derivatives, name=f"{name}_derivatives", derivative=compiled_rule(name, 0))
    apply = jit(derivative_and_sums, name=f"bias_{name}_backward_chunk", derivatives=row_by_row)
    return kernel(bias_act_backward_kernel, name=f"bias_{name}_backward", apply=apply)


# --------------------------------------------------------------------------------------------------------------- sums

@kernel(measure=1, grain=32768)
def column_sums(out, x, chunks):
    """out[j] = Σᵢ x[i, j]"""
    sums = np.zeros((chunks, out.size), out.dtype)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.shape[0], chunk, chunks)
        add_rows(sums[chunk], x[lo:hi])
    add_rows(out, sums)


def blocked_form(x):
    """Blocks are added up in double precision, so that long sums keep their accuracy."""
    s = 0.0
    for lo in range(0, x.size, 4096):
        block = x[lo:lo + 4096]
        partial = x.dtype.type(0)
        for i in range(block.size):
            partial += term(block[i])  # noqa: F821
        s += partial
    return s


blocked_sum = jit(blocked_form, name="blocked_sum", term=jit(lambda x: x, name="itself"))
blocked_sum_of_squares = jit(blocked_form, name="blocked_sum_of_squares", term=jit(lambda x: x * x, name="square"))


@kernel(measure=1, grain=65536)
def total(out, x, factor, chunks):
    """out[0] = factor · Σᵢ x[i]"""
    sums = np.zeros(chunks)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        sums[chunk] = blocked_sum(x[lo:hi])
    out[0] = sums.sum() * factor


@kernel(measure=1, grain=65536)
def total_of_squares(out, x, chunks):
    """out[0] = Σᵢ x[i]²"""
    sums = np.zeros(chunks)
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(x.size, chunk, chunks)
        sums[chunk] = blocked_sum_of_squares(x[lo:hi])
    out[0] = sums.sum()


# ------------------------------------------------------------------------------------------------- transposing, lookup

@jit
def transpose_rows(y, x, lo, hi):
    for top in range(lo, hi, 16):
        for left in range(0, x.shape[0], 16):
            for i in range(top, min(top + 16, hi)):
                for j in range(left, min(left + 16, x.shape[0])):
                    y[i, j] = x[j, i]


@kernel
def transpose(y, x, chunks):
    """y[i, j] = x[j, i], by tiles of 16 × 16 that stay in the cache"""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(y.shape[0], chunk, chunks)
        transpose_rows(y, x, lo, hi)


@kernel
def embedding(out, weight, indices, chunks):
    """out[i] = weight[indices[i]]; an index outside gives a row of NaN."""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(indices.size, chunk, chunks)
        for i in range(lo, hi):
            k = indices[i]
            if 0 <= k < weight.shape[0]:
                out[i] = weight[k]
            else:
                out[i] = np.nan


@kernel(measure=1)
def embedding_backward(dweight, g, indices, chunks):
    """dweight[k] = Σ of g[i] over all i with indices[i] = k. Each thread owns a range of k, so the order is fixed."""
    for chunk in prange(chunks):
        lo, hi = chunk_bounds(dweight.shape[0], chunk, chunks)
        dweight[lo:hi] = 0
        for i in range(indices.size):
            if lo <= indices[i] < hi:
                row, grad = dweight[indices[i]], g[i]
                for j in range(row.size):
                    row[j] += grad[j]
