"""Pages to open in a browser: `walkthrough(f)` steps through the chain rule, `film(history)` through a training run.

>>> from tinynet import Value
>>> a, b = Value(-2, label="a"), Value(3, label="b")
>>> f = (a * b) * (a + b)
>>> walkthrough(f).save("f.html")  # doctest: +SKIP

A page is one file: no network, no framework. What stands still is written here; what moves is in `walkthrough.js` and
`film.js`, and the looks are in `pages.css`. No derivative is typed again: the page of calculus in `value` is translated
from Python to JavaScript when a page is made.
"""

import ast
import html
import json
import math
import re
import warnings
from collections import Counter
from importlib import resources
from string import Template
from xml.etree import ElementTree

from ..errors import refusing
from ..graph import topological
from ..value import CONSTANT, RULES, Rule, Value
from . import drawings, explanations, scenes

# ------------------------------------------------------------------------------------- the page of calculus, translated

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
         ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!==", ast.Or: " || ", ast.And: " && "}


def translated(function):
    """A lambda of the page of calculus as a JavaScript function; ValueError where nobody can read its source.

    >>> translated(RULES["tanh"].derivatives[0])
    '(a, y) => (1.0 - (y * y))'
    """
    tree = explanations.written(function)
    if tree is None:
        raise ValueError("its source is not at hand")
    return f"({', '.join(explanations.operands(function))}) => {script(tree)}"


def script(tree):
    """A formula as JavaScript. Rows of the page call each other as RULES; erf alone is unknown to JavaScript's Math."""
    match tree:
        case ast.Constant(value=bool() | str() | None):
            raise ValueError(f"a page cannot write {ast.unparse(tree)}")
        case ast.Constant(value):
            return repr(value)
        case ast.Name(id):
            return id
        case ast.Attribute(ast.Name("math"), "nan"):
            return "NaN"
        case ast.Attribute(ast.Name("math"), name):
            return "erf" if name == "erf" else f"Math.{name}"
        case ast.UnaryOp(ast.USub(), operand):
            return f"(-{script(operand)})"
        case ast.BinOp(a, ast.Pow(), b):
            return f"Math.pow({script(a)}, {script(b)})"
        case ast.BinOp(a, op, b):
            return f"({script(a)} {SIGNS[type(op)]} {script(b)})"
        case ast.Compare(a, [op], [b]):
            return f"({script(a)} {SIGNS[type(op)]} {script(b)})"
        case ast.BoolOp(op, values):
            return f"({SIGNS[type(op)].join(map(script, values))})"
        case ast.IfExp(test, yes, no):
            return f"({script(test)} ? {script(yes)} : {script(no)})"
        case ast.Call(ast.Name("abs"), [x]):
            return f"Math.abs({script(x)})"
        case ast.Call(ast.Name(name), [x]) if name in RULES:
            return f"RULES[{json.dumps(name)}].value({script(x)})"
        case ast.Call(function, arguments):
            return f"{script(function)}({', '.join(map(script, arguments))})"
    raise ValueError(f"a page cannot write {ast.unparse(tree)}")


LETTERS = "abcdefgh"  # the operands of a formula on a page: ⟦a⟧ is the first; ⟦y⟧ the value, ⟦g⟧ the gradient


def cases(tree):
    """The cases of a formula: [(condition, formula), …], the last one without a condition."""
    found = []
    while isinstance(tree, ast.IfExp):
        found.append((tree.test, tree.body))
        tree = tree.orelse
    return [*found, (None, tree)]


def alone(formula):
    """Mark operands that stand alone in a call, as in exp(⟦a⟧): negative numbers need no parentheses there."""
    return re.sub(r"(?<=\w)\(⟦(\w)⟧\)", r"(⟪\1⟫)", formula)


