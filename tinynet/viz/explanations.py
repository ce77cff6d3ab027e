"""The chain rule in words: `explain(f)` says each step forward and each step back, with names, formula and numbers.

>>> from tinynet import Value
>>> a, b = Value(-2, label="a"), Value(3, label="b")
>>> f = (a * b) * (a + b)
>>> f.label = "f"
>>> f.backward()
>>> explain(f)
Forward: each number from the ones before it.
 1. v1 = a * b = (-2) * 3 = -6
 2. v2 = a + b = (-2) + 3 = 1
 3. f = v1 * v2 = (-6) * 1 = -6
Backward: d is the effect on f, ∂ the effect through one operation; what arrives is multiplied by the local derivative.
 4. df/df = 1
 5. df/dv1 = df/df * ∂f/∂v1 = df/df * v2 = 1 * 1 = 1
 6. df/dv2 = df/df * ∂f/∂v2 = df/df * v1 = 1 * (-6) = -6
 7. df/da (1 of 2) = df/dv2 * ∂v2/∂a = df/dv2 * 1 = (-6) * 1 = -6
 8. df/db (1 of 2) = df/dv2 * ∂v2/∂b = df/dv2 * 1 = (-6) * 1 = -6
 9. df/da (2 of 2) = (-6) + df/dv1 * ∂v1/∂a = (-6) + df/dv1 * b = (-6) + 1 * 3 = -3
10. df/db (2 of 2) = (-6) + df/dv1 * ∂v1/∂b = (-6) + df/dv1 * a = (-6) + 1 * (-2) = -8

The last formula of each line is Python and evaluates to the number after it: results are rounded to four digits, and
the numbers that they are computed from have as many digits as that takes. No derivative is written here: the formulas
are read from the page of calculus in `value`, the numbers come from its rules.

`mistakes(f)` finds what commonly goes wrong in a graph and says what to do about it.
"""

import ast
import copy
import functools
import inspect
import math
import operator
import unicodedata
from collections import Counter

from ..errors import refusing
from ..graph import chain_rule, topological
from ..value import CONSTANT, OPERATORS, Rule


@refusing
def explain(root, limit=100):
    """The graph behind `root` as text: one line for each step forward and each step back, in order, and its mistakes.

    Of a long text the beginning and the end of each direction are kept, about `limit` lines; the text says how many
    were left out. `limit=None` keeps all. Graphs of Tensors are told by shapes and sizes.

    Raises TypeError where `root` is no node, ValueError for a limit below 8.
    """
    if not (hasattr(root, "inputs") and hasattr(root, "op")):
        raise TypeError(f"explain: expected a Value or a Tensor, got {type(root).__name__} {str(root)[:40]!r}")
    if limit is not None and (not isinstance(limit, int) or limit < 8):
        raise ValueError(f"explain: limit is the number of lines to keep, 8 or more, or None for all; got {limit!r}")
    return Explanation(root, limit)


