"""Attention, the transformer, and a GPT (Vaswani et al., 2017; Radford et al., 2018)."""

import functools
import math

import numpy as np

from .. import functional as F
from ..errors import refusing
from ..graph import no_grad
from ..kernels import launch
from ..tensors import Generator, Tensor, cat, contiguous, empty_array, forbid_in_capture
from .dense import Dropout, Embedding, LayerNorm, Linear, features, sizes
from .module import Module, ModuleList, Parameter, is_values, uniform


@refusing
class MultiheadAttention(Module):
    """Several attentions side by side, each on its own projection of the width; PyTorch's arguments and parameters.

    forward(query, key, value) with (tokens, batch, embed_dim), or (batch, tokens, embed_dim) where `batch_first`, gives
    (output, weights), the weights averaged over the heads, or None unless `need_weights`. As in PyTorch, True in
    `attn_mask` and `key_padding_mask` means "do not look".
    """

    def __init__(self, embed_dim, num_heads, dropout=0.0, bias=True, batch_first=False):
        sizes("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads)
        if embed_dim % num_heads:
            raise ValueError(f"MultiheadAttention: embed_dim {embed_dim} is no multiple of num_heads {num_heads}")
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.in_proj_weight = uniform((3 * embed_dim, embed_dim), math.sqrt(6 / (4 * embed_dim)))  # Glorot and Bengio
        self.in_proj_bias = Parameter(np.zeros(3 * embed_dim, np.float32)) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)
        if bias:
            self.out_proj.bias = Parameter(np.zeros(embed_dim, np.float32))

    def forward(self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
                average_attn_weights=True, is_causal=False):
        self_attention = key is query and value is query
        query, key, value = (self.batched(x, what) for x, what in ((query, "query"), (key, "key"), (value, "value")))
        if not len(query) == len(key) == len(value) or key.shape[1] != value.shape[1]:
            raise ValueError(f"MultiheadAttention: query, key and value have shapes {tuple(query.shape)}, "
                             f"{tuple(key.shape)} and {tuple(value.shape)} (batch, tokens, width)")
        allowed = self.allowed(attn_mask, key_padding_mask, query, key)
        plain = not need_weights and not (self.dropout and self.training)
        if self_attention and plain:
            qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
            y, weights = F.self_attention(qkv, self.num_heads, allowed, is_causal), None
        else:
            n, parts = self.embed_dim, []
            for i, x in enumerate((query, key, value)):
                bias = None if self.in_proj_bias is None else self.in_proj_bias[i * n:(i + 1) * n]
                parts.append(F.split_heads(F.linear(x, self.in_proj_weight[i * n:(i + 1) * n], bias), self.num_heads))
            q, k, v = parts
            scale = 1.0 / math.sqrt(n // self.num_heads)
            if plain:
                y, weights = F.attend(q, k, v, allowed, is_causal, scale), None
            else:
                weights = F.attention_weights(q, k, allowed, is_causal, scale)
                y = F.dropout(weights, self.dropout, self.training) @ v
                weights = weights.mean(1) if average_attn_weights else weights
            y = F.merge_heads(y)
        y = self.out_proj(y)
        return (y if self.batch_first else y.swapaxes(0, 1)), weights if need_weights else None

    def batched(self, x, what):
        """(batch, tokens, width) in the engine of the weights."""
        name = f"MultiheadAttention({self.embed_dim}, heads={self.num_heads})"
        features(self, name, x, self.embed_dim)
        x = F.as_operand(x, self.in_proj_weight)
        if x.ndim != 3:
            raise ValueError(f"{name}: {what} has shape {tuple(x.shape)}, expected "
                             + ("(batch, tokens, width)" if self.batch_first else "(tokens, batch, width)"))
        return x if self.batch_first else x.swapaxes(0, 1)

    def allowed(self, attn_mask, key_padding_mask, query, key):
        """Both masks as one of (batch or 1, heads or 1, queries, keys), True or a score to add where one may look."""
        masks = []
        wanted = (query.shape[1], key.shape[1])
        if attn_mask is not None:
            mask = plain_array(attn_mask)
            if mask.shape[-2:] != wanted or mask.ndim not in (2, 3):
                raise ValueError(f"MultiheadAttention: attn_mask has shape {mask.shape}, expected {wanted}")
            masks.append(mask[None, None] if mask.ndim == 2 else
                         contiguous(mask).reshape(len(query), self.num_heads, *wanted))
        if key_padding_mask is not None:
            mask = plain_array(key_padding_mask)
            if mask.shape != (len(key), wanted[1]):
                raise ValueError(f"MultiheadAttention: key_padding_mask has shape {mask.shape}, expected "
                                 f"{(len(key), wanted[1])}")
            masks.append(mask[:, None, None, :])
        if not masks:
            return None
        allowed = empty_array(np.broadcast_shapes(*[m.shape for m in masks], (1, 1, *wanted)),
                              bool if all(mask.dtype == bool for mask in masks) else float)
        launch(write_allowed, allowed, *masks)
        return allowed


def write_allowed(allowed, *masks):
    """True where no mask is True; or the sum of the masks, -∞ where one of bools is True."""
    if allowed.dtype == bool:
        allowed[...] = ~functools.reduce(np.logical_or, masks)
    else:
        allowed[...] = sum(np.where(mask, -np.inf, 0.0) if mask.dtype == bool else mask for mask in masks)


def plain_array(mask):
    return np.asarray(mask._data if isinstance(mask, Tensor) else mask)


@refusing
class TransformerEncoderLayer(Module):
    """Attention and a two-layer perceptron, each with a residual connection and a layer norm.

    norm_first=False: x = norm1(x + attention(x)), x = norm2(x + mlp(x)) (Vaswani et al., 2017);
    norm_first=True: x = x + attention(norm1(x)), x = x + mlp(norm2(x)) (Xiong et al., 2020).
    """

    def __init__(self, d_model, nhead, dim_feedforward=2048, dropout=0.1, activation="relu", layer_norm_eps=1e-5,
                 batch_first=False, norm_first=False, bias=True):
        if activation not in F.ACTIVATIONS:
            raise ValueError(f"TransformerEncoderLayer: activation is one of {', '.join(F.ACTIVATIONS)}, "
                             f"got {activation!r}")
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first)
        self.linear1, self.linear2 = Linear(d_model, dim_feedforward, bias), Linear(dim_feedforward, d_model, bias)
        self.linear1.activation = activation
        self.norm1, self.norm2 = LayerNorm(d_model, layer_norm_eps), LayerNorm(d_model, layer_norm_eps)
        self.dropout, self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        self.norm_first = norm_first

    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
        x = F.as_operand(src, self.linear1.weight)

        def attention(x):
            return self.dropout1(self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0])

        def mlp(x):
            return self.dropout2(self.linear2(self.dropout(self.linear1(x))))

        if self.norm_first:
            x = x + attention(self.norm1(x))
            return x + mlp(self.norm2(x))
        x = self.norm1(x + attention(x))
        return self.norm2(x + mlp(x))


