"""Initialization of weights, in place, under PyTorch's names: `nn.init.xavier_uniform_(layer.weight)`.

Each takes a Parameter, its `.data`, or the array of Values that it is on the scalar engine, and returns it.
"""

import math

import numpy as np

from ..errors import check_choice, check_number, describe
from ..tensors import Generator, Tensor
from ..value import Value
from .module import assign, is_values


def fill(name, tensor, draw):
    """Write the array draw(shape) into the weight."""
    if not isinstance(tensor, (Tensor, np.ndarray)) or is_values(tensor) and not all(
            isinstance(v, Value) for v in tensor.flat):
        raise TypeError(f"{name}: expected a Parameter, got {describe(tensor)}")
    assign(tensor, draw(tuple(tensor.shape)))
    return tensor


def constant_(tensor, val):
    """`val` everywhere."""
    val = float(check_number("constant_", "val", val))
    return fill("constant_", tensor, lambda shape: np.full(shape, val))


def zeros_(tensor):
    """0 everywhere."""
    return fill("zeros_", tensor, np.zeros)


def ones_(tensor):
    """1 everywhere."""
    return fill("ones_", tensor, np.ones)


def uniform_(tensor, a=0.0, b=1.0):
    """Uniform on [a, b)."""
    a, b = (float(check_number("uniform_", name, x)) for name, x in (("a", a), ("b", b)))
    check_number("uniform_", "b - a", b - a, 0)
    return fill("uniform_", tensor, lambda shape: Generator.stream.uniform(a, b, shape))


def normal_(tensor, mean=0.0, std=1.0):
    """Normal with mean and standard deviation.

    >>> from tinynet import nn
    >>> layer = nn.Linear(100, 100)
    >>> layer.weight is normal_(layer.weight, std=0.02)
    True
    >>> 0.018 < layer.weight.std().item() < 0.022
    True
    """
    mean, std = float(check_number("normal_", "mean", mean)), float(check_number("normal_", "std", std, 0))
    return fill("normal_", tensor, lambda shape: Generator.stream.normal(mean, std, shape))


def xavier_uniform_(tensor, gain=1.0):
    """Uniform within ± gain √(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = check_number("xavier_uniform_", "gain", gain, 0) * math.sqrt(6 / sum(fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor, gain=1.0):
    """Normal with the standard deviation gain √(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    std = check_number("xavier_normal_", "gain", gain, 0) * math.sqrt(2 / sum(fans("xavier_normal_", tensor)))
    return normal_(tensor, 0.0, std)


def kaiming_uniform_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu"):
    """Uniform within ± gain √(3 / fan), gain as in `calculate_gain` (He et al., 2015)."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / fan("kaiming_uniform_", tensor, mode))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu"):
    """Normal with the standard deviation gain / √fan, gain as in `calculate_gain` (He et al., 2015)."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(fan("kaiming_normal_", tensor, mode)))


def calculate_gain(nonlinearity, param=0.01):
    """By how much an activation shrinks its input: √2 for relu, √(2 / (1 + negative_slope²)) for leaky_relu, …"""
    param = float(check_number("calculate_gain", "param", param))
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),
             "leaky_relu": math.sqrt(2 / (1 + param * param))}
    return gains[check_choice("calculate_gain", "nonlinearity", nonlinearity, tuple(gains))]


def fans(name, tensor):
    """(fan_in, fan_out): how many inputs each output depends on, and how many outputs each input contributes to."""
    shape = tensor.shape if isinstance(tensor, (Tensor, np.ndarray)) else ()
    if len(shape) < 2 or not math.prod(shape):
        raise ValueError(f"{name}: expected a weight (outputs, inputs, …), got {describe(tensor)}")
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


def fan(name, tensor, mode):
    return fans(name, tensor)[check_choice(name, "mode", mode, ("fan_in", "fan_out")) == "fan_out"]
