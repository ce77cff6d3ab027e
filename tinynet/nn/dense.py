"""Linear layers and what stands between them: perceptrons, embeddings, dropout."""

import math

from .. import functional as F
from ..errors import check_bool, check_choice, check_int, describe
from ..tensors import Tensor, randn
from .module import Module, Parameter, Sequential, as_input, check_probability, check_sizes, uniform


class Linear(Module):
    """y = x Wᵀ + b, W (out_features, in_features).

    Both are initialized uniformly within ±1/√in_features, as in PyTorch (He et al., 2015, with a = √5).

    >>> Linear(3, 2)([[1.0, 2.0, 3.0]]).shape
    (1, 2)
    """

    activation = None

    def __init__(self, in_features, out_features, bias=True):
        self.in_features, self.out_features = check_sizes(self, in_features=in_features, out_features=out_features)
        bound = 1 / math.sqrt(self.in_features)
        self.weight = uniform((self.out_features, self.in_features), bound)
        self.bias = uniform((self.out_features,), bound) if check_bool(type(self).__name__, "bias", bias) else None

    def forward(self, x):
        weight = self.weight
        if not isinstance(x, Tensor) or x._data.dtype != weight.dtype or x._data.shape[-1:] != (self.in_features,):
            x = as_input(self, x, self.in_features, weight)
        return F.linear(x, weight, self.bias, self.activation)

    def short_repr(self):
        return f"{type(self).__name__}({self.in_features} -> {self.out_features})"

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Perceptron(Linear):
    """y = act(x Wᵀ + b): a row of neurons (Rosenblatt, 1958), with a smooth activation instead of his step function.

    `activation` is "relu", "sigmoid", "tanh", "gelu", "softplus", or None.
    """

    def __init__(self, in_features, out_features=1, activation="sigmoid", bias=True):
        self.activation = check_choice("Perceptron", "activation", activation, (*F.ACTIVATIONS, None))
        super().__init__(in_features, out_features, bias)

    def extra_repr(self):
        return f"{super().extra_repr()}, activation={self.activation!r}"


class MLP(Module):
    """A multilayer perceptron: MLP(2, [16, 16, 1]) maps 2 features over two hidden layers of 16 neurons to 1 output.

    Hidden layers have the activation; the last layer is linear.
    """

    def __init__(self, in_features, layer_sizes, activation="relu"):
        if not isinstance(layer_sizes, (list, tuple)) or not layer_sizes:
            raise ValueError(f"MLP: expected a list of layer sizes, got {describe(layer_sizes)}")
        widths, last = [in_features, *layer_sizes], len(layer_sizes) - 1
        self.layers = Sequential(*[Perceptron(n, m, activation if i < last else None)
                                   for i, (n, m) in enumerate(zip(widths, layer_sizes))])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Embedding(Module):
    """A table of `num_embeddings` rows, looked up by index; initialized from a standard normal distribution."""

    def __init__(self, num_embeddings, embedding_dim):
        shape = check_sizes(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = shape
        self.weight = Parameter(randn(*shape))

    def forward(self, indices):
        return F.embedding(indices, self.weight)

    def extra_repr(self):
        return f"{self.num_embeddings}, {self.embedding_dim}"


class Flatten(Module):
    """The axes from start_dim to end_dim as one: (n, 1, 28, 28) becomes (n, 784)."""

    def __init__(self, start_dim=1, end_dim=-1):
        self.start_dim = check_int("Flatten", "start_dim", start_dim)
        self.end_dim = check_int("Flatten", "end_dim", end_dim)

    def forward(self, x):
        x = F.as_operand(x)
        for axis in (self.start_dim, self.end_dim):
            if not -x.ndim <= axis < x.ndim:
                raise IndexError(f"Flatten: axis {axis} does not exist in shape {tuple(x.shape)}")
        start, end = self.start_dim % x.ndim, self.end_dim % x.ndim
        return x.reshape(*x.shape[:start], math.prod(x.shape[start:end + 1]), *x.shape[end + 1:])


class Identity(Module):
    """Returns its input; arguments are ignored."""

    def __init__(self, *args, **options):
        pass

    def forward(self, x):
        return x


class Dropout(Module):
    """In training each element is zero with probability p, else divided by 1 - p; in eval nothing happens."""

    def __init__(self, p=0.5, inplace=False):
        self.p = check_probability(self, "p", p)

    def forward(self, x):
        return F.dropout(x, self.p, self.training)

    def extra_repr(self):
        return f"p={self.p}"
