"""Checkpoints: `save` and `load` weights and whole training runs, as .npz or .safetensors files.

>>> import tempfile
>>> from tinynet import Generator, nn, optim
>>> model = nn.Linear(3, 2)
>>> run = {"model": model, "optimizer": optim.Adam(model.parameters()), "random": Generator}
>>> path = tempfile.mkdtemp() + "/run.npz"
>>> save({**run, "epoch": 7}, path)
>>> load(path, run)                                     # into the same objects; the rest comes back
{'epoch': 7}

A file holds named arrays and, where it is more than weights, a JSON text that describes the state they belong to.
Loading executes nothing (no pickle) and allocates no more than the file's own size justifies. Every array has a
checksum. Saving is atomic: a crash leaves the old file.
"""

import contextlib
import json
import math
import os
import secrets
import zipfile
import zlib

import numpy as np

from ..errors import check_path, describe
from ..graph import one_line
from ..tensors import Tensor

VERSION = 1  # of the description


def save(obj, path):
    """Write a state to a file whose name ends in .npz or .safetensors.

    `obj` is a nested dict of arrays, tensors, numbers, strings, lists, and of objects with a `state_dict()`: models,
    optimisers, schedules, DataLoaders, tinynet.Generator. A plain dict of arrays, such as `model.state_dict()` (or a
    model itself), becomes a plain file of weights that other libraries read.

    The state is written to a temporary *.part file beside `path`, flushed to the disk, and then replaces `path`.

    TypeError with the path inside `obj` for what cannot be saved; OSError where the file cannot be written.
    """
    kind = file_format("save", path)
    if isinstance(obj, (str, os.PathLike)):
        raise TypeError(f"save: expected save(state, path), got the path {os.fspath(obj)!r} first")
    arrays, state = {}, as_state(obj)
    if not isinstance(state, dict):
        raise TypeError(f"save: expected a dict, or something with a state_dict(), got {describe(obj)}")
    tree = encode(state, (), arrays)
    weights = all(isinstance(key, str) and is_array(x) for key, x in state.items())
    with replacing(path) as file:
        WRITERS[kind](file, arrays, None if weights else json.dumps({"version": VERSION, "state": tree}))


def load(path, into=None, weights_only=True):
    """Read a file that `save` wrote, or any npz or safetensors file, into a dict of NumPy arrays and settings.

    into          an object with `load_state_dict`, or a dict of them: {"model": model, "optimizer": optimizer, …}.
                  Each loads its part of the file, and the rest is returned. If one part does not fit, none is loaded.
    weights_only  PyTorch's name for what always holds here: nothing in the file is executed

    ValueError with the name of the array where the file is damaged, truncated, or of another model; OSError where it
    cannot be read.
    """
    kind = file_format("load", path)
    name = os.fsdecode(path)
    with open(path, "rb") as file:
        try:
            arrays, text = READERS[kind](file)
            state = arrays if text is None else decode(text, arrays)
        except ImportError:
            raise
        except Exception as error:  # whatever NumPy, zipfile, json or safetensors find wrong with the file
            raise ValueError(f"load: {name} cannot be read: {one_line(error)[:200] or type(error).__name__}") from None
    if into is None:
        return state
    if not isinstance(into, dict):
        validated(name, "the file", into, state)()
        return {}
    for part in into:
        if part not in state:
            raise ValueError(f"load: {name} has no part {part!r}; it has {', '.join(map(repr, state)) or 'nothing'}")
    loaders = [validated(name, repr(part), into[part], state[part])  # those that cannot validate first go first
               for part in sorted(into, key=lambda part: hasattr(into[part], "validate_state_dict"))]
    for load_part in loaders:
        load_part()
    return {part: x for part, x in state.items() if part not in into}


def file_format(function, path):
    """The extension of the path, one of the two known formats."""
    kind = os.path.splitext(os.fsdecode(check_path(function, "path", path)))[1].lower()
    if kind not in WRITERS:
        raise ValueError(f"{function}: expected a path that ends in .npz or .safetensors, got {describe(path)}")
    return kind


def validated(name, part, x, state):
    """A function that loads the state into x, after everything that can be wrong with it was checked."""
    if not hasattr(x, "load_state_dict"):
        raise TypeError(f"load: expected an object with load_state_dict for {part}, got {describe(x)}")
    if not hasattr(x, "validate_state_dict"):
        return lambda: x.load_state_dict(state)
    if not isinstance(state, dict):
        raise ValueError(f"load: {name}, {part}: expected a state, got {type(state).__name__}")
    try:
        return x.validate_state_dict(state)
    except (TypeError, ValueError) as error:
        raise ValueError(f"load: {name}, {part}: {error}") from None


