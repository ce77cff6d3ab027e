"""The training loop: epoch after epoch through the mini-batches, with a progress bar and a History of the results.

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

import contextlib
import math
import os
import signal
import threading
import time
import warnings

import numpy as np

from ..data import as_samples
from ..errors import check_bool, check_choice, check_int, check_number, check_positive_int, describe
from ..graph import no_grad
from ..nn import Module
from ..tensors import Generator, Tensor
from ..value import Value
from . import checkpoints, plans
from .history import History


def fit(model, loader, loss, optimizer, epochs=1, *, validation=None, metrics=(), scheduler=None, callbacks=(),
        capture=True, progress=True, checkpoint=None):
    """Train a model, of either engine, and return the History of its losses and metrics.

    loader      mini-batches (inputs …, target): a DataLoader, or a list of batches; one pass is an epoch
    loss        loss(output, target), a mean over the batch
    validation  batches like those of `loader`, evaluated after each epoch in eval mode, never trained on
    metrics     functions metric(outputs, targets) of two NumPy arrays that hold a whole epoch: one, a list, or {name:
                function}; see `accuracy`. Evaluated on the training batches, and on validation as "val_…"
    scheduler   its `step()` is called after each epoch
    callbacks   functions callback(history, model), called after each epoch; training ends where one returns True
    capture     record each step once and replay it (see `tinynet.capture`); the scalar engine always runs eagerly
    progress    show the progress bar
    checkpoint  a file (.npz or .safetensors) in which the whole run is saved after each epoch. Where it exists, the run
                continues from there, with results identical to those of a run without interruption

    The best epoch is the one with the lowest validation loss (without validation: training loss). After all epochs the
    model has its last weights. Where training ends early it has those of the best epoch: when a callback ends it, when
    the loss is not finite, or after Ctrl-C, which lets the running batch end; a second Ctrl-C raises KeyboardInterrupt
    at once. `history.stopped` says which it was.
    """
    check_int("fit", "epochs", epochs, 0)
    run = Run(model, loader, loss, optimizer, validation, metrics, scheduler, checkpoint,
              check_bool("fit", "capture", capture))
    callbacks = [callbacks] if callable(callbacks) else list(callbacks)
    history, training = run.history, model.training
    with progress_bar(loader, epochs, progress, len(history)) as bar, interruptible() as interrupts:
        try:
            while not history.stopped and len(history) < epochs:
                bar.set_description_str(f"epoch {len(history) + 1}/{epochs}", refresh=False)
                if not run.epoch(bar, interrupts):
                    history.stopped = "interrupted"
                elif not math.isfinite(history["loss"][-1]):
                    history.stopped = "diverged"
                else:
                    if scheduler is not None:
                        scheduler.step()
                    if any([callback(history, model) for callback in callbacks]):
                        history.stopped = "by a callback"
                    run.save()
        except KeyboardInterrupt:
            model.load_state_dict(run.weights)
            raise
        finally:
            model.train(training)
    if history.stopped and (history.best or history.stopped == "diverged"):
        model.load_state_dict(run.weights)
    if history.stopped == "diverged":
        since = f"of epoch {history.best}" if history.best else "from before training"
        warnings.warn(f"fit: the loss is {history['loss'][-1]} in epoch {len(history)}, so training stopped with the "
                      f"weights {since}; try a smaller learning rate", RuntimeWarning, stacklevel=2)
    return history


class Run:
    """A training run: its steps, its results, the weights of its best epoch, and its checkpoint."""

    def __init__(self, model, loader, loss, optimizer, validation, metrics, scheduler, checkpoint, capture):
        if not isinstance(model, Module):
            raise TypeError(f"fit: expected a Module, got {type(model).__name__}")
        if not hasattr(optimizer, "param_groups") or scheduler is not None and not hasattr(scheduler, "step"):
            raise TypeError("fit: expected an optimiser and a learning-rate schedule of tinynet.optim, got "
                            f"{describe(optimizer)} and {describe(scheduler)}")
        parameters = set(model.parameters())
        if not parameters & {p for group in optimizer.param_groups for p in group["params"]}:
            raise ValueError("fit: the optimiser holds none of the model's parameters; make it from model.parameters(),"
                             " after model.to(…)")
        self.model, self.loader, self.optimizer, self.validation = model, loader, optimizer, validation
        self.metrics, self.path, self.history = named(metrics), checkpoint, History()
        self.weights, self.best, self.results = model.state_dict(), math.inf, ""  # weights and loss of the best epoch
        self.parts = {name: part for name, part in (
            ("model", model), ("optimizer", optimizer), ("history", self.history), ("random", Generator),
            ("scheduler", scheduler), ("loader", loader), ("validation", validation)) if hasattr(part, "state_dict")}
        self.monitor = "loss" if validation is None else "val_loss"
        if checkpoint is not None and os.path.exists(checkpoint):
            self.resume()

        def evaluate(*batch):
            *inputs, target = batch
            output = model(*inputs)
            error = loss(output, target)
            return (error, output) if self.metrics else (error,)

        def step(*batch):
            error, *output = evaluate(*batch)
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            return error, *output

        eager = not capture or any(isinstance(p, Value) for p in parameters)
        self.step, self.evaluate = (step, evaluate) if eager else (plans.capture(step), plans.capture(evaluate))

    def resume(self):
        """Continue from the checkpoint."""
        self.weights = checkpoints.load(self.path, self.parts)["weights"]
        if len(self.history) and self.monitor not in self.history:
            raise ValueError(f"fit: the run in {self.path} has measured no {self.monitor!r}")
        if self.history.best:
            self.best = self.history[self.monitor][self.history.best - 1]

    def save(self):
        if self.path is not None:
            checkpoints.save({**self.parts, "weights": self.weights}, self.path)

    def epoch(self, bar, interrupts):
        """Train for one epoch and add its results to the history; False where it was interrupted."""
        start, row = time.perf_counter(), {"lr": self.optimizer.param_groups[0]["lr"]}
        self.model.train()
        row |= self.through("loader", self.loader, self.step, bar, interrupts)
        if interrupts:
            return False
        if self.validation is not None:
            self.model.eval()
            with no_grad():
                results = self.through("validation", self.validation, self.evaluate)
            row |= {f"val_{name}": x for name, x in results.items()}
        self.history.add(row | {"seconds": time.perf_counter() - start})
        if row[self.monitor] < self.best:
            self.best, self.weights, self.history.best = row[self.monitor], self.model.state_dict(), len(self.history)
        self.results = "".join(f", {name}={x:.4f}" for name, x in row.items() if name not in ("lr", "loss"))
        bar.set_postfix_str(f"loss={row['loss']:.4f}{self.results}", refresh=False)
        return True

    def through(self, name, loader, step, bar=None, interrupts=()):
        """One pass through the batches: the mean of the loss over the samples, and the metrics."""
        total, samples, outputs, targets = 0.0, 0, [], []
        for batch in loader:
            batch = as_batch(name, batch)
            try:
                error, *output = step(*batch)
            except ValueError as found:
                if not str(found).startswith("capture: "):
                    raise
                raise ValueError(f"{found}; or call fit(…, capture=False)") from None
            n, error = len(batch[-1]), error.item()
            total, samples = total + error * n, samples + n
            if self.metrics:
                outputs.append(as_array(output[0]))
                targets.append(as_array(batch[-1]))
            if bar is not None and bar.update(n):  # True where it was drawn, ten times a second
                bar.set_postfix_str(f"loss={error:.4f}{self.results}", refresh=False)
            if interrupts:
                return {}
        if not samples:
            raise ValueError(f"fit: the {name} gave no samples; expected a DataLoader, or a list of batches, that can "
                             "be iterated once an epoch")
        if self.metrics:
            outputs, targets = np.concatenate(outputs), np.concatenate(targets)
        return {"loss": total / samples, **{name: float(f(outputs, targets)) for name, f in self.metrics.items()}}


def as_batch(name, batch):
    """The parts of a batch as Tensors."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise TypeError(f"fit: expected batches (inputs …, target) from the {name}, got "
                        + (f"{len(batch)} part" if isinstance(batch, (tuple, list)) else type(batch).__name__))
    return [x if isinstance(x, Tensor) else Tensor(as_samples(f"fit: part {i} of a batch", x))
            for i, x in enumerate(batch)]


