"""The training loop: epoch after epoch through the mini-batches, with a progress bar, and what came of it.

>>> from tinynet import manual_seed, nn, optim
>>> from tinynet.data import DataLoader, TensorDataset
>>> from tinynet.datasets import moons
>>> _ = manual_seed(0)
>>> model = nn.MLP(2, [16, 2])
>>> loader = DataLoader(TensorDataset(*moons(200)), batch_size=50, shuffle=True, seed=0)
>>> history = fit(model, loader, nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=0.05), epochs=20,
...               metrics=accuracy, progress=False)
>>> history["accuracy"][-1] > 0.9
True
"""

import math
import os
import signal
import threading
import time
import warnings

import numpy as np

from ..data import as_samples
from ..errors import refusing
from ..functional import detach
from ..graph import no_grad, one_line
from ..nn.module import is_values, shape_of
from ..tensors import Generator, Tensor
from ..value import Value
from . import checkpoints, plans


@refusing
def fit(model, loader, loss, optimizer, epochs=1, *, validation=None, metrics=(), scheduler=None, callbacks=(),
        capture=True, progress=True, checkpoint=None):
    """Train a model, of either engine, and return the History of its losses and metrics.

    loader      mini-batches (inputs …, target): a DataLoader, or a list of batches; passed through once an epoch
    loss        loss(output, target), a mean over the batch
    validation  batches like those of `loader`, never trained on: measured after each epoch, with the model in eval mode
    metrics     functions metric(outputs, targets) of two NumPy arrays that hold a whole epoch: one, a list, or {name:
                function}; see `accuracy`. Measured on the training batches as they pass, and on validation ("val_…")
    scheduler   its `step()` is called after each epoch
    callbacks   functions callback(history, model), called after each epoch; training ends where one returns True
    capture     record each step once and replay it (see `tinynet.capture`); the scalar engine runs as it is written
    progress    show the bar
    checkpoint  the path of a file (.npz or .safetensors) in which the whole run is saved after each epoch; where it
                exists already, the run goes on from there, to the same numbers as if it had never been broken off

    The best epoch is the one with the lowest validation loss (training loss, where there is no validation). After all
    epochs the model has its last weights. Where training ends early it has those of the best epoch: where a callback
    says so, where the loss is no longer finite, or at Ctrl-C, which lets the running batch end; a second Ctrl-C raises
    KeyboardInterrupt at once. `history.stopped` says which it was.
    """
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 0:
        raise ValueError(f"fit: epochs is a whole number from 0 on, got {epochs!r}")
    parameters = set(model.parameters())
    if not parameters & {p for group in optimizer.param_groups for p in group["params"]}:
        raise ValueError("fit: the optimiser holds none of the model's parameters; make it from model.parameters(), "
                         "after model.to(…)")
    metrics, callbacks = named(metrics), [callbacks] if callable(callbacks) else list(callbacks)

    def evaluate(*batch):
        *inputs, target = batch
        output = model(*inputs)
        error = loss(output, target)
        return (error, output) if metrics else (error,)

    def step(*batch):
        error, *output = evaluate(*batch)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        return error, *output

    if capture and not any(isinstance(p, Value) for p in parameters):
        step, measured = plans.capture(step), plans.capture(evaluate)
    else:
        measured = evaluate

    history, training = History(), model.training
    watching = "loss" if validation is None else "val_loss"
    best, weights = math.inf, model.state_dict()
    if checkpoint is not None:
        run = {"model": model, "optimizer": optimizer, "history": history, "random": Generator}
        run |= {name: x for name, x in (("scheduler", scheduler), ("loader", loader), ("validation", validation))
                if hasattr(x, "state_dict")}
        if os.path.exists(checkpoint):
            weights = checkpoints.load(checkpoint, run)["weights"]
            if len(history) and watching not in history:
                raise ValueError(f"fit: the run in {checkpoint} has measured no {watching!r}")
            best = history[watching][history.best - 1] if history.best else math.inf
    with Bar(loader, epochs, progress, len(history)) as bar, Interrupt() as interrupt:
        try:
            for epoch in range(len(history) + 1, 0 if history.stopped else epochs + 1):
                began, bar.epoch = time.perf_counter(), epoch
                row = {"lr": optimizer.param_groups[0]["lr"]}
                model.train()
                row |= passed("loader", loader, step, metrics, bar, interrupt)
                if interrupt.seen:
                    history.stopped = "interrupted"
                    break
                if validation is not None:
                    model.eval()
                    with no_grad():
                        found = passed("validation", validation, measured, metrics)
                    row |= {f"val_{name}": x for name, x in found.items()}
                row["seconds"] = time.perf_counter() - began
                history.add(row)
                bar.says(row)
                if row[watching] < best:
                    best, weights, history.best = row[watching], model.state_dict(), epoch
                if not math.isfinite(row["loss"]):
                    history.stopped = "diverged"
                    break
                if scheduler is not None:
                    scheduler.step()
                if any([callback(history, model) for callback in callbacks]):
                    history.stopped = "by a callback"
                if checkpoint is not None:
                    checkpoints.save({**run, "weights": weights}, checkpoint)
                if history.stopped:
                    break
        except KeyboardInterrupt:
            model.load_state_dict(weights)
            raise
        finally:
            model.train(training)
    if history.stopped and (history.best or history.stopped == "diverged"):
        model.load_state_dict(weights)
    if history.stopped == "diverged":
        since = f"of epoch {history.best}" if history.best else "from before training"
        warnings.warn(f"fit: the loss is {row['loss']} in epoch {epoch}, so training stopped, and the weights are "
                      f"those {since}; a smaller learning rate helps", RuntimeWarning, stacklevel=3)
    return history


