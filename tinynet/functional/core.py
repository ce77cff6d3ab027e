"""Every function of a network, once: its textbook form, which runs on Values and on Tensors, then its fused kernel.

A textbook form is written in NumPy's names. Given an array of Values (a NumPy array with `dtype=object`) NumPy goes
through it number by number; given a Tensor the same line builds a graph of arrays. Above each textbook form stands the
operation that does the same for tensors in one or two kernels, forward and backward side by side; `@fused_by` hands
tensors over to it, and `with tinynet.textbook():` takes them back.
"""

import functools
import math

import numpy as np

from .. import kernels
from ..errors import refusing, shown
from ..graph import mode
from ..kernels import launch
from ..tensors import FLOATS, Generator, Op, Tensor, cast, contiguous, empty_array, filled, random_uniform, stack, where
from ..value import Value


def fused_by(kind):
    """Let the operation `kind` compute a textbook definition where its first argument is a Tensor.

    `kind().setup(*arguments)` keeps the options and returns the tensors among the arguments, in order. The operation
    remembers the call as `definition`, so that a drawing can open it.
    """

    def decorate(definition):
        @functools.wraps(definition)
        def function(*args, **options):
            if mode.reference or not isinstance(args[0], Tensor):
                return definition(*args, **options)
            op = kind()
            inputs = op.setup(*args, **options)
            op.definition = definition, args, options
            return op(*inputs)

        return function

    return decorate


def as_values(x, label=""):
    """Numbers as an array of Values without gradient, labelled by their places, x[0,1]. Values stay what they are."""
    array = np.asarray(x._data if isinstance(x, Tensor) else x)
    if array.dtype == object and all(isinstance(v, Value) for v in array.flat):
        return array
    values = np.empty(array.shape, dtype=object)
    for place in np.ndindex(array.shape):
        v = array[place]
        values[place] = v if isinstance(v, Value) else Value(
            v, f"{label}[{','.join(map(str, place))}]" if label and place else label, requires_grad=False)
    return values


def beside(x, weight, label="x"):
    """x in the engine of a weight: lists and NumPy arrays become Values, or a Tensor of the weight's dtype."""
    if isinstance(weight, Tensor):
        if isinstance(x, Tensor):
            if x.dtype != weight.dtype:
                what = "input" if label == "x" else label
                raise TypeError(f"the {what} is {x.dtype} and the weights are {weight.dtype}; convert one of them, "
                                f"as in {label}.to({weight.dtype.name!r})")
            return x
        array = np.asarray(x)
        if array.dtype == object:
            raise TypeError('the input holds Values and the weights are tensors; call model.to("scalar") first')
        return Tensor(array.astype(weight.dtype))
    return as_values(x, label)


def float_numbers(name, x):
    """Refuse a Tensor of whole numbers or bools."""
    if isinstance(x, Tensor) and x.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float numbers, got {x.dtype}")


def refuse_dtypes(name, **tensors):
    """For who has found that its tensors are not floats of one dtype: kernels read no others."""
    got = ", ".join(f"{what} {x.dtype}" for what, x in tensors.items())
    raise TypeError(f"{name}: expected float numbers of one dtype, got {got}")


def numbers(x):
    """The plain numbers of x, through which no gradient flows."""
    return x.detach() if isinstance(x, Tensor) else np.vectorize(float, otypes=[float])(x)


# -------------------------------------------------------------------------------------------------------- activations

def elementwise(name):
    """A row of the page of calculus as a function of a Value, a Tensor, or an array of Values."""
    of_values, of_a_tensor = np.frompyfunc(getattr(Value, name), 1, 1), getattr(Tensor, name)

    def function(x):
        if isinstance(x, Tensor):
            return of_a_tensor(x)
        if isinstance(x, Value):
            return getattr(x, name)()
        array = np.asarray(x)
        return of_values(as_values(array)) if array.dtype == object else of_a_tensor(Tensor(x))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of every element: a row of the page of calculus (value.py)."
    return refusing(function)


relu, sigmoid, tanh, softplus = map(elementwise, ("relu", "sigmoid", "tanh", "softplus"))
gelu_exact = elementwise("gelu")


@refusing
def gelu(x, approximate="none"):
    """x Φ(x), Φ the distribution function of the normal distribution (Hendrycks and Gimpel, 2016).

    approximate="tanh" gives ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))).
    """
    if approximate == "none":
        return gelu_exact(x)
    if approximate != "tanh":
        raise ValueError(f'gelu: approximate is "none" or "tanh", got {approximate!r}')
    x = arrays_of_values(x)
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@refusing
def leaky_relu(x, negative_slope=0.01):
    """x where it is positive, else negative_slope · x (Maas, Hannun and Ng, 2013).

    >>> leaky_relu([-2.0, 3.0], 0.5).tolist()
    [-1.0, 3.0]
    """
    x = arrays_of_values(x)
    return negative_slope * x + (1.0 - negative_slope) * relu(x)


ACTIVATIONS = {"relu": relu, "sigmoid": sigmoid, "tanh": tanh, "gelu": gelu, "softplus": softplus}


class Rows(Op):
    """An operation on the last axis: moves `dim` there, and hands the kernel (rows, n)."""

    def setup(self, x, dim=-1):
        self.dim = last_axis(self.name, x, dim)
        return (x,)

    def forward(self, x):
        y = empty_array(x.shape, x.dtype)
        self.rows(self.kernels()[0], y, x)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        self.rows(self.kernels()[1], dx, g, y)
        return (dx,)

    def rows(self, kernel, out, *arrays):
        n = out.shape[self.dim]
        if self.dim == out.ndim - 1:
            launch(kernel, out.reshape(-1, n), *[contiguous(a).reshape(-1, n) for a in arrays])
        else:
            moved = np.moveaxis(out, self.dim, -1)
            there = empty_array(moved.shape, out.dtype)
            launch(kernel, there.reshape(-1, n),
                *[contiguous(np.moveaxis(a, self.dim, -1)).reshape(-1, n) for a in arrays])
            launch(np.copyto, moved, there)


def last_axis(name, x, dim):
    if not isinstance(dim, (int, np.integer)) or not -x.ndim <= dim < x.ndim:
        raise IndexError(f"{name}: axis {dim} does not exist in shape {x.shape}")
    if not x.shape[dim]:
        raise ValueError(f"{name}: axis {dim} of shape {x.shape} is empty")
    float_numbers(name, x)
    return int(dim) % x.ndim


class Softmax(Rows):
    """∂/∂xᵢ = yᵢ (gᵢ - Σⱼ gⱼ yⱼ)."""

    name = "softmax"

    def kernels(self):
        return kernels.normalization.softmax, kernels.normalization.softmax_backward


@refusing
@fused_by(Softmax)
def softmax(x, dim=-1):
    """softmax(x)ᵢ = exp(xᵢ) / Σⱼ exp(xⱼ) along `dim` (Bridle, 1990); shifted by the largest, so that none overflows.

    >>> from tinynet import tensor
    >>> softmax(tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    x = arrays_of_values(x)
    last_axis("softmax", x, dim)
    e = np.exp(x - numbers(x.max(dim, keepdims=True)))
    return e / e.sum(dim, keepdims=True)


class LogSoftmax(Rows):
    """∂/∂xᵢ = gᵢ - exp(yᵢ) Σⱼ gⱼ."""

    name = "log_softmax"

    def kernels(self):
        return kernels.normalization.log_softmax, kernels.normalization.log_softmax_backward


@refusing
@fused_by(LogSoftmax)
def log_softmax(x, dim=-1):
    """log softmax(x)ᵢ = xᵢ - log Σⱼ exp(xⱼ) along `dim`."""
    x = arrays_of_values(x)
    last_axis("log_softmax", x, dim)
    x = x - numbers(x.max(dim, keepdims=True))
    return x - np.log(np.exp(x).sum(dim, keepdims=True))


@refusing
def logsumexp(x, dim, keepdim=False):
    """log Σⱼ exp(xⱼ) along `dim`; shifted by the largest, so that none overflows.

    >>> from tinynet import tensor
    >>> logsumexp(tensor([10000.0, 10000.0]), 0).item()     # 10000 + log 2
    10000.693359375
    """
    x = arrays_of_values(x)
    last_axis("logsumexp", x, dim)
    largest = numbers(x.max(dim, keepdims=True))
    finite = abs(largest) < math.inf
    largest = where(finite, largest, 0.0) if isinstance(x, Tensor) else np.where(finite, largest, 0.0)
    y = np.log(np.exp(x - largest).sum(dim, keepdims=True)) + largest
    return y if keepdim else y.squeeze(dim)


def arrays_of_values(x):
    """A list of Values, or one, as an array; a list of numbers as a Tensor."""
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    return as_values(array) if array.dtype == object else Tensor(x)


# ------------------------------------------------------------------------------------------------------ linear layers

def by_rows(x):
    """An array with the axes before the last made one."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


