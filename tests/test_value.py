"""The derivative table: every rule against finite differences and a textbook formula, first and second derivatives."""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import Value, grad, no_grad
from tinynet.graph import topological
from tinynet.value import RULES

ROOT2, ROOTPI = math.sqrt(2), math.sqrt(math.pi)


def normal(x):
    return 0.5 * (1 + math.erf(x / ROOT2)), math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


# name: (points, dy/dx as a textbook prints it, d²y/dx²)
UNARY = {
    "neg": ([-1.5, 2.0], lambda x: -1.0, lambda x: 0.0),
    "abs": ([-1.5, 2.0], lambda x: math.copysign(1, x), lambda x: 0.0),
    "exp": ([-2.0, 0.0, 1.5], lambda x: math.exp(x), lambda x: math.exp(x)),
    "log": ([0.2, 1.0, 30.0], lambda x: 1 / x, lambda x: -1 / x**2),
    "sqrt": ([0.3, 4.0], lambda x: 1 / (2 * math.sqrt(x)), lambda x: -0.25 * x**-1.5),
    "sin": ([-2.0, 0.5], math.cos, lambda x: -math.sin(x)),
    "cos": ([-2.0, 0.5], lambda x: -math.sin(x), lambda x: -math.cos(x)),
    "tanh": ([-1.0, 0.3, 4.0], lambda x: 1 / math.cosh(x)**2, lambda x: -2 * math.tanh(x) / math.cosh(x)**2),
    "sigmoid": ([-3.0, 0.0, 2.0], lambda x: math.exp(-x) / (1 + math.exp(-x))**2,
                lambda x: math.exp(-x) * (math.exp(-x) - 1) / (1 + math.exp(-x))**3),
    "relu": ([-1.0, 2.0], lambda x: float(x > 0), lambda x: 0.0),
    "erf": ([-0.7, 1.2], lambda x: 2 / ROOTPI * math.exp(-x * x), lambda x: -4 * x / ROOTPI * math.exp(-x * x)),
    "gelu": ([-2.0, 0.0, 1.3], lambda x: normal(x)[0] + x * normal(x)[1],
             lambda x: (2 - x * x) * normal(x)[1]),
    "softplus": ([-5.0, 0.0, 3.0], lambda x: 1 / (1 + math.exp(-x)),
                 lambda x: math.exp(-x) / (1 + math.exp(-x))**2),
}
# name: (points, ∂y/∂a, ∂y/∂b)
BINARY = {
    "+": ([(2.0, -3.0)], lambda a, b: 1.0, lambda a, b: 1.0),
    "-": ([(2.0, -3.0)], lambda a, b: 1.0, lambda a, b: -1.0),
    "*": ([(2.0, -3.0), (0.0, 5.0)], lambda a, b: b, lambda a, b: a),
    "/": ([(2.0, -3.0), (0.0, 5.0)], lambda a, b: 1 / b, lambda a, b: -a / b**2),
    "**": ([(2.0, -3.0), (0.5, 2.5)], lambda a, b: b * a**(b - 1), lambda a, b: a**b * math.log(a)),
    "max": ([(2.0, -3.0), (1.0, 4.0)], lambda a, b: float(a > b), lambda a, b: float(b > a)),
    "min": ([(2.0, -3.0), (1.0, 4.0)], lambda a, b: float(a < b), lambda a, b: float(b < a)),
}
OPERATORS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
             "**": lambda a, b: a**b, "max": lambda a, b: a.max(b), "min": lambda a, b: a.min(b)}


def test_every_rule_is_tested():
    assert set(UNARY) | set(BINARY) == set(RULES)


