"""Products of small matrices that stay in the cache, for use inside kernels: a tile of the result at a time is held in
vector registers while the loop runs over the depth.

A library's product packs its operands and pays for its call, which is worth it for large matrices only; the matrices of
one head of attention are small, and lie in the cache anyway. (The technique: Goto and van de Geijn, 2008.)
"""

from numba.extending import overload

from .compiled import jit
from .simd import BYTES, add_outer, broadcast_rows, lanes, load, load_rows, row_starts, store_rows, zero

ROWS, WIDTH = 8 if BYTES == 64 else 4, 2  # rows and registers of a tile: half of the registers that there are


@jit
def stride(x):
    """The leading dimension: how many elements lie between the beginnings of two rows."""
    return x.strides[0] // x.itemsize


def tile_form(c, a, b, i, j, lo, hi, n, add):
    """c[i:i + ROWS, j:j + n] = (or += where `add`) a[i:i + ROWS, lo:hi] b[lo:hi, j:j + n]; n is None
    where the registers are full."""
    at, last, next_column = i * stride(c) + j, c.shape[0] - 1 - i, a.strides[1] // a.itemsize
    s = load_rows(c, at, stride(c), last, n, ROWS, width) if add else zero(c, size)  # noqa: F821
    starts = row_starts(i * stride(a), stride(a), last, ROWS)
    for k in range(lo, hi):
        x = load(b, k * stride(b) + j, n, width)  # noqa: F821
        s = add_outer(s, x, broadcast_rows(a, starts, k * next_column))
    store_rows(c, at, stride(c), last, n, s, ROWS)


wide_tile, tile = (jit(tile_form, name=f"tile_{width}", width=width, size=ROWS * width) for width in (WIDTH, 1))


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
