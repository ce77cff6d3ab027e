"""A scalar that records its computation graph, and the derivative table that differentiates it.

>>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(loss.data, 6), round(a.grad, 6), round(b.grad, 6)
(0.999329, -0.004023, 0.002682)

Read the derivative table first: it is all the mathematics there is. The rest is bookkeeping.
"""

from __future__ import annotations

import math

from .errors import describe
from .graph import ANOMALY, Scope, chain_rule, mode, report_anomaly

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, SupportsFloat


class Rule:
    """A rule of the derivative table: the name of an operation, its value, and its local derivatives, one per operand.

    `value(a)` or `value(a, b)` computes y; each derivative takes the operands and y, and returns ∂y/∂a or ∂y/∂b.
    Both are plain functions of floats. The derivatives also work on Values, which gives second derivatives, and Numba
    compiles both for arrays and programs.

    Calling a rule applies it: to floats it returns a float, to Values a Value.
    """

    __slots__ = ("name", "value", "derivatives")

    def __init__(self, name: str, value: Callable[..., float], *derivatives: Callable[..., Any]) -> None:
        self.name, self.value, self.derivatives = name, value, derivatives

    def __repr__(self) -> str:
        return f"Rule({self.name!r})"

    def __call__(self, a: Any, *b: Any) -> Any:
        if a.__class__ is Value or Value in map(type, b):
            return node(self, constant(self.name, a), *b)
        return self.value(a, *b)

    def vjp(self, g: Any, y: Any, *xs: Any) -> list[Any]:
        """The vector-Jacobian products g · ∂y/∂x, one per operand."""
        try:
            if g.__class__ is float:
                return [g * derivative(*xs, y) for derivative in self.derivatives]
            return [times(g, derivative(*xs, y)) for derivative in self.derivatives]
        except (ZeroDivisionError, OverflowError):
            raise ValueError(f"backward: {self.name} has no finite derivative at {listed(xs)}") from None


# fmt: off
# ----------------------------------------------------------------------------------------------- the derivative table
# To add an operation, add a rule here and its method to Value. The gradient, the drawing, the explanation and the
# compiled program follow from the rule. y is the value of the rule; sin, log, … below work on floats and on Values.

RULES = {rule.name: rule for rule in (
    # name             value                            ∂y/∂a                               ∂y/∂b
    Rule("+",          lambda a, b: a + b,              lambda a, b, y: 1.0,                lambda a, b, y: 1.0),
    Rule("-",          lambda a, b: a - b,              lambda a, b, y: 1.0,                lambda a, b, y: -1.0),
    Rule("*",          lambda a, b: a * b,              lambda a, b, y: b,                  lambda a, b, y: a),
    Rule("/",          lambda a, b: a / b,              lambda a, b, y: 1.0 / b,            lambda a, b, y: -y / b),
    Rule("**",         lambda a, b: math.pow(a, b),
                       lambda a, b, y: b * a ** (b - 1.0) if b != 0.0 else 0.0,
                       lambda a, b, y: y * log(a) if a > 0.0 else 0.0 if a == 0.0 else math.nan),
    Rule("max",        lambda a, b: a if a >= b or a != a else b,
                       lambda a, b, y: 1.0 if a > b else 0.5 if a == b else 0.0,
                       lambda a, b, y: 1.0 if b > a else 0.5 if a == b else 0.0),
    Rule("min",        lambda a, b: a if a <= b or a != a else b,
                       lambda a, b, y: 1.0 if a < b else 0.5 if a == b else 0.0,
                       lambda a, b, y: 1.0 if b < a else 0.5 if a == b else 0.0),
    Rule("neg",        lambda a: -a,                    lambda a, y: -1.0),
    Rule("abs",        lambda a: abs(a),                lambda a, y: 1.0 if a > 0.0 else -1.0 if a < 0.0 else 0.0),
    Rule("exp",        lambda a: math.exp(a),           lambda a, y: y),
    Rule("log",        lambda a: math.log(a),           lambda a, y: 1.0 / a),
    Rule("sqrt",       lambda a: math.sqrt(a),          lambda a, y: 0.5 / y),
    Rule("sin",        lambda a: math.sin(a),           lambda a, y: cos(a)),
    Rule("cos",        lambda a: math.cos(a),           lambda a, y: -sin(a)),
    Rule("tanh",       lambda a: math.tanh(a),          lambda a, y: 1.0 - y * y),
    Rule("sigmoid",    lambda a: 1.0 / (1.0 + math.exp(-a)) if a >= 0.0 else math.exp(a) / (1.0 + math.exp(a)),
                       lambda a, y: y * (1.0 - y)),
    Rule("relu",       lambda a: 0.0 if a <= 0.0 else a, lambda a, y: 0.0 if a <= 0.0 else 1.0),
    Rule("erf",        lambda a: math.erf(a),           lambda a, y: 1.1283791670955126 * exp(-a * a)),  # 2/√π
    Rule("gelu",       lambda a: 0.5 * a * (1.0 + math.erf(a * 0.7071067811865476)),                     # 1/√2
                       lambda a, y: 0.5 * (1.0 + erf(a * 0.7071067811865476))
                       + a * 0.3989422804014327 * exp(-0.5 * a * a)),                                    # 1/√(2π)
    Rule("softplus",   lambda a: (a if a > 0.0 else 0.0) + math.log1p(math.exp(-abs(a))),
                       lambda a, y: sigmoid(a)),
)}
exp: Rule = RULES["exp"]
log: Rule = RULES["log"]
sin: Rule = RULES["sin"]
cos: Rule = RULES["cos"]
erf: Rule = RULES["erf"]
sigmoid: Rule = RULES["sigmoid"]
# ---------------------------------------------------------------------------------------------------------------------
# fmt: on

OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "**": "pow"}  # as in Value.__add__
CONSTANT = Rule("constant", float)  # the `op` of a leaf that takes no gradient: a plain number in an expression


class Value:
    """A scalar node of a graph: `Value(2.0, label="a")`.

    Operators and the methods of the derivative table make new Values that point to their operands; `backward()` fills
    in `grad` on all of them. A plain number in an expression becomes a constant, which takes no gradient.

    Gradients of leaves accumulate over calls of `backward()`, as in PyTorch (`zero_grad()` resets them); any other
    node holds the gradient of the latest call.

    Raises TypeError where `data` is not a number.
    """

    __slots__ = ("data", "grad", "op", "inputs", "label", "scope", "__weakref__")

    data: float
    grad: Any  # a float after backward(), None before
    op: Rule | None
    inputs: tuple[Value, ...]
    label: str
    scope: Scope | None

    def __init__(self, data: SupportsFloat, label: str = "", requires_grad: bool = True) -> None:
        self.data = number(data)
        self.grad = None
        self.op = None if requires_grad else CONSTANT
        self.inputs = ()
        self.label = label
        self.scope = mode.scope

    def __repr__(self) -> str:
        grad = "" if self.grad is None else f", grad={self.grad!r}"
        label = f", label={self.label!r}" if self.label else ""
        return f"Value({self.data!r}{grad}{label})"

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow here: True but for constants."""
        return self.op is not CONSTANT

    def item(self) -> float:
        """The number, as a float."""
        return self.data

    __float__ = item

    def detach(self) -> Value:
        """The same number as a constant, which stops gradients."""
        return Value(self.data, self.label, requires_grad=False)

    def zero_grad(self) -> None:
        """Reset the gradient to None."""
        self.grad = None

    def gradients(self, create_graph: bool = False) -> Iterator[tuple[Value, Any]]:
        """Yield (node, d self / d node) from here back to the leaves; as Values where `create_graph` is set."""
        return chain_rule(self, Value(1.0, requires_grad=False) if create_graph else 1.0, create_graph=create_graph)

    def backward(self) -> None:
        """Fill in `grad` = d self / d node for every node that self depends on."""
        for node, g in list(self.gradients()):
            if node.inputs or (node.grad is None and node.op is not CONSTANT):
                node.grad = g
            elif node.op is not CONSTANT:
                node.grad += g

    def _check_vjp(self, product: SupportsFloat) -> None:
        """Anomaly mode: check what the rule of this node contributes to the gradient of one input."""
        numbers = [x.data for x in self.inputs]
        result = finiteness(float(product))
        if result != "finite":
            assert self.op is not None
            report_anomaly(f"backward of {self.op.name}", self.scope, result, f" at {listed(numbers)}",
                           finiteness(*numbers))

    # fmt: off
    # --------------------------------------------------------------------------- the methods of the derivative table

    def __add__(self, other: Value | float) -> Value: return node(RULES["+"], self, other)
    def __sub__(self, other: Value | float) -> Value: return node(RULES["-"], self, other)
    def __mul__(self, other: Value | float) -> Value: return node(RULES["*"], self, other)
    def __truediv__(self, other: Value | float) -> Value: return node(RULES["/"], self, other)
    def __pow__(self, other: Value | float) -> Value: return node(RULES["**"], self, other)
    def __radd__(self, other: float) -> Value: return constant("+", other) + self
    def __rsub__(self, other: float) -> Value: return constant("-", other) - self
    def __rmul__(self, other: float) -> Value: return constant("*", other) * self
    def __rtruediv__(self, other: float) -> Value: return constant("/", other) / self
    def __rpow__(self, other: float) -> Value: return constant("**", other) ** self
    def max(self, other: Value | float) -> Value: return node(RULES["max"], self, other)
    def min(self, other: Value | float) -> Value: return node(RULES["min"], self, other)
    def neg(self) -> Value: return node(RULES["neg"], self)
    def abs(self) -> Value: return node(RULES["abs"], self)
    def exp(self) -> Value: return node(RULES["exp"], self)
    def log(self) -> Value: return node(RULES["log"], self)
    def sqrt(self) -> Value: return node(RULES["sqrt"], self)
    def sin(self) -> Value: return node(RULES["sin"], self)
    def cos(self) -> Value: return node(RULES["cos"], self)
    def tanh(self) -> Value: return node(RULES["tanh"], self)
    def sigmoid(self) -> Value: return node(RULES["sigmoid"], self)
    def relu(self) -> Value: return node(RULES["relu"], self)
    def erf(self) -> Value: return node(RULES["erf"], self)
    def gelu(self) -> Value: return node(RULES["gelu"], self)
    def softplus(self) -> Value: return node(RULES["softplus"], self)

    __neg__, __abs__ = neg, abs

    # ------------------------------------------------- comparisons of the numbers, through which no gradient flows

    def __eq__(self, other: object) -> bool: return self.data == number(other) if is_number(other) else NotImplemented
    def __ne__(self, other: object) -> bool: return self.data != number(other) if is_number(other) else NotImplemented
    def __lt__(self, other: object) -> bool: return self.data < number(other) if is_number(other) else NotImplemented
    def __le__(self, other: object) -> bool: return self.data <= number(other) if is_number(other) else NotImplemented
    def __gt__(self, other: object) -> bool: return self.data > number(other) if is_number(other) else NotImplemented
    def __ge__(self, other: object) -> bool: return self.data >= number(other) if is_number(other) else NotImplemented
    # fmt: on

    __hash__ = object.__hash__  # two nodes may hold equal numbers and still be two nodes

    def __bool__(self) -> bool:
        return self.data != 0.0

    def __pos__(self) -> Value:
        return self

    def __round__(self, digits: int | None = None) -> float:
        return round(self.data, digits)


new = Value.__new__
ABSENT = object()


def node(rule: Rule, a: Value, b: Any = ABSENT) -> Value:
    """The Value of rule(a) or rule(a, b), which records its operands unless inside `no_grad`."""
    if b.__class__ is not Value and b is not ABSENT:
        if hasattr(b, "__array_ufunc__") and rule.name in OPERATORS:
            return NotImplemented  # type: ignore[no-any-return]  # NumPy goes through the array
        b = constant(rule.name, b)
    y = new(Value)
    inputs: tuple[Value, ...]
    try:
        if b is ABSENT:
            inputs = (a,)
            y.data = rule.value(a.data)
        else:
            inputs = a, b
            y.data = rule.value(a.data, b.data)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        problem = "too large for a float" if isinstance(error, OverflowError) else "not defined"
        raise ValueError(f"{rule.name} is {problem} at {listed(inputs)}") from None
    y.grad = None
    y.label = ""
    y.scope = mode.scope
    grad_enabled = mode.grad_enabled
    if grad_enabled:
        y.op, y.inputs = rule, inputs
        if grad_enabled is ANOMALY:
            check_anomaly(rule.name, y)
    else:
        y.op, y.inputs = CONSTANT, ()
    return y


def constant(name: str, x: Any) -> Value:
    """The operand x of an operation as a Value."""
    if isinstance(x, Value):
        return x
    if not is_number(x):
        raise TypeError(f"{name}: expected a number or a Value, got {describe(x)}")
    return Value(x, requires_grad=False)


def is_number(x: object) -> bool:
    """Whether x is one number (int, float, Value, a NumPy scalar, …), not a string, a complex number or an array."""
    return isinstance(x, (int, float, Value)) or (
        hasattr(x, "__float__") and not hasattr(x, "__array_ufunc__") and not isinstance(x, type))


def number(x: Any) -> float:
    """x as a float; TypeError where it is not one number."""
    if not is_number(x):
        raise TypeError(f"Value: expected a number, got {describe(x)}")
    try:
        return float(x)
    except OverflowError:
        raise ValueError(f"Value: the integer {str(x)[:12]}… is too large for a float") from None


def listed(xs: Iterable[Any]) -> str:
    return ", ".join(f"{float(x):g}" for x in xs)


def times(g: Any, d: Any) -> Any:
    """g · d as a node, without a multiplication by one."""
    return g if d.__class__ is float and d == 1.0 else d * g


def finiteness(*numbers: float) -> str:
    """"nan", "inf" or "finite": the worst among some numbers."""
    if any(x != x for x in numbers):
        return "nan"
    return "inf" if any(x in (math.inf, -math.inf) for x in numbers) else "finite"


def check_anomaly(name: str, y: Value) -> None:
    """Anomaly mode: check the result of an operation."""
    result, inputs = finiteness(y.data), finiteness(*[x.data for x in y.inputs])
    if result == "nan" or (result == "inf" and inputs == "finite"):
        report_anomaly(name, y.scope, result, "", inputs)
