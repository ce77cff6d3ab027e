"""Tables: reading CSV files, turning columns into samples, scaling features.

A table is a pandas DataFrame, or a plain dictionary {column: array} as `read_csv` returns it without pandas.
"""

import csv
import math
import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..errors import check_choice, check_path
from ..tensors import Tensor
from .batches import TensorDataset
from .text import one_hot


def read_csv(path, delimiter=","):
    """A table from a CSV file with a header: {column: array}, float64 where every entry is a number, else strings.

    An empty entry in a column of numbers is nan. Lines of different lengths, columns without a name or with the same
    name raise ValueError with the line. `pandas.read_csv` reads more dialects and is less strict.
    """
    with open(os.fspath(check_path("read_csv", "path", path)), encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next((row for row in reader if row), [])]
            if not header:
                raise ValueError(f"read_csv: {path} is empty; expected a line with the names of the columns")
            for name, count in Counter(header).items():
                if not name or count > 1:
                    what = f"two columns {name!r}" if name else "a column without a name"
                    raise ValueError(f"read_csv: {path} has {what}")
            columns = [[] for _ in header]
            for row in reader:
                if row and len(row) != len(header):
                    raise ValueError(f"read_csv: {path}, line {reader.line_num}: expected {len(header)} entries, got "
                                     f"{len(row)}")
                for column, entry in zip(columns, row):
                    column.append(entry)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"read_csv: {path} is not a CSV file in UTF-8 (after line {reader.line_num}: {error})"
                             ) from None
    return {name: parsed(entries) for name, entries in zip(header, columns)}


def parsed(entries):
    """Entries as float64 or, where one is no number, as strings; one long string does not widen the others."""
    try:
        if not any("_" in entry for entry in entries):  # float("1_0") is 10
            return np.fromiter((float(entry) if entry.strip() else math.nan for entry in entries), float, len(entries))
    except ValueError:
        pass
    return np.array(entries, dtype=object)


# ------------------------------------------------------------------------------------------------ columns of a table

def is_frame(table):
    return hasattr(table, "columns") and hasattr(table, "iloc")


def columns_of(table, name):
    """{column: entries} of a table, all of one length."""
    if is_frame(table):
        columns = {column: table[column] for column in table.columns}
        if len(columns) < len(table.columns):
            raise ValueError(f"{name}: the table has two columns of one name: {', '.join(map(repr, table.columns))}")
        return columns
    if not isinstance(table, Mapping):
        raise TypeError(f"{name}: expected a DataFrame or a dictionary of columns, got {type(table).__name__}")
    columns = {column: np.asarray(entries) for column, entries in table.items()}
    for column, entries in columns.items():
        if entries.ndim != 1:
            raise ValueError(f"{name}: expected one axis of entries in the column {column!r}, got shape "
                             f"{entries.shape}")
    if len({len(entries) for entries in columns.values()}) > 1:
        raise ValueError(f"{name}: the columns have different lengths: "
                         + ", ".join(f"{column!r} {len(entries)}" for column, entries in columns.items()))
    return columns


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
    except (TypeError, ValueError, OverflowError):
        return True
    return any(isinstance(x, str) for x in present)


def as_floats(column, entries):
    """Entries as float32."""
    try:
        with np.errstate(over="ignore"):
            numbers = entries.astype(np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"DataFrameDataset: the column {column!r} holds text, expected numbers as in the training rows"
                         ) from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"DataFrameDataset: the column {column!r} holds {entries[np.isfinite(numbers).argmin()]}, "
                         "which is no float32 number")
    return numbers


def class_indices(column, entries, labels):
    """The index of each entry among the labels, as int64."""
    indices = {label: i for i, label in enumerate(labels)}
    for label in entries:
        if label not in indices:
            raise ValueError(f"DataFrameDataset: the column {column!r} has the label {label!r}, which the training "
                             "rows lack")
    return np.array([indices[label] for label in entries], dtype=np.int64)


