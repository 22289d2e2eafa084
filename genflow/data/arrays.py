"""Arrays from .npz and .npy files, read without pickle and without trusting what they declare."""

import math
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

from genflow.core import Spec
from genflow.data.catalog import CATALOG
from genflow.data.dataset import Arrays, in_memory
from genflow.data.embedded import Source
from genflow.data.memory import physical_memory
from genflow.errors import UserError

FIELDS = ("x", "y", "cond")
PARTS = {
    part: tuple(f"{field}_{suffix}" for field in FIELDS)
    for part, suffix in {"train": "train", "validation": "valid", "test": "test"}.items()
}
KNOWN = {key for keys in PARTS.values() for key in keys} | {"bins"}
CHUNK = 1 << 24  # bytes
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError)


def array_file(path: Path) -> Source:
    """Reads `array:FILE`: an .npz with x_train, x_test, optionally x_valid, y_*, cond_* and bins, or one .npy array."""
    return _source(f"array:{path}", read(path, "write it again with numpy.savez or numpy.save"))


def prepared_file(name: str, path: Path) -> Source:
    """Reads what scripts/prepare_data.py wrote."""
    spec, parts = _source(name, read(path, f"delete it and run `python scripts/prepare_data.py {name}`"))
    entry = CATALOG.get(name)
    return (spec._replace(source=entry.homepage, license=entry.license) if entry else spec), parts


def _source(name: str, arrays: Arrays) -> Source:
    if "x_train" not in arrays:
        raise UserError(f"data.name={name!r} holds {', '.join(sorted(arrays))[:200]}; wanted at least x_train")
    x = {part: _values(name, keys[0], arrays) for part, keys in PARTS.items() if keys[0] in arrays}
    label = {part: _labels(name, keys[1], arrays, len(x[part])) for part, keys in PARTS.items() if part in x}
    present = [y for y in label.values() if y is not None]
    if present and len(present) < len(x):
        raise UserError(f"data.name={name!r}: some parts have labels (y_train, ...) and some have none")
    num_classes = max((int(y.max(initial=0)) + 1 for y in present), default=0)
    cond, cond_dims = _conditions(name, arrays, x)
    spec = Spec(name, x["train"].shape[1:], _bins(name, arrays, x["train"]), num_classes, cond_dims)
    return spec, {part: in_memory(x[part], label[part], cond.get(part)) for part in x}


def _conditions(name: str, arrays: Arrays, x: Arrays) -> tuple[Arrays, int]:
    """Returns the condition vectors of each part, none or all of them, and their size."""
    cond = {part: arrays[PARTS[part][2]] for part in x if PARTS[part][2] in arrays}
    if cond and len(cond) < len(x):
        raise UserError(f"data.name={name!r}: some parts have conditions (cond_train, ...) and some have none")
    size = cond["train"].shape[1] if cond and cond["train"].ndim == 2 else 0
    for part, c in cond.items():
        if c.shape != (len(x[part]), size) or c.dtype.kind not in "buif" or size == 0:
            raise UserError(
                f"data.name={name!r}: {PARTS[part][2]} is {c.dtype} {c.shape}, wanted numbers "
                f"({len(x[part])}, {size or 'one or more'})"
            )
    with np.errstate(over="ignore"):  # as for x
        return {part: c.astype(np.float32) for part, c in cond.items()}, size


def _values(name: str, field: str, arrays: Arrays) -> np.ndarray:
    """Returns images with a channel axis and floats as float32; integers are cast after `check` has seen them."""
    x = arrays[field]
    if x.ndim < 2 or x.dtype.kind not in "buif":
        raise UserError(f"data.name={name!r}: {field} is {x.dtype} {x.shape}, wanted numbers [examples, ...]")
    if x.dtype.kind != "f":
        return x[..., None] if x.ndim == 3 else x
    head = x[:64].astype(np.float64)
    if x.ndim >= 3 and any((np.abs(v - np.rint(v)) < 1e-3).all() for v in (head, head * 255)):
        raise UserError(
            f"data.name={name!r}: {field} is {x.dtype} but holds 8-bit images ({head.min():g} .. {head.max():g}); "
            "save them as uint8 0 .. 255, or the likelihood is that of a density on points"
        )
    with np.errstate(over="ignore"):  # an overflow is reported as inf, with its index
        return x.astype(np.float32)


def _labels(name: str, field: str, arrays: Arrays, num: int) -> np.ndarray | None:
    y = arrays.get(field)
    if y is not None and (y.shape != (num,) or y.dtype.kind not in "ui"):
        raise UserError(f"data.name={name!r}: {field} is {y.dtype} {y.shape}, wanted integers ({num},)")
    return y


def _bins(name: str, arrays: Arrays, x: np.ndarray) -> int | None:
    """Returns the declared number of values, else 2 for data that never exceed 1, else 256; None for floats."""
    if x.dtype.kind == "f":
        return None
    declared = arrays.get("bins")
    if declared is None:
        return 2 if x.max(initial=0) <= 1 else 256
    if declared.shape or declared.dtype.kind not in "ui" or not 2 <= declared <= 256:
        raise UserError(f"data.name={name!r}: bins is {declared}, wanted one integer 2 .. 256")
    return int(declared)


def read(path: Path, remedy: str, fields: Collection[str] = KNOWN) -> Arrays:
    """Returns the arrays of an .npz that have a meaning here, or an .npy as 'x_train'.

    Args:
      fields: those of an .npz; where it has none of them, all that it has.

    Raises:
      UserError: no such file, another kind of file, or a damaged one; ends with the remedy.
    """
    if not path.is_file():
        raise UserError(f"no data file {path}")
    with path.open("rb") as file:
        magic = file.read(6)
        file.seek(0)
        if magic != b"\x93NUMPY" and magic[:4] != b"PK\x03\x04":
            raise UserError(f"{path} starts with {magic!r}: neither .npz nor .npy; {remedy}")
        try:
            if magic[:1] == b"P":
                return _read_npz(file, fields)
            return {"x_train": _read_npy(file, path.stat().st_size)}
        except DAMAGE as error:
            raise UserError(f"{path} is damaged ({error}); {remedy}") from error


def _read_npz(file: BinaryIO, wanted: Collection[str]) -> Arrays:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        found = {name: info for name, info in members.items() if name in wanted} or members
        _check_memory(sum(info.file_size for info in found.values()))
        arrays = {}
        for name, info in found.items():
            with archive.open(info) as member:
                arrays[name] = _read_npy(member, info.file_size)
        return arrays


def _read_npy(stream: BinaryIO, size: int) -> np.ndarray:
    """Reads an array of `size` bytes with its header, all of them, so that zipfile verifies the checksum."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise ValueError(f"format version {version}")
    shape, fortran, dtype = HEADERS[version](stream)
    declared = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or dtype.names:
        raise ValueError(f"an array of {dtype}, wanted numbers")
    if stream.tell() + declared != size:
        raise ValueError(f"the header declares {declared} bytes, there are {size - stream.tell()}")
    _check_memory(declared)
    flat = np.empty(math.prod(shape), dtype)
    view = memoryview(flat.view(np.uint8))
    for start in range(0, declared, CHUNK):
        stop = min(start + CHUNK, declared)
        piece = stream.read(stop - start)
        if len(piece) < stop - start:
            raise ValueError(f"it ends after {start + len(piece)} of {declared} bytes")
        view[start:stop] = piece
    return flat.reshape(shape, order="F" if fortran else "C")


def _check_memory(num_bytes: int) -> None:
    if num_bytes > physical_memory():
        raise ValueError(f"it declares {num_bytes:,} bytes, the machine has {physical_memory():,}")
