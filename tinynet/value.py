"""One number that remembers how it was made, and the page of calculus that differentiates it.

>>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> round(loss.data, 6), round(a.grad, 6), round(b.grad, 6)
(0.999329, -0.004023, 0.002682)

Read the page of calculus first: it is all the mathematics there is. What follows it only keeps books.
"""

import math
import operator

from .graph import ANOMALY, chain_rule, layer_path, mode, report_anomaly


class Rule:
    """A row of the calculus: the name of an operation, its value, and its local derivatives, one for each operand.

    `value(a)` or `value(a, b)` computes y; each derivative is given the operands and y, and returns ∂y/∂a or ∂y/∂b.
    Both are plain functions that work on floats; the derivatives work on Values as well (which is how second
    derivatives come about), and Numba compiles both for arrays and programs.
    """

    __slots__ = ("name", "value", "derivatives")

    def __init__(self, name, value, *derivatives):
        self.name, self.value, self.derivatives = name, value, derivatives

    def __repr__(self):
        return f"Rule({self.name!r})"

    def vjp(self, g, y, *xs):
        """What each operand receives of the gradient g: g · ∂y/∂x."""
        try:
            if g.__class__ is float:
                return [g * derivative(*xs, y) for derivative in self.derivatives]
            return [times(g, derivative(*xs, y)) for derivative in self.derivatives]
        except (ZeroDivisionError, OverflowError):
            raise ValueError(f"backward: {self.name} has no finite derivative at {listed(xs)}") from None


# ------------------------------------------------------------------------------------------------ the page of calculus
# Add an operation by adding a row: the method, the function, the gradient, the drawing, the explanation in words and
# the compiled program all come from here. y is the value of the row; sin, log, … below work on floats and on Values.

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
# ---------------------------------------------------------------------------------------------------------------------

CONSTANT = Rule("constant", None)  # the `op` of a leaf that takes no gradient: a plain number in an expression


def is_number(x):
    """Whether x is one number (int, float, Value, a NumPy scalar, …), not a string, a complex number or an array."""
    return isinstance(x, (int, float, Value)) or (
        hasattr(x, "__float__") and not hasattr(x, "__array_ufunc__") and not isinstance(x, type))


def number(x):
    """x as a float; TypeError where it is not one number."""
    if is_number(x):
        try:
            return float(x)
        except OverflowError:
            raise ValueError(f"Value: the integer {str(x)[:12]}… is too large for a float") from None
    raise TypeError(f"Value: expected a number, got {type(x).__name__} {str(x)[:40]!r}")


def listed(xs):
    return ", ".join(f"{float(x):g}" for x in xs)



class Value:
    """A number in a graph: `Value(2.0, label="a")`.

    Operators and the methods of the page of calculus make new Values that point to their operands; `backward()` fills
    in `grad` on all of them. A plain number in an expression becomes a constant, which takes no gradient.

    Gradients of leaves add up over calls of `backward()`, as in PyTorch (`zero_grad()` clears them); any other node
    holds the gradient of the latest call.

    Raises TypeError where `data` is not a number.
    """

    __slots__ = ("data", "grad", "op", "inputs", "label", "scope", "__weakref__")

    def __init__(self, data, label="", requires_grad=True):
        self.data = number(data)
        self.grad = None
        self.op = None if requires_grad else CONSTANT
        self.inputs = ()
        self.label = label
        self.scope = mode.scope

    def __repr__(self):
        grad = "" if self.grad is None else f", grad={self.grad!r}"
        label = f", label={self.label!r}" if self.label else ""
        return f"Value({self.data!r}{grad}{label})"

    @property
    def requires_grad(self):
        """Whether gradients flow here: True but for constants."""
        return self.op is not CONSTANT

    def item(self):
        """The number, as a float."""
        return self.data

    __float__ = item

    def detach(self):
        """The same number as a constant: gradients stop here."""
        return Value(self.data, self.label, requires_grad=False)

    def zero_grad(self):
        """Forget the gradient."""
        self.grad = None

    def gradients(self, create_graph=False):
        """Yield (node, d self / d node) from here back to the leaves; as Values where `create_graph` is set."""
        return chain_rule(self, Value(1.0, requires_grad=False) if create_graph else 1.0, create_graph=create_graph)

    def backward(self):
        """Fill in `grad` = d self / d node for every node that this one was made from."""
        for node, g in list(self.gradients()):
            if node.inputs or (node.grad is None and node.op is not CONSTANT):
                node.grad = g
            elif node.op is not CONSTANT:
                node.grad += g

    def _check_vjp(self, share):
        """See `detect_anomaly`: `share` is what the rule of this node gives to one of its inputs."""
        found, numbers = kind(float(share)), [x.data for x in self.inputs]
        if found != "finite":
            report_anomaly(f"backward of {self.op.name}", self.scope, found, f" at {listed(numbers)}", kind(*numbers))

    def __bool__(self):
        return self.data != 0.0

    def __pos__(self):
        return self

    def __round__(self, digits=None):
        return round(self.data, digits)

    __hash__ = object.__hash__  # two nodes may hold equal numbers and still be two nodes


