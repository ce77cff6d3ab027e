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
from collections import Counter
from importlib import resources
from string import Template
from xml.etree import ElementTree

from . import pictures, scenes, words
from .graph import topological
from .value import CONSTANT, RULES, Rule, Value

# ------------------------------------------------------------------------------------- the page of calculus, translated

SIGNS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
         ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!==", ast.Or: " || ", ast.And: " && "}


def translated(function):
    """A lambda of the page of calculus as a JavaScript function; ValueError where nobody can read its source.

    >>> translated(RULES["tanh"].derivatives[0])
    '(a, y) => (1.0 - (y * y))'
    """
    tree = words.written(function)
    if tree is None:
        raise ValueError("its source is not at hand")
    return f"({', '.join(words.operands(function))}) => {script(tree)}"


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
    written = words.operation(rule.name, marks)
    if written.startswith(rule.name + "("):
        written = written.replace("⟦", "⟪").replace("⟧", "⟫")
    formulas, which = [], []
    for derivative in rule.derivatives:
        variables = words.operands(derivative)
        found, texts = cases(words.written(derivative)), dict(zip(variables, [*marks, "⟦y⟧"]))
        formulas.append([alone(words.product("⟦g⟧", formula, texts)) for _, formula in found])
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
        if node.op is CONSTANT or words.is_plain(node):
            return "constant"
        return "parameter" if node in parameters else "input"
    return "output" if node is root else ""


def board(order, name, roles, told, marks, direction):
    """The graph as SVG whose boxes, operations and edges a script can find, by data-node, data-op and data-edge.

    Every number has a box with room for its data and its gradient: that of any number, or of the texts (data, grad)
    that are `told` of each node. The edge of operand number p of node n is "n.p". `marks` are the mistakes as
    {node: their numbers}.
    """
    number, boxes, arrows, keys = {node: i for i, node in enumerate(order)}, [], [], []
    for i, node in enumerate(order):
        if node.inputs:
            symbol = scenes.SYMBOLS.get(node.op.name, node.op.name)
            boxes.append(scenes.Box(f"op{i}", "op", symbol, title=f"operation {node.op.name}"))
            for place, (x, mark) in enumerate(zip(node.inputs, scenes.places(node))):
                room = f"{mark} {PRODUCT}" if isinstance(node, Value) else f"{mark} {words.shape_text(x.data.shape)}"
                arrows.append(scenes.Arrow(f"n{number[x]}", f"op{i}", room.strip(), tone="none",
                                           title=f"operand {place + 1} of {node.op.name}: {name[x]}"))
                keys.append(f"{i}.{place}")
            arrows.append(scenes.Arrow(f"op{i}", f"n{i}", title=f"{node.op.name} gives {name[node]}", tone="none"))
            keys.append(f"{i}.out")
        data, grad = told[i] if told else (WIDE, WIDE)
        constant = roles[node] == "constant"
        fields = [("", data[:7])] if constant else [("data", data), ("grad", grad or "–")]
        boxes.append(scenes.Box(f"n{i}", "number", "" if constant else name[node], roles[node], fields,
                                title=name[node]))
        boxes[-1].badges = marks.get(node, [])
    scene = scenes.Scene([order[-1]], boxes, arrows, {})
    root = ElementTree.fromstring(pictures.finished(pictures.layout(pictures.dot_of(scene, direction), "svg"), scene))
    return ElementTree.tostring(addressed(root, keys, direction), encoding="unicode").replace("ns0:", "")


