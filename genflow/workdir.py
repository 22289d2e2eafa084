"""The run folder: where it is, its `config.json`, what a resumed run may change, and one process at a time.

No JAX here: mistakes in a config or a path are told before the accelerator wakes up.
"""

import contextlib
import datetime
import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from genflow.errors import UserError

Difference = tuple[str, Any, Any]  # path of the field, old value, new value
ABSENT = "(absent)"  # stands in a Difference for a field that one of the two configs does not have
CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
DESCRIPTIVE = ("paper", "expect")  # words about the experiment, no part of what it is


def resolve(
    stem: str, config: ConfigDict, workdir: str | None, root: str | Path = "runs", defaults: Mapping = {}
) -> Path:
    """Returns the absolute run folder, created and writable.

    `workdir` decides where it is given. Otherwise it is root/stem, or the first of root/stem-2, -3, ... that is
    free or holds a run of exactly this config, which then resumes.

    Args:
      defaults: what a stored config of an earlier revision has where it lacks a field.

    Raises:
      UserError: the folder cannot be created or written.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:64]
    with _told(f"cannot write in the run folder {workdir or Path(root) / stem}", "choose another with --workdir=DIR"):
        path = Path(workdir).expanduser() if workdir else _first_free(Path(root).expanduser(), stem, config, defaults)
        path = path.resolve()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path


@contextlib.contextmanager
def discarded_on_error(workdir: Path) -> Iterator[None]:
    """Removes a run folder again when what is inside the with-block fails before anything was written there."""
    try:
        yield
    except BaseException:
        if _is_free(workdir):
            shutil.rmtree(workdir)
            if workdir.parent.name == "runs" and not any(workdir.parent.iterdir()):
                workdir.parent.rmdir()
        raise


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes workdir/config.json, completely or not at all.

    Raises:
      UserError: a value is not finite or has no exact form in JSON; the message names the field.
    """
    text = json.dumps(_encode(config, "config"), indent=2, allow_nan=False) + "\n"
    write_text(workdir / CONFIG_FILE, text)


def read_config(workdir: Path) -> ConfigDict:
    """Reads workdir/config.json into a locked ConfigDict; tuples come back as tuples."""
    path = workdir / CONFIG_FILE
    with _told(f"cannot read {path}", "it is written by --mode=train; name a run folder with --workdir=DIR"):
        stored = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
        if not isinstance(stored, dict):
            raise ValueError("not a JSON object")
    return ConfigDict(_decode(stored)).lock()


def filled(config: ConfigDict, defaults: Mapping) -> tuple[ConfigDict, list[str]]:
    """The config with the fields of `defaults` that it lacks, locked, and the paths of these fields."""
    copy = ConfigDict(config.copy_and_resolve_references())
    with copy.unlocked():
        added = list(_fill(copy, defaults))
    return copy.lock(), added


def _fill(section, defaults, prefix="") -> Iterator[str]:
    for key, value in defaults.items():
        if key not in section:
            section[key] = value
            yield f"{prefix}{key}"
        elif isinstance(value, ConfigDict) and isinstance(section[key], ConfigDict):
            yield from _fill(section[key], value, f"{prefix}{key}.")


def write_text(path: Path, text: str) -> None:
    """Replaces the file with `text` in one step: a reader or a kill sees the old file or the new one."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def config_hash(config: ConfigDict) -> str:
    """Returns 12 hexadecimal digits that name the config; equal exactly where `diff` is empty."""
    _encode(config, "config")  # refuses what has no exact form
    return hashlib.sha256(_canonical(dict(_fields(config))).encode()).hexdigest()[:12]


def diff(old: ConfigDict, new: ConfigDict) -> list[Difference]:
    """Lists the fields that differ, sorted by path; words about the experiment do not count."""
    before, after = dict(_fields(old)), dict(_fields(new))
    pairs = ((path, before.get(path, ABSENT), after.get(path, ABSENT)) for path in sorted(before | after))
    return [d for d in pairs if d[0] not in before or d[0] not in after or _canonical(d[1]) != _canonical(d[2])]


def describe(differences: Sequence[Difference], most: int = 10) -> list[str]:
    """One line for each difference, such as 'config.model.width: 32 -> 64'."""
    return shorten([f"config.{path}: {old!r} -> {new!r}" for path, old, new in differences], most)


def shorten(lines: list[str], most: int) -> list[str]:
    """The first `most` lines, and how many more there are."""
    return lines[:most] + [f"and {len(lines) - most} more"] * (len(lines) > most)


def check_resume(stored: ConfigDict, new: ConfigDict, resumable: Sequence[str]) -> list[Difference]:
    """Prints what a resumed run changes and returns it.

    Raises:
      UserError: a field (or section) outside `resumable` differs: it would change the model or the data.
    """
    differences = diff(stored, new)
    refused = [d for d in differences if not any(f"{d[0]}.".startswith(f"{r}.") for r in resumable)]
    if refused:
        raise UserError(
            "this run folder holds a run of another config: "
            + ", ".join(describe(refused, most=4))
            + "\nchoose another folder with --workdir=DIR, or set these fields back"
        )
    for line in describe(differences):
        print(f"resuming with {line}", flush=True)
    return differences


@contextlib.contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Holds workdir/.lock; the kernel frees it when the process ends, however it ends.

    Raises:
      UserError: another process has it; the message says which.
    """
    with open(workdir / LOCK_FILE, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{workdir} is in use by {file.read().strip() or 'another process'}\n"
                "wait until it ends, stop it, or choose another folder with --workdir=DIR"
            ) from None
        file.truncate(0)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        print(f"process {os.getpid()} on {socket.gethostname()}, started {started}", file=file, flush=True)
        os.fsync(file.fileno())  # of a file that stays open, a network file system may show nothing before
        yield


def _first_free(root: Path, stem: str, config: ConfigDict, defaults: Mapping) -> Path:
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(path for path in (root / name for name in names) if _is_free(path) or _holds(path, config, defaults))


def _is_free(path: Path) -> bool:
    # A run that was killed before it wrote its config leaves only the lock file.
    return not path.exists() or (path.is_dir() and {p.name for p in path.iterdir()} <= {LOCK_FILE})


def _holds(path: Path, config: ConfigDict, defaults: Mapping) -> bool:
    return (path / CONFIG_FILE).exists() and not diff(filled(read_config(path), defaults)[0], config)


@contextlib.contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of symbolic links, an unknown ~user
        raise UserError(f"{what}: {error}\n{remedy}") from error


def _encode(value: Any, path: str) -> Any:
    """Turns a config into what JSON holds; a JSON list is a tuple, so a Python list has no form and is refused."""
    if isinstance(value, ConfigDict):
        value = {key: value[key] for key in value}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _encode(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, tuple):
        return [_encode(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{path} = {value} is not a finite number")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise UserError(
        f"{path} = {value!r}: use a number, string, bool, None, tuple or section, not {type(value).__name__}"
    )


def _decode(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _decode(item) for key, item in value.items()}
    return tuple(map(_decode, value)) if isinstance(value, list) else value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _fields(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key in sorted(set(config) - set(DESCRIPTIVE)):
        value = config[key]
        if isinstance(value, ConfigDict) and len(value):
            yield from _fields(value, f"{prefix}{key}.")
        else:  # an empty section is a field too: it may have been filled
            yield f"{prefix}{key}", value.to_dict() if isinstance(value, ConfigDict) else value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
