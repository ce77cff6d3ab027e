"""The one vocabulary of vector instructions: numbers side by side in the processor's vector registers.

A vector is a value like any other in compiled code: `load(a, i, None, 2)` reads from a[i] on as many numbers as two
registers hold, `madd(s, x, w)` is s + x · w in each lane, `store(a, i, v, None)` writes. What the compiler is not asked
to find out by itself (which sums stay in registers), it cannot miss: a product of matrices written so runs near the
peak of the processor.

Each instruction is given twice: as a NumPy function, its definition, which runs where nothing is compiled, and above it
its type and its LLVM code. Nothing checks that an index lies inside the array. `n` is the number of elements that are
read or written, or None for all; what is not read is 0.
"""

import inspect

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


def vector_of(a, registers):
    return Vector(a.dtype, 8 * BYTES // a.dtype.bitwidth, registers.literal_value)


def one_register(a):
    return Vector(a.dtype, 8 * BYTES // a.dtype.bitwidth, 1)


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
        """Register r of a vector; of one register, this; of a number, the number in each lane."""
        if isinstance(x.type, ir.ArrayType):
            return self.builder.extract_value(x, min(r, x.type.count - 1))
        return self.broadcast(x)

    def broadcast(self, x):
        kind = ir.VectorType(x.type, self.lanes)
        first = self.builder.insert_element(ir.Constant(kind, ir.Undefined), x, i32(0))
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(i32, self.lanes), [0] * self.lanes))

    def address(self, array, i, offset=0):
        """Of element i + offset of the array that is the instruction's first argument."""
        data = self.context.make_array(self.signature.args[0])(self.context, self.builder, array).data
        return self.builder.gep(data, [self.builder.add(i, i64(offset))])

    def register_address(self, array, i, r):
        return self.builder.bitcast(self.address(array, i, r * self.lanes), self.register.as_pointer())

    def indices(self, i, step, r=0):
        """i, i + step, i + 2 step, …: one for each lane of register r."""
        numbers = ir.Constant(ir.VectorType(i64, self.lanes), [r * self.lanes + l for l in range(self.lanes)])
        return self.builder.add(self.broadcast(i), self.builder.mul(numbers, self.broadcast(step)))

    def inside(self, indices, n):
        """The mask of lanes with 0 ≤ index < n. (One comparison: taken as unsigned, negative numbers are huge.)"""
        return self.builder.icmp_unsigned("<", indices, self.broadcast(n))

    def first(self, n, r):
        """The mask of register r for the first n elements, None for all."""
        return None if n.type == self.context.get_value_type(void) else self.inside(self.indices(i64(0), i64(1), r), n)

    def call(self, name, result, args, fastmath=()):
        function = self.builder.module.declare_intrinsic(name, fnty=ir.FunctionType(result, [x.type for x in args]))
        return self.builder.call(function, args, fastmath=fastmath)

    def suffix(self):
        return f"v{self.lanes}{'f' if isinstance(self.real, (ir.FloatType, ir.DoubleType)) else 'i'}{8 * self.size}"

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


# ---------------------------------------------------------------------------------------------- reading and writing

@instruction(lambda a, registers: vector_of(a, registers)(a, registers),
             lambda w, a, _: w.each(lambda r: ir.Constant(w.register, None)))
def zero(a, registers):
    return np.zeros(registers * lanes(a), a.dtype)


@instruction(lambda a, i: a.dtype(a, intp), lambda w, a, i: w.builder.load(w.address(a, i)))
def element(a, i):
    """Number i in memory, counted from the array's first: for arrays of any strides."""
    return a[i]


@instruction(lambda a, i, n, registers: vector_of(a, registers)(a, intp, count(n), registers),
             lambda w, a, i, n, _: w.each(lambda r: w.load(w.register_address(a, i, r), w.first(n, r))))
def load(a, i, n, registers):
    v = zero(a, registers)
    n = v.size if n is None else min(n, v.size)
    v[:n] = a[i:i + n]
    return v


def emit_store(w, a, i, v, n):
    for r in range(w.registers):
        w.store(w.of(v, r), w.register_address(a, i, r), w.first(n, r))
    return w.context.get_dummy_value()


@instruction(lambda a, i, v, n: void(a, intp, v, count(n)), emit_store)
def store(a, i, v, n):
    n = v.size if n is None else min(n, v.size)
    a[i:i + n] = v[:n]


# -------------------------------------------------------------------------------------------------------- arithmetic

CONTRACT = ("contract",)  # multiply and add in one rounding


@instruction(lambda s, x, w: s(s, x, w if isinstance(w, Vector) else s.dtype),
             lambda w, s, x, y: w.each(lambda r: w.builder.fadd(
                 w.of(s, r), w.builder.fmul(w.of(x, r), w.of(y, r), flags=CONTRACT), flags=CONTRACT)))