class Linear(Op):
    """y = act(x Wᵀ + b). With z the gradient before the activation: ∂x = z W, ∂W = zᵀ x, ∂b = Σ z over the rows."""

    name = "linear"

    def setup(self, x, weight, bias=None, activation=None):
        self.activation = activation
        inputs = (x, weight) if bias is None else (x, weight, bias)
        a, w = x._data, weight._data
        if (a.dtype != w.dtype or a.dtype not in FLOATS or a.shape[-1:] != w.shape[1:]
                or bias is not None and (bias._data.shape != w.shape[:1] or bias._data.dtype != w.dtype)):
            raise ValueError("linear: expected x (…, in), weight (out, in) and bias (out) of one float dtype, got "
                             + ", ".join(map(shown, inputs)))
        return inputs

    def forward(self, x, w, b=None):
        y = empty_array((*x.shape[:-1], len(w)), x.dtype)
        out, self.x = by_rows(y), by_rows(contiguous(x))
        if b is None and self.activation:
            b = filled(len(w), w.dtype, 0.0)
        if b is None:
            launch(kernels.matmul, out, self.x, w.T)
        else:
            keeps = self.activation and kernels.dense.keeps_input(self.activation)  # f' depends on what went in
            self.z = empty_array(out.shape, x.dtype) if keeps else out
            launch(kernels.dense.layer(self.activation), out, self.z, self.x, contiguous(w), contiguous(b))
        return y

    def backward(self, g, y, x, w, b=None):
        z, needs = by_rows(contiguous(g)), self.needs
        dx = empty_array(x.shape, x.dtype) if needs[0] else None
        dw = empty_array(w.shape, w.dtype) if needs[1] else None
        db = empty_array(len(w), w.dtype) if b is not None and needs[2] or self.activation else None
        if self.activation:
            g, z = z, empty_array(z.shape, z.dtype)
            launch(kernels.dense.bias_act_backward(self.activation), z, db, g, self.z, by_rows(y))
        launch(kernels.dense.layer_backward, None if dx is None else by_rows(dx), dw,
            None if self.activation else db, z, self.x, contiguous(w))
        return dx, dw, db


@refusing
@fused_by(Linear)
def linear(x, weight, bias=None, activation=None):
    """act(x Wᵀ + b): x (…, in), weight (out, in), bias (out), result (…, out).

    `activation` names one of relu, sigmoid, tanh, gelu, softplus; None is the plain linear layer.
    """
    y = x @ weight.T
    if bias is not None:
        y = y + bias
    return ACTIVATIONS[activation](y) if activation else y


class Embedding(Op):
    """Rows of a table; the gradient of a row is the sum over the places that took it."""

    name = "embedding"

    def setup(self, weight, indices):
        self.indices = indices
        return (weight,)

    def forward(self, w):
        y = empty_array((*self.indices.shape, w.shape[1]), w.dtype)
        launch(kernels.dense.embedding, y.reshape(-1, w.shape[1]), contiguous(w), self.indices.ravel())
        return y

    def backward(self, g, y, w):
        dw = empty_array(w.shape, w.dtype)
        launch(kernels.dense.embedding_backward, dw, contiguous(g).reshape(-1, w.shape[1]), self.indices.ravel())
        return (dw,)


@fused_by(Embedding)
def table_rows(weight, indices):
    return weight[indices]


@refusing
def embedding(indices, weight):
    """weight[indices]: a row of the table (entries, width) for each index; result (*indices.shape, width).

    On the scalar engine an index may also be a row of Values, (…, entries), with 1 in its place and 0 elsewhere: then
    it is their product with the table, so that a compiled program can be given other indices with each sample.
    """
    if isinstance(indices, Tensor):
        indices = indices._data
    indices = np.asarray(indices)
    if indices.dtype == object and indices.size and all(isinstance(v, Value) for v in indices.flat):
        if isinstance(weight, Tensor) or not indices.ndim or indices.shape[-1] != len(weight):
            raise ValueError(f"embedding: rows of Values, of shape {indices.shape}, are for a table of "
                             f"{(indices.shape or (0,))[-1]} entries on the scalar engine, got {tuple(weight.shape)}"
                             + " of tensors" * isinstance(weight, Tensor))
        return indices @ weight
    if indices.dtype.kind not in "iu":
        raise TypeError(f"embedding: expected whole numbers as indices, got {indices.dtype}")
    weight = arrays_of_values(weight)
    if weight.ndim != 2 or not weight.shape[1]:
        raise ValueError(f"embedding: expected a table (entries, width), got shape {tuple(weight.shape)}")
    float_numbers("embedding", weight)
    launch(in_range, indices, len(weight), "embedding: index")
    return table_rows(weight, contiguous(cast(indices, np.int64)))


def in_range(indices, n, what):
    """IndexError where an index is not one of 0 … n - 1; called through `run`, so that replays check as well."""
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        wrong = indices[(indices < 0) | (indices >= n)].flat[0]
        raise IndexError(f"{what} {wrong} is outside 0 … {n - 1}")


class Dropout(Op):
    """y = x · mask / (1 - p), the mask drawn anew at each call, also in a replayed step."""

    name = "dropout"

    def setup(self, x, p):
        float_numbers(self.name, x)
        self.p = p
        return (x,)

    def forward(self, x):
        self.u, y = empty_array(x.shape, np.float32), empty_array(x.shape, x.dtype)
        launch(random_uniform, self.u)
        launch(kernels.activations.dropout, y.ravel(), contiguous(x).ravel(), self.u.ravel(), self.p)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.activations.dropout, dx.ravel(), contiguous(g).ravel(), self.u.ravel(), self.p)
        return (dx,)


@fused_by(Dropout)
def drop(x, p):
    kept = Generator.stream.random(x.shape, dtype=np.float32) >= p
    return x * (kept / (1.0 - p) if not isinstance(x, Tensor) else Tensor((kept / (1.0 - p)).astype(x.dtype)))


@refusing
def dropout(x, p=0.5, training=True):
    """Each element is zero with probability p, else divided by 1 - p (Srivastava et al., 2014); x itself in eval."""
    if not 0.0 <= p < 1.0:
        raise ValueError(f"dropout: p is a probability below 1, got {p}")
    float_numbers("dropout", x)
    return drop(arrays_of_values(x), p) if training and p else x


