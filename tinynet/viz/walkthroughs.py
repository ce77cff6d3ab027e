"""Step through the chain rule in a browser: `walkthrough(f)` makes the page.

>>> from tinynet import Value
>>> a, b = Value(-2, label="a"), Value(3, label="b")
>>> f = (a * b) * (a + b)
>>> walkthrough(f).save("f.html")  # doctest: +SKIP

What stands still is written here; what moves is in assets/walkthrough.js. The page computes with the derivative table
itself, which `formulas` translates to JavaScript.
"""

import math
import warnings
from collections import Counter
from xml.etree import ElementTree

from ..errors import describe
from ..graph import topological
from ..value import Rule, Value
from . import explanations
from .diagnostics import diagnose
from .drawings import SVG, dot_of, element, finished, layout
from .explanations import check_node, explain
from .formulas import quoted, rules_script, source
from .labels import Models, is_plain, names
from .pages import Page, escaped, page_text
from .scenes import GraphView, graph_view, rms

MOST = 300  # nodes on a page: larger graphs are not stepped through one by one
FORWARD = "Forward pass: each box is computed from the ones before it."
BACKWARD = "Backward pass: how large a gradient of {} arrives at each box; rms is its root mean square."


def walkthrough(root, title=None, *, depth=None, focus=None):
    """A page that steps through the graph behind `root`: forward, then backward, one gradient contribution at a time.

    Buttons and arrow keys step; gradients appear when they are reached; "guess the sign" asks before it shows one; any
    leaf can be edited, and everything is computed again beside a finite difference for each gradient.
    `.save("f.html")` writes one file; a notebook shows the page by itself.

    A graph of Tensors is described by shapes and sizes, and cannot be edited. So is a folded one, box by box: `depth`
    and `focus` fold it as they do in `draw`, and a graph of more than 300 nodes is folded by default, with a warning.

    Raises TypeError where `root` is not a node, ValueError for an unknown depth or focus, or for an operation whose
    source is not at hand.
    """
    check_node("walkthrough", root)
    if not isinstance(title, (str, type(None))):
        raise TypeError(f"walkthrough: expected title to be a string, got {describe(title)}")
    order = topological(root)
    name, mistakes, whole = names(order), diagnose(root), depth is None and focus is None
    live = isinstance(root, Value) and whole and len(order) <= MOST
    view, ids, page, rules, sentences = live_page(root, order, name) if live else static_page(
        root, order, name, depth, focus)
    if whole and view.notes:
        warnings.warn(view.notes[0], stacklevel=2)
    counts = {"number" if isinstance(root, Value) else "array": len(order),
              "operation": sum(bool(node.inputs) for node in order)}
    summary = [", ".join(f"{n:,} {what}{'' if n == 1 else 's'}" for what, n in counts.items()) + ".", *view.notes]
    view.mark(mistakes, most=len(mistakes))
    view.notes = []  # the page shows them above the picture
    for box in dict.fromkeys(view.where.values()):
        description = "".join(f", mistake {i}: {mistakes[i - 1][1]}" for i in box.badges)
        page["nodes"][int(ids[box.id])]["mistakes"] = description
    title = title or f"How {name[root]} gets its gradients"
    lines = "".join(f"<li>⚠ {i}  {escaped(sentence)}</li>" for i, (_, sentence) in enumerate(mistakes, 1))
    forward, backward = (FORWARD, BACKWARD) if view.folded else (explanations.FORWARD, explanations.BACKWARD)
    return Page(title, page_text(
        "walkthrough", title, heading=escaped(title), page=quoted(page), rules=rules_script(rules),
        wide=board(view, ids, "LR"), tall=board(view, ids, "TB"), summary="<br>".join(map(escaped, summary)),
        forward=forward, backward=escaped(backward.format(name[root])),
        mistakes=f'<ul class="mistakes" aria-label="Mistakes">{lines}</ul>' if mistakes else "",
        transcript=escaped("\n".join(sentences))))


# ------------------------------------------------------------------------------ a graph of Values, computed on the page

WIDE, PRODUCT = "−0.0000 + …", "−0.000 × −0.000"  # room for numbers that come and go


def live_page(root, order, name):
    """(its view, with room for numbers that come and go; {id in the picture: its index on the page}; what the script
    needs to compute the graph again; its rules; its sentences)

    The index of the edge of operand p of node n is "n.p".
    """
    rules = [node.op for node in order if node.inputs]
    for rule in rules:
        if not isinstance(rule, Rule) or None in map(source, (rule.value, *rule.derivatives)):
            raise ValueError(f"walkthrough: the source of {rule.name} is not at hand, so a page cannot compute it")
    view, ids, operands = GraphView(order, [root], Models(order)), {}, Counter()
    for i, node in enumerate(order):
        box = view.where[node]
        ids |= {box.id: str(i), f"op-{box.id}": str(i)}
        box.role = "constant" if is_plain(node) else box.role
        box.name = "" if is_plain(node) else name[node]
        box.fields = [("", WIDE[:7])] if is_plain(node) else [("data", WIDE), ("grad", WIDE)]
    for k, arrow in enumerate(view.arrows):
        if arrow.head in ids and arrow.head.startswith("op-"):
            i = ids[arrow.head]
            ids[f"edge-{k}"], arrow.label = f"{i}.{operands[i]}", f"{arrow.label} {PRODUCT}".strip()
            operands[i] += 1
        else:
            ids[f"edge-{k}"] = f"{ids[arrow.tail]}.out"
    number = {node: i for i, node in enumerate(order)}
    nodes = [{"name": name[node], "op": node.op.name if node.inputs else None, "role": view.where[node].role,
              "inputs": [number[x] for x in node.inputs]} for node in order]
    leaves = [None if node.inputs else node.data if math.isfinite(node.data) else str(node.data) for node in order]
    page = {"live": True, "nodes": nodes, "digits": explanations.DIGITS, "leaves": leaves}  # JSON has no NaN
    return view, ids, page, rules, explain(root, limit=None).sentences


