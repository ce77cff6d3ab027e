"""Nothing is learned from the test rows, errors name the column, and scaled columns have mean 0 and std 1."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet import Tensor, data, tensor
from tinynet.data import DataFrameDataset, DataLoader, StandardScaler, read_csv, train_test_split


def raises(sentence, kind=ValueError):
    return pytest.raises(kind, match=sentence)


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
    with raises("the column 'area' has 2 missing values of 4, the first in row 1; pass missing="):
        DataFrameDataset(holed, "price", text="one-hot")
    data = DataFrameDataset(holed, "price", text="one-hot", missing="mean")
    assert data.arrays[0].tolist() == [[2, 50, 1, 0], [3, 75, 1, 0], [4, 100, 1, 0], [3, 75, 0, 1]]
    data = DataFrameDataset(holed, "price", text="one-hot", missing="drop")
    assert data.arrays[0].tolist() == [[2, 50, 1, 0], [4, 100, 1, 0]] and data.arrays[1].tolist() == [[200], [410]]


@pytest.mark.parametrize("missing", ["raise", "mean"])
def test_a_missing_target_is_never_invented(table, missing):
    holed = table(price=np.array([1.0, np.nan, 2.0, 3.0]), city=None)
    with raises("the column 'price' has 1 missing value of 4, the first in row 1; pass missing=\"drop\""):
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
    with raises("the column 'a' has 1 missing value of 3, the first in row 2"):
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


def test_a_split_of_a_table_is_a_table(table):
    train, test = train_test_split(table(), test_size=1, seed=0)
    assert type(train) is type(test) is type(table()) and len(train["rooms"]) == 3 and list(train) == list(TABLE)


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
