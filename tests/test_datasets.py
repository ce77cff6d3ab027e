"""The data sets are what their formulas say, and reading MNIST's files survives whatever the files hold."""

import gzip
import hashlib
import http.server
import struct
import threading
import tracemalloc

import numpy as np
import pytest

from tinynet import datasets

# ---------------------------------------------------------------------------------------------- problems in the plane


@pytest.mark.parametrize("make, classes", [(datasets.xor, 2), (datasets.moons, 2), (datasets.circles, 2),
                                           (datasets.spiral, 3)])
@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_problems_in_the_plane_have_their_shapes_and_even_classes(make, classes, n):
    X, y = make(n, seed=3)
    assert X.shape == (n, 2) and X.dtype == np.float32 and y.shape == (n,) and y.dtype == np.int64
    counts = np.bincount(y, minlength=classes)
    assert len(counts) == classes and counts.max() - counts.min() <= 1


@pytest.mark.parametrize("make", [datasets.xor, datasets.moons, datasets.circles, datasets.spiral])
def test_the_seed_decides_the_noise(make):
    a, b, c = (make(50, noise=0.1, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    exact = make(50, noise=0.0)[0]
    assert 0.05 < np.std(a - exact) < 0.2


def test_xor_is_whether_the_coordinates_differ():
    X, y = datasets.xor(40)
    assert np.array_equal(y, (X[:, 0] != X[:, 1]))


def test_moons_lie_on_two_half_circles():
    X, y = datasets.moons(100, noise=0)
    centre = np.where(y[:, None] == 1, [1.0, 0.5], [0.0, 0.0])
    assert np.allclose(np.linalg.norm(X - centre, axis=1), 1, atol=1e-6)
    assert (X[y == 0, 1] > -1e-6).all() and (X[y == 1, 1] < 0.5 + 1e-6).all()


def test_circles_have_their_radii():
    X, y = datasets.circles(100, noise=0, factor=0.3)
    assert np.allclose(np.linalg.norm(X, axis=1), np.where(y, 0.3, 1.0), atol=1e-6)


def test_each_arm_of_the_spiral_is_the_first_one_turned():
    X, y = datasets.spiral(300, classes=3, noise=0)
    arms = [X[y == c] @ [1, 1j] for c in range(3)]
    for c in (1, 2):
        assert np.allclose(arms[c], arms[0] * np.exp(2j * np.pi * c / 3), atol=1e-6)
    assert abs(arms[0][-1]) == pytest.approx(1)


@pytest.mark.parametrize("call, sentence", [
    (lambda: datasets.moons(-1), "moons: expected n to be a non-negative integer, got -1"),
    (lambda: datasets.xor(2.5), "xor: expected n to be a non-negative integer, got 2.5"),
    (lambda: datasets.circles(factor=1.0), r"circles: expected factor, the inner radius, to be in \[0, 1\), got 1.0"),
    (lambda: datasets.spiral(classes=0), "spiral: expected classes to be a positive integer"),
    (lambda: datasets.moons(noise=-0.1), "moons: expected noise to be a non-negative number, got -0.1"),
    (lambda: datasets.moons(noise=float("nan")), "moons: expected noise to be a non-negative number, got nan"),
    (lambda: datasets.moons(seed="x"), "moons: expected seed to be a non-negative integer, got 'x'"),
    (lambda: datasets.read_idx(3), "read_idx: expected path to be a file name, got 3"),
    (lambda: datasets.mnist("digits", checksums=5), "mnist: expected checksums to be a dict or None, got 5"),
    (lambda: datasets.mnist("digits", mirrors=5), "mnist: expected mirrors to be a list of addresses, got 5"),
])
def test_bad_settings_raise(call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()


# ------------------------------------------------------------------------------------------------- digits, names, text

def test_digits_are_the_scans_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.datasets")
    X, y = datasets.digits()
    assert X.shape == (1797, 64) and X.dtype == np.float32 and y.dtype == np.int64
    assert X.min() == 0 and X.max() == 1 and sorted(set(y)) == list(range(10))
    assert np.array_equal(X * 16, sklearn.load_digits().data)


def test_names():
    pytest.importorskip("names")
    names = datasets.names()
    assert names == sorted(set(names)) and {"mary", "james"} <= set(names)
    assert 5000 < len(names) < 5500 and set("".join(names)) == set("abcdefghijklmnopqrstuvwxyz")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"digits: needs the package scikit-learn; pip install tinynet\[digits\]"):
        datasets.digits()
    with pytest.raises(ImportError, match=r"pip install tinynet\[names\]"):
        datasets.names()


def test_text(tmp_path):
    assert "lambda" in datasets.text() and len(datasets.text()) > 100_000
    path = tmp_path / "text"
    path.write_bytes("Grüße\n".encode())
    assert datasets.text(path) == "Grüße\n"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not text in UTF-8"):
        datasets.text(path)
    with pytest.raises(FileNotFoundError):
        datasets.text(tmp_path / "nothing")


# --------------------------------------------------------------------------------------------------------- IDX files

def idx(array, code=8):
    return struct.pack(f">2xBB{array.ndim}I", code, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(">u1")
LABELS = np.array([7, 0, 9, 1, 1], ">u1")


@pytest.fixture
def write(tmp_path):
    def write(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("code", datasets.IDX_TYPES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(6,), (5, 4, 3), (0, 28, 28), (3, 0)])
def test_idx_files_are_read_back(write, code, pack, shape):
    array = (np.random.default_rng(0).normal(0, 40, shape)).astype(datasets.IDX_TYPES[code])
    read = datasets.read_idx(write(pack(idx(array, code))))
    assert read.dtype == array.dtype.newbyteorder("=") and read.shape == shape and np.array_equal(read, array)


whole = idx(IMAGES)
packed = gzip.compress(whole)
HOSTILE = {
    "empty": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "no magic number": bytes(4) + whole[4:],
    "255 axes": bytes([0, 0, 8, 255]) + b"\xff" * 2000,
    "header broken off": whole[:10],
    "numbers broken off": whole[:-1],
    "one number too many": whole + b"x",
    "claims 2^96 numbers": struct.pack(">2xBBIII", 8, 3, *[2**32 - 1] * 3) + bytes(100),
    "claims 3 GB": struct.pack(">2xBBIII", 8, 3, 60000, 224, 224) + bytes(100),
    "claims 3 GB, packed": gzip.compress(struct.pack(">2xBBIII", 8, 3, 60000, 224, 224) + bytes(100)),
    "no images of 4 GB × 4 GB": struct.pack(">2xBBIII", 8, 3, 0, 2**32 - 1, 2**32 - 1),
    "packed, broken off": packed[:-20],
    "packed, header broken off": packed[:6],
    "packed, one number too many": gzip.compress(whole + b"x"),
    "packed, bits flipped": packed[:20] + bytes([packed[20] ^ 255]) + packed[21:],
    "packed, wrong checksum": packed[:-8] + bytes(4) + packed[-4:],
    "packed, then rubbish": packed + b"rubbish",
    "a bomb": gzip.compress(struct.pack(">2xBBI", 8, 1, 64 << 20) + bytes(64 << 20)),
    "a bomb that claims little": gzip.compress(struct.pack(">2xBBI", 8, 1, 10) + bytes(64 << 20)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_raise_without_allocating_memory(write, content):
    path = write(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"read_idx: {path} "):
        datasets.read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


# ---------------------------------------------------------------------------------------------------------- mnist

FILES = {f"{part}-{name}-ubyte.gz": gzip.compress(idx(array)) for part in ("train", "t10k")
         for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS))}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        folder, name = self.path.strip("/").split("/")
        self.server.asked.append(self.path)
        if folder == "gone":
            self.send_error(404)
            return
        content = FILES[name]
        if folder == "damaged":
            content = content[:30] + b"?" + content[31:]
        self.send_response(200)
        if folder != "endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:-10] if folder == "short" else content)
        while folder == "endless":
            self.wfile.write(bytes(1 << 16))

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.asked, server.daemon_threads, server.block_on_close = [], True, False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("train", [True, False])
def test_mnist_is_downloaded_once_checked_and_scaled(tmp_path, server, train):
    for _ in range(2):
        X, y = datasets.mnist(tmp_path / "new" / "folder", train, mirrors=f"{server.url}/good", checksums=SUMS)
        assert X.dtype == np.float32 and np.allclose(X, IMAGES.reshape(5, 12) / 255, atol=1e-7)
        assert y.dtype == np.int64 and np.array_equal(y, LABELS)
    part = "train" if train else "t10k"
    assert sorted(server.asked) == [f"/good/{part}-images-idx3-ubyte.gz", f"/good/{part}-labels-idx1-ubyte.gz"]
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(n for n in FILES if part in n)


def test_mnist_tries_one_mirror_after_the_other(tmp_path, server, monkeypatch):
    monkeypatch.setattr(datasets, "LARGEST_DOWNLOAD", 1 << 20)
    mirrors = ["nonsense", "http://127.0.0.1:1",
               *(f"{server.url}/{folder}/" for folder in ("gone", "damaged", "short", "endless"))]
    with pytest.raises(OSError) as caught:
        datasets.mnist(tmp_path, mirrors=mirrors, checksums=SUMS)
    for sentence in ("could not download train-images-idx3-ubyte.gz", "unknown url type", "404", "expected checksum",
                     "truncated: got", "the file has more than 1 MB"):
        assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []  # nothing half done is left
    X, y = datasets.mnist(tmp_path, mirrors=[*mirrors, f"{server.url}/good"], checksums=SUMS)
    assert np.array_equal(y, LABELS)


def test_mnist_without_download(tmp_path, server):
    with pytest.raises(OSError, match="train-images-idx3-ubyte.gz does not exist; download=True downloads it"):
        datasets.mnist(tmp_path, download=False)
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=r"is damaged \(its checksum differs\)"):
        datasets.mnist(tmp_path, download=False)  # they are not the files of MNIST
    X, y = datasets.mnist(tmp_path, download=False, checksums=None)
    assert np.array_equal(y, LABELS)
    assert not server.asked


def test_mnist_downloads_a_damaged_file_again(tmp_path, server):
    datasets.mnist(tmp_path, mirrors=f"{server.url}/good", checksums=SUMS)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(b"damaged")
    _, y = datasets.mnist(tmp_path, mirrors=f"{server.url}/good", checksums=SUMS)
    assert np.array_equal(y, LABELS) and path.read_bytes() == FILES[path.name]


def test_mnist_wants_one_label_for_each_image(tmp_path, write):
    for name, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS[:4])):
        write(idx(array), f"train-{name}-ubyte.gz")
    with pytest.raises(ValueError, match=r"mnist: expected images .* got \(5, 4, 3\) and \(4,\)"):
        datasets.mnist(tmp_path, download=False, checksums=None)