def rule_script(rule):
    """A row of the page of calculus as a JavaScript object: its arithmetic, and its formulas to be told.

    value, derivatives   functions of the operands (and y)         written    the operation as one writes it
    formulas             for each derivative, g times its cases    which      functions that say which case holds
    """
    count = rule.value.__code__.co_argcount
    marks = [f"⟦{letter}⟧" for letter in LETTERS[:count]]
    written = explanations.operation(rule.name, marks)
    if written.startswith(rule.name + "("):
        written = written.replace("⟦", "⟪").replace("⟧", "⟫")
    formulas, which = [], []
    for derivative in rule.derivatives:
        variables = explanations.operands(derivative)
        found, texts = cases(explanations.written(derivative)), dict(zip(variables, [*marks, "⟦y⟧"]))
        formulas.append([alone(explanations.product("⟦g⟧", formula, texts)) for _, formula in found])
        choice = "".join(f"{script(test)} ? {i} : " for i, (test, _) in enumerate(found[:-1])) + str(len(found) - 1)
        which.append(f"({', '.join(variables)}) => {choice}")
    parts = {"value": translated(rule.value), "derivatives": f"[{', '.join(map(translated, rule.derivatives))}]",
             "written": quoted(written), "formulas": quoted(formulas), "which": f"[{', '.join(which)}]"}
    return "{ " + ", ".join(f"{key}: {text}" for key, text in parts.items()) + " }"


def quoted(x):
    """Anything as JSON that can stand inside a <script>, whatever people call their numbers."""
    return json.dumps(x, ensure_ascii=False, allow_nan=False).replace("<", r"\u003c").replace("\u2028", r"\u2028")


def rules_script(rules):
    """The rules as one JavaScript object; the page of calculus comes whole, since its rows use each other."""
    rows = {**RULES, **{rule.name: rule for rule in rules}}
    return "{\n" + "".join(f"  {quoted(name)}: {rule_script(rule)},\n" for name, rule in rows.items()) + "}"


# --------------------------------------------------------------------------------------------------------- the picture

WIDE, PRODUCT = "−0.0000 + …", "−0.000 × −0.000"  # room for numbers that come and go


def role_of(node, root, parameters):
    """What part a node plays on the page; the class of its box."""
    if not node.inputs:
        if node.op is CONSTANT or explanations.is_plain(node):
            return "constant"
        return "parameter" if node in parameters else "input"
    return "output" if node is root else ""


def live_scene(order, name, roles):
    """(the scene of a graph of Values with room for numbers that come and go, {id in the picture: its place})

    Every number has a box with room for its data and its gradient; the place of the edge of operand number p of node n
    is "n.p".
    """
    number, boxes, arrows, places = {node: i for i, node in enumerate(order)}, [], [], {}
    for i, node in enumerate(order):
        if node.inputs:
            symbol = scenes.SYMBOLS.get(node.op.name, node.op.name)
            boxes.append(scenes.Box(f"op{i}", "op", symbol, title=f"operation {node.op.name}"))
            for p, (x, mark) in enumerate(zip(node.inputs, scenes.places(node))):
                places[f"edge-{len(arrows)}"] = f"{i}.{p}"
                arrows.append(scenes.Arrow(f"n{number[x]}", f"op{i}", f"{mark} {PRODUCT}".strip(),
                                           title=f"operand {p + 1} of {node.op.name}: {name[x]}"))
            places[f"edge-{len(arrows)}"] = f"{i}.out"
            arrows.append(scenes.Arrow(f"op{i}", f"n{i}", title=f"{node.op.name} gives {name[node]}"))
        constant = roles[node] == "constant"
        fields = [("", WIDE[:7])] if constant else [("data", WIDE), ("grad", WIDE)]
        boxes.append(scenes.Box(f"n{i}", "number", "" if constant else name[node], roles[node], fields,
                                title=name[node]))
        places |= {f"n{i}": str(i), f"op{i}": str(i)}
    return scenes.Scene([order[-1]], boxes, arrows, {node: f"n{i}" for i, node in enumerate(order)}), places


def board(scene, places, direction):
    """A scene as SVG whose boxes, operations and edges a script can find, by data-node, data-op and data-edge."""
    root = ElementTree.fromstring(drawings.finished(drawings.layout(drawings.dot_of(scene, direction), "svg"), scene))
    return ElementTree.tostring(addressed(root, places, direction), encoding="unicode").replace("ns0:", "")


