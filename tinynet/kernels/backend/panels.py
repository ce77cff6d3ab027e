"""The matrix product in vector instructions of 512 bits, for processors that have them (AVX-512) and one thread.

Large products are as fast as OpenBLAS's where that uses such vectors too, which it does not on every processor nor
under every OPENBLAS_CORETYPE; small ones are done sooner, because nothing is copied that can be read where it is.

C is computed in tiles of ROWS × 2 vectors that stay in registers while k runs:

    for p in range(k):
        b = B[p, j:j + 2 lanes]                     two vectors
        for i in range(ROWS):
            tile[i] += A[i, p] · b                  two instructions

Where a matrix is large, or lies in memory the other way, the part of A and B that is needed next is copied first into
the order in which the loop reads it (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008).
"""

import functools

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .compiled import INTERPRETED, STAMP, jit

FEATURES = {} if INTERPRETED or numba.config.CPU_NAME == "generic" else binding.get_host_cpu_features()
found = bool(FEATURES.get("avx512f") and FEATURES.get("avx512vl"))
ROWS = 8  # of a tile; with two vectors each: 16 registers of 32
DEPTH = 256  # how much of k at a time: two vectors of B for each p, 32 KB, stay in the first-level cache
HEIGHT = 384  # rows of A at a time: with DEPTH, 384 KB stay in the second-level cache
SMALL = 8192  # elements that are read where they are

i32, i64, index = ir.IntType(32), ir.IntType(64), types.int64