@refusing
def one_hot(labels, num_classes=-1):
    """A row for each label, 1 in the label's place and 0 elsewhere, in int64; -1 makes as many classes as are named.

    >>> one_hot([2, 0], 3).tolist()
    [[0, 0, 1], [1, 0, 0]]
    """
    labels = np.asarray(labels._data if isinstance(labels, Tensor) else labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: expected whole numbers (class indices), got {labels.dtype}")
    classes = int(labels.max(initial=0)) + 1 if num_classes == -1 else num_classes
    launch(in_range, labels, classes, "one_hot: label")
    rows = empty_array((*labels.shape, classes), np.int64)
    launch(np.copyto, rows, labels[..., None] == np.arange(classes))
    return Tensor(rows)


# ------------------------------------------------------------------------------------------------------ normalisation

class LayerNorm(Op):
    """With x̂ the normalised rows and s = g w: ∂x = (s - mean(s) - x̂ mean(s x̂)) / σ, ∂w = Σ g x̂, ∂b = Σ g."""

    name = "layer_norm"

    def setup(self, x, weight, bias, eps=1e-5):
        if not x.dtype == weight.dtype == bias.dtype or x.dtype not in FLOATS:
            refuse_dtypes(self.name, input=x, weight=weight, bias=bias)
        self.eps = eps
        return (x, weight, bias)

    def forward(self, x, w, b):
        y = empty_array(x.shape, x.dtype)
        self.x = contiguous(x).reshape(-1, w.size)
        self.mean, self.rstd = empty_array(len(self.x), x.dtype), empty_array(len(self.x), x.dtype)
        launch(kernels.normalization.layer_norm, y.reshape(-1, w.size), self.mean, self.rstd, self.x, contiguous(w).ravel(),
            contiguous(b).ravel(), self.eps)
        return y

    def backward(self, g, y, x, w, b):
        dx, dw, db = (empty_array(a.shape, a.dtype) for a in (x, w, b))
        launch(kernels.normalization.layer_norm_backward, dx.reshape(-1, w.size), dw.ravel(), db.ravel(),
            contiguous(g).reshape(-1, w.size), self.x, self.mean, self.rstd, contiguous(w).ravel())
        return dx, dw, db


@fused_by(LayerNorm)
def normalise(x, weight, bias, eps=1e-5):
    axes = tuple(range(x.ndim - weight.ndim, x.ndim))
    d = x - x.mean(axes, keepdims=True)
    return d / np.sqrt((d * d).mean(axes, keepdims=True) + eps) * weight + bias


@refusing
def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(x - mean) / √(var + eps) · weight + bias over the last axes (Ba, Kiros and Hinton, 2016)."""
    x, shape = arrays_of_values(x), tuple(np.atleast_1d(normalized_shape).tolist())
    if tuple(x.shape[x.ndim - len(shape):]) != shape:
        raise ValueError(f"layer_norm: input has shape {tuple(x.shape)}, expected it to end in {shape}")
    if not math.prod(shape):
        raise ValueError("layer_norm: there is nothing to average over")
    for what, w in (("weight", weight), ("bias", bias)):
        if w is not None and tuple(w.shape) != shape:
            raise ValueError(f"layer_norm: {what} has shape {tuple(w.shape)}, expected {shape}")
    dtype = x.dtype if isinstance(x, Tensor) else float
    weight = weight if weight is not None else np.ones(shape, dtype)
    bias = bias if bias is not None else np.zeros(shape, dtype)
    if isinstance(x, Tensor):
        weight, bias = (w if isinstance(w, Tensor) else Tensor(w) for w in (weight, bias))
    return normalise(x, weight, bias, eps)


# ------------------------------------------------------------------------------------------------------------- losses

def reduced(losses, reduction):
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


class Loss(Op):
    """A loss of predictions x and targets t. The kernels multiply by `factor`, 1/n for the mean of n terms."""

    def setup(self, input, target, reduction="mean"):
        self.reduction = reduction
        return (input, target)

    def forward(self, x, t):
        self.factor = 1.0 / x.size if self.reduction == "mean" else 1.0
        y = empty_array(x.shape if self.reduction == "none" else (), x.dtype)
        self.x, self.t = contiguous(x).ravel(), contiguous(t).ravel()
        launch(self.kernel(), y.ravel(), self.x, self.t, self.factor)
        return y

    def backward(self, g, y, x, t):
        dx, g = empty_array(x.shape, x.dtype), contiguous(g).ravel()
        launch(self.kernel_backward(), dx.ravel(), g, self.x, self.t, self.factor)
        return dx, self.backward_target(g, self.x, dx) if self.needs[1] else None


class MSELoss(Loss):
    """∂/∂input = 2 (input - target), over n for the mean."""

    name = "mse_loss"

    def kernel(self):
        return kernels.losses.mse

    def kernel_backward(self):
        return kernels.losses.mse_backward

    def backward_target(self, g, x, dx):
        dt = empty_array(dx.shape, dx.dtype)
        launch(np.negative, dx, dt)
        return dt


@fused_by(MSELoss)
def squared_errors(input, target, reduction="mean"):
    d = input - target
    return reduced(d * d, reduction)


@refusing
def mse_loss(input, target, reduction="mean"):
    """(input - target)² of every element, and their mean (or "sum", or "none")."""
    input, target = same_shapes("mse_loss", input, target, reduction)
    return squared_errors(input, target, reduction)


@refusing
def l1_loss(input, target, reduction="mean"):
    """|input - target| of every element, and their mean (or "sum", or "none")."""
    input, target = same_shapes("l1_loss", input, target, reduction)
    return reduced(abs(input - target), reduction)


class CrossEntropy(Op):
    """On logits: loss = log Σ exp(xⱼ) - x_target; ∂/∂xⱼ = softmax(x)ⱼ - [j = target], over n for the mean."""

    name = "cross_entropy"

    def setup(self, logits, target, reduction="mean", ignore_index=-100):
        self.target, self.reduction, self.ignored = contiguous(target), reduction, ignore_index
        return (logits,)

    def forward(self, x):
        self.probabilities = empty_array(x.shape, x.dtype)
        y = empty_array(len(x) if self.reduction == "none" else (), x.dtype)
        launch(kernels.losses.cross_entropy, y.ravel(), self.probabilities, contiguous(x), self.target, self.ignored,
            self.reduction == "mean")
        launch(check_targets, self.target, x.shape[1], self.ignored, self.name, y)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.losses.cross_entropy_backward, dx, contiguous(g).ravel(), self.probabilities, self.target,
            self.ignored, self.reduction == "mean")
        return (dx,)


@fused_by(CrossEntropy)
def negative_log_likelihood(logits, target, reduction="mean", ignore_index=-100):
    return chosen("cross_entropy", log_softmax(logits, 1), target, reduction, ignore_index)


def chosen(name, log_probabilities, target, reduction, ignore_index):
    """-log p of the class that each target names; the mean is that of the rows that count."""
    launch(check_targets, target, log_probabilities.shape[1], ignore_index, name)
    counts, chosen = empty_array(target.shape, bool), empty_array(target.shape, np.int64)
    launch(np.not_equal, target, ignore_index, counts)
    launch(np.multiply, target, counts, chosen)
    losses = -log_probabilities[np.arange(len(target)), chosen]
    if mode.plan is None and counts.all():
        return reduced(losses, reduction)
    weights = empty_array(target.shape, float if losses.dtype == object else losses.dtype)
    launch(np.copyto, weights, counts)
    weights = Tensor(weights) if isinstance(losses, Tensor) else weights
    losses = losses * weights
    return losses.sum() / weights.sum() if reduction == "mean" else reduced(losses, reduction)


@refusing
def cross_entropy(input, target, reduction="mean", ignore_index=-100):
    """-log softmax(input)[target], averaged over the batch: input (n, classes) logits, target (n) class indices.

    A single example, input (classes) and target (), gives its loss. Where the target is `ignore_index` there is no
    loss, and the mean is that of the others: so texts of different lengths share a batch.

    >>> from tinynet import tensor
    >>> round(cross_entropy(tensor([[0.0, 0.0]]), [1]).item(), 4)     # log 2
    0.6931
    """
    return negative_log_likelihood(*of_classes("cross_entropy", input, target, reduction, ignore_index), ignore_index)


@refusing
def nll_loss(input, target, reduction="mean", ignore_index=-100):
    """-input[target], averaged over the batch: what cross_entropy does, of log_softmax(logits).

    >>> logits = [[1.0, 2.0, 0.5]]
    >>> nll_loss(log_softmax(logits), [1]).item() == cross_entropy(logits, [1]).item()
    True
    """
    return chosen("nll_loss", *of_classes("nll_loss", input, target, reduction, ignore_index), ignore_index)


def of_classes(name, input, target, reduction, ignore_index):
    """(input, target, reduction) of a loss of class indices, as (n, classes) and (n) int64."""
    check_reduction(name, reduction)
    input = arrays_of_values(input)
    float_numbers(name, input)
    target = np.asarray(target._data if isinstance(target, Tensor) else target)
    if target.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected whole numbers as targets (class indices), got {target.dtype}")
    if input.ndim == 1 and target.ndim == 0:
        input, target = input.reshape(1, -1), target.reshape(1)
        reduction = "sum" if reduction == "none" else reduction
    if input.ndim != 2 or target.ndim != 1 or len(input) != len(target) or not input.shape[1]:
        raise ValueError(f"{name}: expected input (n, classes) and target (n), got {tuple(input.shape)} and "
                         f"{target.shape}")
    if reduction == "mean" and not len(target):
        raise ValueError(f"{name}: the batch is empty, there is nothing to average")
    if target.dtype != np.int64:
        whole = empty_array(target.shape, np.int64)
        launch(np.copyto, whole, target)
        target = whole
    return input, target, reduction


def check_targets(target, classes, ignore_index, name, loss=None):
    """See `in_range`. The kernel answers a target outside with a loss that is NaN: then it is time to look."""
    if loss is None or loss.size != 1 or loss != loss:
        in_range(target[target != ignore_index], classes, f"{name}: target")


class BCE(Loss):
    """∂/∂p = (p - t) / (p (1 - p)), the denominator at least 10⁻¹², over n for the mean."""

    name = "binary_cross_entropy"

    def forward(self, p, t):
        self.factor = 1.0 / p.size if self.reduction == "mean" else 1.0
        y = empty_array(p.shape if self.reduction == "none" else (), p.dtype)
        launch(put_bce, y, p, t, self.factor)
        return y

    def backward(self, g, y, p, t):
        dp, dt = empty_array(p.shape, p.dtype), empty_array(p.shape, p.dtype) if self.needs[1] else None
        launch(put_bce_gradients, dp, dt, g, p, t, self.factor)
        return dp, dt


def put_bce(y, p, t, factor):
    losses = -(t * log_at_least(p) + (1 - t) * log_at_least(1 - p))
    y[...] = losses if y.shape == p.shape else losses.sum() * factor


def put_bce_gradients(dp, dt, g, p, t, factor):
    dp[...] = g * factor * (p - t) / np.maximum(p * (1 - p), 1e-12)
    if dt is not None:
        dt[...] = g * factor * (log_at_least(1 - p) - log_at_least(p))


def log_at_least(p):
    """log p, at least -100: a certainty that is wrong costs much, but not ∞."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(p), -100).astype(p.dtype)


@fused_by(BCE)
def probability_losses(input, target, reduction="mean"):
    least = np.maximum if isinstance(input, Tensor) else lambda a, b: a  # Values refuse log 0 themselves
    return reduced(-(target * least(np.log(input), -100.0) + (1.0 - target) * least(np.log(1.0 - input), -100.0)),
                   reduction)


@refusing
def binary_cross_entropy(input, target, reduction="mean"):
    """-t log p - (1 - t) log(1 - p) for probabilities p and targets t in [0, 1]; the logarithms at least -100.

    Of p = sigmoid(x), `binary_cross_entropy_with_logits(x, t)` is the same without the loss of digits near 0 and 1.

    >>> round(binary_cross_entropy([0.5, 0.5], [0.0, 1.0]).item(), 4)     # log 2
    0.6931
    """
    name = "binary_cross_entropy"
    input, target = same_shapes(name, input, target, reduction)
    launch(probabilities, name, input._data if isinstance(input, Tensor) else np.vectorize(float, otypes=[float])(input))
    return probability_losses(input, target, reduction)


def probabilities(name, p):
    """ValueError where one of the numbers is no probability (a nan passes through)."""
    wrong = (p < 0) | (p > 1)
    if wrong.any():
        raise ValueError(f"{name}: expected probabilities from 0 to 1 (of a sigmoid), got {p[wrong].flat[0]}")


class BCEWithLogits(Loss):
    """∂/∂x = sigmoid(x) - target, ∂/∂target = -x, over n for the mean."""

    name = "binary_cross_entropy_with_logits"

    def kernel(self):
        return kernels.losses.bce_with_logits

    def kernel_backward(self):
        return kernels.losses.bce_with_logits_backward

    def backward_target(self, g, x, dx):
        dt = empty_array(dx.shape, dx.dtype)
        launch(np.multiply, g, x, dt.reshape(-1))
        launch(np.multiply, dt, -self.factor, dt)
        return dt


@fused_by(BCEWithLogits)
def logit_losses(input, target, reduction="mean"):
    return reduced(softplus(input) - input * target, reduction)


@refusing
def binary_cross_entropy_with_logits(input, target, reduction="mean"):
    """-t log σ(x) - (1 - t) log(1 - σ(x)) = softplus(x) - x t, σ the sigmoid, for targets t in [0, 1]."""
    input, target = same_shapes("binary_cross_entropy_with_logits", input, target, reduction)
    return logit_losses(input, target, reduction)


def check_reduction(name, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{name}: reduction is "mean", "sum" or "none", got {reduction!r}')


def same_shapes(name, input, target, reduction):
    """Both in one engine and of one shape: a loss that broadcasts (n, 1) against (n) is a classic silent mistake."""
    check_reduction(name, reduction)
    input = arrays_of_values(input)
    float_numbers(name, input)
    if isinstance(input, Tensor):
        target = target.to(input.dtype) if isinstance(target, Tensor) else beside(target, input)
    else:
        target = np.asarray(target._data if isinstance(target, Tensor) else target)
    shape = input.shape
    if shape != target.shape:
        raise ValueError(f"{name}: input has shape {shape} and target {target.shape}; they must be the same")
    if reduction == "mean" and 0 in shape:
        raise ValueError(f"{name}: the batch is empty, there is nothing to average")
    return input, target


# ---------------------------------------------------------------------------------------------------------- attention

class Attention(Op):
    """softmax(QKᵀ/√d + mask) V by blocks of queries and keys: no array of all scores (Dao et al., 2022).

    With P the weights: ∂V = Pᵀ g, ∂S = P ∘ (g Vᵀ - rows(g ∘ y)), ∂Q = ∂S K / √d, ∂K = ∂Sᵀ Q / √d; P is computed anew
    from the log-sum-exp of each row, which `forward` kept.
    """

    name = "attention"

    def setup(self, q, k, v, allowed=None, causal=False, scale=1.0):
        attention_fits(self.name, q, k, v)
        if not q.dtype == k.dtype == v.dtype or q.dtype not in FLOATS:
            refuse_dtypes(self.name, query=q, key=k, value=v)
        self.allowed, self.causal, self.scale = allowed, causal, scale
        return (q, k, v)

    def forward(self, q, k, v):
        q, k, v = self.four(q), self.four(k), self.four(v)
        self.mask = mask_for(self.allowed, q, k, self.shape)
        y = empty_array((*q.shape[:-1], v.shape[-1]), q.dtype)
        self.lse = empty_array(q.shape[:-1], q.dtype)
        launch(kernels.attention.attention, y, self.lse, q, k, v, self.mask, self.causal, self.scale)
        return y.reshape(self.shape + y.shape[2:])

    def backward(self, g, y, q, k, v):
        dq, dk, dv = (empty_array(x.shape, x.dtype) for x in (q, k, v))
        four = self.four
        launch(kernels.attention.attention_backward, four(dq), four(dk), four(dv), four(contiguous(g)), four(y), self.lse,
            four(q), four(k), four(v), self.mask, self.causal, self.scale)
        return dq, dk, dv

    def four(self, x):
        """x as (batch, heads, tokens, width), its last axis contiguous."""
        self.shape = x.shape[:-2]
        if x.strides[-1] != x.itemsize and x.size:
            x = contiguous(x)
        if x.ndim == 4:
            return x
        x = contiguous(x)
        return x.reshape(1, math.prod(x.shape[:-2]), *x.shape[-2:])


def attention_fits(name, q, k, v):
    """Refuse what is not query (…, queries, d), key (…, keys, d) and value (…, keys, e)."""
    if (q.ndim < 2 or not q.ndim == k.ndim == v.ndim or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]
            or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2] or not q.shape[-1] or not k.shape[-2]):
        raise ValueError(f"{name}: expected query (…, queries, d), key (…, keys, d) and value (…, keys, e), got "
                         f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}")