def node(rule, inputs, numbers):
    """The Value of rule(*inputs), which remembers its inputs unless inside `no_grad`."""
    y = new(Value)
    try:
        y.data = rule.value(*numbers)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{rule.name} is not defined at {listed(numbers)}{layer_path(mode.scope)}") from None
    except OverflowError:
        raise ValueError(f"{rule.name} is too large for a float at {listed(numbers)}{layer_path(mode.scope)}") from None
    y.grad = None
    y.label = ""
    y.scope = mode.scope
    recording = mode.grad_enabled
    if recording:
        y.op, y.inputs = rule, inputs
        if recording is ANOMALY:
            watch(rule.name, y.scope, y.data, numbers)
    else:
        y.op, y.inputs = CONSTANT, ()
    return y


def kind(*numbers):
    """"nan", "inf" or "finite": the worst that some numbers hold."""
    if any(x != x for x in numbers):
        return "nan"
    return "inf" if any(x in (math.inf, -math.inf) for x in numbers) else "finite"


def watch(name, scope, y, numbers):
    """See `detect_anomaly`."""
    result, inputs = kind(y), kind(*numbers)
    if result == "nan" or (result == "inf" and inputs == "finite"):
        report_anomaly(name, scope, result, "", inputs)


new = Value.__new__


def unary(rule):
    """The method of Value for a rule of one operand."""

    def method(self):
        return node(rule, (self,), (self.data,))

    return method


def binary(rule):
    """The method of Value for a rule of two operands, and its mirror image for a plain number on the left."""

    def method(self, other):
        if other.__class__ is not Value:
            if hasattr(other, "__array_ufunc__"):  # an array: NumPy goes through it, element by element
                return NotImplemented
            other = operand(other)
        return node(rule, (self, other), (self.data, other.data))

    def mirrored(self, other):
        return NotImplemented if hasattr(other, "__array_ufunc__") else method(operand(other), self)

    def operand(x):
        if not is_number(x):
            raise TypeError(f"{rule.name}: expected a number or a Value, got {type(x).__name__} {str(x)[:40]!r}")
        return Value(x, requires_grad=False)

    method.__qualname__ = mirrored.__qualname__ = f"Value.{rule.name}"
    return method, mirrored


def comparison(compare):
    """The method of Value that compares data: the answer is a plain bool, through which no gradient flows."""

    def method(self, other):
        return compare(self.data, number(other)) if is_number(other) else NotImplemented

    method.__qualname__ = f"Value.{compare.__name__}"
    return method


def function(name):
    """The row as a function of a float or of a Value."""
    value = RULES[name].value
    return lambda x: getattr(x, name)() if x.__class__ is Value else value(x)


def times(g, d):
    """g · d as a node, without a multiplication by one."""
    return g if d.__class__ is float and d == 1.0 else d * g


OPERATORS = {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "**": "pow"}

for rule in RULES.values():
    if rule.name in OPERATORS:
        method, mirrored = binary(rule)
        setattr(Value, f"__{OPERATORS[rule.name]}__", method)
        setattr(Value, f"__r{OPERATORS[rule.name]}__", mirrored)
    else:
        method = unary(rule) if len(rule.derivatives) == 1 else binary(rule)[0]
        method.__qualname__ = f"Value.{rule.name}"
        method.__name__, method.__doc__ = rule.name, f"{rule.name}, a row of the page of calculus."
        setattr(Value, rule.name, method)

Value.__neg__, Value.__abs__ = Value.neg, Value.abs
for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
    setattr(Value, f"__{compare.__name__}__", comparison(compare))

exp, log, sin, cos, erf, sigmoid = map(function, ("exp", "log", "sin", "cos", "erf", "sigmoid"))
