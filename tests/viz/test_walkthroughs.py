"""Pages, used as a person uses them: in a real browser, from disk, by keyboard; they compute what Python computes."""

import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinynet import Value, draw
from tinynet.graph import topological
from tinynet.value import CONSTANT, RULES, Rule
from tinynet.viz.explanations import explain
from tinynet.viz.formulas import rules_script, translated
from tinynet.viz.walkthroughs import walkthrough

from . import browser
from .test_explanations import BROKEN, example, random_graph

SHOTS = Path(__file__).parents[2] / "build" / "shots"
chromium = pytest.mark.skipif(browser.chromium() is None, reason="there is no Chromium on this machine")
HOSTILE = ['</script><script>alert(1)</script>', '"\'&|{x}<>\\n', "שלום ‮abc", "🦊\n\t$name `${1}`", "<!--"]


@pytest.fixture(scope="module")
def chrome():
    with browser.Browser() as running:
        yield running


@pytest.fixture
def opened(chrome, tmp_path):
    """A function that saves the page of a graph and opens it from disk."""
    def open_page(root, focus=None, **how):
        walkthrough(root, focus=focus).save(tmp_path / "page.html")
        return chrome.open(tmp_path / "page.html", **how)

    return open_page


def hostile():
    a, b, c, d, e = (Value(x, label=label) for x, label in zip((1.5, 2.0, -0.5, 3.0, 0.25), HOSTILE))
    f = (a * b + c.tanh()) * d + a * e
    f.label = '<b>f</b>"'
    f.backward()
    return f


def boxes(page):
    """What the visible picture says of each node to somebody who does not see it."""
    return page.run("""[...document.querySelectorAll(".sheet [data-node]")].filter(inSight)
        .sort((a, b) => a.dataset.node - b.dataset.node).map(box => box.getAttribute("aria-label"))""")


def sentence(page):
    """The sentence of the present step, put together from its lines."""
    return " = ".join(page.run("[...document.querySelectorAll('#equation bdi')].map(part => part.textContent)"))


def text(page, selector):
    return page.run(f"document.querySelector({json.dumps(selector)}).textContent")


def numbers(page):
    """[(data, gradient), …] of all nodes, as the page has computed them; None stands for what is not finite."""
    return page.run("nodes.map((_, i) => [state.data[i], state.grad[i]])")


def fresh(root):
    """The same from Python, in the same order."""
    order, found = topological(root), dict(root.gradients())
    return [(node.data, None if node.op is CONSTANT else found.get(node)) for node in order]


# ------------------------------------------------------------------------------------------------------------ one file


def test_the_page_of_the_example_is_one_small_file(tmp_path):
    _, _, f = example()
    f.backward()
    page = walkthrough(f)
    page.save(tmp_path / "f.html")
    written = (tmp_path / "f.html").read_bytes()
    assert written == page.html.encode() and len(written) < 300_000
    assert not re.search(r"src=|href=(?!\"#)|url\(|import |fetch\(", page.html)
    assert "default-src 'none'" in page.html
    assert page._repr_html_().startswith("<iframe srcdoc=")
    assert repr(page) == f"Page('How f gets its gradients', {len(written) / 1000:.0f} kB)"


SCRIPT = """
from tinynet import Value
from tinynet.viz.walkthroughs import walkthrough
a, b = Value(-2.0, label="a"), Value(3.0, label="b")
f = (a * b) * (a + b) - a.tanh() / 3
f.backward()
print(walkthrough(f).html)
from tinynet import datasets, film, manual_seed, nn
from tinynet.viz.films import Recorder
manual_seed(0)
model = nn.MLP(2, [3, 1]).to("scalar")
recorder = Recorder(model, *datasets.moons(10, seed=0))
recorder(model([[0.5, 1.0]]).sum())
print(film(recorder).html)
"""


def test_the_same_graph_and_the_same_film_give_the_same_bytes_in_every_process():
    pytest.importorskip("numba")

    def run(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"}
        return subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, check=True).stdout

    assert run("1") == run("2") != b""


