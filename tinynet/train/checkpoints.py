"""Files of weights and of whole training runs: `save` and `load`, in the formats npz and safetensors.

>>> import tempfile
>>> from tinynet import Generator, nn, optim
>>> model = nn.Linear(3, 2)
>>> run = {"model": model, "optimizer": optim.Adam(model.parameters()), "random": Generator}
>>> path = tempfile.mkdtemp() + "/run.npz"
>>> save({**run, "epoch": 7}, path)
>>> load(path, run)                                     # into the same objects; what is left comes back
{'epoch': 7}

A file holds arrays by their names and, where it is more than weights, a text (JSON) that says how they and plain
settings belong together. Nothing in it is ever executed: there is no pickle.

A file is replaced as a whole or not at all, whenever the machine stops. Each array is saved with a checksum, and
nothing that a file claims is believed before its own size bears it out.
"""

import contextlib
import json
import math
import os
import secrets
import struct
import zipfile
import zlib

import numpy as np

from ..errors import refusing
from ..tensors import Tensor

VERSION = 1
PIECE = 1 << 20  # bytes that are read at once


@refusing
def save(obj, path):
    """Write a state to a file, whose name ends in .npz or .safetensors.

    `obj` is a dict, nested as you like, of arrays, tensors, numbers, strings, lists, and of whatever has a
    `state_dict()`: models, optimisers, schedules, DataLoaders, tinynet.Generator. A plain dict of arrays, such as
    `model.state_dict()` (or a model itself), becomes a plain file of weights, as PyTorch's users exchange them.

    The state goes to a file beside `path`, onto the disk, and then takes the place of `path` in one step: if the
    program is killed before that, the former file is still there (and a *.part beside it that may be deleted).

    TypeError, with the place, for what cannot be saved; OSError where the file cannot be written.
    """
    kind = format_of("save", path)
    if isinstance(obj, (str, os.PathLike)):
        raise TypeError(f"save: expected save(state, path), got the path {os.fspath(obj)!r} first")
    arrays, state = {}, as_state(obj)
    if not isinstance(state, dict):
        raise TypeError(f"save: expected a dict, or something with a state_dict(), got {type(obj).__name__}")
    text = describe(state, (), arrays)
    weights = all(isinstance(key, str) and is_array(x) for key, x in state.items())
    with replacing(path) as file:
        WRITERS[kind](file, arrays, None if weights else json.dumps({"version": VERSION, "state": text}))


@refusing
def load(path, into=None, weights_only=True):
    """Read a file that `save` wrote, or a plain npz or safetensors file, into a dict of NumPy arrays and settings.

    into  an object with `load_state_dict`, or a dict of them: {"model": model, "optimizer": optimizer, …}. Each takes
          over its part of the file, and the rest comes back. If one cannot, none has changed.

    weights_only  PyTorch's word for what is always so here: nothing in the file is executed

    ValueError, with the name of the array, where the file is damaged, broken off, or of another model; OSError where
    it cannot be read.
    """
    kind = format_of("load", path)
    with open(path, "rb") as file:
        try:
            arrays, text = READERS[kind](file)
            state = arrays if text is None else restored(text, arrays)
        except Damaged as error:
            raise ValueError(f"load: {os.fspath(path)} {error}") from None
    if into is None:
        return state
    if not isinstance(into, dict):
        take_over = accepted(path, "the file", into, state)
        take_over()
        return {}
    for name in into:
        if name not in state:
            raise ValueError(f"load: {os.fspath(path)} has no part {name!r}; it has {listed(state)}")
    taken = [accepted(path, repr(name), into[name], state[name])  # first those that cannot be asked beforehand
             for name in sorted(into, key=lambda name: hasattr(into[name], "accept"))]
    for take_over in taken:
        take_over()
    return {name: x for name, x in state.items() if name not in into}


class Damaged(ValueError):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


def format_of(function, path):
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{function}: expected the path of a file, got {type(path).__name__}")
    kind = os.path.splitext(os.fspath(path))[1].lower()
    if kind not in WRITERS:
        raise ValueError(f"{function}: the name of the file says its format, .npz or .safetensors, got "
                         f"{os.fspath(path)!r}")
    return kind