def addressed(root, places, direction):
    """The SVG without what the page says itself, its parts addressed by their places instead of ids."""
    for tag in ("title", "desc", "style"):
        root.remove(root.find(f"{SVG}{tag}"))
    graph = root.find(f"{SVG}g")
    for note in graph.findall(f"{SVG}text"):
        graph.remove(note)
    for part in list(root.iter(f"{SVG}g")):
        id, title = part.attrib.pop("id", None), part.find(f"{SVG}title")
        if title is not None:
            part.remove(title)
        if id not in places:
            continue
        kind = "edge" if id.startswith("edge") else "op" if id.startswith("op") else "node"
        part.set(f"data-{kind}", places[id])
        for text in part.findall(f"{SVG}text") if kind == "edge" else ():
            mark, room, _ = text.text.partition(PRODUCT)
            if room:  # to be filled with a product
                text.text = None
                text.append(drawings.element("tspan", mark.lstrip(), kind="mark"))
                text.append(drawings.element("tspan", "", kind="product"))
    for element in root.iter():  # the style sheet colours them
        for attribute in ("fill", "stroke", "font-family"):
            if element.get(attribute) != "none":
                element.attrib.pop(attribute, None)
    root.set("class", f"graph {direction}")
    root.set("style", f"--natural: {root.get('width')}")
    return root


SVG = drawings.SVG


# -------------------------------------------------------------------------------------------------------- the documents


class Page:
    """A finished page: `text` is its HTML; a notebook shows it in a frame."""

    def __init__(self, title, text):
        self.title, self.text = title, text

    def __repr__(self):
        return f"Page({self.title!r}, {len(self.text.encode()) / 1000:.0f} kB)"

    def _repr_html_(self):
        return (f'<iframe srcdoc="{html.escape(self.text)}" width="100%" height="760" style="border:0" '
                f'title="{escaped(self.title)}"></iframe>')

    def save(self, path):
        """Write the page; a crash leaves an old file whole. ValueError for a name that does not end in .html."""
        if not str(path).endswith(".html"):
            raise ValueError(f"save: a page is saved as .html, not as {str(path)!r}")
        drawings.write(path, self.text.encode())


