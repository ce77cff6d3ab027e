"""Decoding inverts encoding, windows hold each next token, and one-hot rows have their 1 at the label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import Tensor, nn, tensor
from tinynet.data import CharTokenizer, DataLoader, next_tokens, next_tokens_of_each, one_hot


def raises(sentence, kind=ValueError):
    return pytest.raises(kind, match=sentence)


@given(st.text(min_size=1))
def test_decoding_gives_back_what_was_encoded(text):
    tokenizer = CharTokenizer(text)
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int64 and tokenizer.decode(tokens) == tokenizer.decode(tensor(tokens)) == text
    assert len(tokenizer) == len(set(text)) and sorted(set(tokens)) == list(range(len(tokenizer)))
    assert CharTokenizer(tokenizer.chars).chars == CharTokenizer(list(text)).chars == tokenizer.chars


def test_tokenizer_validates():
    with raises("the character 'x' at index 2 is not among the 2 known ones"):
        CharTokenizer("ab").encode("abx")
    with raises("expected tokens from 0 to 1, got 2"):
        CharTokenizer("ab").decode([0, 2])


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 6), st.integers(1, 7))
def test_windows_hold_each_next_token(n, context, batch_size):
    tokens = np.random.default_rng(n).integers(0, 9, n)
    if n <= context:
        with raises(f"expected at least {context + 1} tokens, got {n}"):
            next_tokens(tokens, context)
        return
    data = next_tokens(tokens, context)
    assert len(data) == n - context
    start = 0
    for x, y in DataLoader(data, batch_size):
        for row, following in zip(x.tolist(), y.tolist()):
            assert row == tokens[start:start + context].tolist() == [t.item() for t in data[start][0]]
            assert following == tokens[start + 1:start + context + 1].tolist() == data[start][1].tolist()
            start += 1
    assert start == len(data)


def test_windows_validate():
    with raises("expected a sequence of integers", TypeError):
        next_tokens([1.0, 2.0], 1)
    with raises("expected context to be a positive integer"):
        next_tokens([1, 2], 0)


@given(st.lists(st.text("abc", max_size=5), min_size=1, max_size=6), st.integers(0, 3))
def test_texts_apart_from_one_another(names, room):
    tokenizer = CharTokenizer("\nabc")
    context = 1 + max(map(len, names)) + room
    data = next_tokens_of_each([tokenizer.encode(name) for name in names], context if room else None)
    assert len(data) == len(names)
    for name, (x, y) in zip(names, data):
        assert x.shape == y.shape == (context,) and x.dtype == y.dtype == np.int64
        assert tokenizer.decode(x) == f"\n{name}".ljust(context, "\n")
        assert tokenizer.decode(y[:len(name) + 1]) == f"{name}\n" and (y[len(name) + 1:].numpy() == -100).all()


def test_texts_apart_validate():
    with raises("the longest text and its end have 4 tokens, context is 3"):
        next_tokens_of_each([[1, 2, 3]], context=3)
    with raises("expected context to be a positive integer", TypeError):
        next_tokens_of_each([[1]], context=2.5)
    with raises("text 1: expected a sequence of integers", TypeError):
        next_tokens_of_each([[1], [0.5]])
    with raises("text 0: expected numbers", TypeError):
        next_tokens_of_each(["anna"])


def test_text_that_was_padded_trains_as_if_it_were_alone():
    """The loss of a batch of names is the mean over all their letters and ends, however far they were filled up."""
    names, losses = [[1, 2, 1], [2]], []
    logits = np.random.default_rng(0).normal(size=(2, 9, 3))
    for context in (None, 9):
        x, y = zip(*next_tokens_of_each(names, context))
        width = len(y[0])
        rows = tensor(logits[:, :width].reshape(-1, 3))
        losses.append(nn.functional.cross_entropy(rows, np.concatenate([t.numpy() for t in y])).item())
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    terms = [p[0, 0, 1], p[0, 1, 2], p[0, 2, 1], p[0, 3, 0], p[1, 0, 2], p[1, 1, 0]]
    assert losses == pytest.approx([-np.log(terms).mean()] * 2, rel=1e-12)


def test_one_hot():
    labels = np.random.default_rng(0).integers(0, 5, (3, 4))
    rows = one_hot(labels, 6)
    assert rows.shape == (3, 4, 6) and rows.dtype == np.float32
    assert (rows.sum(-1) == 1).all() and np.array_equal(rows.argmax(-1), labels)
    assert isinstance(one_hot(tensor([0, 2])), Tensor) and one_hot([0, 2]).shape == (2, 3)
    assert one_hot([], 3).shape == (0, 3)
    with raises("labels range from 0 to 3, expected 0 to 2"):
        one_hot([0, 3], 3)
    with raises("labels range from -1 to 0"):
        one_hot([0, -1])
    with raises("expected integers", TypeError):
        one_hot([0.5])