class DataFrameDataset(TensorDataset):
    """A table as samples: each row is one, `target_column` is what to predict, all other columns are the features.

    task      "regression": targets (n, 1) in float32. "classification": class indices (n) in int64, the indices of the
              labels in `classes`. By default text, categories and bools are classes, and numbers are for regression.
    text      what to do with feature columns of text: "raise", "one-hot" (a column for each label), or "drop"
    missing   what to do with missing values: "raise", "mean" (fill in the column's mean, or its most frequent label),
              or "drop" (leave the row out; rows without a target can only be left out)
    like      the dataset of the training rows: its columns, labels, means and classes are used, so that nothing is
              learned from the test rows

    `features` are the names of the columns of X, in order. ValueError names the column that cannot be used.

    >>> table = {"rooms": [2, 3, 4], "price": [200.0, 290.0, 410.0]}
    >>> x, y = DataFrameDataset(table, "price")[0]
    >>> x, y
    (tensor([2.]), tensor([200.]))
    """

    def __init__(self, table, target_column, task=None, text="raise", missing="raise", like=None):
        name = "DataFrameDataset"
        text, missing = ("raise" if setting == "refuse" else setting for setting in (text, missing))  # until 0.3
        check_choice(name, "task", task, (None, "regression", "classification"))
        check_choice(name, "text", text, ("raise", "one-hot", "drop"))
        check_choice(name, "missing", missing, ("raise", "mean", "drop"))
        if not isinstance(like, (DataFrameDataset, type(None))):
            raise TypeError(f"{name}: expected like to be a DataFrameDataset, got {type(like).__name__}")
        columns = columns_of(table, name)
        if target_column not in columns:
            raise ValueError(f"{name}: there is no column {target_column!r}; the columns are "
                             + ", ".join(map(repr, columns)))
        self.target_column = target_column
        if like is None:
            self.task, self.text, self.missing, self.classes = task, text, missing, None
            self.fill, self.labels = {}, {}  # {column: entry} of each feature column, {column: labels} of those of text
            self.learn(columns)
        else:
            for name in ("task", "text", "missing", "classes", "fill", "labels"):
                setattr(self, name, getattr(like, name))
        self.features = [f"{column}={label}" if label is not None else column
                         for column in self.fill for label in self.labels.get(column, [None])]
        super().__init__(*self.arrays_of(columns))

    def learn(self, columns):
        """Determine from the training rows what the test rows need too: the features, labels, fillings, classes."""
        target = columns[self.target_column]
        if self.task is None:
            text = is_text(target) or np.asarray(target).dtype == bool
            self.task = "classification" if text else "regression"
        if self.task == "regression" and is_text(target):
            raise ValueError(f"DataFrameDataset: the target column {self.target_column!r} holds text; a regression "
                             "predicts numbers")
        present = np.asarray(target, dtype=object)[~is_missing(target)]
        if self.task == "classification":
            self.classes = sorted(set(present), key=lambda label: (type(label).__name__, label))
        for column, entries in columns.items():
            if column == self.target_column or self.text == "drop" and is_text(entries):
                continue
            known = np.asarray(entries, dtype=object)[~is_missing(entries)]
            if is_text(entries):
                if self.text == "raise":
                    raise ValueError(f"DataFrameDataset: the column {column!r} holds text, such as {known[0]!r}; leave "
                                     'it out, or pass text="one-hot" or text="drop"')
                counts = Counter(map(str, known))
                self.labels[column] = sorted(counts)
                self.fill[column] = max(self.labels[column], key=counts.get, default=None)
            else:
                self.fill[column] = float(np.mean(known.astype(np.float64))) if len(known) else None
        if not self.fill:
            raise ValueError(f"DataFrameDataset: there are no features beside the target {self.target_column!r}")

    def arrays_of(self, columns):
        """(X, y) of the rows of a table."""
        absent = [column for column in self.fill if column not in columns]
        if absent:
            raise ValueError("DataFrameDataset: there is no column " + ", ".join(map(repr, absent)))
        holes = {column: is_missing(columns[column]) for column in [*self.fill, self.target_column]}
        for column, where in holes.items():
            target, n = column == self.target_column, where.sum()
            if where.any() and (self.missing == "raise" or target and self.missing == "mean"):
                hint = 'pass missing="drop"' if target else 'pass missing="mean" or missing="drop"'
                raise ValueError(f"DataFrameDataset: the column {column!r} has {n} missing "
                                 f"value{'' if n == 1 else 's'} of {len(where)}, the first in row {where.argmax()}; "
                                 + hint)
        rows = ~np.any(list(holes.values()), axis=0) if self.missing == "drop" else slice(None)
        entries = {column: np.asarray(columns[column], dtype=object)[rows] for column in holes}
        X = [part for column in self.fill for part in self.numbers(column, entries[column], holes[column][rows])]
        target = entries[self.target_column]
        if self.task == "regression":
            y = as_floats(self.target_column, target)[:, None]
        else:
            y = class_indices(self.target_column, target, self.classes)
        return np.stack(X, axis=1).astype(np.float32), y

    def numbers(self, column, entries, holes):
        """The columns of X that one column of the table becomes."""
        entries = entries.copy()
        entries[holes] = self.fill[column]
        if column in self.labels:
            indices = class_indices(column, list(map(str, entries)), self.labels[column])
            return one_hot(indices, len(self.labels[column])).T
        if holes.any() and self.fill[column] is None:
            raise ValueError(f"DataFrameDataset: the column {column!r} has no value at all, so it has no mean")
        return [as_floats(column, entries)]


