"""What a picture of a graph shows: boxes and arrows, before they are laid out.

An open graph shows every number and every operation. `folding` puts thousands of nodes into a few boxes, one for each
layer. Both end in a `GraphView`, which `drawings` draws.
"""

import copy
import math

from ..errors import check_int, describe
from ..graph import mode, textbook, topological
from ..value import Rule, Value
from .diagnostics import same
from .folding import ALONE, Focus, focused, in_focus, leading_to, tightest
from .formulas import activation_of
from .labels import Models, atom, data_of, extent, figure, grad_of, is_array, is_node, names, shape_text, signed, single


class Box:
    """A number, an operation, or a folded group of both.

    kind    "number", "op" or "layer"          name    what it is called, "" where it has no name
    role    "input", "parameter", "constant", "output" or ""
    fields  [(key, text), …], one line each    tone    the colour: "none", "zero", "positive1" … "negative4"
    title   one line of text that says it all, for those who do not see it
    """

    def __init__(self, id, kind, name="", role="", fields=(), tone="none", title=""):
        self.id, self.kind, self.name, self.role, self.fields = id, kind, name, role, list(fields)
        self.tone, self.title, self.badges = tone, title, []


class Arrow:
    """From box `tail` to box `head` (their ids); `title` says in words what `label` says in figures."""

    def __init__(self, tail, head, label="", title="", tone="none"):
        self.tail, self.head, self.label, self.title, self.tone = tail, head, label, title, tone


def tone_of(grad, largest):
    """The colour of a gradient: its sign, and its size relative to the largest: over 1/2, 1/10, 1/100, or less."""
    if grad is None or not math.isfinite(grad):
        return "none"
    if grad == 0.0 or not largest:
        return "zero"
    size = abs(grad) / largest
    return ("positive" if grad > 0 else "negative") + str(1 + sum(size >= least for least in (0.01, 0.1, 0.5)))


def rms(numbers):
    """The root mean square of some numbers and arrays as text; "–" where there is none."""
    numbers = [x for x in numbers if x is not None]
    total = sum(float((x.astype("float64") ** 2).sum()) if is_array(x) else single(x) ** 2 for x in numbers)
    count = sum(getattr(x, "size", 1) for x in numbers)
    return figure(math.sqrt(total / count)) if count else "–"


def derivatives_of(node):
    """For each operand: (local derivative, upstream gradient, contribution); None where it takes no gradient.

    The upstream gradient and the contribution are None before `backward()`.
    """
    try:
        local = node.op.vjp(1.0, node.data, *[x.data for x in node.inputs])
    except ValueError:  # an infinite derivative, as of √x at 0
        local = [math.nan] * len(node.inputs)
    g = node.grad
    return [(d, g, None if g is None else d * g) if x.requires_grad else None for x, d in zip(node.inputs, local)]


# ---------------------------------------------------------------------------------------------------- boxes and arrows

ORDERED = ("-", "/", "**", "@", "matmul", "sub", "div", "pow")  # their operands are marked as ① and ②
SYMBOLS = {"-": "−", "*": "×", "/": "÷", "**": "xʸ", "neg": "−x", "abs": "|x|", "sqrt": "√", "exp": "eˣ"}
VERBS = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "**": "power", "neg": "negate"}