def madd(s, x, w):
    """s + x · w, where w is a vector, one register for all of s and x, or a number"""
    return s + x * (np.resize(w, x.size) if np.ndim(w) else w)


@instruction(lambda x, y: x(x, y if isinstance(y, Vector) else x.dtype),
             lambda w, x, y: w.each(lambda r: w.builder.fadd(w.of(x, r), w.of(y, r))))
def plus(x, y):
    return x + y


@instruction(lambda x, y, z: Vector(x.dtype, x.lanes, 3)(x, y, z),
             lambda w, *registers: w.each(lambda r: w.builder.extract_value(registers[r], 0)))
def join(x, y, z):
    """A vector of three registers."""
    return np.concatenate([x, y, z])


def emit_lane_sum(w, v, _):
    register = w.of(v, w.signature.args[1].literal_value)
    return w.call(f"llvm.vector.reduce.fadd.{w.suffix()}", w.real, [ir.Constant(w.real, 0.0), register], ("reassoc",))


@instruction(lambda v, r: v.dtype(v, r), emit_lane_sum)
def lane_sum(v, r):
    """The sum of register r."""
    return v.reshape(-1, BYTES // v.itemsize)[r].sum()


# ------------------------------------------------------------------------------- windows of a row: one register each

def emit_gather(w, a, begin, i, step, n):
    b, indices, first = w.builder, w.indices(i, step), w.address(a, begin)
    addresses = b.add(w.broadcast(b.ptrtoint(first, i64)), b.mul(indices, w.broadcast(i64(w.size))))
    pointers = b.inttoptr(addresses, ir.VectorType(first.type, w.lanes))
    return w.each(lambda r: w.call(f"llvm.masked.gather.{w.suffix()}.v{w.lanes}p0", w.register, [
        pointers, i32(w.size), w.inside(indices, n), ir.Constant(w.register, None)]))


@instruction(lambda a, begin, i, step, n: one_register(a)(a, *[intp] * 4), emit_gather)
def gather(a, begin, i, step, n):
    """Lane l holds number i + l · step of the row a[begin], …, a[begin + n - 1], and 0 where that is outside."""
    v = zero(a, 1)
    for l in range(v.size):
        if 0 <= i + l * step < n:
            v[l] = a[begin + i + l * step]
    return v


@instruction(lambda a, begin, i, n: one_register(a)(a, *[intp] * 3), lambda w, a, begin, i, n: w.each(
    lambda r: w.load(w.register_address(a, w.builder.add(begin, i), r), w.inside(w.indices(i, i64(1)), n))))
def neighbours(a, begin, i, n):
    """gather with a step of one: they are read at once."""
    return gather(a, begin, i, 1, n)


@instruction(lambda x, y: x(x, y), lambda w, x, y: w.each(lambda r: w.builder.shuffle_vector(
    w.of(x, r), w.of(y, r), ir.Constant(ir.VectorType(i32, w.lanes), list(range(0, 2 * w.lanes, 2))))))
def deinterleave(x, y):
    """The lanes 0, 2, 4, … of x and then of y."""
    return np.concatenate([x, y])[::2]


def positions_of(v):
    return Vector(types.int32, v.lanes, 1)


@instruction(lambda v: positions_of(v)(v), lambda w, v: w.each(lambda r: ir.Constant(w.register, [-1] * w.lanes)))
def no_positions(v):
    """-1 in each lane: the positions of no maximum."""
    return np.full(v.size, -1, np.int32)


def emit_argmax_update(w, best, where, v, begin, i, step, n):
    b, indices = w.builder, w.indices(i, step)
    old_best, old_where, v = (b.extract_value(x, 0) for x in (best, where, v))
    positions = b.trunc(b.add(indices, w.broadcast(begin)), old_where.type)
    larger = b.or_(b.icmp_signed("<", old_where, ir.Constant(old_where.type, None)), b.fcmp_unordered("une", v, v))
    larger = b.and_(b.or_(larger, b.fcmp_ordered(">", v, old_best)), w.inside(indices, n))
    return w.context.make_tuple(b, w.signature.return_type, [
        b.insert_value(best, b.select(larger, v, old_best), 0),
        b.insert_value(where, b.select(larger, positions, old_where), 0)])


@instruction(lambda best, where, v, begin, i, step, n: types.Tuple((best, where))(best, where, v, *[intp] * 4),
             emit_argmax_update)
def argmax_update(best, where, v, begin, i, step, n):
    """(best, where) with v and its positions, begin + i + l · step, in the lanes inside the row (as in gather) where v
    is larger, or not a number, or the first."""
    index = i + np.arange(v.size) * step
    larger = (0 <= index) & (index < n) & ((where < 0) | (v > best) | (v != v))
    return np.where(larger, v, best), np.where(larger, begin + index, where).astype(np.int32)
