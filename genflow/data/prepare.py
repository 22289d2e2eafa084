"""Turns the original files of a public data set into one NAME.npz of uint8 arrays, which `load` reads."""

import os
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

from genflow.data.catalog import CATALOG
from genflow.data.dataset import Arrays
from genflow.data.download import Resource, ensure, resources
from genflow.data.raw import PARSERS
from genflow.errors import UserError

TFDS_HINT = "; any other TFDS set: pip install 'genflow[tfds-prepare]', then tfds build NAME --file_format=array_record"
DAMAGE = (ValueError, KeyError, EOFError, OSError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


def prepare(name: str, data_dir: Path, raw_dir: Path | None = None, table: list[Resource] | None = None) -> Path:
    """Fetches, verifies and parses a data set, and returns the path of <data_dir>/<name>.npz.

    Args:
      name: a key of CATALOG.
      data_dir: where the result goes.
      raw_dir: where original files are looked for and kept; None: <data_dir>/downloads/<name>.
      table: what the files must be; None: what tensorflow_datasets says.

    Raises:
      UserError: an unknown name, a failed download, a damaged file, no room; one line with the remedy.
    """
    if name not in CATALOG:
        raise UserError(f"no recipe for {name!r}; there are {', '.join(CATALOG)}{TFDS_HINT}")
    path = data_dir / f"{name}.npz"
    if path.exists():
        return path
    raw_dir = raw_dir or data_dir / "downloads" / name
    table = resources(name, CATALOG[name].files) if table is None else table
    files = {r.filename: ensure(r, raw_dir, _remedy(name, r, data_dir, raw_dir)) for r in table}
    try:
        arrays = PARSERS[name](files)
    except DAMAGE as error:
        raise UserError(f"the files of {name} in {raw_dir} could not be parsed ({error})") from error
    _write(path, arrays | {"bins": np.array(CATALOG[name].bins)})
    return path


def listing() -> str:
    """Returns the table of `--list`: name, size of the download, license, homepage."""
    sizes = {name: sum(r.size for r in resources(name, entry.files)) for name, entry in CATALOG.items()}
    rows = [f"{n:16} {sizes[n] / 1e6:8,.0f} MB  {e.license:30} {e.homepage}" for n, e in CATALOG.items()]
    return "\n".join(rows)


def _remedy(name: str, resource: Resource, data_dir: Path, raw_dir: Path) -> str:
    again = f"python scripts/prepare_data.py {name} --data_dir={data_dir} --raw_dir={raw_dir}"
    path = raw_dir / resource.filename
    return f"download it in a browser (see {CATALOG[name].homepage}) to {path}, then run `{again}`"


def _write(path: Path, arrays: Arrays) -> None:
    """Writes an .npz under a temporary name first, so that a file under the final name is whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path} could not be written ({error}); choose another --data_dir") from error
    finally:
        if temporary.exists():
            temporary.unlink()
