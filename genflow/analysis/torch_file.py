"""Reads the arrays of a file that torch.save wrote, without torch: the zip format of today and the one before it.

Such a file holds a pickle, a program that could call anything. The reader here lets it name a dictionary, the kinds of
storage and the functions that put tensors together, and gives it stand-ins for these; every other name is refused.
"""

import io
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from genflow.errors import UserError

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the old format
DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    num: int


class _Tensor(NamedTuple):
    """A view of a storage; a storage may be read after the pickle that names it."""

    storage: _Storage
    offset: int
    size: tuple
    stride: tuple


def read_torch_file(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a saved state_dict, by name, in the machine's byte order.

    Raises:
      UserError: no such file, not one of torch.save, damaged, or one that holds more than a dictionary of tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        named, storages = _from_zip(data) if data[:2] == b"PK" else _from_legacy(data)
        return {str(name): _array(tensor, storages) for name, tensor in dict(named).items()}
    except Exception as error:  # a damaged pickle raises almost anything
        what = f"{type(error).__name__}: {error}"[:200]
        raise UserError(
            f"{path} is not a state_dict that torch.save wrote, or holds more than tensors\n{what}"
        ) from error


def _from_zip(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        index = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = index.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("only little-endian files are read")
        unpickler = _Unpickler(io.BytesIO(archive.read(index)))
        named = unpickler.load()
        raw = {s.key: (s, archive.read(f"{folder}data/{s.key}")) for s in unpickler.storages.values()}
    return named, {key: np.frombuffer(found, s.dtype, s.num) for key, (s, found) in raw.items()}


def _from_legacy(data):
    stream = io.BytesIO(data)
    if (_Unpickler(stream).load(), _Unpickler(stream).load()) != (MAGIC, PROTOCOL):
        raise ValueError("it does not begin as such a file does")
    if not _Unpickler(stream).load()["little_endian"]:
        raise ValueError("only little-endian files are read")
    unpickler = _Unpickler(stream)
    named, keys = unpickler.load(), _Unpickler(stream).load()
    storages = {}
    for key in keys:
        storage = unpickler.storages[key]
        (num,) = struct.unpack("<q", stream.read(8))
        if num != storage.num:
            raise ValueError(f"storage {key} has {num} numbers, not {storage.num}")
        storages[key] = np.frombuffer(stream.read(num * storage.dtype.itemsize), storage.dtype, num)
    return named, storages


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream):
        super().__init__(stream)
        self.storages = {}

    def find_class(self, module, name):
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name]).newbyteorder("<")
        allowed = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no dictionary of tensors needs")
        return allowed[module, name]

    def persistent_load(self, identity):
        kind, dtype, key, _, num, *view = identity
        if kind != "storage" or not isinstance(dtype, np.dtype) or any(v is not None for v in view):
            raise pickle.UnpicklingError(f"unknown storage {identity!r}")
        return self.storages.setdefault(str(key), _Storage(str(key), dtype, int(num)))


def _rebuild_tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor, *_):
    return tensor


def _array(tensor, storages):
    """A copy of the view, which must lie within its storage."""
    if not isinstance(tensor, _Tensor):
        raise TypeError(f"a {type(tensor).__name__} where a tensor was expected")
    storage, offset, size, stride = tensor
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"a tensor of size {size} and stride {stride}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.num:
        raise ValueError(f"a tensor of size {size} in a storage of {storage.num} numbers")
    values = storages[storage.key]
    steps = [s * values.itemsize for s in stride]
    view = np.lib.stride_tricks.as_strided(values[offset:], size, steps, writeable=False)
    return np.array(view, values.dtype.newbyteorder("="))