def test_no_derivative_is_typed_in_javascript():
    """What the page computes with is made of the derivative table, row by row; its script has no rule of its own."""
    assert translated(RULES["tanh"].derivatives[0]) == "(a, y) => (1.0 - (y * y))"
    assert translated(RULES["relu"].derivatives[0]) == "(a, y) => ((a <= 0.0) ? 0.0 : 1.0)"
    assert translated(RULES["**"].derivatives[1]) == (
        "(a, b, y) => ((a > 0.0) ? (y * RULES[\"log\"].value(a)) : ((a === 0.0) ? 0.0 : NaN))")
    rows = rules_script([])
    assert all(f"  {json.dumps(name)}: {{ value: " in rows for name in RULES)
    script = (Path(__file__).parents[2] / "tinynet/viz/assets/walkthrough.js").read_text()
    assert not re.search(r"tanh|sigmoid|relu|gelu|softplus|Math\.(sin|cos|log)\b", script)


def test_a_rule_without_source_raises():
    blind = Rule("blind", eval("lambda a: 2.0 * a"), eval("lambda a, y: 2.0"))
    x = Value(1.0)
    y = Value(2.0)
    y.op, y.inputs = blind, (x,)
    with pytest.raises(ValueError, match="the source of blind is not at hand"):
        walkthrough(y)
    with pytest.raises(ValueError, match="a page cannot write"):
        translated(lambda a: [a])


def test_bad_input_raises(tmp_path):
    with pytest.raises(TypeError, match="walkthrough: expected a Value or a Tensor, got 3"):
        walkthrough(3)
    with pytest.raises(ValueError, match=r"ends in .html, .htm, got .*f.pdf"):
        walkthrough(Value(1.0) + 1).save(tmp_path / "f.pdf")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        walkthrough(Value(1.0) + 1).save(tmp_path / "nowhere" / "f.html")


# ---------------------------------------------------------------------------------------------------- stepping through


@chromium
def test_the_keyboard_steps_to_the_end_and_back(opened):
    _, _, f = example()
    f.backward()
    page, told = opened(f), explain(f).sentences
    assert page.address.startswith("file://")
    assert boxes(page) == ["input a, data −2", "input b, data 3", "v1, not computed yet", "v2, not computed yet",
                           "output f, not computed yet"]
    there, back = [], []
    for _ in told:
        page.press("ArrowRight")
        there.append((sentence(page), text(page, "#phase"), boxes(page)))
    assert [line for line, *_ in there] == told
    assert [phase for _, phase, _ in there] == [*(f"Forward {i} of 3" for i in (1, 2, 3)),
                                                *(f"Backward {i} of 7" for i in range(1, 8))]
    page.press("ArrowRight", 3)
    assert sentence(page) == told[-1], "the last step is the last"
    for _ in told:
        back.append((sentence(page), text(page, "#phase"), boxes(page)))
        page.press("ArrowLeft")
    assert back == there[::-1]
    assert text(page, "#phase") == "Start"
    page.press("End")
    assert sentence(page) == told[-1]
    assert boxes(page) == ["input a, data −2, gradient −3", "input b, data 3, gradient −8",
                           "v1, data −6, gradient +1", "v2, data 1, gradient −6", "output f, data −6, gradient +1"]
    page.press("Home")
    assert text(page, "#count") == "0 / 10"
    assert not page.problems