def mask_for(allowed, q, k, lead):
    """The scores to add, (batch, heads, queries, keys): 0 and -∞ for a mask of bools; empty where there is none.
    `lead` are the axes of the mask before the last two."""
    if allowed is None:
        return np.zeros((0, 0, 0, 0), q.dtype)
    mask = empty_array(allowed.shape, q.dtype)
    launch(write_mask, mask, allowed)
    if len(lead) > 2:
        mask = contiguous(np.broadcast_to(mask, (*lead, *mask.shape[-2:]))).reshape(1, -1, *mask.shape[-2:])
    return np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))


def write_mask(mask, allowed):
    mask[...] = np.where(allowed, 0.0, -np.inf) if allowed.dtype == bool else allowed


def choose(condition, a, b):
    """a where the condition holds, else the number b, on either engine."""
    if isinstance(a, Tensor):
        return where(Tensor(condition), a, b)
    return np.where(condition, a, as_values(np.full(condition.shape, b)))


def attention_weights(q, k, allowed=None, causal=False, scale=1.0):
    """softmax(QKᵀ · scale + mask), (…, queries, keys); a query that may attend to nothing has weights 0."""
    scores = q @ k.swapaxes(-1, -2) * scale
    if allowed is not None and allowed.dtype != bool:
        added, mask = empty_array(allowed.shape, scores.dtype if isinstance(scores, Tensor) else float), allowed
        allowed = empty_array(mask.shape, bool)
        launch(np.not_equal, mask, -np.inf, allowed)
        launch(write_finite, added, mask)
        scores = scores + (Tensor(added) if isinstance(scores, Tensor) else added)
    if allowed is None and not causal:
        return softmax(scores, -1)
    seen, some = empty_array(scores.shape, bool), empty_array((*scores.shape[:-1], 1), bool)
    launch(write_seen, seen, some, allowed, causal)
    weights = softmax(choose(seen, scores, -np.inf) if mode.plan is not None or not seen.all() else scores, -1)
    if mode.plan is None and some.all():
        return weights
    return weights * (Tensor(cast(some, weights.dtype)) if isinstance(weights, Tensor) else some.astype(float))


