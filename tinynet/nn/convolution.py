"""Convolution and pooling, on images (batch, channels, height, width)."""

import math

from .. import functional as F
from ..errors import check_bool
from .module import Module, check_sizes, shape_of, uniform


class Conv2d(Module):
    """`out_channels` filters slide over the images: functional.conv2d, with PyTorch's arguments and parameters.

    weight (out_channels, in_channels, kh, kw) and bias (out_channels) are initialized uniformly within
    ±1/√(in_channels kh kw), as in PyTorch. Padding of (k - 1)/2 with stride 1 keeps height and width.

    >>> from tinynet import zeros
    >>> Conv2d(1, 16, 3, padding=1)(zeros(64, 1, 28, 28)).shape
    (64, 16, 28, 28)
    """

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, bias=True):
        self.in_channels, self.out_channels = check_sizes(self, in_channels=in_channels, out_channels=out_channels)
        self.kernel_size = F.pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding = F.pair("Conv2d", "stride", stride, 1), F.pair("Conv2d", "padding", padding, 0)
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        self.weight = uniform((self.out_channels, self.in_channels, *self.kernel_size), bound)
        self.bias = uniform((self.out_channels,), bound) if check_bool("Conv2d", "bias", bias) else None

    def forward(self, x):
        shape = shape_of(x)
        if shape is None or len(shape) not in (3, 4) or shape[-3] != self.in_channels:
            raise ValueError(f"{self.short_repr()}: input has shape {shape}, expected "
                             f"(batch, {self.in_channels}, height, width)")
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def short_repr(self):
        return f"Conv2d({self.in_channels} -> {self.out_channels})"

    def extra_repr(self):
        padding = f", padding={self.padding}" if any(self.padding) else ""
        bias = "" if self.bias is not None else ", bias=False"
        return (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
                f"{padding}{bias}")


class MaxPool2d(Module):
    """The largest element of each window: functional.max_pool2d."""

    def __init__(self, kernel_size, stride=None, padding=0):
        self.kernel_size, self.stride, self.padding = kernel_size, kernel_size if stride is None else stride, padding
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            F.pair(type(self).__name__, name, getattr(self, name), least)

    def forward(self, x):
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(MaxPool2d):
    """The mean of each window: functional.avg_pool2d."""

    def forward(self, x):
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)