class Writer:
    """Writes vector instructions for numbers of one type; `b` is LLVM's builder."""

    def __init__(self, context, builder, dtype):
        self.b = builder
        self.n = 512 // dtype.bitwidth
        self.number = context.get_value_type(dtype)
        self.vector = ir.VectorType(self.number, self.n)
        self.zero = ir.Constant(self.vector, None)
        self.every = ir.Constant(ir.VectorType(ir.IntType(1), self.n), [1] * self.n)
        self.size = dtype.bitwidth // 8

    def place(self, address, offset):
        """So many numbers after an address."""
        return self.b.gep(self.b.inttoptr(address, self.number.as_pointer()), [offset])

    def splat(self, x, kind=None):
        kind = kind or self.vector
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), x, i32(0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined),
                                     ir.Constant(ir.VectorType(i32, self.n), [0] * self.n))

    def below(self, count, first=0):
        """The mask of the lanes first, first + 1, … that are below `count`."""
        kind = ir.VectorType(i64, self.n)
        return self.b.icmp_signed("<", ir.Constant(kind, list(range(first, first + self.n))), self.splat(count, kind))

    def call(self, name, kind, args, suffix=""):
        name = f"llvm.{name}.v{self.n}f{8 * self.size}{suffix}"
        kind = ir.FunctionType(kind, [x.type for x in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, kind, name), args)

    def load(self, place, mask):
        place = self.b.bitcast(place, self.vector.as_pointer())
        return self.call("masked.load", self.vector, [place, i32(self.size), mask, self.zero], ".p0")

    def store(self, x, place, mask):
        place = self.b.bitcast(place, self.vector.as_pointer())
        self.call("masked.store", ir.VoidType(), [x, place, i32(self.size), mask], ".p0")

    def fetch(self, place, write):
        """Ask for the line of memory at an address, which will soon be read or written."""
        place = self.b.bitcast(place, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0")
        self.b.call(function, [place, i32(write), i32(3), i32(1)])

    def fma(self, x, y, z):
        return self.call("fma", self.vector, [x, y, z])

    def total(self, x):
        """The sum of the lanes."""
        kind = ir.FunctionType(self.number, [self.number, self.vector])
        function = cgutils.get_or_insert_function(self.b.module, kind,
                                                  f"llvm.vector.reduce.fadd.v{self.n}f{8 * self.size}")
        return self.b.call(function, [ir.Constant(self.number, 0), x], fastmath=("reassoc",))

    def zip(self, x, y):
        """x₀ y₀ x₁ y₁ …, in two vectors."""
        kind = ir.VectorType(i32, self.n)
        pairs = [lane for i in range(self.n) for lane in (i, i + self.n)]
        return [self.b.shuffle_vector(x, y, ir.Constant(kind, half)) for half in (pairs[:self.n], pairs[self.n:])]


def tiler(height, vectors):
    """The intrinsic for a tile of at most so many rows and vectors."""

    @intrinsic
    def tile(typing, c, ldc, a, ai, ap, rows, b, bp, columns, k, alpha, beta):
        def generate(context, builder, signature, args):
            c, ldc, a, ai, ap, rows, b, bp, columns, k, alpha, beta = args
            w = Writer(context, builder, signature.args[-1])
            a, b = (w.place(x, i64(0)) for x in (a, b))
            masks = [w.below(columns, v * w.n) for v in range(vectors)]
            last = builder.mul(builder.sub(rows, i64(1)), ai)
            inside = [builder.icmp_signed("<", i64(i), rows) for i in range(height)]
            # rows beyond the last are computed as copies of the last, and not stored
            starts = [builder.gep(a, [builder.select(inside[i], builder.mul(i64(i), ai), last)]) for i in range(height)]
            outs = [w.place(c, builder.mul(i64(i), ldc)) for i in range(height)]
            outs = [[builder.gep(out, [i64(v * w.n)]) for v in range(vectors)] for out in outs]
            for place in sum(outs, []):
                w.fetch(place, 1)
            before = builder.block
            head, body, end = map(builder.append_basic_block, ("head", "body", "end"))
            builder.branch(head)
            builder.position_at_end(head)
            p, place_a, place_b = builder.phi(i64), builder.phi(i64), builder.phi(b.type)
            sums = [[builder.phi(w.vector) for _ in range(vectors)] for _ in range(height)]
            builder.cbranch(builder.icmp_signed("<", p, k), body, end)
            builder.position_at_end(body)
            right = [w.load(builder.gep(place_b, [i64(v * w.n)]), masks[v]) for v in range(vectors)]
            new = []
            for i in range(height):
                left = w.splat(builder.load(builder.gep(starts[i], [place_a])))
                new.append([w.fma(left, right[v], sums[i][v]) for v in range(vectors)])
            for phi, start, then in ((p, i64(0), builder.add(p, i64(1))), (place_a, i64(0), builder.add(place_a, ap)),
                                     (place_b, b, builder.gep(place_b, [bp]))):
                phi.add_incoming(start, before)
                phi.add_incoming(then, body)
            for i in range(height):
                for v in range(vectors):
                    sums[i][v].add_incoming(w.zero, before)
                    sums[i][v].add_incoming(new[i][v], body)
            builder.branch(head)
            builder.position_at_end(end)
            alphas, betas = w.splat(alpha), w.splat(beta)
            # what is not needed is not read: the row above may be on its way to the same line of memory
            with builder.if_else(builder.fcmp_unordered("!=", beta, ir.Constant(beta.type, 0))) as branches:
                for adds, branch in zip((True, False), branches):
                    with branch:
                        for i in range(height):
                            with builder.if_then(inside[i]):
                                for v in range(vectors):
                                    old = builder.fmul(betas, w.load(outs[i][v], masks[v])) if adds else w.zero
                                    w.store(w.fma(alphas, sums[i][v], old), outs[i][v], masks[v])
            return context.get_dummy_value()

        return types.void(*[index] * 10, beta, beta), generate

    return tile


# tile(c, ldc, a, ai, ap, rows, b, bp, columns, k, alpha, beta): C ← alpha A B + beta C, where C[i, j] lies i ldc + j
# numbers after the address c, A[i, p] i ai + p ap after a, and B[p, j] p bp + j after b.
tile, narrow_tile, row_tile = tiler(ROWS, 2), tiler(ROWS, 1), tiler(1, 8)


@intrinsic
def dots(typing, c, step, a, lda, rows, b, k, alpha, beta):
    """C ← alpha A b + beta C for a vector b and at most ROWS rows of A, which lie in memory one by one."""

    def generate(context, builder, signature, args):
        c, step, a, lda, rows, b, k, alpha, beta = args
        w = Writer(context, builder, signature.args[-1])
        b, last = w.place(b, i64(0)), builder.sub(rows, i64(1))
        inside = [builder.icmp_signed("<", i64(i), rows) for i in range(ROWS)]
        starts = [w.place(a, builder.mul(builder.select(inside[i], i64(i), last), lda)) for i in range(ROWS)]
        sums = [cgutils.alloca_once_value(builder, w.zero) for _ in range(ROWS)]
        with cgutils.for_range_slice(builder, i64(0), k, i64(w.n)) as (p, _):
            mask = w.below(builder.sub(k, p))
            right = w.load(builder.gep(b, [p]), mask)
            for sum_, start in zip(sums, starts):
                builder.store(w.fma(w.load(builder.gep(start, [p]), mask), right, builder.load(sum_)), sum_)
        adds = builder.fcmp_unordered("!=", beta, ir.Constant(beta.type, 0))
        for i, sum_ in enumerate(sums):
            with builder.if_then(inside[i]):
                place = w.place(c, builder.mul(i64(i), step))
                new = builder.fmul(alpha, w.total(builder.load(sum_)))
                old = builder.select(adds, builder.fmul(beta, builder.load(place)), ir.Constant(beta.type, 0))
                builder.store(builder.fadd(new, old), place)
        return context.get_dummy_value()

    return types.void(*[index] * 7, beta, beta), generate


def turner(height):
    """The intrinsic that turns `height` rows."""

    @intrinsic
    def turn(typing, out, step, x, ldx, rows, count, real):
        def generate(context, builder, signature, args):
            out, step, x, ldx, rows, count, _ = args
            w = Writer(context, builder, real)
            mask = w.below(count)
            last, vectors = builder.sub(rows, i64(1)), []
            for i in range(height):
                row = builder.select(builder.icmp_signed("<", i64(i), rows), i64(i), last)
                vectors.append(w.load(w.place(x, builder.mul(row, ldx)), mask))
            for _ in range(height.bit_length() - 1):
                vectors = [half for x, y in zip(vectors[:height // 2], vectors[height // 2:]) for half in w.zip(x, y)]
            for q, vector in enumerate(vectors):
                w.store(vector, w.place(out, builder.mul(i64(q), step)), w.every)
            return context.get_dummy_value()

        return types.void(index, index, index, index, index, index, real), generate

    return turn


# turn(out, step, x, ldx, rows, count, real): the columns of 8 or 16 rows of x, side by side, as many columns as a
# vector has lanes, written every `step` numbers. Each round of zips puts the lower half of the rows between the upper
# half. Here and below out and x are addresses, and `real` is a number of the type that lies there.
turn_8, turn_16 = turner(8), turner(16)


@intrinsic
def move(typing, out, x, count, real):
    """`count` numbers from x to out, with zeros behind them to the end of a vector."""

    def generate(context, builder, signature, args):
        out, x, count, _ = args
        w = Writer(context, builder, real)
        w.store(w.load(w.place(x, i64(0)), w.below(count)), w.place(out, i64(0)), w.every)
        return context.get_dummy_value()

    return types.void(index, index, index, real), generate


@intrinsic
def share(typing, out, out2, x, ldx, real):
    """Two rows of x, a vector each: their lower halves to out, their upper halves to out2."""

    def generate(context, builder, signature, args):
        out, out2, x, ldx, _ = args
        w = Writer(context, builder, real)
        rows = [w.load(w.place(x, i), w.every) for i in (i64(0), ldx)]
        half = w.n // 2
        for address, lanes in ((out, range(half)), (out2, range(half, w.n))):
            lanes = [*lanes, *(w.n + lane for lane in lanes)]
            vector = builder.shuffle_vector(*rows, ir.Constant(ir.VectorType(i32, w.n), lanes))
            w.store(vector, w.place(address, i64(0)), w.every)
        return context.get_dummy_value()

    return types.void(index, index, index, index, real), generate


@intrinsic
def fetch(typing, x, real):
    """Ask for the line of memory at an address, which will be read soon."""

    def generate(context, builder, signature, args):
        w = Writer(context, builder, real)
        w.fetch(w.place(args[0], i64(0)), 0)
        return context.get_dummy_value()

    return types.void(index, real), generate


@jit
def fetch_right(b, ldb, tb, depth, part, parts, n, real):
    """Ask for a part of what pack_right will read."""
    if tb:
        for row in range(2 * n * part // parts, 2 * n * (part + 1) // parts):
            for p in range(0, depth, n):
                fetch(b + (row * ldb + p) * (64 // n), real)
    else:
        for p in range(depth * part // parts, depth * (part + 1) // parts):
            fetch(b + p * ldb * (64 // n), real)
            fetch(b + p * ldb * (64 // n) + 64, real)


@jit
def pack_left(out, a, lda, ta, rows, depth, n, real):
    """Panels of ROWS rows: out[panel, p, i] = A[i, p]"""
    size = 64 // n
    done = rows // n * n if ta and n == 2 * ROWS else 0  # there a vector holds the rows of two panels
    for i in range(0, done, n):
        if depth % 2:
            for j in (i, i + ROWS):  # the zeros that this writes into the next panel are overwritten below
                move(out + (j * depth + (depth - 1) * ROWS) * size, a + ((depth - 1) * lda + j) * size, ROWS, real)
        for p in range(0, depth - 1, 2):
            place = out + (i * depth + p * ROWS) * size
            share(place, place + ROWS * depth * size, a + (p * lda + i) * size, lda, real)
    for i in range(done, rows, ROWS):
        height, place = min(ROWS, rows - i), out + i * depth * size
        if ta:
            for p in range(depth):
                move(place + p * ROWS * size, a + (p * lda + i) * size, height, real)
        else:
            for p in range(0, depth, n):
                turn_8(place + p * ROWS * size, n, a + (i * lda + p) * size, lda, height, min(n, depth - p), real)


@jit
def pack_right(out, b, ldb, tb, columns, depth, n, real):
    """A panel of two vectors of columns: out[p, j] = B[p, j]"""
    size = 64 // n
    if not tb:
        for p in range(depth):
            move(out + p * 128, b + p * ldb * size, columns, real)
            if columns > n:
                move(out + p * 128 + 64, b + p * ldb * size + 64, columns - n, real)
        return
    for half in range(0, min(columns, 2 * n), n):
        width = min(n, columns - half)
        for p in range(0, depth, n):
            there, x, count = out + p * 128 + half * size, b + (half * ldb + p) * size, min(n, depth - p)
            if n == 16:
                turn_16(there, 2 * n, x, ldb, width, count, real)
            else:
                turn_8(there, 2 * n, x, ldb, width, count, real)


@jit
def tile_by_tile(c, a, b, m, width, k, ta, tb, alpha, beta, one, lda, ldb, ldc, n, left, right, copies):
    """The product; parts of A and B are copied to `copies`, so many of their numbers at a time; none: read in place."""
    size = 64 // n
    right, left = copies.ctypes.data + left * size if right else 0, copies.ctypes.data if left else 0
    for p0 in range(0, max(k, 1), DEPTH):
        depth = min(DEPTH, k - p0)
        factor = one if p0 else beta
        for i0 in range(0, m, HEIGHT):
            rows = min(HEIGHT, m - i0)
            if left:
                pack_left(left, a + (p0 * lda + i0 if ta else i0 * lda + p0) * size, lda, ta, rows, depth, n, one)
            for j in range(0, width, 2 * n):
                columns = min(2 * n, width - j)
                place_b, bp = b + (j * ldb + p0 if tb else p0 * ldb + j) * size, ldb
                following = place_b + 2 * n * (ldb if tb else 1) * size
                if right:
                    pack_right(right, place_b, ldb, tb, columns, depth, n, one)
                    place_b, bp = right, 2 * n
                for i in range(i0, i0 + rows, ROWS):
                    if left:
                        place_a, ai, ap = left + (i - i0) * depth * size, 1, ROWS
                    elif ta:
                        place_a, ai, ap = a + (p0 * lda + i) * size, 1, lda
                    else:
                        place_a, ai, ap = a + (i * lda + p0) * size, lda, 1
                    if right and j + 2 * n < width:
                        fetch_right(following, ldb, tb, depth, (i - i0) // ROWS, (rows + ROWS - 1) // ROWS, n, one)
                    place_c, rest = c + (i * ldc + j) * size, min(ROWS, i0 + rows - i)
                    if columns <= n:
                        narrow_tile(place_c, ldc, place_a, ai, ap, rest, place_b, bp, columns, depth, alpha, factor)
                    else:
                        tile(place_c, ldc, place_a, ai, ap, rest, place_b, bp, columns, depth, alpha, factor)


@jit
def matrix_by_vector(c, step, a, lda, turned, rows, b, ldb, k, alpha, beta, n):
    """C ← alpha A b + beta C, where the numbers of the vectors b and C lie ldb and `step` apart, and A lies by rows, or
    by columns where `turned`. False, and nothing done, where the tiles do it as well."""
    size = 64 // n
    if turned and step == 1:
        for i in range(0, rows, 8 * n):
            row_tile(c + i * size, 0, b, 0, ldb, 1, a + i * size, lda, min(8 * n, rows - i), k, alpha, beta)
    elif not turned and ldb == 1:
        for i in range(0, rows, ROWS):
            dots(c + i * step * size, step, a + i * lda * size, lda, min(ROWS, rows - i), b, k, alpha, beta)
    else:
        return False
    return True


KINDS = {real.name: types.void(*[index] * 8, real, real, *[index] * 3) for real in (types.float32, types.float64)}
# gemm(c, a, b, m, width, k, ta, tb, alpha, beta, lda, ldb, ldc): C ← alpha A B + beta C, the matrices at addresses
products = {name: types.ExternalFunction(f"tinynet_panels_{name}", kind) for name, kind in KINDS.items()}


@functools.cache
def prepare(name):
    """Compile the product for one type, as a function in C's manner: kernels that call it need not be compiled together
    with it. To be called before such kernels are."""
    n, one, one_apart = 64 // np.dtype(name).itemsize, np.dtype(name).type(1), np.int64(1)

    def multiply(c, a, b, m, width, k, ta, tb, alpha, beta, lda, ldb, ldc):
        if width == 1 and matrix_by_vector(c, ldc, a, lda, ta != 0, m, b, 1 if tb else ldb, k, alpha, beta, n):
            return
        if m == 1 and matrix_by_vector(c, one_apart, b, ldb, tb == 0, width, a, lda if ta else 1, k, alpha, beta, n):
            return
        left = right = 0  # the sizes of the copies, whole vectors more than they need
        if m * k > SMALL and width > 2 * n:
            left = (min(m, HEIGHT) + ROWS) * (min(k, DEPTH) + n) + n
        if tb or width * k > SMALL and m > ROWS:
            right = (min(k, DEPTH) + n) * 2 * n
        tile_by_tile(c, a, b, m, width, k, ta, tb, alpha, beta, one, lda, ldb, ldc, n, left, right,
                     np.empty((left + right) * (64 // n), np.uint8))

    multiply.__qualname__ = f"multiply_{name}_{STAMP}"
    compiled = numba.cfunc(KINDS[name], cache=True, error_model="numpy")(multiply)
    binding.add_symbol(f"tinynet_panels_{name}", compiled.address)
    return compiled  # which must outlive every kernel that calls it
