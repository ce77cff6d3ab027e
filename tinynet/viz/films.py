"""A training run, recorded and replayed: `film(history).save("run.html")`.

A `Recorder` records the model after each step of a training loop; `film` makes a page of it, with a slider over the
steps.

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
"""

import base64
import copy
import functools
import io
import math
import zlib
from itertools import pairwise

import numpy as np

from ..errors import check_int, describe
from ..graph import mode, no_grad, textbook, topological
from ..tensors import Tensor
from ..value import Value
from .drawings import extension_of, write
from .formulas import quoted
from .labels import Models, grad_of
from .pages import Page, escaped, page_text

GRID, MAP = 48, 24  # the decision map and the maps of single neurons are so many points wide and high
LARGE = 20_000      # of a larger parameter only its size is kept, not each number


class Recorder:
    """Records what a model is at each step: `recorder = Recorder(model, x, y)`, then `recorder(loss)` after each step.

    model    any Module, of either engine
    x, y     the data. Of two features the decision map and a map of each hidden neuron are kept; of other data only
             attention, in their first sample. Both may be left out.
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

    Raises TypeError where `model` is not a Module, ValueError where x and y do not belong together.
    """

    def __init__(self, model, x=None, y=None, frames=400):
        if not hasattr(model, "named_parameters"):
            raise TypeError(f"Recorder: expected a model, got {type(model).__name__}")
        self.model, self.most, self.every, self.steps = model, check_int("Recorder", "frames", frames, least=2), 1, 0
        self.frames = []
        self.shadow = copy.deepcopy(model).to("tensor").eval()  # on arrays, to evaluate many points at once
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
            if not (hasattr(loss, "__dict__") and hasattr(loss, "__getitem__")):
                raise TypeError(f"Recorder: expected a history from fit, got {describe(loss)}")
            loss.recorder, loss = self, loss["loss"][-1]
        self.steps += 1
        if not (self.steps - 1) % self.every and len(self.frames) == self.most:
            self.frames, self.every = self.frames[::2], 2 * self.every
        if not (self.steps - 1) % self.every:
            self.frames.append(self.frame(math.nan if loss is None else float(loss)))

    def frame(self, loss):
        """What the model is now."""
        state, parameters, gradients = self.model.state_dict(), {}, {}
        for name, p in self.model.named_parameters():
            name, index = name.rpartition("[")[::2] if isinstance(p, Value) else (name, "")  # of Values: weight[1,2]
            if name not in parameters:
                parameters[name] = np.array(state[name], np.float32)
            if (grad := grad_of(p)) is not None:
                where = tuple(int(i) for i in index[:-1].split(",")) if index else ...
                gradients.setdefault(name, np.zeros_like(parameters[name]))[where] = grad
        frame = {"step": self.steps, "loss": loss,
                 "sizes": {name: float(np.sqrt(np.mean(np.square(g, dtype=float)))) for name, g in gradients.items()},
                 "parameters": {name: p for name, p in parameters.items() if p.size <= LARGE},
                 "gradients": {name: g for name, g in gradients.items() if g.size <= LARGE}}
        if self.x is not None:
            self.shadow.load_state_dict(state)
            before, mode.plan = mode.plan, None
            try:
                frame |= self.plane_frame() if self.plane else self.attention_frame()
            finally:
                mode.plan = before
        return frame

    def plane_frame(self):
        """The output of the model and of each hidden neuron at every point of the plane."""
        with no_grad():
            decision = np.asarray(self.shadow(Tensor(points(self.extent, GRID))))
        layers = hidden_layers(self.shadow(Tensor(points(self.extent, MAP))))
        return {"decision": decision.reshape((GRID, GRID) if decision.size == GRID * GRID else (GRID, GRID, -1)),
                "neurons": {name: data.T.reshape(-1, MAP, MAP) for name, data in layers.items()}}

    def attention_frame(self):
        """The attention weights in the first sample."""
        if not any("Attention" in type(module).__name__ for module in self.shadow.modules()):
            return {}
        with textbook():
            output = self.shadow(Tensor(self.x[:1]))
        maps = attention_maps(output[0] if isinstance(output, tuple) else output)
        return {"attention": maps} if maps else {}


def numbers_of(x):
    """Data as an array of numbers: a Tensor, an array, or lists."""
    array = np.asarray(x)
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


