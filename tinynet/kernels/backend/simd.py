"""The one vocabulary of vector instructions: numbers side by side in the processor's vector registers.

A vector is a value like any other in compiled code: `load(a, i, None, 2)` reads from a[i] on as many numbers as two
registers hold, `plus(x, y)` adds lane by lane, `store(a, i, v, None)` writes. What the compiler is not asked to find
out by itself (which sums stay in registers), it cannot miss: a product of matrices written so runs near the peak of the
processor.

Each instruction is given twice: as a NumPy function, its definition, which runs where nothing is compiled, and above it
its type and its LLVM code. Nothing checks that an index lies inside the array. `n` is the number of elements that are
read or written, or None for all; what is not read is 0.
"""

import inspect
import math

import numba
import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic, models, register_model

from .compiled import INTERPRETED, jit

FEATURES = numba.config.CPU_FEATURES if numba.config.CPU_FEATURES is not None else \
    "" if INTERPRETED else binding.get_host_cpu_features().flatten()
BYTES = 64 if "+avx512f" in FEATURES else 32 if "+avx2" in FEATURES else 16  # in a vector register

intp, void = types.intp, types.none
i32, i64 = ir.IntType(32), ir.IntType(64)


@jit
def lanes(a):
    """How many numbers of the array fit into a register."""
    return BYTES // a.itemsize


class Vector(types.Type):
    """Numbers of one type in so many registers of so many lanes."""

    def __init__(self, dtype, lanes, registers):
        self.dtype, self.lanes, self.registers = dtype, lanes, registers
        super().__init__(f"vector({dtype} × {lanes} × {registers})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        register = ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes)
        super().__init__(manager, kind, ir.ArrayType(register, kind.registers))


def vector_of(a, *factors):
    """The type of a vector of numbers of the array; the number of its registers is the product of literals."""
    return Vector(a.dtype, 8 * BYTES // a.dtype.bitwidth, math.prod(x.literal_value for x in factors))


def count(n):
    return n if n == void else intp


def instruction(signature_of, emit):
    """Replace a NumPy function, for compiled code, by what `emit(writer, *args)` writes; `signature_of(*types)`."""
    def replace(function):
        if INTERPRETED:
            return function

        def typing(context, *kinds):
            def generate(context, builder, signature, args):
                return emit(Writer(context, builder, signature), *args)

            return signature_of(*kinds), generate

        typing.__name__, typing.__doc__ = function.__name__, function.__doc__
        parameters = inspect.signature(lambda typing: 0).parameters | inspect.signature(function).parameters
        typing.__signature__ = inspect.Signature(parameters.values())
        return intrinsic(prefer_literal=True)(typing)

    return replace


class Writer:
    """Writes the LLVM code of one instruction, register by register."""

    def __init__(self, context, builder, signature):
        self.context, self.builder, self.signature = context, builder, signature
        kind = next((k for k in (signature.return_type, *signature.args) if isinstance(k, Vector)), None)
        if kind:
            self.lanes, self.registers = kind.lanes, kind.registers
            self.real = context.get_value_type(kind.dtype)
            self.register = ir.VectorType(self.real, kind.lanes)
            self.size = kind.dtype.bitwidth // 8

    def each(self, build):
        """The vector whose register r is build(r)."""
        registers = [build(r) for r in range(self.registers)]
        v = ir.Constant(ir.ArrayType(registers[0].type, self.registers), ir.Undefined)
        for r, register in enumerate(registers):
            v = self.builder.insert_value(v, register, r)
        return v

    def of(self, x, r):
        """Register r of a vector; of a number, the number in each lane."""
        return self.builder.extract_value(x, r) if isinstance(x.type, ir.ArrayType) else self.broadcast(x)

    def broadcast(self, x):
        kind = ir.VectorType(x.type, self.lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), x, i32(0))
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(i32, self.lanes), [0] * self.lanes))

    def address(self, array, *terms):
        """Of an element of the array, the instruction's first argument; its index is the sum of the terms. (Those that
        do not change in a loop come first: they are added before it.)"""
        pointer = self.context.make_array(self.signature.args[0])(self.context, self.builder, array).data
        for i in terms:
            pointer = self.builder.gep(pointer, [i])
        return pointer

    def register_address(self, array, r, *terms):
        return self.builder.bitcast(self.address(array, *terms, i64(r * self.lanes)), self.register.as_pointer())

    def first(self, n, r):
        """The mask of register r for the first n elements, None for all."""
        if n.type == self.context.get_value_type(void):
            return None
        numbers = ir.Constant(ir.VectorType(i64, self.lanes), [r * self.lanes + l for l in range(self.lanes)])
        return self.builder.icmp_signed("<", numbers, self.broadcast(n))

    def call(self, name, result, args, fastmath=()):
        function = self.builder.module.declare_intrinsic(name, fnty=ir.FunctionType(result, [x.type for x in args]))
        return self.builder.call(function, args, fastmath=fastmath)

    def suffix(self):
        return f"v{self.lanes}f{8 * self.size}"

    def load(self, address, mask):
        if mask is None:
            return self.builder.load(address, align=self.size)
        return self.call(f"llvm.masked.load.{self.suffix()}.p0", self.register,
                         [address, i32(self.size), mask, ir.Constant(self.register, None)])

    def store(self, x, address, mask):
        if mask is None:
            self.builder.store(x, address, align=self.size)
        else:
            self.call(f"llvm.masked.store.{self.suffix()}.p0", ir.VoidType(), [x, address, i32(self.size), mask])

    def row_start(self, i, step, row, last):
        row = self.builder.select(self.builder.icmp_signed("<", i64(row), last), i64(row), last)
        return self.builder.add(i, self.builder.mul(row, step))


