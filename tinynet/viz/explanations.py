"""The chain rule in words: `explain(f)` says each step forward and each step back, with names, formula and numbers.

>>> from tinynet import Value
>>> a, b = Value(-2, label="a"), Value(3, label="b")
>>> f = (a * b) * (a + b)
>>> f.label = "f"
>>> f.backward()
>>> explain(f)
Forward pass: each number is computed from its operands.
 1. v1 = a * b = (-2) * 3 = -6
 2. v2 = a + b = (-2) + 3 = 1
 3. f = v1 * v2 = (-6) * 1 = -6
Backward pass: upstream gradient × local derivative, summed over all uses; d is the derivative of f, ∂ the local one.
 4. df/df = 1
 5. df/dv1 = df/df * ∂f/∂v1 = df/df * v2 = 1 * 1 = 1
 6. df/dv2 = df/df * ∂f/∂v2 = df/df * v1 = 1 * (-6) = -6
 7. df/da (1 of 2) = df/dv2 * ∂v2/∂a = df/dv2 * 1 = (-6) * 1 = -6
 8. df/db (1 of 2) = df/dv2 * ∂v2/∂b = df/dv2 * 1 = (-6) * 1 = -6
 9. df/da (2 of 2) = (-6) + df/dv1 * ∂v1/∂a = (-6) + df/dv1 * b = (-6) + 1 * 3 = -3
10. df/db (2 of 2) = (-6) + df/dv1 * ∂v1/∂b = (-6) + df/dv1 * a = (-6) + 1 * (-2) = -8

The last formula of each line is Python and evaluates to the number after it: results are rounded to four digits, and
the numbers that they are computed from have as many digits as that takes. The formulas are read from the derivative
table in `value`, the numbers come from its rules.
"""

import math
from collections import Counter, namedtuple

from ..errors import check_int, describe
from ..graph import topological
from ..value import CONSTANT, Value
from .diagnostics import contributions, diagnose
from .formulas import filled, operation, written, written_case
from .labels import DIGITS, atom, data_of, is_node, names, numeral, shape_text


def explain(root, limit=100):
    """The graph behind `root` as text: one line for each step of the forward and the backward pass, and diagnostics.

    Of a long text the beginning and the end of each pass are kept, about `limit` lines; the text says how many were
    omitted. `limit=None` keeps all. Graphs of Tensors are described by shapes and sizes.

    Raises TypeError where `root` is not a node, ValueError for a limit below 8.
    """
    check_node("explain", root)
    return Explanation(root, limit if limit is None else check_int("explain", "limit", limit, least=8))


def check_node(function, x):
    """TypeError where x is not a node of a graph."""
    if not is_node(x):
        raise TypeError(f"{function}: expected a Value or a Tensor, got {describe(x)}")


