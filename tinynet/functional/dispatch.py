"""Which engine a function runs on, and the kernel that computes it instead of its reference implementation.

A reference implementation is written in NumPy's names. An array of Values (a NumPy array with `dtype=object`) goes
through NumPy scalar by scalar; given a Tensor, the same line builds a graph of arrays. Above it stands the fused form:
the same function of plain arrays, and its gradient, in one or two kernel launches each. `@fused_by` lets the fused form
compute Tensors, outside of `with tinynet.textbook():`.
"""

import functools
import inspect

import numpy as np

from ..errors import describe
from ..graph import mode
from ..kernels import launch
from ..tensors import FLOATS, Op, Tensor, cast, empty_array
from ..value import Value

FUSED = {}  # {name of an operation: (fused form, reference implementation)}


class Fused(Op):
    """A function computed by its fused form. A drawing opens `definition`, (reference, arguments, {})."""

    def forward(self, *arrays):
        y, self.vjps = self.fused(*arrays, *self.options)
        return y

    def backward(self, g, y, *_):
        return self.vjps(g, self.needs)

    def saved(self, y, xs):
        return (y, *xs) if self.reads is None else [y if i == "y" else xs[i] for i in self.reads]


def fused_by(fused, reads=None):
    """Compute a reference implementation by `fused` where its first argument is a Tensor.

    `fused_name` has the same parameters, but is given arrays for Tensors, which come first. It returns (y, vjps): the
    result, and the function `vjps(g, needs)` that returns the gradient of each Tensor, or None where `needs` says that
    nobody asks for it. The operation in the graph is called `name`. `reads` lists which Tensors `vjps` reads, by their
    indices, and "y" for the result; by default all. After a change of one of these in place, `backward()` raises.
    """
    name = fused.__name__.removeprefix("fused_")

    def decorate(reference):
        signature = inspect.signature(reference)
        operation = type(fused.__name__, (Fused,), {
            "name": name, "fused": staticmethod(fused), "reads": reads})
        FUSED[name] = fused, reference

        @functools.wraps(reference)
        def function(*args, **options):
            if options or not args:
                bound = signature.bind(*args, **options)
                bound.apply_defaults()
                args = bound.args
            if mode.reference or not isinstance(args[0], Tensor):
                return reference(*args)
            arrays = [x._data for x in args if isinstance(x, Tensor)]
            n = len(arrays)
            tensors = args[:n]
            if arrays[-1] is not getattr(tensors[-1], "_data", None):
                raise TypeError(f"{name}: expected Tensors, got {', '.join(map(describe, tensors))}")
            op = operation()
            op.definition, op.options = (reference, args, {}), args[n:]
            y, op.vjps = fused(*arrays, *op.options)  # as op.forward does, without another call
            return op.node(y, tensors)

        return function

    return decorate


# ------------------------------------------------------------------------------------------------------------ operands

def as_operand(x, like=None, label="x"):
    """x on the engine of `like`: lists and arrays become Values, or a Tensor of its dtype.

    Without `like`, x decides: Values become an array of them, and numbers a Tensor.
    """
    if like is None:
        if isinstance(x, Tensor):
            return x
        array = np.asarray(x)
        return as_values(array) if array.dtype == object else Tensor(x)
    if not isinstance(like, Tensor):
        return as_values(x, label)
    if isinstance(x, Tensor):
        if x.dtype != like.dtype:
            what = "input" if label == "x" else label
            raise TypeError(f"the {what} is {x.dtype} and the weights are {like.dtype}; convert one of them, "
                            f"as in {label}.to({like.dtype.name!r})")
        return x
    array = np.asarray(x)
    if array.dtype == object:
        raise TypeError('the input holds Values and the weights are tensors; call model.to("scalar") first')
    return Tensor(array.astype(like.dtype))


def as_values(x, label=""):
    """Numbers as an array of Values without gradient, labelled by their indices, x[0,1]. Values stay what they are."""
    array = as_numpy(x)
    if array.dtype == object and all(isinstance(v, Value) for v in array.flat):
        return array
    values = np.empty(array.shape, dtype=object)
    for index in np.ndindex(array.shape):
        v = array[index]
        values[index] = v if isinstance(v, Value) else Value(
            v, f"{label}[{','.join(map(str, index))}]" if label and index else label, requires_grad=False)
    return values


def as_numpy(x):
    """The array of a Tensor, or x as an array."""
    return x._data if isinstance(x, Tensor) else np.asarray(x)


def detach(x):
    """The numbers of x, through which no gradient flows: a Tensor, or an array of floats."""
    return x.detach() if isinstance(x, Tensor) else np.vectorize(float, otypes=[float])(x)


def as_constant(array, like):
    """An array as an operand beside `like` that takes no gradient: a Tensor of its dtype, or an array of floats."""
    return Tensor(cast(array, like.dtype)) if isinstance(like, Tensor) else array.astype(float, copy=False)


def compute(kernel, like, *args):
    """New arrays in the shapes and dtypes of `like`, written by kernel(*new, *args)."""
    outputs = [empty_array(a.shape, a.dtype) for a in like]
    launch(kernel, *outputs, *args)
    return outputs


def check_floats(name, x, *others):
    """TypeError where the Tensors or arrays are not floats of one dtype: kernels read no others. Values pass."""
    dtype = x.dtype
    if dtype in FLOATS:
        for other in others:
            if other.dtype != dtype:
                break
        else:
            return
    if dtype.kind != "O":
        raise TypeError(f"{name}: expected float numbers{' of one dtype' if others else ''}, got "
                        + ", ".join(str(a.dtype) for a in (x, *others)))
