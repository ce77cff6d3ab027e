"""exp, log, tanh, erf, … in single precision, in plain arithmetic, which a compiler turns into vector instructions.

The mathematical library's own functions are called one number at a time, five to ten times slower. Errors here are a
few units in the last place (below 3e-7 relative); NaN and ±∞ behave as in IEEE 754; results below 2e-38 may be zero.
The rows of the page of calculus stay the definition: `row(name)` is the row's own code, compiled with these functions
and with its constants in single precision, on float32 numbers, and with Python's `math` on float64.

Sources: Cody and Waite, Software Manual for the Elementary Functions (1980); Moshier, Cephes (1989); musl's logf (from
Sun's fdlibm, 1993); Juffa's erf (2014).
"""

import math
from types import FunctionType, ModuleType

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from ...value import RULES
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
def gelu_slope(x, y):
    """Φ(x) + x Φ'(x), where Φ(x) = y / x."""
    far = x > f32(1e-30) or x < f32(-1e-30)
    return (y / (x if far else ONE) if far else HALF) + x * f32(0.39894228) * bell(x)


@jit(math=SAME_ORDER, cache=False)
def double_sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


@intrinsic
def vector_maximum(typing, a, b):
    """The larger of two numbers neither of which is NaN, in the form of which a loop over an array vectorises."""
    def generate(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, args, fastmath=("nnan", "nsz"))

    return a(a, a), generate


maximum = np.maximum if INTERPRETED else vector_maximum


def module(name, **functions):
    found = ModuleType(name)
    vars(found).update(functions)
    return found


SINGLE = module("math32", exp=exp, log=log, log1p=log1p, tanh=tanh, erf=erf, sqrt=math.sqrt, sin=math.sin,
                cos=math.cos, pow=math.pow, nan=NAN)
# Without a compiler NumPy's functions serve both, because Python's `math` raises where IEEE 754 says ∞ or NaN.
PLAIN = module("plain", exp=np.exp, log=np.log, log1p=np.log1p, tanh=np.tanh, erf=math.erf, sqrt=np.sqrt, sin=np.sin,
               cos=np.cos, pow=np.power, nan=math.nan)
# Forms of a row that have no branch, or share work: (name, derivative) -> function, the derivative None for the value.
VECTORS = {("sigmoid", None): sigmoid, ("gelu", None): gelu, ("gelu", 0): gelu_slope}


def compiled_row(function, library, sigmoid, constant):
    """A function of the page of calculus, its own code, with the given library and its constants made `constant`."""
    code = function.__code__
    constants = tuple(constant(c) if isinstance(c, float) else c for c in code.co_consts)
    names = {"math": library, "abs": abs, "sigmoid": sigmoid,
             **{name: getattr(library, name) for name in ("exp", "log", "sin", "cos", "erf")}}
    return jit(FunctionType(code.replace(co_consts=constants), names, code.co_name), math=SAME_ORDER, cache=False)


def either(single, double, operands):
    """A function for kernels: `single` on float32 numbers, `double` on float64."""
    if INTERPRETED:
        return double

    def one(x):
        raise NotImplementedError

    def two(x, y):
        raise NotImplementedError

    def three(x, y, z):
        raise NotImplementedError

    if operands == 1:
        overload(one)(lambda x: (lambda x: single(x)) if x == types.float32 else (lambda x: double(x)))
        return one
    if operands == 2:
        overload(two)(lambda x, y: (lambda x, y: single(x, y)) if x == types.float32 else (lambda x, y: double(x, y)))
        return two
    overload(three)(lambda x, y, z: (lambda x, y, z: single(x, y, z)) if x == types.float32
                    else (lambda x, y, z: double(x, y, z)))
    return three


made = {}


def row(name, derivative=None):
    """The row's value, or its derivative number `derivative` (whose last operand is y), for use inside kernels."""
    if (name, derivative) not in made:
        rule = RULES[name]
        function = rule.value if derivative is None else rule.derivatives[derivative]
        library = PLAIN if INTERPRETED else math
        single = VECTORS.get((name, derivative)) or compiled_row(function, SINGLE, sigmoid, f32)
        double = compiled_row(function, library, double_sigmoid, float)
        made[name, derivative] = either(single, double, function.__code__.co_argcount)
    return made[name, derivative]


exp_of, log_of, log1p_of, sigmoid_of = (
    either(single, double, 1) for single, double in (
        (exp, np.exp if INTERPRETED else jit(lambda x: math.exp(x), name="exp64")),
        (log, np.log if INTERPRETED else jit(lambda x: math.log(x), name="log64")),
        (log1p, np.log1p if INTERPRETED else jit(lambda x: math.log1p(x), name="log1p64")),
        (sigmoid, double_sigmoid)))