# --------------------------------------------------------------------------------- a graph of Tensors, or a folded one


def static_page(root, order, name, depth, focus):
    """The same for a graph of which the page shows what its picture shows, step by step; there is nothing to compute.

    A box has its data from step `forward` on and its gradients from step `backward` on. Each step says which boxes and
    edges light up.
    """
    view = graph_view(root, depth=depth, focus=focus, limit=MOST)
    sentences = box_by_box(view) if view.folded or isinstance(root, Value) else node_by_node(root, order, name, view)
    number = {box.id: i for i, box in enumerate(view.boxes)}
    nodes = [{"name": called(box, view), "role": box.role, "look": box.kind, "tone": box.tone, "mistakes": "",
              "forward": 0, "backward": None, "fields": [[*field, is_gradient(field)] for field in box.fields]}
             for box in view.boxes]
    steps = []
    for direction, box, sentence in sentences:
        lit = [id for id in ("op-" + box.id, box.id) if id in number]
        edges = [i for i, arrow in enumerate(view.arrows)
                 if (arrow.tail == box.id if direction == "backward" else arrow.head in lit)]
        steps.append({"kind": direction, "sentence": sentence, "edges": edges, "boxes": [number[id] for id in lit]})
        for id in lit:
            nodes[number[id]][direction] = len(steps)
    ids = {id: str(i) for id, i in number.items()} | {f"edge-{i}": str(i) for i in range(len(view.arrows))}
    return view, ids, {"live": False, "nodes": nodes, "steps": steps}, [], [step["sentence"] for step in steps]


def is_gradient(field):
    return "grad" in field[0] or field[0] == "this pass"


def called(box, view):
    """What the page calls a box: its name, or the operation that made it."""
    made = next((other.title.removeprefix("operation ") for other in view.boxes if other.id == "op-" + box.id), "")
    return box.name or (f"the result of {made}" if made else "a number")


def node_by_node(root, order, name, view):
    """[(direction, box, sentence), …] of a graph of Tensors; the boxes get the gradients that the sentences state."""
    trace, steps = explanations.ShapeTrace(root, order, name), []
    for node in order:
        box = view.where[node]
        box.name = box.name or (name[node] if box.role != "constant" else "")
    for node, g in [*trace.forward, *trace.backward]:
        box = view.where[node]
        if g is not None:
            box.fields = [field for field in box.fields if not is_gradient(field)] + [("grad rms", rms([g]))]
        steps.append(("forward" if g is None else "backward", box, trace.sentence((node, g))))
    return steps


def box_by_box(view):
    """[(direction, box, sentence), …] of a folded graph: each box after its operands, then the backward pass."""
    before = {box.id: {arrow.tail for arrow in view.arrows if arrow.head == box.id} for box in view.boxes}
    waiting, order, placed = list(view.boxes), [], set()
    while waiting:  # boxes of one operation wherever it occurs may need each other: then the first one comes first
        order.append(next((box for box in waiting if before[box.id] <= placed), waiting[0]))
        placed.add(order[-1].id)
        waiting.remove(order[-1])
    steps = []
    for direction, boxes in (("forward", order), ("backward", order[::-1])):
        for box in boxes:
            fields = [f"{key} {text}".strip().replace("their grad", "its parameters' grad") for key, text in box.fields
                      if is_gradient((key, text)) == (direction == "backward") and text != "–"]
            if box.kind != "op" and fields and (direction == "backward" or before[box.id]):
                name, verb = called(box, view), "gives" if direction == "forward" else "receives"
                subject = f"{name} ({box.role})" if box.role else name
                steps.append((direction, box, f"{subject} {verb} {', '.join(fields)}"))
    return steps


def board(view, ids, direction):
    """A view as SVG whose boxes, operations and edges a script can find, by data-node, data-op and data-edge."""
    root = ElementTree.fromstring(finished(layout(dot_of(view, direction), "svg"), view))
    for tag in ("title", "desc", "style"):  # the page has its own
        root.remove(root.find(f"{SVG}{tag}"))
    graph = root.find(f"{SVG}g")
    for note in graph.findall(f"{SVG}text"):
        graph.remove(note)
    for part in list(root.iter(f"{SVG}g")):
        id, title = part.attrib.pop("id", None), part.find(f"{SVG}title")
        if title is not None:
            part.remove(title)
        if id in ids:
            kind = "edge" if id.startswith("edge") else "op" if id.startswith("op") else "node"
            part.set(f"data-{kind}", ids[id])
            for text in part.findall(f"{SVG}text") if kind == "edge" else ():
                mark, room, _ = text.text.partition(PRODUCT)
                if room:  # to be filled with a product
                    text.text = None
                    text.extend([element("tspan", mark.lstrip(), kind="mark"), element("tspan", "", kind="product")])
    for part in root.iter():  # the style sheet colours them
        for attribute in ("fill", "stroke", "font-family"):
            if part.get(attribute) != "none":
                part.attrib.pop(attribute, None)
    root.set("class", f"graph {direction}")
    root.set("style", f"--natural: {root.get('width')}")
    return ElementTree.tostring(root, encoding="unicode").replace("ns0:", "")