def hidden_layers(output):
    """{layer: array (samples, neurons)} of all layers but the last, after the activation where that is a layer."""
    order, last = topological(output), {}
    for node in order:
        if node.inputs and node.scope is not None and node.ndim == 2:
            last[node.scope] = node
    calls, name = list(last.items()), Models(order).name
    return {name(call): node._data for (call, node), (after, result) in pairwise(calls) if node is not output
            and (list(after.module.parameters()) or result.shape != node.shape)}


def attention_maps(output):
    """{layer: array (heads, T, T)}: in a layer of attention, numbers of which each row is a distribution."""
    order, maps = topological(output), {}
    name = Models(order).name
    for node in order:
        attention = node.scope is not None and "Attention" in type(node.scope.module).__name__
        if node.inputs and attention and node.ndim >= 2 and node.shape[-1] > 1:
            rows = node._data.reshape(-1, *node.shape[-2:])
            if (rows >= 0).all() and np.allclose(rows.sum(-1), 1.0, atol=1e-3):
                maps[name(node.scope)] = np.array(rows, np.float32)
    return maps


# ---------------------------------------------------------------------------------------------------------- packing


def packed(history):
    """(what the page reads as JSON, the arrays over time as text)

    The arrays are bytes that compress well: integers, and of those the change since the frame before.
    """
    frames, data = history.frames, bytearray()

    def pack(stack, dtype, scale=1.0):
        """Keep an array (time, …) / scale as integers; returns where they are, for the page."""
        codes = np.rint(np.clip(np.nan_to_num(stack / scale), -1.0, 1.0) * np.iinfo(dtype).max).astype(dtype)
        change = np.diff(codes, axis=0, prepend=np.zeros_like(codes[:1]))  # wraps around, and back again on the page
        data.extend(b"\0" * (len(data) % 2))
        about = {"at": len(data), "bits": 8 * codes.itemsize, "shape": list(stack.shape[1:])}
        data.extend(change.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
        return about

    def stacks(kind, dtype, scale=None):
        """{name: where its array over time is} for the arrays of one kind."""
        found = {}
        for name, first in frames[-1].get(kind, {}).items():
            stack = np.stack([np.asarray(frame.get(kind, {}).get(name, np.zeros_like(first))) for frame in frames])
            found[name] = pack(stack, dtype, scale or float(np.nanmax(np.abs(stack))) or 1.0)
        return found

    about = {"steps": [frame["step"] for frame in frames], "loss": [json_number(frame["loss"]) for frame in frames],
             "sizes": {name: [json_number(frame["sizes"].get(name, math.nan)) for frame in frames]
                       for name in frames[-1]["sizes"]},
             "parameters": stacks("parameters", np.int16), "gradients": stacks("gradients", np.int16),
             "neurons": stacks("neurons", np.int8), "attention": stacks("attention", np.int8, 1.0)}
    if "decision" in frames[-1]:
        codes, about["classes"] = decision_codes(history)
        about["decision"] = pack(codes, np.int8)
        about["extent"] = history.extent
        about["points"] = [[json_number(z) for z in row] for row in history.x[:1000]]
        about["labels"] = None if history.y is None else classes_of(history.y[:1000])
    return about, base64.b64encode(zlib.compress(data)).decode()


def json_number(x):
    return float(f"{x:.6g}") if math.isfinite(x) else None


def classes_of(y):
    """Labels as 0, 1, 2, …: of −1 and 1, or 0.0 and 1.0, as well."""
    return np.unique(y, return_inverse=True)[1].reshape(-1).tolist()


def decision_codes(history):
    """(maps over time of numbers from −1 to 1, the number of classes).

    Of one score: its distance from the threshold, squashed, so that 0 is the decision boundary; the threshold is 1/2
    where all scores are probabilities, else 0. Of one score for each class: the predicted class, as (class + its
    probability) / classes.
    """
    maps = np.stack([np.asarray(frame["decision"], float) for frame in history.frames])
    if maps.ndim == 3:
        return np.tanh(4.0 * (maps - 0.5) if maps.min() >= 0.0 and maps.max() <= 1.0 else maps), 1
    votes = np.exp(maps - maps.max(-1, keepdims=True))
    votes /= votes.sum(-1, keepdims=True)
    return (maps.argmax(-1) + np.minimum(votes.max(-1), 0.99)) / maps.shape[-1], maps.shape[-1]


# ------------------------------------------------------------------------------------------------------------- film


def film(history, title="Training"):
    """A page with a slider over the steps of a training run: of a `Recorder`, or of the history that `fit` gave it.

    It shows the loss, the decision boundary, the weights or their gradients (colour and dash: sign, width: size), the
    size of the gradient in each layer, what each hidden neuron computes, and attention where there is any.

    Raises TypeError where nothing was recorded that a film could be made of, ValueError where there are no frames.
    """
    history = getattr(history, "recorder", None) or history
    if not isinstance(getattr(history, "frames", None), list):
        raise TypeError(f"film: {type(history).__name__} has no recorded frames; call a Recorder(model, x, y) "
                        "with the loss after each step, or give it to fit as a callback")
    if not isinstance(title, str):
        raise TypeError(f"film: expected title to be a string, got {describe(title)}")
    if not history.frames:
        raise ValueError("film: no step was recorded yet; call the recorder with the loss after each step")
    return Film(history, title)


class Film(Page):
    """A finished film: `.save("run.html")` writes the page, `.frame(i).save("run.png")` one frame as a picture."""

    def __init__(self, history, title):
        self.history, self.title = history, title

    def __len__(self):
        return len(self.history.frames)

    def __repr__(self):
        loss = self.history.frames[-1]["loss"]
        return f"Film({len(self)} frame{'' if len(self) == 1 else 's'}, loss {loss:.4g})"

    @functools.cached_property
    def html(self):
        """The page, one file that needs nothing else."""
        about, data = packed(self.history)
        return page_text("film", f"{self.title}, step by step", heading=escaped(self.title), about=quoted(about),
                         data=data)

    def save(self, path):
        """Write the page (.html), or the last frame as a picture (.png, .svg, .pdf)."""
        if extension_of(path, (".html", ".htm", *PICTURES)) in PICTURES:
            self.frame(-1).save(path)
        else:
            super().save(path)

    def frame(self, i):
        """One frame, counted from 0 (-1 is the last), to `.save` as a picture; IndexError where there is none."""
        i = check_int("frame", "i", i)
        if not -len(self) <= i < len(self):
            raise IndexError(f"frame: there is no frame {i}; the film has {len(self)}")
        return Frame(self.history, i % len(self), self.title)


# ------------------------------------------------------------------------------------------------- one frame, a picture

PICTURES = (".png", ".svg", ".pdf")
POSITIVE, NEGATIVE, INK = "#1d5fa8", "#c75a12", "#1b2430"
CLASSES = (NEGATIVE, POSITIVE, "#17663a", "#6b2fb5", "#7a4a00")


class Frame:
    """One step of a film as a picture: `.save("x.png")`, .svg or .pdf. It shows the panels of the page."""

    def __init__(self, history, i, title):
        self.history, self.frames, self.i, self.title = history, history.frames, i, title
        self.frame = history.frames[i]

    def save(self, path):
        """Write the picture. Raises ValueError for another extension, ImportError where matplotlib is missing."""
        write(path, self.rendered(extension_of(path, PICTURES)[1:]))

    def _repr_png_(self):
        return self.rendered("png")

    def rendered(self, format):
        try:
            import matplotlib
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("save: drawing a frame needs matplotlib (pip install matplotlib); "
                              "film(…).save('run.html') does not") from None
        with matplotlib.rc_context({"svg.hashsalt": "tinynet", "axes.spines.top": False, "axes.spines.right": False,
                                    "font.size": 9, "text.color": INK}):
            figure, out = Figure(layout="constrained"), io.BytesIO()
            self.draw(figure)
            metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[format]
            figure.savefig(out, format=format, dpi=110, metadata=metadata)
        return out.getvalue()

    def draw(self, figure):
        frame = self.frame
        figure.suptitle(f"{self.title}: step {frame['step']}, loss {frame['loss']:.4g}", fontweight="bold")
        panels = [panel for panel, there in (
            (self.decision, "decision" in frame),
            (self.weights, any(p.ndim == 2 for p in frame["parameters"].values())), (self.loss, True),
            (self.sizes, frame["sizes"]), (self.neurons, frame.get("neurons")),
            (self.attention, frame.get("attention"))) if there]
        columns = min(len(panels), 3)
        rows = -(-len(panels) // columns)
        figure.set_size_inches(10, 3.2 * rows + 0.2)
        grid = figure.add_gridspec(rows, columns)
        for k, panel in enumerate(panels):
            row, column = divmod(k, columns)
            end = columns if k == len(panels) - 1 else column + 1  # the last one has the rest of its row
            panel(figure.add_subplot(grid[row, column:end]))

    def decision(self, axes):
        history, (codes, classes) = self.history, decision_codes(self.history)
        codes = codes[self.i]
        if classes == 1:
            axes.imshow(codes, extent=history.extent, **signs(), aspect="auto", interpolation="bilinear")
            if codes.min() < 0 < codes.max():
                axes.contour(codes[::-1], levels=[0], extent=history.extent, colors=INK, linewidths=1)
        else:
            axes.imshow(np.floor(codes * classes), extent=history.extent, cmap="Pastel1", aspect="auto")
        labels = np.zeros(len(history.x), int) if history.y is None else np.array(classes_of(history.y))
        for k in np.unique(labels):
            axes.scatter(*history.x[labels == k].T, s=14, marker="os^Dv"[k % 5], edgecolor="white", linewidth=0.5,
                         color=CLASSES[k % 5])
        axes.set(title="decision")

    def weights(self, axes):
        layers = [p for p in self.frame["parameters"].values() if p.ndim == 2 and p.size <= 2000]
        if any(a.shape[0] != b.shape[1] for a, b in pairwise(layers)):
            maps = [p / (np.abs(p).max() or 1.0) for p in layers]  # no chain, as those of attention
            return tiles(axes, maps, "weights: + blue, − orange", **signs(), aspect="auto", interpolation="nearest")
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

    def curves(self, axes, title, lines, **look):
        """Lines over the steps ({name: its numbers}), with the present one marked."""
        for name, line in lines.items():
            axes.plot([frame["step"] for frame in self.frames], line, label=name, **look)
        axes.axvline(self.frame["step"], color=INK, linewidth=0.8)
        axes.set(title=title, xlabel="step")

    def loss(self, axes):
        self.curves(axes, "loss", {"loss": [frame["loss"] for frame in self.frames]}, color=POSITIVE)

    def sizes(self, axes):
        names = self.frame["sizes"]
        sizes = {name: [f["sizes"].get(name) or math.nan for f in self.frames] for name in names}  # 0 has no log
        self.curves(axes, "gradient size (root mean square)", sizes, linewidth=1)
        axes.set(yscale="log")
        if len(names) <= 8:
            axes.legend(fontsize=7, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22),
                        columnspacing=1.0, handlelength=1.2)

    def neurons(self, axes):
        maps = [m / (np.abs(layer).max() or 1.0) for layer in self.frame["neurons"].values() for m in layer][:64]
        tiles(axes, maps, "what each hidden neuron computes", **signs())

    def attention(self, axes):
        maps = [m for layer in self.frame["attention"].values() for m in layer][:16]
        tiles(axes, maps, "attention: a row for each query", cmap="Blues", vmin=0, vmax=1)


def signs():
    """From orange over white to blue: negative and positive, as on the page."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("signs", ["#d9853f", "#ffffff", "#5b93cf"])
    return {"cmap": colours.with_extremes(bad="#dfe3e9"), "vmin": -1, "vmax": 1}  # bad: between tiles


def tiles(axes, maps, title, **look):
    """Small pictures side by side, as many in a row as suits the shape of the panel."""
    aspect = axes.bbox.width / axes.bbox.height
    columns = min(len(maps), max(1, round(math.sqrt(aspect * len(maps)))))
    rows = -(-len(maps) // columns)
    height, width = np.max([tile.shape for tile in maps], axis=0)
    gap = max(1, width // 12)
    wall = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap), np.nan)
    for k, tile in enumerate(maps):
        r, c = gap + k // columns * (height + gap), gap + k % columns * (width + gap)
        wall[r:r + tile.shape[0], c:c + tile.shape[1]] = tile
    axes.imshow(wall, **look)
    axes.set(title=title)
    axes.axis("off")