def passed(what, loader, step, metrics, bar=None, interrupt=None):
    """One pass through the batches: the mean of the loss over the samples, and the metrics."""
    total, samples, outputs, targets = 0.0, 0, [], []
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise TypeError(f"fit: a batch of the {what} is (inputs …, target), got "
                            + (f"{len(batch)} part" if isinstance(batch, (tuple, list)) else type(batch).__name__))
        batch = [x if isinstance(x, Tensor) else as_samples(f"fit: part {i} of a batch", x)
                 for i, x in enumerate(batch)]
        try:
            error, *output = step(*batch)
        except ValueError as refusal:
            if not str(refusal).startswith("capture: "):
                raise
            raise ValueError(f"{refusal}; or call fit(…, capture=False)") from None
        n, error = len(batch[-1]), error.item()
        total, samples = total + error * n, samples + n
        if metrics:
            outputs.append(as_numbers(output[0]))
            targets.append(np.asarray(batch[-1]))
        if bar:
            bar.advance(n, error)
        if interrupt and interrupt.seen:
            return {}
    if not samples:
        raise ValueError(f"fit: the {what} gave no samples; expected a DataLoader, or a list of batches, that can be "
                         "passed through once an epoch")
    if metrics:
        outputs, targets = np.concatenate(outputs), np.concatenate(targets)
    return {"loss": total / samples, **{name: float(metric(outputs, targets)) for name, metric in metrics.items()}}


def as_numbers(output):
    """A model's output as a NumPy array."""
    if not isinstance(output, Tensor) and not is_values(output):
        raise TypeError(f"fit: metrics are for models with one output, this one returned a {type(output).__name__}")
    return np.asarray(detach(output))


def named(metrics):
    if isinstance(metrics, dict):
        return metrics
    metrics = [metrics] if callable(metrics) else list(metrics)
    for metric in metrics:
        if not callable(metric):
            raise TypeError(f"fit: a metric is a function of outputs and targets, got {metric!r}")
    return {metric.__name__: metric for metric in metrics}


@refusing
def accuracy(outputs, targets):
    """The share of samples that are classified rightly.

    Outputs (n, classes) with class indices (n), or logits with targets 0 and 1 of the same shape.

    >>> accuracy(np.array([[0.1, 2.0], [3.0, 1.0]]), np.array([1, 1]))
    0.5
    """
    if outputs.shape == targets.shape:
        return float(np.mean((outputs > 0) == (targets > 0.5)))
    if outputs.shape[:-1] != targets.shape:
        raise ValueError(f"accuracy: outputs {outputs.shape} and targets {targets.shape} do not belong together")
    return float(np.mean(outputs.argmax(axis=-1) == targets))


class Interrupt:
    """A `with` block in which the first Ctrl-C only sets `seen`, so that no batch is left half done."""

    def __enter__(self):
        self.seen, self.installed = False, False
        if threading.current_thread() is threading.main_thread():  # the only one that may, and that needs it
            self.before = signal.getsignal(signal.SIGINT)
            if self.before not in (signal.SIG_IGN, None):
                signal.signal(signal.SIGINT, self.note)
                self.installed = True
        return self

    def note(self, number, frame):
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __exit__(self, *exception):
        if self.installed:
            signal.signal(signal.SIGINT, self.before)