def write_finite(added, mask):
    added[...] = np.where(mask == -np.inf, 0.0, mask)


def write_seen(seen, some, allowed, causal):
    """seen: where a query sees a key, or where it sees none at all; some: whether it sees any."""
    seen[...] = True if allowed is None else allowed
    if causal:
        np.logical_and(seen, np.tril(np.ones(seen.shape[-2:], bool)), out=seen)
    np.any(seen, -1, keepdims=True, out=some)
    np.logical_or(seen, ~some, out=seen)


@fused_by(Attention)
def attend(q, k, v, allowed=None, causal=False, scale=1.0):
    return attention_weights(q, k, allowed, causal, scale) @ v


@refusing
def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """softmax(QKᵀ/√d + mask) V (Vaswani et al., 2017): query (…, queries, d), key (…, keys, d), value (…, keys, e).

    attn_mask (…, queries, keys) of bools says where a query may attend to a key, one of floats is added to the scores;
    is_causal lets query i attend to the keys 0 … i. The result is (…, queries, e).

    >>> from tinynet import tensor
    >>> q = k = v = tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> scaled_dot_product_attention(q, k, v, is_causal=True).tolist()[0]      # the first token sees itself alone
    [1.0, 0.0]
    """
    name = "scaled_dot_product_attention"
    q, k, v = (arrays_of_values(x) for x in (query, key, value))
    attention_fits(name, q, k, v)
    allowed = None
    if attn_mask is not None:
        if isinstance(attn_mask, Tensor) and attn_mask.requires_grad:
            raise ValueError(f"{name}: a mask takes no gradient; add learned scores to the query or the key")
        allowed = np.asarray(attn_mask._data if isinstance(attn_mask, Tensor) else attn_mask)
        wanted = (*q.shape[:-1], k.shape[-2])
        if allowed.ndim < 2 or allowed.shape[-2:] != wanted[-2:] or allowed.ndim > len(wanted) or any(
                m not in (1, n) for m, n in zip(allowed.shape[::-1], wanted[::-1])):
            raise ValueError(f"{name}: the mask has shape {allowed.shape}, expected one that broadcasts to {wanted}")
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if dropout_p:
        return dropout(attention_weights(q, k, allowed, is_causal, scale), dropout_p) @ v
    return attend(q, k, v, allowed, is_causal, scale)


