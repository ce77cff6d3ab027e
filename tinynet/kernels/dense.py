"""Kernels of linear algebra: products, bias and activation in one pass, sums of columns, lookup of rows."""

import functools

import numpy as np
from numba import types
from numba.extending import overload

from . import Kernel
from .backend import blas, compiled, panels
from .backend.compiled import jit, kernel, prange, span
from .backend.math32 import row
from .normalization import add, add_rows, put

# ---------------------------------------------------------------------------------------------------- matrix products


def gemm(c, a, b, ta, tb, alpha, beta):
    """C ← α A B + β C. c, a, b are 2-D with their rows in one piece; a holds Aᵀ where `ta`, b holds Bᵀ where `tb`."""
    product = alpha * ((a.T if ta else a) @ (b.T if tb else b))
    c[...] = product + beta * c if beta else product


@overload(gemm, jit_options={"nogil": True})
def gemm_compiled(c, a, b, ta, tb, alpha, beta):
    product, real = (blas.sgemm, np.float32) if c.dtype == types.float32 else (blas.dgemm, np.float64)

    def call(c, a, b, ta, tb, alpha, beta):
        m, n = c.shape
        k = a.shape[0] if ta else a.shape[1]
        product(blas.ROWS, blas.TRANSPOSED if ta else blas.AS_IT_IS, blas.TRANSPOSED if tb else blas.AS_IT_IS,
                m, n, k, real(alpha), a.ctypes, step(a), b.ctypes, step(b), real(beta), c.ctypes, step(c))

    def loops(c, a, b, ta, tb, alpha, beta):
        for i in range(c.shape[0]):
            for j in range(c.shape[1]):
                s = c[i, j] * beta if beta else c[i, j] * 0
                for k in range(a.shape[0] if ta else a.shape[1]):
                    s += alpha * (a[k, i] if ta else a[i, k]) * (b[j, k] if tb else b[k, j])
                c[i, j] = s

    def vectors(c, a, b, ta, tb, alpha, beta):
        m, n = c.shape
        by_panels(c.ctypes.data, a.ctypes.data, b.ctypes.data, m, n, a.shape[0] if ta else a.shape[1], ta, tb,
                  real(alpha), real(beta), step(a), step(b), step(c))

    if panels.found:
        panels.prepare(c.dtype.name)
        by_panels = panels.products[c.dtype.name]
        return vectors
    return call if blas.found else loops


@functools.cache
def native(dtype):
    """Whether kernels may multiply such numbers; else NumPy's product is the better one."""
    if panels.found:
        panels.prepare(dtype.name)
    return blas.found or panels.found


@jit
def alone(threads):
    """See `blas.alone`; not needed where the products of kernels are our own."""
    return 0 if panels.found else blas.alone(threads)


