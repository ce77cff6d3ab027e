"""Products of small matrices that stay in the cache, for use inside kernels: a tile of the result at a time is held in
vector registers while the loop runs over the depth.

A library's product packs its operands and pays for its call, which is worth it for large matrices only; the matrices of
one head of attention are small, and lie in the cache anyway. (The technique: Goto and van de Geijn, 2008.)
"""

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from .compiled import INTERPRETED, jit

FEATURES = {} if INTERPRETED or numba.config.CPU_NAME else binding.get_host_cpu_features()
BYTES = 64 if FEATURES.get("avx512f") else 32 if FEATURES.get("avx2") else 16  # in a vector register
ROWS = 4 if BYTES == 32 else 8  # of a tile: with two vectors to a row it leaves registers for the operands


def tile_of(vectors, masked):
    """An intrinsic: c[i:i + ROWS, j:j + n] = (or += where `add`) a[i:i + ROWS, lo:hi] b[lo:hi, j:j + n].

    n is as many elements as fit into the vectors, or, where `masked`, as many as c has from j on. Rows that c does not
    have are left out. The rows of b and c lie in one piece; a may be any view.
    """

    @intrinsic
    def tile(typing, c, a, b, i, j, lo, hi, add):
        def generate(context, builder, signature, args):
            kinds = signature.args[:3]
            c, a, b = (context.make_array(kind)(context, builder, array) for kind, array in zip(kinds, args))
            i, j, lo, hi, add = args[3:]
            real, word, size = context.get_data_type(kinds[0].dtype), lo.type, kinds[0].dtype.bitwidth // 8
            lanes = BYTES // size
            vector, chars = ir.VectorType(real, lanes), ir.IntType(8).as_pointer()
            steps = [cgutils.unpack_tuple(builder, x.strides, 2) for x in (c, a, b)]
            pointers = [builder.bitcast(x.data, chars) for x in (c, a, b)]

            def number(x):
                return ir.Constant(word, x)

            def place(pointer, *terms):
                for n, step in terms:
                    pointer = builder.gep(pointer, [builder.mul(n, step)])
                return pointer

            def typed(pointer, kind):
                return builder.bitcast(pointer, kind.as_pointer())

            mask = None
            if masked:
                left = builder.sub(cgutils.unpack_tuple(builder, c.shape, 2)[1], j)
                one = builder.insert_element(ir.Constant(ir.VectorType(word, lanes), ir.Undefined), left,
                                             ir.Constant(ir.IntType(32), 0))
                every = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
                mask = builder.icmp_signed("<", ir.Constant(ir.VectorType(word, lanes), list(range(lanes))), every)

            suffix = f"v{lanes}f{8 * size}.p0"

            def load(pointer):
                pointer = typed(pointer, vector)
                if not masked:
                    return builder.load(pointer, align=size)
                kind = ir.FunctionType(vector, [pointer.type, ir.IntType(32), mask.type, vector])
                function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.{suffix}")
                return builder.call(function, [pointer, ir.Constant(ir.IntType(32), size), mask, zero])

            def store(x, pointer):
                pointer = typed(pointer, vector)
                if not masked:
                    return builder.store(x, pointer, align=size)
                kind = ir.FunctionType(ir.VoidType(), [vector, pointer.type, ir.IntType(32), mask.type])
                function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.{suffix}")
                return builder.call(function, [x, pointer, ir.Constant(ir.IntType(32), size), mask])

            zero = ir.Constant(vector, [0.0] * lanes)
            last = builder.sub(cgutils.unpack_tuple(builder, c.shape, 2)[0], number(1))
            rows = []
            for r in range(ROWS):  # a row that is not there is computed as the last one, and not stored
                n = builder.add(i, number(r))
                rows.append(builder.select(builder.icmp_signed("<", n, last), n, last))
            column = [place(pointers[0], (j, steps[0][1])), place(pointers[2], (j, steps[2][1]))]
            across = [number(v * BYTES) for v in range(vectors)]
            targets = [place(column[0], (row, steps[0][0])) for row in rows]

            before = builder.block
            adding, head, body, done = (builder.append_basic_block(name) for name in ("adding", "head", "body", "done"))
            starts = [place(pointers[1], (row, steps[1][0])) for row in rows]
            builder.cbranch(add, adding, head)
            with builder.goto_block(adding):
                old = [load(builder.gep(target, [x])) for target in targets for x in across]
                builder.branch(head)
            builder.position_at_end(head)
            sums = [builder.phi(vector) for _ in range(ROWS * vectors)]
            k = builder.phi(word)
            for phi, x in zip(sums, old):
                phi.add_incoming(zero, before)
                phi.add_incoming(x, adding)
            k.add_incoming(lo, before)
            k.add_incoming(lo, adding)
            builder.cbranch(builder.icmp_signed("<", k, hi), body, done)

            builder.position_at_end(body)
            along = place(column[1], (k, steps[2][0]))
            right = [load(builder.gep(along, [x])) for x in across]
            depth = builder.mul(k, steps[1][1])
            new = []
            for r in range(ROWS):
                x = builder.load(typed(builder.gep(starts[r], [depth]), real))
                one = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
                x = builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
                for v in range(vectors):
                    product = builder.fmul(x, right[v], flags=("contract",))
                    new.append(builder.fadd(sums[r * vectors + v], product, flags=("contract",)))
            for phi, x in zip(sums, new):
                phi.add_incoming(x, builder.block)
            k.add_incoming(builder.add(k, number(1)), builder.block)
            builder.branch(head)

            builder.position_at_end(done)
            for r in range(ROWS):
                with builder.if_then(builder.icmp_signed("<=", builder.add(i, number(r)), last)):
                    for v in range(vectors):
                        store(sums[r * vectors + v], builder.gep(targets[r], [across[v]]))
            return context.get_dummy_value()

        whole = types.int64
        return types.void(c, a, b, whole, whole, whole, whole, types.boolean), generate

    return tile


