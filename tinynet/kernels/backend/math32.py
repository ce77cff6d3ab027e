"""exp, log, tanh, erf, … in single precision, in plain arithmetic, which a compiler turns into vector instructions.

The mathematical library's own functions are called one number at a time, five to ten times slower. Errors here are a
few units in the last place (below 3e-7 relative); NaN and ±∞ behave as in IEEE 754; results below 2e-38 may be zero.
The derivative table stays the definition: `compiled_rule(name)` is the code of the rule itself, compiled on float32
with these functions and constants in single precision, on float64 with Python's math.

Sources: Cody and Waite, Software Manual for the Elementary Functions (1980); Moshier, Cephes (1989); musl's logf (from
Sun's fdlibm, 1993); Juffa's erf (2014).
"""

import dis
import functools
import math
from types import CellType, FunctionType, ModuleType

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from ... import value
from ...value import RULES, Rule
from .compiled import INTERPRETED, SAME_ORDER, jit

f32 = np.float32
ROUNDER = f32(12582912.0)  # 1.5 · 2²³: added to a small number, its last bits are that number rounded
LOG2E, LN2_HIGH, LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
ZERO, HALF, ONE, TWO = f32(0), f32(0.5), f32(1), f32(2)
INFINITY, NAN = f32(math.inf), f32(math.nan)

i32, float_ = ir.IntType(32), ir.FloatType()


def bits(build):
    """An intrinsic on one float32: `build(builder, x, n)` is given the number and its bits as an integer."""

    @intrinsic
    def function(typing, x):
        def generate(context, builder, signature, args):
            return build(builder, args[0], builder.bitcast(args[0], i32))

        return types.float32(types.float32), generate

    return function


def power_of_two(builder, x, n):
    """2ⁿ⁻¹ where x = n + ROUNDER."""
    return builder.bitcast(builder.shl(builder.add(n, i32(126)), i32(23)), float_)


def exponent(builder, x, n):
    """e where x = m · 2ᵉ and m lies between √½ and √2."""
    shifted = builder.ashr(builder.add(n, i32(0x3F800000 - 0x3F3504F3)), i32(23))
    return builder.sitofp(builder.sub(shifted, i32(127)), float_)


def mantissa(builder, x, n):
    """m where x = m · 2ᵉ and m lies between √½ and √2."""
    low = builder.and_(builder.add(n, i32(0x3F800000 - 0x3F3504F3)), i32(0x7FFFFF))
    return builder.bitcast(builder.add(low, i32(0x3F3504F3)), float_)


power_of_two, exponent, mantissa = bits(power_of_two), bits(exponent), bits(mantissa)
exact = jit(math=SAME_ORDER, cache=False)


@exact
def reduced(x):
    """(r, n + ROUNDER) where x = n ln 2 + r and |r| ≤ ln(2)/2."""
    t = x * LOG2E + ROUNDER
    n = t - ROUNDER
    return x - n * LN2_HIGH - n * LN2_LOW, t


@exact
def exp_minus_1_small(r):
    """eʳ - 1 for |r| ≤ ln(2)/2."""
    p = f32(1.9875691500e-4) * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    return p * r * r + r


@exact
def exp_inside(x):
    """eˣ = 2ⁿ · eʳ for -87.5 ≤ x ≤ 89."""
    r, t = reduced(x)
    y = (exp_minus_1_small(r) + ONE) * power_of_two(t)
    return y + y


@exact
def exp(x):
    return exp_inside(f32(-87.5) if x < f32(-87.5) else f32(89.0) if x > f32(89.0) else x)  # noqa: FURB136


@exact
def tanh(x):
    """tanh x = -e / (e + 2) with e = e⁻²ˣ - 1, for x ≥ 0; an odd function."""
    a = x if x >= ZERO else -x
    z = f32(-40.0) if a > f32(20.0) else -(a + a)
    r, t = reduced(z)
    half = power_of_two(t)
    scale = half + half
    e = scale * exp_minus_1_small(r) + (scale - ONE)
    y = -e / (e + TWO)
    return y if x > ZERO else -y if x < ZERO else x


@exact
def log(x):
    """log x = e ln 2 + log m; log m from s = (m - 1)/(m + 1) by the series of 2 artanh s."""
    tiny = x < f32(1.17549435e-38)
    scaled = x * f32(33554432.0) if tiny else x
    e = exponent(scaled) - (f32(25.0) if tiny else ZERO)
    f = mantissa(scaled) - ONE
    s = f / (f + TWO)
    z = s * s
    w = z * z
    series = z * (f32(0.66666662693) + w * f32(0.28498786688)) + w * (f32(0.40000972152) + w * f32(0.24279078841))
    square = HALF * f * f
    y = s * (square + series) + e * f32(9.0580006145e-6) - square + f + e * f32(6.9313812256e-1)
    y = -INFINITY if x == ZERO else NAN if x < ZERO else y
    return x if x == INFINITY or x != x else y  # noqa: PLR0124  (a NaN)


@exact
def log1p(x):
    """log(1 + x), corrected for the rounding of 1 + x."""
    u = ONE + x
    y = log(u)
    return y + (x - (u - ONE)) / u if u > ZERO and u < INFINITY else y


