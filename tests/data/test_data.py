"""Every sample comes once an epoch, nothing is learned from the test rows, and errors name the column of a table."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import Tensor, data, manual_seed, nn, tensor
from tinynet.data import (
    CharTokenizer,
    DataFrameDataset,
    DataLoader,
    Dataset,
    StandardScaler,
    TensorDataset,
    next_tokens,
    next_tokens_of_each,
    one_hot,
    read_csv,
    train_test_split,
)


def raises(sentence, kind=ValueError):
    return pytest.raises(kind, match=sentence)


# -------------------------------------------------------------------------------------------------- datasets, batches

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


# ------------------------------------------------------------------------------------------------------------- tables

TABLE = {"rooms": np.array([2, 3, 4, 3]), "area": np.array([50.0, 75.5, 120.0, 80.0]),
         "city": np.array(["Bern", "Ulm", "Bern", "Graz"]), "price": np.array([200.0, 290.0, 410.0, 300.0])}


def kinds():
    """A table as a dictionary, and as a DataFrame where there is pandas."""
    try:
        import pandas as pd
    except ImportError:
        return [dict]
    return [dict, pd.DataFrame]


@pytest.fixture(params=kinds(), ids=lambda kind: kind.__name__)
def table(request):
    return lambda **changes: request.param({**{k: v for k, v in TABLE.items() if changes.get(k, 0) is not None},
                                            **{k: v for k, v in changes.items() if v is not None}})


def test_regression_from_a_table(table):
    data = DataFrameDataset(table(city=None), "price")
    assert data.task == "regression" and data.features == ["rooms", "area"] and data.classes is None
    (X, y), = DataLoader(data, 4)
    assert X.dtype == y.dtype == np.float32 and y.shape == (4, 1)
    assert X.tolist() == [[2, 50], [3, 75.5], [4, 120], [3, 80]] and y[:, 0].tolist() == TABLE["price"].tolist()


def test_classification_from_a_table(table):
    data = DataFrameDataset(table(), "city")
    assert data.task == "classification" and data.classes == ["Bern", "Graz", "Ulm"]
    (_, y), = DataLoader(data, 4)
    assert y.dtype == np.int64 and y.tolist() == [0, 2, 0, 1]
    numbered = DataFrameDataset(table(city=None), "rooms", task="classification")
    assert numbered.classes == [2, 3, 4] and numbered.arrays[1].tolist() == [0, 1, 2, 1]
    flags = DataFrameDataset(table(city=np.array([True, False, True, True])), "city")
    assert flags.classes == [False, True] and flags.arrays[1].tolist() == [1, 0, 1, 1]


def test_text_columns(table):
    with raises("the column 'city' holds text, such as 'Bern'; leave it out, or pass text=\"one-hot\""):
        DataFrameDataset(table(), "price")
    assert DataFrameDataset(table(), "price", text="drop").features == ["rooms", "area"]
    data = DataFrameDataset(table(), "price", text="one-hot")
    assert data.features == ["rooms", "area", "city=Bern", "city=Graz", "city=Ulm"]
    assert data.arrays[0][:, 2:].tolist() == [[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_missing_values(table):
    holed = table(area=np.array([50.0, np.nan, 100.0, np.nan]), city=np.array(["Bern", None, "Bern", "Graz"], object))
    with raises("the column 'area' has 2 missing of 4 values, the first in row 1; pass missing="):
        DataFrameDataset(holed, "price", text="one-hot")
    data = DataFrameDataset(holed, "price", text="one-hot", missing="mean")
    assert data.arrays[0].tolist() == [[2, 50, 1, 0], [3, 75, 1, 0], [4, 100, 1, 0], [3, 75, 0, 1]]
    data = DataFrameDataset(holed, "price", text="one-hot", missing="drop")
    assert data.arrays[0].tolist() == [[2, 50, 1, 0], [4, 100, 1, 0]] and data.arrays[1].tolist() == [[200], [410]]


@pytest.mark.parametrize("missing", ["raise", "mean"])
def test_a_missing_target_is_never_invented(table, missing):
    holed = table(price=np.array([1.0, np.nan, 2.0, 3.0]), city=None)
    with raises("the column 'price' has 1 missing of 4 values, the first in row 1; pass missing=\"drop\""):
        DataFrameDataset(holed, "price", missing=missing)
    assert DataFrameDataset(holed, "price", missing="drop").arrays[1].tolist() == [[1], [2], [3]]


def test_the_rows_of_a_test_are_read_like_those_of_training(table):
    train = DataFrameDataset(table(area=np.array([10.0, 30.0, np.nan, 20.0])), "price", text="one-hot", missing="mean")
    rows = table(area=np.array([np.nan, 1.0, 1.0, 1.0]), city=np.array(["Ulm", "Ulm", "Ulm", "Bern"]))
    test = DataFrameDataset(rows, "price", like=train)
    assert test.features == train.features and test.arrays[0][0].tolist() == [2, 20, 0, 0, 1]
    with raises("the column 'city' has the label 'Rom', which the training rows lack"):
        DataFrameDataset(table(city=np.array(["Rom"] * 4)), "price", like=train)
    with raises("there is no column 'city'"):
        DataFrameDataset(table(city=None), "price", like=train)
    with raises("the column 'area' holds text, expected numbers as in the training rows"):
        DataFrameDataset(table(area=np.array(["a"] * 4)), "price", like=train)


def test_tables_that_cannot_be_used(table):
    with raises("there is no column 'cost'; the columns are 'rooms', 'area', 'city', 'price'"):
        DataFrameDataset(table(), "cost")
    with raises("expected task to be None or 'regression' or 'classification', got 'guess'"):
        DataFrameDataset(table(), "price", task="guess")
    with raises("the target column 'city' holds text; a regression predicts numbers"):
        DataFrameDataset(table(), "city", task="regression")
    with raises("there are no features beside the target 'price'"):
        DataFrameDataset(table(city=None, rooms=None, area=None), "price")
    with raises("the column 'area' holds inf"):
        DataFrameDataset(table(area=np.array([1.0, np.inf, 2.0, 3.0]), city=None), "price")
    with raises("the column 'area' has no value at all"):
        DataFrameDataset(table(area=np.full(4, np.nan), city=None), "price", missing="mean")
    with raises("expected a DataFrame or a dictionary of columns, got list", TypeError):
        DataFrameDataset([[1, 2]], "price")
    with raises("the columns have different lengths: 'a' 1, 'b' 2"):
        DataFrameDataset({"a": [1], "b": [1, 2]}, "b")


def test_pandas_own_columns():
    pd = pytest.importorskip("pandas")
    df = pd.DataFrame({"a": pd.array([1, 2, None], dtype="Int64"), "b": pd.Categorical(["x", "y", "x"]),
                       "c": [1.0, 2.0, 3.0]}, index=[7, 8, 9])
    with raises("the column 'a' has 1 missing of 3 values, the first in row 2"):
        DataFrameDataset(df, "c", text="one-hot")
    data = DataFrameDataset(df, "c", text="one-hot", missing="mean")
    assert data.arrays[0].tolist() == [[1, 1, 0], [2, 0, 1], [1.5, 1, 0]]
    assert DataFrameDataset(df[["b", "c"]], "b").classes == ["x", "y"]
    with raises("two columns of one name"):
        DataFrameDataset(pd.concat([df, df], axis=1), "c")


def test_read_csv(tmp_path):
    path = tmp_path / "table.csv"

    def read(content, **options):
        path.write_bytes(content)
        return read_csv(path, **options)

    columns = read('\ufeffa, b,c\r\n1,2.5,"x, y"\r\n\r\n-3e2,,z\r\n'.encode())
    assert list(columns) == ["a", "b", "c"] and columns["a"].tolist() == [1, -300]
    assert columns["b"][0] == 2.5 and np.isnan(columns["b"][1]) and columns["c"].tolist() == ["x, y", "z"]
    assert read(b"a;b\n1;2_0\n", delimiter=";")["b"].tolist() == ["2_0"]
    assert read(b"a,b\n")["b"].shape == (0,)
    for content, sentence in ((b"", "is empty"), (b"a,b\n1,2\n3\n", "line 3: expected 2 entries, got 1"),
                              (b"a,a\n1,2\n", "two columns 'a'"), (b"a,\n1,2\n", "a column without a name"),
                              (b"a\n\xff\n", "is not a CSV file in UTF-8"),
                              (b'a\n1\n"2\n', "after line 3: unexpected end of data"),
                              (b"a\n" + b"1" * 200_000, "field larger than field limit")):
        with raises(sentence):
            read(content)


@pytest.mark.parametrize("content", [
    b"a\n" + b"x" * 100_000 + b"\n" + b"y\n" * 50_000,  # in an array of one width, 20 GB
    b"a\n" + b"1\n" * 50_000 + b"x" * 130_000 + b"\n",
    b",".join(b"%d" % i for i in range(20_000)) + b"\n" + b"1," * 19_999 + b"1\n",
    b"a,b\n" + b",\n" * 50_000,
    b"a\n" + b'"' + b"\n" * 100_000 + b'"\n',
], ids=["a long entry first", "a long entry last", "wide", "empty", "one entry of many lines"])
def test_a_table_takes_memory_in_proportion_to_its_file(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    tracemalloc.start()
    read_csv(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * len(content) + (1 << 20)


# ------------------------------------------------------------------------------------------- splitting, preprocessing

@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.data())
def test_a_split_shares_out_all_samples(n, data):
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
def test_stratified_splits_keep_the_shares_of_the_classes(labels, size, seed):
    train, test = train_test_split(labels, test_size=size, stratify=labels, seed=seed)
    for label in set(labels):
        assert abs(test.count(label) - labels.count(label) * len(test) / len(labels)) <= 1.5


def test_splits_keep_the_kind_of_what_they_split(table):
    train, test = train_test_split(table(), test_size=1, seed=0)
    assert type(train) is type(table()) and len(train["rooms"]) == 3 and list(train) == list(TABLE)
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


def test_splits_validates():
    with raises("expected arrays of one length, got 2, 3"):
        train_test_split([1, 2], [1, 2, 3])
    with raises("expected arrays of one length, got none"):
        train_test_split()
    for size in (0, 2, 1.0, 0.0, -1):
        with raises("leaves one part empty"):
            train_test_split([1, 2], test_size=size)
    with raises("stratify has labels of shape \\(1,\\) for 2 samples"):
        train_test_split([1, 2], stratify=[0], test_size=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 4), st.integers(0, 1000))
def test_scaled_columns_have_mean_0_and_std_1(n, d, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(rng.normal(0, 100, d), rng.uniform(0.1, 10, d), (n, d))
    scaler = StandardScaler()
    Z = scaler.fit_transform(X)
    assert np.allclose(Z.mean(0), 0, atol=1e-9) and np.allclose(Z.std(0), 1)
    assert np.allclose(scaler.inverse_transform(Z), X)
    other = rng.normal(size=(3, d))
    assert np.allclose(scaler.transform(other), (other - X.mean(0)) / X.std(0))  # nothing learned from these


def test_the_scaler_keeps_constant_columns_and_kinds(table):
    assert np.allclose(StandardScaler().fit_transform([[1.0, 0.1], [3.0, 0.1], [5.0, 0.1]])[:, 1], 0)
    assert StandardScaler().fit_transform([[1.0], [3.0]]).dtype == np.float32
    z = StandardScaler().fit_transform(tensor([[1.0], [3.0]]))
    assert isinstance(z, Tensor) and z.dtype == np.float32 and z.tolist() == [[-1.0], [1.0]]
    assert StandardScaler().fit_transform(np.array([[1], [4]])).tolist() == [[-1.0], [1.0]]
    rows = table(city=None)
    scaled = StandardScaler().fit(rows).transform(rows)
    assert type(scaled) is type(rows) and list(scaled) == ["rooms", "area", "price"]
    assert np.allclose(np.std(np.asarray(scaled["area"])), 1)
    images = np.random.default_rng(0).normal(3, 2, (20, 4, 4))
    assert np.allclose(StandardScaler().fit_transform(images).std(0), 1)


def test_the_former_name_and_attributes_of_the_scaler():
    with pytest.warns(DeprecationWarning, match="now StandardScaler"):
        scaler = data.Standardizer().fit([[1.0], [3.0]])
    assert type(scaler) is StandardScaler and (scaler.mean[0], scaler.std[0]) == (scaler.mean_[0], scaler.scale_[0])
    assert DataFrameDataset({"a": [1.0], "y": [1.0]}, "y", text="refuse", missing="refuse").text == "raise"


def test_the_scaler_validates(table):
    with raises("call fit with the training samples first"):
        StandardScaler().transform([[1.0]])
    with raises("the column 'city' holds text"):
        StandardScaler().fit(table())
    with raises("the column 'area' has 4 missing values"):
        StandardScaler().fit(table(city=None, area=np.full(4, np.nan)))
    with raises("sample 1 holds a nan"):
        StandardScaler().fit([[1.0], [np.nan]])
    with raises("expected samples in rows, .* got shape \\(3,\\)"):
        StandardScaler().fit([1.0, 2.0, 3.0])
    with raises("there are no samples"):
        StandardScaler().fit(np.zeros((0, 2)))
    with raises("fitted on features of shape \\(1,\\), got features of shape \\(2,\\)"):
        StandardScaler().fit([[1.0], [2.0]]).transform([[1.0, 2.0]])
    with raises("fitted on the columns 'rooms', 'area', 'price', got the columns 'rooms', 'price'"):
        StandardScaler().fit(table(city=None)).transform(table(city=None, area=None))


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


# --------------------------------------------------------------------------------------------------------------- text

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


def test_windows_validates():
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


def test_texts_apart_validates():
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