def asset(name, **parts):
    """A file that ships with tinynet, with `parts` in place of their $names."""
    text = (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")
    return Template(text).substitute(parts) if parts else text


def escaped(text):
    return html.escape(drawings.clean(text))


def style():
    """The style sheet: the colours of the pictures, for light and for dark, and the looks."""
    def colours(side):
        named = {"paper": drawings.PAPER, "ink": drawings.INK, "faint": drawings.FAINT}
        lines = [f"--{name}: {both[side]};" for name, both in named.items()]
        for tone, (*light, fill, line) in drawings.PALETTE.items():
            fill, line = (fill, line) if side else light
            lines.append(f"--{tone}-fill: {fill}; --{tone}: {line};")
        return " ".join(lines)

    tones = "\n".join(f".{tone} {{ --fill: var(--{tone}-fill); --line: var(--{tone}) }}" for tone in drawings.PALETTE)
    return (f":root {{ {colours(0)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {colours(1)} }} }}\n{tones}\n"
            + asset("pages.css"))


# ---------------------------------------------------------------------------------------------------- the walkthrough

MOST = 300  # nodes on a page: through more than that nobody steps one by one


@refusing
def walkthrough(root, title=None, *, depth=None, focus=None):
    """A page that steps through the graph behind `root`: forward, then backward, one share of a gradient at a time.

    Buttons and arrow keys step; gradients appear when they are reached; "guess the sign" asks before it shows one; any
    leaf can be edited, and everything is computed again beside a nudge check of each gradient. `.save("f.html")`
    writes one file; a notebook shows the page by itself.

    A graph of Tensors is told by shapes and sizes, and cannot be edited. So is a folded one, box by box: `depth` and
    `focus` fold it as they do in `draw`, and a graph of more than 300 nodes is folded unasked, and says so.

    Raises TypeError where `root` is no node, ValueError for an unknown depth or focus, or for an operation whose source
    is not at hand.
    """
    if not (hasattr(root, "inputs") and hasattr(root, "op")):
        raise TypeError(f"walkthrough: expected a Value or a Tensor, got {type(root).__name__} {str(root)[:40]!r}")
    order = topological(root)
    name, mistakes = explanations.names(order), explanations.mistakes(root)
    notes = []
    if depth is None and focus is None and len(order) > MOST:
        depth = 1
        notes.append(f"Folded by layer: the graph has {len(order):,} nodes, and nobody steps through more than {MOST} "
                     "one by one. depth= looks into layers, focus= opens a part.")
        warnings.warn(notes[0], stacklevel=3)
    live = isinstance(root, Value) and depth is None and focus is None
    if live:
        scene, places, page, rules, sentences = live_page(root, order, name)
    else:
        scene, places, page, rules, sentences = told_page(root, order, name, depth, focus)
    count = len([node for node in order if node.inputs])
    summary = [f"{counted(len(order), 'number' if isinstance(root, Value) else 'array')}, "
               f"{counted(count, 'operation')}.", *notes, *scene.notes]
    scene.mark(mistakes, most=len(mistakes))
    scene.notes = []
    for box in dict.fromkeys(scene.where.values()):
        said = "".join(f", mistake {i}: {mistakes[i - 1][1]}" for i in box.badges)
        page["nodes"][int(places[box.id])]["mistakes"] = said
    title = title or f"How {name[root]} gets its gradients"
    lines = "".join(f"<li>⚠ {i}  {escaped(sentence)}</li>" for i, (_, sentence) in enumerate(mistakes, 1))
    return Page(title, asset(
        "walkthrough.html", title=escaped(title), style=style(), page=quoted(page), script=asset("walkthrough.js"),
        rules=rules_script(rules), wide=board(scene, places, "LR"), tall=board(scene, places, "TB"),
        summary="<br>".join(map(escaped, summary)),
        forward=FORWARD if scene.folded else explanations.FORWARD,
        backward=escaped((BACKWARD if scene.folded else explanations.BACKWARD).format(name[root])),
        mistakes=f'<ul class="mistakes" aria-label="Mistakes">{lines}</ul>' if mistakes else "",
        transcript=escaped("\n".join(sentences)),
        whatif=asset("whatif.html") if live else "", guess=GUESS if live else "",
        keys=", <kbd>+</kbd> <kbd>−</kbd> <kbd>0</kbd> a guess" if live else ""))


FORWARD = "Forward: each box from the ones before it."
BACKWARD = "Backward: how large a gradient of {} arrives at each box; rms is the root mean square of its numbers."
GUESS = '<label class="choice"><input type="checkbox" id="guess"> Guess the sign</label>'


def counted(n, what):
    return f"{n} {what}" if n == 1 else f"{n:,} {what}s"


def number_told(x):
    """A number as a page reads it: JSON has no NaN."""
    return x if math.isfinite(x) else str(x)


def live_page(root, order, name):
    """A graph of Values, with what the script needs to compute it again."""
    rules = [node.op for node in order if node.inputs]
    for rule in rules:
        if not isinstance(rule, Rule) or None in map(explanations.written, (rule.value, *rule.derivatives)):
            raise ValueError(f"walkthrough: the source of {rule.name} is not at hand, so a page cannot compute it")
    parameters, number = explanations.parameters_of(order), {node: i for i, node in enumerate(order)}
    roles = {node: role_of(node, root, parameters) for node in order}
    uses = Counter(x for node in order for x in node.inputs)
    nodes = [{"name": name[node], "op": node.op.name if node.inputs else None, "role": roles[node],
              "inputs": [number[x] for x in node.inputs]} for node in order]
    page = {"live": True, "nodes": nodes, "digits": explanations.DIGITS, "uses": [uses[node] for node in order],
            "leaves": [None if node.inputs else number_told(node.data) for node in order]}
    return *live_scene(order, name, roles), page, rules, explanations.explain(root, limit=None).sentences


def told_page(root, order, name, depth, focus):
    """A graph of Tensors, or a folded one: what its picture shows, and when; there is nothing to compute.

    A box has its data from step `forward` on and its gradients from step `backward` on. Each step says which boxes and
    edges light up.
    """
    scene = scenes.scene(root, depth=depth, focus=focus, limit=MOST)
    said = None if scene.folded or isinstance(root, Value) else sized(root, order, name, scene)
    number = {box.id: i for i, box in enumerate(scene.boxes)}
    came, went = {id: [] for id in number}, {id: [] for id in number}
    for i, arrow in enumerate(scene.arrows):
        came[arrow.head].append(i)
        went[arrow.tail].append(i)
    nodes = [{"name": called(box, scene), "role": box.role, "look": box.kind, "tone": box.tone, "mistakes": "",
              "forward": 0, "backward": None, "fields": [[*field, is_gradient(field)] for field in box.fields]}
             for box in scene.boxes]
    steps = []

    def step(way, box, text):
        operation = "op-" + box.id if "op-" + box.id in number else box.id
        edges = went[box.id] if way == "backward" else sorted({*came[operation], *came[box.id]})
        steps.append({"kind": way, "said": text, "edges": edges,
                      "boxes": [number[id] for id in dict.fromkeys((operation, box.id))]})
        for i in steps[-1]["boxes"]:
            nodes[i][way] = len(steps)

    for way, box, text in said or box_by_box(scene):
        step(way, box, text)
    places = {id: str(i) for id, i in number.items()} | {f"edge-{i}": str(i) for i in range(len(scene.arrows))}
    return scene, places, {"live": False, "nodes": nodes, "steps": steps}, [], [step["said"] for step in steps]


def is_gradient(field):
    return "grad" in field[0] or field[0] == "shares"


def called(box, scene):
    """What the page calls a box: its name, or the operation that made it."""
    made = next((other.title.removeprefix("operation ") for other in scene.boxes if other.id == "op-" + box.id), "")
    return box.name or (f"the result of {made}" if made else "a number")


def sized(root, order, name, scene):
    """[(way, box, sentence), …] of a graph of Tensors; the boxes get the gradients that the sentences tell of."""
    story, steps = explanations.ShapeStory(root, order, name), []
    for node in order:
        box = scene.where[node]
        box.name = box.name or (name[node] if box.role != "constant" else "")
    for node, g in [*story.forward, *story.backward]:
        box = scene.where[node]
        if g is not None:
            box.fields = [field for field in box.fields if not is_gradient(field)]
            box.fields.append(("grad rms", scenes.size_text(scenes.rms([g]))))
        steps.append(("forward" if g is None else "backward", box, story.sentence((node, g))))
    return steps


def box_by_box(scene):
    """[(way, box, sentence), …] of a folded graph: each box after those it is made from, and then all the way back."""
    before = {box.id: {arrow.tail for arrow in scene.arrows if arrow.head == box.id} for box in scene.boxes}
    waiting, walk = list(scene.boxes), []
    while waiting:  # boxes of one operation wherever it occurs may need each other: then the first one comes first
        placed = {box.id for box in walk}
        walk.append(next((box for box in waiting if before[box.id] <= placed), waiting[0]))
        waiting.remove(walk[-1])
    steps = []
    for way, boxes in (("forward", walk), ("backward", walk[::-1])):
        for box in boxes:
            fields = [f"{key} {text}".strip().replace("their grad", "its parameters' grad") for key, text in box.fields
                      if is_gradient((key, text)) == (way == "backward") and text != "–"]
            if box.kind != "op" and fields and (way == "backward" or before[box.id]):
                name, verb = called(box, scene), "gives" if way == "forward" else "receives"
                subject = f"{name} ({box.role})" if box.role else name
                steps.append((way, box, f"{subject} {verb} {', '.join(fields)}"))
    return steps
