"""Linear layers, embeddings, dropout, one-hot rows."""

import numpy as np

from .. import kernels
from ..errors import check_choice, check_int, check_number, describe
from ..kernels import launch
from ..tensors import FLOATS, Generator, Tensor, cast, contiguous, empty_array, filled, random_uniform
from ..value import Value
from .activations import ACTIVATIONS
from .dispatch import as_constant, as_numpy, as_operand, check_floats, compute, fused_by

ARRAYS = np.ndarray, Tensor


def by_rows(x):
    """An array with the axes before the last made one."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def check_linear(x, weight, bias, activation):
    """Raise unless x is (…, in), weight (out, in) and bias (out), of one float dtype or all Values."""
    dtype, shape = x.dtype, weight.shape if isinstance(weight, ARRAYS) else ()
    if (len(shape) != 2 or weight.dtype != dtype or dtype not in FLOATS and dtype.kind != "O"
            or x.shape[-1:] != shape[1:] or bias is not None
            and (not isinstance(bias, ARRAYS) or bias.shape != shape[:1] or bias.dtype != dtype)):
        raise ValueError("linear: expected x (…, in), weight (out, in) and bias (out) of one float dtype, got "
                         + ", ".join(describe(a) for a in (x, weight, bias) if a is not None))
    if activation is not None and activation not in ACTIVATIONS:
        check_choice("linear", "activation", activation, (None, *ACTIVATIONS))


def fused_linear(x, weight, bias=None, activation=None):
    """With z the gradient before the activation: ∂x = z W, ∂W = zᵀ x, ∂b = Σ z over the rows."""
    check_linear(x, weight, bias, activation)
    w, rows = contiguous(weight), by_rows(contiguous(x))
    y = empty_array((*x.shape[:-1], len(w)), x.dtype)
    out = saved = by_rows(y)
    b = filled(len(w), w.dtype, 0.0) if bias is None and activation else bias
    if b is None:
        launch(kernels.matmul, out, rows, weight.T)
    else:
        if activation and kernels.dense.keeps_input(activation):  # whose derivative is a function of its input
            saved = empty_array(out.shape, x.dtype)
        launch(kernels.dense.layer(activation), out, saved, rows, w, contiguous(b))

    def vjps(g, needs):
        z = by_rows(contiguous(g))
        dx = empty_array(x.shape, x.dtype) if needs[0] else None
        dw = empty_array(w.shape, w.dtype) if needs[1] else None
        db = empty_array(len(w), w.dtype) if bias is not None and needs[2] or activation else None
        if activation:
            g, z = z, empty_array(z.shape, z.dtype)
            launch(kernels.dense.bias_act_backward(activation), z, db, g, saved, out)
        launch(kernels.dense.layer_backward, None if dx is None else by_rows(dx), dw, None if activation else db, z,
               rows, w)
        return dx, dw, db

    return y, vjps


@fused_by(fused_linear, reads=[0, 1, "y"])
def linear(x, weight, bias=None, activation=None):
    """act(x Wᵀ + b): x (…, in), weight (out, in), bias (out), result (…, out).

    `activation` names one of relu, sigmoid, tanh, gelu, softplus; None is the plain linear layer.
    """
    weight = as_operand(weight)
    x, bias = as_operand(x, weight), bias if bias is None else as_operand(bias, weight, "bias")
    check_linear(x, weight, bias, activation)
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    return ACTIVATIONS[activation](y) if activation else y


def fused_embedding(weight, indices):
    """The gradient of a row is the sum over the positions that took it."""
    i, y = indices.ravel(), empty_array((*indices.shape, weight.shape[1]), weight.dtype)
    launch(kernels.dense.embedding, by_rows(y), contiguous(weight), i)
    return y, lambda g, needs: compute(kernels.dense.embedding_backward, [weight], by_rows(contiguous(g)), i)


@fused_by(fused_embedding, reads=[])
def take_rows(weight, indices):
    return weight[indices]


def embedding(indices, weight):
    """weight[indices]: a row of the table (entries, width) for each index; result (*indices.shape, width).

    On the scalar engine an index may also be a one-hot row of Values, (…, entries). The result is then their product
    with the table, so that a compiled program takes other indices with each sample.
    """
    indices, weight = as_numpy(indices), as_operand(weight)
    if indices.dtype == object and indices.size and all(isinstance(v, Value) for v in indices.flat):
        if isinstance(weight, Tensor) or not indices.ndim or indices.shape[-1] != len(weight):
            raise ValueError(f"embedding: rows of Values, of shape {indices.shape}, are for a table of "
                             f"{(indices.shape or (0,))[-1]} entries on the scalar engine, got {tuple(weight.shape)}"
                             + " of tensors" * isinstance(weight, Tensor))
        return indices @ weight
    check_indices("embedding", "indices", indices)
    if weight.ndim != 2 or not weight.shape[1]:
        raise ValueError(f"embedding: expected a table (entries, width), got shape {tuple(weight.shape)}")
    check_floats("embedding", weight)
    launch(check_range, indices, len(weight), "embedding: index")
    return take_rows(weight, contiguous(cast(indices, np.int64)))


def check_indices(name, what, array):
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected {what} to be integers, got {array.dtype}")


def check_range(indices, n, what):
    """IndexError where an index is not one of 0 … n - 1; launched as kernels are, so that replays check as well."""
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        wrong = indices[(indices < 0) | (indices >= n)].flat[0]
        raise IndexError(f"{what} {wrong} is outside 0 … {n - 1}")


def fused_dropout(x, p):
    """y = x · mask / (1 - p); the mask is drawn anew at each replay of a captured step."""
    uniforms = empty_array(x.size, np.float32)
    launch(random_uniform, uniforms)

    def masked(a):
        y = empty_array(x.shape, x.dtype)
        launch(kernels.activations.dropout, y.ravel(), contiguous(a).ravel(), uniforms, p)
        return y

    return masked(x), lambda g, needs: [masked(g)]


@fused_by(fused_dropout, reads=[])
def drop(x, p):
    kept = Generator.stream.random(x.shape, dtype=np.float32) >= p
    return x * as_constant(kept / (1.0 - p), x)


def dropout(x, p=0.5, training=True):
    """Each element is zero with probability p, else divided by 1 - p (Srivastava et al., 2014); x itself in eval."""
    if check_number("dropout", "p", p, 0.0, 1.0) == 1.0:
        raise ValueError(f"dropout: expected p to be a probability below 1, got {p}")
    x = as_operand(x)
    check_floats("dropout", x)
    return drop(x, float(p)) if training and p else x


def one_hot(labels, num_classes=-1):
    """A row for each label in int64: 1 at the label's index and 0 elsewhere. -1 makes as many classes as are named.

    >>> one_hot([2, 0], 3).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    labels = as_numpy(labels)
    check_indices("one_hot", "labels", labels)
    classes = check_int("one_hot", "num_classes", num_classes, -1)
    classes = int(labels.max(initial=0)) + 1 if classes == -1 else classes
    launch(check_range, labels, classes, "one_hot: label")
    rows = empty_array((*labels.shape, classes), np.int64)
    launch(np.copyto, rows, labels[..., None] == np.arange(classes))
    return Tensor(rows)