def difference(f, x, h=1e-4):
    """f'(x) by a central difference of fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name):
    points, first, second = UNARY[name]
    for number in points:
        x = Value(number)
        y = getattr(x, name)()
        y.backward()
        assert x.grad == pytest.approx(first(number), rel=1e-9, abs=1e-12)
        assert x.grad == pytest.approx(difference(RULES[name].value, number), rel=1e-6, abs=1e-9)
        d, = grad(getattr(x, name)(), [x], create_graph=True)
        assert d.data == pytest.approx(x.grad, rel=1e-12)
        if d.inputs and x in topological(d):
            assert grad(d, [x])[0] == pytest.approx(second(number), rel=1e-9, abs=1e-12)
        else:
            assert second(number) == 0.0


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name):
    points, da, db = BINARY[name]
    for a, b in points:
        x, y = Value(a), Value(b)
        z = OPERATORS[name](x, y)
        assert z.data == RULES[name].value(a, b)
        assert z.inputs == (x, y) and z.op is RULES[name]  # one node, operands in order
        z.backward()
        assert x.grad == pytest.approx(da(a, b), rel=1e-12)
        assert y.grad == pytest.approx(db(a, b), rel=1e-12)
        assert x.grad == pytest.approx(difference(lambda v, b=b: RULES[name].value(v, b), a), rel=1e-6, abs=1e-9)
        assert y.grad == pytest.approx(difference(lambda v, a=a: RULES[name].value(a, v), b), rel=1e-6, abs=1e-9)


def test_ties_share_the_gradient():
    a, b = Value(2.0), Value(2.0)
    a.max(b).backward()
    assert (a.grad, b.grad) == (0.5, 0.5)


def test_numbers_on_either_side_and_in_place():
    x = Value(3.0)
    assert [(2 + x).data, (2 - x).data, (2 * x).data, (2 / x).data, (2**x).data] == [5, -1, 6, 2 / 3, 8]
    assert [(x + 2).data, (x - 2).data, (x * 2).data, (x / 2).data, (x**2).data, (-x).data, abs(-x).data] == [
        5, 1, 6, 1.5, 9, -3, 3]
    y = x
    y += 1
    y *= 2
    y -= 3
    y /= 5
    y **= 2
    assert y.data == 1.0 and x.data == 3.0
    y.backward()
    assert x.grad == pytest.approx(2 * 1 * 2 / 5)


def test_comparisons_are_of_numbers():
    a, b = Value(1.0), Value(2.0)
    assert a < b and a <= b and b > a and b >= a and a != b and a == 1 and 2 == b and not a == b
    assert len({a, Value(1.0)}) == 2  # equal numbers, two nodes
    assert max(a, b) is b


def test_negative_bases_with_whole_exponents():
    x = Value(-3.0)
    (x**2).backward()
    assert x.grad == -6.0
    first, = grad(x**3, [x], create_graph=True)
    assert grad(first, [x])[0] == -18.0


def test_leaves_accumulate_exactly_and_interior_nodes_hold_the_latest():
    a, b = Value(0.1), Value(0.3)
    c = a * b
    loss = c * a + c.tanh() + a
    loss.backward()
    once, inner = (a.grad, b.grad), c.grad
    loss.backward()
    assert (a.grad, b.grad) == (2 * once[0], 2 * once[1]) and c.grad == inner
    a.zero_grad()
    assert a.grad is None
    fresh = Value(0.1)
    (fresh * fresh).backward()
    (fresh * 3).backward()
    assert fresh.grad == 0.2 + 3.0


def test_a_node_used_twice_keeps_both_edges_in_order():
    a = Value(3.0, label="a")
    y = a + a
    assert y.inputs == (a, a)
    y.backward()
    assert a.grad == 2.0
    assert [v.data for v in (a - 1).inputs] == [3.0, 1.0]


def test_sixty_doublings_and_a_million_operations():
    x = y = Value(1.0)
    for _ in range(60):
        y = y + y
    start = time.perf_counter()
    y.backward()
    assert x.grad == 2.0**60 and time.perf_counter() - start < 1.0  # a walk over every path would never end
    x = y = Value(1.0)
    for _ in range(1_000_000):
        y = y + 1e-6
    y.backward()
    assert x.grad == 1.0
    del y  # freeing the chain must not overflow the C stack


def test_constants_take_no_gradient():
    x = Value(2.0)
    y = x * 10
    ten = y.inputs[1]
    y.backward()
    assert not ten.requires_grad and ten.grad is None and x.requires_grad
    frozen = Value(2.0, requires_grad=False)
    (frozen * x).backward()
    assert frozen.grad is None


def test_no_grad_is_a_block_and_a_decorator_and_ends_after_an_error():
    x = Value(2.0)
    with no_grad():
        assert (x * x).inputs == ()
    assert no_grad()(lambda: x * x)().inputs == ()
    with pytest.raises(ValueError), no_grad():
        x / 0
    assert (x * x).inputs == (x, x)


def test_grad_touches_nobody_and_names_what_it_does_not_reach():
    x, y, z = Value(2.0), Value(3.0), Value(1.0, label="z")
    assert grad(x * y, [x, y]) == (3.0, 2.0) and x.grad is None
    with pytest.raises(ValueError, match=r"does not depend on input 1 \(z\)"):
        grad(x * y, [x, z])


def test_third_derivative():
    x = Value(0.7)
    y = x.sin()
    for expected in (math.cos(0.7), -math.sin(0.7), -math.cos(0.7)):
        y, = grad(y, [x], create_graph=True)
        assert y.data == pytest.approx(expected, rel=1e-12)


def test_nan_travels():
    nan = Value(math.nan)
    for name in UNARY:
        assert math.isnan(getattr(nan, name)().data), name
    for combine in OPERATORS.values():
        assert math.isnan(combine(nan, Value(2.0)).data) and math.isnan(combine(Value(2.0), nan).data)


def test_large_arguments_do_not_overflow():
    for x in (-1e4, 1e4):
        for name in ("sigmoid", "tanh", "softplus", "relu", "gelu", "erf"):
            v = Value(x)
            y = getattr(v, name)()
            y.backward()
            assert math.isfinite(y.data) and math.isfinite(v.grad)


def test_numpy_goes_through_arrays_of_values():
    a = np.array([Value(1.0), Value(2.0)])
    w = np.array([[Value(3.0), Value(4.0)], [Value(5.0), Value(6.0)]])
    y = np.exp(a @ w.T * 0.1).sum() + (2.0 * a - np.float64(1)).sum()
    y.backward()
    s = math.exp(1.1), math.exp(1.7)
    assert y.data == pytest.approx(sum(s) + 4)
    assert a[0].grad == pytest.approx(0.3 * s[0] + 0.5 * s[1] + 2)
    assert isinstance(np.float64(2) * a[0], Value) and isinstance(a[0] + np.float32(1), Value)


@pytest.mark.parametrize("wrong, error, sentence", [
    (lambda x: Value("2"), TypeError, "Value: expected a number, got '2'"),
    (lambda x: Value(1j), TypeError, "expected a number, got 1j"),
    (lambda x: Value(10**400), ValueError, "too large for a float"),
    (lambda x: x + "1", TypeError, r"\+: expected a number or a Value, got '1'"),
    (lambda x: "1" * x, TypeError, r"\*: expected a number or a Value, got '1'"),
    (lambda x: x / None, TypeError, "/: expected a number or a Value, got None"),
    (lambda x: x.max([1]), TypeError, r"max: expected a number or a Value, got \[1\]"),
    (lambda x: x < "1", TypeError, "not supported between instances of 'Value' and 'str'"),
    (lambda x: (-x).log(), ValueError, "log is not defined at -2"),
    (lambda x: (-x).sqrt(), ValueError, "sqrt is not defined at -2"),
    (lambda x: x / 0, ValueError, "/ is not defined at 2, 0"),
    (lambda x: (-x)**0.5, ValueError, r"\*\* is not defined at -2, 0.5"),
    (lambda x: (x * 1000).exp(), ValueError, "exp is too large for a float at 2000"),
    (lambda x: (x - 2).sqrt().backward(), ValueError, "backward: sqrt has no finite derivative at 0"),
])
def test_bad_input_is_one_clear_sentence(wrong, error, sentence):
    with pytest.raises(error, match=sentence):
        wrong(Value(2.0))


def test_importing_value_imports_the_standard_library_alone():
    code = ("import sys; before = set(sys.modules); from tinynet import Value; (Value(2.0) * 3).backward(); "
            "new = {m.partition('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names); print(new)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.getcwd(), check=True,
                          env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.stdout.strip() == "{'tinynet'}"


# ------------------------------------------------------------------------------------- random expressions and PyTorch

STEPS = st.lists(st.tuples(st.sampled_from(["+", "-", "*", "/", "max", "min", "tanh", "sigmoid", "sin", "cos", "gelu",
                                            "softplus", "exp", "abs", "relu"]),
                           st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=25)
LEAVES = st.lists(st.floats(-2, 2).map(lambda x: round(x, 3)), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(LEAVES, STEPS)
def test_random_expressions_against_pytorch(numbers, steps):
    torch = pytest.importorskip("torch")

    def build(leaves, binary, unary):
        nodes = list(leaves)
        for name, i, j in steps:
            a, b = nodes[i % len(nodes)], nodes[j % len(nodes)]
            nodes.append(binary[name](a, b) if name in binary else unary(name, a))
        return sum(nodes[1:], nodes[0])

    ours = [Value(x) for x in numbers]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in numbers]
    squash = 1.0  # b² + 1 keeps divisions away from zero

    def through(f):
        return lambda name, a: f(name, a.tanh() if name == "exp" else a)
    y = build(ours, {**OPERATORS, "/": lambda a, b: a / (b * b + squash), "*": lambda a, b: a.tanh() * b},
              through(lambda name, a: getattr(a, name)()))
    functions = {"gelu": torch.nn.functional.gelu, "softplus": lambda a: torch.nn.functional.softplus(a, threshold=1e9)}
    z = build(theirs, {**OPERATORS, "/": lambda a, b: a / (b * b + squash), "*": lambda a, b: a.tanh() * b,
                       "max": torch.maximum, "min": torch.minimum},
              through(lambda name, a: functions[name](a) if name in functions else getattr(a, name)()))
    y.backward()
    z.backward()
    assert y.data == pytest.approx(z.item(), rel=1e-9, abs=1e-12)
    for x, t in zip(ours, theirs):
        assert x.grad == pytest.approx(t.grad.item(), rel=1e-9, abs=1e-9)
