"""Checkpoints that outlive kills, full disks and flipped bits.

The protocol, for each of two series, `latest` (the last few steps) and `best` (one step):

* save: a record (the kind and sha256 of every leaf, and the caller's metadata) goes to orbax together with the arrays.
  Orbax copies the arrays, writes in the background to `<step>.orbax-checkpoint-tmp` and renames that to `<step>`: a
  step is there completely or not at all.
* wait (in the next save and on close): steps that are not kept are renamed into `trash/` and deleted there, so
  that a kill leaves no half-deleted step under a valid name.
* restore: from the newest step to the oldest, the first whose leaves all have their digests. A damaged one is moved
  to `quarantine/` with a warning. One that is intact and does not fit the model is an error, not damage.

The digests guard against accidents, not against an attacker.
"""

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from genflow import hosts
from genflow.errors import UserError
from genflow.failpoints import failpoint
from genflow.leaves import check_fit, digests, named_leaves, sha256_json
from genflow.workdir import Difference, write_text

STEP = re.compile("0|[1-9][0-9]*")
ROLLBACKS = "rollbacks.json"
UNFINISHED = "*.orbax-checkpoint-tmp*"


class Checkpoints:
    """The two series of one run, open for writing: only by the process that holds the run's lock."""

    def __init__(self, directory: str | Path, keep: int):
        self.directory = Path(directory).absolute()
        self._keep = {"latest": keep, "best": 1}
        self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
        self._pending: tuple[Path, int] | None = None  # what is being written, and its bytes
        for which in self._keep:
            (self.directory / which).mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            self._tidy()

    def save(self, step: int, state: PyTree, metadata: Mapping[str, Any], which: str = "latest") -> None:
        """Starts to write; `state` may be donated once this returns. A step that is there already is left as it is.

        Raises:
          UserError: the disk is full, now or since the save before; what was committed stays.
        """
        self.wait()
        if step in self.steps(which):
            return
        path, leaves = self.directory / which / str(step), named_leaves(state)
        needed = sum(leaf.nbytes for leaf in leaves.values())
        with self._disk_errors(needed):
            failpoint("checkpoint/begin", step)
            _check_space(self.directory, needed)
            self._writer.save(path, args=_save_args(leaves, metadata))
        self._pending = path, needed
        failpoint("checkpoint/writing", step)

    def restore(
        self, target: PyTree, which: str = "latest", strict: bool = False, hint: Sequence[Difference] = ()
    ) -> tuple[PyTree, dict[str, Any]] | None:
        """As the function `restore`; damaged steps are moved to `quarantine/`."""
        self.wait()
        return restore(self.directory, target, which, strict, hint, self._quarantine)

    def steps(self, which: str = "latest") -> list[int]:
        """The committed steps, oldest first, as the first process sees them: on a network file system others lag."""
        return hosts.every(steps(self.directory, which))[0]

    def go_back(self, rollbacks: int, step: int) -> None:
        """Notes how often the run has gone back, and drops what was committed after the step."""
        self.wait()
        if jax.process_index() == 0:
            write_text(self.directory / ROLLBACKS, json.dumps({"rollbacks": rollbacks, "step": step}))
        self.drop_after(step)

    def drop_after(self, step: int) -> None:
        """Deletes what was committed after a step, of both series: the run goes on from there another way."""
        self.wait()
        multihost_utils.sync_global_devices("checkpoint/drop_after")
        if jax.process_index() == 0:
            for which in self._keep:
                for later in (s for s in steps(self.directory, which) if s > step):
                    _move(self.directory / which / str(later), self.directory / "trash")
            self._clean()
        multihost_utils.sync_global_devices("checkpoint/dropped")

    def rollbacks(self) -> tuple[int, int]:
        """(How often the run has gone back, to which step the last time), as the first process sees it; or (0, -1)."""
        path = self.directory / ROLLBACKS
        noted = json.loads(path.read_text("utf-8")) if path.exists() else {"rollbacks": 0, "step": -1}
        first = hosts.every(noted)[0]
        return first["rollbacks"], first["step"]

    def wait(self) -> None:
        """Waits until the last save is committed, then drops the steps that are not kept."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        path, needed = pending
        with self._disk_errors(needed):
            self._writer.wait_until_finished()
        failpoint("checkpoint/committed", int(path.name))
        if jax.process_index() == 0:
            self._prune(path.parent.name, int(path.name))
        multihost_utils.sync_global_devices("checkpoint/prune")

    def close(self) -> None:
        """Commits the last save. Without this it would be lost, and the process might hang at its exit."""
        try:
            self.wait()
        finally:
            self._writer.close()

    def _tidy(self) -> None:
        """Moves away what has the name of a step and is none: it would be in the way of that step."""
        for which in self._keep:
            for path in (self.directory / which).iterdir():
                if STEP.fullmatch(path.name) and int(path.name) not in steps(self.directory, which):
                    self._quarantine(path, "nothing in it")
        self._clean()

    def _prune(self, which: str, saved: int) -> None:
        # Steps beyond the one just saved belong to a continuation that was given up.
        found = steps(self.directory, which)
        past = [step for step in found if step <= saved]
        for step in set(found) - set(past[-self._keep[which] :]):
            _move(self.directory / which / str(step), self.directory / "trash")
            failpoint("checkpoint/delete", step)
        self._clean()

    def _clean(self) -> None:
        """Deletes what nobody will read. What a network file system still holds on to goes at the next call."""
        for path in (self.directory / "trash", *self.directory.glob(f"*/{UNFINISHED}")):
            shutil.rmtree(path, ignore_errors=True)

    def _quarantine(self, path: Path, problem: str) -> None:
        if jax.process_index() == 0:
            _warn(path, f"{problem}; moved to {_move(path, self.directory / 'quarantine')}")

    @contextlib.contextmanager
    def _disk_errors(self, needed: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and tensorstore wrap the system's error in types of their own
            if not re.search("no space left|quota exceeded", str(error), re.IGNORECASE):
                raise
            free = shutil.disk_usage(self.directory).free
            self._clean()
            raise UserError(
                f"no space left in {self.directory}: a checkpoint takes {needed:,} bytes, {free:,} were free\n"
                "earlier checkpoints are intact; make space and run the same command to resume"
            ) from error


@contextlib.contextmanager
def open_checkpoints(directory: str | Path, keep: int) -> Iterator[Checkpoints]:
    """Opens the checkpoints of a run for writing; the last save is committed on the way out, after an exception too.

    Not so where one of several processes fails: to commit it would have to wait for the others, who do not fail.
    """
    checkpoints = Checkpoints(directory, keep)
    try:
        yield checkpoints
    except BaseException:
        if jax.process_count() == 1:
            checkpoints.close()
        raise
    checkpoints.close()


def digest(tree: PyTree) -> str:
    """Returns the sha256 of all leaves with their names: 64 hexadecimal digits, the same however dicts were filled."""
    return sha256_json(digests(named_leaves(tree)))


def steps(directory: str | Path, which: str = "latest") -> list[int]:
    """The committed steps in directory/which, oldest first; an empty directory is none."""
    names = {path.parent.name for path in (Path(directory) / which).glob("*/*")}
    return sorted(int(name) for name in names if STEP.fullmatch(name))


def restore(
    directory: str | Path,
    target: PyTree,
    which: str = "latest",
    strict: bool = False,
    hint: Sequence[Difference] = (),
    set_aside: Callable[[Path, str], None] | None = None,
) -> tuple[PyTree, dict[str, Any]] | None:
    """Reads the newest intact step and changes nothing on disk; None where there is no step.

    Args:
      directory: what `open_checkpoints` was given.
      target: arrays or `jax.ShapeDtypeStruct`, with the shardings to place the leaves by; any number of devices.
      which: 'latest' or 'best'.
      strict: a damaged step is an error, even where an older one is intact.
      hint: how this config differs from the stored one, to show where the leaves do not fit.
      set_aside: takes the path of a damaged step and what is wrong with it; by default a warning.

    Returns:
      The state and the metadata that was saved with it.

    Raises:
      UserError: the leaves do not fit `target`, or no step is intact.
    """
    found_steps = hosts.every(steps(directory, which))[0]
    for step in reversed(found_steps):
        path = Path(directory).absolute() / which / str(step)
        hosts.seen(path.exists)
        values, metadata, problem = _read(path, target, hint)
        views = hosts.every([problem, path.exists()])  # all of them decide by the same, before one moves anything
        problem = next((told for told, _ in views if told), "")
        if not problem:
            return _place(values, target), metadata
        if not views[0][1]:  # the run that writes here has just dropped it
            return restore(directory, target, which, strict, hint, set_aside)
        if blind := [i for i, (_, there) in enumerate(views) if not there]:
            raise UserError(f"process {blind[0]} does not see {path}, which process 0 sees: all hosts must share it")
        if strict:
            raise UserError(f"checkpoint {path} is damaged: {problem}")
        (set_aside or _warn)(path, problem)
    if found_steps:
        folder = Path(directory) / which
        remedy = "run again" if set_aside else f"move {folder} away"
        raise UserError(f"no checkpoint in {folder} is intact (see the warnings)\n{remedy} to go on without")
    return None


def _read(path: Path, target: PyTree, hint: Sequence[Difference]) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Returns (arrays by name, metadata, what is wrong with the step or '')."""
    try:
        record = _read_record(path)
        stored = {name: text.split(" ")[0] for name, text in record["leaves"].items()}
        check_fit(f"checkpoint {path}", stored, target, hint)
        values = _read_arrays(path, target)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged bytes surface as any exception that a parser can raise
        return {}, {}, f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
    found = digests(values)
    wrong = [name for name in found if found[name] != record["leaves"][name]]
    problem = f"the bytes of {wrong[0]} have changed ({len(wrong)} of {len(found)} leaves)" if wrong else ""
    return values, record["metadata"], problem


