"""From a file to mini-batches: reading, splitting, scaling, and what hands a model one batch after the other.

>>> from tinynet import datasets
>>> X, y = datasets.moons(100)
>>> X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, seed=0)
>>> scaler = Standardizer().fit(X_train)                        # never on the test samples
>>> loader = DataLoader(TensorDataset(scaler.transform(X_train), y_train), batch_size=32, shuffle=True, seed=0)
>>> for inputs, labels in loader:                               # one epoch
...     print(inputs.shape, labels.shape)
(32, 2) (32,)
(32, 2) (32,)
(16, 2) (16,)

Tables are pandas DataFrames, or plain dictionaries {column: array} as `read_csv` gives them where there is no pandas.
"""

import csv
import functools
import math
import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..errors import refusing, shown
from ..tensors import Generator, Tensor, stream_from

# ------------------------------------------------------------------------------------------------------------ samples


class Dataset:
    """Samples by number. A subclass has `__len__` and `__getitem__(i)`, which gives one sample: (input, target).

    It may also have `batch(indices)`, which gives the arrays of many samples at once and so saves a loop over them.
    """

    def __len__(self):
        raise TypeError(f"{type(self).__name__}: a Dataset needs a method __len__(self)")

    def __getitem__(self, i):
        raise TypeError(f"{type(self).__name__}: a Dataset needs a method __getitem__(self, i)")


@refusing
class TensorDataset(Dataset):
    """Arrays of one length, side by side: sample i is (a[i], b[i], …).

    Tensors keep their dtype; of other arrays, floats become float32 and whole numbers int64.

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
        return tuple(Tensor(a[i]) for a in self.arrays)

    def batch(self, indices):
        return [a.take(indices, axis=0) for a in self.arrays]


def as_samples(name, array):
    """One sample in each row, floats as float32 and whole numbers as int64; a Tensor's numbers as they are."""
    if isinstance(array, Tensor):
        array = array.data
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


@refusing
class Subset(Dataset):
    """Some samples of a dataset: `indices` are their numbers there."""

    def __init__(self, dataset, indices):
        self.dataset, self.indices = dataset, np.asarray(indices, dtype=np.int64)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self.dataset[int(self.indices[i])]

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
    return [stacked(parts, place) for place, parts in enumerate(zip(*samples))]


def stacked(parts, place):
    """One part of each sample as an array of the batch."""
    arrays = [p.data if isinstance(p, Tensor) else np.asarray(p) for p in parts]
    for i, a in enumerate(arrays):
        if a.shape != arrays[0].shape:
            raise ValueError(f"DataLoader: part {place} of the samples of one batch has different shapes, "
                             f"{arrays[0].shape} and {a.shape} (sample {i} of the batch)")
    whole = np.stack(arrays)
    return whole if isinstance(parts[0], Tensor) else as_samples(f"DataLoader: part {place} of the samples", whole)