def accepted(path, part, x, state):
    """The function with which x takes over its part of a file; whatever can be wrong with it is found here."""
    accept = getattr(x, "accept", None)
    if accept is None:
        if not hasattr(x, "load_state_dict"):
            raise TypeError(f"load: {part} goes into an object with load_state_dict, got {type(x).__name__}")
        return lambda: x.load_state_dict(state)
    if not isinstance(state, dict):
        raise ValueError(f"load: {os.fspath(path)}, {part}: expected a state, got {type(state).__name__}")
    try:
        return accept(state)
    except (TypeError, ValueError) as error:
        raise ValueError(f"load: {os.fspath(path)}, {part}: {error}") from None


def listed(names, most=5):
    return ", ".join(map(repr, list(names)[:most])) + " …" * (len(names) > most) or "nothing"


# ------------------------------------------------------------------------------------ a state as arrays and a text

def as_state(x):
    return x.state_dict() if hasattr(x, "state_dict") else x


def is_array(x):
    return isinstance(x, (np.ndarray, Tensor)) or (hasattr(x, "detach") and hasattr(x, "numpy"))  # PyTorch's


def describe(x, place, arrays):
    """x in JSON: {"array": name} for an array, which goes into `arrays`; {"dict": [[key, value], …]}; {"tuple": …}."""
    x = as_state(x)
    where = ".".join(map(str, place))
    if is_array(x):
        array = np.asarray(x.data if isinstance(x, Tensor) else x.detach().cpu().numpy() if hasattr(x, "detach") else x)
        if array.dtype.newbyteorder("=") not in NAMES:
            raise TypeError(f"save: {where} is an array of {array.dtype}, expected numbers of at most 64 bits")
        if where in arrays or where == "__metadata__" or "\0" in where:
            raise ValueError(f"save: there {'are two arrays' if where in arrays else 'cannot be an array'} {where!r}")
        arrays[where] = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        return {"array": where}
    if isinstance(x, dict):
        for key in x:
            if not isinstance(key, (str, int)):
                raise TypeError(f"save: {where or 'the state'} has the key {key!r}, expected strings or whole numbers")
        return {"dict": [[key, describe(y, (*place, key), arrays)] for key, y in x.items()]}
    if isinstance(x, (list, tuple)):
        parts = [describe(y, (*place, i), arrays) for i, y in enumerate(x)]
        return parts if isinstance(x, list) else {"tuple": parts}
    x = x.item() if isinstance(x, np.generic) else x
    if x is not None and not isinstance(x, (bool, int, float, str)):
        raise TypeError(f"save: {where} is a {type(x).__name__}, expected an array, a number, a string, a list, a dict "
                        "or something with a state_dict()")
    return x


def restored(text, arrays):
    """The state that `describe` put into words."""
    def value(x):
        if isinstance(x, list):
            return [value(y) for y in x]
        if not isinstance(x, dict):
            return x
        (kind, content), = x.items()
        if kind == "array":
            unused.discard(content)
            return arrays[content]
        return dict((key, value(y)) for key, y in content) if kind == "dict" else tuple(map(value, content))

    unused = set(arrays)
    described = parsed(text)
    if not isinstance(described, dict) or described.get("version") != VERSION:
        version = described.get("version") if isinstance(described, dict) else None
        raise Damaged(f"is of version {str(version)[:20]} of the format; this tinynet reads version {VERSION}")
    try:
        state = value(described.get("state"))
    except KeyError as error:
        raise Damaged(f"misses the array {error}") from None
    except (TypeError, ValueError, RecursionError):
        raise Damaged("has a description of its state that makes no sense") from None
    if unused or not isinstance(state, dict):
        raise Damaged(f"has arrays that its description does not know: {listed(sorted(unused))}")
    return state


def parsed(text):
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        raise Damaged("is damaged: its description is no JSON") from None


# ---------------------------------------------------------------------------------------------------- onto the disk

@contextlib.contextmanager
def replacing(path):
    """A file to write, which takes the place of `path` once all of it is on the disk."""
    path = os.path.realpath(path)
    partial = f"{path}.{secrets.token_hex(4)}.part"
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    if os.name == "posix":  # the folder, too, is something that has to reach the disk
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def claimed(what, shape, dtype):
    """How many bytes an array takes, of whatever shape a file claims."""
    if not isinstance(shape, (list, tuple)) or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 32:
        raise Damaged(f"is damaged: {what} claims the shape {str(shape)[:60]}")
    return math.prod(shape) * dtype.itemsize