@chromium
def test_a_gradient_appears_when_it_is_reached_and_its_edge_lights_up(opened):
    _, _, f = example()
    f.backward()
    page = opened(f)
    page.press("ArrowRight", 3)
    assert not any("gradient" in box for box in boxes(page))
    page.press("ArrowRight")
    assert [box.endswith("no gradient yet") for box in boxes(page)] == [True] * 4 + [False]
    lit = "[...document.querySelectorAll('.sheet.wide .edge.active')].map(edge => edge.dataset.edge)"
    product = "document.querySelector('.sheet.wide [data-edge=\"{}\"] .product').textContent"
    assert page.run(lit) == []
    page.press("ArrowRight", 3)  # df/da (1 of 2)
    assert page.run(lit) == ["3.0"]
    assert page.run(product.format("3.0")) == "1 × −6" and page.run(product.format("2.0")) == ""
    assert boxes(page)[0] == "input a, data −2, gradient −6 + …"
    page.press("ArrowRight", 2)  # df/da (2 of 2)
    assert page.run(lit) == ["2.0"] and page.run(product.format("2.0")) == "3 × 1"
    assert boxes(page)[0] == "input a, data −2, gradient −3"
    edges = page.run("[...document.querySelectorAll('.sheet.wide .edge')].map(edge => edge.dataset.edge).sort()")
    assert edges == sorted(["2.0", "2.1", "2.out", "3.0", "3.1", "3.out", "4.0", "4.1", "4.out"])


@chromium
def test_buttons_slider_and_transcript_step_too(opened):
    _, _, f = example()
    f.backward()
    page, told = opened(f), explain(f).sentences
    page.run("document.querySelector('#next').click()")
    assert sentence(page) == told[0]
    page.run("document.querySelector('#last').click()")
    assert sentence(page) == told[-1]
    page.run("document.querySelector('#back').click()")
    assert sentence(page) == told[-2]
    page.run("step = document.querySelector('#step'); step.value = 5; step.dispatchEvent(new Event('input'))")
    assert sentence(page) == told[4]
    lines = "[...document.querySelectorAll('#transcript button')].map(line => line.textContent)"
    assert page.run(lines) == told
    page.run("document.querySelectorAll('#transcript button')[7].click()")
    assert sentence(page) == told[7]
    assert page.run("document.querySelector('#transcript [aria-current]').textContent") == told[7]
    page.run("document.querySelector('#first').click()")
    assert text(page, "#phase") == "Start"
    assert told[2] in text(page, "noscript")
    assert not page.problems


@chromium
def test_everything_can_be_reached_with_the_tab_key(opened):
    _, _, f = example()
    f.backward()
    page, reached = opened(f), []
    page.run("document.querySelectorAll('details').forEach(panel => { panel.open = true; })")
    for _ in range(45):
        page.press("Tab")
        reached.append(page.run("document.activeElement.id || document.activeElement.className || "
                                "document.activeElement.textContent.trim()"))
    assert {"skip", "sheet wide", "first", "next", "last", "step", "guess", "leaf-0", "leaf-1"} <= set(reached)
    page.run("document.querySelector('#next').focus()")
    page.press("Enter")
    page.press(" ")
    assert text(page, "#count") == "2 / 10"


@chromium
def test_the_sign_is_asked_for_before_it_is_shown(opened):
    _, _, f = example()
    f.backward()
    page = opened(f)
    asked = "!document.querySelector('#ask').hidden && !document.querySelector('#signs').hidden"
    page.run("document.querySelector('#guess').click()")
    page.press("ArrowRight", 4)
    assert not page.run(asked), "that df/df is 1 needs no guess"
    page.press("ArrowRight")
    assert page.run(asked) and text(page, "#question") == "What is the sign of df/dv1?"
    assert boxes(page)[2] == "v1, data −6, no gradient yet"
    page.press("+")
    assert text(page, "#verdict") == "✓ Right, it is positive: increasing it makes f larger. 1 of 1 right."
    assert boxes(page)[2] == "v1, data −6, gradient +1" and not page.run(asked)
    page.press("ArrowRight")
    assert text(page, "#question") == "What is the sign of df/dv2?"
    page.run("document.querySelector('#signs [data-sign=positive]').click()")
    assert text(page, "#verdict") == "✗ Wrong, it is negative: increasing it makes f smaller. 1 of 2 right."
    page.press("ArrowRight", 2)
    assert not page.run(asked), "a sum that is not complete has no sign yet"
    page.press("ArrowRight")
    assert page.run(asked)
    page.press("ArrowLeft")
    assert not page.run(asked) and text(page, "#count") == "8 / 10"
    page.press("ArrowRight", 2)
    assert text(page, "#count") == "9 / 10", "it may be shown without a guess"
    assert not page.problems


