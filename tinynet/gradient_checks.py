"""Gradients checked against finite differences."""

import numpy as np

from .errors import check_int, check_number, describe
from .graph import no_grad
from .nn.module import is_values
from .tensors import Generator, Tensor
from .value import Value


def gradcheck(fn, inputs, eps=1e-6, atol=1e-9, rtol=1e-6, directions=8, seed=0):
    """True where the gradients of fn(*inputs) agree with central differences, in float64, on either engine.

    With f = Σ wᵢ yᵢ over all outputs y of fn, w fixed random weights, and a step h of about eps,

        |f(x + h) - f(x - h) - 2 ∇f · h|  ≤  rtol · |2 ∇f ∘ h| + atol · 2 eps · Σ |wᵢ yᵢ|

    for each input by itself: an input of up to 4 `directions` elements along each of them, a larger one along some
    random directions, and where one of these disagrees along each element. The last term bounds rounding errors.

    inputs  Tensors, Values, or arrays of Values; those that require no gradient are not checked. Where fn is a Module,
            its parameters are checked as well. Random numbers of tinynet, as in dropout, repeat at each evaluation.

    Raises ValueError that names the input, the index and both numbers where they disagree, as they do where fn is not
    differentiable (relu at 0). TypeError where an input or an output is not float64.

    >>> from tinynet import randn
    >>> gradcheck(lambda x: (x * x).sum(), [randn(3, dtype=np.float64, requires_grad=True)])
    True
    """
    if not callable(fn):
        raise TypeError(f"gradcheck: expected fn to be a function or a Module, got {describe(fn)}")
    for name, x in (("eps", eps), ("atol", atol), ("rtol", rtol)):
        check_number("gradcheck", name, x, 0)
    if eps == 0:
        raise ValueError("gradcheck: expected eps to be positive, got 0")
    check_int("gradcheck", "directions", directions, 1)
    if seed is not None:
        check_int("gradcheck", "seed", seed, 0)
    inputs = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    leaves = [Leaf(f"input {i}", x) for i, x in enumerate(inputs)]
    if hasattr(fn, "named_arrays"):
        leaves += [Leaf(path, x) for path, _, _, x in fn.named_arrays()]
    leaves = [leaf for leaf in leaves if leaf.indices]
    if not leaves:
        raise ValueError("gradcheck: none of the inputs requires a gradient")
    rng = np.random.default_rng(seed)
    f = Objective(fn, inputs, rng)
    try:
        f.differentiate(leaves)
        with no_grad():
            for leaf in leaves:
                check(f, leaf, eps, atol, rtol, directions, rng)
    finally:
        Generator.load_state_dict(f.stream)
    return True


class Leaf:
    """A leaf of the graph, or an array of leaves, whose elements (at `indices`) are checked."""

    def __init__(self, name, x):
        self.name, self.x = name, x
        if isinstance(x, Tensor) and x.requires_grad:
            if x.dtype != np.float64:
                raise TypeError(f"gradcheck: {name} is {x.dtype}; finite differences need float64 (model.double())")
            self.nodes, self.indices = [x], list(np.ndindex(x.shape))
        else:
            values = {(): x} if isinstance(x, Value) else dict(np.ndenumerate(x)) if is_values(x) else {}
            values = {i: v for i, v in values.items() if isinstance(v, Value) and v.requires_grad}
            self.nodes, self.indices = list(values.values()), list(values)
        self.attribute = "_grad" if isinstance(x, Tensor) else "grad"

    def read(self):
        """The numbers, as a flat array."""
        return self.x._data.flatten() if isinstance(self.x, Tensor) else np.array([v.data for v in self.nodes])

    def write(self, numbers):
        if isinstance(self.x, Tensor):
            self.x._data[...] = numbers.reshape(self.x.shape)
        else:
            for v, number in zip(self.nodes, numbers.tolist()):
                v.data = number

    @property
    def grads(self):
        return [getattr(node, self.attribute) for node in self.nodes]

    @grads.setter
    def grads(self, grads):
        for node, g in zip(self.nodes, grads):
            setattr(node, self.attribute, g)


