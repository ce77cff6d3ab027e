"""Text as tokens, and the windows a model of the next token trains on."""

import numpy as np

from ..errors import check_int, check_positive_int
from ..tensors import Tensor
from .batches import Dataset, TensorDataset, as_samples

IGNORED = -100  # a target that does not count, PyTorch's `ignore_index`


class CharTokenizer:
    """Characters as integers: `chars` are the sorted characters of a text, a character's token is its index there.

    >>> tokenizer = CharTokenizer("hello")
    >>> tokenizer.chars, tokenizer.encode("hole").tolist()
    ('ehlo', [1, 3, 2, 0])
    >>> tokenizer.decode([1, 0, 2, 2, 3])
    'hello'
    """

    def __init__(self, text):
        self.chars = "".join(sorted(set(text if isinstance(text, str) else "".join(text))))
        self.tokens = {char: i for i, char in enumerate(self.chars)}

    def __len__(self):
        return len(self.chars)

    def encode(self, text):
        """The tokens of a text, as an int64 array."""
        text = list(text)
        tokens = [self.tokens.get(char) for char in text]
        if None in tokens:
            i = tokens.index(None)
            raise ValueError(f"CharTokenizer: the character {text[i]!r} at index {i} is not among the {len(self)} known"
                             " ones")
        return np.array(tokens, dtype=np.int64)

    def decode(self, tokens):
        """The text of some tokens."""
        tokens = as_tokens("CharTokenizer", tokens)
        for t in tokens:
            if not 0 <= t < len(self):
                raise ValueError(f"CharTokenizer: expected tokens from 0 to {len(self) - 1}, got {t}")
        return "".join(self.chars[t] for t in tokens)


def as_tokens(name, tokens):
    """A sequence of tokens as an array of integers."""
    tokens = as_samples(name, tokens) if len(tokens) else np.zeros(0, np.int64)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a sequence of integers, got shape {tokens.shape}, {tokens.dtype}")
    return tokens


class Windows(Dataset):
    """Rows of tokens, each split into all but the last and all but the first."""

    def __init__(self, windows):
        self.windows = windows

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, i):
        return tuple(Tensor(row) for row in self.batch(i))

    def batch(self, indices):
        rows = self.windows[np.asarray(indices)]
        return [rows[..., :-1].copy(), rows[..., 1:].copy()]


def next_tokens(tokens, context):
    """Windows of a text for a model of the next token: sample i is (tokens[i : i+context], tokens[i+1 : i+context+1]).

    >>> data = next_tokens([5, 6, 7, 8], context=2)
    >>> len(data), data[1]
    (2, (tensor([6, 7]), tensor([7, 8])))
    """
    tokens, context = as_tokens("next_tokens", tokens), check_positive_int("next_tokens", "context", context)
    if len(tokens) <= context:
        raise ValueError(f"next_tokens: expected at least {context + 1} tokens, got {len(tokens)}")
    return Windows(np.lib.stride_tricks.sliding_window_view(tokens, context + 1))


def next_tokens_of_each(texts, context=None, end=0):
    """Separate texts, such as names, for a model of the next token; `texts` are sequences of tokens.

    Sample i is (end, t₀, …, tₙ) and (t₀, …, tₙ, end) for text i: a text begins after the end of the one before. All are
    padded to `context` tokens (by default the longest text and its end), the inputs with `end` and the targets with
    -100, which `cross_entropy` ignores.

    >>> names = ["ab", "c"]
    >>> tokenizer = CharTokenizer(["\\n", *names])                       # the newline is token 0
    >>> data = next_tokens_of_each([tokenizer.encode(name) for name in names])
    >>> [part.tolist() for part in data[1]]
    [[0, 3, 0], [3, 0, -100]]
    """
    name = "next_tokens_of_each"
    texts = [as_tokens(f"{name}: text {i}", text) for i, text in enumerate(texts)]
    longest = 1 + max(map(len, texts), default=0)
    context = longest if context is None else check_positive_int(name, "context", context)
    if context < longest:
        raise ValueError(f"{name}: the longest text and its end have {longest} tokens, context is {context}")
    end = check_int(name, "end", end)
    inputs, targets = np.full((len(texts), context), end), np.full((len(texts), context), IGNORED)
    for i, text in enumerate(texts):
        inputs[i, 1:1 + len(text)] = targets[i, :len(text)] = text
        targets[i, len(text)] = end
    return TensorDataset(inputs, targets)


def one_hot(labels, num_classes=None):
    """A row for each label, 1 at the index of the label and 0 elsewhere, in float32; Tensors give a Tensor.

    >>> one_hot([2, 0], 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    array = labels._data if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"one_hot: expected integers (class indices), got {array.dtype}")
    array = array.astype(np.int64)
    n = int(array.max(initial=-1)) + 1 if num_classes is None else check_int("one_hot", "num_classes", num_classes, 0)
    if array.size and not (array.min() >= 0 and array.max() < n):
        raise ValueError(f"one_hot: labels range from {array.min()} to {array.max()}, expected 0 to {n - 1}")
    rows = np.zeros((*array.shape, n), dtype=np.float32)
    np.put_along_axis(rows, array[..., None], 1.0, axis=-1)
    return Tensor(rows) if isinstance(labels, Tensor) else rows