class Explanation:
    """The lines of an explanation; it prints as text. `sentences` are the steps alone, without headings."""

    def __init__(self, root, limit):
        order = topological(root)
        name = names(order)
        trace = (Trace if isinstance(root, Value) else ShapeTrace)(root, order, name)
        width, first = len(str(len(trace.forward) + len(trace.backward))), 0
        self.lines, self.sentences = [], []
        for heading, steps in ((FORWARD, trace.forward), (BACKWARD.format(name[root]), trace.backward)):
            if steps:
                self.lines.append(heading)
            for i in kept(len(steps), None if limit is None else limit // 2):
                if i is None:
                    omitted = len(steps) - limit // 2
                    self.lines.append(f"{' ' * width}  … {omitted:,} steps omitted; explain(…, limit=None) shows all …")
                else:
                    self.sentences.append(trace.sentence(steps[i]))
                    self.lines.append(f"{first + i + 1:{width}}. {self.sentences[-1]}")
            first += len(steps)
        self.lines += [f"⚠ {sentence}" for _, sentence in diagnose(root)]

    def __repr__(self):
        return "\n".join(self.lines)


FORWARD = "Forward pass: each number is computed from its operands."
BACKWARD = ("Backward pass: upstream gradient × local derivative, summed over all uses; d is the derivative of {}, "
            "∂ the local one.")


def kept(count, limit):
    """The indices 0 … count - 1, with None for a gap in the middle where there are more than `limit`."""
    if limit is None or count <= limit:
        return range(count)
    head = limit - limit // 2
    return [*range(head), None, *range(count - limit // 2, count)]


def d(name):
    """The name in dy/dx: in parentheses where it is more than one word."""
    return f"d({name})" if " " in name else f"d{name}"


# Operand i of `node`, whose upstream gradient is g, receives `amount`: its contribution number `count`; those before it
# sum to `before` (None for the first).
Contribution = namedtuple("Contribution", "node i g amount before count")


class Trace:
    """The steps of a graph of Values: a node for each step forward, a Contribution for each step back."""

    def __init__(self, root, order, name):
        self.root, self.name = root, name
        self.forward, self.backward = [node for node in order if node.inputs], []
        self.uses = Counter(x for node in self.forward for x in node.inputs)
        received = {}
        try:
            for node, i, g, contribution in contributions(root):
                before, count = received.get(node.inputs[i], (None, 0))
                received[node.inputs[i]] = contribution if before is None else before + contribution, count + 1
                self.backward.append(Contribution(node, i, g, contribution, before, count + 1))
        except ValueError as error:  # a derivative is not finite
            self.backward.append(str(error))
        if self.backward:
            self.backward.insert(0, f"{self.effect(root)} = 1")

    def sentence(self, step):
        """What one step says."""
        if isinstance(step, str):
            return step
        return self.received(step) if isinstance(step, Contribution) else self.computed(step)

    def called(self, nodes):
        """The names of nodes in a formula, by the marks of its operands."""
        return {mark: self.name[x] if x.op is not CONSTANT else atom(self.name[x]) for mark, x in nodes.items()}

    def effect(self, node):
        return f"{d(self.name[self.root])}/{d(self.name[node])}"

    def computed(self, node):
        """v1 = a * b = (-2) * 3 = -6"""
        digits = digits_for(lambda cut: node.op.value(*[cut(x.data) for x in node.inputs]), node.data)
        marked = dict(zip("abcdefgh", node.inputs))
        formula, figures = written(node.op), {mark: atom(numeral(x.data, digits)) for mark, x in marked.items()}
        return " = ".join([self.name[node], filled(formula, self.called(marked)), filled(formula, figures),
                           numeral(node.data)])

    def received(self, step):
        """df/da (2 of 2) = (-6) + df/dv1 * ∂v1/∂a = (-6) + df/dv1 * b = (-6) + 1 * 3 = -3"""
        node, x, g, before = step.node, step.node.inputs[step.i], step.g, step.before
        derivative, numbers = node.op.derivatives[step.i], [*map(data_of, node.inputs), node.data]
        total = step.amount if before is None else before + step.amount
        formula = written_case(derivative, numbers)

        def compute(cut):
            local = derivative(*map(cut, numbers)) if formula is not None else cut(derivative(*numbers))
            return (cut(before) if before is not None else 0.0) + cut(g) * local

        digits = digits_for(compute, total)
        so_far = "" if before is None else f"{atom(numeral(before, digits))} + "
        count = f" ({step.count} of {self.uses[x]})" if self.uses[x] > 1 else ""
        parts = [self.effect(x) + count,
                 f"{so_far}{self.effect(node)} * ∂{d(self.name[node])[1:]}/∂{d(self.name[x])[1:]}"]
        figures = {"g": atom(numeral(g, digits))}
        if formula is None:
            parts.append(f"{so_far}{figures['g']} * {atom(numeral(derivative(*numbers), digits))}")
        else:
            marked = dict(zip("abcdefgh", node.inputs)) | {"y": node}
            figures |= {mark: atom(numeral(z.data, digits)) for mark, z in marked.items()}
            parts.append(so_far + filled(formula, self.called(marked) | {"g": self.effect(node)}))
            parts.append(so_far + filled(formula, figures))
        return " = ".join([*parts, numeral(total)])


def digits_for(compute, result):
    """How many digits the operands need for the line to come out right when somebody computes it from what it shows."""
    for digits in DIGITS[:-1]:
        try:
            shown = compute(lambda x, digits=digits: float(numeral(x, digits)))
        except (ArithmeticError, ValueError):
            continue
        if not isinstance(shown, complex) and numeral(shown) == numeral(result):
            return digits
    return DIGITS[-1]


class ShapeTrace:
    """The steps of a graph of Tensors: the shape of what each operation makes, and how large a gradient it receives."""

    def __init__(self, root, order, name):
        self.root, self.name = root, name
        differentiable = root.inputs and root._data.size == 1 and root.requires_grad
        self.forward = [(node, None) for node in order if node.inputs]
        self.backward = list(root.gradients()) if differentiable else []

    def sentence(self, step):
        node, g = step
        name, shape = self.name[node], shape_text(node.shape)
        if g is not None:
            size = numeral(math.sqrt(float((g.astype(float) ** 2).mean()))) if g.size else "0"
            effect = f"{d(self.name[self.root])}/{d(name)}"
            return f"{effect} = 1" if node is self.root else f"{effect} has shape {shape} and root mean square {size}"
        texts = [f"{self.name[x]} {shape_text(x.shape)}" for x in node.inputs]
        return f"{name} = {operation(node.op.name, texts)} has shape {shape}"
