"""The transformer block, and GPT (Vaswani et al., 2017; Radford et al., 2018)."""

import math

import numpy as np

from .. import functional as F
from ..errors import check_bool, check_choice, check_int, check_number
from ..graph import no_grad
from ..tensors import Generator, Tensor, forbid_in_capture
from .attention import MultiheadAttention
from .dense import Dropout, Embedding, Linear
from .module import Module, ModuleList, check_sizes, concatenate, copy_array, is_values
from .normalization import LayerNorm


class TransformerEncoderLayer(Module):
    """Attention and a two-layer perceptron, each with a residual connection and a layer norm.

    norm_first=False: x = norm1(x + attention(x)), x = norm2(x + mlp(x)) (Vaswani et al., 2017);
    norm_first=True: x = x + attention(norm1(x)), x = x + mlp(norm2(x)) (Xiong et al., 2020).
    """

    def __init__(self, d_model, nhead, dim_feedforward=2048, dropout=0.1, activation="relu", layer_norm_eps=1e-5,
                 batch_first=False, norm_first=False, bias=True):
        name = type(self).__name__
        check_sizes(self, d_model=d_model, nhead=nhead, dim_feedforward=dim_feedforward)
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first)
        self.linear1, self.linear2 = Linear(d_model, dim_feedforward, bias), Linear(dim_feedforward, d_model, bias)
        self.linear1.activation = check_choice(name, "activation", activation, tuple(F.ACTIVATIONS))
        self.norm1, self.norm2 = LayerNorm(d_model, layer_norm_eps), LayerNorm(d_model, layer_norm_eps)
        self.dropout, self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout), Dropout(dropout)
        self.norm_first = check_bool(name, "norm_first", norm_first)

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


class GPT(Module):
    """A decoder of `layers` causal transformer blocks over token and position embeddings (Radford et al., 2019).

    GPT(vocab, layers, heads, width, context)(tokens) maps (batch, tokens) indices to logits (batch, tokens, vocab). On
    the scalar engine tokens may also be one-hot rows of Values, (batch, tokens, vocab): see functional.embedding.
    """

    def __init__(self, vocab, layers, heads, width, context, dropout=0.0):
        vocab, layers, heads, width, context = check_sizes(self, vocab=vocab, layers=layers, heads=heads, width=width,
                                                           context=context)
        self.vocab, self.context = vocab, context
        self.token, self.position = Embedding(vocab, width), Embedding(context, width)
        for table in (self.token, self.position):
            table.weight.data *= 0.02
        self.drop = Dropout(dropout)
        self.blocks = ModuleList([TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True,
                                                          norm_first=True) for _ in range(layers)])
        self.norm, self.head = LayerNorm(width), Linear(width, vocab)

    def forward(self, tokens):
        tokens = tokens if is_values(tokens) and tokens.ndim == 3 else as_tokens(tokens)
        if tokens.ndim != 2 + is_values(tokens) or not 0 < tokens.shape[1] <= self.context:
            raise ValueError(f"GPT: expected (batch, tokens) with 1 to {self.context} tokens, got shape {tokens.shape}")
        x = self.drop(self.token(tokens) + self.position(np.arange(tokens.shape[1])))
        for block in self.blocks:
            x = block(x, is_causal=True)
        return self.head(self.norm(x))

    @no_grad()
    def generate(self, prompt, max_new_tokens, temperature=1.0, top_k=None, seed=None, cached=True):
        """The prompt (tokens, or (batch, tokens) indices) continued by `max_new_tokens`, as an array of indices.

        Each token is drawn from softmax(logits / temperature) among the `top_k` likeliest; temperature 0 takes the
        likeliest. Keys and values of earlier tokens are cached (until the text outgrows the context: from there on, the
        last `context` tokens are recomputed for every token).
        """
        forbid_in_capture("generate")
        text = np.array(as_tokens(prompt))
        single = text.ndim == 1
        text = text[None] if single else text
        if text.ndim != 2 or not text.shape[1]:
            raise ValueError(f"generate: expected a prompt of at least one token, got shape {text.shape}")
        steps = check_int("generate", "max_new_tokens", max_new_tokens, 0)
        temperature = check_number("generate", "temperature", temperature, 0)
        top_k = None if top_k is None else check_int("generate", "top_k", top_k, 1, self.vocab)
        rng = Generator.stream if seed is None else np.random.default_rng(check_int("generate", "seed", seed, 0))
        training, cache = self.training, None
        self.eval()
        try:
            for _ in range(steps):
                if cached and text.shape[1] <= self.context:
                    logits, cache = self.step(text[:, cache_length(cache):], cache)
                else:
                    logits = self(text[:, -self.context:])[:, -1]
                chosen = choose_token(copy_array(logits).astype(float), temperature, top_k, rng)
                text = np.concatenate([text, chosen], 1)
        finally:
            self.train(training)
        return text[0] if single else text

    def step(self, tokens, cache):
        """(logits after the last of some further tokens, the new cache), given the keys and values of earlier ones."""
        start = cache_length(cache)
        x = self.token(tokens) + self.position(np.arange(start, start + tokens.shape[1]))
        kept = []
        for i, block in enumerate(self.blocks):
            attn = block.self_attn
            q, k, v = (F.split_heads(x, attn.num_heads) for x in F.split_qkv(
                F.linear(block.norm1(x), attn.in_proj_weight, attn.in_proj_bias)))
            if cache is not None:
                k, v = (concatenate([old, new], 2) for old, new in zip(cache[i], (k, v)))
            kept.append((k, v))
            mask = np.arange(k.shape[2]) <= start + np.arange(q.shape[2])[:, None]
            y = F.attend(q, k, v, None if mask.all() else mask[None, None], False, 1 / math.sqrt(q.shape[-1]))
            x = x + attn.out_proj(F.merge_heads(y))
            x = x + block.linear2(block.linear1(block.norm2(x)))
        return self.head(self.norm(x[:, -1:]))[:, -1], kept


def as_tokens(tokens):
    """Tokens as an array of integers."""
    tokens = tokens._data if isinstance(tokens, Tensor) else np.asarray(tokens)
    if tokens.dtype.kind not in "iu":
        raise TypeError(f"GPT: expected integers as tokens, got {tokens.dtype}")
    return tokens


def cache_length(cache):
    return 0 if cache is None else cache[0][0].shape[2]


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
