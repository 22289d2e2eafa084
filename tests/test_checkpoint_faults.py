"""Checkpoints: whatever happens to the disk or the process, a restore is exact or says why not."""

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import abstract, files, fill, restored_step, state_at

from genflow import checkpoint, failpoints
from genflow.checkpoint import open_checkpoints
from genflow.errors import UserError

# Orbax leaves reads under way where one of them fails; Python complains of them when it closes their event loop.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("pristine") / "checkpoints")


@pytest.fixture
def filled(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "checkpoints"))


def mutations(path: Path) -> dict[str, bytes | None]:
    data = path.read_bytes()
    flips = {}
    for place in {len(data) // 5, len(data) // 2, len(data) - 1} if data else ():
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 7)
        flips[f"flip {place}"] = bytes(flipped)
    return {"delete": None, "empty": b"", "half": data[: len(data) // 2], **flips}


def test_no_mutation_of_any_file_restores_wrong_values(filled, capsys):
    """Each file of the newest step deleted, cut and flipped: the restore is exact, here or one step earlier."""
    newest, untouched, outcomes, digests_told = filled / "latest" / "3", filled / "untouched", [], 0
    shutil.copytree(newest, untouched)
    for path in files(untouched):
        for name, data in mutations(path).items():
            target = newest / path.relative_to(untouched)
            target.unlink() if data is None else target.write_bytes(data)
            step = restored_step(filled)
            error = capsys.readouterr().err
            assert (step, error.count("WARNING")) in ((3, 0), (2, 1)), (path, name)
            assert step == 3 or str(newest) in error
            digests_told += "have changed" in error
            outcomes.append(step)
            shutil.rmtree(newest, ignore_errors=True)
            shutil.rmtree(filled / "quarantine", ignore_errors=True)
            shutil.copytree(untouched, newest)
    assert outcomes.count(2) > 20
    assert digests_told > 0


def flip_array_byte(step: Path) -> None:
    """Flips one bit of the array `chains/0`, whose random bytes stand in the files as they are.

    How orbax spreads the arrays over files changes with the disk's speed, and some bytes of them are never read.
    """
    values = np.asarray(state_at(int(step.name)).chains[0]).tobytes()
    mark, flipped = values[1000:1064], 0
    for path in files(step / "state"):
        data = bytearray(path.read_bytes())
        if (place := data.find(mark)) >= 0:
            data[place + 32] ^= 1
            path.write_bytes(data)
            flipped += 1
    assert flipped, f"no file under {step} holds the bytes of chains/0"


def test_a_flipped_bit_is_told_with_step_and_leaf_and_the_step_is_set_aside(filled, capsys):
    flip_array_byte(filled / "latest" / "3")
    assert restored_step(filled) == 2
    warning = capsys.readouterr().err
    assert re.search(r"WARNING: .*latest/3 is damaged: the bytes of \S+ have changed .*quarantine/latest-3", warning)
    assert len(warning.splitlines()) == 1
    assert checkpoint.steps(filled) == [1, 2]
    assert files(filled / "quarantine" / "latest-3")
    fill(filled, steps=(3,))
    flip_array_byte(filled / "latest" / "3")
    assert restored_step(filled) == 2
    assert (filled / "quarantine" / "latest-3-2").is_dir()


def test_changed_metadata_are_damage(filled):
    path = filled / "latest" / "3" / "record" / "metadata"
    text = path.read_text()
    assert text.count('"step": 3') == 1
    path.write_text(text.replace('"step": 3', '"step": 7'))
    assert restored_step(filled) == 2


def test_falls_back_as_far_as_it_must_and_never_starts_over_in_silence(filled):
    for step in (2, 3):
        flip_array_byte(filled / "latest" / str(step))
    assert restored_step(filled) == 1
    flip_array_byte(filled / "latest" / "1")
    with pytest.raises(UserError, match="no checkpoint .* is intact(.|\n)*run again"):
        restored_step(filled)
    assert restored_step(filled) is None  # what "run again" of the message does


def test_a_reader_says_what_to_move_away(filled):
    for step in (1, 2, 3):
        flip_array_byte(filled / "latest" / str(step))
    with pytest.raises(UserError, match="move .*latest away"):
        checkpoint.restore(filled, abstract(state_at(0)))
    assert checkpoint.steps(filled) == [1, 2, 3]


def test_strict_refuses_to_fall_back(filled):
    flip_array_byte(filled / "latest" / "3")
    with pytest.raises(UserError, match="latest/3 is damaged"):
        restored_step(filled, strict=True)
    assert checkpoint.steps(filled) == [1, 2, 3]


def test_reading_changes_nothing(filled, capsys):
    flip_array_byte(filled / "latest" / "3")
    (filled / "latest" / "99").mkdir()
    before = sorted(filled.rglob("*"))
    state, _ = checkpoint.restore(filled, abstract(state_at(0)))
    assert int(state.step) == 2
    assert "latest/3 is damaged" in capsys.readouterr().err
    assert sorted(filled.rglob("*")) == before
    assert checkpoint.restore(filled / "nowhere", abstract(state_at(0))) is None
    assert not (filled / "nowhere").exists()


def test_a_step_dropped_while_it_is_read_is_no_damage(filled, monkeypatch, capsys):
    read = checkpoint._read

    def read_late(path, *args):
        if path.name == "3":
            shutil.rmtree(path)
        return read(path, *args)

    monkeypatch.setattr(checkpoint, "_read", read_late)
    state, _ = checkpoint.restore(filled, abstract(state_at(0)))
    assert int(state.step) == 2
    assert capsys.readouterr().err == ""


def test_junk_is_no_checkpoint(filled, capsys):
    latest = filled / "latest"
    (latest / "99").mkdir()
    (latest / "4").touch()
    for name in ("notes", "-1", "07", "٣", "1e3", "5.orbax-checkpoint-tmp-1", "6.orbax-checkpoint-tmp"):
        (latest / name).mkdir()
        (latest / name / "file").touch()
    (latest / "notes.txt").touch()
    assert checkpoint.steps(filled) == [1, 2, 3]
    assert restored_step(filled) == 3
    warnings = capsys.readouterr().err.splitlines()
    assert sorted(re.findall(r"latest/(\d+) is damaged", "\n".join(warnings))) == ["4", "99"]
    assert len(warnings) == 2
    assert not list(latest.glob("*tmp*"))
    assert (latest / "notes" / "file").exists()
    fill(filled, steps=(4, 99))
    assert restored_step(filled) == 99


def test_a_torn_best_leaves_the_latest_alone(filled, capsys):
    torn = filled / "best" / "3"
    shutil.copytree(filled / "latest" / "3", torn)
    shutil.rmtree(torn / "record")
    (torn / "commit_success.txt").unlink()
    with pytest.raises(UserError, match="no checkpoint in .*best is intact"):
        restored_step(filled, which="best")
    assert "best/3 is damaged" in capsys.readouterr().err
    assert restored_step(filled, which="best") is None
    assert restored_step(filled) == 3


# A full disk.


def save_to_a_full_disk(directory: Path, spoil=lambda checkpoints: None) -> None:
    with open_checkpoints(directory, 3) as checkpoints:
        (directory / "latest" / "4.orbax-checkpoint-tmp").mkdir()
        spoil(checkpoints)
        checkpoints.save(4, state_at(4), {"step": 4})


def assert_told(caught, directory: Path) -> None:
    message = str(caught.value)
    assert re.search(rf"no space left in {directory}: a checkpoint takes [\d,]{{5,}} bytes, [\d,]+ were free", message)
    assert len(message.splitlines()) <= 3
    assert not list(directory.rglob("*tmp*"))


def test_disk_full_at_the_start(filled, monkeypatch):
    monkeypatch.setenv(failpoints.VARIABLE, "checkpoint/begin@4:enospc")
    with pytest.raises(UserError) as caught:
        save_to_a_full_disk(filled)
    assert_told(caught, filled)
    assert restored_step(filled) == 3


def test_disk_too_small_for_this_save(filled, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(UserError) as caught:
        save_to_a_full_disk(filled)
    assert_told(caught, filled)
    assert restored_step(filled) == 3


def test_disk_full_in_the_background_is_told_at_the_next_save(filled):
    def spoil(checkpoints):
        def fail():
            del checkpoints._writer.wait_until_finished  # orbax tells each error once
            raise ValueError("RESOURCE_EXHAUSTED: Error writing local file: [OS error 28: No space left on device]")

        checkpoints._pending = filled / "latest" / "3", 123_456
        checkpoints._writer.wait_until_finished = fail

    with pytest.raises(UserError) as caught:
        save_to_a_full_disk(filled, spoil)
    assert_told(caught, filled)
    assert restored_step(filled) == 3


def test_other_errors_pass_through(filled, monkeypatch):
    monkeypatch.setenv(failpoints.VARIABLE, "checkpoint/begin:raise")
    with pytest.raises(RuntimeError, match="checkpoint/begin at step 4"):
        save_to_a_full_disk(filled)
    assert restored_step(filled) == 3


# kill -9.

TRAIN = """
import sys
import jax.numpy as jnp
from genflow.checkpoint import open_checkpoints
with open_checkpoints(sys.argv[1], keep=1) as checkpoints:
    for step in (1, 2, 3):
        checkpoints.save(step, {"w": jnp.full(1000, step)}, {"step": step})
        checkpoints.save(step, {"w": jnp.full(1000, step)}, {"step": step}, "best")
"""
# Where the process dies: the latest steps that it may then resume from, and the best one.
KILLS = {"begin@3": ({2}, 2), "writing@3": ({2, 3}, 2), "committed@2": ({2}, 1), "delete@2": ({3}, 2)}


def killed_run(directory: Path, fault: str) -> int:
    environment = os.environ | {failpoints.VARIABLE: f"checkpoint/{fault}:kill9", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", TRAIN, directory], env=environment, timeout=60, check=False).returncode


def test_kill_anywhere_in_a_save_loses_at_most_that_save(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        codes = pool.map(killed_run, [tmp_path / fault for fault in KILLS], KILLS)
    assert list(codes) == [-signal.SIGKILL] * len(KILLS)
    for fault, (latest, best) in KILLS.items():
        with open_checkpoints(tmp_path / fault, 1) as checkpoints:
            for which, possible in (("latest", latest), ("best", {best})):
                state, metadata = checkpoints.restore({"w": jnp.zeros(1000, jnp.int32)}, which)
                assert metadata["step"] in possible, (fault, which)
                assert (state["w"] == metadata["step"]).all()
        assert sorted(p.name for p in (tmp_path / fault).iterdir()) == ["best", "latest"]
