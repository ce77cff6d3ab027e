"""Multi-head attention and positional encoding (Vaswani et al., 2017)."""

import functools
import math

import numpy as np

from .. import functional as F
from ..errors import check_bool
from ..kernels import launch
from ..tensors import Tensor, contiguous, empty_array
from .dense import Dropout, Linear
from .module import Module, Parameter, as_input, check_probability, check_sizes, uniform


class MultiheadAttention(Module):
    """Several attentions side by side, each on its own projection of the embedding; PyTorch's arguments and parameters.

    forward(query, key, value) with (tokens, batch, embed_dim), or (batch, tokens, embed_dim) if `batch_first`, returns
    (output, weights), the weights averaged over the heads, or None unless `need_weights`. As in PyTorch, True in
    `attn_mask` and `key_padding_mask` means masked out.
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, batch_first=False):
        name = type(self).__name__
        self.embed_dim, self.num_heads = n, heads = check_sizes(self, embed_dim=embed_dim, num_heads=num_heads)
        if n % heads:
            raise ValueError(f"{name}: expected embed_dim {n} to be divisible by num_heads {heads}")
        self.dropout = check_probability(self, "dropout", dropout)
        self.batch_first = check_bool(name, "batch_first", batch_first)
        self.in_proj_weight = uniform((3 * n, n), math.sqrt(6 / (4 * n)))  # Glorot and Bengio
        self.in_proj_bias = Parameter(np.zeros(3 * n, np.float32)) if check_bool(name, "bias", bias) else None
        self.out_proj = Linear(n, n, bias)
        if bias:
            self.out_proj.bias = Parameter(np.zeros(n, np.float32))

    def forward(self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
                average_attn_weights=True, is_causal=False):
        self_attention = key is query and value is query
        query, key, value = (self.batch_of(x, what) for x, what in ((query, "query"), (key, "key"), (value, "value")))
        if not len(query) == len(key) == len(value) or key.shape[1] != value.shape[1]:
            raise ValueError(f"{self.short_repr()}: query, key and value have shapes {tuple(query.shape)}, "
                             f"{tuple(key.shape)} and {tuple(value.shape)} (batch, tokens, embed_dim)")
        mask = self.merge_masks(attn_mask, key_padding_mask, query, key)
        fused = not need_weights and not (self.dropout and self.training)
        if self_attention and fused:
            qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            y, weights = F.self_attention(qkv, self.num_heads, mask, is_causal), None
        else:
            q, k, v = (F.split_heads(self.project(x, i), self.num_heads) for i, x in enumerate((query, key, value)))
            scale = 1.0 / math.sqrt(self.embed_dim // self.num_heads)
            if fused:
                y, weights = F.attend(q, k, v, mask, is_causal, scale), None
            else:
                weights = F.attention_weights(q, k, mask, is_causal, scale)
                y = F.dropout(weights, self.dropout, self.training) @ v
                weights = weights.mean(1) if average_attn_weights else weights
            y = F.merge_heads(y)
        y = self.out_proj(y)
        return (y if self.batch_first else y.swapaxes(0, 1)), weights if need_weights else None

    def project(self, x, i):
        """x through the third of `in_proj` for queries (i = 0), keys (1) or values (2)."""
        rows = slice(i * self.embed_dim, (i + 1) * self.embed_dim)
        return F.linear(x, self.in_proj_weight[rows], None if self.in_proj_bias is None else self.in_proj_bias[rows])

    def batch_of(self, x, what):
        """An input as (batch, tokens, embed_dim), on the engine of the weights."""
        x = as_input(self, x, self.embed_dim, self.in_proj_weight)
        if x.ndim != 3:
            raise ValueError(f"{self.short_repr()}: {what} has shape {tuple(x.shape)}, expected "
                             + ("(batch, tokens, embed_dim)" if self.batch_first else "(tokens, batch, embed_dim)"))
        return x if self.batch_first else x.swapaxes(0, 1)

    def merge_masks(self, attn_mask, key_padding_mask, query, key):
        """Both masks as one, (batch or 1, heads or 1, queries, keys): True where a query attends, or scores to add."""
        masks, batch, shape = [], len(query), (query.shape[1], key.shape[1])
        for name, mask, expected in (("attn_mask", attn_mask, (shape, (batch * self.num_heads, *shape))),
                                     ("key_padding_mask", key_padding_mask, ((batch, shape[1]),))):
            if mask is None:
                continue
            mask = np.asarray(mask._data if isinstance(mask, Tensor) else mask)
            if mask.shape not in expected or mask.dtype.kind not in "bf":
                raise ValueError(f"{self.short_repr()}: {name} has shape {mask.shape}, {mask.dtype}, expected "
                                 f"{' or '.join(map(str, expected))}, bool or float")
            masks.append(mask[:, None, None, :] if name == "key_padding_mask" else
                         mask[None, None] if mask.ndim == 2 else
                         contiguous(mask).reshape(batch, self.num_heads, *shape))
        if not masks:
            return None
        merged = empty_array(np.broadcast_shapes(*[mask.shape for mask in masks], (1, 1, *shape)),
                             bool if all(mask.dtype == bool for mask in masks) else float)
        launch(write_mask, merged, *masks)
        return merged

    def short_repr(self):
        return f"{type(self).__name__}({self.embed_dim}, heads={self.num_heads})"


def write_mask(merged, *masks):
    """True where no mask is True; or the sum of the masks, -∞ where a boolean one is True."""
    if merged.dtype == bool:
        merged[...] = ~functools.reduce(np.logical_or, masks)
    else:
        merged[...] = sum(np.where(mask, -np.inf, 0.0) if mask.dtype == bool else mask for mask in masks)


class PositionalEncoding(Module):
    """x + PE with PE[t, 2i] = sin(t / 10000^(2i/d)), PE[t, 2i + 1] = cos(t / 10000^(2i/d)) (Vaswani et al., 2017).

    x is (batch, tokens, d_model).
    """

    def __init__(self, d_model, dropout=0.0, max_len=5000):
        width, most = check_sizes(self, d_model=d_model, max_len=max_len)
        t, i = np.arange(most)[:, None], np.arange(width)
        angle = t / 10000.0 ** (i // 2 * 2 / width)
        self.dropout = Dropout(dropout)
        self.register_buffer("pe", np.where(i % 2, np.cos(angle), np.sin(angle)).astype(np.float32))

    def forward(self, x):
        x, (most, width) = F.as_operand(x), self.pe.shape
        if x.ndim < 2 or x.shape[-1] != width or x.shape[-2] > most:
            raise ValueError(f"PositionalEncoding: input has shape {tuple(x.shape)}, expected (batch, tokens, {width}) "
                             f"with up to {most} tokens")
        pe = self.pe[:x.shape[-2]]
        return self.dropout(x + (Tensor(pe.astype(x.dtype)) if isinstance(x, Tensor) else pe.astype(float)))
