"""The functions of a network, one file per family, each with its reference implementation and its fused kernel.

`__all__` is what `tinynet.nn.functional` offers; layers and tests use the rest as well.
"""

from ..tensors import Op  # noqa: F401
from .activations import (  # noqa: F401
    ACTIVATIONS,
    elementwise,
    gelu,
    leaky_relu,
    log_softmax,
    logsumexp,
    relu,
    sigmoid,
    softmax,
    softplus,
    tanh,
)
from .attention import (  # noqa: F401
    attend,
    attention_weights,
    merge_heads,
    scaled_dot_product_attention,
    self_attention,
    split_heads,
    split_qkv,
)
from .convolution import avg_pool2d, conv2d, max_pool2d, pair  # noqa: F401
from .dense import dropout, embedding, linear, one_hot
from .dispatch import as_operand, as_values, detach  # noqa: F401
from .losses import (  # noqa: F401
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    check_reduction,
    cross_entropy,
    l1_loss,
    mse_loss,
    nll_loss,
)
from .normalization import batch_norm, layer_norm
from .recurrent import gru, lstm, rnn  # noqa: F401

__all__ = [
    "relu", "sigmoid", "tanh", "softplus", "gelu", "leaky_relu", "softmax", "log_softmax", "logsumexp", "linear",
    "embedding", "dropout", "one_hot", "layer_norm", "batch_norm", "mse_loss", "l1_loss", "cross_entropy", "nll_loss",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "scaled_dot_product_attention", "conv2d", "max_pool2d",
    "avg_pool2d",
]