@exact
def erf(x):
    """erf x: an odd polynomial near 0, 1 - e^polynomial beyond."""
    a = x if x >= ZERO else -x
    s = x * x
    near = f32(-5.96761703e-4)
    near = near * s + f32(4.99119423e-3)
    near = near * s + f32(-2.67681349e-2)
    near = near * s + f32(1.12819925e-1)
    near = near * s + f32(-3.76125336e-1)
    near = near * s + f32(1.28379166e-1)
    near = near * x + x
    t = f32(10.0) if a > f32(10.0) else a  # noqa: FURB136
    far = f32(-1.72853470e-5) * t + f32(3.83197126e-4)
    far = far * (t * t) + (f32(-3.88396438e-3) * t + f32(2.42546219e-2))
    far = far * t + f32(-1.06777877e-1)
    far = far * t + f32(-6.34846687e-1)
    far = far * t + f32(-1.28717512e-1)
    far = ONE - exp(far * t - t)
    return near if a < f32(0.927734375) else far if x > ZERO else -far if x < ZERO else x


@exact
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@exact
def bell(x):
    """e^(-x²/2)"""
    z = f32(-0.5) * x * x
    return ZERO if z < f32(-87.0) else exp_inside(f32(-87.0) if z < f32(-87.0) else z)  # noqa: FURB136


@exact
def gelu(x):
    """x Φ(x) with Φ the normal distribution: Φ(-|x|) = e^(-x²/2) · a polynomial of 1 / (1 + 0.35 |x|/√2), fitted to
    6e-9 as in Abramowitz and Stegun (1964), 7.1.26."""
    t = ONE / (ONE + f32(0.24748737) * (x if x >= ZERO else -x))
    p = f32(-0.19665258) * t + f32(0.76615627)
    p = p * t + f32(-0.66867498)
    p = p * t + f32(0.67242014)
    p = p * t + f32(-0.0016473)
    p = p * t + f32(0.23380824)
    p = p * t + f32(0.19459022)
    tail = HALF * (p * t * bell(x))
    return x * (ONE - tail if x > ZERO else tail)


@exact
def gelu_derivative(x, y):
    """Φ(x) + x Φ'(x), where Φ(x) = y / x."""
    far = x > f32(1e-30) or x < f32(-1e-30)
    return (y / (x if far else ONE) if far else HALF) + x * f32(0.39894228) * bell(x)


@intrinsic
def vector_maximum(typing, a, b):
    """The larger of two numbers neither of which is NaN, in the form of which a loop over an array vectorises."""
    def generate(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, args, fastmath=("nnan", "nsz"))

    return a(a, a), generate


maximum = np.maximum if INTERPRETED else vector_maximum


# -------------------------------------------------------------------------------- the rules of the derivative table

def copied(module, **functions):
    """A copy of a module with other functions of these names."""
    copy = ModuleType(module.__name__)
    vars(copy).update(vars(module), **functions)
    return copy


SINGLE = copied(math, exp=exp, log=log, log1p=log1p, tanh=tanh, erf=erf, nan=NAN)
# Without a compiler NumPy's functions serve both precisions: Python's math raises where IEEE 754 says ∞ or NaN.
DOUBLE = math if not INTERPRETED else copied(math, exp=np.exp, log=np.log, log1p=np.log1p, tanh=np.tanh, sqrt=np.sqrt,
                                             sin=np.sin, cos=np.cos, pow=np.power)
# Single-precision forms that have no branch, or reuse y.
FAST = {RULES["sigmoid"].value: sigmoid, RULES["gelu"].value: gelu, RULES["gelu"].derivatives[0]: gelu_derivative}


@functools.cache
def compiled_function(f):
    """The plain Python function f of floats, for use inside kernels.

    On float32 it uses the functions of this file and constants in single precision, on float64 Python's math. The
    functions and rules that f calls are compiled as well.
    """
    if f in made or not isinstance(f, FunctionType):  # Numba knows it
        return f
    if INTERPRETED:
        return translated(f, DOUBLE, float)

    def function(*operands):
        raise NotImplementedError("only for use inside kernels")

    def choose(*operands):
        if types.float32 not in operands:
            return translated(f, DOUBLE, float)
        return FAST[f].py_func if f in FAST else translated(f, SINGLE, f32)

    overload(function, strict=False, jit_options=OPTIONS)(choose)
    made.add(function)
    return function


made = set()
# 1/0 is ∞ and 0/0 is NaN, as in all kernels; inlined, so that the loops around it vectorise.
OPTIONS = {"error_model": "numpy", "fastmath": SAME_ORDER, "forceinline": True}


def translated(f, module, real):
    """f with the functions of `module` instead of math's, and its constants converted by `real`."""
    def replaced(x):
        if isinstance(x, float):
            return real(x)
        if isinstance(x, (Rule, FunctionType)):
            return compiled_function(x.value if isinstance(x, Rule) else x)
        if x is value:
            return copied(value, **{name: compiled_function(y.value) for name, y in vars(value).items()
                                    if isinstance(y, Rule)})
        return module if x is math else x

    used = {step.argval for step in dis.get_instructions(f) if step.opname == "LOAD_GLOBAL"}
    names = {name: replaced(x) if name in used else x for name, x in f.__globals__.items()}
    constants, defaults = (tuple(map(replaced, xs or ())) for xs in (f.__code__.co_consts, f.__defaults__))
    closure = tuple(CellType(replaced(cell.cell_contents)) for cell in f.__closure__ or ())
    return FunctionType(f.__code__.replace(co_consts=constants), names, f.__name__, defaults, closure)


def compiled_rule(name, derivative=None):
    """The value of a rule, or its derivative number `derivative` (whose last operand is y), for use inside kernels."""
    rule = RULES[name]
    return compiled_function(rule.value if derivative is None else rule.derivatives[derivative])


exp_of, log_of, sigmoid_of = map(compiled_rule, ("exp", "log", "sigmoid"))
log1p_of = compiled_function(lambda x: math.log1p(x))
