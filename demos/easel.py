"""Where the lessons leave their pictures, and one look for all their charts."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # the lessons save files and open no window
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is selected)
from matplotlib.colors import LinearSegmentedColormap  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "pictures"
BLUE, ORANGE, GREY = "#1d5fa8", "#d9660b", "#6b7480"
LOW_TO_HIGH = LinearSegmentedColormap.from_list("orange to blue", [ORANGE, "#ffffff", BLUE])

plt.rcParams.update({
    "figure.dpi": 120, "savefig.bbox": "tight", "font.size": 10, "axes.grid": True, "grid.alpha": 0.25,
    "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False,
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, "#2f8f5b", "#8a4fbf", "#b8860b", GREY]),
})


def picture(name):
    """The path of a picture, which is printed."""
    FOLDER.mkdir(exist_ok=True)
    print(f"  picture: pictures/{name}")
    return FOLDER / name


def save(name):
    """Save the current chart, and start a new one."""
    plt.savefig(picture(name))
    plt.close()


def region(axes, score, X, y, steps=60):
    """Shade the plane by score(points), a logit, with the decision boundary at 0 and the samples on top.

    White is a probability of 1/2; logits within ±1 stay pale.
    """
    import numpy as np

    (left, bottom), (right, top) = X.min(0) - 0.4, X.max(0) + 0.4
    a, b = np.meshgrid(np.linspace(left, right, steps), np.linspace(bottom, top, steps))
    z = np.reshape(score(np.column_stack([a.ravel(), b.ravel()])), a.shape)
    reach = max(abs(z.min()), abs(z.max()), 1.0)
    axes.contourf(a, b, z, levels=np.linspace(-reach, reach, 21), cmap=LOW_TO_HIGH, alpha=0.6)
    if z.min() < 0 < z.max():
        axes.contour(a, b, z, levels=[0], colors="black", linewidths=1)
    for label, colour, marker in ((0, ORANGE, "o"), (1, BLUE, "s")):
        axes.scatter(*X[y == label].T, c=colour, marker=marker, edgecolors="white", linewidths=0.6, s=36, zorder=3)
    axes.grid(False)
    axes.set(xlabel="$x_0$", ylabel="$x_1$")


def heat(axes, weights, rows, columns, title="", numbers=True, largest=1.0):
    """Attention weights from 0 (white) to `largest` (blue): a row for each query, a column for each key."""
    axes.imshow(weights, cmap=LinearSegmentedColormap.from_list("white to blue", ["#ffffff", BLUE]), vmin=0,
                vmax=largest)
    axes.set(title=title, xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)), yticklabels=rows)
    axes.grid(False)
    if numbers:
        for i, row in enumerate(weights):
            for j, w in enumerate(row):
                axes.text(j, i, f"{w:.2f}", ha="center", va="center", color="white" if w > 0.55 * largest else "black")
