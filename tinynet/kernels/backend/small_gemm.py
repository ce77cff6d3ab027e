"""Products of small matrices that stay in the cache, for use inside kernels: a tile of the result at a time is held in
vector registers while the loop runs over the depth.

A library's product packs its operands and pays for its call, which is worth it for large matrices only; the matrices of
one head of attention are small, and lie in the cache anyway. (The technique: Goto and van de Geijn, 2008.)
"""

from numba.extending import overload

from .compiled import jit
from .simd import BYTES, element, lanes, load, madd, store, zero

ROWS = 4  # of a tile
WIDTH = 4 if BYTES == 64 else 2  # registers of a row of a tile: the sums fill half of those that the processor has


@jit
def stride(x):
    """The leading dimension: how many elements lie between the beginnings of two rows."""
    return x.strides[0] // x.itemsize


def tile_of_registers(c, a, b, i, j, lo, hi, n, add):
    """c[i:i + ROWS, j:j + n] = (or += where `add`) a[i:i + ROWS, lo:hi] b[lo:hi, j:j + n]

    n is None for as many columns as the registers hold. A row that c does not have is computed as a copy of the last,
    and not stored.
    """
    last, across = c.shape[0] - 1, a.strides[1] // a.itemsize
    i1, i2, i3 = min(i + 1, last), min(i + 2, last), min(i + 3, last)
    c0, c1, c2, c3 = i * stride(c) + j, i1 * stride(c) + j, i2 * stride(c) + j, i3 * stride(c) + j
    a0, a1, a2, a3 = i * stride(a), i1 * stride(a), i2 * stride(a), i3 * stride(a)
    if add:
        s0, s1 = load(c, c0, n, registers), load(c, c1, n, registers)  # noqa: F821
        s2, s3 = load(c, c2, n, registers), load(c, c3, n, registers)  # noqa: F821
    else:
        s0 = s1 = s2 = s3 = zero(c, registers)  # noqa: F821
    for k in range(lo, hi):
        x = load(b, k * stride(b) + j, n, registers)  # noqa: F821
        s0, s1 = madd(s0, x, element(a, a0 + k * across)), madd(s1, x, element(a, a1 + k * across))
        s2, s3 = madd(s2, x, element(a, a2 + k * across)), madd(s3, x, element(a, a3 + k * across))
    store(c, c0, s0, n)
    if i < last:
        store(c, c1, s1, n)
    if i + 1 < last:
        store(c, c2, s2, n)
    if i + 2 < last:
        store(c, c3, s3, n)


wide_tile, tile = (jit(tile_of_registers, name=f"tile_{registers}", registers=registers) for registers in (WIDTH, 1))


def tile_row(c, a, b, i, left, lo, hi, add):
    """c[i:i + ROWS, left:] = (or += where `add`) a[i:i + ROWS, lo:hi] b[lo:hi, left:]

    The rows of b and c lie in one piece; a may be any view.
    """
    rows = slice(i, min(i + ROWS, len(c)))
    product = a[rows, lo:hi] @ b[lo:hi, left:]
    c[rows, left:] = c[rows, left:] + product if add else product


@overload(tile_row, jit_options={"nogil": True, "fastmath": False})
def tile_row_in_registers(c, a, b, i, left, lo, hi, add):
    def in_registers(c, a, b, i, left, lo, hi, add):
        j, n = left, c.shape[1]
        while j + WIDTH * lanes(c) <= n:
            wide_tile(c, a, b, i, j, lo, hi, None, add)
            j += WIDTH * lanes(c)
        while j + lanes(c) <= n:
            tile(c, a, b, i, j, lo, hi, None, add)
            j += lanes(c)
        if j < n:
            tile(c, a, b, i, j, lo, hi, n - j, add)

    return in_registers


PANEL = 64  # columns of B that are gone through for all rows of A before the next: they stay in the nearest cache


@jit
def multiply(c, a, b, add):
    """C = A B, or C ← C + A B where `add`."""
    for left in range(0, c.shape[1], PANEL):
        columns, panel = c[:, left:left + PANEL], b[:, left:left + PANEL]
        for i in range(0, c.shape[0], ROWS):
            tile_row(columns, a, panel, i, 0, 0, a.shape[1], add)


@jit
def transpose_scaled(y, x, factor):
    """y = factor · xᵀ, with zeros in the columns beyond the last row of x."""
    for j in range(x.shape[1]):
        row = y[j]
        for i in range(x.shape[0]):
            row[i] = x[i, j] * factor
        row[x.shape[0]:] = 0