class Bar:
    """The progress bar: which epoch, how many samples of how many, samples/s, the loss of the last batch."""

    def __init__(self, loader, epochs, shown, done=0):
        from tqdm import tqdm

        samples = getattr(loader, "samples", None)
        if samples is None and isinstance(loader, (list, tuple)):
            samples = sum(len(batch[-1]) for batch in loader if isinstance(batch, (list, tuple)) and batch)
        self.epochs, self.epoch, self.after = epochs, 0, ""
        self.spoke = 0.0
        self.bar = tqdm(total=samples and samples * epochs, initial=(samples or 0) * done, unit=" samples",
                        unit_scale=True, disable=not shown)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()

    def advance(self, n, error):
        now = time.perf_counter()
        if now - self.spoke > 0.1:  # writing the line takes longer than a small step
            self.spoke = now
            self.bar.set_description_str(f"epoch {self.epoch}/{self.epochs}", refresh=False)
            self.bar.set_postfix_str(f"loss={error:.4f}{self.after}", refresh=False)
        self.bar.update(n)

    def says(self, row):
        """Show the results of an epoch until the next one has its own."""
        self.bar.set_description_str(f"epoch {self.epoch}/{self.epochs}", refresh=False)
        self.after = "".join(f", {name}={x:.4f}" for name, x in row.items() if name not in ("loss", "lr", "seconds"))
        self.bar.set_postfix_str(f"loss={row['loss']:.4f}{self.after}", refresh=False)