# ------------------------------------------------------------------------------------------------------------- what if


@chromium
def test_an_edited_leaf_changes_everything_as_it_does_in_python(opened):
    _, _, f = example()
    f.backward()
    page = opened(f)
    page.run("document.querySelector('#whatif').open = true")
    page.press("End")
    page.write("#leaf-0", "1.25")
    a, b = Value(1.25), Value(3.0)
    g = (a * b) * (a + b)
    assert numbers(page) == [list(pair) for pair in fresh(g)]
    assert text(page, "#edited") == "f was −6, is now 15.94."
    row = "[...document.querySelectorAll('#numbers tbody tr')].map(row => [...row.querySelectorAll('td')]" \
          ".map(cell => [...cell.querySelectorAll('.now, .was')].map(x => x.textContent)))"
    assert page.run(row)[1] == [[""], ["+9.062", "was −8"], []]  # a² + 2ab, the half rounded to even
    assert page.run(row)[4] == [["15.94", "was −6"], ["+1", ""], []]
    assert boxes(page)[1] == "input b, data 3, gradient +9.062"
    g.label, a.label, b.label = "f", "a", "b"
    page.press("Home")
    lines = page.run("[...document.querySelectorAll('#transcript button')].map(line => line.textContent)")
    assert lines == explain(g).sentences
    page.write("#leaf-1", "")
    assert text(page, "#edited") == "b needs a number."
    assert page.run("document.querySelector('#leaf-1').getAttribute('aria-invalid')") == "true"
    page.run("document.querySelector('#reset').click()")
    _, _, f = example()
    assert numbers(page) == [list(pair) for pair in fresh(f)]
    assert page.run("document.querySelector('#leaf-0').value") == "-2"
    assert not page.problems


@chromium
def test_a_finite_difference_stands_beside_each_gradient_and_tells_a_kink(opened):
    x = Value(0.0, label="x")
    y = x.relu() + Value(2.0, label="z") ** 3
    y.backward()
    page = opened(y)
    differences = page.run("[...document.querySelectorAll('#numbers td.difference')].map(cell => cell.textContent)")
    order = topological(y)
    assert differences[order.index(x)] == "+0.5 ≠", "half way between the derivatives on both sides"
    assert all(text.endswith(" ✓") or i == order.index(x) for i, text in enumerate(differences) if text)
    page.run("document.querySelector('#whatif').open = true")
    page.write(f"#leaf-{order.index(x)}", "1")
    differences = page.run("[...document.querySelectorAll('#numbers td.difference')].map(cell => cell.textContent)")
    assert differences[order.index(x)] == "+1 ✓"


@chromium
@pytest.mark.parametrize("seed", range(8))
def test_random_graphs_over_every_operation_are_computed_as_in_python(seed, opened):
    f = random_graph(seed, operations=30)
    assert {rule.name for rule in RULES.values()} <= {node.op.name for node in topological(f) if node.inputs}
    f.backward()
    page, leaves = opened(f), [node for node in topological(f) if not node.inputs]
    stream = random.Random(seed)
    for _ in range(5):
        for (data, grad), (x, g) in zip(numbers(page), fresh(f), strict=True):
            assert data == pytest.approx(x, rel=1e-9, abs=1e-9)
            assert grad == (None if g is None else pytest.approx(g, rel=1e-9, abs=1e-9))
        for leaf in leaves:
            leaf.data = stream.uniform(-2.0, 2.0) if leaf.op is not CONSTANT else leaf.data
        for node in topological(f):
            if node.inputs:
                node.data = node.op.value(*(x.data for x in node.inputs))
        new = [node.data if not node.inputs else None for node in topological(f)]
        page.run(f"leaves = {json.dumps(new)}; again()")
    assert page.run("steps.length - 1") == len(explain(f, limit=None).sentences)
    assert not page.problems


