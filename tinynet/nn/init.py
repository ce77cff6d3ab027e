"""What a weight begins with, written into it in place: `nn.init.xavier_uniform_(layer.weight)`; PyTorch's names.

Each takes a Parameter, or the array of Values that it is on the scalar engine, and returns it.
"""

import math

import numpy as np

from ..errors import refusing
from ..tensors import Generator, Tensor
from .module import is_values, write


def begin(name, tensor, numbers):
    """Write numbers(shape) into the weight."""
    if not isinstance(tensor, Tensor) and not is_values(tensor):
        raise TypeError(f"{name}: expected a Parameter, got {type(tensor).__name__}")
    write(tensor, numbers(tuple(tensor.shape)))
    return tensor


@refusing
def constant_(tensor, val):
    """One number everywhere."""
    return begin("constant_", tensor, lambda shape: np.full(shape, float(val)))


@refusing
def zeros_(tensor):
    return begin("zeros_", tensor, np.zeros)


@refusing
def ones_(tensor):
    return begin("ones_", tensor, np.ones)


@refusing
def uniform_(tensor, a=0.0, b=1.0):
    """Uniform numbers from [a, b)."""
    return begin("uniform_", tensor, lambda shape: Generator.stream.uniform(a, b, shape))


@refusing
def normal_(tensor, mean=0.0, std=1.0):
    """Normal numbers.

    >>> from tinynet import nn
    >>> layer = nn.Linear(100, 100)
    >>> layer.weight is normal_(layer.weight, std=0.02)
    True
    >>> 0.018 < layer.weight.std().item() < 0.022
    True
    """
    return begin("normal_", tensor, lambda shape: Generator.stream.normal(float(mean), float(std), shape))


@refusing
def xavier_uniform_(tensor, gain=1.0):
    """Uniform within ± gain √(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6 / sum(fans("xavier_uniform_", tensor)))
    return uniform_(tensor, -bound, bound)


@refusing
def xavier_normal_(tensor, gain=1.0):
    """Normal with the standard deviation gain √(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(fans("xavier_normal_", tensor))))


@refusing
def kaiming_uniform_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu"):
    """Uniform within ± gain √(3 / fan), gain as in `calculate_gain` (He et al., 2015)."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / fan("kaiming_uniform_", tensor, mode))
    return uniform_(tensor, -bound, bound)


@refusing
def kaiming_normal_(tensor, a=0.0, mode="fan_in", nonlinearity="leaky_relu"):
    """Normal with the standard deviation gain / √fan, gain as in `calculate_gain` (He et al., 2015)."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(fan("kaiming_normal_", tensor, mode)))


@refusing
def calculate_gain(nonlinearity, param=0.01):
    """By how much an activation shrinks what goes through it: √2 for relu, √(2 / (1 + slope²)) for leaky_relu, …"""
    gains = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2),
             "leaky_relu": math.sqrt(2 / (1 + param**2))}
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: nonlinearity is one of {', '.join(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def fans(name, tensor):
    """(fan_in, fan_out): how many numbers each output is made from, and how many outputs each input goes into."""
    shape = tuple(getattr(tensor, "shape", ()))
    if len(shape) < 2 or not math.prod(shape):
        raise ValueError(f"{name}: expected a weight (outputs, inputs, …), got shape {shape}")
    return shape[1] * math.prod(shape[2:]), shape[0] * math.prod(shape[2:])


def fan(name, tensor, mode):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'{name}: mode is "fan_in" or "fan_out", got {mode!r}')
    return fans(name, tensor)[mode == "fan_out"]
