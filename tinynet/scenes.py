"""What a picture of a graph shows: boxes and arrows, before anybody lays them out.

An open graph shows every number and every operation. Folding puts thousands of nodes into a few boxes, one for each
layer. Both end in a `Scene`, which `pictures` draws.
"""

import math

from .graph import topological
from .value import CONSTANT

MINUS = "−"  # the typographic minus: wider than a hyphen, so that a sign is seen


class Box:
    """A number, an operation, or a folded group of both.

    kind    "number", "op" or "layer"          name    what it is called, "" where nobody named it
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


class Scene:
    """Boxes and arrows, a headline, notes beneath the picture, and the sentences of its text alternative."""

    def __init__(self, boxes, arrows, headline, notes=(), sentences=()):
        self.boxes, self.arrows, self.headline = boxes, arrows, headline
        self.notes, self.sentences = list(notes), list(sentences)


# ------------------------------------------------------------------------------------------------------ numbers in text


def figure(x):
    """A number as a picture writes it: four significant digits, a real minus sign.

    >>> figure(-0.123456), figure(2.0), figure(1e-9)
    ('−0.1235', '2', '1e−09')
    """
    return f"{float(x) + 0.0:.4g}".replace("-", MINUS)


def signed(x):
    """The same with a plus sign: what a gradient's colour says must be readable without colours."""
    return f"+{figure(x)}" if x > 0 else figure(x)


def factor(x):
    """A number inside a product: negative ones in parentheses."""
    return f"({figure(x)})" if x < 0 else figure(x)


def tone_of(grad, largest):
    """The colour of a gradient: its sign, and its size beside the largest one: over 1/2, 1/10, 1/100, or less."""
    if grad is None or not math.isfinite(grad):
        return "none"
    if grad == 0.0 or not largest:
        return "zero"
    size = abs(grad) / largest
    level = 4 if size >= 0.5 else 3 if size >= 0.1 else 2 if size >= 0.01 else 1
    return ("positive" if grad > 0 else "negative") + str(level)


# ---------------------------------------------------------------------------------------------------- what a node shows


def is_array(x):
    """Whether x holds more than one number (a Tensor's data or gradient)."""
    return getattr(x, "size", 1) != 1


def known(x):
    """Whether x is a finite number: what colours and products can be made of."""
    return x is not None and not is_array(x) and math.isfinite(float(x))


def takes_gradient(node):
    return node.op is not CONSTANT and getattr(node, "requires_grad", True)


def extent(array):
    """The least and the greatest of some numbers: "−1.2 … 3.4"."""
    low, high = float(array.min()), float(array.max())
    return figure(low) if low == high else f"{figure(low)} … {figure(high)}"


def rms(array):
    """The root of the mean square: the size of a typical number among many."""
    return math.sqrt(float((array.astype("float64") ** 2).mean()))