def _save_args(leaves: Mapping[str, Any], metadata: Mapping[str, Any]) -> ocp.args.Composite:
    record = {"leaves": digests(leaves), "metadata": json.loads(json.dumps(metadata))}
    # of a replicated array orbax would cut and write a slice for each device, which takes longer than the whole
    leaves = {name: np.array(leaf) if leaf.is_fully_replicated else leaf for name, leaf in leaves.items()}
    return ocp.args.Composite(
        state=ocp.args.StandardSave(_nonempty(leaves)),
        record=ocp.args.JsonSave({"record": record, "sha256": sha256_json(record)}),
    )


def _check_space(directory: Path, needed: int) -> None:
    """A full disk is told now: orbax would tell it at the next save."""
    if shutil.disk_usage(directory).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _read_record(path: Path) -> dict[str, Any]:
    with contextlib.closing(ocp.JsonCheckpointHandler()) as handler:
        stored = handler.restore(epath.Path(path / "record"))
    if sha256_json(stored["record"]) != stored["sha256"]:
        raise ValueError("the record has changed")
    return stored["record"]


def _read_arrays(path: Path, target: PyTree) -> dict[str, np.ndarray]:
    empty = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in named_leaves(target).items()}
    with contextlib.closing(ocp.StandardCheckpointHandler()) as handler:
        return empty | handler.restore(epath.Path(path / "state"), args=ocp.args.StandardRestore(_nonempty(empty)))


def _nonempty(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Orbax refuses arrays without elements; the record is enough to make them again."""
    return {name: leaf for name, leaf in leaves.items() if leaf.size}


def _place(values: Mapping[str, np.ndarray], target: PyTree) -> PyTree:
    placed = [_place_leaf(values[name], like) for name, like in named_leaves(target).items()]
    return jax.tree.unflatten(jax.tree.structure(target), placed)


def _place_leaf(value: np.ndarray, like: Any) -> jax.Array:
    sharding = getattr(like, "sharding", None)
    if sharding is None:
        return jax.device_put(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _move(path: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    name = f"{path.parent.name}-{path.name}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return path.rename(next(folder / name for name in names if not (folder / name).exists()))


def _warn(path: Path, problem: str) -> None:
    print(f"WARNING: checkpoint {path} is damaged: {problem}", file=sys.stderr, flush=True)