class SelfAttention(Attention):
    """Attention of a sequence to itself, from the projections of all heads side by side: no part is ever copied."""

    name = "self_attention"

    def setup(self, qkv, heads, allowed=None, causal=False):
        if qkv.ndim != 3 or not qkv.shape[1] or not qkv.shape[2] or qkv.shape[2] % (3 * heads):
            raise ValueError(f"{self.name}: expected (batch, tokens, 3 · heads · d) for {heads} heads, got {qkv.shape}")
        float_numbers(self.name, qkv)
        self.heads, self.allowed, self.causal = heads, allowed, causal
        self.scale = 1.0 / math.sqrt(qkv.shape[-1] // (3 * heads))
        return (qkv,)

    def parts(self, qkv):
        """Q, K and V as views (batch, heads, tokens, d) of (batch, tokens, 3 · heads · d)."""
        batch, tokens, width = qkv.shape
        return qkv.reshape(batch, tokens, 3, self.heads, width // (3 * self.heads)).transpose(2, 0, 3, 1, 4)

    def forward(self, qkv):
        qkv = self.qkv = contiguous(qkv)
        q, k, v = self.parts(qkv)
        self.mask, self.lse = mask_for(self.allowed, q, k, q.shape[:2]), empty_array(q.shape[:-1], q.dtype)
        y = empty_array((*qkv.shape[:2], qkv.shape[2] // 3), qkv.dtype)
        launch(kernels.attention.attention, self.merged(y), self.lse, q, k, v, self.mask, self.causal, self.scale)
        return y

    def merged(self, y):
        return y.reshape(*y.shape[:2], self.heads, y.shape[2] // self.heads).transpose(0, 2, 1, 3)

    def backward(self, g, y, qkv):
        d = empty_array(qkv.shape, qkv.dtype)
        launch(kernels.attention.attention_backward, *self.parts(d), self.merged(contiguous(g)), self.merged(y), self.lse,
            *self.parts(self.qkv), self.mask, self.causal, self.scale)
        return (d,)


@fused_by(SelfAttention)
def self_attention(qkv, heads, allowed=None, causal=False):
    """Attention of each head among the tokens of qkv (batch, tokens, 3 · heads · d); heads are merged side by side."""
    q, k, v = (split_heads(x, heads) for x in thirds(qkv))
    y = attend(q, k, v, allowed, causal, 1.0 / math.sqrt(q.shape[-1]))
    return merge_heads(y)


def thirds(qkv):
    width = qkv.shape[-1] // 3
    return [qkv[..., i * width:(i + 1) * width] for i in range(3)]


def split_heads(x, heads):
    """(batch, tokens, heads · d) as (batch, heads, tokens, d)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(batch, heads, tokens, d) as (batch, tokens, heads · d)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


# ------------------------------------------------------------------------------------------- convolution and pooling

def pair(name, what, x, least):
    """A setting of height and width: a whole number for both, or a tuple of two."""
    both = tuple(x) if isinstance(x, (tuple, list)) else (x, x)
    if len(both) != 2 or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= least
                                 for n in both):
        raise ValueError(f"{name}: {what} is a whole number from {least} on, or a tuple of two, got {x!r}")
    return tuple(map(int, both))


def images(name, x):
    """x as (batch, channels, height, width); a single image is a batch of one."""
    if x.ndim not in (3, 4):
        raise ValueError(f"{name}: expected images (batch, channels, height, width), got shape {tuple(x.shape)}")
    return x if x.ndim == 4 else x.reshape(1, *x.shape)


def windows_fit(name, x, kernel, stride, padding):
    """How many windows there are, (rows, columns); ValueError where there is none."""
    counts = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(x.shape[2:], kernel, stride, padding))
    if min(counts) < 1 or not x.shape[2] or not x.shape[3]:
        padded = f", padded by {padding[0]} × {padding[1]} on each side" if any(padding) else ""
        raise ValueError(f"{name}: a window of {kernel[0]} × {kernel[1]} does not fit into images of "
                         f"{x.shape[2]} × {x.shape[3]}{padded}")
    return counts


class Windows(Op):
    """All windows of the padded images; each element's gradient goes back to the pixel that it came from."""

    name = "windows"

    def __init__(self, kernel, stride, padding, fill):
        self.kernel, self.stride, self.padding, self.fill = kernel, stride, padding, fill

    def padded(self, x, fill):
        """(images with a margin, the part of them that is x)"""
        (top, left), (h, w) = self.padding, x.shape[2:]
        array = filled((*x.shape[:2], h + 2 * top, w + 2 * left), x.dtype, fill)
        return array, array[:, :, top:top + h, left:left + w]

    def forward(self, x):
        array, inside = self.padded(x, self.fill)
        launch(np.copyto, inside, x)
        return sliding(array, self.kernel, self.stride)

    def backward(self, g, y, x):
        array, inside = self.padded(x, 0.0)
        back = sliding(array, self.kernel, self.stride, writeable=True)
        for place in np.ndindex(self.kernel):  # windows overlap, the elements at one place of all windows do not
            launch(np.add, back[..., *place], g[..., *place], back[..., *place])
        return (inside,)


def sliding(array, kernel, stride, writeable=False):
    view = np.lib.stride_tricks.sliding_window_view(array, kernel, (2, 3), writeable=writeable)
    return view[:, :, ::stride[0], ::stride[1]]


def windows(x, kernel, stride, padding, fill=0.0):
    """All windows of the padded images x (batch, channels, h, w): (batch, channels, rows, columns, kh, kw)."""
    if isinstance(x, Tensor):
        return Windows(kernel, stride, padding, fill)(x)
    margin = ((0, 0), (0, 0), *((p, p) for p in padding))
    return sliding(np.pad(x, margin, constant_values=fill), kernel, stride)


class Einsum(Op):
    """Two operands: the gradient of one is the einsum of g with the other, the letters exchanged likewise."""

    name = "einsum"

    def __init__(self, letters):
        self.first, self.second, self.result = letters.replace("->", ",").split(",")

    def forward(self, a, b):
        return self.product(self.first, a, self.second, b, self.result)

    def backward(self, g, y, a, b):
        return (self.product(self.result, g, self.second, b, self.first),
                self.product(self.result, g, self.first, a, self.second))

    def product(self, first, a, second, b, result):
        sizes = dict(zip(first + second, a.shape + b.shape))
        y = empty_array(tuple(sizes[letter] for letter in result), a.dtype)
        launch(into_einsum, y, f"{first},{second}->{result}", a, b)
        return y


def into_einsum(out, letters, a, b):
    np.einsum(letters, a, b, out=out)


def einsum(letters, a, b):
    """Σ of the products over the letters that the result lacks: einsum("ij,jk->ik", a, b) is a @ b.

    (NumPy's own, of Values, would begin every sum with a 0, and pictures would show it.)
    """
    first, second, result = letters.replace("->", ",").split(",")
    sizes = dict(zip(first + second, a.shape + b.shape))
    if (len(first), len(second), a.dtype) != (a.ndim, b.ndim, b.dtype) or a.shape + b.shape != tuple(
            sizes[letter] for letter in first + second):
        raise ValueError(f"einsum: {letters} does not fit {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}")
    if isinstance(a, Tensor):
        return Einsum(letters)(a, b)
    order = result + "".join(sorted(set(first + second) - set(result)))

    def spread(x, names):
        x = x.transpose([names.index(letter) for letter in order if letter in names])
        return x[tuple(slice(None) if letter in names else None for letter in order)]

    return (spread(a, first) * spread(b, second)).sum(tuple(range(len(result), len(order))))


class Conv2d(Op):
    """With columns the windows of x: y = W columns, ∂W = g columnsᵀ, ∂columns = Wᵀ g, each back to its pixel."""

    name = "conv2d"

    def setup(self, x, weight, bias, stride, padding):
        self.settings = (*stride, *padding)
        self.shape = windows_fit(self.name, x, weight.shape[2:], stride, padding)
        return (x, weight) if bias is None else (x, weight, bias)

    def forward(self, x, w, b=None):
        y = empty_array((len(x), len(w), *self.shape), x.dtype)
        b = filled(len(w), w.dtype, 0.0) if b is None else b
        launch(kernels.convolution.conv2d, y, contiguous(x), contiguous(w), contiguous(b), *self.settings)
        return y

    def backward(self, g, y, x, w, b=None):
        dx = empty_array(x.shape if self.needs[0] else (0,) * 4, x.dtype)
        dw, db = empty_array(w.shape, w.dtype), empty_array(len(w), w.dtype)
        launch(kernels.convolution.conv2d_backward, dx, dw, db, contiguous(g), contiguous(x), contiguous(w),
            *self.settings)
        return dx if self.needs[0] else None, dw, db


@fused_by(Conv2d)
def convolve(x, weight, bias, stride, padding):
    y = einsum("ncrsij,ocij->nors", windows(x, weight.shape[2:], stride, padding), weight)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


@refusing
def conv2d(input, weight, bias=None, stride=1, padding=0):
    """y[n, o, r, s] = bias[o] + Σ_cij weight[o, c, i, j] x[n, c, r · stride + i, s · stride + j], x padded by zeros.

    input (batch, channels, h, w) or (channels, h, w), weight (outputs, channels, kh, kw), bias (outputs); stride and
    padding are whole numbers or (height, width). (LeCun et al., 1989; strictly a correlation: nothing is mirrored.)

    >>> from tinynet import ones
    >>> conv2d(ones(1, 1, 3, 3), ones(1, 1, 2, 2)).tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    name = "conv2d"
    stride, padding = pair(name, "stride", stride, 1), pair(name, "padding", padding, 0)
    weight = arrays_of_values(weight)
    float_numbers(name, weight)
    x = beside(input, weight)
    if weight.ndim != 4 or not weight.shape[2] or not weight.shape[3]:
        raise ValueError(f"{name}: expected weight (outputs, channels, kh, kw), got shape {tuple(weight.shape)}")
    batch = images(name, x)
    if batch.shape[1] != weight.shape[1]:
        raise ValueError(f"{name}: the images {tuple(x.shape)} have {batch.shape[1]} channels, the weight "
                         f"{tuple(weight.shape)} expects {weight.shape[1]}")
    if bias is not None:
        bias = beside(bias, weight, "bias")
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"{name}: bias has shape {tuple(bias.shape)}, expected {tuple(weight.shape[:1])}")
    windows_fit(name, batch, weight.shape[2:], stride, padding)
    y = convolve(batch, weight, bias, stride, padding)
    return y if x.ndim == 4 else y[0]


class MaxPool2d(Op):
    """The largest number of each window (the first of several), to which the window's gradient goes."""

    name = "max_pool2d"

    def setup(self, x, kernel, stride, padding):
        self.settings = (*kernel, *stride, *padding)
        self.shape = windows_fit(self.name, x, kernel, stride, padding)
        return (x,)

    def forward(self, x):
        y = empty_array((*x.shape[:2], *self.shape), x.dtype)
        self.where = empty_array(y.shape, np.int32)
        launch(kernels.convolution.max_pool2d, y, self.where, contiguous(x), *self.settings)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.convolution.max_pool2d_backward, dx, contiguous(g), self.where)
        return (dx,)


@fused_by(MaxPool2d)
def largest_of_windows(x, kernel, stride, padding):
    y = windows(x, kernel, stride, padding, -math.inf)
    y = y.reshape(*y.shape[:4], math.prod(kernel))
    return y.max(-1) if isinstance(y, Tensor) else larger_value.reduce(y, -1)


@functools.partial(np.frompyfunc, nin=2, nout=1)
def larger_value(a, b):
    """A node, not only the choice of one: a compiled graph chooses for each sample. Padding is a float, and lost."""
    return b if isinstance(a, float) else a if isinstance(b, float) else a.max(b)


class AvgPool2d(MaxPool2d):
    """The mean of each window, of which each number has the same share."""

    name = "avg_pool2d"

    def forward(self, x):
        y = empty_array((*x.shape[:2], *self.shape), x.dtype)
        launch(kernels.convolution.avg_pool2d, y, contiguous(x), *self.settings)
        return y

    def backward(self, g, y, x):
        dx = empty_array(x.shape, x.dtype)
        launch(kernels.convolution.avg_pool2d_backward, dx, contiguous(g), *self.settings)
        return (dx,)


@fused_by(AvgPool2d)
def mean_of_windows(x, kernel, stride, padding):
    return windows(x, kernel, stride, padding).mean((-2, -1))


def pooled(name, pooling, input, kernel_size, stride, padding):
    kernel, padding = pair(name, "kernel_size", kernel_size, 1), pair(name, "padding", padding, 0)
    stride = kernel if stride is None else pair(name, "stride", stride, 1)
    if any(2 * p > k for p, k in zip(padding, kernel)):
        raise ValueError(f"{name}: padding is at most half of the window, got {padding} for a window of {kernel}")
    x = arrays_of_values(input)
    float_numbers(name, x)
    batch = images(name, x)
    windows_fit(name, batch, kernel, stride, padding)
    y = pooling(batch, kernel, stride, padding)
    return y if x.ndim == 4 else y[0]


@refusing
def max_pool2d(input, kernel_size, stride=None, padding=0):
    """The largest number of each window of `kernel_size`, window after window `stride` apart (None: side by side).

    input (batch, channels, h, w) or (channels, h, w); the padding counts as -∞. Of equal numbers the first receives the
    gradient; on Values they share it, as in `max`.

    >>> from tinynet import tensor
    >>> max_pool2d(tensor([[[1.0, 2.0], [3.0, 4.0]]]), 2).tolist()
    [[[4.0]]]
    """
    return pooled("max_pool2d", largest_of_windows, input, kernel_size, stride, padding)


@refusing
def avg_pool2d(input, kernel_size, stride=None, padding=0):
    """The mean of each window, as max_pool2d; the padding counts as zeros."""
    return pooled("avg_pool2d", mean_of_windows, input, kernel_size, stride, padding)


class BatchNorm(Op):
    """x̂ = (x - mean) / √(variance + eps), y = w x̂ + b. ∂w = Σ g x̂, ∂b = Σ g, the sums over all but the channels;
    ∂x = w / √(variance + eps) · (g - mean(g) - x̂ mean(g x̂)), or without the means where the moments are constants."""

    name = "batch_norm"

    def setup(self, x, weight, bias, moments, constant, eps):
        if not x.dtype == weight.dtype == bias.dtype:
            refuse_dtypes(self.name, input=x, weight=weight, bias=bias)
        self.moments, self.constant, self.eps = moments, constant, eps
        return (x, weight, bias)

    def forward(self, x, w, b):
        y, self.x = empty_array(x.shape, x.dtype), channel_rows(x)
        launch(kernels.convolution.batch_norm, channel_rows(y), self.x, *self.moments, contiguous(w), contiguous(b),
            self.eps)
        return y

    def backward(self, g, y, x, w, b):
        dx, dw, db = (empty_array(a.shape, a.dtype) for a in (x, w, b))
        launch(kernels.convolution.batch_norm_backward, channel_rows(dx), dw, db, channel_rows(g), self.x, *self.moments,
            contiguous(w), self.eps, not self.constant)
        return dx, dw, db


def channel_rows(x):
    """(batch, channels, pixels)"""
    return contiguous(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


@fused_by(BatchNorm)
def normalise_channels(x, weight, bias, moments, constant, eps):
    mean, variance = channel_moments(x) if not constant else (column(m, x) for m in moments)
    return (x - mean) / np.sqrt(variance + eps) * column(weight, x) + column(bias, x)


def channel_moments(x):
    """The mean and the variance of each channel, (1, channels, 1, 1)."""
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axes, keepdims=True)
    d = x - mean
    return mean, (d * d).mean(axes, keepdims=True)


def column(a, x):
    """Numbers of the channels, (channels,), so that they broadcast with x."""
    a = Tensor(a) if isinstance(a, np.ndarray) and isinstance(x, Tensor) else a
    return a.reshape(1, -1, *[1] * (x.ndim - 2))


def plain_moments(x):
    """The numbers of `channel_moments(x)`, (channels,) each, through which no gradient flows."""
    if isinstance(x, Tensor):
        mean, variance = (empty_array(x.shape[1], x.dtype) for _ in range(2))
        launch(kernels.convolution.channel_moments, mean, variance, channel_rows(x._data))
        return mean, variance
    return [m.reshape(-1) for m in channel_moments(numbers(x))]


def remember(running, new, momentum, factor=1.0):
    """running ← (1 - momentum) running + momentum · factor · new"""
    running += (momentum * (factor * new - running)).astype(running.dtype)


@refusing
def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """(x - mean) / √(variance + eps) · weight + bias, each channel by itself (Ioffe and Szegedy, 2015).

    input (batch, channels, …). In training mean and variance are those of the batch, and the NumPy arrays running_mean
    and running_var move towards them by `momentum` (the variance divided by n - 1), also when a captured step is
    replayed; they may be None. Otherwise the running ones are used.
    """
    name, x = "batch_norm", arrays_of_values(input)
    if x.ndim < 2:
        raise ValueError(f"{name}: expected (batch, channels, …), got shape {tuple(x.shape)}")
    float_numbers(name, x)
    channels, running = x.shape[1], [m._data if isinstance(m, Tensor) else m for m in (running_mean, running_var)]
    for what, a in zip(("running_mean", "running_var", "weight", "bias"), (*running, weight, bias)):
        if a is not None and tuple(a.shape) != (channels,):
            raise ValueError(f"{name}: {what} has shape {tuple(a.shape)}, the input {tuple(x.shape)} has {channels} "
                             "channels")
    if training:
        n = math.prod(x.shape) // channels if channels else 0
        if n < 2:
            raise ValueError(f"{name}: training needs more than one number in each channel, got shape "
                             f"{tuple(x.shape)}; call eval() where the model is used")
        moments = plain_moments(x)
        for old, new, factor in zip(running, moments, (1.0, n / (n - 1))):
            if old is not None:
                launch(remember, old, new, momentum, factor)
    elif running_mean is None or running_var is None:
        raise ValueError(f"{name}: outside training running_mean and running_var are needed")
    else:
        moments = [contiguous(cast(m, x.dtype)) if isinstance(x, Tensor) else m for m in running]
    dtype = x.dtype if isinstance(x, Tensor) else float
    weight, bias = (number * np.ones(channels, dtype) if w is None else w for w, number in ((weight, 1), (bias, 0)))
    if isinstance(x, Tensor):
        weight, bias = (w if isinstance(w, Tensor) else Tensor(w) for w in (weight, bias))
    return normalise_channels(x, weight, bias, moments, not training, eps)


# --------------------------------------------------------------------------------------------------------- recurrence

def stacked(parts):
    """Arrays of Values, or Tensors, of one shape beside each other along a new first axis."""
    return stack(parts) if isinstance(parts[0], Tensor) else np.stack(parts)


def split(x, n):
    """The last axis in n equal parts."""
    width = x.shape[-1] // n
    return [x[..., i * width:(i + 1) * width] for i in range(n)]


class Recurrence(Op):
    """Steps of one kernel call. `states` are the arrays of all states, the first one at their beginning."""

    def check(self, gates, x, weight, *states):
        """Refuse what is not x (steps, batch, gates · n), weight (gates · n, n) and states (batch, n)."""
        n = weight.shape[-1] if weight.ndim else 0
        if (not n or x.ndim != 3 or not len(x) or x.shape[2] != gates * n or weight.shape != (gates * n, n)
                or any(s.shape != (x.shape[1], n) for s in states)):
            wide = f"{gates} n" if gates > 1 else "n"
            raise ValueError(f"{self.name}: expected x (steps, batch, {wide}), states (batch, n), weight ({wide}, n), "
                             f"got {x.shape}, {', '.join(str(s.shape) for s in states)} and {weight.shape}")
        if any(a.dtype != x.dtype for a in (weight, *states)) or x.dtype not in FLOATS:
            refuse_dtypes(self.name, x=x, weight=weight, **{f"state {i}": s for i, s in enumerate(states)})

    def states(self, x, *first):
        """(len(first), steps + 1, batch, n)"""
        h = empty_array((len(first), len(x) + 1, *first[0].shape), x.dtype)
        for i, state in enumerate(first):
            launch(np.copyto, h[i, 0], state)
        return h

    def weight_gradient(self, da, h):
        """∂W = Σₜ daₜᵀ hₜ₋₁, one product over all steps and samples."""
        dw = empty_array((da.shape[-1], h.shape[-1]), h.dtype)
        launch(kernels.matmul, dw, da.reshape(-1, da.shape[-1]).T, h[:-1].reshape(-1, h.shape[-1]))
        return dw


class RNN(Recurrence):
    """With s the gradient before f: sₜ = (gₜ + sₜ₊₁ W) · f'(hₜ), ∂xₜ = sₜ, ∂W = Σₜ sₜᵀ hₜ₋₁, ∂h₀ = s₁ W."""

    name = "rnn"

    def setup(self, x, h, weight, nonlinearity="tanh"):
        if nonlinearity not in ("tanh", "relu"):  # whose derivatives are known from their values
            raise ValueError(f'{self.name}: nonlinearity is "tanh" or "relu", got {nonlinearity!r}')
        self.check(1, x, weight, h)
        self.nonlinearity = nonlinearity
        return x, h, weight

    def forward(self, x, h, w):
        self.h, = self.states(x, h)
        launch(kernels.recurrent.rnn(self.nonlinearity), self.h, contiguous(x), contiguous(w))
        return self.h[1:]

    def backward(self, g, y, x, h, w):
        dx, dh = empty_array(x.shape, x.dtype), empty_array(h.shape, h.dtype)
        launch(kernels.recurrent.rnn_backward(self.nonlinearity), dx, dh, contiguous(g), self.h, contiguous(w))
        return dx, dh, self.weight_gradient(dx, self.h) if self.needs[2] else None


@fused_by(RNN)
def rnn(x, h, weight, nonlinearity="tanh"):
    """hₜ = f(xₜ + W hₜ₋₁) for t = 1 … steps (Elman, 1990), f tanh or relu; result (steps, batch, n).

    x (steps, batch, n) is what the inputs bring, W_ih inputₜ + b; h (batch, n) is the state before; weight (n, n).
    """
    states = []
    for t in range(len(x)):
        h = ACTIVATIONS[nonlinearity](x[t] + h @ weight.T)
        states.append(h)
    return stacked(states)


class LSTM(Recurrence):
    """Back from the last step: ∂cₜ = gcₜ + ∂hₜ oₜ tanh'(cₜ) + ∂cₜ₊₁ fₜ₊₁; each gate by what it is multiplied with."""

    name = "lstm"

    def setup(self, x, h, c, weight):
        self.check(4, x, weight, h, c)
        return x, h, c, weight

    def forward(self, x, h, c, w):
        self.hc, self.gates = self.states(x, h, c), empty_array(x.shape, x.dtype)
        launch(kernels.recurrent.lstm, *self.hc, self.gates, contiguous(x), contiguous(w))
        return self.hc[:, 1:]

    def backward(self, g, y, x, h, c, w):
        dx, dh, dc = (empty_array(a.shape, a.dtype) for a in (x, h, c))
        launch(kernels.recurrent.lstm_backward, dx, dh, dc, *contiguous(g), self.hc[1], self.gates, contiguous(w))
        return dx, dh, dc, self.weight_gradient(dx, self.hc[0]) if self.needs[3] else None


@fused_by(LSTM)
def lstm(x, h, c, weight):
    """The states (hₜ, cₜ) of a long short-term memory (Hochreiter and Schmidhuber, 1997), (2, steps, batch, n).

    (i, f, g, o) = xₜ + W hₜ₋₁;  cₜ = σ(f) cₜ₋₁ + σ(i) tanh(g);  hₜ = σ(o) tanh(cₜ).
    x (steps, batch, 4 n) is W_ih inputₜ + b; h and c (batch, n) are the states before; weight (4 n, n).
    """
    states = []
    for t in range(len(x)):
        i, f, g, o = split(x[t] + h @ weight.T, 4)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h = sigmoid(o) * tanh(c)
        states.append((h, c))
    return stacked([stacked(each) for each in zip(*states)])


class GRU(Recurrence):
    """Back from the last step; the weights' product a enters r and z as x does, but n only through r · a."""

    name = "gru"

    def setup(self, x, h, weight, bias=None):
        self.check(3, x, weight, h)
        if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != x.dtype):
            raise ValueError(f"{self.name}: bias is {bias.dtype} of shape {bias.shape}, expected {x.dtype} of shape "
                             f"{weight.shape[:1]}")
        return (x, h, weight) if bias is None else (x, h, weight, bias)

    def forward(self, x, h, w, b=None):
        b = filled(len(w), w.dtype, 0.0) if b is None else contiguous(b)
        self.h, = self.states(x, h)
        self.gates = empty_array((*x.shape[:2], 4 * h.shape[1]), x.dtype)
        launch(kernels.recurrent.gru, self.h, self.gates, contiguous(x), contiguous(w), b)
        return self.h[1:]

    def backward(self, g, y, x, h, w, b=None):
        dx, da, dh = (empty_array(a.shape, a.dtype) for a in (x, x, h))
        launch(kernels.recurrent.gru_backward, dx, da, dh, contiguous(g), self.h, self.gates, contiguous(w))
        db = None
        if b is not None and self.needs[3]:
            db = empty_array(b.shape, b.dtype)
            launch(kernels.dense.column_sums, db, da.reshape(-1, b.size))
        return dx, dh, self.weight_gradient(da, self.h) if self.needs[2] else None, db


@fused_by(GRU)
def gru(x, h, weight, bias=None):
    """The states of gated recurrent units (Cho et al., 2014), (steps, batch, n); the reset gate r as in PyTorch.

    a = W hₜ₋₁ + bias;  r = σ(x_r + a_r);  z = σ(x_z + a_z);  n = tanh(x_n + r a_n);  hₜ = (1 - z) n + z hₜ₋₁.
    x (steps, batch, 3 n) is W_ih inputₜ + b, parts r, z, n; h (batch, n) is the state before; weight (3 n, n).
    """
    states = []
    for t in range(len(x)):
        (x_r, x_z, x_n), (a_r, a_z, a_n) = split(x[t], 3), split(linear(h, weight, bias), 3)
        r, z = sigmoid(x_r + a_r), sigmoid(x_z + a_z)
        n = tanh(x_n + r * a_n)
        h = (1.0 - z) * n + z * h
        states.append(h)
    return stacked(states)