class Explanation:
    """The lines of an explanation; it prints as text. `sentences` are the steps alone, without headings."""

    def __init__(self, root, limit):
        order = topological(root)
        name = names(order)
        tell = Story(root, order, name) if is_value(root) else ShapeStory(root, order, name)
        width, first = len(str(len(tell.forward) + len(tell.backward))), 0
        self.lines, self.sentences = [], []
        for heading, part in ((FORWARD, tell.forward), (BACKWARD.format(name[root]), tell.backward)):
            if part:
                self.lines.append(heading)
            for i in kept(len(part), None if limit is None else limit // 2):
                if i is None:
                    left = len(part) - limit // 2
                    self.lines.append(f"{' ' * width}  … {left:,} steps left out; explain(…, limit=None) keeps them …")
                else:
                    sentence = tell.sentence(part[i])
                    self.sentences.append(sentence)
                    self.lines.append(f"{first + i + 1:{width}}. {sentence}")
            first += len(part)
        self.lines += [f"⚠ {sentence}" for _, sentence in mistakes(root)]

    def __repr__(self):
        return "\n".join(self.lines)


FORWARD = "Forward: each number from the ones before it."
BACKWARD = ("Backward: d is the effect on {}, ∂ the effect through one operation; what arrives is multiplied by the "
            "local derivative.")


def kept(count, limit):
    """The numbers 0 … count - 1, with None for a gap in the middle where there are more than `limit`."""
    if limit is None or count <= limit:
        return range(count)
    head = limit - limit // 2
    return [*range(head), None, *range(count - limit // 2, count)]


def is_value(node):
    return isinstance(node.data, float)


# ------------------------------------------------------------------------------------------------- numbers and names


DIGITS = (4, 5, 6, 7, 8, 10, 12, 14, 17)  # the operands in a line have the first of these that makes it come out right


def numeral(x, digits=4):
    """A number with so many significant digits, as Python reads it: -0.5, 1e-9, nan. Whole numbers keep theirs.

    >>> numeral(2.0), numeral(-1 / 3), numeral(1e-9), numeral(66018.0), numeral(2 / 3, 9)
    ('2', '-0.3333', '1e-9', '66018', '0.666666667')
    """
    if abs(x) < 1e6 and x == int(x):  # never so for nan
        return str(int(x))
    text, _, exponent = f"{x:.{digits}g}".partition("e")
    return f"{text}e{int(exponent)}" if exponent else text


def atom(text):
    """A number inside a formula: negative ones in parentheses."""
    return f"({text})" if text.startswith("-") else text


def names(order):
    """{node: what a text calls it}: its label, the number of an unnamed constant, else v1, v2, … in order.

    Labels are told on one line; of two nodes with the same label the second is called label#2.
    """
    labels = parameters_of(order)
    taken = Counter(clean(node.label) for node in order if node.label)
    found, seen, count = {}, Counter(), 0
    for node in order:
        label = clean(node.label or labels.get(node, ""))
        if label:
            seen[label] += 1
            found[node] = label if seen[label] == 1 else f"{label}#{seen[label]}"
        elif node.op is CONSTANT or is_plain(node):
            number = float(node.data)
            found[node] = next((text for n in DIGITS if float(text := numeral(number, n)) == number), "nan")
        else:
            count += 1
            while f"v{count}" in taken:
                count += 1
            found[node] = f"v{count}"
    return found


def is_plain(node):
    """Whether a Tensor is a plain number in an expression."""
    return not node.inputs and not is_value(node) and node.data.size == 1 and not node.requires_grad


RIGHT_TO_LEFT = {"R", "AL", "AN", "RLE", "RLO", "RLI", "LRE", "LRO", "LRI", "PDF", "PDI", "FSI"}


def clean(label):
    """A label on one line: control characters as pictures of themselves, right-to-left text kept to itself."""
    label = label.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    label = "".join(chr(0x2400 + ord(c)) if c < " " else "�" if "\x7f" <= c <= "\x9f" else
                    " " if c in "\u2028\u2029" else c for c in label)
    if any(unicodedata.bidirectional(c) in RIGHT_TO_LEFT for c in label):
        opened = sum(c in "\u2066\u2067\u2068" for c in label) - label.count("\u2069")
        return f"\u2068{label}{chr(0x2069) * max(opened, 0)}\u2069"
    return label


def d(name):
    """The name in dy/dx: in parentheses where it is more than one word."""
    return f"d({name})" if " " in name else f"d{name}"


def parameters_of(order):
    """{parameter: its name} for all layers whose calls are in a graph."""
    modules = {}
    for scope in {node.scope for node in order if node.scope}:
        while scope.parent is not None:
            scope = scope.parent
        modules[id(scope.module)] = scope.module
    return {p: name for module in modules.values() for name, p in module.named_parameters()}


# ------------------------------------------------------------------------------------- reading the page of calculus


@functools.cache
def written(function):
    """What a lambda of the page of calculus returns, as a syntax tree; None where its source is not at hand."""
    try:
        tree = parsed("".join(inspect.findsource(function)[0]))
    except (OSError, TypeError, SyntaxError):
        return None
    spans = {(p[0::2], p[1::2]) for p in function.__code__.co_positions() if p[3]}  # where each instruction comes from
    for node in ast.walk(tree):
        if isinstance(node, ast.Lambda):
            body = node.body
            first, last = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
            if spans and all(first <= start and end <= last for start, end in spans):
                return body
    return None


parsed = functools.cache(ast.parse)


def operands(function):
    """The names of a lambda's operands: ("a", "b", "y")."""
    return function.__code__.co_varnames[:function.__code__.co_argcount]


COMPARE = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
           ast.NotEq: operator.ne}


def holds(test, numbers):
    """Whether a condition of the page of calculus, such as a > 0.0, is true of {"a": …, "y": …}."""
    if isinstance(test, ast.BoolOp):
        return (any if isinstance(test.op, ast.Or) else all)(holds(value, numbers) for value in test.values)
    left, right = (numbers[x.id] if isinstance(x, ast.Name) else x.value for x in (test.left, test.comparators[0]))
    return COMPARE[type(test.ops[0])](left, right)


class Filled(ast.NodeTransformer):
    """A formula with texts in place of its operands, and plain numerals."""

    def __init__(self, texts):
        self.texts = texts

    def visit_Name(self, node):
        return ast.Name(self.texts.get(node.id, node.id))

    def visit_Constant(self, node):
        return ast.Name(repr(int(node.value)) if node.value == int(node.value) else repr(node.value))

    def visit_Attribute(self, node):  # math.exp
        return ast.Name(node.attr)

    def visit_UnaryOp(self, node):  # -1.0
        number = isinstance(node.operand, ast.Constant)
        node = self.generic_visit(node)
        return ast.Name(f"(-{node.operand.id})") if number else node

    def visit_Call(self, node):  # exp((-2)) is exp(-2)
        node = self.generic_visit(node)
        for x in node.args:
            if isinstance(x, ast.Name) and x.id.startswith("(-"):
                x.id = x.id[1:-1]
        return node


def filled(tree, texts):
    return Filled(texts).visit(ast.parse(ast.unparse(tree), mode="eval").body)


def product(g, tree, texts):
    """g · formula as text, in which names or numbers stand in place of the operands."""
    return ast.unparse(ast.BinOp(ast.Name(g), ast.Mult(), filled(tree, texts)))


def slope(derivative, numbers):
    """The formula of a derivative at these numbers: of its cases, the one that holds. None where nobody can read it."""
    tree = written(derivative)
    named = dict(zip(operands(derivative), numbers))
    while isinstance(tree, ast.IfExp):
        tree = tree.body if holds(tree.test, named) else tree.orelse
    return tree


def operation(name, texts):
    """An operation as one writes it: a + b, -a, tanh(a)."""
    if name in OPERATORS and len(texts) == 2:
        return f"{texts[0]} {name} {texts[1]}"
    if name == "neg":
        return f"-{texts[0]}"
    return f"{name}({', '.join(text[1:-1] if text.startswith('(-') else text for text in texts)})"


# --------------------------------------------------------------------------------------------- the story of a graph


class Share:
    """One step back: what operand number `place` of `node` receives of the gradient `incoming` that arrived there.

    `before` is what the operand has received from other uses, None for the first; this is share `number` of `uses`.
    """

    __slots__ = ("before", "incoming", "node", "number", "place", "share", "uses")

    def __init__(self, node, place, incoming, before, share, number, uses):
        self.node, self.place, self.incoming, self.before = node, place, incoming, before
        self.share, self.number, self.uses = share, number, uses


class Story:
    """The steps of a graph of Values: a node for each step forward; the root, then a Share, for each step back."""

    def __init__(self, root, order, name):
        self.root, self.order, self.name = root, order, name
        self.forward, self.backward = [node for node in order if node.inputs], self.way_back()

    def way_back(self):
        """The shares in the order of `graph.chain_rule`, constants apart; they end where a derivative is not finite."""
        steps, received = [Share(None, 0, 1.0, None, 1.0, 1, 1)], {}
        total = Counter(x for node in self.order for x in node.inputs)
        try:
            for node, g in chain_rule(self.root, 1.0):
                if not node.inputs:
                    continue
                for place, (x, share) in enumerate(zip(node.inputs, node.op.vjp(g, node.data, *data_of(node)))):
                    if share is None or x.op is CONSTANT:
                        continue
                    before, number = received.get(x, (None, 0))
                    received[x] = (share if before is None else before + share), number + 1
                    steps.append(Share(node, place, g, before, share, number + 1, total[x]))
        except ValueError as error:
            steps.append(str(error))
        return steps if len(steps) > 1 else []

    def sentence(self, step):
        """What one step says."""
        if isinstance(step, str):
            return step
        if not isinstance(step, Share):
            return self.computed(step)
        if step.node is None:
            return f"{self.effect(self.root)} = 1"
        return self.received(step)

    def computed(self, node):
        """v1 = a * b = (-2) * 3 = -6"""
        numbers, y = data_of(node), node.data
        digits = digits_for(lambda cut: node.op.value(*map(cut, numbers)), y)
        names_of = [self.name[x] if x.op is not CONSTANT else atom(self.name[x]) for x in node.inputs]
        figures = [atom(numeral(x, digits)) for x in numbers]
        return " = ".join([self.name[node], operation(node.op.name, names_of), operation(node.op.name, figures),
                           numeral(y)])

    def effect(self, node):
        return f"{d(self.name[self.root])}/{d(self.name[node])}"

    def received(self, step):
        """df/da (2 of 2) = (-6) + df/dv1 * ∂v1/∂a = (-6) + df/dv1 * b = (-6) + 1 * 3 = -3"""
        node, derivative = step.node, step.node.op.derivatives[step.place]
        numbers = [*data_of(node), node.data]
        x, g, before = node.inputs[step.place], step.incoming, step.before
        total = step.share if before is None else before + step.share
        formula = slope(derivative, numbers)

        def add_up(cut):
            local = derivative(*map(cut, numbers)) if formula is not None else cut(derivative(*numbers))
            return (cut(before) if before is not None else 0.0) + cut(g) * local

        digits = digits_for(add_up, total)
        so_far = "" if before is None else f"{atom(numeral(before, digits))} + "
        arrives, figure = self.effect(node), atom(numeral(g, digits))
        local = f"∂{d(self.name[node])[1:]}/∂{d(self.name[x])[1:]}"
        parts = [self.effect(x) + (f" ({step.number} of {step.uses})" if step.uses > 1 else ""),
                 f"{so_far}{arrives} * {local}"]
        if formula is None:
            parts.append(f"{so_far}{figure} * {atom(numeral(derivative(*numbers), digits))}")
        else:
            variables = operands(derivative)
            said = [self.name[z] if z.op is not CONSTANT else atom(self.name[z]) for z in (*node.inputs, node)]
            parts.append(so_far + product(arrives, formula, dict(zip(variables, said))))
            figures = [atom(numeral(z, digits)) for z in numbers]
            parts.append(so_far + product(figure, formula, dict(zip(variables, figures))))
        return " = ".join([*parts, numeral(total)])


def data_of(node):
    return [x.data for x in node.inputs]


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


class ShapeStory:
    """The steps of a graph of Tensors, told by shapes: what each operation makes, and how large a gradient it gets."""

    def __init__(self, root, order, name):
        self.root, self.name = root, name
        differentiable = root.inputs and root.data.size == 1 and root.requires_grad
        self.forward = [(node, None) for node in order if node.inputs]
        self.backward = list(root.gradients()) if differentiable else []

    def sentence(self, step):
        node, g = step
        name, shape = self.name[node], shape_text(node.data.shape)
        if g is not None:
            size = numeral(math.sqrt(float((g.astype(float) ** 2).mean()))) if g.size else "0"
            effect = f"{d(self.name[self.root])}/{d(name)}"
            return f"{effect} = 1" if node is self.root else f"{effect} has shape {shape} and root mean square {size}"
        texts = [f"{self.name[x]} {shape_text(x.data.shape)}" for x in node.inputs]
        infix = node.op.name in OPERATORS or node.op.name == "@"
        made = f"{texts[0]} {node.op.name} {texts[1]}" if infix and len(texts) == 2 else operation(node.op.name, texts)
        return f"{name} = {made} has shape {shape}"


def shape_text(shape):
    return str(tuple(int(n) for n in shape))


# ---------------------------------------------------------------------------------------------------------- mistakes


SATURATED = 1e-3  # a tanh or sigmoid whose slope is below this hands on almost nothing
MANY = 8  # so many samples decide whether a neuron is dead, or just at rest for these


def mistakes(root, parameters=()):
    """What goes wrong in a graph, as [(node, sentence)]; nothing for a healthy one.

    Seven things are found: no backward yet, backward twice, gradients left from an earlier step, a dead ReLU, a
    saturated tanh or sigmoid, a parameter that the loss does not reach, and where a NaN was born. Each sentence begins
    with the name of the mistake and a colon, then says what to do.

    `root` is a Value or a Tensor, or a list of them. `parameters` are a model, or leaves that the loss should reach;
    those of the layers that were called in the graph are known anyway.

    >>> from tinynet import Value
    >>> a = Value(3.0, label="a")
    >>> f = a * a
    >>> [sentence for _, sentence in mistakes(f)]
    ['No backward yet: there are no gradients to see; call backward() first']
    """
    roots = list(root) if isinstance(root, (list, tuple)) else [root]
    order = topological(*roots)
    inside, known = set(order), parameters_of(order)
    if hasattr(parameters, "named_parameters"):
        known.update({p: name for name, p in parameters.named_parameters()})
    else:
        known.update({p: p.label for p in parameters if p not in known})
    name = names([*order, *(p for p in known if p not in inside)])
    found = born(order, roots, name)
    if not found and len(roots) == 1:
        found = gradients_of(roots[0], order, name)
    closed = shut(order, roots, known, name) if all(map(is_value, order)) else shut_units(order, name)
    return found + closed + unreached(inside, known, name)


def takes_gradient(node):
    return node.op is not CONSTANT and getattr(node, "requires_grad", True)


def has_nan(x):
    if isinstance(x, (float, int, type(None))):
        return x is not None and math.isnan(x)
    return x.dtype.kind == "f" and bool((abs(x) >= 0.0).all()) is False  # every comparison with a NaN is False


def extent(x):
    return numeral(x) if isinstance(x, float) else f"{numeral(float(x.min()))} … {numeral(float(x.max()))}"


def born(order, roots, name):
    """Where the first NaN came from: on the way forward, or else on the way back."""
    for node in order:
        if has_nan(node.data) and not any(map(has_nan, data_of(node))):
            if node.inputs:
                numbers = ", ".join(f"{name[x]} = {extent(x.data)}" for x in node.inputs)
                text = f"{node.op.name} made {name[node]} not a number, of {numbers}; keep its operands in range"
            else:
                text = f"{name[node]} is not a number from the start; look at the data that it was made from"
            return [(node, f"NaN born here: {text}")]
    if len(roots) > 1 or not any(has_nan(node.grad) for node in order):
        return []
    for node, share, x in shares_of(roots[0]):
        if has_nan(share):
            text = f"on the way back {node.op.name} has no derivative with respect to {name[x]} at {extent(x.data)}"
            return [(node, f"NaN born here: {text}; keep it where the operation is smooth")]
    return []


def shares_of(root):
    """(node, what one of its operands receives, that operand) in the order of the way back."""
    value = is_value(root)
    for node, g in chain_rule(root, 1.0) if value else root.gradients():
        if node.inputs:
            shares = node.op.vjp(g, node.data if value else node, *(data_of(node) if value else node.inputs))
            yield from ((node, share, x) for x, share in zip(node.inputs, shares) if share is not None)


def gradients_of(root, order, name):
    """No backward yet, backward twice, or gradients of an earlier step: by comparing with what this graph gives."""
    leaves = [node for node in order if not node.inputs and takes_gradient(node)]
    if not root.inputs or not leaves or not takes_gradient(root):
        return []
    value = is_value(root)
    if root.grad is None if value else all(leaf.grad is None for leaf in leaves):
        call = f"{name[root]}.backward()" if root.label.isidentifier() else "backward()"
        return [(root, f"No backward yet: there are no gradients to see; call {call} first")]
    if (root.grad != 1.0 if value else root.data.size != 1) or not current(order):
        return []  # gradients of something made from the root, or of numbers that an optimiser has changed since
    try:
        fresh = dict(chain_rule(root, 1.0) if value else root.gradients())
    except ValueError:
        return []
    leaves = [leaf for leaf in leaves if leaf.grad is not None and leaf in fresh]
    times = ratio([(leaf.grad, fresh[leaf]) for leaf in leaves], value)
    if times is None:
        left = [leaf for leaf in leaves if not same(leaf.grad, fresh[leaf], value)]
        more = f" and {len(left) - 1:,} more" if len(left) > 1 else ""
        sizes = f" ({numeral(left[0].grad)}; this graph gives {numeral(fresh[left[0]])})" if value else ""
        text = f"Old gradients: those of {name[left[0]]}{sizes}{more} still contain what an earlier step left there"
        return [(left[0], f"{text}; call zero_grad() before backward()")]
    if times > 1.5:
        text = f"Backward twice: the gradients of the leaves are {times:.0f} times those of this graph"
        return [(root, f"{text}; call backward() once, after zero_grad()")]
    return []


def current(order):
    """Whether the numbers in a graph still follow from its leaves."""
    for node in order:
        try:
            if isinstance(node.op, Rule) and node.inputs:
                y = node.op.value(*data_of(node))
                unchanged = y == node.data or math.isclose(y, node.data, rel_tol=1e-9)
            elif any(takes_gradient(x) and not x.inputs for x in node.inputs) and pure(node.op):
                y = copy.copy(node.op).forward(*data_of(node))  # of arrays only what reads a leaf is computed again
                unchanged = same(y, node.data, tolerance=1e-6)
            else:
                continue
        except (ArithmeticError, ValueError):
            return False
        if not unchanged:
            return False
    return True


def pure(op):
    """Whether computing it again gives the same and changes nothing."""
    return "drop" not in op.name and "norm" not in op.name


def same(a, b, exact=False, tolerance=1e-4):
    """Whether two gradients are equal but for rounding: of doubles, or of float32 arrays."""
    if exact:
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300)
    if a.shape != b.shape:
        return False
    return not a.size or float(abs(a - b).max()) <= tolerance * float(abs(b).max()) + 1e-12


def ratio(pairs, exact):
    """k where every gradient is k times what it should be: 1, a whole number, or less than 1 (clipped); else None."""
    def size(x):
        return abs(x) if exact else float(abs(x).max(initial=0.0))

    got, due = max(pairs, key=lambda pair: size(pair[1]), default=(0.0, 0.0)) if pairs else (0.0, 0.0)
    k = size(got) / size(due) if pairs and size(due) else 1.0
    if k > 1.0 - 1e-4:
        k = float(round(k))
    return k if all(same(a, b * k, exact) for a, b in pairs) else None


def unreached(inside, known, name):
    """Parameters that the graph does not contain; an array of Values as a whole."""
    missing, reached = {}, set()
    for p, label in known.items():
        stem = label.partition("[")[0] or id(p)
        if p in inside:
            reached.add(stem)
        elif takes_gradient(p):
            missing.setdefault(stem, p)
    found = []
    for stem, p in missing.items():
        if stem not in reached:
            called = clean(stem) if isinstance(stem, str) else name[p]
            text = f"Not reached: the loss does not depend on {called}, so it never learns"
            found.append((p, f"{text}; use it in forward() (detach() and item() cut the graph), or leave it out"))
    return found


ENDS = ("relu", "tanh", "sigmoid")  # activations that have flat ends


def shut(order, roots, known, name):
    """ReLUs that are never on, and tanhs and sigmoids that are always at their ends.

    A neuron of a layer is judged by all its samples; one sample proves nothing, unless all the layer is shut. An
    activation outside a layer is judged by whether most of what it was computed from gets no gradient at all.
    """
    units = [node for node in order if node.inputs and node.op.name in ENDS]
    closed = {node for node in units if abs(node.op.vjp(1.0, node.data, *data_of(node))[0]) < SATURATED}
    if not closed:
        return []
    alive, stack = set(), list(roots)
    while stack:  # where the gradient of the root still arrives
        node = stack.pop()
        if node not in alive:
            alive.add(node)
            stack += node.inputs if node not in closed else ()
    layers, found = {}, []
    for node in units:
        if node.scope is not None:
            layers.setdefault((id(node.scope.module), node.op.name), []).append(node)
        elif node in closed and node in alive:
            sources = [x for x in sources_of(node) if takes_gradient(x)]
            if 2 * sum(x not in alive for x in sources) > len(sources):
                found.append((node, sentence_of(node.op.name, name[node], f"at {extent(node.inputs[0].data)}")))
    for layer in layers.values():
        if closed.issuperset(layer):
            first = layer[0]
            where = f"and all {len(layer):,} of its layer" if len(layer) > 1 else f"at {extent(first.inputs[0].data)}"
            found.append((first, sentence_of(first.op.name, name[first], where)))
        elif not closed.isdisjoint(layer):
            neurons = {}
            for node in layer:
                neurons.setdefault(frozenset(x for x in sources_of(node) if x in known) or (node,), []).append(node)
            dead = [(neuron, uses) for neuron, uses in neurons.items() if len(uses) >= MANY and closed.issuperset(uses)]
            if dead:
                called = [neuron_name(neuron, known) or name[uses[0]] for neuron, uses in dead]
                first, where = dead[0][1][0], f"for all {len(dead[0][1]):,} samples"
                found.append((first, sentence_of(first.op.name, each_of(called), where)))
    return found


def neuron_name(neuron, known):
    """layers.0[3], after the parameters that it was computed from; "" where they have no such names."""
    path, _, place = min((known[x] for x in neuron if x in known), default="").partition("[")
    return f"{path.rpartition('.')[0]}[{place.strip(']').split(',')[0]}]" if place else ""


def each_of(called, most=8):
    """Several neurons as one subject: each of layers.0[0, 5, 7].

    >>> each_of(["layers.0[3]"]), each_of(["layers.0[5]", "layers.0[14]"]), each_of(["v1", "v2", "v3"], most=2)
    ('layers.0[3]', 'each of layers.0[5, 14]', 'each of v1, v2 and 1 more')
    """
    if len(called) == 1:
        return called[0]
    more = f" and {len(called) - most:,} more" if len(called) > most else ""
    places = [text.rstrip("]").rpartition("[") for text in called]
    if len({stem for stem, _, _ in places}) == 1 and places[0][0]:
        return f"each of {places[0][0]}[{', '.join(place for *_, place in places[:most])}]{more}"
    return f"each of {', '.join(called[:most])}{more}"


def sources_of(node):
    """What an activation was computed from: leaves, and activations before it; sums and products are seen through."""
    found, seen, stack = [], set(), list(node.inputs)
    while stack:
        x = stack.pop()
        if x not in seen:
            seen.add(x)
            if len(x.inputs) == 2 or x.inputs and x.op.name == "neg":
                stack += x.inputs
            else:
                found.append(x)
    return found


def shut_units(order, name):
    """The same for arrays: units, along the last axis, that are shut for all samples."""
    found = []
    for node in order:
        kind = getattr(node.op, "activation", None) or getattr(node.op, "name", "")
        if not node.inputs or kind not in ENDS or not node.data.size:
            continue
        y = node.data.reshape(-1, node.data.shape[-1] if node.data.ndim else 1)
        slope = (y > 0) if kind == "relu" else 1.0 - y * y if kind == "tanh" else y * (1.0 - y)
        closed = (abs(slope) < SATURATED).all(axis=0)
        if closed.all() or len(y) >= MANY and closed.any():
            where = f"in {int(closed.sum()):,} of {closed.size:,} units, for all {len(y):,} samples"
            found.append((node, sentence_of(kind, name[node], where)))
    return found


def sentence_of(kind, name, where):
    if kind == "relu":
        return (f"Dead ReLU: {name} is 0 {where}, and lets no gradient pass; start from other weights, raise the bias, "
                "or lower the learning rate")
    return (f"Saturated {kind}: {name} is at its end {where}, and lets hardly any gradient pass; make the weights "
            "smaller, or standardise the inputs")