wide_tile, tile, edge_tile = tile_of(2, False), tile_of(1, False), tile_of(1, True)


def tile_row(c, a, b, i, left, lo, hi, add):
    """c[i:i + ROWS, left:] = (or += where `add`) a[i:i + ROWS, lo:hi] b[lo:hi, left:]"""
    rows = slice(i, min(i + ROWS, len(c)))
    product = a[rows, lo:hi] @ b[lo:hi, left:]
    c[rows, left:] = c[rows, left:] + product if add else product


@overload(tile_row, jit_options={"nogil": True, "fastmath": False})
def tile_row_by_vectors(c, a, b, i, left, lo, hi, add):
    lanes = BYTES // (c.dtype.bitwidth // 8)

    def by_vectors(c, a, b, i, left, lo, hi, add):
        j, n = left, c.shape[1]
        while j + 2 * lanes <= n:
            wide_tile(c, a, b, i, j, lo, hi, add)
            j += 2 * lanes
        while j + lanes <= n:
            tile(c, a, b, i, j, lo, hi, add)
            j += lanes
        if j < n:
            edge_tile(c, a, b, i, j, lo, hi, add)

    return by_vectors


PANEL = 64  # columns of B that are gone through for all rows of A before the next: they stay in the nearest cache


@jit
def multiply(c, a, b, add):
    """C = A B, or C ← C + A B where `add`."""
    for left in range(0, c.shape[1], PANEL):
        columns, panel = c[:, left:left + PANEL], b[:, left:left + PANEL]
        for i in range(0, c.shape[0], ROWS):
            tile_row(columns, a, panel, i, 0, 0, a.shape[1], add)


@jit
def turn(y, x, factor):
    """y = factor · xᵀ, with zeros in the columns beyond the last row of x."""
    for j in range(x.shape[1]):
        row = y[j]
        for i in range(x.shape[0]):
            row[i] = x[i, j] * factor
        row[x.shape[0]:] = 0