def as_array(output):
    """A model's output as a NumPy array."""
    if isinstance(output, Tensor):
        return output.detach().numpy()
    if not isinstance(output, np.ndarray):
        raise TypeError(f"fit: metrics need a model with one output, this one returned a {type(output).__name__}")
    return np.vectorize(float, otypes=[float])(output)  # of Values


def named(metrics):
    """{name: metric}"""
    if not isinstance(metrics, dict):
        metrics = [metrics] if callable(metrics) else list(metrics)
        metrics = {getattr(metric, "__name__", type(metric).__name__): metric for metric in metrics}
    for metric in metrics.values():
        if not callable(metric):
            raise TypeError(f"fit: expected metrics to be functions of outputs and targets, got {describe(metric)}")
    return metrics


def accuracy(outputs, targets):
    """The fraction of samples that are classified correctly.

    Outputs (n, classes) with class indices (n), or logits with targets 0 and 1 of the same shape.

    >>> accuracy(np.array([[0.1, 2.0], [3.0, 1.0]]), np.array([1, 1]))
    0.5
    """
    outputs, targets = np.asarray(outputs), np.asarray(targets)
    if outputs.shape == targets.shape:
        return float(np.mean((outputs > 0) == (targets > 0.5)))
    if outputs.shape[:-1] != targets.shape:
        raise ValueError(f"accuracy: expected outputs (n, classes) and targets (n), or equal shapes, got "
                         f"{outputs.shape} and {targets.shape}")
    return float(np.mean(outputs.argmax(axis=-1) == targets))


