"""Checks that a user can run: gradients against finite differences."""

import numpy as np

from .errors import refusing
from .graph import mode
from .nn.module import is_values
from .tensors import Generator, Tensor
from .value import Value


@refusing
def gradcheck(fn, inputs, eps=1e-6, atol=1e-9, rtol=1e-6, directions=8, seed=0):
    """True where the gradients of fn(*inputs) agree with central differences, in float64, on either engine.

    With f = Σ wᵢ yᵢ over all outputs y of fn, w fixed random weights, and a step h of about eps,

        |f(x + h) - f(x - h) - 2 ∇f · h|  ≤  rtol · |2 ∇f ∘ h| + atol · 2 eps · Σ |wᵢ yᵢ|

    for each input by itself: an input of up to 4 `directions` elements along each of them, a larger one along some
    random directions, and where one of these disagrees along each element. The last term is what rounding amounts to.

    inputs  Tensors, Values, or arrays of Values; those that require no gradient are left alone. A Module may be given
            as fn: its parameters are checked as well. Random numbers of tinynet, as in dropout, repeat themselves.

    Raises ValueError that names the input, the index and both numbers where they disagree. They also do where fn has
    a kink, as relu has at 0. TypeError where an input or an output is no float64.

    >>> from tinynet import randn
    >>> gradcheck(lambda x: (x * x).sum(), [randn(3, dtype=np.float64, requires_grad=True)])
    True
    """
    inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    named = {f"input {i}": x for i, x in enumerate(inputs)}
    if hasattr(fn, "slots"):
        named |= {path: x for path, _, _, x in fn.slots()}
    places = {name: found for name, x in named.items() if (found := elements(name, x))}
    if not places:
        raise ValueError("gradcheck: none of the inputs requires a gradient")
    rng, stream, weights = np.random.default_rng(seed), Generator.state_dict(), []

    def f():
        """(f, Σ |wᵢ yᵢ|)"""
        Generator.load_state_dict(stream)
        total, size = 0.0, 0.0
        for i, y in enumerate(outputs(fn(*inputs))):
            if i == len(weights):
                weights.append(rng.uniform(0.5, 1.5, y.shape))
            terms = y * weights[i]
            total, size = total + terms.sum(), size + np.abs(numbers(terms)).sum()
        return total, size

    before = [(x, gradient(x)) for x in named.values()]
    for x in named.values():
        forget(x)
    try:
        total, size = f()
        if not np.isfinite(size):
            raise ValueError("gradcheck: fn gives nan or infinity for these inputs")
        total.backward()
        slopes = {name: np.array([slope(named[name], i) for i in found]) for name, found in places.items()}
    finally:
        for x, g in before:
            restore(x, g)

    def along(name, u):
        """(slope by the gradient, slope by differences, whether they agree) along u, in steps of eps or eps |x|."""
        x, found = named[name], places[name]
        start = np.array([read(x, i) for i in found])
        h = eps * u * np.maximum(1.0, np.abs(start))
        values = []
        try:
            for point in (start + h, start - h):
                for i, number in zip(found, point):
                    write(x, i, number)
                values.append(float(f()[0]))
        finally:
            for i, number in zip(found, start):
                write(x, i, number)
        step = (start + h) - (start - h)  # as it was rounded
        moved = step != 0
        change, length = values[0] - values[1], np.linalg.norm(step)
        with np.errstate(over="ignore", invalid="ignore"):
            terms = slopes[name][moved] * step[moved]
            agrees = abs(change - terms.sum()) <= rtol * np.hypot.reduce(terms) + atol * 2 * eps * size
            return terms.sum() / length, change / length, agrees and np.isfinite(terms).all()

    recording, mode.grad_enabled = mode.grad_enabled, False
    try:
        for name, found in places.items():
            n, where = len(found), f"along a direction in {name}"
            if n > 4 * directions:
                tried = (along(name, rng.uniform(0.5, 1.5, n) * rng.choice([-1, 1], n)) for _ in range(directions))
                wrong = next((result for result in tried if not result[2]), None)
                if wrong is None:
                    continue
            for k, i in enumerate(found):
                result = along(name, np.eye(1, n, k)[0])
                if not result[2]:
                    wrong, where = result, f"at {name}" + (f"[{','.join(map(str, i))}]" if i else "")
                    break
            else:
                if n <= 4 * directions:
                    continue
            raise ValueError(f"gradcheck: {where} the gradient is {wrong[0]:.9g}, finite differences give "
                             f"{wrong[1]:.9g}")
    finally:
        mode.grad_enabled = recording
        Generator.load_state_dict(stream)
    return True


def outputs(y):
    """All outputs as flat arrays, of however nested a tuple."""
    if isinstance(y, (tuple, list)):
        return [flat for part in y for flat in outputs(part)]
    flat = y.reshape(-1) if isinstance(y, Tensor) else np.ravel(y)
    if isinstance(y, Tensor) and flat.dtype != np.float64:
        raise TypeError(f"gradcheck: fn returns {flat.dtype}; finite differences need float64")
    return [flat]


def numbers(y):
    """The numbers of a flat array of either engine."""
    return y._data if isinstance(y, Tensor) else np.array([float(v) for v in y])


def elements(name, x):
    """The places of an input that are checked."""
    if isinstance(x, Tensor) and x.requires_grad:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck: {name} is {x.dtype}; finite differences need float64 (model.double())")
        return list(np.ndindex(x.shape))
    if isinstance(x, Value):
        return [()] if x.requires_grad else []
    if is_values(x):
        return [i for i in np.ndindex(x.shape) if x[i].requires_grad]
    return []


def read(x, i):
    return float(x._data[i] if isinstance(x, Tensor) else x[i].data if is_values(x) else x.data)


def write(x, i, number):
    if isinstance(x, Tensor):
        x._data[i] = number
    else:
        (x[i] if is_values(x) else x).data = float(number)


def slope(x, i):
    g = x._grad if isinstance(x, Tensor) else (x[i] if is_values(x) else x).grad
    return 0.0 if g is None else float(g[i] if isinstance(x, Tensor) else g)


def gradient(x):
    if isinstance(x, Tensor):
        return x._grad
    return [v.grad for v in x.flat] if is_values(x) else getattr(x, "grad", None)


def forget(x):
    for v in x.flat if is_values(x) else [x]:
        if isinstance(v, (Tensor, Value)):
            v.zero_grad()


def restore(x, g):
    if isinstance(x, Tensor):
        x._grad = g
    elif is_values(x):
        for v, before in zip(x.flat, g):
            v.grad = before
    elif isinstance(x, Value):
        x.grad = g