class Objective:
    """f = Σ wᵢ yᵢ over all outputs y of fn(*inputs), with fixed random weights w."""

    def __init__(self, fn, inputs, rng):
        self.fn, self.inputs, self.rng, self.weights = fn, inputs, rng, []
        self.stream = Generator.state_dict()

    def __call__(self):
        """(f, Σ |wᵢ yᵢ|)"""
        Generator.load_state_dict(self.stream)
        total, size = 0.0, 0.0
        for i, y in enumerate(outputs(self.fn(*self.inputs))):
            if i == len(self.weights):
                self.weights.append(self.rng.uniform(0.5, 1.5, y.shape))
            terms = y * self.weights[i]
            total = total + terms.sum()
            size += np.abs(terms._data if isinstance(terms, Tensor) else terms.astype(float)).sum()
        return total, size

    def differentiate(self, leaves):
        """Set `size` and the `gradient` of each leaf by a backward pass; the leaves' own `.grad` stays."""
        before = [leaf.grads for leaf in leaves]
        for leaf in leaves:
            leaf.grads = [None] * len(leaf.nodes)
        try:
            total, self.size = self()
            if not isinstance(total, (Tensor, Value)):
                raise TypeError(f"gradcheck: expected fn to return Tensors or Values, got {describe(total)}")
            if not np.isfinite(self.size):
                raise ValueError("gradcheck: fn returns nan or infinity for these inputs")
            total.backward()
            for leaf in leaves:
                grads = [np.zeros(node.shape if isinstance(node, Tensor) else ()) if g is None else np.asarray(g, float)
                         for node, g in zip(leaf.nodes, leaf.grads)]
                leaf.gradient = np.concatenate([g.ravel() for g in grads])
        finally:
            for leaf, grads in zip(leaves, before):
                leaf.grads = grads

    def difference(self, leaf, h):
        """f(x + h) - f(x - h), and the step between the two points as it was rounded."""
        x = leaf.read()
        try:
            leaf.write(x + h)
            above = float(self()[0])
            leaf.write(x - h)
            return above - float(self()[0]), (x + h) - (x - h)
        finally:
            leaf.write(x)


def outputs(y):
    """All outputs as flat arrays, of however nested a tuple."""
    if isinstance(y, (tuple, list)):
        return [flat for part in y for flat in outputs(part)]
    flat = y.reshape(-1) if isinstance(y, Tensor) else np.ravel(y)
    if isinstance(y, Tensor) and flat.dtype != np.float64:
        raise TypeError(f"gradcheck: fn returns {flat.dtype}; finite differences need float64")
    return [flat]


def check(f, leaf, eps, atol, rtol, directions, rng):
    """Raise ValueError where the gradient of one leaf disagrees with finite differences."""
    n = len(leaf.indices)
    scale = eps * np.maximum(1.0, np.abs(leaf.read()))

    def disagreement(direction):
        """(directional derivative by the gradient, by finite differences), or None where they agree."""
        change, step = f.difference(leaf, scale * direction)
        length, moved = np.linalg.norm(step), step != 0
        with np.errstate(over="ignore", invalid="ignore"):
            terms = leaf.gradient[moved] * step[moved]
            agrees = abs(change - terms.sum()) <= rtol * np.hypot.reduce(terms) + atol * 2 * eps * f.size
            return None if agrees and np.isfinite(terms).all() else (terms.sum() / length, change / length)

    wrong, where = None, f"along a direction in {leaf.name}"
    if n > 4 * directions:
        for _ in range(directions):
            wrong = wrong or disagreement(rng.uniform(0.5, 1.5, n) * rng.choice([-1, 1], n))
        if wrong is None:
            return
    for k, i in enumerate(leaf.indices):
        found = disagreement(np.eye(1, n, k)[0])
        if found:
            wrong, where = found, f"at {leaf.name}" + (f"[{','.join(map(str, i))}]" if i else "")
            break
    if wrong:
        raise ValueError(f"gradcheck: {where} the gradient is {wrong[0]:.9g}, finite differences give {wrong[1]:.9g}")