@contextlib.contextmanager
def interruptible():
    """A list that the first Ctrl-C adds to, so that the running batch ends; a second one raises KeyboardInterrupt."""
    seen = []

    def note(number, frame):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    main = threading.current_thread() is threading.main_thread()  # the only one that may, and that needs it
    before = signal.getsignal(signal.SIGINT) if main else None
    if before in (signal.SIG_IGN, None):
        yield seen
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def progress_bar(loader, epochs, visible, done):
    """Epoch, samples of all samples, samples/s, the loss of the last batch and the results of the last epoch."""
    from tqdm import tqdm

    samples = getattr(loader, "samples", None)
    if samples is None and isinstance(loader, (list, tuple)):
        samples = sum(len(batch[-1]) for batch in loader if isinstance(batch, (list, tuple)) and batch)
    return tqdm(total=samples and samples * epochs, initial=(samples or 0) * done, unit=" samples", unit_scale=True,
                disable=not check_bool("fit", "progress", visible))


class EarlyStopping:
    """A callback that ends training when `monitor` has not improved for `patience` epochs.

    `monitor` is "val_loss" where there is one, else "loss", or any name in the history; with mode="max" higher is
    better. An improvement of less than `min_delta` does not count. `fit` then restores the weights of the best epoch.
    """

    def __init__(self, patience=5, min_delta=0.0, monitor=None, mode="min"):
        self.patience = check_positive_int("EarlyStopping", "patience", patience)
        self.min_delta, self.monitor = check_number("EarlyStopping", "min_delta", min_delta), monitor
        self.sign = 1 if check_choice("EarlyStopping", "mode", mode, ("min", "max")) == "min" else -1

    def __call__(self, history, model):
        best, since = math.inf, 0
        for x in history[self.monitor or ("val_loss" if "val_loss" in history else "loss")]:
            if self.sign * x < best - self.min_delta:
                best, since = self.sign * x, 0
            else:
                since += 1
        return since >= self.patience