# ---------------------------------------------------------------------------------------------- reading and writing

@instruction(lambda a, registers: vector_of(a, registers)(a, registers),
             lambda w, a, _: w.each(lambda r: ir.Constant(w.register, None)))
def zero(a, registers):
    return np.zeros(registers * lanes(a), a.dtype)


@instruction(lambda a, i, n, registers: vector_of(a, registers)(a, intp, count(n), registers),
             lambda w, a, i, n, _: w.each(lambda r: w.load(w.register_address(a, r, i), w.first(n, r))))
def load(a, i, n, registers):
    v = zero(a, registers)
    n = v.size if n is None else min(n, v.size)
    v[:n] = a[i:i + n]
    return v


def emit_store(w, a, i, v, n):
    for r in range(w.registers):
        w.store(w.of(v, r), w.register_address(a, r, i), w.first(n, r))
    return w.context.get_dummy_value()


@instruction(lambda a, i, v, n: void(a, intp, v, count(n)), emit_store)
def store(a, i, v, n):
    n = v.size if n is None else min(n, v.size)
    a[i:i + n] = v[:n]


# ------------------------------------------------------------------------------------------------------------- tiles
# A tile is the vector of a few rows of a matrix, one after another. Row r begins at element i + min(r, last) · step:
# where the matrix ends before the tile, its last row is read again, and written once.