# --------------------------------------------------------------------------------------- a state as arrays and JSON

def as_state(x):
    return x.state_dict() if hasattr(x, "state_dict") else x


def is_array(x):
    return isinstance(x, (np.ndarray, Tensor)) or (hasattr(x, "detach") and hasattr(x, "numpy"))  # PyTorch's


def encode(x, path, arrays):
    """x as JSON: {"array": name} for an array, which goes into `arrays`; {"dict": [[key, value], …]}; {"tuple": …}."""
    x = as_state(x)
    name = ".".join(map(str, path))
    if is_array(x):
        array = x._data if isinstance(x, Tensor) else np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
        if array.dtype.newbyteorder("=") not in DTYPES.values():
            raise TypeError(f"save: {name} is an array of {array.dtype}, expected numbers of at most 64 bits")
        if name in arrays or name == "__metadata__" or "\0" in name:
            raise ValueError(f"save: there {'are two arrays' if name in arrays else 'cannot be an array'} {name!r}")
        arrays[name] = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        return {"array": name}
    if isinstance(x, dict):
        for key in x:
            if not isinstance(key, (str, int)):
                raise TypeError(f"save: {name or 'the state'} has the key {key!r}, expected strings or integers")
        return {"dict": [[key, encode(y, (*path, key), arrays)] for key, y in x.items()]}
    if isinstance(x, (list, tuple)):
        parts = [encode(y, (*path, i), arrays) for i, y in enumerate(x)]
        return parts if isinstance(x, list) else {"tuple": parts}
    x = x.item() if isinstance(x, np.generic) else x
    if x is not None and not isinstance(x, (bool, int, float, str)):
        raise TypeError(f"save: {name} is a {type(x).__name__}, expected an array, a number, a string, a list, a dict "
                        "or something with a state_dict()")
    return x


def decode(text, arrays):
    """The state that `encode` described."""
    def restored(entry):
        if "version" in entry:
            return entry
        (kind, content), = entry.items()
        if kind == "array":
            used.add(content)
            return arrays[content]
        return dict(content) if kind == "dict" else tuple(content)

    used = set()
    try:
        entry = json.loads(text, object_hook=restored)
        version, state = entry["version"], entry["state"]
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from None
    except (TypeError, ValueError, RecursionError):
        raise ValueError("its description makes no sense") from None
    if version != VERSION:
        raise ValueError(f"it has version {str(version)[:20]} of the format, this tinynet reads version {VERSION}")
    if not isinstance(state, dict) or used != set(arrays):
        raise ValueError("its description does not match its arrays")
    return state


# ---------------------------------------------------------------------------------------------------- onto the disk

@contextlib.contextmanager
def replacing(path):
    """A file to write, which replaces `path` once all of it is on the disk."""
    path = os.path.realpath(os.fsdecode(path))
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
    if os.name == "posix":  # the new directory entry, too, must reach the disk
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def native(array):
    """The array in C order and in this machine's byte order."""
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


# ----------------------------------------------------------------------------------------------------- safetensors

# The package's `save` writes the metadata in random order, so it goes into the header here: equal states, equal files.
# The metadata holds the CRC-32 of every array (and of itself) and the description.

DTYPES = {name: np.dtype(code) for name, code in (
    ("BOOL", "?"), ("U8", "u1"), ("I8", "i1"), ("U16", "u2"), ("I16", "i2"), ("U32", "u4"), ("I32", "i4"),
    ("U64", "u8"), ("I64", "i8"), ("F16", "f2"), ("F32", "f4"), ("F64", "f8"))}


def safetensors_package():
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(".safetensors files need the package safetensors; pip install tinynet[safetensors]") from None
    return safetensors


def checksum(array):
    """CRC-32 of the dtype, the shape and the numbers, which are in C order and little-endian."""
    start = zlib.crc32(f"{array.dtype.str}{array.shape}".encode())
    return zlib.crc32(array.reshape(-1).view(np.uint8), start)