@chromium
@pytest.mark.parametrize("seed", range(3))
def test_each_step_of_a_random_graph_says_what_explain_says(seed, opened):
    f = random_graph(seed)
    f.backward()
    page = opened(f)
    lines = page.run("[...document.querySelectorAll('#transcript button')].map(line => line.textContent)")
    assert lines == explain(f, limit=None).sentences


@chromium
def test_a_function_beyond_javascripts_own_is_as_exact_as_pythons(opened):
    page = opened(Value(0.5, label="x").erf())
    points = [x / 16 for x in range(-120, 121)] + [1e-300, -0.0, 2.4999, 2.5, 5.9999, 6.0]
    for x, y in zip(points, page.run(f"{points}.map(erf)")):
        assert y == pytest.approx(math.erf(x), rel=1e-14, abs=1e-300)


@chromium
def test_what_is_not_defined_is_said_and_nothing_breaks(opened):
    x = Value(2.0, label="x")
    y = (x.log() + x.sqrt()) * x
    y.label = "y"
    y.backward()
    page = opened(y)
    page.run("document.querySelector('#whatif').open = true")
    page.write("#leaf-0", "-1")
    assert text(page, "#edited") == "y was 4.215, is now nan: an operation is not defined at these numbers."
    page.press("Home")
    page.run("show(1)")
    assert text(page, "#trouble") == "log has no finite value at −1."
    page.write("#leaf-0", "0")
    page.run("show(steps.findIndex(step => trouble(step, state).includes('derivative')))")
    assert "has no finite derivative at 0." in text(page, "#trouble")
    page.run("document.querySelector('#reset').click()")
    assert text(page, "#trouble") == ""
    assert not page.problems


# ----------------------------------------------------------------------------------------------- labels, badges, arrays


@chromium
def test_hostile_labels_are_shown_as_themselves(opened):
    f = hostile()
    page, order = opened(f), topological(f)
    assert page.run("typeof alert === 'function' && document.querySelectorAll('script').length") == 2
    assert text(page, "h1") == 'How <b>f</b>" gets its gradients' and page.run("document.title") == text(page, "h1")
    page.press("End")
    said, told = boxes(page), page.run("nodes.map(node => node.name)")
    for i, node in enumerate(order):
        if node.label:
            kept = [c for c in node.label if c >= " "]
            assert [c for c in told[i] if c in kept] == kept
            assert told[i] in said[i]
    lines = page.run("[...document.querySelectorAll('#transcript button')].map(line => line.textContent)")
    assert lines == explain(f).sentences
    page.run("document.querySelectorAll('details').forEach(panel => { panel.open = true; })")
    page.screenshot(SHOTS / "walkthrough-hostile.png")
    assert page.flaws() == []
    assert not page.problems


@chromium
@pytest.mark.parametrize(("graph", "kind"), BROKEN, ids=[graph.__name__ for graph, _ in BROKEN])
def test_a_broken_graph_has_exactly_its_badge(graph, kind, opened):
    page = opened(graph())
    lines = page.run("[...document.querySelectorAll('.mistakes li')].map(line => line.textContent)")
    assert len(lines) == 1 and lines[0].startswith(f"⚠ 1  {kind}: ")
    badges = page.run("[...document.querySelectorAll('.sheet.wide .badge')].map(badge => badge.textContent)")
    there = kind != "Unconnected parameter"  # what is not in the graph has no box
    assert badges == ["⚠ 1"] * there
    assert len([box for box in boxes(page) if "mistake 1: " + kind in box]) == there
    assert not page.problems


@chromium
@pytest.mark.parametrize("make", [lambda: Value(2.0), lambda: Value(math.inf, label="i") * Value(0.0),
                                  lambda: Value(0.0, label="z").sqrt(), lambda: Value(1.0) ** 0.0])
