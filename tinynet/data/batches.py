"""Datasets, mini-batches and splits.

A dataset is a sequence of samples; a DataLoader groups them into batches, in a new order each epoch; a split keeps
some samples apart to test on.
"""

import functools
import math
from collections.abc import Mapping

import numpy as np

from ..errors import check_bool, check_int, check_number, check_positive_int, describe, is_int
from ..tensors import Generator, Tensor, stream_from


class Dataset:
    """A sequence of samples. A subclass defines `__len__` and `__getitem__(i)`, which returns (input, target).

    An optional method `batch(indices)` returns the arrays of many samples at once, without a loop over them.
    """

    def __len__(self):
        raise TypeError(f"{type(self).__name__}: a Dataset needs a method __len__(self)")

    def __getitem__(self, i):
        raise TypeError(f"{type(self).__name__}: a Dataset needs a method __getitem__(self, i)")


class TensorDataset(Dataset):
    """Arrays of one length, side by side: sample i is (a[i], b[i], …).

    Tensors keep their dtype; of other arrays, floats become float32 and integers int64.

    >>> data = TensorDataset([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    >>> len(data), data[1]
    (2, (tensor([3., 4.]), tensor(1)))
    """

    def __init__(self, *arrays):
        if not arrays:
            raise ValueError("TensorDataset: expected at least one array, got none")
        self.arrays = [as_samples(f"TensorDataset: array {i}", array) for i, array in enumerate(arrays)]
        if len({len(a) for a in self.arrays}) > 1:
            raise ValueError("TensorDataset: the arrays have different lengths, "
                             + ", ".join(str(len(a)) for a in self.arrays))

    @property
    def tensors(self):
        return tuple(Tensor(a) for a in self.arrays)

    def __len__(self):
        return len(self.arrays[0])

    def __getitem__(self, i):
        return tuple(Tensor(at(a, i)) for a in self.arrays)

    def batch(self, indices):
        return [a.take(np.asarray(indices), axis=0) for a in self.arrays]


def as_samples(name, array):
    """An array with samples along its first axis: floats as float32, integers as int64; a Tensor keeps its dtype."""
    if isinstance(array, Tensor):
        array = array._data
    else:
        try:
            array = np.asarray(array)
        except ValueError:
            raise ValueError(f"{name}: the samples have different shapes") from None
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected numbers, got {array.dtype}")
        array = array.astype({"f": np.float32, "b": np.bool_}.get(array.dtype.kind, np.int64), copy=False)
    if not array.ndim:
        raise ValueError(f"{name}: expected samples along the first axis, got a single number")
    return np.ascontiguousarray(array)


def at(array, i):
    """array[i]; IndexError also for an index beyond the integers of the machine."""
    try:
        return array[i]
    except OverflowError:
        raise IndexError(f"index {describe(i)} is out of range") from None


class Subset(Dataset):
    """The samples of a dataset at the given indices."""

    def __init__(self, dataset, indices):
        array = np.asarray(indices)
        if array.ndim != 1 or array.dtype.kind not in "iu" and array.size:
            raise TypeError(f"Subset: expected indices to be a sequence of integers, got {describe(indices)}")
        self.dataset, self.indices = dataset, array.astype(np.int64)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.dataset[int(at(self.indices, i))]

    def batch(self, indices):
        return gather(self.dataset, self.indices[indices])


def gather(dataset, indices):
    """The arrays of many samples: one for each part, or a single one where a sample is no tuple."""
    if hasattr(dataset, "batch"):
        return dataset.batch(indices)
    samples = [dataset[int(i)] for i in indices]
    if samples and not isinstance(samples[0], (tuple, list)):
        return stacked(samples, 0)
    samples = [sample if isinstance(sample, (tuple, list)) else (sample,) for sample in samples]
    if len({len(sample) for sample in samples}) > 1:
        raise ValueError("DataLoader: some samples have more parts than others")
    return [stacked(parts, i) for i, parts in enumerate(zip(*samples))]


def stacked(parts, part):
    """Part number `part` of each sample, as an array of the batch."""
    arrays = [p._data if isinstance(p, Tensor) else np.asarray(p) for p in parts]
    for i, a in enumerate(arrays):
        if a.shape != arrays[0].shape:
            raise ValueError(f"DataLoader: part {part} of the samples of one batch has different shapes, "
                             f"{arrays[0].shape} and {a.shape} (sample {i} of the batch)")
    batch = np.stack(arrays)
    return batch if isinstance(parts[0], Tensor) else as_samples(f"DataLoader: part {part} of the samples", batch)


