"""Training data: datasets and mini-batches, tables, text.

>>> from tinynet import datasets
>>> X, y = datasets.moons(100)
>>> X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, seed=0)
>>> scaler = StandardScaler().fit(X_train)                      # never on the test samples
>>> loader = DataLoader(TensorDataset(scaler.transform(X_train), y_train), batch_size=32, shuffle=True, seed=0)
>>> for inputs, labels in loader:                               # one epoch
...     print(inputs.shape, labels.shape)
(32, 2) (32,)
(32, 2) (32,)
(16, 2) (16,)
"""

from .batches import DataLoader, Dataset, Subset, TensorDataset, as_samples, random_split, train_test_split
from .tables import DataFrameDataset, StandardScaler, read_csv
from .text import CharTokenizer, next_tokens, next_tokens_of_each, one_hot

__all__ = [
    "CharTokenizer", "DataFrameDataset", "DataLoader", "Dataset", "StandardScaler", "Subset", "TensorDataset",
    "as_samples", "next_tokens", "next_tokens_of_each", "one_hot", "random_split", "read_csv", "train_test_split",
]


def __getattr__(name):
    if name == "Standardizer":  # until 0.3
        import warnings

        warnings.warn("tinynet.data.Standardizer is now StandardScaler", DeprecationWarning, stacklevel=2)
        return StandardScaler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