def test_a_graph_at_the_edge_has_a_page(make, opened):
    page = opened(make())
    page.press("ArrowRight", 4)
    page.press("Home")
    assert page.flaws() == []
    assert not page.problems


@chromium
def test_a_notebook_shows_the_page_in_a_frame(chrome, tmp_path):
    _, _, f = example()
    f.backward()
    (tmp_path / "cell.html").write_text("<meta charset=utf-8>" + walkthrough(f)._repr_html_(), encoding="utf-8")
    page = chrome.open(tmp_path / "cell.html")
    inside = "document.querySelector('iframe').contentDocument"
    page.wait(f"{inside}.querySelectorAll('#transcript button').length === 10")
    page.run(f"{inside}.querySelector('#next').click()")
    assert page.run(f"{inside}.querySelector('#count').textContent") == "1 / 10"
    assert page.run("document.querySelector('iframe').title") == "How f gets its gradients"
    assert not page.problems


@chromium
def test_a_healthy_graph_has_no_badge(opened):
    f = hostile()
    assert opened(f).run("document.querySelectorAll('.mistakes, .badge').length") == 0


@chromium
def test_a_graph_of_arrays_is_told_by_shapes_and_sizes(opened):
    nn = pytest.importorskip("tinynet.nn")
    import numpy as np

    from tinynet import manual_seed, tensor

    manual_seed(0)
    model = nn.MLP(2, [4, 1])
    x = tensor(np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32))
    loss = nn.BCEWithLogitsLoss()(model(x), tensor(np.ones((8, 1), np.float32)))
    loss.label = "loss"
    loss.backward()
    page, told = opened(loss), explain(loss, limit=None).sentences
    there = []
    for _ in told:
        page.press("ArrowRight")
        there.append(sentence(page))
    assert there == told
    size = float(np.sqrt(np.mean(np.asarray(model.layers[0].weight.grad, float) ** 2)))
    label, = (box for box in boxes(page) if box.startswith("parameter layers.0.weight, "))
    assert float(re.search(r"grad rms (\S+)", label)[1]) == pytest.approx(size, rel=1e-3)
    shapes = page.run("[...document.querySelectorAll('.sheet.wide .edge text')].map(label => label.textContent.trim())")
    assert {"(8, 2)", "(4, 2)", "(4,)", "(8, 4)", "(1, 4)", "(1,)", "(8, 1)"} <= set(shapes)
    assert page.run("document.querySelector('#whatif')") is None, "a batch is not edited by hand"
    page.screenshot(SHOTS / "walkthrough-arrays.png")
    assert page.flaws() == []
    assert not page.problems


@chromium
def test_a_large_graph_is_folded_and_told_box_by_box(opened):
    pytest.importorskip("numpy")
    from .test_drawings import moons_loss

    _, loss = moons_loss(n=20)
    said_so = "Folded by layer: the graph has [0-9,]+ nodes, and more than 300 are not shown one by one"
    with pytest.warns(UserWarning, match=said_so):
        page = opened(loss)
    assert "Folded by layer" in text(page, ".summary")
    drawn = {box.name: dict(box.fields) for box in draw(loss, depth=1).view.boxes if box.kind == "layer"}
    said = []
    for _ in range(page.run("steps.length - 1")):
        before = boxes(page)
        page.press("ArrowRight")
        said.append(sentence(page))
        assert boxes(page) != before, "each step shows something"
    forward = [line for line in said if " gives " in line]
    assert said[:len(forward)] == forward, "forward comes first"
    layers = [line.split()[0] for line in forward if line.startswith("layers")]
    assert layers == ["layers.0", "layers.1", "layers.2"]
    assert [line.split()[0] for line in said if line.startswith("layers") and "receives" in line] == layers[::-1]
    for name in layers:
        line, = (line for line in said if line.startswith(f"{name} (") and "receives" in line)
        assert f"receives grad rms {drawn[name]['grad rms']}, its parameters' grad rms " in line
        assert line.endswith(drawn[name]["their grad rms"])
    page.press("Home")
    assert not any(", grad" in box for box in boxes(page))
    assert page.run("document.querySelector('#whatif')") is None
    page.screenshot(SHOTS / "walkthrough-folded.png")
    assert page.flaws() == []
    assert not page.problems


