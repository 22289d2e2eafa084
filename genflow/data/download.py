"""Fetches original files; nothing is under its final name that has not the size and sha256 of the pinned table."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from genflow.errors import UserError

CHUNK = 1 << 20  # bytes
TIMEOUT = 30  # seconds without a byte
MAGIC = {".gz": (b"\x1f\x8b",), ".zip": (b"PK\x03\x04",), ".mat": (b"MATLAB",), ".amat": (b"0 ", b"1 ")}


class Resource(NamedTuple):
    """One file of the checksum tables."""

    url: str
    size: int  # bytes
    sha256: str
    filename: str


# What no table of tensorflow_datasets has; the digests are those that several public projects pin alike.
PINNED = {
    name: [Resource(f"http://mattmahoney.net/dc/{name}.zip", size, digest, f"{name}.zip")]
    for name, size, digest in (
        ("text8", 31_344_016, "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232"),
        ("enwik8", 36_445_475, "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc"),
    )
}


def resources(name: str, filenames: tuple[str, ...]) -> list[Resource]:
    """Looks the files of a data set up: pinned here, or in the tables that tensorflow_datasets ships (not imported)."""
    if name in PINNED:
        return PINNED[name]
    package = find_spec("tensorflow_datasets")
    if package is None:
        raise UserError("checksums of public data sets come with tensorflow_datasets: pip install tensorflow-datasets")
    root = Path(package.submodule_search_locations[0])
    candidates = [root / "url_checksums" / f"{name}.txt", root / "datasets" / name / "checksums.tsv"]
    tables = [path for path in candidates if path.is_file()]
    if not tables:
        raise UserError(f"no checksums of {name} in {root}; pip install 'tensorflow-datasets>=4.9.10'")
    rows = [line.split("\t") for path in tables for line in path.read_text().splitlines()]
    found = {row[3]: Resource(row[0], int(row[1]), row[2], row[3]) for row in rows if len(row) == 4}
    if missing := [f for f in filenames if f not in found]:
        raise UserError(f"{tables[0]} has no line for {', '.join(missing)}")
    return [found[filename] for filename in filenames]


def ensure(resource: Resource, folder: Path, remedy: str) -> Path:
    """Returns the verified file in `folder`, downloading it if it is not there.

    Raises:
      UserError: no connection, or a file of another content; one line that ends with `remedy`.
    """
    path = folder / resource.filename
    if not path.exists():
        _download(resource, path, remedy)
    elif fault := verify(path, resource):
        raise UserError(f"{path} {fault}; delete it and {remedy}")
    return path


def verify(path: Path, resource: Resource) -> str:
    """Returns what is wrong with a file: its first bytes, its size or its sha256; '' if it is the pinned one."""
    with path.open("rb") as file:
        head = file.read(8)
        expected = MAGIC.get(Path(resource.filename).suffix)
        if head.lstrip()[:1] == b"<":
            return f"is a web page (it starts with {head!r})"
        if expected and not head.startswith(expected):
            return f"starts with {head!r}, wanted {expected[0]!r}"
        if path.stat().st_size != resource.size:
            return f"has {path.stat().st_size:,} bytes, wanted {resource.size:,}"
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == resource.sha256 else f"has sha256 {digest[:16]}..., wanted {resource.sha256[:16]}..."


def _download(resource: Resource, path: Path, remedy: str) -> None:
    if not resource.url.startswith(("https://", "http://")):
        raise UserError(f"{resource.url} is not a web address")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _stream(resource, temporary)
        if fault := verify(temporary, resource):
            raise UserError(f"{resource.url} {fault}; {remedy}")
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer too, and holds the connection
        raise UserError(f"{resource.url} was not downloaded ({error}); {remedy}") from error
    finally:
        if temporary.exists():
            temporary.unlink()


def _stream(resource: Resource, temporary: Path) -> None:
    """Copies the answer to a file, at most one chunk more than the pinned size."""
    request = urllib.request.Request(resource.url, headers={"User-Agent": "genflow"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, temporary.open("wb") as file:
        print(f"downloading {resource.url} ({resource.size / 1e6:.1f} MB)", file=sys.stderr)
        received = 0
        while received <= resource.size and (piece := answer.read(CHUNK)):
            file.write(piece)
            received += len(piece)