def addressed(root, keys, direction):
    """The SVG without what the page says itself, its parts addressed by data attributes instead of ids."""
    for tag in ("title", "desc", "style"):
        root.remove(root.find(f"{SVG}{tag}"))
    marks = {"n": "data-node", "o": "data-op", "e": "data-edge"}
    for part in list(root.iter(f"{SVG}g")):
        id, title = part.attrib.pop("id", None), part.find(f"{SVG}title")
        if title is not None:
            part.remove(title)
        if id is None:
            continue
        place = re.search(r"\d+", id)[0]
        part.set(marks[id[0]], keys[int(place)] if id[0] == "e" else place)
        for text in part.findall(f"{SVG}text") if id[0] == "e" else ():
            mark, room, _ = text.text.partition(PRODUCT)
            if room:  # to be filled with a product
                text.text = None
                text.append(pictures.element("tspan", mark.lstrip(), kind="mark"))
                text.append(pictures.element("tspan", "", kind="product"))
    for element in root.iter():  # the style sheet colours them
        for attribute in ("fill", "stroke", "font-family"):
            if element.get(attribute) != "none":
                element.attrib.pop(attribute, None)
    root.set("class", f"graph {direction}")
    root.set("style", f"--natural: {root.get('width')}")
    return root


SVG = pictures.SVG


# -------------------------------------------------------------------------------------------------------- the documents


class Page:
    """A finished page: `text` is its HTML; a notebook shows it in a frame."""

    def __init__(self, title, text):
        self.title, self.text = title, text

    def __repr__(self):
        return f"Page({self.title!r}, {len(self.text.encode()) / 1000:.0f} kB)"

    def _repr_html_(self):
        return f'<iframe srcdoc="{html.escape(self.text)}" width="100%" height="760" style="border:0"></iframe>'

    def save(self, path):
        """Write the page; a crash leaves an old file whole. ValueError for a name that does not end in .html."""
        if not str(path).endswith(".html"):
            raise ValueError(f"save: a page is saved as .html, not as {str(path)!r}")
        pictures.write(path, self.text.encode())


def asset(name, **parts):
    """A file that ships with tinynet, with `parts` in place of their $names."""
    text = (resources.files(__package__) / name).read_text(encoding="utf-8")
    return Template(text).substitute(parts) if parts else text


def escaped(text):
    return html.escape(pictures.clean(text))


def style():
    """The style sheet: the colours of the pictures, for light and for dark, and the looks."""
    def colours(side):
        named = {"paper": pictures.PAPER, "ink": pictures.INK, "faint": pictures.FAINT}
        lines = [f"--{name}: {both[side]};" for name, both in named.items()]
        for tone, (*light, fill, line) in pictures.PALETTE.items():
            fill, line = (fill, line) if side else light
            lines.append(f"--{tone}-fill: {fill}; --{tone}: {line};")
        return " ".join(lines)

    tones = "\n".join(f".{tone} {{ --fill: var(--{tone}-fill); --line: var(--{tone}) }}" for tone in pictures.PALETTE)
    return (f":root {{ {colours(0)} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {colours(1)} }} }}\n{tones}\n"
            + asset("pages.css"))


# ---------------------------------------------------------------------------------------------------- the walkthrough

MOST = 300  # nodes on a page: more than that, nobody steps through