@refusing
class DataLoader:
    """Mini-batches of Tensors; one pass over it is one epoch.

    len(loader) is the number of batches. The last one is smaller where the samples do not come out even, or left out
    with `drop_last`. With `shuffle` each epoch has an order of its own; a `seed` repeats these orders from run to run.
    A batch is a tuple of the samples' parts, or one Tensor where a sample is no tuple. `num_workers` and `pin_memory`
    are taken from PyTorch's scripts and change nothing.

    >>> loader = DataLoader(TensorDataset(range(5)), batch_size=2)
    >>> len(loader), [batch.tolist() for batch, in loader]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(self, dataset, batch_size=1, shuffle=False, drop_last=False, seed=None, num_workers=0,
                 pin_memory=False):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise TypeError("DataLoader: expected a Dataset (with __len__ and __getitem__), got "
                            + type(dataset).__name__)
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"DataLoader: batch_size is a whole number from 1 on, got {batch_size!r}")
        for name, flag in (("shuffle", shuffle), ("drop_last", drop_last)):
            if not isinstance(flag, (bool, int)):
                raise TypeError(f"DataLoader: {name} is True or False, got {shown(flag)}")
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.random = None if seed is None else np.random.default_rng(seed)

    @property
    def samples(self):
        """How many samples an epoch has."""
        n = len(self.dataset)
        return n - n % self.batch_size if self.drop_last else n

    def __len__(self):
        return math.ceil(self.samples / self.batch_size)

    def state_dict(self):
        """Where its own random numbers are, those of `seed`: between two epochs, all that it remembers."""
        return {"random": self.random and self.random.bit_generator.state}

    def load_state_dict(self, state):
        """Go on with the epoch that would have come next there; ValueError where that loader was of another kind."""
        self.accept(state)()

    def accept(self, state):
        """Check a state, and return the function that takes it over."""
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


@refusing
def random_split(dataset, lengths, generator=None):
    """Parts of a dataset, of those lengths (or fractions of the whole, which add up to 1), its samples in random order.

    >>> train, test = random_split(TensorDataset(range(10)), [0.8, 0.2])
    >>> len(train), len(test)
    (8, 2)
    """
    n, lengths = len(dataset), list(lengths)
    if lengths and math.isclose(sum(lengths), 1.0) and any(x < 1 for x in lengths):
        ends = np.floor(np.cumsum([0.0, *lengths]) * n + 1e-9).astype(int)
        lengths = np.diff(ends).tolist()
    if any(not isinstance(x, int) or x < 0 for x in lengths) or sum(lengths) != n:
        raise ValueError(f"random_split: expected lengths that add up to {n}, or fractions that add up to 1, got "
                         f"{lengths}")
    order = (generator or Generator).stream.permutation(n)
    return [Subset(dataset, part) for part in np.split(order, np.cumsum(lengths)[:-1])]


@refusing
def next_tokens(tokens, context):
    """Windows of a text for a model of the next token: sample i is (tokens[i : i+context], tokens[i+1 : i+context+1]).

    >>> data = next_tokens([5, 6, 7, 8], context=2)
    >>> len(data), data[1]
    (2, (tensor([6, 7]), tensor([7, 8])))
    """
    tokens = as_samples("next_tokens", tokens)
    if tokens.ndim != 1 or tokens.dtype.kind != "i":
        raise TypeError(f"next_tokens: expected a row of whole numbers, got shape {tokens.shape}, {tokens.dtype}")
    if not isinstance(context, int) or context < 1:
        raise ValueError(f"next_tokens: context is a whole number from 1 on, got {context!r}")
    if len(tokens) <= context:
        raise ValueError(f"next_tokens: a window takes {context + 1} tokens, got {len(tokens)}")
    windows = np.lib.stride_tricks.sliding_window_view(tokens, context + 1)
    return Windows(windows)


IGNORED = -100  # a target that does not count, PyTorch's `ignore_index`


def next_tokens_of_each(texts, context=None, end=0):
    """Texts apart from one another, such as names, for a model of the next token; `texts` are rows of tokens.

    Sample i is (end, t₀, …, tₙ) and (t₀, …, tₙ, end) for text i: a text begins after the end of the one before. All are
    filled up to `context` tokens (the longest text and its end, where that is not given), the inputs with `end` and the
    targets with -100, which `cross_entropy` leaves out.

    >>> names = ["ab", "c"]
    >>> tokenizer = CharTokenizer(["\\n", *names])                       # the line's end is token 0
    >>> data = next_tokens_of_each([tokenizer.encode(name) for name in names])
    >>> [part.tolist() for part in data[1]]
    [[0, 3, 0], [3, 0, -100]]
    """
    texts = [as_samples(f"next_tokens_of_each: text {i}", text) if len(text) else np.zeros(0, np.int64)
             for i, text in enumerate(texts)]
    longest = 1 + max(map(len, texts), default=0)
    context = longest if context is None else context
    if not isinstance(context, int) or context < 1:
        raise ValueError(f"next_tokens_of_each: context is a whole number from 1 on, got {context!r}")
    if context < longest:
        raise ValueError(f"next_tokens_of_each: the longest text and its end take {longest} tokens, context is "
                         f"{context}")
    inputs, targets = np.full((len(texts), context), end), np.full((len(texts), context), IGNORED)
    for i, text in enumerate(texts):
        if text.ndim != 1 or text.dtype.kind != "i":
            raise TypeError(f"next_tokens_of_each: text {i} is no row of whole numbers but has shape {text.shape}, "
                            f"{text.dtype}; encode it first")
        inputs[i, 1:1 + len(text)] = targets[i, :len(text)] = text
        targets[i, len(text)] = end
    return TensorDataset(inputs, targets)


@refusing
class Windows(Dataset):
    """Rows of tokens, each split into all but the last and all but the first."""

    def __init__(self, windows):
        self.windows = windows

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, i):
        row = self.windows[i].copy()
        return Tensor(row[:-1]), Tensor(row[1:])

    def batch(self, indices):
        rows = self.windows[indices]
        return [np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, 1:])]


# ------------------------------------------------------------------------------------------------------------- tables

@refusing
def read_csv(path, delimiter=","):
    """A table from a CSV file with a header: {column: array}, float64 where every entry is a number, else strings.

    An empty entry is nan in a column of numbers. `pandas.read_csv` reads more kinds of files; whatever takes a table
    here takes its DataFrames too.
    """
    with open(os.fspath(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next((row for row in reader if row), [])]
            if not header:
                raise ValueError(f"read_csv: {path} is empty; expected a line with the names of the columns")
            for name, count in Counter(header).items():
                if not name or count > 1:
                    what = f"two columns {name!r}" if name else "a column without a name"
                    raise ValueError(f"read_csv: {path} has {what}")
            columns = {name: [] for name in header}
            lists = list(columns.values())
            for row in reader:
                if row and len(row) != len(header):
                    raise ValueError(f"read_csv: {path}, line {reader.line_num}: expected {len(header)} entries, got "
                                     f"{len(row)}")
                for column, entry in zip(lists, row):
                    column.append(entry)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"read_csv: {path} is not a CSV file in UTF-8 (after line {reader.line_num}: {error})"
                             ) from None
    return {name: as_numbers(entries) for name, entries in columns.items()}


def as_numbers(entries):
    """Entries as float64, or as an array of strings, which takes no more for short ones because one is long."""
    try:
        if not any("_" in entry for entry in entries):  # float("1_0") is 10
            return np.fromiter((float(entry) if entry.strip() else math.nan for entry in entries), float, len(entries))
    except ValueError:
        pass
    return np.array(entries, dtype=object)


def columns_of(table, name):
    """The columns of a table, and how long they are."""
    if hasattr(table, "columns") and hasattr(table, "iloc"):
        columns = {column: table[column] for column in table.columns}
        if len(columns) < len(table.columns):
            raise ValueError(f"{name}: the table has two columns of one name: {', '.join(map(repr, table.columns))}")
        return columns
    if isinstance(table, Mapping):
        columns = {column: np.asarray(entries) for column, entries in table.items()}
        if len({len(entries) for entries in columns.values()}) > 1:
            raise ValueError(f"{name}: the columns have different lengths: "
                             + ", ".join(f"{column!r} {len(entries)}" for column, entries in columns.items()))
        return columns
    raise TypeError(f"{name}: expected a DataFrame or a dictionary of columns, got {type(table).__name__}")


def is_missing(entries):
    """Which entries are missing: None, nan, or what pandas calls NA; in a column of text also an empty string."""
    array = np.asarray(entries)
    if array.dtype.kind in "iub":
        return np.zeros(array.shape, dtype=bool)
    if array.dtype.kind == "f":
        return np.isnan(array)
    return np.array([x is None or type(x).__name__ in ("NAType", "NaTType") or bool(x != x) or x == "" for x in array],
                    dtype=bool)


def is_text(entries):
    """Whether a column holds labels (text, categories) instead of numbers."""
    array = np.asarray(entries)
    if array.dtype.kind in "fiub":
        return False
    present = array[~is_missing(array)]
    try:
        present.astype(np.float64)
    except (TypeError, ValueError):
        return True
    return any(isinstance(x, str) for x in present)


@refusing
class DataFrameDataset(TensorDataset):
    """A table as samples: each row is one, `target_column` is what to predict, all other columns are the features.

    task      "regression": targets (n, 1) in float32. "classification": class indices (n) in int64, the places of the
              labels in `classes`. Unless told, text, categories and bools are classes, and numbers are for regression.
    text      what to do with feature columns of text: "refuse", "one-hot" (a column for each label), or "drop"
    missing   what to do with missing values: "refuse", "mean" (fill in the column's mean, or its most frequent label),
              or "drop" (leave the row out; rows without a target can only be left out)
    like      the dataset of the training rows: the columns, labels, means and classes are then taken from there, so
              that nothing is learned from the rows of a test

    `features` are the names of the columns of X, in order. ValueError names the column that cannot be used.

    >>> table = {"rooms": [2, 3, 4], "price": [200.0, 290.0, 410.0]}
    >>> x, y = DataFrameDataset(table, "price")[0]
    >>> x, y
    (tensor([2.]), tensor([200.]))
    """

    def __init__(self, table, target_column, task=None, text="refuse", missing="refuse", like=None):
        for setting, value, known in (("task", task, (None, "regression", "classification")),
                                      ("text", text, ("refuse", "one-hot", "drop")),
                                      ("missing", missing, ("refuse", "mean", "drop"))):
            if value not in known:
                raise ValueError(f"DataFrameDataset: {setting} is {' or '.join(map(repr, known))}, got {value!r}")
        columns = columns_of(table, "DataFrameDataset")
        if target_column not in columns:
            raise ValueError(f"DataFrameDataset: there is no column {target_column!r}; the columns are "
                             + ", ".join(map(repr, columns)))
        self.target_column = target_column
        if like is None:
            self.task, self.text, self.missing = task, text, missing
            self.learn(columns)
        else:
            self.task, self.text, self.missing = like.task, like.text, like.missing
            self.labels, self.fill, self.classes, self.kept = like.labels, like.fill, like.classes, like.kept
        self.features = [f"{column}={label}" if label is not None else column
                         for column in self.kept for label in self.labels.get(column, [None])]
        super().__init__(*self.arrays_of(columns))

    def learn(self, columns):
        """Take from the training rows what the samples of a test must be given too."""
        target = columns[self.target_column]
        if self.task is None:
            text = is_text(target) or np.asarray(target).dtype == bool
            self.task = "classification" if text else "regression"
        if self.task == "regression" and is_text(target):
            raise ValueError(f"DataFrameDataset: the target column {self.target_column!r} holds text; a regression "
                             "predicts numbers")
        present = np.asarray(target, dtype=object)[~is_missing(target)]
        self.classes = None
        if self.task == "classification":
            self.classes = sorted(set(present), key=lambda label: (type(label).__name__, label))
        self.kept, self.labels, self.fill = [], {}, {}
        for column, entries in columns.items():
            if column == self.target_column:
                continue
            known = np.asarray(entries, dtype=object)[~is_missing(entries)]
            if is_text(entries):
                if self.text == "drop":
                    continue
                if self.text == "refuse":
                    raise ValueError(f"DataFrameDataset: the column {column!r} holds text, such as {known[0]!r}; leave "
                                     'it out, or pass text="one-hot" or text="drop"')
                counts = Counter(map(str, known))
                self.labels[column] = sorted(counts)
                self.fill[column] = max(self.labels[column], key=counts.get, default=None)
            else:
                self.fill[column] = float(np.mean(known.astype(np.float64))) if len(known) else None
            self.kept.append(column)
        if not self.kept:
            raise ValueError(f"DataFrameDataset: there are no features beside the target {self.target_column!r}")

    def arrays_of(self, columns):
        """(X, y) of the rows of a table."""
        absent = [column for column in self.kept if column not in columns]
        if absent:
            raise ValueError("DataFrameDataset: there is no column " + ", ".join(map(repr, absent)))
        holes = {column: is_missing(columns[column]) for column in [*self.kept, self.target_column]}
        for column, where in holes.items():
            target = column == self.target_column
            if where.any() and self.missing in (("refuse", "mean") if target else ("refuse",)):
                hint = 'pass missing="drop"' if target else 'pass missing="mean" or missing="drop"'
                raise ValueError(f"DataFrameDataset: the column {column!r} misses {where.sum()} of {len(where)} "
                                 f"values, the first in row {where.argmax()}; {hint}")
        rows = ~np.any(list(holes.values()), axis=0) if self.missing == "drop" else slice(None)
        X = [part for column in self.kept
             for part in self.numbers(column, np.asarray(columns[column], dtype=object)[rows], holes[column][rows])]
        target = np.asarray(columns[self.target_column], dtype=object)[rows]
        if self.task == "regression":
            y = self.as_floats(self.target_column, target)[:, None]
        else:
            y = self.places(self.target_column, target, self.classes)
        return np.stack(X, axis=1).astype(np.float32), y

    def numbers(self, column, entries, holes):
        """The columns of X that one column of the table becomes."""
        entries = entries.copy()
        entries[holes] = self.fill[column]
        if column in self.labels:
            where = self.places(column, map(str, entries), self.labels[column])
            return one_hot(where, len(self.labels[column])).T
        if holes.any() and self.fill[column] is None:
            raise ValueError(f"DataFrameDataset: the column {column!r} has no value at all, so it has no mean")
        return [self.as_floats(column, entries)]

    def as_floats(self, column, entries):
        try:
            with np.errstate(over="ignore"):
                numbers = entries.astype(np.float64).astype(np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"DataFrameDataset: the column {column!r} held numbers in training, and holds text "
                             "here") from None
        if not np.isfinite(numbers).all():
            raise ValueError(f"DataFrameDataset: the column {column!r} holds {entries[np.isfinite(numbers).argmin()]}, "
                             "which is no float32 number")
        return numbers

    def places(self, column, entries, labels):
        known = {label: i for i, label in enumerate(labels)}
        entries = list(entries)
        for label in entries:
            if label not in known:
                raise ValueError(f"DataFrameDataset: the column {column!r} has a label {label!r} that the training "
                                 "rows did not have")
        return np.array([known[label] for label in entries], dtype=np.int64)


@refusing
def train_test_split(*arrays, test_size=0.25, shuffle=True, stratify=None, seed=None):
    """Split each of the arrays into a part to train on and one to test on: a_train, a_test, b_train, b_test, …

    The arrays have one length: arrays, tensors, lists, tables or Datasets. `test_size` is a share of the samples (a
    float) or their number (an int). `stratify`, the labels, keeps the share of each class alike in both parts.

    >>> train, test = train_test_split(list("abcde"), test_size=2, shuffle=False)
    >>> train, test
    (['a', 'b', 'c'], ['d', 'e'])
    """
    lengths = {length(a) for a in arrays}
    if len(lengths) != 1:
        raise ValueError("train_test_split: expected arrays of one length, got "
                         + (", ".join(str(length(a)) for a in arrays) or "none"))
    n = lengths.pop()
    whole = isinstance(test_size, (int, np.integer)) and not isinstance(test_size, bool)
    tested = int(test_size) if whole else math.ceil(n * test_size)
    if not 0 < tested < n:
        raise ValueError(f"train_test_split: test_size {test_size!r} of {n} samples leaves one part empty")
    random = Generator.stream if seed is None else np.random.default_rng(seed)
    order = random.permutation(n) if shuffle else np.arange(n)
    if stratify is not None:
        order = interleaved(order, np.asarray(stratify))
    train, test = order[:n - tested], order[n - tested:]
    return tuple(part for a in arrays for part in (take(a, train), take(a, test)))


def interleaved(order, labels):
    """The order rearranged so that every stretch of it holds each class by its share."""
    if len(labels) != len(order):
        raise ValueError(f"train_test_split: stratify has {len(labels)} labels for {len(order)} samples")
    labels = np.unique(labels, return_inverse=True)[1][order]
    place = np.empty(len(order))
    for label in range(labels.max() + 1):
        of_class = np.flatnonzero(labels == label)
        place[of_class] = (np.arange(len(of_class)) + 0.5) / len(of_class)
    return order[np.argsort(place, kind="stable")]


def length(a):
    return len(next(iter(a.values()))) if isinstance(a, Mapping) else len(a)


def take(a, indices):
    """Some rows of an array, a tensor, a list, a table or a Dataset, in its own kind."""
    if hasattr(a, "iloc"):
        return a.iloc[indices]
    if isinstance(a, Mapping):
        return {column: np.asarray(entries)[indices] for column, entries in a.items()}
    if isinstance(a, Tensor):
        return Tensor(a.data[indices])
    if isinstance(a, Dataset):
        return Subset(a, indices)
    return a[indices] if isinstance(a, np.ndarray) else [a[i] for i in indices]


# ------------------------------------------------------------------------------------------------------ preprocessing

@refusing
class Standardizer:
    """z = (x - mean) / std of each column, with the mean and std of the samples it was fitted on: the training ones.

    A column that never changes has std 0 and becomes 0. Works on arrays, tensors and tables, and gives back the same.

    >>> scaler = Standardizer().fit([[1.0], [3.0]])
    >>> scaler.transform([[1.0], [3.0], [5.0]]).tolist()
    [[-1.0], [1.0], [3.0]]
    >>> scaler.inverse_transform([[3.0]]).tolist()
    [[5.0]]
    """

    mean = std = columns = None

    def fit(self, X):
        rows, self.columns = self.rows(X, "fit")
        if not len(rows):
            raise ValueError("Standardizer.fit: there are no samples")
        self.mean, self.std = rows.mean(axis=0), rows.std(axis=0)
        self.std[self.std <= 1e-12 * abs(self.mean)] = 1.0  # nothing but rounding, where it should be 0
        self.std[self.std == 0] = 1.0
        return self

    def transform(self, X):
        return self.applied(X, "transform", lambda rows: (rows - self.mean) / self.std)

    def fit_transform(self, X):
        return self.fit(X).transform(X)

    def inverse_transform(self, Z):
        return self.applied(Z, "inverse_transform", lambda rows: rows * self.std + self.mean)

    def applied(self, X, method, function):
        if self.mean is None:
            raise ValueError(f"Standardizer.{method}: call fit with the training samples first")
        rows, columns = self.rows(X, method)
        if rows.shape[1:] != self.mean.shape or columns != self.columns:
            raise ValueError(f"Standardizer.{method}: fitted on {described(self.columns, self.mean.shape)}, got "
                             f"{described(columns, rows.shape[1:])}")
        result = function(rows)
        if hasattr(X, "iloc"):
            return type(X)(result, index=X.index, columns=X.columns)
        if isinstance(X, Mapping):
            return dict(zip(X, result.T))
        double = isinstance(X, (Tensor, np.ndarray)) and X.dtype == np.float64
        result = result.astype(np.float64 if double else np.float32)
        return Tensor(result) if isinstance(X, Tensor) else result

    def rows(self, X, method):
        """The samples in float64, and the names of the columns of a table."""
        if hasattr(X, "iloc") and hasattr(X, "columns") or isinstance(X, Mapping):
            columns = columns_of(X, f"Standardizer.{method}")
            for column, entries in columns.items():
                if is_text(entries):
                    raise ValueError(f"Standardizer.{method}: the column {column!r} holds text")
                if is_missing(entries).any():
                    raise ValueError(f"Standardizer.{method}: the column {column!r} misses "
                                     f"{is_missing(entries).sum()} values")
            return np.stack([np.asarray(c, dtype=np.float64) for c in columns.values()], axis=1), list(columns)
        rows = np.asarray(X.data if isinstance(X, Tensor) else X, dtype=np.float64)
        if rows.ndim < 2:
            raise ValueError(f"Standardizer.{method}: expected samples in rows, (n, features), got shape {rows.shape}")
        if np.isnan(rows).any():
            raise ValueError(f"Standardizer.{method}: sample {np.argwhere(np.isnan(rows))[0][0]} holds a nan")
        return rows, None


def described(columns, shape):
    return f"the columns {', '.join(map(repr, columns))}" if columns else f"features of shape {shape}"


@refusing
def one_hot(labels, num_classes=None):
    """A row for each label, 1 in the label's place and 0 elsewhere, in float32; Tensors give a Tensor.

    >>> one_hot([2, 0], 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    array = labels.data if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"one_hot: expected whole numbers (class indices), got {array.dtype}")
    array = array.astype(np.int64)
    n = int(array.max(initial=-1)) + 1 if num_classes is None else num_classes
    if array.size and not (array.min() >= 0 and array.max() < n):
        raise ValueError(f"one_hot: labels lie from {array.min()} to {array.max()}, expected 0 to {n - 1}")
    rows = np.zeros((*array.shape, n), dtype=np.float32)
    np.put_along_axis(rows, array[..., None], 1.0, axis=-1)
    return Tensor(rows) if isinstance(labels, Tensor) else rows


@refusing
class CharTokenizer:
    """Characters as whole numbers: `chars` are all characters of a text in order, a character's token is its place.

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
        try:
            return np.array([self.tokens[char] for char in text], dtype=np.int64)
        except KeyError as error:
            char = error.args[0]
            raise ValueError(f"CharTokenizer: the character {char!r} in place {text.index(char)} is not among the "
                             f"{len(self)} it knows") from None

    def decode(self, tokens):
        """The text of some tokens."""
        tokens = np.asarray(tokens.data if isinstance(tokens, Tensor) else tokens)
        for t in tokens:
            if not 0 <= t < len(self):
                raise ValueError(f"CharTokenizer: there is no token {t}, they go from 0 to {len(self) - 1}")
        return "".join(self.chars[int(t)] for t in tokens)