def shape_text(shape):
    return "(" + ", ".join(str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"


def outermost(scope):
    while scope.parent is not None:
        scope = scope.parent
    return scope


def owned(order):
    """The parameters of every module that was called, with their names in the outermost one: {node: name}."""
    modules = {}
    for node in order:
        if node.scope is not None:
            module = outermost(node.scope).module
            modules[id(module)] = module
    return {p: name for module in modules.values() for name, p in module.named_parameters()}


def role_of(node, roots, parameters):
    """What part a node plays: it is told apart by its frame and by a word."""
    if not node.inputs:
        if node in parameters:
            return "parameter"
        return "input" if takes_gradient(node) or node.label or is_array(node.data) else "constant"
    return "output" if node in roots else ""


def places(node):
    """What stands before each operand's label: ① and ② where their order matters, as in a − b, else nothing."""
    if len(node.inputs) == 2 and node.op.name in ("-", "/", "**", "@", "matmul", "sub", "div", "pow"):
        return ["①", "②"]
    return [""] * len(node.inputs)


SYMBOLS = {"-": MINUS, "*": "×", "/": "÷", "**": "xʸ", "neg": f"{MINUS}x", "abs": "|x|", "sqrt": "√", "exp": "eˣ"}


def number_box(id, node, name, role, largest, shares):
    """The box of one node: what it is called, its data, its gradient and the shares that add up to it."""
    if role == "constant":
        text = figure(node.data)
        return Box(id, "number", node.label, role, [("", text)], "constant", f"constant {text}")
    fields = []
    if is_array(node.data):
        fields += [("shape", shape_text(node.data.shape)), ("data", extent(node.data) if node.data.size else "empty")]
    else:
        fields.append(("data", figure(node.data)))
    tone, total = "none", sum(share for _, _, share in shares)
    if not takes_gradient(node):
        pass
    elif node.grad is None:
        fields.append(("grad", "–"))
    elif is_array(node.grad):
        fields.append(("grad rms", figure(rms(node.grad))))
    else:
        tone = tone_of(float(node.grad), largest)
        grad = signed(float(node.grad))
        if len(shares) > 1:
            terms = [f"{figure(local)}·{factor(incoming)}" for local, incoming, _ in shares]
            if len(terms) > 4:
                terms[3:] = [f"… ({len(shares)} shares)"]
            products = " + ".join(terms)
            if math.isclose(total, float(node.grad), rel_tol=1e-9, abs_tol=1e-300):
                grad = f"{products} = {grad}"
            else:  # gradients of an earlier step are still in it
                fields.append(("shares", f"{products} = {signed(total)}"))
        fields.append(("grad", grad))
    said = [f"{key} {text}" if text != "–" else "no gradient yet" for key, text in fields]
    title = ", ".join([" ".join(filter(None, (role, name))) or "number", *said])
    return Box(id, "number", name, role, fields, tone, title)


def derivatives_of(node):
    """For each operand: (local derivative, incoming gradient, share); None where the operand takes no gradient.

    The incoming gradient and the share are None before `backward()`.
    """
    try:
        local = node.op.shares(1.0, node.data, *[x.data for x in node.inputs])
    except ValueError:  # an infinite slope, as of √x at 0
        local = [math.nan] * len(node.inputs)
    g = node.grad
    return [(d, g, None if g is None else d * g) if takes_gradient(x) else None for x, d in zip(node.inputs, local)]


# ----------------------------------------------------------------------------------------------------- boxes and arrows


def boxes_and_arrows(order, roots, parameters, group, derivatives=False):
    """The picture of a graph. A node that `group` puts into a `Group` shares that group's box; the others stay open.

    An open node is a box, the operation that made it is another one, and each operand has its own arrow, in the order
    of writing: a + a has two. Arrows between the same two groups are drawn once.
    """
    home = {node: group[node].id if node in group else f"n{i}" for i, node in enumerate(order)}
    largest = max((abs(float(node.grad)) for node in order if node not in group and known(node.grad)), default=0.0)
    shares = {node: [] for node in order}
    arrows, bundles = [], {}
    for node in order:
        if not node.inputs:
            continue
        slopes = derivatives_of(node) if derivatives and not is_array(node.data) and node not in group else None
        if node in group:
            for x in node.inputs:
                if home[x] != home[node]:
                    bundles.setdefault((home[x], home[node]), {})[x] = None
            continue
        op, name = "op-" + home[node], node.op.name
        for i, (x, place) in enumerate(zip(node.inputs, places(node))):
            arrow = Arrow(home[x], op, place, f"operand {i + 1} of {name}: {x.label or short(x)}")
            if slopes and slopes[i]:
                local, incoming, share = slopes[i]
                if share is None:
                    text = f"slope {figure(local)}"
                else:
                    text = f"{figure(local)} × {figure(incoming)} = {figure(share)}"
                    shares[x].append(slopes[i])
                    arrow.tone = tone_of(share, largest)
                arrow.label = f"{place} {text}".strip()
                arrow.title += f"; {text}"
            elif is_array(x.data):
                arrow.label = f"{place} {shape_text(x.data.shape)}".strip()
            arrows.append(arrow)
        arrows.append(Arrow(op, home[node], title=f"{name} gives {node.label or short(node)}"))
    boxes = []
    for node in order:
        if node in group:
            continue
        if node.inputs:
            name = node.op.name
            boxes.append(Box("op-" + home[node], "op", SYMBOLS.get(name, name), title=f"operation {name}"))
        name, role = node.label or parameters.get(node, ""), role_of(node, roots, parameters)
        boxes.append(number_box(home[node], node, name, role, largest, shares[node]))
    return boxes, arrows


def short(node):
    return shape_text(node.data.shape) if is_array(node.data) else figure(node.data)


def scene(roots, derivatives=False, depth=None, focus=None, limit=300):
    """The scene of the graph behind some nodes; see `pictures.draw` for what the arguments mean."""
    order = topological(*roots)
    boxes, arrows = boxes_and_arrows(order, set(roots), owned(order), {}, derivatives)
    return Scene(boxes, arrows, headline_of(boxes, roots))


def headline_of(boxes, roots):
    """One line that says what the picture shows."""
    kinds = [box.kind for box in boxes]
    counts = {"folded group": kinds.count("layer"), "number": kinds.count("number"), "operation": kinds.count("op")}
    parts = [f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n]
    names = ", ".join(root.label for root in roots if root.label)
    return "Graph of " + " and ".join(parts) + (f", which compute {names}" if names else "")


def roots_of(what, input_shape=None):
    """The nodes that `draw` was given, as a list."""
    if isinstance(what, (list, tuple)) or hasattr(what, "tolist") and not hasattr(what, "inputs"):
        items = list(what.flat) if hasattr(what, "flat") else list(what)
        if not items:
            raise ValueError("draw: there is nothing in the list")
        return [root for item in items for root in roots_of(item)]
    if hasattr(what, "inputs") and hasattr(what, "op"):
        return [what]
    raise TypeError(f"draw: expected a Value, a Tensor, a list or an array of them, or a Module; "
                    f"got {type(what).__name__} {str(what)[:40]!r}")