class GraphView:
    """The boxes and arrows of a graph, and the notes beside them.

    A node that the folding puts into a group shares that group's box. An open node is a box, the operation that made it
    is another one, and each operand has its own arrow: a + a has two. Arrows between the same two groups are drawn
    once; those of a parameter in focus, or of a neuron's parameters, to the rest of the picture are omitted.

    where       {node: the box that shows it}                    notes      lines beneath the picture
    rows        boxes (their ids) that stand side by side, in that order: the neurons of a layer
    sentences   the text alternative: what the boxes and arrows say, unless `draw` has the explanation
    """

    def __init__(self, order, roots, models, folding=None, derivatives=False, numbers=True):
        self.order, self.parameters, self.numbers = order, models.parameters, numbers
        self.roots = dict.fromkeys(roots)  # an ordered set: == of Values compares numbers
        self.group, self.rows = (folding.group, folding.rows()) if folding else ({}, [])
        self.home = {node: self.group[node].id if node in self.group else f"n{i}" for i, node in enumerate(order)}
        grads = [grad_of(node) for node in order if node not in self.group]
        grads = [abs(single(grad)) for grad in grads if grad is not None and not is_array(grad)]
        self.largest = max(filter(math.isfinite, grads), default=0.0)
        self.called = {} if self.group else names(order)
        self.contributions = {node: [] for node in order}
        self.boxes, self.arrows, self.notes = [], [], []
        self.add_arrows(derivatives)
        self.add_boxes()
        boxes = {box.id: box for box in self.boxes}
        self.where = {node: boxes[id] for node, id in self.home.items()}
        self.folded = any(box.kind == "layer" for box in self.boxes)
        self.sentences = [box.title for box in self.boxes] + [arrow.title for arrow in self.arrows if arrow.title]

    @property
    def headline(self):
        kinds = [box.kind for box in self.boxes]
        counts = {"folded group": kinds.count("layer"), "number": kinds.count("number"), "operation": kinds.count("op")}
        parts = [f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n]
        labels = ", ".join(root.label for root in self.roots if root.label)
        return "Graph of " + " and ".join(parts) + (f", which compute {labels}" if labels else "")

    def mark(self, mistakes, most=6):
        """Put a numbered badge on the box of each (node, sentence), and the sentence beneath the picture."""
        for number, (node, sentence) in enumerate(mistakes, 1):
            if node in self.where:
                badges = self.where[node].badges
                if len(badges) < most:
                    badges.append(number)
                self.where[node].title += f". Mistake {number}: {sentence}"
            if number <= most:
                self.notes.append(f"⚠ {number}  {sentence}")
        if len(mistakes) > most:
            self.notes.append(f"⚠ … and {len(mistakes) - most:,} more like these.")

    def add_arrows(self, derivatives):
        home, bundles = self.home, {}
        for node in self.order:
            if node not in self.group:
                self.add_operands(node, derivatives and isinstance(node.op, Rule))
                continue
            lone = self.group[node].role in ALONE
            for x in node.inputs:
                if home[x] != home[node] and not (x in self.parameters and (x not in self.group or lone)):
                    bundles.setdefault((home[x], home[node]), {})[x] = None
        for (tail, head), nodes in bundles.items():
            first, count = next(iter(nodes)), len(nodes)
            data = data_of(first)
            label = shape_text(data.shape) if is_array(data) else "values" if count > 1 else ""
            label = f"{count:,} {label}" if count > 1 else label
            self.arrows.append(Arrow(tail, head, label, label or f"one value, {figure(single(data))}"))

    def add_operands(self, node, derivatives):
        """The arrows from the operands of an open node to its operation, and from there to the node."""
        if not node.inputs:
            return
        op, name, local = "op-" + self.home[node], node.op.name, derivatives_of(node) if derivatives else ()
        marks = ["①", "②"] if name in ORDERED and len(node.inputs) == 2 else [""] * len(node.inputs)
        for i, (x, mark) in enumerate(zip(node.inputs, marks)):
            arrow = Arrow(self.home[x], op, mark, f"operand {i + 1} of {name}: {self.described(x)}")
            self.arrows.append(arrow)
            if local and local[i]:
                derivative, incoming, contribution = local[i]
                if contribution is None:
                    text = f"derivative {figure(derivative)}"
                else:
                    text = f"{figure(derivative)} × {figure(incoming)} = {figure(contribution)}"
                    self.contributions[x].append(local[i])
                    arrow.tone = tone_of(contribution, self.largest)
                arrow.label = f"{mark} {text}".strip()
                arrow.title += f"; {text}"
            elif getattr(data_of(x), "shape", ()):
                arrow.label = f"{mark} {shape_text(x.shape)}".strip()
        self.arrows.append(Arrow(op, self.home[node], title=f"{name} gives {self.described(node)}"))

    def described(self, node):
        data = data_of(node)
        value = shape_text(data.shape) if is_array(data) else figure(single(data))
        return self.called.get(node) or node.label or value

    def add_boxes(self):
        inside, leaving, drawn = {}, {}, set()
        for node in self.order:
            inside.setdefault(self.home[node], []).append(node)
            for x in (node, *node.inputs) if node in self.roots else node.inputs:
                if x in self.group and (self.home[x] != self.home[node] or x in self.roots):
                    leaving.setdefault(self.home[x], {})[x] = None
        for node in self.order:
            home, group = self.home[node], self.group.get(node)
            if group is None:
                if node.inputs:
                    name, activation = node.op.name, activation_of(node.op)
                    name = f"{name} · {activation}" if activation else name
                    self.boxes.append(Box("op-" + home, "op", SYMBOLS.get(name, name), title=f"operation {name}"))
                self.boxes.append(self.number_box(node))
            elif home not in drawn:
                drawn.add(home)
                own = set(group.parameters)
                out = [x for x in leaving.get(home, ()) if x not in own] or group.nodes
                self.boxes.append(self.group_box(group, len(inside[home]), out))

    def role_of(self, node):
        """What part a node plays: it is told apart by its frame and by a word."""
        if node.inputs:
            return "output" if node in self.roots else ""
        if node in self.parameters:
            return "parameter"
        return "input" if node.requires_grad or node.label or is_array(data_of(node)) else "constant"

    def number_box(self, node):
        """The box of one node: its name, data and gradient, and the contributions that sum to it."""
        role, name, data, grad = self.role_of(node), node.label or self.parameters.get(node, ""), data_of(node), None
        if role == "constant":
            text = figure(single(data))
            return Box(self.home[node], "number", node.label, role, [("", text)], "constant", f"constant {text}")
        fields, tone = [], "none"
        if getattr(data, "shape", ()) or not self.numbers:
            fields.append(("shape", shape_text(data.shape)))
        if self.numbers:
            fields.append(("data", extent([data])))
            grad = grad_of(node)
        if grad is None:
            fields += [("grad", "–")] if self.numbers and node.requires_grad else []
        elif is_array(grad):
            fields.append(("grad rms", rms([grad])))
        elif node.requires_grad:
            tone = tone_of(single(grad), self.largest)
            fields += self.sum_fields(single(grad), self.contributions[node])
        description = [f"{key} {text}" if text != "–" else "no gradient yet" for key, text in fields]
        called = f"{role} {name or self.called.get(node, 'number')}".strip()
        return Box(self.home[node], "number", name, role, fields, tone, ", ".join([called, *description]))

    def sum_fields(self, grad, contributions):
        """The gradient as the sum of its contributions: "3·1 + 1·(−6) = −3"."""
        if len(contributions) < 2:
            return [("grad", signed(grad))]
        terms = [f"{figure(local)}·{atom(figure(incoming))}" for local, incoming, _ in contributions]
        if len(terms) > 4:
            terms[3:] = [f"… ({len(contributions)} terms)"]
        terms, total = " + ".join(terms), sum(contribution for *_, contribution in contributions)
        if math.isclose(total, grad, rel_tol=1e-9, abs_tol=1e-300):
            return [("grad", f"{terms} = {signed(grad)}")]
        return [("this pass", f"{terms} = {signed(total)}"), ("grad", signed(grad))]  # an earlier step's are in it

    def group_box(self, group, count, leaving):
        """The box of a group: shapes, how often, the range of what it puts out and the size of the gradient there."""
        name, tone, alone = VERBS.get(group.name, group.name), "layer", group.role in ALONE
        times = len(group.calls) if group.module is not None else 1 if alone else len(group.nodes)
        role = "" if group.role == name else group.role
        role = f"{role} ×{times:,}".strip() if times > 1 else role
        fields = []
        shapes = {(call.input_shape, call.output_shape) for call in group.calls}
        if len(shapes) == 1 and None not in (ends := shapes.pop()):
            fields.append(("shape", " → ".join(map(shape_text, ends))))
        if self.numbers:
            grads = [grad_of(node) for node in leaving]
            fields.append(("data", extent(map(data_of, leaving))))
            if len(grads) == 1 and grads[0] is not None and not is_array(grads[0]) and math.isfinite(single(grads[0])):
                fields.append(("grad", signed(single(grads[0]))))
                tone = tone_of(single(grads[0]), self.largest) if alone else tone
            elif any(node.requires_grad for node in leaving):
                fields.append(("grad rms", rms(grads)))
        outputs = [node.label for node in leaving if node in self.roots and node.label]
        if outputs:
            fields.append(("output", ", ".join(outputs[:3]) + ("" if len(outputs) < 4 else ", …")))
        if group.parameters:
            fields.append(("parameters", f"{sum(getattr(data_of(p), 'size', 1) for p in group.parameters):,}"))
            if self.numbers:
                fields.append(("their grad rms", rms(map(grad_of, group.parameters))))
        description = [f"{name}, {role}".strip(" ,"), f"{count:,} numbers"]
        description += [f"{key} {text}" if text != "–" else "no gradient yet" for key, text in fields]
        return Box(group.id, "layer", name, role, fields, tone, ", ".join(description))


