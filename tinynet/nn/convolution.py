"""Convolution, pooling and batch norm, on images (batch, channels, height, width)."""

import math

import numpy as np

from .. import functional as F
from ..errors import refusing
from ..kernels import launch
from ..tensors import empty_array, ones, zeros
from .dense import sizes
from .module import Module, Parameter, shape_of, uniform


def channels(name, x, n):
    """Refuse what are no images with n channels, in the layer's name."""
    shape = shape_of(x)
    if shape is None or len(shape) not in (3, 4) or shape[-3] != n:
        raise ValueError(f"{name}: input has shape {shape}, expected (batch, {n}, height, width)")


@refusing
class Conv2d(Module):
    """`out_channels` filters slide over the images: functional.conv2d, with PyTorch's arguments and parameters.

    weight (out_channels, in_channels, kh, kw) and bias (out_channels) start as uniform numbers within
    ±1/√(in_channels kh kw), as in PyTorch. Padding of (k - 1)/2 with stride 1 keeps height and width.

    >>> from tinynet import zeros
    >>> Conv2d(1, 16, 3, padding=1)(zeros(64, 1, 28, 28)).shape
    (64, 16, 28, 28)
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        sizes("Conv2d", in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = F.pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding = F.pair("Conv2d", "stride", stride, 1), F.pair("Conv2d", "padding", padding, 0)
        bound = 1 / math.sqrt(in_channels * math.prod(self.kernel_size))
        self.weight = uniform((out_channels, in_channels, *self.kernel_size), bound)
        self.bias = uniform((out_channels,), bound) if bias else None

    def forward(self, x):
        name = f"Conv2d({self.in_channels} -> {self.out_channels})"
        channels(name, x, self.in_channels)
        try:
            return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {str(error).removeprefix('conv2d: ')}") from None

    def extra_repr(self):
        padding = f", padding={self.padding}" if any(self.padding) else ""
        bias = "" if self.bias is not None else ", bias=False"
        return (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
                f"{padding}{bias}")


@refusing
class MaxPool2d(Module):
    """The largest number of each window: functional.max_pool2d."""

    def __init__(self, kernel_size, stride=None, padding=0):
        name = type(self).__name__
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        F.pair(name, "kernel_size", kernel_size, 1), F.pair(name, "stride", self.stride, 1)
        F.pair(name, "padding", padding, 0)

    def forward(self, x):
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


@refusing
class AvgPool2d(MaxPool2d):
    """The mean of each window: functional.avg_pool2d."""

    def forward(self, x):
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)


@refusing
class BatchNorm2d(Module):
    """(x - mean) / √(variance + eps) · weight + bias, channel by channel (Ioffe and Szegedy, 2015).

    BatchNorm1d is the same of (batch, features) or (batch, channels, steps).

    In training mean and variance are the batch's, and running_mean and running_var follow them: each step moves them by
    `momentum` (None: they become the plain averages over all batches). In eval these are used.
    """

    axes, expected = (4,), "(batch, {}, height, width)"

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(ones(num_features)) if affine else None
        self.bias = Parameter(zeros(num_features)) if affine else None
        tracked = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, np.float32) if tracked else None)
        self.register_buffer("running_var", np.ones(num_features, np.float32) if tracked else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracked else None)

    def forward(self, x):
        name = f"{type(self).__name__}({self.num_features})"
        shape = shape_of(x)
        if shape is None or len(shape) not in self.axes or shape[1] != self.num_features:
            raise ValueError(f"{name}: input has shape {shape}, expected {self.expected.format(self.num_features)}")
        try:
            x = F.as_operand(x, self.weight) if self.affine else F.as_operand(x)
            momentum, training = self.momentum, self.training or not self.track_running_stats
            if training and self.track_running_stats:
                n = self.num_batches_tracked
                launch(np.add, n, 1, n)
                if momentum is None:
                    momentum = empty_array((), np.float64)
                    launch(np.divide, 1.0, n, momentum)
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training, momentum,
                                self.eps)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{name}: {str(error).removeprefix('batch_norm: ')}") from None

    def extra_repr(self):
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"track_running_stats={self.track_running_stats}")


@refusing
class BatchNorm1d(BatchNorm2d):
    """BatchNorm2d for (batch, features), each feature by itself, or for (batch, channels, steps)."""

    axes, expected = (2, 3), "(batch, {0}) or (batch, {0}, steps)"