class DataLoader:
    """Mini-batches of Tensors; one pass over it is one epoch.

    len(loader) is the number of batches. The last batch may be smaller, or is left out with `drop_last`. With
    `shuffle` every epoch has a new order; a `seed` makes these orders the same in every run. A batch is a tuple of the
    samples' parts, or one Tensor where a sample is no tuple. `num_workers` and `pin_memory` are accepted for PyTorch's
    scripts and have no effect.

    >>> loader = DataLoader(TensorDataset(range(5)), batch_size=2)
    >>> len(loader), [batch.tolist() for batch, in loader]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, drop_last=False, seed=None, num_workers=0,
                 pin_memory=False):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError("DataLoader: expected a Dataset (with __len__ and __getitem__), got "
                            + type(dataset).__name__)
        self.dataset, self.batch_size = dataset, check_positive_int("DataLoader", "batch_size", batch_size)
        self.shuffle = check_bool("DataLoader", "shuffle", shuffle)
        self.drop_last = check_bool("DataLoader", "drop_last", drop_last)
        self.random = None if seed is None else np.random.default_rng(check_int("DataLoader", "seed", seed, 0))

    @property
    def samples(self):
        """The number of samples in an epoch."""
        n = len(self.dataset)
        return n - n % self.batch_size if self.drop_last else n

    def __len__(self):
        return math.ceil(self.samples / self.batch_size)

    def state_dict(self):
        """The state of its random generator, if it has a seed: between two epochs there is no other state."""
        return {"random": self.random and self.random.bit_generator.state}

    def load_state_dict(self, state):
        """Continue with the next epoch of the saved loader; ValueError where only one of the two has a seed."""
        self.validate_state_dict(state)()

    def validate_state_dict(self, state):
        """Validate a state_dict, and return the function that loads it."""
        if not isinstance(state, dict) or "random" not in state or (state["random"] is None) != (self.random is None):
            raise ValueError("DataLoader.load_state_dict: expected the state of a loader "
                             + ("without a seed" if self.random is None else "with a seed"))
        stream = None if state["random"] is None else stream_from("DataLoader", state["random"])
        return functools.partial(setattr, self, "random", stream)

    def __iter__(self):
        order = np.arange(len(self.dataset))
        if self.shuffle:
            (self.random or Generator.stream).shuffle(order)
        for start in range(0, self.samples, self.batch_size):
            arrays = gather(self.dataset, order[start:start + self.batch_size])
            yield Tensor(arrays) if isinstance(arrays, np.ndarray) else tuple(Tensor(a) for a in arrays)


# -------------------------------------------------------------------------------------------------------------- splits

def random_split(dataset, lengths, generator=None):
    """Random parts of a dataset, of the given lengths (or fractions that add up to 1).

    >>> train, test = random_split(TensorDataset(range(10)), [0.8, 0.2])
    >>> len(train), len(test)
    (8, 2)
    """
    n, lengths = len(dataset), [check_number("random_split", "lengths", x, 0) for x in lengths]
    stream = getattr(Generator if generator is None else generator, "stream", None)
    if not isinstance(stream, np.random.Generator):
        raise TypeError(f"random_split: expected generator to be a tinynet.Generator(), got {describe(generator)}")
    if lengths and math.isclose(sum(lengths), 1.0) and any(x < 1 for x in lengths):
        ends = np.floor(np.cumsum([0.0, *lengths]) * n + 1e-9).astype(int)
        lengths = np.diff(ends).tolist()
    if not all(map(is_int, lengths)) or sum(lengths) != n:
        raise ValueError(f"random_split: expected lengths that add up to {n}, or fractions that add up to 1, got "
                         f"{lengths}")
    return [Subset(dataset, part) for part in np.split(stream.permutation(n), np.cumsum(lengths)[:-1])]


def train_test_split(*arrays, test_size=0.25, shuffle=True, stratify=None, seed=None):
    """Split each of the arrays into a part to train on and one to test on: a_train, a_test, b_train, b_test, …

    The arrays have one length: arrays, tensors, lists, tables or Datasets. `test_size` is a fraction of the samples (a
    float) or their number (an int). `stratify`, the labels, keeps the proportion of every class in both parts.

    >>> train, test = train_test_split(list("abcde"), test_size=2, shuffle=False)
    >>> train, test
    (['a', 'b', 'c'], ['d', 'e'])
    """
    lengths = [len(next(iter(a.values()), ())) if isinstance(a, Mapping) else len(a) for a in arrays]
    if len(set(lengths)) != 1:
        raise ValueError("train_test_split: expected arrays of one length, got "
                         + (", ".join(map(str, lengths)) or "none"))
    n = lengths[0]
    fraction = not is_int(check_number("train_test_split", "test_size", test_size))
    tested = math.ceil(n * min(max(test_size, 0.0), 1.0)) if fraction else int(test_size)
    if not 0 < tested < n:
        raise ValueError(f"train_test_split: test_size {test_size!r} of {n} samples leaves one part empty")
    random = Generator.stream if seed is None else np.random.default_rng(check_int("train_test_split", "seed", seed, 0))
    order = random.permutation(n) if check_bool("train_test_split", "shuffle", shuffle) else np.arange(n)
    if stratify is not None:
        order = stratified(order, np.asarray(stratify))
    train, test = order[:n - tested], order[n - tested:]
    return tuple(part for a in arrays for part in (take(a, train), take(a, test)))


def stratified(order, labels):
    """The order, rearranged so that every stretch of it holds the classes in proportion."""
    if labels.shape != order.shape:
        raise ValueError(f"train_test_split: stratify has labels of shape {labels.shape} for {len(order)} samples")
    labels = np.unique(labels, return_inverse=True)[1][order]
    position = np.empty(len(order))
    for label in range(labels.max() + 1):
        members = np.flatnonzero(labels == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return order[np.argsort(position, kind="stable")]


def take(a, indices):
    """Rows of an array, a tensor, a list, a table or a Dataset, as the same kind."""
    if hasattr(a, "iloc"):
        return a.iloc[indices]
    if isinstance(a, Mapping):
        return {column: np.asarray(entries)[indices] for column, entries in a.items()}
    if isinstance(a, Tensor):
        return Tensor(a._data[indices])
    if isinstance(a, Dataset):
        return Subset(a, indices)
    return a[indices] if isinstance(a, np.ndarray) else [a[i] for i in indices]