def read_array(file, what, shape, dtype):
    """The array that follows in a file, in the byte order of this machine. Its size has been checked before."""
    try:
        array = np.empty(shape, dtype)
    except ValueError:  # (0, 2**60)
        raise Damaged(f"is damaged: {what} claims the shape {shape}") from None
    view, done = memoryview(array.reshape(-1).view(np.uint8)), 0
    while done < len(view):
        piece = file.read(min(PIECE, len(view) - done))
        if not piece:
            raise Damaged(f"breaks off in {what}, after {done} of {len(view)} bytes")
        view[done:done + len(piece)] = piece
        done += len(piece)
    return array


# ----------------------------------------------------------------------------------------------------- safetensors

# Eight bytes with the length of the header; the header in JSON, {name: {"dtype", "shape", "data_offsets"}}; the numbers
# of all arrays, one after the other, the lowest byte first. Under "__metadata__" there may be texts for any purpose.

DTYPES = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
          "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}
NAMES = {np.dtype(code).newbyteorder("="): name for name, code in DTYPES.items()}


def checksum(array):
    """CRC-32 of the dtype, the shape and the numbers."""
    start = zlib.crc32(f"{array.dtype.str}{array.shape}".encode())
    return zlib.crc32(array.reshape(-1).view(np.uint8), start)


