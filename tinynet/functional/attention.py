"""Attention."""

import math

import numpy as np

from .. import kernels
from ..errors import check_bool, check_number
from ..graph import mode
from ..kernels import launch
from ..tensors import Tensor, contiguous, empty_array
from .activations import softmax
from .dense import dropout
from .dispatch import as_constant, as_numpy, as_operand, check_floats, fused_by


def check_attention(name, q, k, v):
    """Raise unless query is (…, queries, d), key (…, keys, d) and value (…, keys, e), of one dtype."""
    if (q.ndim < 2 or not q.ndim == k.ndim == v.ndim or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]
            or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2] or not q.shape[-1] or not k.shape[-2]):
        raise ValueError(f"{name}: expected query (…, queries, d), key (…, keys, d) and value (…, keys, e), got "
                         f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}")
    check_floats(name, q, k, v)


def as_bhtd(x):
    """x as (batch, heads, tokens, d), its last axis contiguous."""
    if x.strides[-1] != x.itemsize and x.size:
        x = contiguous(x)
    return x if x.ndim == 4 else contiguous(x).reshape(1, math.prod(x.shape[:-2]), *x.shape[-2:])


def additive_mask(attn_mask, q, k, lead):
    """The scores to add, (batch, heads, queries, keys): 0 and -∞ for a mask of bools; empty where there is none.
    `lead` are the axes of the mask before the last two."""
    if attn_mask is None:
        return np.zeros((0, 0, 0, 0), q.dtype)
    mask = empty_array(attn_mask.shape, q.dtype)
    launch(write_mask, mask, attn_mask)
    if len(lead) > 2:
        mask = contiguous(np.broadcast_to(mask, (*lead, *mask.shape[-2:]))).reshape(1, -1, *mask.shape[-2:])
    return np.broadcast_to(mask, (*q.shape[:3], k.shape[2]))


def write_mask(mask, attn_mask):
    mask[...] = np.where(attn_mask, 0.0, -np.inf) if attn_mask.dtype == bool else attn_mask


def fused_attention(q, k, v, attn_mask=None, causal=False, scale=1.0):
    """softmax(QKᵀ/√d + mask) V by blocks of queries and keys: no array of all scores (Dao et al., 2022).

    With P the weights: ∂V = Pᵀ g, ∂S = P ∘ (g Vᵀ - rows(g ∘ y)), ∂Q = ∂S K / √d, ∂K = ∂Sᵀ Q / √d; P is recomputed from
    the log-sum-exp of each row, `lse`, which the forward pass saves.
    """
    check_attention("attention", q, k, v)
    causal = check_bool("attention", "is_causal", causal)
    Q, K, V = as_bhtd(q), as_bhtd(k), as_bhtd(v)
    mask = additive_mask(attn_mask, Q, K, q.shape[:-2])
    y, lse = empty_array((*Q.shape[:-1], V.shape[-1]), q.dtype), empty_array(Q.shape[:-1], q.dtype)
    launch(kernels.attention.attention, y, lse, Q, K, V, mask, causal, scale)

    def vjps(g, needs):
        gradients = [empty_array(x.shape, x.dtype) for x in (q, k, v)]
        launch(kernels.attention.attention_backward, *map(as_bhtd, gradients), as_bhtd(contiguous(g)), y, lse, Q, K, V,
               mask, causal, scale)
        return gradients

    return y.reshape(*q.shape[:-1], v.shape[-1]), vjps


def attention_weights(q, k, attn_mask=None, causal=False, scale=1.0):
    """softmax(QKᵀ · scale + mask), (…, queries, keys); a query that may attend to nothing has weights 0."""
    scores = q @ k.swapaxes(-1, -2) * scale
    if attn_mask is None and not causal:
        return softmax(scores, -1)
    added, seen = empty_array(scores.shape, float), empty_array(scores.shape, bool)
    some = empty_array((*scores.shape[:-1], 1), bool)
    launch(write_masks, added, seen, some, attn_mask, causal)
    if attn_mask is not None and attn_mask.dtype != bool:
        scores = scores + as_constant(added, scores)
    weights = softmax(np.where(seen, scores, -np.inf) if mode.plan is not None or not seen.all() else scores, -1)
    return weights if mode.plan is None and some.all() else weights * as_constant(some, weights)


def write_masks(added, seen, some, attn_mask, causal):
    """The finite scores to add; whether a query sees a key, or sees none at all; whether it sees any."""
    mask = np.asarray(True if attn_mask is None else attn_mask)
    seen[...] = mask if mask.dtype == bool else mask != -np.inf
    added[...] = 0.0 if mask.dtype == bool else np.where(seen, mask, 0.0)
    if causal:
        np.logical_and(seen, np.tri(*seen.shape[-2:], dtype=bool), out=seen)
    np.any(seen, -1, keepdims=True, out=some)
    np.logical_or(seen, ~some, out=seen)