def write_safetensors(file, arrays, text):
    content = safetensors_package().numpy.save(arrays)
    own = json.dumps({"checksums": {name: checksum(array) for name, array in arrays.items()}, "text": text})
    metadata = {"format": "pt", "tinynet": own, "tinynet.checksum": str(zlib.crc32(own.encode()))}
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({"__metadata__": metadata, **json.loads(content[8:end])}).encode()
    header += b" " * (-len(header) % 8)
    file.writelines((len(header).to_bytes(8, "little"), header, memoryview(content)[end:]))


def read_safetensors(file):
    """(arrays by name, the text or None)"""
    package, content, arrays = safetensors_package(), file.read(), {}
    try:
        entries = package.deserialize(content)
    except package.SafetensorError as error:
        raise ValueError(f"it is truncated, damaged or no safetensors file ({error})") from None
    for name, entry in entries:
        code = entry["dtype"]
        if code not in DTYPES and code != "BF16":
            raise ValueError(f"the array {name!r} has the dtype {code}, expected numbers of at most 64 bits")
        array = np.frombuffer(entry["data"], "<u2" if code == "BF16" else DTYPES[code].newbyteorder("<"))
        array = array.reshape(entry["shape"])
        arrays[name] = (array.astype("<u4") << 16).view("<f4") if code == "BF16" else array  # float32's upper half
    metadata = json.loads(content[8:8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    text = None
    if "tinynet" in metadata or "tinynet.checksum" in metadata:
        own = metadata.get("tinynet", "")
        if metadata.get("tinynet.checksum") != str(zlib.crc32(own.encode())):
            raise ValueError("it is damaged: the checksum of its description differs")
        own = json.loads(own)
        checksums, text = dict(own["checksums"]), own["text"]
        for name in [*checksums, *arrays]:
            if name not in arrays or checksums.get(name) != checksum(arrays[name]):
                raise ValueError(f"it is damaged: the checksum of the array {name!r} differs")
        arrays = {name: arrays[name] for name in checksums}  # in the order of the state
    return {name: native(array) for name, array in arrays.items()}, text


# ------------------------------------------------------------------------------------------------------------- npz

# A zip archive, which has a CRC-32 of each of its members: "name.npy" for each array, and the description.

TEXT = "tinynet.json"


def write_npz(file, arrays, text):
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        if text is not None:
            archive.writestr(zipfile.ZipInfo(TEXT), text)


def read_npz(file):
    """(arrays by name, the text or None)"""
    size, zipped = os.fstat(file.fileno()).st_size, file.read(4) == b"PK\3\4"
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is {'truncated' if zipped else 'no npz file'} ({error})") from None
    members = archive.infolist()
    file.seek(-12 - len(archive.comment), os.SEEK_END)
    count = int.from_bytes(file.read(2), "little")
    if count != min(len(members), 0xFFFF):
        raise ValueError(f"it is damaged: it lists {len(members)} of its {count} arrays")
    stored, unpacked = (sum(getattr(m, attribute) for m in members) for attribute in ("compress_size", "file_size"))
    if stored > size or unpacked > 100 * size + (1 << 20):  # weights do not compress so well, zip bombs do
        raise ValueError(f"it has {size} bytes and claims to hold {max(stored, unpacked)}")
    arrays, text = {}, None
    for member in members:
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise ValueError(f"it has two arrays {name!r}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"the array {name!r} is compressed by a method that npz files do not use")
        try:
            with archive.open(member) as content:
                if member.filename == TEXT:
                    text = content.read(member.file_size + 1)
                else:
                    arrays[name] = read_npy(content, member.file_size)
        except Exception as error:  # zipfile's, NumPy's, and those of the parser of the header
            raise ValueError(f"it is damaged in the array {name!r} ({error})") from None
    return arrays, text


def read_npy(content, size):
    """The array in a member of `size` bytes, whose header is checked before NumPy allocates what it claims."""
    versions = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = versions[np.lib.format.read_magic(content)](content, max_header_size=10_000)
    if dtype.newbyteorder("=") not in DTYPES.values():
        raise ValueError(f"it has the dtype {dtype}, expected numbers of at most 64 bits")
    claimed, got = math.prod(shape) * dtype.itemsize, size - content.tell()
    if claimed != got or bool in map(type, shape):
        raise ValueError(f"its header claims the shape {shape}, {claimed} bytes, and there are {got}")
    content.seek(0)
    return native(np.lib.format.read_array(content, allow_pickle=False, max_header_size=10_000))


WRITERS = {".npz": write_npz, ".safetensors": write_safetensors}
READERS = {".npz": read_npz, ".safetensors": read_safetensors}
