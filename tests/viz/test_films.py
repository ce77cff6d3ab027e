"""Films: what is recorded is what the model was, and what the page unpacks is what was recorded."""

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tinynet import datasets, manual_seed, nn, optim, tensor
from tinynet.graph import no_grad
from tinynet.viz.films import GRID, MAP, Recorder, film, packed, points

from . import browser

SHOTS = Path(__file__).parents[2] / "build" / "shots"
chromium = pytest.mark.skipif(browser.chromium() is None, reason="there is no Chromium on this machine")


def training(steps=200, activation="tanh", engine="tensor", samples=200, sizes=(16, 16, 1), frames=400):
    """(recorder, the parameters after each step, the losses) of a training on moons."""
    manual_seed(3)
    x, y = datasets.moons(samples, seed=0)
    x, y = np.asarray(x, np.float32), np.asarray(y)
    model = nn.MLP(2, list(sizes), activation=activation).to(engine)
    inputs, targets = (x.tolist(), y.reshape(-1, 1).tolist()) if engine == "scalar" else (
        tensor(x), tensor(y.astype(np.float32).reshape(-1, 1)))
    optimizer, criterion = optim.Adam(model.parameters(), lr=0.02), nn.BCEWithLogitsLoss()
    recorder, states, losses = Recorder(model, x, y, frames), [], []
    for _ in range(steps):
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder(loss)
        states.append({name: np.asarray(p, np.float32) for name, p in model.state_dict().items()})
        losses.append(float(loss))
    return recorder, states, losses


@pytest.fixture(scope="module")
def moons():
    return training()


# ------------------------------------------------------------------------------------------------------- recording


def test_a_frame_is_what_the_model_was_after_that_step(moons):
    recorder, states, losses = moons
    assert [frame["step"] for frame in recorder.frames] == list(range(1, 201))
    assert [frame["loss"] for frame in recorder.frames] == losses
    for frame, state in zip(recorder.frames, states):
        assert frame["parameters"].keys() == state.keys()
        for name in state:
            assert np.array_equal(frame["parameters"][name], state[name])
    last = {name: np.asarray(p.grad) for name, p in recorder.model.named_parameters()}
    for name, gradient in recorder.frames[-1]["gradients"].items():
        assert np.array_equal(gradient, last[name])
        assert recorder.frames[-1]["sizes"][name] == pytest.approx(math.sqrt(np.mean(last[name].astype(float) ** 2)))