@refusing
class History:
    """What a training run measured: history["loss"] is a list with one number for each epoch.

    values   {name: list}: "loss", "val_loss", each metric and its "val_…", "lr", "seconds"
    best     the best epoch, counted from 1, or None
    stopped  "" after all epochs, else why before: "interrupted", "diverged", "by a callback"
    """

    def __init__(self):
        self.values, self.best, self.stopped = {}, None, ""

    def add(self, row):
        for name, x in row.items():
            self.values.setdefault(name, []).append(x)

    def state_dict(self):
        return {name: vars(self)[name] for name in ("values", "best", "stopped")}  # not a Recorder's film

    def load_state_dict(self, state):
        """Take over what another run has measured."""
        if not isinstance(state, dict) or state.keys() != self.state_dict().keys():
            raise ValueError("History.load_state_dict: expected the state of a History")
        values, best, stopped = (state[name] for name in ("values", "best", "stopped"))
        if not (isinstance(values, dict) and isinstance(best, (int, type(None))) and isinstance(stopped, str) and all(
                isinstance(xs, list) and all(isinstance(x, (int, float)) for x in xs) for xs in values.values())):
            raise ValueError("History.load_state_dict: expected the state of a History")
        vars(self).update(state)

    def __len__(self):
        return len(self.values.get("loss", ()))

    def __getitem__(self, name):
        if name not in self.values:
            raise KeyError(f"History: there is no {name!r}; measured were {', '.join(map(repr, self.values))}")
        return self.values[name]

    def __contains__(self, name):
        return name in self.values

    def __repr__(self):
        last = ", ".join(f"{name} {xs[-1]:.4g}" for name, xs in self.values.items() if name not in ("lr", "seconds"))
        parts = [f"{len(self)} epochs" + f": {last}" * bool(last)]
        parts += [f"best epoch {self.best}"] * bool(self.best) + [f"stopped: {self.stopped}"] * bool(self.stopped)
        return f"History({'; '.join(parts)})"

    def plot(self, path=None):
        """A chart of the losses, and one of the metrics where there are any; saved where a path is given.

        Returns the matplotlib figure. ImportError without matplotlib: pip install tinynet[plot].
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("History.plot: needs the package matplotlib; pip install tinynet[plot]") from None
        metrics = [name for name in self.values
                   if name not in ("loss", "lr", "seconds") and not name.startswith("val_")]
        groups = [["loss"], *([metrics] if metrics else [])]
        figure = Figure(figsize=(5 * len(groups), 3.6), layout="constrained")
        axes = figure.subplots(1, len(groups), squeeze=False)[0]
        epochs = np.arange(1, len(self) + 1)
        for ax, group in zip(axes, groups):
            for i, name in enumerate(group):
                for kind, style, label in (("", "-", "training"), ("val_", "--", "validation")):
                    if kind + name in self.values:
                        ax.plot(epochs, self.values[kind + name], style, color=f"C{2 * i + bool(kind)}",
                                marker="o" if len(self) == 1 else None,
                                label=label if len(group) == 1 else f"{name}, {label}")
            if self.best and len(self) > 1:
                ax.axvline(self.best, color="0.6", linewidth=1, linestyle=":", label=f"best epoch, {self.best}")
            ax.set(xlabel="epoch", title=group[0] if len(group) == 1 else "metrics")
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.grid(alpha=0.25)
            ax.legend(frameon=False)
        losses = [x for name in ("loss", "val_loss") for x in self.values.get(name, ()) if math.isfinite(x)]
        if losses and min(losses) > 0 and max(losses) > 20 * min(losses):
            axes[0].set_yscale("log")
        if path is not None:
            figure.savefig(path, dpi=120)
        return figure


@refusing
class EarlyStopping:
    """A callback that ends training when `monitor` has not improved for `patience` epochs.

    `monitor` is "val_loss" where there is one, else "loss", or any name in the history; with mode="max" higher is
    better. An improvement of less than `min_delta` is none. `fit` then goes back to the weights of the best epoch.
    """

    def __init__(self, patience=5, min_delta=0.0, monitor=None, mode="min"):
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"EarlyStopping: patience is a whole number of epochs from 1 on, got {patience!r}")
        if mode not in ("min", "max"):
            raise ValueError(f'EarlyStopping: mode is "min" or "max", got {mode!r}')
        self.patience, self.min_delta, self.monitor = patience, min_delta, monitor
        self.sign = 1 if mode == "min" else -1

    def __call__(self, history, model):
        name = self.monitor or ("val_loss" if "val_loss" in history else "loss")
        best, since = math.inf, 0
        for x in history[name]:
            if self.sign * x < best - self.min_delta:
                best, since = self.sign * x, 0
            else:
                since += 1
        return since >= self.patience


class Table(str):
    """Text that a notebook and the prompt show as it is."""

    __repr__ = str.__str__


@refusing
def summary(model, input_shape):
    """A table of a model's layers in the order in which they are called: layer, output shape, parameters.

    input_shape has the batch as its first axis, as in draw(model, (32, 784)).

    >>> from tinynet import nn
    >>> summary(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), (8, 4))
    layer        output shape   parameters
    Sequential   (8, 1)
      0 Linear   (8, 3)                 15
      1 ReLU     (8, 3)
      2 Linear   (8, 1)                  4
    input (8, 4), parameters 19, learning 19
    """
    if not isinstance(input_shape, (tuple, list)) or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ValueError(f"summary: input_shape is a tuple of whole numbers, the batch first, got {input_shape!r}")
    input_shape = tuple(input_shape)
    calls = called(model, input_shape)
    own = {}
    for _, module, _, x in model.slots():
        own[module] = own.get(module, 0) + (x.numel() if isinstance(x, Tensor) else np.size(x))
    rows = [("layer", "output shape", "parameters")]
    for module, path, depth, shape in calls:
        name, count = one_line(f"{path.rpartition('.')[2]} {type(module).__name__}"), own.get(module, 0)
        rows.append(("  " * depth + name, shape, f"{count:,}" if count else ""))
    widths = [max(len(row[i]) for row in rows) + 3 for i in range(2)]
    lines = [f"{a:{widths[0]}}{b:{widths[1]}}{c:>10}".rstrip() for a, b, c in rows]
    learning = sum(p.numel() if isinstance(p, Tensor) else 1 for p in model.parameters() if p.requires_grad)
    lines.append(f"input {input_shape}, parameters {sum(own.values()):,}, learning {learning:,}")
    return Table("\n".join(lines))


def called(model, input_shape):
    """(module, path, depth, output shape) for every module, in the order in which a run on zeros calls them."""
    rows, before, depth = {}, [], 0

    def watched(module, path, forward):
        def run(*inputs, **options):
            nonlocal depth
            row = rows.setdefault(module, [module, path, depth, ""])
            depth += 1
            try:
                output = forward(*inputs, **options)
            finally:
                depth -= 1
            row[3] = str(shape_of(output))
            return output

        return run

    for path, module in model.named_modules():
        before.append((module, module.training, vars(module).get("forward")))
        module.forward = watched(module, path, module.forward)
    model.eval()
    first = next((p for p in model.parameters() if isinstance(p, Tensor)), None)
    try:
        with no_grad():
            try:
                model(Tensor(np.zeros(input_shape, np.float32 if first is None else first.dtype)))
            except TypeError:  # a model of words or letters wants whole numbers
                rows.clear()
                model(Tensor(np.zeros(input_shape, np.int64)))
    finally:
        for module, training, forward in before:
            module.training = training
            del module.forward
            if forward is not None:
                module.forward = forward
    idle = [[module, path, path.count(".") + 1, "not called"] for path, module in model.named_modules()
            if module not in rows and any(slot[1] is module for slot in model.slots())]
    return [*rows.values(), *idle]
