"""A training, recorded and played back: `film(history).save("run.html")`.

A `Recorder` looks at the model after each step of a training loop and keeps what it sees; `film` makes a page of it,
with a slider over the steps.

    recorder = Recorder(model, x, y)
    for step in range(200):
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder(loss)
    film(recorder).save("run.html")

With `fit` it is a callback, which is called after each epoch:

    history = fit(model, loader, criterion, optimizer, epochs=100, callbacks=Recorder(model, x, y))
    film(history).save("run.html")

The file reads downward: what is recorded, how it is packed so that a page stays light, the page, and a single frame as
a picture on paper.
"""

import base64
import copy
import html
import json
import math
import operator
import os
import zlib
from importlib import resources
from itertools import pairwise

import numpy as np

from ..errors import refusing, shown
from ..graph import mode, no_grad, textbook, topological
from ..tensors import Tensor
from . import drawings

GRID, MAP = 48, 24  # the decision map and the maps of single neurons are so many points wide and high
LARGE = 20_000      # of a larger parameter only its size is kept, not each number


@refusing
class Recorder:
    """Keeps what a model is at each step: `recorder = Recorder(model, x, y)`, then `recorder(loss)` after each step.

    model    any Module, of either engine
    x, y     the data. Of two features the decision map and a map of each hidden neuron are kept; other data are only
             looked at for attention, in their first sample. Both may be left out.
    frames   the most frames to keep: when there are more, every second one is dropped and only every second, fourth,
             … step is recorded from then on

    Each element of `self.frames` is a dictionary: "step", "loss", "parameters" and "gradients" ({name: float32 array}),
    "sizes" ({name: root mean square of its gradient}), and where they apply "decision" (the model's scores, an array
    (GRID, GRID) or (GRID, GRID, classes)), "neurons" ({layer: (neurons, MAP, MAP)}) and "attention" ({layer: (heads, T,
    T)}).

    >>> from tinynet import nn
    >>> recorder = Recorder(nn.Linear(1, 1))
    >>> recorder(0.25)
    >>> film(recorder)
    Film(1 frame, loss 0.25)

    Raises TypeError where `model` is no model, ValueError where x and y do not belong together.
    """

    def __init__(self, model, x=None, y=None, frames=400):
        if not hasattr(model, "named_parameters"):
            raise TypeError(f"Recorder: expected a model, got {type(model).__name__}")
        if not isinstance(frames, int) or frames < 2:
            raise ValueError(f"Recorder: frames is how many to keep, 2 or more; got {frames!r}")
        self.model, self.most, self.every, self.steps, self.frames = model, frames, 1, 0, []
        self.twin = copy.deepcopy(model).to("tensor").eval()  # the model on arrays, to look at many points at once
        self.x = None if x is None else numbers_of(x)
        self.y = None if y is None else numbers_of(y).reshape(-1)
        if self.x is not None and self.y is not None and self.x.ndim == 2 and len(self.x) != len(self.y):
            raise ValueError(f"Recorder: x has {len(self.x)} samples and y has {len(self.y)}")
        self.plane = self.x is not None and self.x.ndim == 2 and self.x.shape[1] == 2 and self.x.dtype.kind == "f"
        if self.plane:
            low, high = self.x.min(axis=0), self.x.max(axis=0)
            margin = 0.15 * np.maximum(high - low, 1e-6)
            (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
            self.extent = [left, right, bottom, top]

    def __call__(self, loss=None, model=None):
        """Record the model as it is now; `loss` is a number, a Value or a Tensor.

        As a callback it is given fit's history and the model, and takes the latest loss from there.
        """
        if model is not None:
            loss.recorder, loss = self, loss["loss"][-1]
        self.steps += 1
        if (self.steps - 1) % self.every:
            return
        if len(self.frames) == self.most:
            self.frames, self.every = self.frames[::2], 2 * self.every
            if (self.steps - 1) % self.every:
                return
        self.frames.append(self.look(math.nan if loss is None else float(loss)))

    def look(self, loss):
        """One frame."""
        state, gradients = self.model.state_dict(), {}
        parameters = {name: state[name].astype(np.float32) for name, *_ in self.model.slots()}
        for name, p in self.model.named_parameters():
            if p.grad is not None:
                stem, _, place = name.partition("[")
                if place:
                    gradient = gradients.setdefault(stem, np.zeros(parameters[stem].shape, np.float32))
                    gradient[tuple(int(i) for i in place[:-1].split(","))] = p.grad
                else:
                    gradients[name] = np.array(p.grad, np.float32)
        frame = {"step": self.steps, "loss": loss,
                 "sizes": {name: float(np.sqrt(np.mean(np.square(g, dtype=float)))) for name, g in gradients.items()},
                 "parameters": {name: p for name, p in parameters.items() if p.size <= LARGE},
                 "gradients": {name: g for name, g in gradients.items() if g.size <= LARGE}}
        if self.x is not None:
            self.twin.load_state_dict(state)
            before = mode.plan
            mode.plan = None
            try:
                frame |= self.plane_frame() if self.plane else self.attention_frame()
            finally:
                mode.plan = before
        return frame

    def plane_frame(self):
        """What the model and each hidden neuron make of every point of the plane."""
        with no_grad():
            decision = self.twin(Tensor(points(self.extent, GRID))).data
        layers = hidden_layers(self.twin(Tensor(points(self.extent, MAP))))
        return {"decision": decision.reshape(GRID, GRID, -1).squeeze(-1) if decision.size == GRID * GRID else
                decision.reshape(GRID, GRID, -1),
                "neurons": {name: data.T.reshape(-1, MAP, MAP) for name, data in layers.items()}}

    def attention_frame(self):
        """Who looks at whom, in the first sample."""
        if not any("Attention" in type(module).__name__ for module in self.twin.modules()):
            return {}
        with textbook():
            output = self.twin(Tensor(self.x[:1]))
        maps = attention_maps(output[0] if isinstance(output, tuple) else output)
        return {"attention": maps} if maps else {}


def numbers_of(x):
    """Data as an array of numbers: a Tensor, an array, or lists."""
    array = np.asarray(x.data if isinstance(x, Tensor) else x)
    if array.dtype == object:
        array = np.vectorize(float, otypes=[np.float32])(array)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"Recorder: expected numbers, got {array.dtype}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def points(extent, n):
    """n · n points of the plane, row by row from the top, as an array (n · n, 2)."""
    left, right, bottom, top = extent
    across, down = np.meshgrid(np.linspace(left, right, n), np.linspace(top, bottom, n))
    return np.stack([across.ravel(), down.ravel()], axis=1).astype(np.float32)


def calls_of(output):
    """[(layer's name, its module, the node it returned)] for the layer calls that computed an output, in order."""
    order, last = topological(output), {}
    for node in order:
        if node.inputs and node.scope is not None:
            last[node.scope] = node
    paths = {}
    for scope in last:
        outermost = scope
        while outermost.parent is not None:
            outermost = outermost.parent
        if not paths:
            paths = {id(module): path for path, module in outermost.module.named_modules()}
    return [(paths.get(id(scope.module), ""), scope.module, node) for scope, node in last.items()]


def hidden_layers(output):
    """{layer: array (samples, neurons)} of all layers but the last, after the activation where that is a layer."""
    calls = [call for call in calls_of(output) if call[2].data.ndim == 2]
    kept = [call for call, after in zip(calls, calls[1:]) if after[1].parameters() or after[2].shape != call[2].shape]
    return {name: node.data for name, _, node in kept if node is not output}


def attention_maps(output):
    """{layer: array (heads, T, T)}: in a layer of attention, numbers of which each row is a distribution."""
    maps = {}
    for node in topological(output):
        module = node.scope.module if node.scope is not None else None
        if node.inputs and "Attention" in type(module).__name__ and node.data.ndim >= 2 and node.data.shape[-1] > 1:
            rows = node.data.reshape(-1, *node.data.shape[-2:])
            if (rows >= 0).all() and np.allclose(rows.sum(-1), 1.0, atol=1e-3):
                name = next((path for path, m in outermost_module(node.scope).named_modules() if m is module), "")
                maps[name or type(module).__name__] = np.array(rows, np.float32)
    return maps


def outermost_module(scope):
    while scope.parent is not None:
        scope = scope.parent
    return scope.module


# ---------------------------------------------------------------------------------------------------------- packing


class Pack:
    """Arrays over time as bytes that compress well: whole numbers, and of those the change since the frame before."""

    def __init__(self):
        self.pieces, self.size = [], 0

    def add(self, frames, dtype, scale):
        """Keep frames (time, …) / scale as whole numbers; returns where they are, for the page."""
        stack = np.asarray(frames)
        limit = np.iinfo(dtype).max
        whole = np.rint(np.clip(np.nan_to_num(stack / scale), -1.0, 1.0) * limit).astype(dtype)
        change = np.diff(whole, axis=0, prepend=np.zeros_like(whole[:1]))  # wraps around, and back again on the page
        pad = -self.size % 2
        self.pieces += [b"\0" * pad, change.astype(f"<{np.dtype(dtype).str[1:]}").tobytes()]
        about = {"at": self.size + pad, "bits": 8 * whole.itemsize, "shape": list(stack.shape[1:])}
        self.size += pad + change.nbytes
        return about

    def text(self):
        return base64.b64encode(zlib.compress(b"".join(self.pieces))).decode()


def packed(history):
    """(what the page reads as JSON, the arrays as text)"""
    frames, pack = history.frames, Pack()

    def stacks(kind, dtype, scale=None):
        """{name: where its array over time is} for the arrays of one kind."""
        found = {}
        for name, first in frames[-1].get(kind, {}).items():
            stack = np.stack([np.asarray(frame.get(kind, {}).get(name, np.zeros_like(first))) for frame in frames])
            found[name] = pack.add(stack, dtype, scale or float(np.nanmax(np.abs(stack))) or 1.0)
        return found

    about = {"steps": [frame["step"] for frame in frames], "loss": [json_number(frame["loss"]) for frame in frames],
             "sizes": {name: [json_number(frame["sizes"].get(name, math.nan)) for frame in frames]
                       for name in frames[-1]["sizes"]},
             "parameters": stacks("parameters", np.int16), "gradients": stacks("gradients", np.int16),
             "neurons": stacks("neurons", np.int8), "attention": stacks("attention", np.int8, 1.0)}
    if "decision" in frames[-1]:
        codes, about["classes"] = decision_codes(history)
        about["decision"] = pack.add(codes, np.int8, 1.0)
        about["extent"] = history.extent
        about["points"] = [[round(float(z), 4) for z in row] for row in history.x[:1000]]
        about["labels"] = None if history.y is None else classes_of(history.y[:1000])
    return about, pack.text()


def json_number(x):
    return float(f"{x:.6g}") if math.isfinite(x) else None


def classes_of(y):
    """Labels as 0, 1, 2, …: of −1 and 1, or 0.0 and 1.0, as well."""
    return np.unique(y, return_inverse=True)[1].reshape(-1).tolist()


def decision_codes(history):
    """(maps over time of numbers from −1 to 1, the number of classes).

    Of one score: its distance from the threshold, squeezed, so that 0 is the boundary. Of one score for each class:
    the winner, as (class + its share of the votes) / classes.
    """
    maps = np.stack([np.asarray(frame["decision"], float) for frame in history.frames])
    if maps.ndim == 3:
        threshold = threshold_of(history.frames)
        return np.tanh(4.0 * (maps - threshold) if threshold else maps), 1
    votes = np.exp(maps - maps.max(-1, keepdims=True))
    votes /= votes.sum(-1, keepdims=True)
    return (maps.argmax(-1) + np.minimum(votes.max(-1), 0.99)) / maps.shape[-1], maps.shape[-1]


def threshold_of(frames):
    """Where a score says neither: 1/2 where all scores are probabilities, else 0."""
    least, most = min(f["decision"].min() for f in frames), max(f["decision"].max() for f in frames)
    return 0.5 if least >= 0.0 and most <= 1.0 else 0.0


# ------------------------------------------------------------------------------------------------------------- film


@refusing
def film(history, title="Training"):
    """A page with a slider over the steps of a training: those of a `Recorder`, or of the history that `fit` gave it.

    It shows the loss, the decision boundary, the weights or their gradients (colour and dash: sign, width: size), the
    size of the gradient in each layer, what each hidden neuron computes, and attention where there is any.

    Raises TypeError where nothing was recorded that a film could be made of, ValueError where there are no frames.
    """
    history = getattr(history, "recorder", None) or history
    if not isinstance(getattr(history, "frames", None), list):
        raise TypeError(f"film: {type(history).__name__} has no recorded frames; call a Recorder(model, x, y) "
                        "with the loss after each step, or give it to fit as a callback")
    if not isinstance(title, str):
        raise TypeError(f"film: title is a text, got {shown(title)}")
    if not history.frames:
        raise ValueError("film: no step was recorded yet; call the recorder with the loss after each step")
    return Film(history, title)


class Film:
    """A finished film: `.save("run.html")` writes the page, `.frame(i).save("run.png")` one frame as a picture."""

    def __init__(self, history, title):
        self.history, self.title, self.made = history, title, None

    def __len__(self):
        return len(self.history.frames)

    def __repr__(self):
        loss = self.history.frames[-1]["loss"]
        return f"Film({len(self)} frame{'' if len(self) == 1 else 's'}, loss {loss:.4g})"

    @property
    def html(self):
        """The page, one file that needs nothing else."""
        if self.made is None:
            about, data = packed(self.history)
            text = json.dumps(about, separators=(",", ":")).replace("<", "\\u003c")
            parts = {"title": html.escape(self.title), "about": text, "data": data, "film.js": resource("film.js")}
            start, *pieces = resource("film.html").split("{{")
            named = [piece.partition("}}") for piece in pieces]
            self.made = start + "".join(parts[name] + rest for name, _, rest in named)
        return self.made

    def _repr_html_(self):
        return (f'<iframe srcdoc="{html.escape(self.html)}" style="width: 100%; height: 860px; border: 0" '
                f'title="{html.escape(self.title)}"></iframe>')

    def save(self, path):
        """Write the page (.html), or the last frame as a picture (.png, .svg, .pdf)."""
        ending = drawings.ending_of(path)
        if ending in PICTURES:
            self.frame(-1).save(path)
        elif ending in (".html", ".htm"):
            drawings.write(path, self.html.encode())
        else:
            raise ValueError(f"save: a film is a page that ends in .html, or a picture in {', '.join(PICTURES)}; "
                             f"got {os.fspath(path)!r}")

    def frame(self, i):
        """One frame, counted from 0 (-1 is the last), to `.save` as a picture; IndexError where there is none."""
        try:
            i = operator.index(i)
        except TypeError:
            raise TypeError(f"frame: i is a whole number, got {shown(i)}") from None
        if not -len(self) <= i < len(self):
            raise IndexError(f"frame: there is no frame {i}; the film has {len(self)}")
        return Frame(self.history, i % len(self), self.title)


def resource(name):
    return (resources.files(__package__) / "assets" / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------- one frame, on paper


PICTURES = (".png", ".svg", ".pdf")
POSITIVE, NEGATIVE, INK = "#1d5fa8", "#c75a12", "#1b2430"


class Frame:
    """One step of a film as a picture: `.save("x.png")`, .svg or .pdf."""

    def __init__(self, history, i, title):
        self.history, self.i, self.title = history, i, title

    def save(self, path):
        """Write the picture. Raises ValueError for another ending, RuntimeError where matplotlib is missing."""
        ending = drawings.ending_of(path)
        if ending not in PICTURES:
            raise ValueError(f"save: a frame is written to {', '.join(PICTURES)}, not to {os.fspath(path)!r}")
        drawings.write(path, self.rendered(ending[1:]))

    def _repr_png_(self):
        return self.rendered("png")

    def rendered(self, format):
        try:
            import matplotlib
            from matplotlib.figure import Figure
        except ImportError:
            raise RuntimeError("save: drawing a frame needs matplotlib (pip install matplotlib); "
                               "film(…).save('run.html') does not") from None
        import io

        with matplotlib.rc_context({"svg.hashsalt": "tinynet", "axes.spines.top": False, "axes.spines.right": False,
                                    "font.size": 9, "text.color": INK}):
            figure = Figure(layout="constrained")
            draw_frame(figure, self.history, self.i, self.title)
            out = io.BytesIO()
            metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]
            figure.savefig(out, format=format, dpi=110, metadata=metadata)
        return out.getvalue()


def draw_frame(figure, history, i, title):
    """The panels of the page as they are at frame i."""
    frames, frame = history.frames, history.frames[i]
    figure.suptitle(f"{title}: step {frame['step']}, loss {frame['loss']:.4g}", fontweight="bold")
    panels = [panel for panel, there in (
        (decision_panel, "decision" in frame), (weights_panel, any(p.ndim == 2 for p in frame["parameters"].values())),
        (loss_panel, True), (sizes_panel, bool(frame["sizes"])), (neurons_panel, bool(frame.get("neurons"))),
        (attention_panel, bool(frame.get("attention")))) if there]
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure.set_size_inches(10, 3.2 * rows + 0.2)
    grid = figure.add_gridspec(rows, columns)
    for k, panel in enumerate(panels):
        row, column = divmod(k, columns)
        end = columns if k == len(panels) - 1 else column + 1  # the last one has the rest of its row
        panel(figure.add_subplot(grid[row, column:end]), history, frame, frames)


def loss_panel(axes, history, frame, frames):
    axes.plot([f["step"] for f in frames], [f["loss"] for f in frames], color=POSITIVE)
    axes.axvline(frame["step"], color=INK, linewidth=0.8)
    axes.set(title="loss", xlabel="step")


def two_colours():
    """From orange over white to blue: negative and positive, as on the page."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("signs", ["#d9853f", "#ffffff", "#5b93cf"])
    return colours.with_extremes(bad="#dfe3e9")  # between tiles


def decision_panel(axes, history, frame, frames):
    scores, extent = np.asarray(frame["decision"]), history.extent
    if scores.ndim == 2:
        scores = scores - threshold_of(frames)
        axes.imshow(np.tanh(scores), extent=extent, cmap=two_colours(), vmin=-1, vmax=1, aspect="auto",
                    interpolation="bilinear")
        if scores.min() < 0 < scores.max():
            axes.contour(scores[::-1], levels=[0], extent=extent, colors=INK, linewidths=1)
    else:
        axes.imshow(scores.argmax(-1), extent=extent, cmap="Pastel1", aspect="auto")
    classes = np.array(classes_of(history.y)) if history.y is not None else np.zeros(len(history.x), int)
    for k in np.unique(classes):
        axes.scatter(*history.x[classes == k].T, s=14, marker="os^Dv"[k % 5], edgecolor="white", linewidth=0.5,
                     color=[NEGATIVE, POSITIVE, "#17663a", "#6b2fb5", "#7a4a00"][k % 5])
    axes.set(title="decision")


def weights_panel(axes, history, frame, frames):
    layers = [p for p in frame["parameters"].values() if p.ndim == 2 and p.size <= 2000]
    if any(a.shape[0] != b.shape[1] for a, b in pairwise(layers)):
        return matrices_panel(axes, layers)
    for k, weight in enumerate(layers):
        size = np.abs(weight).max() or 1.0
        for (i, j), w in np.ndenumerate(weight / size):
            ends = [1 - (j + 0.5) / weight.shape[1], 1 - (i + 0.5) / weight.shape[0]]
            axes.plot([k, k + 1], ends, alpha=0.75, color=POSITIVE if w > 0 else NEGATIVE, linewidth=2.2 * abs(w),
                      linestyle="-" if w > 0 else "--")
    for k, n in enumerate([layers[0].shape[1], *(weight.shape[0] for weight in layers)] if layers else []):
        axes.scatter([k] * n, 1 - (np.arange(n) + 0.5) / n, s=18, color="white", edgecolor=INK, zorder=3)
    axes.set(title="weights: + blue, − orange and dashed")
    axes.axis("off")


def matrices_panel(axes, matrices):
    """Matrices that do not follow one upon the other, as those of attention: each as a map."""
    columns = math.ceil(math.sqrt(1.5 * len(matrices)))
    rows = -(-len(matrices) // columns)
    for k, matrix in enumerate(matrices):
        r, c = divmod(k, columns)
        small = axes.inset_axes([c / columns, 1 - (r + 1) / rows, 0.92 / columns, 0.92 / rows])
        size = np.abs(matrix).max() or 1.0
        small.imshow(matrix / size, cmap=two_colours(), vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        small.set(xticks=[], yticks=[])
    axes.set(title="weights: + blue, − orange")
    axes.axis("off")


def sizes_panel(axes, history, frame, frames):
    for name in frame["sizes"]:
        sizes = [f["sizes"].get(name) or math.nan for f in frames]  # a size of 0 has no place on a logarithmic scale
        axes.plot([f["step"] for f in frames], sizes, linewidth=1, label=name)
    axes.axvline(frame["step"], color=INK, linewidth=0.8)
    axes.set(title="gradient size (root mean square)", xlabel="step", yscale="log")
    if len(frame["sizes"]) <= 8:
        axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22),
                    columnspacing=1.0, handlelength=1.2)


def tiles(axes, maps, title, **look):
    """Small square pictures side by side, as many in a row as suits the shape of the panel."""
    aspect = axes.bbox.width / axes.bbox.height
    columns = min(len(maps), max(1, round(math.sqrt(aspect * len(maps)))))
    rows = -(-len(maps) // columns)
    height, width = maps[0].shape
    gap = max(1, width // 12)
    wall = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), np.nan)
    for k, tile in enumerate(maps):
        r, c = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        wall[r:r + height, c:c + width] = tile
    axes.imshow(wall, **look)
    axes.set(title=title)
    axes.axis("off")


def neurons_panel(axes, history, frame, frames):
    maps = [m / (np.abs(layer).max() or 1.0) for layer in frame["neurons"].values() for m in layer][:64]
    tiles(axes, maps, "what each hidden neuron computes", cmap=two_colours(), vmin=-1, vmax=1)


def attention_panel(axes, history, frame, frames):
    tiles(axes, [m for layer in frame["attention"].values() for m in layer][:16], "attention: rows look at columns",
          cmap="Blues", vmin=0, vmax=1)
