"""Linear layers, perceptrons, activations, normalisation, and the losses: each a Module around its function."""

import math

from .. import functional as F
from ..errors import refusing
from ..tensors import Tensor, ones, zeros
from .module import Module, Parameter, Sequential, shape_of, uniform


def features(layer, name, x, n):
    """Refuse an input whose last axis has not n features, in the layer's name."""
    shape = shape_of(x)
    if shape is None:
        raise ValueError(f"{name}: the rows of the input have different lengths")
    if not shape or shape[-1] != n:
        got = f"has {shape[-1]} features in its last axis" if shape else "is a single number"
        raise ValueError(f"{name}: input {got}, expected {n}")


def sizes(name, **sizes):
    for what, n in sizes.items():
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{name}: {what} is a whole number from 1 on, got {n!r}")


@refusing
class Linear(Module):
    """y = x Wᵀ + b, W (out_features, in_features).

    Both start as uniform numbers within ±1/√in_features, as in PyTorch (He et al., 2015, with a = √5).

    >>> Linear(3, 2)([[1.0, 2.0, 3.0]]).shape
    (1, 2)
    """

    activation = None

    def __init__(self, in_features, out_features, bias=True):
        sizes(type(self).__name__, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = uniform((out_features, in_features), bound)
        self.bias = uniform((out_features,), bound) if bias else None

    def forward(self, x):
        weight = self.weight
        if not isinstance(x, Tensor) or x._data.dtype != weight.dtype or x._data.shape[-1:] != (self.in_features,):
            x = self.accepted(x)
        return F.linear(x, weight, self.bias, self.activation)

    def accepted(self, x):
        """x as a tensor or Values of the right shape, or an error in this layer's name."""
        name = f"{type(self).__name__}({self.in_features} -> {self.out_features})"
        features(self, name, x, self.in_features)
        try:
            return F.as_operand(x, self.weight)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


@refusing
class Perceptron(Linear):
    """y = act(x Wᵀ + b): a row of neurons (Rosenblatt, 1958), with a smooth activation in place of his step.

    `activation` is "relu", "sigmoid", "tanh", "gelu", "softplus", or None.
    """

    def __init__(self, in_features, out_features=1, activation="sigmoid", bias=True):
        if activation is not None and activation not in F.ACTIVATIONS:
            raise ValueError(f"Perceptron: activation is one of {', '.join(F.ACTIVATIONS)} or None, got {activation!r}")
        super().__init__(in_features, out_features, bias)
        self.activation = activation

    def extra_repr(self):
        return f"{super().extra_repr()}, activation={self.activation!r}"


@refusing
class MLP(Module):
    """A multilayer perceptron: MLP(2, [16, 16, 1]) maps 2 features over two hidden layers of 16 neurons to 1 output.

    Hidden layers have the activation; the last layer is linear.
    """

    def __init__(self, in_features, layer_sizes, activation="relu"):
        if isinstance(layer_sizes, int) or not len(layer_sizes):
            raise ValueError(f"MLP: expected a list of layer sizes, got {layer_sizes!r}")
        widths = [in_features, *layer_sizes]
        last = len(layer_sizes) - 1
        self.layers = Sequential(*[Perceptron(n, m, activation if i < last else None)
                                   for i, (n, m) in enumerate(zip(widths, layer_sizes))])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def activation(name, function):
    """A Module without parameters around an elementwise function."""
    def __init__(self, inplace=False):  # a wish to save memory, which changes no numbers
        pass

    __init__.__qualname__ = f"{name}.__init__"
    return type(name, (Module,), {"__init__": __init__, "forward": lambda self, x: function(x), "__module__": __name__,
                                  "__doc__": f"{name} of every element: functional.{function.__name__}."})


ReLU, Sigmoid, Tanh, Softplus = (activation(name, function) for name, function in (
    ("ReLU", F.relu), ("Sigmoid", F.sigmoid), ("Tanh", F.tanh), ("Softplus", F.softplus)))


@refusing
class Identity(Module):
    """x as it is, in the place of a layer; arguments are ignored."""

    def __init__(self, *args, **options):
        pass

    def forward(self, x):
        return x


@refusing
class LeakyReLU(Module):
    """x where it is positive, else negative_slope · x: functional.leaky_relu."""

    def __init__(self, negative_slope=0.01, inplace=False):
        self.negative_slope = negative_slope

    def forward(self, x):
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


@refusing
class GELU(Module):
    """x Φ(x); see functional.gelu."""

    def __init__(self, approximate="none"):
        self.approximate = approximate

    def forward(self, x):
        return F.gelu(x, self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


@refusing
class Softmax(Module):
    """exp(xᵢ) / Σⱼ exp(xⱼ) along `dim`."""

    def __init__(self, dim=-1):
        self.dim = dim

    def forward(self, x):
        return F.softmax(x, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


@refusing
class LogSoftmax(Softmax):
    """log softmax(x)ᵢ along `dim`."""

    def forward(self, x):
        return F.log_softmax(x, self.dim)


@refusing
class Dropout(Module):
    """In training each element is zero with probability p, else divided by 1 - p; in eval nothing happens."""

    def __init__(self, p=0.5, inplace=False):
        if not 0.0 <= p < 1.0:
            raise ValueError(f"Dropout: p is a probability below 1, got {p}")
        self.p = p

    def forward(self, x):
        return F.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"


@refusing
class LayerNorm(Module):
    """(x - mean) / √(var + eps) · weight + bias over the last axes, `normalized_shape`."""

    def __init__(self, normalized_shape, eps=1e-5):
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight, self.bias = Parameter(ones(self.normalized_shape)), Parameter(zeros(self.normalized_shape))

    def forward(self, x):
        return F.layer_norm(F.as_operand(x, self.weight), self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}"


@refusing
class Embedding(Module):
    """A table of `num_embeddings` rows, looked up by index; starts as standard normal numbers."""

    def __init__(self, num_embeddings, embedding_dim):
        sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        from ..tensors import randn
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.weight = Parameter(randn(num_embeddings, embedding_dim))

    def forward(self, indices):
        return F.embedding(indices, self.weight)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}"


@refusing
class Flatten(Module):
    """The axes from start_dim to end_dim as one: (n, 1, 28, 28) becomes (n, 784)."""

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x):
        if isinstance(x, Tensor):
            return x.flatten(self.start_dim, self.end_dim)
        x = F.as_operand(x)
        end = self.end_dim % x.ndim
        return x.reshape(*x.shape[:self.start_dim], -1, *x.shape[end + 1:])


@refusing
class Loss(Module):
    """A loss with `reduction` "mean", "sum" or "none"."""

    def __init__(self, reduction="mean"):
        F.check_reduction(type(self).__name__, reduction)
        self.reduction = reduction


@refusing
class MSELoss(Loss):
    """The mean squared error: functional.mse_loss."""

    def forward(self, input, target):
        return F.mse_loss(input, target, self.reduction)


@refusing
class L1Loss(Loss):
    """The mean absolute error: functional.l1_loss."""

    def forward(self, input, target):
        return F.l1_loss(input, target, self.reduction)


@refusing
class CrossEntropyLoss(Loss):
    """Cross-entropy of logits (n, classes) and class indices (n): functional.cross_entropy."""

    def __init__(self, reduction="mean", ignore_index=-100):
        super().__init__(reduction)
        self.ignore_index = ignore_index

    def forward(self, input, target):
        return F.cross_entropy(input, target, self.reduction, self.ignore_index)


@refusing
class NLLLoss(CrossEntropyLoss):
    """The same of what log_softmax gives: functional.nll_loss."""

    def forward(self, input, target):
        return F.nll_loss(input, target, self.reduction, self.ignore_index)


@refusing
class BCELoss(Loss):
    """Binary cross-entropy of probabilities: functional.binary_cross_entropy; better BCEWithLogitsLoss of logits."""

    def forward(self, input, target):
        return F.binary_cross_entropy(input, target, self.reduction)


@refusing
class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of logits: functional.binary_cross_entropy_with_logits."""

    def forward(self, input, target):
        return F.binary_cross_entropy_with_logits(input, target, self.reduction)