def test_maps_are_the_model_at_the_points_of_the_plane(moons):
    recorder, states, _ = moons
    frame, state = recorder.frames[70], states[70]
    h = points(recorder.extent, MAP)
    for layer in ("layers.0", "layers.1"):
        h = np.tanh(h @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
        neurons = frame["neurons"][layer]
        assert neurons.shape == (16, MAP, MAP)
        for i in (0, 7, 15):
            np.testing.assert_allclose(neurons[i].ravel(), h[:, i], atol=1e-5)
    recorder.shadow.load_state_dict(state)
    with no_grad():
        scores = np.asarray(recorder.shadow(tensor(points(recorder.extent, GRID))))
    np.testing.assert_allclose(frame["decision"].ravel(), scores.ravel(), atol=1e-6)
    left, right, bottom, top = recorder.extent
    first, last = points(recorder.extent, GRID)[[0, -1]]
    assert first == pytest.approx([left, top], abs=1e-6)
    assert last == pytest.approx([right, bottom], abs=1e-6)
    assert left < recorder.x[:, 0].min() < recorder.x[:, 0].max() < right


def test_both_engines_record_the_same():
    scalar, _, _ = training(3, engine="scalar", samples=12, sizes=(3, 1))
    arrays, _, _ = training(3, engine="tensor", samples=12, sizes=(3, 1))
    for a, b in zip(scalar.frames, arrays.frames):
        assert a.keys() == b.keys()
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        for kind in ("parameters", "gradients", "neurons"):
            assert a[kind].keys() == b[kind].keys()
            for name in a[kind]:
                np.testing.assert_allclose(a[kind][name], b[kind][name], atol=2e-4)


def test_layers_and_activations_of_their_own_are_one_map():
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    recorder = Recorder(model, [[0.0, 1.0], [1.0, 0.0]], [0, 2])
    recorder()
    frame, = recorder.frames
    assert {name: maps.shape[0] for name, maps in frame["neurons"].items()} == {"1": 5, "3": 4}
    assert frame["neurons"]["3"].min() == 0.0
    assert frame["decision"].shape == (GRID, GRID, 3)
    assert math.isnan(frame["loss"])


def test_a_long_training_keeps_every_second_fourth_eighth_step():
    recorder = Recorder(nn.Linear(1, 1), frames=10)
    for step in range(100):
        recorder(step)
    steps = [frame["step"] for frame in recorder.frames]
    assert len(steps) <= 10
    assert steps == list(range(1, 101, 16))
    assert [frame["loss"] for frame in recorder.frames] == [step - 1 for step in steps]


def test_recording_changes_nothing():
    def weights(record):
        manual_seed(1)
        model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 1))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        x = np.array([[0.0, 1.0], [1.0, 0.5]], np.float32)
        recorder = Recorder(model, x, [0, 1]) if record else lambda loss: None
        for _ in range(5):
            loss = (model(tensor(x)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            recorder(loss)
        assert model.training
        return model.state_dict()

    recorded, alone = weights(True), weights(False)
    assert all(np.array_equal(recorded[name], alone[name]) for name in alone)


@pytest.mark.parametrize("engine", ["scalar", "tensor"])
def test_fit_records_each_epoch(engine):
    train = pytest.importorskip("tinynet.train")
    x, y = datasets.moons(20, seed=0)
    model = nn.MLP(2, [3, 2]).to(engine)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    recorder = Recorder(model, x, y)
    history = train.fit(model, [(x, y)], nn.CrossEntropyLoss(), optimizer, epochs=4, callbacks=recorder, progress=False)
    assert repr(film(history)).startswith("Film(4 frames, ")
    assert [frame["loss"] for frame in recorder.frames] == history["loss"]
    state = model.state_dict()
    for name, p in recorder.frames[-1]["parameters"].items():
        np.testing.assert_allclose(p, state[name], rtol=1e-6)
        assert not np.array_equal(p, recorder.frames[0]["parameters"][name])
        assert np.abs(recorder.frames[-1]["gradients"][name]).max() > 0


class Attention(nn.Module):
    """softmax(x xᵀ) x, from the textbook."""

    def forward(self, x):
        scores = x @ x.transpose(-1, -2)
        weights = (scores - scores.max(-1, keepdims=True)).exp()
        weights = weights / weights.sum(-1, keepdims=True)
        return weights @ x


def test_attention_is_found_where_each_row_is_a_distribution():
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    recorder = Recorder(nn.Sequential(nn.Linear(4, 4), Attention(), nn.Linear(4, 1)), x)
    recorder(1.0)
    maps = recorder.frames[0]["attention"]["1"]
    assert maps.shape == (1, 6, 6)
    model = recorder.model
    h = x[0] @ np.asarray(model[0].weight).T + np.asarray(model[0].bias)
    e = np.exp(h @ h.T)
    np.testing.assert_allclose(maps[0], e / e.sum(-1, keepdims=True), atol=1e-5)


def test_attention_of_the_library_is_found_too():
    if not hasattr(nn, "MultiheadAttention"):
        pytest.skip("there is no nn.MultiheadAttention")

    class Model(nn.Module):
        def __init__(self):
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    recorder = Recorder(Model(), np.random.default_rng(0).normal(size=(3, 5, 8)).astype(np.float32))
    recorder(1.0)
    maps = recorder.frames[0]["attention"]["attention"]
    assert maps.shape == (2, 5, 5)
    np.testing.assert_allclose(maps.sum(-1), 1.0, atol=1e-5)


def test_bad_input_raises(tmp_path):
    with pytest.raises(TypeError, match="Recorder: expected a model, got int"):
        Recorder(3)
    with pytest.raises(ValueError, match="x has 1 samples and y has 2"):
        Recorder(nn.Linear(2, 1), [[0.0, 1.0]], [0, 1])
    with pytest.raises(ValueError, match="expected frames to be an integer ≥ 2, got 1"):
        Recorder(nn.Linear(2, 1), frames=1)
    with pytest.raises(TypeError, match=r"list has no recorded frames; call a Recorder"):
        film([1, 2])
    recorder = Recorder(nn.Linear(2, 1))
    with pytest.raises(ValueError, match="no step was recorded yet"):
        film(recorder)
    recorder(1.0)
    with pytest.raises(IndexError, match="no frame 1; the film has 1"):
        film(recorder).frame(1)
    with pytest.raises(ValueError, match=r"ends in .html, .htm, .png, .svg, .pdf, got"):
        film(recorder).save(tmp_path / "run.mp4")
    with pytest.raises(ValueError, match="ends in .png, .svg, .pdf, got"):
        film(recorder).frame(0).save(tmp_path / "run.html")


# ---------------------------------------------------------------------------------------------------------- the page


def test_packing_keeps_numbers_to_a_few_digits(moons):
    import base64
    import zlib

    recorder, _, _ = moons
    about, text = packed(recorder)
    data = zlib.decompress(base64.b64decode(text))
    for kind, digits in (("parameters", 15), ("gradients", 15), ("neurons", 7)):
        for name, place in about[kind].items():
            count = len(recorder.frames) * math.prod(place["shape"])
            change = np.frombuffer(data, f"<i{place['bits'] // 8}", count, place["at"])
            whole = np.cumsum(change.reshape(len(recorder.frames), -1), axis=0, dtype=change.dtype)
            stack = np.stack([frame[kind][name] for frame in recorder.frames]).reshape(len(recorder.frames), -1)
            largest = np.abs(stack).max()
            np.testing.assert_allclose(whole / (2 ** digits - 1) * largest, stack, atol=largest / 2 ** digits)


def test_a_film_of_200_steps_is_light(moons):
    assert len(film(moons[0]).html.encode()) < 2_000_000


def test_a_page_asks_for_nothing_from_outside(moons):
    page = film(moons[0], title='</script><b>"&').html
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", page)
    assert "<bdi>&lt;/script&gt;&lt;b&gt;&quot;&amp;</bdi>" in page
    assert page.count("</script>") == 3


@pytest.fixture(scope="module")
def opened(moons, tmp_path_factory):
    """A function that opens the film in Chromium; and the film's recorder."""
    path = tmp_path_factory.mktemp("film") / "run.html"
    film(moons[0], "Moons").save(path)
    with browser.Browser() as chrome:
        def open_page(**how):
            page = chrome.open(path, **how)
            page.wait("document.body.dataset.ready === 'yes'")
            return page

        yield open_page


@chromium
def test_the_page_unpacks_what_was_recorded(moons, opened):
    page = opened()
    recorder, _, losses = moons
    for kind, name, digits in (("parameters", "layers.1.weight", 15), ("gradients", "layers.0.bias", 15),
                               ("neurons", "layers.1", 7)):
        shown = page.run(f"unpack().then(b => Array.from(restore(b, about.{kind}[{json.dumps(name)}]).frame(123)))")
        stack = np.stack([frame[kind][name] for frame in recorder.frames])
        largest = np.abs(stack).max()
        np.testing.assert_allclose(np.array(shown) / (2 ** digits - 1) * largest, stack[123].ravel(),
                                   atol=largest / 2 ** digits)
    assert page.run("about.loss[123]") == pytest.approx(losses[123], rel=1e-5)
    assert not page.problems


@chromium
def test_keys_move_through_the_steps_and_space_plays(moons, opened):
    page, losses = opened(), moons[2]

    def now():
        text = page.run("document.getElementById('now').textContent")
        step, loss = re.fullmatch(r"Step (\d+) · loss (.*)", text).groups()
        assert float(loss) == pytest.approx(losses[int(step) - 1], rel=1e-3)
        return int(step)

    assert now() == 1
    page.press("ArrowRight", 5)
    assert now() == 6
    page.press("ArrowLeft")
    assert now() == 5
    page.press("End")
    assert now() == 200
    page.press("Home")
    assert now() == 1
    page.press(" ")
    page.wait("at > 3")
    page.press(" ")
    stopped = now()
    assert 3 < stopped < 200
    assert page.run("document.getElementById('play').getAttribute('aria-pressed')") == "false"
    page.run("document.getElementById('slider').focus()")
    page.press("ArrowRight")
    assert now() == stopped + 1
    assert not page.problems


@chromium
def test_the_boundary_moves_and_each_panel_says_what_it_shows(opened):
    page = opened()
    picture = "document.querySelector('#decision canvas').toDataURL()"
    first = page.run(picture)
    page.press("End")
    assert page.run(picture) != first
    labels = page.run("[...document.querySelectorAll('canvas')].map(c => c.getAttribute('aria-label'))")
    assert len(labels) == 4 + 32
    assert any(label.startswith("Loss at step 200: ") for label in labels)
    assert any("layers.0.weight 2 to 16" in label for label in labels)
    weights = page.run("document.querySelector('#network canvas').toDataURL()")
    page.run("document.getElementById('what').value = 'gradients'; "
             "document.getElementById('what').dispatchEvent(new Event('change'))")
    assert page.run("document.querySelector('#network canvas').toDataURL()") != weights


@chromium
def test_flaws_and_problems_of_a_page_are_found(tmp_path):
    """The checks that other tests rely on can fail."""
    path = tmp_path / "bad.html"
    path.write_text("""<body style="width: 2000px"><button id="a"></button><input id="a"><canvas role="img"></canvas>
        <p style="color: #888; background: #999">grey</p><img src="http://localhost:9/x.png"><script>oops()</script>""")
    with browser.Browser() as chrome:
        page = chrome.open(path, width=1000)
        flaws, problems = " ".join(page.flaws()), " ".join(page.problems)
    for flaw in ('button#a "" has no name', 'input#a "" has no name', 'canvas "" has no name', "id a is there twice",
                 "no language", "not one heading", "wider than the screen", "is too small", 'p "grey" has a contrast'):
        assert flaw in flaws
    assert "request: http://localhost:9/x.png" in problems
    assert "oops is not defined" in problems


@chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_everybody_can_use_the_page(opened, width, dark):
    page = opened(width=width, height=844, dark=dark)
    page.press("ArrowRight", 80)
    page.screenshot(SHOTS / f"film-{width}-{'dark' if dark else 'light'}.png")
    assert page.flaws() == []
    assert not page.problems


@chromium
def test_a_film_of_several_classes_and_of_attention_plays(tmp_path):
    three = Recorder(nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)), [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
                     [0, 1, 2])
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    looks = Recorder(nn.Sequential(nn.Linear(4, 4), Attention(), nn.Linear(4, 1)), x)
    with browser.Browser() as chrome:
        for name, recorder in (("classes", three), ("attention", looks)):
            recorder(1.0)
            recorder(math.nan)
            film(recorder).save(tmp_path / f"{name}.html")
            page = chrome.open(tmp_path / f"{name}.html")
            page.wait("document.body.dataset.ready === 'yes'")
            page.press("End")
            page.screenshot(SHOTS / f"film-{name}.png")
            assert page.run("document.getElementById('now').textContent") == "Step 2 · loss –"
            assert page.flaws() == []
            assert not page.problems


@chromium
def test_matrices_that_are_no_chain_are_maps_not_a_network(tmp_path):
    recorder = Recorder(nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 3)),
                        np.random.default_rng(0).normal(size=(2, 5, 8)).astype(np.float32))
    recorder(1.0)
    film(recorder).save(tmp_path / "maps.html")
    film(recorder).save(tmp_path / "maps.png")
    with browser.Browser() as chrome:
        page = chrome.open(tmp_path / "maps.html")
        page.wait("document.body.dataset.ready === 'yes'")
        assert page.run("document.querySelector('#network .note').textContent").startswith("Each matrix as a map")
        assert "0.self_attn.in_proj_weight 8 to 24" in page.run(
            "document.querySelector('#network canvas').getAttribute('aria-label')")
        page.screenshot(SHOTS / "film-matrices.png")
        assert page.flaws() == []
        assert not page.problems


# ------------------------------------------------------------------------------------------------- frames on paper


def test_any_frame_is_a_picture(moons, tmp_path):
    pytest.importorskip("matplotlib")
    run = film(moons[0], "Moons")
    run.frame(60).save(tmp_path / "run.png")
    run.frame(60).save(tmp_path / "run.svg")
    run.frame(60).save(tmp_path / "again.svg")
    run.save(tmp_path / "last.svg")
    assert (tmp_path / "run.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "run.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    assert (tmp_path / "run.svg").read_bytes() != (tmp_path / "last.svg").read_bytes()
    ElementTree.parse(tmp_path / "run.svg")
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "film-frame.png").write_bytes((tmp_path / "run.png").read_bytes())