@jit
def step(x):
    """How many elements lie between the beginnings of two rows."""
    return max(x.strides[0] // x.itemsize, x.shape[1], 1)


# Numba compiles a function anew for each literal that it is called with, and for each type of `part`; not for these.
YES, NO, whole = np.bool_(True), np.bool_(False), np.int64


@jit
def share_of_product(c, a, b, ta, tb, part, parts):
    """One part of C = A B, whose longer side is split."""
    m, n = c.shape
    if m >= n:
        lo, hi = span(m, part, parts)
        gemm(c[lo:hi], a[:, lo:hi] if ta else a[lo:hi, :], b, ta, tb, 1, 0)
    else:
        lo, hi = span(n, part, parts)
        gemm(c[:, lo:hi], a, b[lo:hi, :] if tb else b[:, lo:hi], ta, tb, 1, 0)


@kernel
def product(c, a, b, ta, tb, parts):
    """C = A B, shared among the threads. a holds A by rows, or Aᵀ where `ta`; b likewise."""
    before = alone(1)
    for part in prange(parts):
        share_of_product(c, a, b, ta, tb, whole(part), parts)
    alone(before)


@kernel
def products(c, a, b, ta, tb, parts):
    """c[i] = A[i] B[i], the matrices split among the threads."""
    before = alone(1)
    for part in prange(parts):
        lo, hi = span(c.shape[0], part, parts)
        for i in range(lo, hi):
            gemm(c[i], a[i], b[i], ta, tb, 1, 0)
    alone(before)


def by_numpy(a, b, c):
    """C = A B for any arrays."""
    before = blas.alone(1)
    try:
        np.matmul(a, b, c)
    finally:
        blas.alone(before)


GRAIN = 1 << 20  # multiplications for each thread: about 10 µs


def by_rows(x):
    """(array, whether it holds the transposed matrices) of matrices that lie in memory row by row or column by column,
    else None."""
    if x.flags.c_contiguous:
        return x, False
    turned = x.mT
    return (turned, True) if turned.flags.c_contiguous else None


class Product(Kernel):
    """C = A B for 2-D arrays, or for stacks of them with the same leading axes."""

    __slots__ = ()

    def pick(self, args):
        c, a, b = args
        left, right = by_rows(a), by_rows(b)
        if (left is None or right is None or not c.flags.c_contiguous or not a.size or not b.size
                or not c.dtype == a.dtype == b.dtype or c.dtype.kind != "f" or not native(c.dtype)
                or a.ndim != b.ndim or (a.ndim > 2 and a.shape[:-2] != b.shape[:-2])):
            return by_numpy, (a, b, c)
        (a, ta), (b, tb) = left, right
        if c.ndim > 2:
            c, a, b = (x.reshape(-1, *x.shape[-2:]) for x in (c, a, b))
            if len(c) == 1:
                c, a, b = c[0], a[0], b[0]
        function = product if c.ndim == 2 else products
        parts = c.size * (a.shape[-2] if ta else a.shape[-1]) // GRAIN
        if parts > 1 and compiled.threads > 1:
            return function.parallel, (c, a, b, ta, tb, min(parts, compiled.threads, c.size if c.ndim < 3 else len(c)))
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


def layer_kernel(y, z, x, w, b, parts):
    """z = x wᵀ + b; y = f(z)"""
    before = alone(1)
    for part in prange(parts):
        share_of_product(z, x, w, NO, YES, whole(part), parts)
    alone(before)
    if parts > 1 and y.size > ENOUGH:
        for part in prange(parts):
            lo, hi = span(y.shape[0], part, parts)
            chunk(y[lo:hi], z[lo:hi], b)  # noqa: F821
    else:
        chunk(y, z, b)  # noqa: F821


class Layer(Kernel):
    """A linear layer: see `layer`."""

    def __init__(self, name):
        function, names = ((add_bias_keep_and_activate if keeps_input(name) else add_bias_and_activate,
                            {"f": row(name)}) if name else (add_bias, {}))
        self.chunk = jit(function, name=f"bias_{name}_chunk", **names)
        self.parts = kernel(layer_kernel, name=f"layer_{name}", chunk=self.chunk)

    def pick(self, args):
        y, z, x, w, b = args
        if not native(y.dtype):
            return self.by_numpy, args
        parts = y.size * x.shape[1] // GRAIN
        if parts > 1 and compiled.threads > 1:
            return self.parts.parallel, (*args, min(parts, compiled.threads))
        return self.parts.serial, (*args, 1)

    def by_numpy(self, y, z, x, w, b):
        np.matmul(x, w.T, z)
        self.chunk(y, z, b)


@functools.cache
def layer(name=None):
    """The kernel (y, z, x, w, b) of a linear layer with an activation: z = x wᵀ + b, y = f(z).

    x (rows, k), w (n, k), b (n,), y and z (rows, n). z is y itself, unless `keeps_input(name)`.
    """
    return Layer(name)


@kernel
def layer_backward_together(dx, dw, db, z, x, w, parts):
    sums = np.zeros((parts, z.shape[1]), z.dtype)
    before = alone(1)
    for part in prange(parts):
        if dx is not None:
            share_of_product(dx, z, w, NO, NO, whole(part), parts)
        if dw is not None:
            share_of_product(dw, z, x, YES, NO, whole(part), parts)
        if db is not None:
            lo, hi = span(z.shape[0], part, parts)
            add_rows(sums[part], z[lo:hi])
    alone(before)
    if db is not None:
        add_rows(db, sums)


class LayerBackward(Kernel):
    """(dx, dw, db, z, x, w): dx = z w, dw = zᵀ x, db = Σ rows of z; None for one that is not wanted."""

    __slots__ = ()

    def pick(self, args):
        dx, dw, _, z, _, w = args
        if not native(z.dtype):
            return self.by_numpy, args
        parts = w.size * z.shape[0] * ((dx is not None) + (dw is not None)) // GRAIN
        if parts > 1 and compiled.threads > 1:
            return layer_backward_together.parallel, (*args, min(parts, compiled.threads))
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


def slopes(dz, g, z, y):
    for j in range(dz.size):
        dz[j] = g[j] * slope(z[j], y[j])  # noqa: F821


def slope_and_sums(dz, sums, g, z, y):
    sums[:] = 0
    new = np.empty_like(sums)  # a row of its own: dz may be g, and loops over overlapping arrays do not vectorise
    for i in range(g.shape[0]):
        slopes(new, g[i], z[i], y[i])
        put(dz[i], new)
        add(sums, new)


def bias_act_backward_kernel(dz, db, g, z, y, parts):
    """dz[i, j] = g[i, j] f'(z[i, j]); db[j] = Σᵢ dz[i, j]"""
    sums = np.zeros((parts, db.size), db.dtype)
    for part in prange(parts):
        lo, hi = span(g.shape[0], part, parts)
        chunk(dz[lo:hi], sums[part], g[lo:hi], z[lo:hi], y[lo:hi])  # noqa: F821
    add_rows(db, sums)


@functools.cache
def bias_act_backward(name):
    """The kernel (dz, db, g, z, y): dz = g · f', db = Σ rows of dz, where y = f(z), and z is y unless
    `keeps_input(name)`."""
    row_by_row = jit(slopes, name=f"{name}_slopes", slope=row(name, 0))
    chunk = jit(slope_and_sums, name=f"bias_{name}_backward_chunk", slopes=row_by_row)
    return kernel(bias_act_backward_kernel, name=f"bias_{name}_backward", chunk=chunk)


# --------------------------------------------------------------------------------------------------------------- sums

@kernel(measure=1, grain=32768)
def column_sums(out, x, parts):
    """out[j] = Σᵢ x[i, j]"""
    sums = np.zeros((parts, out.size), out.dtype)
    for part in prange(parts):
        lo, hi = span(x.shape[0], part, parts)
        add_rows(sums[part], x[lo:hi])
    add_rows(out, sums)


@jit
def blocked_sum(x):
    """The sum; blocks are added up in double precision, so that long sums keep their accuracy."""
    s = 0.0
    for lo in range(0, x.size, 4096):
        block = x[lo:lo + 4096]
        part = x.dtype.type(0)
        for i in range(block.size):
            part += block[i]
        s += part
    return s


@kernel(measure=1, grain=65536)
def total(out, x, factor, parts):
    """out[0] = factor · Σᵢ x[i]"""
    sums = np.zeros(parts)
    for part in prange(parts):
        lo, hi = span(x.size, part, parts)
        sums[part] = blocked_sum(x[lo:hi])
    out[0] = sums.sum() * factor


@jit
def squares(x):
    s = x.dtype.type(0)
    for i in range(x.size):
        s += x[i] * x[i]
    return s


@kernel(measure=1, grain=65536)
def total_of_squares(out, x, parts):
    """out[0] = Σᵢ x[i]²; blocks are added up in double precision."""
    sums = np.zeros(parts)
    for part in prange(parts):
        lo, hi = span(x.size, part, parts)
        for begin in range(lo, hi, 4096):
            sums[part] += squares(x[begin:min(begin + 4096, hi)])
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
def transpose(y, x, parts):
    """y[i, j] = x[j, i], by tiles of 16 × 16 that stay in the cache"""
    for part in prange(parts):
        lo, hi = span(y.shape[0], part, parts)
        transpose_rows(y, x, lo, hi)


@kernel
def embedding(out, weight, indices, parts):
    """out[i] = weight[indices[i]]; an index outside gives a row of NaN."""
    for part in prange(parts):
        lo, hi = span(indices.size, part, parts)
        for i in range(lo, hi):
            k = indices[i]
            if 0 <= k < weight.shape[0]:
                out[i] = weight[k]
            else:
                out[i] = np.nan


@kernel(measure=1)
def embedding_backward(dweight, g, indices, parts):
    """dweight[k] = Σ of g[i] over all i with indices[i] = k. Each thread owns a range of k, so the order is fixed."""
    for part in prange(parts):
        lo, hi = span(dweight.shape[0], part, parts)
        dweight[lo:hi] = 0
        for i in range(indices.size):
            if lo <= indices[i] < hi:
                row, share = dweight[indices[i]], g[i]
                for j in range(row.size):
                    row[j] += share[j]