def walkthrough(root, title=None):
    """A page that steps through the graph behind `root`: forward, then backward, one share of a gradient at a time.

    Buttons and arrow keys step; gradients appear when they are reached; "guess the sign" asks before it shows one; any
    leaf can be edited, and everything is computed again beside a nudge check of each gradient. `.save("f.html")`
    writes one file; a notebook shows the page by itself. A graph of Tensors is told by shapes and sizes, and cannot be
    edited.

    Raises TypeError where `root` is no node, ValueError for a graph of more than 300 nodes.
    """
    if not (hasattr(root, "inputs") and hasattr(root, "op")):
        raise TypeError(f"walkthrough: expected a Value or a Tensor, got {type(root).__name__} {str(root)[:40]!r}")
    order = topological(root)
    if len(order) > MOST:
        raise ValueError(f"walkthrough: the graph has {len(order):,} nodes, more than the {MOST} that one can step "
                         "through; take a smaller part, one sample or one neuron, or fold it: draw(…, depth=1)")
    live = isinstance(root, Value)
    rules = [node.op for node in order if node.inputs] if live else []
    for rule in rules:
        if not isinstance(rule, Rule) or None in map(words.written, (rule.value, *rule.derivatives)):
            raise ValueError(f"walkthrough: the source of {rule.name} is not at hand, so a page cannot compute it")
    name, parameters = words.names(order), words.parameters_of(order)
    roles = {node: role_of(node, root, parameters) for node in order}
    explanation = words.explain(root, limit=None)
    steps = len([node for node in order if node.inputs])
    page = live_page(order, name, roles) if live else told_page(order, name, roles)
    title = title or f"How {name[root]} gets its gradients"
    told = [] if live else [(node["data"], node["grad"]) for node in page["nodes"]]
    mistakes, marks = words.mistakes(root), {}
    for i, (node, _) in enumerate(mistakes, 1):
        marks.setdefault(node, []).append(i)
    for node, said in zip(order, page["nodes"]):
        said["mistakes"] = "".join(f", mistake {i}: {mistakes[i - 1][1]}" for i in marks.get(node, ()))
    lines = "".join(f"<li>⚠ {i}  {escaped(sentence)}</li>" for i, (_, sentence) in enumerate(mistakes, 1))
    boards = {side: board(order, name, roles, told, marks, way) for side, way in (("wide", "LR"), ("tall", "TB"))}
    return Page(title, asset(
        "walkthrough.html", title=escaped(title), style=style(), page=quoted(page), script=asset("walkthrough.js"),
        rules=rules_script(rules), **boards,
        summary=f"{counted(len(order), 'number' if live else 'array')}, {counted(steps, 'operation')}.",
        forward=words.FORWARD, backward=escaped(words.BACKWARD.format(name[root])),
        mistakes=f'<ul class="mistakes" aria-label="Mistakes">{lines}</ul>' if mistakes else "",
        transcript=escaped("\n".join(explanation.sentences)),
        whatif=asset("whatif.html") if live else "", guess=GUESS if live else "",
        keys=", <kbd>+</kbd> <kbd>−</kbd> <kbd>0</kbd> a guess" if live else ""))


GUESS = '<label class="choice"><input type="checkbox" id="guess"> Guess the sign</label>'


def counted(n, what):
    return f"{n} {what}" if n == 1 else f"{n:,} {what}s"


def told(x):
    """A number as a page reads it: JSON has no NaN."""
    return x if math.isfinite(x) else str(x)


def live_page(order, name, roles):
    """What the script needs to compute a graph of Values again."""
    number = {node: i for i, node in enumerate(order)}
    uses = Counter(x for node in order for x in node.inputs)
    nodes = [{"name": name[node], "op": node.op.name if node.inputs else None, "role": roles[node],
              "inputs": [number[x] for x in node.inputs]} for node in order]
    return {"live": True, "nodes": nodes, "leaves": [None if node.inputs else told(node.data) for node in order],
            "uses": [uses[node] for node in order], "digits": words.DIGITS}


def told_page(order, name, roles):
    """What the script tells of a graph of Tensors: sentences, ranges of numbers and sizes of gradients."""
    number, story = {node: i for i, node in enumerate(order)}, words.ShapeStory(order[-1], order, name)
    gradients = {node: scenes.size_text(scenes.rms([g])) for node, g in story.backward}
    nodes = [{"name": name[node], "op": node.op.name if node.inputs else None, "role": roles[node],
              "inputs": [number[x] for x in node.inputs], "data": scenes.extent([node.data]),
              "grad": f"rms {gradients[node]}" if node in gradients else None} for node in order]
    steps = [{"kind": "gradient" if g is not None else "forward", "node": number[node],
              "said": story.sentence((node, g))} for node, g in [*story.forward, *story.backward]]
    return {"live": False, "nodes": nodes, "steps": steps, "digits": words.DIGITS}
