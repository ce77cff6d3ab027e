"""Activations: each a Module around its function."""

from .. import functional as F
from ..errors import check_choice, check_int, check_number
from .module import Module


class Activation(Module):
    """An elementwise function without parameters. `inplace`, which saves memory in PyTorch, changes no result."""

    def __init__(self, inplace=False):
        pass


class ReLU(Activation):
    """max(x, 0) of every element: functional.relu."""

    def forward(self, x):
        return F.relu(x)


class Sigmoid(Activation):
    """1 / (1 + exp(-x)) of every element: functional.sigmoid."""

    def forward(self, x):
        return F.sigmoid(x)


class Tanh(Activation):
    """tanh(x) of every element: functional.tanh."""

    def forward(self, x):
        return F.tanh(x)


class Softplus(Activation):
    """log(1 + exp(x)) of every element: functional.softplus."""

    def forward(self, x):
        return F.softplus(x)


class LeakyReLU(Module):
    """x where it is positive, else negative_slope · x: functional.leaky_relu."""

    def __init__(self, negative_slope=0.01, inplace=False):
        self.negative_slope = check_number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, x):
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


class GELU(Module):
    """x Φ(x): functional.gelu."""

    def __init__(self, approximate="none"):
        self.approximate = check_choice("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x):
        return F.gelu(x, self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class Softmax(Module):
    """exp(xᵢ) / Σⱼ exp(xⱼ) along `dim`: functional.softmax."""

    def __init__(self, dim=-1):
        self.dim = check_int(type(self).__name__, "dim", dim)

    def forward(self, x):
        return F.softmax(x, self.dim)

    def extra_repr(self):
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """log softmax(x)ᵢ along `dim`: functional.log_softmax."""

    def forward(self, x):
        return F.log_softmax(x, self.dim)
