"""Data to learn from: four toy problems in the plane, scanned digits, first names, and text.

Sets of samples come as (X, y): X float32 with one row for each sample, y int64 class indices. The same seed gives the
same numbers.
"""

import contextlib
import gzip
import hashlib
import http.client
import importlib.util
import math
import os
import tempfile
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from .errors import refusing

# ---------------------------------------------------------------------------------------------- problems in the plane

@refusing
def xor(n=4, noise=0.0, seed=0):
    """The corners of the unit square, and whether the two coordinates differ: no single perceptron can learn it.

    n points go round the four corners, blurred by normal noise. Minsky and Papert (1969).

    >>> X, y = xor()
    >>> X.tolist(), y.tolist()
    ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0, 1, 1, 0])
    """
    check_plane("xor", n, noise)
    corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])[np.arange(n) % 4]
    return blurred(corners, noise, seed), (corners[:, 0] ^ corners[:, 1]).astype(np.int64)


@refusing
def moons(n=200, noise=0.1, seed=0):
    """Two half circles that reach into each other: one point of either class after the other."""
    check_plane("moons", n, noise)
    y = np.arange(n) % 2
    angle = np.pi * along(y, 2)
    outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], axis=1)
    return blurred(np.where(y[:, None], inner, outer), noise, seed), y


@refusing
def circles(n=200, noise=0.05, factor=0.5, seed=0):
    """A circle of radius 1 (class 0) around one of radius `factor` (class 1)."""
    check_plane("circles", n, noise)
    if not 0 <= factor < 1:
        raise ValueError(f"circles: factor is the inner radius, from 0 to below 1, got {factor!r}")
    y = np.arange(n) % 2
    angle = 2 * np.pi * along(y, 2, closed=True)
    radius = np.where(y, factor, 1.0)
    return blurred(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1), noise, seed), y


@refusing
def spiral(n=300, classes=3, noise=0.05, turns=0.75, seed=0):
    """`classes` arms of a spiral that winds `turns` times around the origin, out to radius 1."""
    check_plane("spiral", n, noise)
    if not isinstance(classes, int) or classes < 1:
        raise ValueError(f"spiral: classes is a whole number from 1 on, got {classes!r}")
    y = np.arange(n) % classes
    radius = along(y, classes)
    angle = 2 * np.pi * (turns * radius + y / classes)
    return blurred(radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1), noise, seed), y


def along(y, classes, closed=False):
    """How far along its class each point lies, evenly from 0 to 1 (below 1 on a closed curve)."""
    place = np.arange(len(y)) // classes
    count = np.bincount(y, minlength=classes)[y]
    return place / np.maximum(count if closed else count - 1, 1)


def blurred(points, noise, seed):
    return (points + noise * np.random.default_rng(seed).standard_normal(points.shape)).astype(np.float32)


def check_plane(name, n, noise):
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"{name}: n is a whole number from 0 on, got {n!r}")
    if not noise >= 0:
        raise ValueError(f"{name}: noise is a standard deviation from 0 on, got {noise!r}")


# -------------------------------------------------------------------------------------------------------------- digits

def digits():
    """1,797 handwritten digits (Alpaydin and Kaynak, 1998): X (1797, 64) in [0, 1], y 0 … 9.

    X.reshape(-1, 8, 8) are the pictures. They come with scikit-learn: pip install tinynet[digits].
    """
    from_extra("digits", "sklearn", "scikit-learn", "digits")
    from sklearn.datasets import load_digits
    scans = load_digits()
    return (scans.data / 16).astype(np.float32), scans.target.astype(np.int64)


def from_extra(function, module, package, extra):
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{function}: needs the package {package}; pip install tinynet[{extra}]")


MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
CHECKSUMS = {  # SHA-256
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


@refusing
def mnist(root, train=True, download=True, mirrors=MIRRORS, checksums=CHECKSUMS):
    """70,000 handwritten digits (LeCun, Cortes and Burges, 1998): X (60000, 784) in [0, 1], y 0 … 9; 10,000 to test on.

    X.reshape(-1, 28, 28) are the pictures. The files lie in the folder `root`; with `download` those that are missing
    or damaged are fetched from the first of the `mirrors` that has them (11 MB). `checksums` gives the SHA-256 of each
    file, or None to take a file as it is: sets in the same format, such as Fashion-MNIST, can be read so.

    Raises OSError where a file cannot be had, and ValueError where one is not what it should be.
    """
    part = "train" if train else "t10k"
    images, labels = (read_idx(obtain(f"{part}-{name}-ubyte.gz", Path(root), download, mirrors, checksums))
                      for name in ("images-idx3", "labels-idx1"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(f"mnist: expected images (n, rows, columns) and labels (n), got {images.shape} and "
                         f"{labels.shape} in {root}")
    X = np.divide(images.reshape(len(images), math.prod(images.shape[1:])), np.float32(255), dtype=np.float32)
    return X, labels.astype(np.int64)


def obtain(name, root, download, mirrors, checksums):
    """The path of a file in the folder, fetched where it has to be."""
    path, checksum = root / name, checksums and checksums.get(name)
    if path.is_file() and checksum in (None, sha256(path)):
        return path
    if not download:
        state = "is damaged (its checksum differs)" if path.is_file() else "does not exist"
        raise OSError(f"mnist: {path} {state}; download=True fetches it")
    failures = []
    for mirror in [mirrors] if isinstance(mirrors, str) else mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            fetch(url, path, checksum)
            return path
        except (OSError, ValueError, http.client.HTTPException) as error:  # ValueError: no such kind of address
            failures.append(f"{url}: {error}")
    raise OSError(f"mnist: could not fetch {name}; " + ("; ".join(failures) or "no mirrors were given"))


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LARGEST_DOWNLOAD = 64 << 20  # bytes


def fetch(url, path, checksum=None):
    """Download into `path`, which is there whole and checked, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        received, digest = 0, hashlib.sha256()
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=30) as response:
            while piece := response.read(1 << 16):
                received += len(piece)
                if received > LARGEST_DOWNLOAD:
                    raise OSError(f"sends more than {LARGEST_DOWNLOAD >> 20} MB")
                digest.update(piece)
                file.write(piece)
            promised = response.headers.get("Content-Length")
        if promised and int(promised) != received:
            raise OSError(f"the connection broke off after {received} of {promised} bytes")
        if checksum is not None and digest.hexdigest() != checksum:
            raise OSError("the file has another checksum than expected")
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


@refusing
def read_idx(path):
    """The array in an IDX file, MNIST's format, packed with gzip or not.

    The file says: two zero bytes, the type of its numbers, how many axes; the length of each axis (4 bytes); the
    numbers, all of them with the highest byte first. What it says is checked against its size before memory is taken.
    """
    size = os.path.getsize(os.fspath(path))
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    largest = size + (1 << 20) + 100 * size * packed  # no picture of interest packs a hundred times
    with (gzip.open if packed else open)(path, "rb") as file:
        try:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in IDX_TYPES or not 1 <= magic[3] <= 8:
                raise ValueError(f"read_idx: {path} is not an IDX file: it begins with the bytes {magic.hex(' ')!r}")
            axes = file.read(4 * magic[3])
            if len(axes) < 4 * magic[3]:
                raise ValueError(f"read_idx: {path} breaks off in its header")
            shape = tuple(int(n) for n in np.frombuffer(axes, ">u4"))
            dtype = np.dtype(IDX_TYPES[magic[2]])
            expected = math.prod(shape) * dtype.itemsize
            if math.prod(n or 1 for n in shape) * dtype.itemsize > largest:
                raise ValueError(f"read_idx: {path} has {size} bytes and claims to hold an array of shape {shape}")
            numbers = bytearray()
            while piece := file.read(min(1 << 20, expected + 1 - len(numbers))):
                numbers += piece
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"read_idx: {path} is a damaged gzip file ({error})") from None
    if len(numbers) != expected:
        raise ValueError(f"read_idx: {path} claims an array of shape {shape}, {expected} bytes, and holds "
                         f"{'more' if len(numbers) > expected else len(numbers)}")
    return np.frombuffer(numbers, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)


# ---------------------------------------------------------------------------------------------------------------- text

def names():
    """5,163 first names from the census of the United States of 1990, in small letters and in alphabetical order.

    They come with the package `names`: pip install tinynet[names].
    """
    from_extra("names", "names", "names", "names")
    folder = Path(importlib.util.find_spec("names").origin).parent
    lines = [line for sex in ("female", "male")
             for line in (folder / f"dist.{sex}.first").read_text("ascii").splitlines()]
    return sorted({line.split()[0].lower() for line in lines if line.strip()})


@refusing
def text(path=None):
    """The text of a file in UTF-8; without a path the reference of the Python language, which comes with Python."""
    if path is None:
        from pydoc_data.topics import topics
        return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"
    try:
        return Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"text: {path} is not text in UTF-8 ({error})") from None
