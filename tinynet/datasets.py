"""Data sets: four toy problems in the plane, scanned digits, first names, and text.

Sets of samples are returned as (X, y): X float32 with one row for each sample, y int64 class indices. The same seed
gives the same data.
"""

import gzip
import hashlib
import http.client
import importlib.util
import math
import os
import secrets
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from .errors import check_bool, check_int, check_number, check_path, describe

# ---------------------------------------------------------------------------------------------- problems in the plane


def xor(n=4, noise=0.0, seed=0):
    """The corners of the unit square, and whether the two coordinates differ: no single perceptron can learn it.

    The n points cycle through the four corners, with normal noise. Minsky and Papert (1969).

    >>> X, y = xor()
    >>> X.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    index = class_indices("xor", n, 4)
    corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])[index]
    return add_noise("xor", corners, noise, seed), (corners[:, 0] ^ corners[:, 1]).astype(np.int64)


def moons(n=200, noise=0.1, seed=0):
    """Two interleaving half circles; the samples alternate between the classes."""
    y = class_indices("moons", n, 2)
    x = circle(np.pi * position(y, 2))
    return add_noise("moons", np.where(y[:, None], [1.0, 0.5] - x, x), noise, seed), y


def circles(n=200, noise=0.05, factor=0.5, seed=0):
    """A circle of radius 1 (class 0) around one of radius `factor` (class 1)."""
    y = class_indices("circles", n, 2)
    if not 0 <= check_number("circles", "factor", factor) < 1:
        raise ValueError(f"circles: expected factor, the inner radius, to be in [0, 1), got {describe(factor)}")
    x = circle(2 * np.pi * position(y, 2, closed=True))
    return add_noise("circles", np.where(y, factor, 1.0)[:, None] * x, noise, seed), y


def spiral(n=300, classes=3, noise=0.05, turns=0.75, seed=0):
    """`classes` arms of a spiral that winds `turns` times around the origin, out to radius 1."""
    classes = check_int("spiral", "classes", classes, 1, 2**31 - 1)
    y = class_indices("spiral", n, classes)
    radius = position(y, classes)
    x = circle(2 * np.pi * (check_number("spiral", "turns", turns) * radius + y / classes))
    return add_noise("spiral", radius[:, None] * x, noise, seed), y


def class_indices(name, n, classes):
    """0, 1, …, classes - 1, 0, 1, …: the classes of n samples."""
    return np.arange(check_int(name, "n", n, 0)) % classes


def position(y, classes, closed=False):
    """Where along the curve of its class each sample lies, evenly spaced from 0 to 1 (below 1 on a closed curve)."""
    count = np.bincount(y)[y]
    return np.arange(len(y)) // classes / np.maximum(count if closed else count - 1, 1)


def circle(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def add_noise(name, points, noise, seed):
    """The points as float32, with normal noise of that standard deviation."""
    noise = check_number(name, "noise", noise, 0)
    rng = np.random.default_rng(None if seed is None else check_int(name, "seed", seed, 0))
    return (points + noise * rng.standard_normal(points.shape)).astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- digits

def digits():
    """1,797 handwritten digits (Alpaydin and Kaynak, 1998): X (1797, 64) in [0, 1], y 0 … 9.

    X.reshape(-1, 8, 8) are the images. They come with scikit-learn: pip install tinynet[digits].
    """
    need("digits", "sklearn", "scikit-learn", "digits")
    from sklearn.datasets import load_digits
    scans = load_digits()
    return (scans.data / 16).astype(np.float32), scans.target.astype(np.int64)


def need(function, module, package, extra):
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{function}: needs the package {package}; pip install tinynet[{extra}]")


MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
CHECKSUMS = {  # SHA-256
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
LARGEST_DOWNLOAD = 64 << 20  # bytes


def mnist(root, train=True, download=True, mirrors=MIRRORS, checksums=CHECKSUMS):
    """70,000 handwritten digits (LeCun, Cortes and Burges, 1998): X (60000, 784) in [0, 1], y 0 … 9; 10,000 for tests.

    X.reshape(-1, 28, 28) are the images. The files are kept in the folder `root`; with `download`, missing or damaged
    ones are downloaded from the first of the `mirrors` that has them (11 MB). `checksums` are the SHA-256 of each file,
    or None to accept any file: data in the same format, such as Fashion-MNIST, can be read like this.

    Raises OSError for a missing or unreachable file, and ValueError for a file with unexpected content.
    """
    part = "train" if check_bool("mnist", "train", train) else "t10k"
    root = Path(os.fsdecode(check_path("mnist", "root", root)))
    mirrors = [mirrors] if isinstance(mirrors, str) else mirrors
    if not isinstance(mirrors, (list, tuple)) or not all(isinstance(mirror, str) for mirror in mirrors):
        raise TypeError(f"mnist: expected mirrors to be a list of addresses, got {describe(mirrors)}")
    if not isinstance(checksums, (dict, type(None))):
        raise TypeError(f"mnist: expected checksums to be a dict or None, got {describe(checksums)}")
    images, labels = (read_idx(local_file(root / f"{part}-{name}-ubyte.gz", download and mirrors, checksums or {}))
                      for name in ("images-idx3", "labels-idx1"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(f"mnist: expected images (n, rows, columns) and labels (n), got {images.shape} and "
                         f"{labels.shape} in {root}")
    X = np.divide(images.reshape(len(images), math.prod(images.shape[1:])), np.float32(255), dtype=np.float32)
    return X, labels.astype(np.int64)


def local_file(path, mirrors, checksums):
    """The path of a file with the right checksum, downloaded where it has to be."""
    checksum = checksums.get(path.name)
    if path.is_file() and checksum in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
        return path
    if not mirrors:
        state = "is damaged (its checksum differs)" if path.is_file() else "does not exist"
        raise OSError(f"mnist: {path} {state}; download=True downloads it")
    failures = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{path.name}"
        try:
            content = download(url)
            if checksum not in (None, hashlib.sha256(content).hexdigest()):
                raise OSError("the file does not have the expected checksum")
            replace(path, content)
            return path
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no such kind of address
            failures.append(f"{url}: {error}")
    raise OSError(f"mnist: could not download {path.name}; {'; '.join(failures)}")


def download(url):
    """The content of a file on the web."""
    with urllib.request.urlopen(url, timeout=30) as response:
        content, length = response.read(LARGEST_DOWNLOAD + 1), response.headers.get("Content-Length")
    if len(content) > LARGEST_DOWNLOAD:
        raise OSError(f"the file has more than {LARGEST_DOWNLOAD >> 20} MB")
    if length and int(length) != len(content):
        raise OSError(f"the file is truncated: got {len(content)} of {length} bytes")
    return content


def replace(path, content):
    """Write a file as a whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path):
    """The array in an IDX file, MNIST's format, compressed with gzip or not.

    The file has two zero bytes, the code of its dtype, the number of axes; the length of each axis (4 bytes); the
    elements, big-endian. The claimed shape is validated against the size of the file before memory is allocated.
    """
    size = os.path.getsize(check_path("read_idx", "path", path))
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with (gzip.open if packed else open)(path, "rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES or not 1 <= magic[3] <= 8:
                raise ValueError(f"read_idx: {path} is not an IDX file: it begins with the bytes {magic.hex(' ')!r}")
            axes = file.read(4 * magic[3])
            if len(axes) < 4 * magic[3]:
                raise ValueError(f"read_idx: {path} is truncated in its header")
            shape, dtype = tuple(np.frombuffer(axes, ">u4").tolist()), np.dtype(IDX_TYPES[magic[2]])
            largest = size + (1 << 20) + 100 * size * packed  # no images of interest compress a hundredfold
            if math.prod(n or 1 for n in shape) * dtype.itemsize > largest:
                raise ValueError(f"read_idx: {path} has {size} bytes and claims to hold an array of shape {shape}")
            expected = math.prod(shape) * dtype.itemsize
            content = file.read(expected + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"read_idx: {path} is a damaged gzip file ({error})") from None
    if len(content) != expected:
        raise ValueError(f"read_idx: {path} claims an array of shape {shape}, {expected} bytes, and holds "
                         f"{'more' if len(content) > expected else len(content)}")
    return np.frombuffer(content, dtype).astype(dtype.newbyteorder("=")).reshape(shape)


# ---------------------------------------------------------------------------------------------------------------- text

def names():
    """5,163 first names from the 1990 census of the United States, in lower case and in alphabetical order.

    They come with the package `names`: pip install tinynet[names].
    """
    need("names", "names", "names", "names")
    folder = Path(importlib.util.find_spec("names").origin).parent
    lines = [line for sex in ("female", "male")
             for line in (folder / f"dist.{sex}.first").read_text("ascii").splitlines()]
    return sorted({line.split()[0].lower() for line in lines if line.strip()})


def text(path=None):
    """The text of a UTF-8 file; without a path the reference of the Python language, which comes with Python."""
    if path is None:
        from pydoc_data.topics import topics
        return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    try:
        return Path(os.fsdecode(check_path("text", "path", path))).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {path} is not text in UTF-8 ({error})") from None