# ------------------------------------------------------------------------------------------------------ preprocessing

class StandardScaler:
    """z = (x - mean) / std of each column, with the mean and std of the samples it was fitted on: the training ones.

    mean_, scale_  the mean and the std of each column; scale_ is 1 for a constant column, which becomes 0

    Works on arrays, tensors and tables, and returns the same kind.

    >>> scaler = StandardScaler().fit([[1.0], [3.0]])
    >>> scaler.transform([[1.0], [3.0], [5.0]]).tolist()
    [[-1.0], [1.0], [3.0]]
    >>> scaler.inverse_transform([[3.0]]).tolist()
    [[5.0]]
    """

    mean_ = scale_ = columns = None
    mean, std = property(lambda self: self.mean_), property(lambda self: self.scale_)  # until 0.3

    def fit(self, X):
        rows, self.columns = rows_of(X, "StandardScaler.fit")
        if not len(rows):
            raise ValueError("StandardScaler.fit: there are no samples")
        self.mean_, self.scale_ = rows.mean(axis=0), rows.std(axis=0)
        self.scale_[self.scale_ <= 1e-12 * abs(self.mean_)] = 1.0  # nothing but rounding, where it should be 0
        return self

    def transform(self, X):
        return self.applied(X, "transform", lambda rows: (rows - self.mean_) / self.scale_)

    def fit_transform(self, X):
        return self.fit(X).transform(X)

    def inverse_transform(self, Z):
        return self.applied(Z, "inverse_transform", lambda rows: rows * self.scale_ + self.mean_)

    def applied(self, X, method, function):
        if self.mean_ is None:
            raise ValueError(f"StandardScaler.{method}: call fit with the training samples first")
        rows, columns = rows_of(X, f"StandardScaler.{method}")
        if rows.shape[1:] != self.mean_.shape or columns != self.columns:
            fitted, got = (f"the columns {', '.join(map(repr, names))}" if names else f"features of shape {shape}"
                           for names, shape in ((self.columns, self.mean_.shape), (columns, rows.shape[1:])))
            raise ValueError(f"StandardScaler.{method}: fitted on {fitted}, got {got}")
        result = function(rows)
        if is_frame(X):
            return type(X)(result, index=X.index, columns=X.columns)
        if isinstance(X, Mapping):
            return dict(zip(X, result.T))
        double = isinstance(X, (Tensor, np.ndarray)) and X.dtype == np.float64
        result = result.astype(np.float64 if double else np.float32)
        return Tensor(result) if isinstance(X, Tensor) else result


def rows_of(X, name):
    """The samples as rows in float64, and the names of the columns of a table."""
    if is_frame(X) or isinstance(X, Mapping):
        columns = columns_of(X, name)
        for column, entries in columns.items():
            if is_text(entries):
                raise ValueError(f"{name}: the column {column!r} holds text")
            if n := is_missing(entries).sum():
                raise ValueError(f"{name}: the column {column!r} has {n} missing value{'' if n == 1 else 's'}")
        return np.stack([np.asarray(c, dtype=np.float64) for c in columns.values()], axis=1), list(columns)
    rows = X._data if isinstance(X, Tensor) else np.asarray(X)
    if rows.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {rows.dtype}")
    if rows.ndim < 2:
        raise ValueError(f"{name}: expected samples in rows, (n, features), got shape {rows.shape}")
    rows = rows.astype(np.float64)
    if np.isnan(rows).any():
        raise ValueError(f"{name}: sample {np.argwhere(np.isnan(rows))[0][0]} holds a nan")
    return rows, None