# ------------------------------------------------------------------------------------------------- arrays, and models


def shadow_copies(roots, opens):
    """Copies of the nodes of a Tensor graph for a picture: ({node: its copy}, the nodes of opened operations).

    `backward()` leaves gradients on leaves alone; where these are the gradients of this graph, the copies between them
    have theirs. A fused operation for which `opens(node)` is true is replaced by its reference implementation, node by
    node. The graph itself is left as it is.
    """
    order = topological(*roots)
    known, copies, opened = set(order), {}, set()
    for node in order:
        if not node.inputs:
            continue
        if getattr(node.op, "definition", None) and node.op.name != "dropout" and opens(node):  # dropout draws anew
            shadow = recomputed(node)
            inside = leading_to([shadow], lambda x: x not in known) - known
            opened |= inside
        else:
            shadow = copy.copy(node)
            inside = [shadow]
        for x in inside:
            x.inputs = tuple(copies.get(operand, operand) for operand in x.inputs)
        shadow.label = node.label
        copies[node] = shadow
    if len(roots) == 1 and roots[0].requires_grad and not is_array(data_of(roots[0])):
        found = dict(copies.get(roots[0], roots[0]).gradients())
        leaves = [(grad_of(node), g) for node, g in found.items() if not node.inputs and grad_of(node) is not None]
        if leaves and all(same(kept, g) for kept, g in leaves):  # else they belong to another step than the graph
            for node, g in found.items():
                if node.inputs:
                    node._grad = g
    return copies, opened