def emit_load_rows(w, a, i, step, last, n, rows, _):
    width = w.registers // w.signature.args[5].literal_value
    return w.each(lambda r: w.load(
        w.register_address(a, r % width, w.row_start(i, step, r // width, last)), w.first(n, r % width)))


@instruction(lambda a, i, step, last, n, rows, width: vector_of(a, rows, width)(
    a, intp, intp, intp, count(n), rows, width), emit_load_rows)
def load_rows(a, i, step, last, n, rows, width):
    """A tile of so many rows of `width` registers each."""
    return np.concatenate([load(a, i + min(r, last) * step, n, width) for r in range(rows)])


def emit_store_rows(w, a, i, step, last, n, v, _):
    rows = w.signature.args[6].literal_value
    width = w.registers // rows
    for row in range(rows):
        with w.builder.if_then(w.builder.icmp_signed("<=", i64(row), last)):
            for r in range(width):
                address = w.register_address(a, r, w.row_start(i, step, row, last))
                w.store(w.of(v, row * width + r), address, w.first(n, r))
    return w.context.get_dummy_value()


@instruction(lambda a, i, step, last, n, v, rows: void(a, intp, intp, intp, count(n), v, rows), emit_store_rows)
def store_rows(a, i, step, last, n, v, rows):
    for r in range(min(rows, last + 1)):
        store(a, i + r * step, v.reshape(rows, -1)[r], n)


def emit_row_starts(w, i, step, last, _):
    kind = w.signature.return_type
    return w.context.make_tuple(w.builder, kind, [w.row_start(i, step, row, last) for row in range(kind.count)])


@instruction(lambda i, step, last, rows: types.UniTuple(intp, rows.literal_value)(intp, intp, intp, rows),
             emit_row_starts)
def row_starts(i, step, last, rows):
    """Where the rows begin, to be found out before a loop."""
    return tuple(i + min(r, last) * step for r in range(rows))


def emit_broadcast_rows(w, a, starts, i):
    return w.each(lambda r: w.broadcast(w.builder.load(w.address(a, w.builder.extract_value(starts, r), i))))


@instruction(lambda a, starts, i: Vector(a.dtype, 8 * BYTES // a.dtype.bitwidth, starts.count)(a, starts, intp),
             emit_broadcast_rows)
def broadcast_rows(a, starts, i):
    """Element i of each row, in all lanes of one register each."""
    return np.repeat([a[start + i] for start in starts], lanes(a))


# -------------------------------------------------------------------------------------------------------- arithmetic

@instruction(lambda x, y: x(x, y if isinstance(y, Vector) else x.dtype),
             lambda w, x, y: w.each(lambda r: w.builder.fadd(w.of(x, r), w.of(y, r))))
def plus(x, y):
    """x + y, where y is a vector or a number"""
    return x + y


def emit_add_outer(w, s, x, y):
    width, contract = x.type.count, ("contract",)  # multiply and add in one rounding
    return w.each(lambda r: w.builder.fadd(
        w.of(s, r), w.builder.fmul(w.of(x, r % width), w.of(y, r // width), flags=contract), flags=contract))


@instruction(lambda s, x, y: s(s, x, y), emit_add_outer)
def add_outer(s, x, y):
    """A tile s with the products of each register of y (a row) and each of x (a column) added."""
    registers = lambda v: v.reshape(-1, BYTES // v.itemsize)
    return s + (registers(y)[:, None] * registers(x)).ravel()


@instruction(lambda x, y, z: Vector(x.dtype, x.lanes, 3)(x, y, z),
             lambda w, *registers: w.each(lambda r: w.builder.extract_value(registers[r], 0)))
def join(x, y, z):
    """A vector of three registers."""
    return np.concatenate([x, y, z])


def emit_add_lane_sums(w, a, i, step, v, _):
    width = w.signature.args[4].literal_value
    for r in range(w.registers):
        address = w.address(a, i, w.builder.mul(i64(r // width), step), i64(r % width))
        s = w.call(f"llvm.vector.reduce.fadd.{w.suffix()}", w.real, [ir.Constant(w.real, 0), w.of(v, r)], ("reassoc",))
        w.builder.store(w.builder.fadd(w.builder.load(address), s), address)
    return w.context.get_dummy_value()


@instruction(lambda a, i, step, v, width: void(a, intp, intp, v, width), emit_add_lane_sums)
def add_lane_sums(a, i, step, v, width):
    """Add the sum of each register of a tile to the element of a in its row and column."""
    for r, s in enumerate(v.reshape(-1, BYTES // v.itemsize).sum(1)):
        a[i + r // width * step + r % width] += s
