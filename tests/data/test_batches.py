"""Every sample comes once an epoch, and in one part of a split; inputs and targets stay together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import Tensor, manual_seed, tensor
from tinynet.data import DataLoader, Dataset, TensorDataset, train_test_split


def raises(sentence, kind=ValueError):
    return pytest.raises(kind, match=sentence)


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return [float(i), i * i], i % 3


def test_tensor_dataset_has_the_dtypes_of_training():
    for X in ([[1.5, 2.0]], np.array([[1.5, 2.0]]), np.array([[1.5, 2.0]], dtype=np.float16)):
        data = TensorDataset(X, np.array([3], dtype=np.int32))
        assert data[0][0].dtype == np.float32 and data[0][1].dtype == np.int64
        assert data[0][0].tolist() == [1.5, 2.0] and data[0][1].item() == 3
    assert TensorDataset(tensor([1.0], dtype=np.float64))[0][0].dtype == np.float64  # a Tensor's dtype was chosen
    x, y = TensorDataset([[1.0], [2.0]], [0, 1]).tensors
    assert x.shape == (2, 1) and y.tolist() == [0, 1]


def test_tensor_dataset_validates():
    with raises("expected at least one array"):
        TensorDataset()
    with raises("different lengths, 2, 3"):
        TensorDataset([1, 2], [1, 2, 3])
    with raises("array 1: the samples have different shapes"):
        TensorDataset([1, 2], [[1], [2, 3]])
    with raises("array 0: expected numbers, got", TypeError):
        TensorDataset(["a", "b"])
    with raises("array 0: expected samples along the first axis"):
        TensorDataset(3.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 45), st.booleans(), st.booleans(), st.integers(0, 5), st.booleans())
def test_an_epoch_has_every_sample_once(n, batch_size, shuffle, drop_last, seed, plain):
    arrays = np.arange(2 * n).reshape(n, 2) / 2, np.arange(n)
    data = TensorDataset(*arrays) if plain else list(zip(*arrays))
    loader = DataLoader(data, batch_size, shuffle, drop_last, seed)
    batches = list(loader)
    assert len(batches) == len(loader) == (n // batch_size if drop_last else -(-n // batch_size))
    sizes = [len(y) for _, y in batches]
    assert all(size == batch_size for size in (sizes if drop_last else sizes[:-1])) and sum(sizes) == loader.samples
    for x, y in batches:
        assert isinstance(x, Tensor) and x.dtype == np.float32 and y.dtype == np.int64
        # inputs and targets stay together
        assert np.array_equal(x.numpy(), np.stack([y.numpy(), y.numpy() + 0.5], axis=1))
    seen = [i for _, y in batches for i in y.tolist()]
    assert len(set(seen)) == len(seen)
    if not shuffle:
        assert seen == list(range(len(seen)))


def test_a_dataset_of_ones_own():
    (x, y), (x2, y2) = DataLoader(Squares(5), batch_size=3)
    assert x.tolist() == [[0, 0], [1, 1], [2, 4]] and x.dtype == np.float32 and y.tolist() == [0, 1, 2]
    assert x2.tolist() == [[3, 9], [4, 16]] and y2.dtype == np.int64
    assert [batch.tolist() for batch in DataLoader([1.0, 2.0, 3.0], 2)] == [[1, 2], [3]]


def test_epochs_differ_and_seeds_repeat_them():
    data = TensorDataset(np.arange(50))

    def epochs(loader, n=3):
        return [[i for batch, in loader for i in batch.tolist()] for _ in range(n)]

    a = epochs(DataLoader(data, 8, shuffle=True, seed=1))
    assert a == epochs(DataLoader(data, 8, shuffle=True, seed=1)) != epochs(DataLoader(data, 8, shuffle=True, seed=2))
    assert a[0] != a[1] != a[2] and all(sorted(order) == list(range(50)) for order in a)
    manual_seed(5)
    b = epochs(DataLoader(data, 8, shuffle=True))
    manual_seed(5)
    assert b == epochs(DataLoader(data, 8, shuffle=True))


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_the_callers_to_keep_and_to_change(shuffle):
    data = TensorDataset(np.ones((4, 2)))
    for x, in DataLoader(data, 4, shuffle):
        x.data[:] = 7
    assert (data.arrays[0] == 1).all()


def test_data_loader_validates():
    with raises("expected a Dataset .* got generator", TypeError):
        DataLoader(i for i in range(3))
    for batch_size, kind in ((0, ValueError), (-1, ValueError), (2.0, TypeError), (True, TypeError)):
        with raises("expected batch_size to be a positive integer", kind):
            DataLoader([1], batch_size)
    for setting in ({"shuffle": "no"}, {"drop_last": None}, {"seed": 0.5}):
        with raises(f"DataLoader: expected {next(iter(setting))} to be", TypeError):
            DataLoader([1], **setting)
    with raises("part 0 of the samples of one batch has different shapes, .*sample 1"):
        list(DataLoader([[[1, 2]], [[1]]], 2))
    with raises("some samples have more parts"):
        list(DataLoader([(1, 2), (1,)], 2))
    with raises("part 1 of the samples: expected numbers", TypeError):
        list(DataLoader([(1, "a")], 1))
    with raises("Dataset: a Dataset needs a method __len__", TypeError):
        len(Dataset())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.data())
def test_a_split_divides_all_samples(n, data):
    size = data.draw(st.one_of(st.integers(1, n - 1), st.floats(0.05, 0.9)))
    X = np.arange(n * 2).reshape(n, 2)
    tested = size if isinstance(size, int) else int(np.ceil(n * size))
    if tested == n:
        return
    a_train, a_test, b_train, b_test = train_test_split(X, X[:, 0].tolist(), test_size=size, seed=0)
    assert len(a_test) == len(b_test) == tested and isinstance(b_test, list)
    assert sorted(b_train + b_test) == X[:, 0].tolist()
    assert a_train[:, 0].tolist() == b_train and a_test[:, 0].tolist() == b_test


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=10, max_size=60), st.floats(0.1, 0.6), st.integers(0, 9))
def test_stratified_splits_keep_the_proportions_of_the_classes(labels, size, seed):
    train, test = train_test_split(labels, test_size=size, stratify=labels, seed=seed)
    for label in set(labels):
        assert abs(test.count(label) - labels.count(label) * len(test) / len(labels)) <= 1.5


def test_splits_keep_the_kind_of_what_they_split():
    train, test = train_test_split(tensor([[1.0], [2.0], [3.0]]), test_size=1, shuffle=False)
    assert isinstance(test, Tensor) and test.tolist() == [[3.0]]
    train, test = train_test_split(Squares(10), test_size=0.3, seed=1)
    values = [sorted(i for x, _ in DataLoader(part, 4) for i in x.numpy()[:, 0]) for part in (train, test)]
    assert len(test) == 3 and sorted(values[0] + values[1]) == list(range(10)) and test[0][0][0] in values[1]
    whole = TensorDataset(np.arange(10))
    train, test = train_test_split(whole, test_size=0.3, seed=1)
    assert [b.tolist() for b, in DataLoader(test, 3)] == [[test[i][0].item() for i in range(3)]]


def test_splits_repeat_by_their_seed():
    a, b, c = (train_test_split(list(range(40)), seed=seed)[1] for seed in (1, 1, 2))
    assert a == b != c


def test_a_split_validates():
    with raises("expected arrays of one length, got 2, 3"):
        train_test_split([1, 2], [1, 2, 3])
    with raises("expected arrays of one length, got none"):
        train_test_split()
    for size in (0, 2, 1.0, 0.0, -1):
        with raises("leaves one part empty"):
            train_test_split([1, 2], test_size=size)
    with raises("stratify has labels of shape \\(1,\\) for 2 samples"):
        train_test_split([1, 2], stratify=[0], test_size=1)