def write_safetensors(file, arrays, text):
    header, end = {}, 0
    order = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # each then begins at a multiple of its itemsize
    for name in order:
        array = arrays[name]
        header[name] = {"dtype": NAMES[array.dtype.newbyteorder("=")], "shape": array.shape,
                        "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    ours = json.dumps({"checksums": {name: checksum(array) for name, array in arrays.items()}, "text": text})
    metadata = {"format": "pt", "tinynet": ours, "tinynet.checksum": str(zlib.crc32(ours.encode()))}
    described = json.dumps({"__metadata__": metadata, **header}).encode()
    described += b" " * (-len(described) % 8)
    file.write(struct.pack("<Q", len(described)) + described)
    for name in order:
        file.write(arrays[name].reshape(-1).view(np.uint8))


def read_safetensors(file):
    """(arrays by name, the text or None)"""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise Damaged(f"is not a safetensors file: it has {size} bytes")
    length, = struct.unpack("<Q", file.read(8))
    if length > size - 8:
        raise Damaged(f"is not a safetensors file, or breaks off in its header: of {length} bytes there are {size - 8}")
    header = parsed(file.read(length))
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise Damaged("is damaged: its header is not that of a safetensors file")
    places, end = [], 0
    for name, entry in header.items():
        what = f"the array {name!r}"
        try:
            code, shape, (begin, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            dtype = np.dtype("<u2" if code == "BF16" else DTYPES[code])
        except (TypeError, ValueError, KeyError):
            raise Damaged(f"holds {what} in a way that is not known here: {str(entry)[:80]}") from None
        if type(begin) is not int or type(stop) is not int or stop - begin != claimed(what, shape, dtype):
            raise Damaged(f"is damaged: {what} of shape {shape}, {code}, lies from {begin} to {stop}")
        places.append((begin, stop, name, what, shape, dtype, code == "BF16"))
    arrays = {}
    for begin, stop, name, what, shape, dtype, brain in sorted(places):
        if begin != end:
            raise Damaged(f"is damaged: {what} begins at byte {begin}, expected {end}")
        end = stop
        if size - 8 - length < stop:
            raise Damaged(f"breaks off in {what}: it ends at byte {8 + length + stop}, and the file has {size}")
        array = read_array(file, what, shape, dtype)
        arrays[name] = (array.astype("<u4") << 16).view("<f4") if brain else array  # bfloat16: float32's upper half
    if size - 8 - length > end:
        raise Damaged(f"is damaged: {size - 8 - length - end} bytes follow its last array")
    arrays = {name: arrays[name] for name in header}
    text = None
    if "tinynet" in metadata or "tinynet.checksum" in metadata:
        ours = metadata.get("tinynet")
        if not isinstance(ours, str) or metadata.get("tinynet.checksum") != str(zlib.crc32(ours.encode())):
            raise Damaged("is damaged: its description has another checksum than when it was saved")
        try:
            ours = parsed(ours)
            sums, text = dict(ours["checksums"]), ours["text"]
        except (TypeError, ValueError, KeyError):
            raise Damaged("has a description that makes no sense") from None
        for name in [*sums, *arrays]:
            if name not in arrays or name not in sums:
                raise Damaged(f"is damaged: the array {name!r} "
                              + ("is missing" if name in sums else "was not there when it was saved"))
            if sums[name] != checksum(arrays[name]):
                raise Damaged(f"is damaged: the array {name!r} has another checksum than when it was saved")
        arrays = {name: arrays[name] for name in sums}
    return {name: native(array) for name, array in arrays.items()}, text


def native(array):
    return array.astype(array.dtype.newbyteorder("="), copy=False)


# ------------------------------------------------------------------------------------------------------------- npz

# A zip archive, which has a CRC-32 of each of its members: "name.npy" for each array, and the text.

TEXT = "tinynet.json"


def write_npz(file, arrays, text):
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        if text is not None:
            archive.writestr(zipfile.ZipInfo(TEXT), text)


BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError,
          struct.error, OverflowError, LookupError)


def read_npz(file):
    """(arrays by name, the text or None)"""
    size = os.fstat(file.fileno()).st_size
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
        file.seek(size - 22 - len(archive.comment))
        count, = struct.unpack("<10xH10x", file.read(22))
    except BROKEN as error:
        broken = broken_off(file, size)
        raise Damaged(f"breaks off in the array {broken!r}" if broken else f"is not a whole npz file ({error})"
                      ) from None
    if count != min(len(members), 0xFFFF):
        raise Damaged(f"is damaged: it lists {len(members)} of its {count} arrays")
    stored, unpacked = (sum(getattr(m, attribute) for m in members) for attribute in ("compress_size", "file_size"))
    if stored > size or unpacked > 100 * size + PIECE:  # no weights pack so well, only traps do
        raise Damaged(f"has {size} bytes and claims to hold {max(stored, unpacked)}")
    arrays, text = {}, None
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise Damaged(f"has two arrays {name!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or (
                member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size):
            raise Damaged(f"is damaged: the array {name!r} is packed in a way that npz files do not know")
        try:
            with archive.open(member) as content:
                if member.filename == TEXT:
                    text = content.read(member.file_size + 1)
                    continue
                arrays[name] = read_npy(content, f"the array {name!r}", member.file_size)
        except Damaged:
            raise
        except BROKEN as error:
            raise Damaged(f"is damaged in the array {name!r} ({error})") from None
    return arrays, text


def read_npy(file, what, size):
    """The array in a member of an archive, which has `size` bytes."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file, max_header_size=10_000)
    except Exception:  # a parser of Python's literals has many ways to say no
        raise Damaged(f"is damaged: {what} has no header of an array") from None
    if dtype.newbyteorder("=") not in NAMES:
        raise Damaged(f"holds {what} of {str(dtype)[:40]}, expected numbers of at most 64 bits")
    expected = claimed(what, shape, dtype)
    if expected != size - file.tell():
        raise Damaged(f"is damaged: {what} claims the shape {shape}, {dtype}, {expected} bytes, and has "
                      f"{size - file.tell()}")
    array = native(read_array(file, what, shape[::-1] if fortran else shape, dtype))
    if file.read(1):  # what is read to its end is compared with its checksum
        raise Damaged(f"is damaged: {what} goes on after its end")
    return array.T.copy(order="C") if fortran else array


def broken_off(file, size):
    """The name of the array that a zip archive ends in, where it has been cut: from one header to the next."""
    name, end = None, 0
    while end <= size:
        file.seek(end)
        header = file.read(30)
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            return None
        stored, named, more = struct.unpack("<18xI4xHH", header)
        name, extra = file.read(named).decode("utf-8", "replace"), file.read(more)
        if stored == 0xFFFFFFFF and len(extra) >= 20:  # too large for 32 bits, or it might have been
            stored, = struct.unpack_from("<Q", extra, 12)
        end = file.tell() + stored
    return name.removesuffix(".npy")


WRITERS = {".npz": write_npz, ".safetensors": write_safetensors}
READERS = {".npz": read_npz, ".safetensors": read_safetensors}