@refusing
class PositionalEncoding(Module):
    """x + PE with PE[t, 2i] = sin(t / 10000^(2i/d)), PE[t, 2i + 1] = cos(t / 10000^(2i/d)) (Vaswani et al., 2017).

    x is (batch, tokens, d_model).
    """

    def __init__(self, d_model, dropout=0.0, max_len=5000):
        sizes("PositionalEncoding", d_model=d_model, max_len=max_len)
        t, i = np.arange(max_len)[:, None], np.arange(d_model)
        angle = t / 10000.0 ** (i // 2 * 2 / d_model)
        self.dropout = Dropout(dropout)
        self.register_buffer("pe", np.where(i % 2, np.cos(angle), np.sin(angle)).astype(np.float32))

    def forward(self, x):
        x = F.as_operand(x)
        tokens, (most, width) = x.shape[-2], self.pe.shape
        if x.shape[-1] != width or tokens > most:
            raise ValueError(f"PositionalEncoding: input has {tokens} tokens of width {x.shape[-1]}, expected up to "
                             f"{most} of width {width}")
        pe = self.pe[:tokens]
        return self.dropout(x + (Tensor(pe.astype(x.dtype)) if isinstance(x, Tensor) else pe.astype(float)))


@refusing
class GPT(Module):
    """A decoder of `layers` causal transformer blocks over token and position embeddings (Radford et al., 2019).

    GPT(vocab, layers, heads, width, context)(tokens) maps (batch, tokens) indices to logits (batch, tokens, vocab). On
    the scalar engine tokens may also be one-hot rows of Values, (batch, tokens, vocab): see functional.embedding.
    """

    def __init__(self, vocab, layers, heads, width, context, dropout=0.0):
        sizes("GPT", vocab=vocab, layers=layers, heads=heads, width=width, context=context)
        self.vocab, self.context = vocab, context
        self.token, self.position = Embedding(vocab, width), Embedding(context, width)
        for table in (self.token, self.position):
            table.weight.data *= 0.02
        self.drop = Dropout(dropout)
        self.blocks = ModuleList([TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True,
                                                          norm_first=True) for _ in range(layers)])
        self.norm, self.head = LayerNorm(width), Linear(width, vocab)

    def forward(self, tokens):
        tokens = tokens if is_values(tokens) and tokens.ndim == 3 else token_array(tokens)
        if tokens.ndim != 2 + is_values(tokens) or not 0 < tokens.shape[1] <= self.context:
            raise ValueError(f"GPT: expected (batch, tokens) with 1 to {self.context} tokens, got shape {tokens.shape}")
        x = self.token(tokens) + self.position(np.arange(tokens.shape[1]))
        x = self.drop(x)
        for block in self.blocks:
            x = block(x, is_causal=True)
        return self.head(self.norm(x))

    @no_grad()
    def generate(self, prompt, max_new_tokens, temperature=1.0, top_k=None, seed=None, cached=True):
        """The prompt (tokens, or (batch, tokens) indices) continued by `max_new_tokens`, as an array of indices.

        Each token is drawn from softmax(logits / temperature) among the `top_k` likeliest; temperature 0 takes the
        likeliest. Keys and values of earlier tokens are kept and used again (until the text outgrows the context, from
        where on the last `context` tokens are read anew for every token).
        """
        forbid_in_capture("generate")
        text = np.array(token_array(prompt))
        single = text.ndim == 1
        text = text[None] if single else text
        if text.ndim != 2 or not text.shape[1]:
            raise ValueError(f"GPT.generate: expected a prompt of at least one token, got shape {text.shape}")
        if not temperature >= 0 or (top_k is not None and not 1 <= top_k <= self.vocab):
            raise ValueError(f"GPT.generate: temperature is 0 or more and top_k 1 to {self.vocab}, got {temperature} "
                             f"and {top_k}")
        rng = np.random.default_rng(seed) if seed is not None else Generator.stream
        training, cache = self.training, None
        self.eval()
        try:
            for _ in range(max_new_tokens):
                if cached and text.shape[1] <= self.context:
                    logits, cache = self.step(text[:, cache_length(cache):], cache)
                else:
                    logits = self(text[:, -self.context:])[:, -1]
                text = np.concatenate([text, choose_token(plain_numbers(logits), temperature, top_k, rng)], 1)
        finally:
            self.train(training)
        return text[0] if single else text

    def step(self, tokens, cache):
        """Logits after the last of some further tokens, given the keys and values of all earlier ones."""
        before = cache_length(cache)
        x = self.token(tokens) + self.position(np.arange(before, before + tokens.shape[1]))
        kept = []
        for i, block in enumerate(self.blocks):
            attn = block.self_attn
            q, k, v = (F.split_heads(part, attn.num_heads) for part in F.split_qkv(
                F.linear(block.norm1(x), attn.in_proj_weight, attn.in_proj_bias)))
            if cache is not None:
                k, v = (joined([old, new]) for old, new in zip(cache[i], (k, v)))
            kept.append((k, v))
            allowed = np.arange(k.shape[2]) <= before + np.arange(q.shape[2])[:, None]
            y = F.attend(q, k, v, None if allowed.all() else allowed[None, None], False, 1 / math.sqrt(q.shape[-1]))
            x = x + attn.out_proj(F.merge_heads(y))
            x = x + block.linear2(block.linear1(block.norm2(x)))
        return self.head(self.norm(x[:, -1:]))[:, -1], kept


def cache_length(cache):
    return 0 if cache is None else cache[0][0].shape[2]


def joined(parts):
    return np.concatenate(parts, 2) if is_values(parts[0]) else cat(parts, 2)


def token_array(tokens):
    tokens = tokens._data if isinstance(tokens, Tensor) else np.asarray(tokens)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"GPT: expected whole numbers as tokens, got {tokens.dtype}")
    return tokens


def plain_numbers(x):
    return x.detach().numpy().astype(float) if isinstance(x, Tensor) else np.vectorize(float, otypes=[float])(x)


def choose_token(logits, temperature, top_k, rng):
    """One index for each row of logits, (rows, 1)."""
    if temperature == 0:
        return logits.argmax(-1)[:, None]
    logits = logits / temperature
    if top_k is not None:
        logits = np.where(logits < np.sort(logits, -1)[:, -top_k, None], -np.inf, logits)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.array([[rng.choice(len(row), p=row)] for row in p])
