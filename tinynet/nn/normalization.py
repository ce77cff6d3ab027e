"""Layer normalization and batch normalization."""

import numpy as np

from .. import functional as F
from ..errors import check_bool, check_number, check_positive_int
from ..kernels import launch
from ..tensors import empty_array, ones, zeros
from .module import Module, Parameter, check_sizes, shape_of


class LayerNorm(Module):
    """(x - mean) / √(var + eps) · weight + bias over the last axes, `normalized_shape`."""

    def __init__(self, normalized_shape, eps=1e-5):
        shape = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
        self.normalized_shape = tuple(check_positive_int("LayerNorm", "normalized_shape", n) for n in shape)
        self.eps = check_number("LayerNorm", "eps", eps, 0)
        self.weight, self.bias = Parameter(ones(self.normalized_shape)), Parameter(zeros(self.normalized_shape))

    def forward(self, x):
        return F.layer_norm(F.as_operand(x, self.weight), self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self):
        return f"{self.normalized_shape}, eps={self.eps}"


class BatchNorm2d(Module):
    """(x - mean) / √(variance + eps) · weight + bias for each channel (Ioffe and Szegedy, 2015).

    In training, mean and variance are the batch's, and each step moves running_mean and running_var towards them by
    `momentum` (None: they become the averages over all batches). In eval these running statistics are used.
    """

    ndims, expected = (4,), "(batch, {}, height, width)"

    def __init__(self, num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True):
        name = type(self).__name__
        n, = check_sizes(self, num_features=num_features)
        self.num_features, self.eps = n, check_number(name, "eps", eps, 0)
        self.momentum = momentum if momentum is None else check_number(name, "momentum", momentum)
        self.affine = check_bool(name, "affine", affine)
        self.track_running_stats = tracked = check_bool(name, "track_running_stats", track_running_stats)
        self.weight, self.bias = (Parameter(ones(n)), Parameter(zeros(n))) if affine else (None, None)
        self.register_buffer("running_mean", np.zeros(n, np.float32) if tracked else None)
        self.register_buffer("running_var", np.ones(n, np.float32) if tracked else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracked else None)

    def forward(self, x):
        shape = shape_of(x)
        if shape is None or len(shape) not in self.ndims or shape[1] != self.num_features:
            raise ValueError(f"{self.short_repr()}: input has shape {shape}, expected "
                             f"{self.expected.format(self.num_features)}")
        x = F.as_operand(x, self.weight) if self.affine else F.as_operand(x)
        momentum, training = self.momentum, self.training or not self.track_running_stats
        if training and self.track_running_stats:
            n = self.num_batches_tracked
            launch(np.add, n, 1, n)
            if momentum is None:
                momentum = empty_array((), np.float64)
                launch(np.divide, 1.0, n, momentum)
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, training, momentum, self.eps)

    def short_repr(self):
        return f"{type(self).__name__}({self.num_features})"

    def extra_repr(self):
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
                f"track_running_stats={self.track_running_stats}")


class BatchNorm1d(BatchNorm2d):
    """The same for each feature of (batch, features), or each channel of (batch, channels, steps)."""

    ndims, expected = (2, 3), "(batch, {0}) or (batch, {0}, steps)"
