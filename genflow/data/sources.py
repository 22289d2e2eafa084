"""Finds the data set that a name means."""

import difflib
import os
import re
from pathlib import Path

from genflow.data import arrays, densities, embedded, folder, sound, tabular, target, text, tfds
from genflow.data.catalog import CATALOG
from genflow.data.embedded import Source
from genflow.errors import UserError

EMBEDDED = {"digits": embedded.digits, "patches": embedded.patches}
TEXTS = {"descriptions": text.descriptions}
NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def find(config, seed: int) -> Source:
    """Returns the spec and the parts, as their source divides them, of `data.name`.

    Raises:
      UserError: there is no such data set; the message names the folders that were searched and the remedy.
    """
    name = config.name
    kind, colon, path = name.partition(":")
    prefixed = {
        "synthetic": lambda: embedded.synthetic(name, config.num_examples),
        "target": lambda: target.draws(name, config.num_examples, seed),
        "trajectories": lambda: target.trajectories(name, config.num_examples, seed),
        "array": lambda: arrays.array_file(Path(path).expanduser()),
        "folder": lambda: folder.image_folder(Path(path).expanduser(), bool(config.crop or config.image_size)),
        "sounds": lambda: sound.sound_folder(name, Path(path).expanduser(), config.window, config.validation),
        "text": lambda: text.windows_of(config, text.text_file(Path(path).expanduser())),
    }
    if colon and not (path and kind in prefixed):
        raise UserError(
            f"data.name={name!r}: write array:FILE, folder:DIR, text:FILE, sounds:DIR, target:NAME "
            "or synthetic:HxWxC (or :D)"
        )
    if colon:
        return prefixed[kind]()
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if name in TEXTS:
        return text.windows_of(config, TEXTS[name]())
    if name in densities.DENSITIES:
        return densities.density(name, config.num_examples, seed)
    if name in tabular.TABLES:
        return tabular.table(name, data_dirs(config.data_dir))
    if name in sound.NAMED:
        return sound.NAMED[name](config, data_dirs(config.data_dir))
    return _by_name(config)


def data_dirs(data_dir: str) -> list[Path]:
    """Returns the folders where prepared data sets may be, the first being where new ones go."""
    variables = [os.environ.get(v) for v in ("GENFLOW_DATA", "TFDS_DATA_DIR")]
    chosen = [data_dir] if data_dir else [v for v in variables if v] + ["~/tensorflow_datasets"]
    return [Path(d).expanduser() for d in chosen]


def _by_name(config) -> Source:
    name = config.name
    if not name:
        raise UserError("data.name is empty; name an embedded set such as digits, a TFDS set, array:FILE or folder:DIR")
    if name in CATALOG and CATALOG[name].is_text:
        return text.windows_of(config, _corpus(name, data_dirs(config.data_dir)))
    folders = data_dirs(config.data_dir)
    for root in folders if NAME.fullmatch(name) else ():
        if (path := root / f"{name}.npz").is_file():
            return arrays.prepared_file(name, path)
        if version := tfds.prepared_version(root / name):
            return tfds.prepared_set(name, version)
    raise _missing(name, folders)


def _corpus(name: str, folders: list[Path]) -> text.Corpus:
    for root in folders:
        if (path := root / f"{name}.npz").is_file():
            return text.prepared_text(name, path)
        if version := tfds.prepared_version(root / name):
            return tfds.prepared_text(name, version)
    raise _missing(name, folders)


def _missing(name: str, folders: list[Path]) -> UserError:
    known = [*EMBEDDED, *TEXTS, *sound.NAMED, *densities.DENSITIES, *tabular.TABLES]
    guess = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {guess[0]!r}? Or " if guess else ""
    searched = ", ".join(map(str, folders))
    return UserError(
        f"data.name={name!r} was not found in {searched}; {hint}run "
        f"`python scripts/prepare_data.py {name} --data_dir={folders[0]}`"
    )