@chromium
def test_a_focus_opens_a_part_of_the_page(opened):
    pytest.importorskip("numpy")
    from .test_drawings import moons_loss

    _, loss = moons_loss(n=6)
    page = opened(loss, focus=(2, "layers.0[3]"))
    page.press("End")
    assert any(box.startswith("parameter layers.0.weight[3,1], data ") and ", grad " in box for box in boxes(page))
    assert not any("not computed yet" in box for box in boxes(page))
    with pytest.raises(ValueError, match="focus names 'layers.9'"):
        walkthrough(loss, focus="layers.9")
    assert not page.problems


# ------------------------------------------------------------------------------------------------------- for everybody


@chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everybody_can_use_the_page(width, dark, opened):
    _, _, f = example()
    f.backward()
    page = opened(f, width=width, height=844, dark=dark)
    page.run("document.querySelectorAll('details').forEach(panel => { panel.open = true; })")
    for step in (0, 2, 4, 9, 10):
        page.run(f"show({step})")
        assert page.flaws() == []
    assert page.run("document.querySelectorAll('svg [data-node]:not([aria-label])').length") == 0
    live = page.run("[...document.querySelectorAll('[aria-live], output')].map(region => region.id)")
    assert live == ["live", "edited"], "a screen reader is told of the step and of the edit, not of every number"
    page.screenshot(SHOTS / f"walkthrough-{width}-{'dark' if dark else 'light'}.png")
    page.run("document.querySelector('#guess').click(); show(4); next()")
    assert page.flaws() == []
    assert not page.problems


@chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_parameter_has_a_double_frame_on_the_page_and_in_the_drawing(dark, opened, chrome, tmp_path):
    nn = pytest.importorskip("tinynet.nn")
    loss = nn.Linear(1, 1).to("scalar")([[2.0]])[0, 0]
    loss.backward()
    draw(loss).save(tmp_path / "loss.svg")
    for page in (opened(loss, dark=dark), chrome.open(tmp_path / "loss.svg", dark=dark)):
        fills = page.run("[...document.querySelectorAll('.node.parameter')].map(box => "
                         "[...box.querySelectorAll('path')].map(path => getComputedStyle(path).fill))")
        assert fills
        for inner, outer in fills:
            assert inner.startswith("rgb(") and outer == "none"
        assert not page.problems


@chromium
def test_the_step_is_kept_in_sight_on_a_small_screen(opened):
    nn = pytest.importorskip("tinynet.nn")
    model = nn.MLP(2, [3, 1]).to("scalar")
    loss = nn.MSELoss()(model([[0.5, -1.0]]), [[1.0]])
    loss.backward()
    page = opened(loss, width=390, height=844)
    steps = page.run("steps.length")
    for k in range(steps):
        page.run(f"show({k})")
        assert page.run("""(() => {
            const step = steps[at], sheet = all(".sheet").find(inSight).getBoundingClientRect();
            if (step.kind === "start") return true;
            const box = all(`[data-node="${step.to ?? step.node}"]`).find(inSight).getBoundingClientRect();
            return box.left >= sheet.left && box.right <= sheet.right && box.top >= sheet.top &&
                box.bottom <= sheet.bottom;
        })()"""), f"step {k}"
    page.screenshot(SHOTS / "walkthrough-neurons-390.png")
    page.press("Home")
    assert page.run("all('.sheet').every(sheet => sheet.scrollTop === 0 && sheet.scrollLeft === 0)")
    page.run("document.querySelector('#fit').click()")
    assert page.run("all('.sheet').find(inSight).scrollWidth <= all('.sheet').find(inSight).clientWidth")
    assert page.flaws() == []
