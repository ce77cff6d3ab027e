"""Checks that a user can run: gradients against finite differences."""

import numpy as np

from .graph import mode
from .nn.module import is_values
from .tensors import Tensor
from .value import Value


def gradcheck(fn, inputs, eps=1e-6, atol=1e-7, rtol=1e-5, directions=4, seed=0):
    """True where the gradients of fn(*inputs) agree with central differences, in float64, on either engine.

    Along each of some random directions u over all inputs, (f(x + eps u) - f(x - eps u)) / 2 eps must equal ∇f · u to
    atol + rtol · |∇f| · |u|/√n. Outputs are reduced to one number with fixed random weights. Where a direction
    disagrees, every element is tried by itself.

    `inputs` are Tensors, Values, or arrays of Values; those that require no gradient are left alone. A Module may
    be given as fn: its parameters are checked as well.

    Raises ValueError that names the input, the index and both numbers where they disagree.

    >>> from tinynet import randn
    >>> gradcheck(lambda x: (x * x).sum(), [randn(3, dtype=np.float64, requires_grad=True)])
    True
    """
    inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    named = {f"input {i}": x for i, x in enumerate(inputs)}
    if hasattr(fn, "slots"):
        named |= {path: x for path, _, _, x in fn.slots()}
    places = [(name, x, i) for name, x in named.items() for i in elements(name, x)]
    if not places:
        raise ValueError("gradcheck: none of the inputs requires a gradient")
    rng = np.random.default_rng(seed)
    weights = []

    def f():
        y = fn(*inputs)
        y = np.ravel(y) if not isinstance(y, Tensor) else y.reshape(-1)
        if not weights:
            weights.append(rng.uniform(0.5, 1.5, y.shape))
        return (y * weights[0]).sum()

    before = [(x, gradient(x)) for x in named.values()]
    for x in named.values():
        forget(x)
    f().backward()
    slopes = np.array([slope(x, i) for _, x, i in places])
    for x, g in before:
        restore(x, g)
    start = np.array([read(x, i) for _, x, i in places])

    def along(u):
        """The central difference of f along u."""
        values = []
        for sign in (1, -1):
            for (_, x, i), number in zip(places, start + sign * eps * u):
                write(x, i, number)
            values.append(float(f()))
        for (_, x, i), number in zip(places, start):
            write(x, i, number)
        return (values[0] - values[1]) / (2 * eps)

    recording, mode.recording = mode.recording, False
    try:
        bound = atol + rtol * max(np.sqrt(np.mean(slopes**2)), 1e-3)
        for _ in range(directions):
            u = rng.normal(size=len(places))
            u *= np.sqrt(len(places)) / np.linalg.norm(u)
            if not abs(along(u) - slopes @ u) <= bound * np.sqrt(len(places)):
                for k, (name, _, i) in enumerate(places):
                    numeric = along(np.eye(1, len(places), k)[0])
                    if not abs(numeric - slopes[k]) <= bound:
                        where = f"[{','.join(map(str, i))}]" if i else ""
                        raise ValueError(f"gradcheck: at {name}{where} the gradient is {slopes[k]:.9g}, finite "
                                         f"differences give {numeric:.9g}")
                raise ValueError(f"gradcheck: along a random direction the gradients give {slopes @ u:.9g}, finite "
                                 f"differences {along(u):.9g}")
    finally:
        mode.recording = recording
    return True


def elements(name, x):
    """The places of an input that are checked."""
    if isinstance(x, Tensor) and x.requires_grad:
        if x.dtype != np.float64:
            raise TypeError(f"gradcheck: {name} is {x.dtype}; finite differences need float64")
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