def recomputed(node):
    """The result of a fused operation, computed anew by its reference implementation: a graph that shows how."""
    before = mode.scope, mode.grad_enabled
    mode.scope, mode.grad_enabled = node.scope, True
    try:
        with textbook():
            function, args, options = node.op.definition
            return function(*args, **options)
    finally:
        mode.scope, mode.grad_enabled = before


def cut_to_head(nodes, number, heads):
    """Keep of arrays (batch, heads, …) the part of one head; the nodes are shadow copies: the graph is not changed."""
    for x in nodes:
        if x.inputs and x._data.ndim == 4 and x._data.shape[1] == heads:
            x.label = x.label or f"head {number}"
            x._data = x._data[:, number:number + 1]
            x._grad = None if x._grad is None else x._grad[:, number:number + 1]


def roots_of(what, input_shape=None):
    """The nodes that `draw` was given, as a list. A model is run on zeros of `input_shape`."""
    if hasattr(what, "named_modules"):
        return run_on_zeros(what, input_shape)
    if input_shape is not None:
        raise TypeError(f"draw: input_shape is for a model, not for a {type(what).__name__}")
    if hasattr(what, "tolist") and not hasattr(what, "inputs"):
        what = what.tolist()
    if isinstance(what, (list, tuple)):
        if not what:
            raise ValueError("draw: there is nothing in the list")
        return [root for item in what for root in roots_of(item)]
    if is_node(what):
        return [what]
    raise TypeError(f"draw: expected a Value, a Tensor, a list or an array of them, or a Module, got {describe(what)}")


