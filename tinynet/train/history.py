"""History: what a training run measured, epoch by epoch, as numbers and as a chart."""

import math

from ..errors import check_path


class History:
    """What a training run measured: history["loss"] is a list with one number for each epoch.

    values   {name: list}: "loss", "val_loss", each metric and its "val_…", "lr", "seconds"
    best     the best epoch, counted from 1, or None
    stopped  "" after all epochs, else why training ended early: "interrupted", "diverged", "by a callback"
    """

    def __init__(self):
        self.values, self.best, self.stopped = {}, None, ""

    def add(self, row):
        """Append the results of an epoch, {name: number}."""
        for name, x in row.items():
            self.values.setdefault(name, []).append(x)

    def state_dict(self):
        return {name: vars(self)[name] for name in ("values", "best", "stopped")}  # not a Recorder's film

    def load_state_dict(self, state):
        """Replace the results by those of another run; ValueError where `state` is no state of a History."""
        valid = isinstance(state, dict) and state.keys() == self.state_dict().keys() and (
            isinstance(state["values"], dict) and isinstance(state["best"], (int, type(None)))
            and isinstance(state["stopped"], str)
            and all(isinstance(xs, list) and all(isinstance(x, (int, float)) for x in xs)
                    for xs in state["values"].values()))
        if not valid:
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
        charts = {"loss": ["loss"]} | ({metrics[0] if len(metrics) == 1 else "metrics": metrics} if metrics else {})
        figure = Figure(figsize=(5 * len(charts), 3.6), layout="constrained")
        for ax, (title, names) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts.items()):
            for i, name in enumerate(names):
                for j, (prefix, style, label) in enumerate((("", "-", "training"), ("val_", "--", "validation"))):
                    y = self.values.get(prefix + name, ())
                    if y:
                        ax.plot(range(1, len(y) + 1), y, style, color=f"C{2 * i + j}", marker="o" * (len(y) == 1),
                                label=label if len(names) == 1 else f"{name}, {label}")
            if self.best and len(self) > 1:
                ax.axvline(self.best, color="0.6", linewidth=1, linestyle=":", label=f"best epoch, {self.best}")
            ax.set(xlabel="epoch", title=title)
            ax.xaxis.get_major_locator().set_params(integer=True)
            ax.grid(alpha=0.25)
            ax.legend(frameon=False)
        losses = [x for name in ("loss", "val_loss") for x in self.values.get(name, ()) if math.isfinite(x)]
        if losses and min(losses) > 0 and max(losses) > 20 * min(losses):
            figure.axes[0].set_yscale("log")
        if path is not None:
            figure.savefig(check_path("History.plot", "path", path), dpi=120)
        return figure