@fused_by(fused_attention)
def attend(q, k, v, attn_mask=None, causal=False, scale=1.0):
    return attention_weights(q, k, attn_mask, causal, scale) @ v


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """softmax(QKᵀ/√d + mask) V (Vaswani et al., 2017): query (…, queries, d), key (…, keys, d), value (…, keys, e).

    attn_mask (…, queries, keys) of bools says where a query may attend to a key, one of floats is added to the scores;
    is_causal lets query i attend to the keys 0 … i. The result is (…, queries, e).

    >>> from tinynet import tensor
    >>> q = k = v = tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> scaled_dot_product_attention(q, k, v, is_causal=True).tolist()[0]      # the first token sees itself alone
    [1.0, 0.0]
    """
    name = "scaled_dot_product_attention"
    q, k, v = (as_operand(x) for x in (query, key, value))
    check_attention(name, q, k, v)
    if attn_mask is not None:
        attn_mask = checked_mask(name, attn_mask, (*q.shape[:-1], k.shape[-2]))
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else float(check_number(name, "scale", scale))
    if dropout_p:
        return dropout(attention_weights(q, k, attn_mask, is_causal, scale), dropout_p) @ v
    return attend(q, k, v, attn_mask, is_causal, scale)


def checked_mask(name, attn_mask, shape):
    """A mask as an array that broadcasts to `shape`."""
    if isinstance(attn_mask, Tensor) and attn_mask.requires_grad:
        raise ValueError(f"{name}: a mask takes no gradient; add learned scores to the query or the key")
    mask = as_numpy(attn_mask)
    if mask.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected attn_mask to be of bools or numbers, got {mask.dtype}")
    if mask.ndim < 2 or mask.shape[-2:] != shape[-2:] or mask.ndim > len(shape) or any(
            m not in (1, n) for m, n in zip(mask.shape[::-1], shape[::-1])):
        raise ValueError(f"{name}: the mask has shape {mask.shape}, expected one that broadcasts to {shape}")
    return mask


# ------------------------------------------------------------------------------------------------------ self-attention

def split_qkv(qkv):
    """The three thirds of the last axis."""
    width = qkv.shape[-1] // 3
    return [qkv[..., i * width:(i + 1) * width] for i in range(3)]


def split_heads(x, heads):
    """(batch, tokens, heads · d) as (batch, heads, tokens, d)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(0, 2, 1, 3)


def merge_heads(x):
    """(batch, heads, tokens, d) as (batch, tokens, heads · d)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], x.shape[1] * x.shape[3])


def fused_self_attention(qkv, heads, attn_mask=None, causal=False):
    """As `fused_attention`. Queries, keys, values and their gradients are views of one array: no part is copied."""
    if qkv.ndim != 3 or not qkv.shape[1] or not qkv.shape[2] or qkv.shape[2] % (3 * heads):
        raise ValueError(f"self_attention: expected (batch, tokens, 3 · heads · d) for {heads} heads, got {qkv.shape}")
    check_floats("self_attention", qkv)
    qkv = contiguous(qkv)
    parts = lambda x: [split_heads(third, heads) for third in split_qkv(x)]
    q, k, v = parts(qkv)
    mask, lse = additive_mask(attn_mask, q, k, q.shape[:2]), empty_array(q.shape[:-1], q.dtype)
    causal, scale = check_bool("self_attention", "is_causal", causal), 1.0 / math.sqrt(q.shape[-1])
    y = empty_array((*qkv.shape[:2], qkv.shape[2] // 3), qkv.dtype)
    launch(kernels.attention.attention, split_heads(y, heads), lse, q, k, v, mask, causal, scale)

    def vjps(g, needs):
        d = empty_array(qkv.shape, qkv.dtype)
        launch(kernels.attention.attention_backward, *parts(d), split_heads(contiguous(g), heads),
               split_heads(y, heads), lse, q, k, v, mask, causal, scale)
        return [d]

    return y, vjps


@fused_by(fused_self_attention)
def self_attention(qkv, heads, attn_mask=None, causal=False):
    """Attention of each head among the tokens of qkv (batch, tokens, 3 · heads · d), the heads one after the other."""
    q, k, v = (split_heads(x, heads) for x in split_qkv(qkv))
    return merge_heads(attend(q, k, v, attn_mask, causal, 1.0 / math.sqrt(q.shape[-1])))