def run_on_zeros(model, input_shape):
    """The graph of a model that has seen no data: its outputs for an input of zeros."""
    if input_shape is None:
        raise ValueError("draw: a model needs the shape of its input, as in draw(model, (1, 2)); it is a "
                         f"{type(model).__name__}")
    if not isinstance(input_shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ValueError(f"draw: expected input_shape to be a tuple of positive integers, got {describe(input_shape)}")
    import numpy as np

    from ..tensors import Tensor

    training = [(module, module.training) for _, module in model.named_modules()]
    dtype = getattr(next(iter(model.parameters()), None), "dtype", np.float32)
    before, mode.grad_enabled = mode.grad_enabled, True
    model.eval()
    try:
        try:
            output = model(Tensor(np.zeros(input_shape, dtype), label="input"))
        except TypeError:  # a model of words or letters expects integers
            output = model(Tensor(np.zeros(input_shape, np.int64), label="input"))
    finally:
        mode.grad_enabled = before
        for module, was in training:
            module.training = was
    return roots_of(output[0] if isinstance(output, tuple) else output)


# ----------------------------------------------------------------------------------------------------------- the view


def graph_view(what, input_shape=None, derivatives=False, depth=None, focus=None, limit=300, fused=True):
    """The view of the graph behind `what`; see `drawings.draw` for what the arguments mean."""
    if depth is not None:
        check_int("draw", "depth", depth, least=0)
    roots = given = roots_of(what, input_shape)
    copies, opened, notes = {}, set(), []
    if not isinstance(roots[0], Value):
        copies, opened = shadow_copies(roots, lambda node: not fused or in_focus(node, focus))
        roots = [copies.get(root, root) for root in roots]
        focus = copies.get(focus, focus) if hasattr(focus, "inputs") else focus
    order = topological(*roots)
    models, folding = Models(order), None
    if depth is None and focus is None and input_shape is None and len(order) > limit:
        notes.append(f"Folded by layer: the graph has {len(order):,} nodes, and more than {limit:,} are not shown one "
                     "by one. depth= looks into layers, focus= opens a part, and draw(…, limit=) shows more.")
    if depth is not None or focus is not None or input_shape is not None or notes:
        depth = 1 if depth is None else depth
        focus_on = Focus(set()) if focus is None else focused(focus, order, roots, models, depth, limit)
        focus_on.open.update(opened)
        if len(focus_on.open) > limit:
            raise ValueError(f"draw: focus={describe(focus)} opens {len(focus_on.open):,} nodes, more than limit="
                             f"{limit:,}")
        if focus_on.head:
            cut_to_head(focus_on.open, *focus_on.head)
        folding = tightest(order, models, depth, focus_on, limit)
        if folding.depth < depth:
            notes.append(f"Folded to depth {folding.depth}: deeper there would be more than {limit:,} boxes.")
    view = GraphView(order, roots, models, folding, derivatives, input_shape is None)
    view.roots, view.notes = given, notes
    view.where.update((node, view.where[shadow]) for node, shadow in copies.items() if shadow in view.where)
    return view
