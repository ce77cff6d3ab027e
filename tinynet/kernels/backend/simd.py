"""Numbers side by side in one register of the processor, for the few loops that compilers leave slow.

A vector is a value like any other in compiled code: `load(a, i)` reads LANES numbers from a[i] on, `madd(s, x, w)` is
s + x · w in each lane, `store(a, i, v)` writes. What the compiler is not asked to find out by itself (which sums stay
in registers), it cannot miss: a product of matrices written so runs at nearly all that the processor has to give.

Arrays are flat; nothing checks that i lies inside them. Interpreted, a vector is a NumPy array of LANES numbers.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from .compiled import INTERPRETED, jit
from .small import BYTES


@jit
def lanes(a):
    """How many numbers of the array fit into a vector."""
    return BYTES // a.itemsize


# --------------------------------------------------------------------------------------------- what they are, in NumPy

def zero(a):
    return np.zeros(BYTES // a.itemsize, a.dtype)


def load(a, i):
    return a[i:i + BYTES // a.itemsize].copy()


def load_some(a, i, n):
    """The first n numbers only (all, where there are fewer lanes), then zeros."""
    v = zero(a)
    v[:n] = a[i:i + min(n, v.size)]
    return v


def load_every(a, begin, i, step, n):
    """Lane l holds number i + l · step of the row a[begin], …, a[begin + n - 1], and 0 where that is outside."""
    v = zero(a)
    for l in range(v.size):
        if 0 <= i + l * step < n:
            v[l] = a[begin + i + l * step]
    return v


def load_next(a, begin, i, n):
    """load_every with a step of one: neighbours, which are read at once."""
    return load_every(a, begin, i, 1, n)


def even(x, y):
    """The lanes 0, 2, 4, … of x and then of y."""
    return np.concatenate([x, y])[::2]


def nowhere(a):
    """The places of nothing: -1 in each lane."""
    return np.full(BYTES // a.itemsize, -1, np.int32)


def larger(best, where, v, begin, i, step, n):
    """(best, where) with v and its places, begin + i + l · step, in the lanes inside the row (as in load_every) where v
    is larger, or not a number, or the first."""
    number = i + np.arange(v.size) * step
    chosen = (0 <= number) & (number < n) & ((where < 0) | (v > best) | (v != v))
    return np.where(chosen, v, best), np.where(chosen, begin + number, where).astype(np.int32)


def store(a, i, v):
    a[i:i + v.size] = v


def store_some(a, i, v, n):
    """The first n lanes only."""
    a[i:i + min(n, v.size)] = v[:n]


def madd(s, x, w):
    return s + x * w


def plus(x, y):
    return x + y


def lane_sum(v):
    return v.sum()


# -------------------------------------------------------------------------------------------- the same as instructions

class Vector(types.Type):
    """LANES numbers of one type."""

    def __init__(self, real):
        self.real, self.count = real, BYTES * 8 // real.bitwidth
        super().__init__(f"vector({real} × {self.count})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        real = ir.FloatType() if kind.real == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(real, kind.count))


class Places(types.Type):
    """As many whole numbers as a vector has lanes."""

    def __init__(self, count):
        self.count = count
        super().__init__(f"places({count})")


@register_model(Places)
class PlacesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(ir.IntType(32), kind.count))


ANY_ORDER, CONTRACT = ("reassoc",), ("contract",)


def place(context, builder, kind, array, i, vector):
    """The address of element i, as that of a vector."""
    address = builder.gep(context.make_array(kind)(context, builder, array).data, [i])
    return builder.bitcast(address, vector.as_pointer())


def spread(builder, x, kind):
    """The number x in every lane."""
    undefined, index = ir.Constant(kind, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, x, index(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(index, kind.count), [0] * kind.count))


def every(builder, i, step, count):
    """i, i + step, i + 2 step, …"""
    many = ir.VectorType(i.type, count)
    steps = builder.mul(ir.Constant(many, list(range(count))), spread(builder, step, many))
    return builder.add(spread(builder, i, many), steps)


def inside(builder, numbers, n):
    """A mask of the lanes where 0 ≤ number < n. (One comparison: taken as unsigned, negative numbers are huge.)"""
    return builder.icmp_unsigned("<", numbers, spread(builder, n, numbers.type))


def first_lanes(builder, n, count):
    """A mask of the first n lanes."""
    return inside(builder, ir.Constant(ir.VectorType(n.type, count), list(range(count))), n)


def suffix(kind):
    element = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}.get(kind.element, "i32")
    return f"v{kind.count}{element}"


def instructions():
    """The functions above for compiled code."""

    @intrinsic
    def zero(typing, a):
        return Vector(a.dtype)(a), lambda context, builder, signature, args: ir.Constant(
            context.get_value_type(signature.return_type), None)

    @intrinsic
    def load(typing, a, i):
        def write(context, builder, signature, args):
            kind = context.get_value_type(signature.return_type)
            return builder.load(place(context, builder, signature.args[0], *args, kind), align=a.dtype.bitwidth // 8)

        return Vector(a.dtype)(a, types.intp), write

    @intrinsic
    def load_some(typing, a, i, n):
        def write(context, builder, signature, args):
            kind = context.get_value_type(signature.return_type)
            address = place(context, builder, signature.args[0], *args[:2], kind)
            mask = first_lanes(builder, args[2], kind.count)
            function = builder.module.declare_intrinsic(
                f"llvm.masked.load.{suffix(kind)}.p0", fnty=ir.FunctionType(
                    kind, [address.type, ir.IntType(32), mask.type, kind]))
            return builder.call(function, [address, ir.IntType(32)(a.dtype.bitwidth // 8), mask,
                                           ir.Constant(kind, None)])

        return Vector(a.dtype)(a, types.intp, types.intp), write

    @intrinsic
    def load_every(typing, a, begin, i, step, n):
        def write(context, builder, signature, args):
            array, begin, i, step, n = args
            kind, size = context.get_value_type(signature.return_type), i.type(a.dtype.bitwidth // 8)
            data = context.make_array(signature.args[0])(context, builder, array).data
            first = builder.add(builder.ptrtoint(data, i.type), builder.mul(builder.add(begin, i), size))
            addresses = builder.inttoptr(every(builder, first, builder.mul(step, size), kind.count),
                                         ir.VectorType(data.type, kind.count))
            mask = inside(builder, every(builder, i, step, kind.count), n)
            function = builder.module.declare_intrinsic(
                f"llvm.masked.gather.{suffix(kind)}.v{kind.count}p0", fnty=ir.FunctionType(
                    kind, [addresses.type, ir.IntType(32), mask.type, kind]))
            return builder.call(function, [addresses, ir.IntType(32)(a.dtype.bitwidth // 8), mask,
                                           ir.Constant(kind, None)])

        return Vector(a.dtype)(a, *[types.intp] * 4), write

    @intrinsic
    def load_next(typing, a, begin, i, n):
        def write(context, builder, signature, args):
            array, begin, i, n = args
            kind = context.get_value_type(signature.return_type)
            address = place(context, builder, signature.args[0], array, builder.add(begin, i), kind)
            mask = inside(builder, every(builder, i, i.type(1), kind.count), n)
            function = builder.module.declare_intrinsic(
                f"llvm.masked.load.{suffix(kind)}.p0", fnty=ir.FunctionType(
                    kind, [address.type, ir.IntType(32), mask.type, kind]))
            return builder.call(function, [address, ir.IntType(32)(a.dtype.bitwidth // 8), mask,
                                           ir.Constant(kind, None)])

        return Vector(a.dtype)(a, *[types.intp] * 3), write

    @intrinsic
    def even(typing, x, y):
        def write(context, builder, signature, args):
            count = args[0].type.count
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(0, 2 * count, 2)))
            return builder.shuffle_vector(*args, lanes)

        return x(x, y), write

    @intrinsic
    def nowhere(typing, a):
        kind = Places(Vector(a.dtype).count)
        return kind(a), lambda context, builder, signature, args: ir.Constant(
            context.get_value_type(kind), [-1] * kind.count)

    @intrinsic
    def larger(typing, best, where, v, begin, i, step, n):
        def write(context, builder, signature, args):
            best, where, v, begin, i, step, n = args
            places = builder.trunc(every(builder, builder.add(begin, i), step, v.type.count), where.type)
            chosen = builder.or_(builder.icmp_signed("<", where, ir.Constant(where.type, None)),
                                 builder.fcmp_unordered("une", v, v))
            chosen = builder.or_(chosen, builder.fcmp_ordered(">", v, best))
            chosen = builder.and_(chosen, inside(builder, every(builder, i, step, v.type.count), n))
            return context.make_tuple(builder, signature.return_type, [
                builder.select(chosen, v, best), builder.select(chosen, places, where)])

        return types.Tuple((best, where))(best, where, v, *[types.intp] * 4), write

    @intrinsic
    def store(typing, a, i, v):
        def write(context, builder, signature, args):
            address = place(context, builder, signature.args[0], *args[:2], args[2].type)
            builder.store(args[2], address, align=a.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.none(a, types.intp, v), write

    @intrinsic
    def store_some(typing, a, i, v, n):
        def write(context, builder, signature, args):
            kind = args[2].type
            address = place(context, builder, signature.args[0], *args[:2], kind)
            mask = first_lanes(builder, args[3], kind.count)
            function = builder.module.declare_intrinsic(
                f"llvm.masked.store.{suffix(kind)}.p0", fnty=ir.FunctionType(
                    ir.VoidType(), [kind, address.type, ir.IntType(32), mask.type]))
            builder.call(function, [args[2], address, ir.IntType(32)(a.dtype.bitwidth // 8), mask])
            return context.get_dummy_value()

        return types.none(a, types.intp, v, types.intp), write

    @intrinsic
    def madd(typing, s, x, w):
        def write(context, builder, signature, args):
            s, x, w = args
            w = w if w.type == s.type else spread(builder, w, s.type)
            return builder.fadd(s, builder.fmul(x, w, flags=CONTRACT), flags=CONTRACT)

        return s(s, x, w if isinstance(w, Vector) else s.real), write

    @intrinsic
    def plus(typing, x, y):
        def write(context, builder, signature, args):
            x, y = args
            return builder.fadd(x, y if y.type == x.type else spread(builder, y, x.type))

        return x(x, y if isinstance(y, Vector) else x.real), write

    @intrinsic
    def lane_sum(typing, v):
        def write(context, builder, signature, args):
            kind = args[0].type
            function = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.fadd.{suffix(kind)}", fnty=ir.FunctionType(kind.element, [kind.element, kind]))
            return builder.call(function, [ir.Constant(kind.element, 0.0), args[0]], fastmath=ANY_ORDER)

        return v.real(v), write

    return zero, load, load_some, load_every, load_next, even, nowhere, larger, store, store_some, madd, plus, lane_sum


if not INTERPRETED:
    (zero, load, load_some, load_every, load_next, even, nowhere, larger, store, store_some, madd, plus,
     lane_sum) = instructions()
