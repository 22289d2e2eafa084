"""What a run writes while it trains: rows that survive kills and resumption, and a line that people can read."""

import io
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from genflow import cli, metrics, train
from genflow.errors import UserError
from genflow.goodput import ATTEMPTS_FILE, RunClock, Stopwatch, goodput, read_goodput
from genflow.metrics import (
    METRICS_FILE,
    Progress,
    Writer,
    clock,
    read_rows,
    tracked,
)


def write(workdir, resumed_at, steps):
    writer = Writer(workdir, resumed_at)
    for step in steps:
        writer.write(step, "train", {"loss": step / 2, "grad_norm": 1.0})
    writer.close()


def events(workdir) -> list[Event]:
    """The records of all event files in order: 8 bytes of length, 4 of checksum, the message, 4 of checksum."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 16 + length
    return found


def test_rows_say_step_split_time_and_values(tmp_path):
    writer = Writer(tmp_path, 0)
    writer.write(10, "train", {"loss": 2, "learning_rate/critic": 1e-3})
    writer.write(10, "validation", {"bits_per_dim": 3.5})
    (train, validation) = read_rows(tmp_path)  # before close: a row is on disk when it is written
    writer.close()
    assert (train["step"], train["split"], train["loss"], train["learning_rate/critic"]) == (10, "train", 2.0, 1e-3)
    assert (validation["split"], validation["bits_per_dim"]) == ("validation", 3.5)
    assert train["time_utc"].endswith("+00:00")
    assert "loss" not in validation


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_no_event(tmp_path, value, caplog):
    writer = Writer(tmp_path, 0)
    writer.write(1, "train", {"loss": value, "grad_norm": 1.0})
    writer.close()
    text = (tmp_path / METRICS_FILE).read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (row["loss"], row["grad_norm"]) == (None, 1.0)
    assert [v.tag for e in events(tmp_path) for v in e.summary.value] == ["train/grad_norm"]
    assert caplog.text == ""


def test_resuming_writes_later_rows_again(tmp_path):
    write(tmp_path, 0, [1, 2, 3, 4, 5])
    write(tmp_path, 3, [4, 5, 6])
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    scalars = [e.step for e in events(tmp_path) if e.summary.value and e.summary.value[0].tag == "train/loss"]
    assert scalars == [1, 2, 3, 4, 5, 4, 5, 6]
    restarts = [e.step for e in events(tmp_path) if e.session_log.status == 1]  # TensorBoard drops what is after it
    assert restarts[-1] == 4


def test_a_new_run_starts_with_an_empty_file(tmp_path):
    write(tmp_path, 0, [1, 2])
    Writer(tmp_path, 0).close()
    assert read_rows(tmp_path) == []


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, cut):
    write(tmp_path, 0, [1, 2, 3])
    path = tmp_path / METRICS_FILE
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]
    write(tmp_path, 3, [4])
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 4]


def test_bytes_that_are_no_text_end_the_rows(tmp_path):
    write(tmp_path, 0, [1, 2])
    with (tmp_path / METRICS_FILE).open("ab") as file:
        file.write(b"\x00\xff\xfe\x00")
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path) == []


def test_a_kill_while_rows_are_dropped_loses_none(tmp_path, monkeypatch):
    write(tmp_path, 0, [1, 2, 3])

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Writer(tmp_path, 2)
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 3]


# The line for people


@pytest.fixture
def now(monkeypatch):
    """A clock that stands until a test moves it."""
    seconds = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(RunClock, "_beats", lambda *_: None)  # its thread has the clock of the machine
    return seconds


def test_a_line_for_each_log_where_there_is_no_terminal(capsys, now):
    progress = Progress(start=100, total=400, batch_size=64)
    now[0] += 10.0
    progress.update(150, 3.0, "bits/dim")
    assert progress.images_per_second(200) == 640.0
    progress.log(200, 2.12345, "bits/dim")
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split() == "step 200/400 640 images/s 2.1235 bits/dim 0:20 left".split()


def test_a_rate_is_that_of_training_since_the_line_before(capsys, now):
    watch = RunClock()
    progress = Progress(0, 40, 8, lambda: watch.elsewhere("train"))
    for step, training, validation, rate, left in ((10, 10.0, 0.0, 8.0, "0:30"), (20, 5.0, 25.0, 16.0, "0:40")):
        with watch.measure("train"):
            now[0] += training
        with watch.measure("validation"):
            now[0] += validation
        assert progress.images_per_second(step) == rate
        progress.log(step, 1.0, "nats")
        assert capsys.readouterr().err.split()[-2:] == [left, "left"]


@pytest.mark.parametrize(("inline", "first"), [(True, 8.0), (False, 16.0)])
def test_a_rate_does_not_depend_on_who_waits_for_a_call(now, inline, first):
    """Calls of 10 steps and 10 s, recorded after the next has begun, as in `train`; a pause after the third and last.

    A CPU has then done that one too; another device is still at it, and its first row counts a call too many.
    """
    progress, done, rates = Progress(0, 60, 8), {0: now[0]}, []

    def begin(call):
        done[call] = max(now[0], done[call - 1]) + 10.0
        now[0] = done[call] if inline else now[0]

    def record(call, begun):
        now[0] = max(now[0], done[call])
        rates.append(progress.images_per_second(10 * begun))
        progress.log(10 * call, 1.0, "nats", 10 * begun)

    for call in range(1, 7):
        begin(call)
        if call not in (1, 4):
            record(call - 1, call)
        if call in (3, 6):
            record(call, call)
    assert rates == [first, *[8.0] * 5]


def test_the_first_step_has_no_rate_yet(capsys, now):
    progress = Progress(0, 10, 8)
    progress.log(0, math.nan, "nats")
    assert math.isnan(progress.images_per_second(0))
    now[0] += 1.0
    progress.log(0, 1.0, "nats")
    assert [line.split()[-2:] for line in capsys.readouterr().err.splitlines()] == [["?", "left"]] * 2


def test_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(start=20, total=100, batch_size=8)
    monkeypatch.setattr(progress, "images_per_second", float)
    time.sleep(0.11)  # tqdm draws at most ten times a second
    progress.update(60, 2.5, "bits/dim", 70)
    progress.log(60, 2.5, "bits/dim")
    progress.close()
    text = terminal.getvalue()
    assert "step 60/100" in text
    assert "60%" in text
    assert "images/s, 2.500 bits/dim" in text
    assert "70 images/s" in text
    assert "left" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (36_061, "10:01:01")]
    + [(math.nan, "?"), (math.inf, "?")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_stopwatch_adds_up_what_failed_too(now):
    watch = Stopwatch()
    for part, seconds in (("train", 2.0), ("eval", 1.0), ("train", 3.0)):
        with watch.measure(part):
            now[0] += seconds

    def fail():
        now[0] += 4.0
        raise RuntimeError

    with pytest.raises(RuntimeError), watch.measure("eval"):
        fail()
    assert watch.seconds == {"train": 5.0, "eval": 5.0}
    assert Stopwatch().seconds == {}


# TensorBoard


def test_events_hold_the_configuration_once_and_sheets(tmp_path):
    config = {"name": "toy", "model": {"depth": 2, "widths": [8, 8], "act": None}, "empty": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    write(tmp_path, 0, [1])
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    (tmp_path / "samples").mkdir()
    Image.fromarray(pixels).save(tmp_path / "samples" / "step_00000002.png")
    writer = Writer(tmp_path, 1)  # a resumed run says it no second time
    writer.write_sheet(2)
    writer.write_sheet(3)
    writer.close()
    values = [value for event in events(tmp_path) for value in event.summary.value]
    texts = [
        value.tensor.string_val[0].decode() for value in values if value.metadata.plugin_data.plugin_name == "text"
    ]
    assert len(texts) == 1
    assert json.loads(texts[0]) == config
    (start,) = [v.metadata.plugin_data.content for v in values if v.tag == "_hparams_/session_start_info"]
    for name in (b"model.depth", b"model.widths", b"[8, 8]", b"empty"):
        assert name in start
    (sheet,) = [value.image for value in values if value.tag == "samples"]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(sheet.encoded_image_string))), pixels)


# Goodput


class Machine:
    """Processes that train the same run one after the other, by a clock that only moves when it is told to."""

    def __init__(self, workdir, now, started=None):
        self.workdir, self.now, self.saved, self.killed = workdir, now, {}, []
        self.start(started)

    def start(self, started=None):
        """The next process; the one before is gone as a kill leaves it."""
        self.watch = RunClock(started)
        attempt = self.watch.attempt(self.workdir)
        attempt.__enter__()
        self.killed.append(attempt)  # when it is collected it ends as a process does that is not killed
        self.watch.carry(self.saved)

    def spend(self, part, seconds):
        with self.watch.measure(part):
            self.now[0] += seconds
        self.watch.beat()

    def save(self):
        self.saved = {"seconds": dict(self.watch.seconds), "productive": self.watch.productive()}


def test_what_a_kill_lost_is_not_productive(tmp_path, now):
    run = Machine(tmp_path, now)
    run.spend("compile", 4.0)
    run.spend("train", 10.0)
    run.save()
    run.spend("train", 5.0)
    run.start()  # killed five seconds after its checkpoint
    run.spend("init", 1.0)
    run.spend("train", 5.0)
    run.spend("train", 15.0)
    found = run.watch.goodput()
    assert found["seconds"] == {"productive": 30, "lost": 5, "startup": 0, "compile": 4, "init": 1, "other": 0}
    assert (found["wall_seconds"], found["value"]) == (40.0, 0.75)
    assert [attempt["seconds"] for attempt in found["attempts"]] == [19.0, 21.0]
    assert read_goodput(tmp_path) == found
    assert run.watch.seconds["train"] == 30.0  # those of the record go on from the checkpoint


def test_what_a_rollback_took_back_is_not_productive(tmp_path, now):
    run = Machine(tmp_path, now)
    run.spend("train", 10.0)
    run.save()
    run.spend("train", 20.0)
    run.watch.go_back(run.saved)
    run.spend("train", 10.0)
    found = run.watch.goodput()
    assert (found["value"], found["seconds"]["productive"], found["seconds"]["lost"]) == (0.5, 20.0, 20.0)
    run.watch.go_back({})  # to the very beginning
    assert run.watch.goodput()["value"] == 0.0


EVENTS = st.lists(st.tuples(st.sampled_from(("train", "eval", "save", "kill", "roll")), st.integers(1, 9)), max_size=30)


@settings(max_examples=30, deadline=None)
@given(EVENTS)
def test_productive_is_what_is_in_the_state_whatever_happened(happened):
    """A state that counts its own training seconds, and is saved and restored with the rest, always agrees."""
    now, state, saved, wall = [50.0], 0, 0, 0
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics.time, "monotonic", lambda: now[0])
        patch.setattr(RunClock, "_beats", lambda *_: None)
        run = Machine(pathlib.Path(folder), now)
        for event, seconds in happened:
            if event in ("train", "eval"):
                run.spend(event, float(seconds))
                state, wall = state + seconds * (event == "train"), wall + seconds
            elif event == "save":
                run.save()
                saved = state
            else:
                run.start() if event == "kill" else run.watch.go_back(run.saved)
                state = saved
        found = run.watch.goodput()
        assert (found["seconds"]["productive"], found["wall_seconds"]) == (state, wall)
        assert sum(found["seconds"].values()) == pytest.approx(wall)
        assert min(found["seconds"].values()) >= 0
        assert found["value"] == (round(state / wall, 4) if wall else None)


def test_start_up_counts_and_time_between_attempts_is_told_apart(tmp_path, now):
    run = Machine(tmp_path, now, started=now[0] - 3.0)
    run.spend("train", 9.0)
    assert run.watch.goodput()["seconds"]["startup"] == 3.0
    assert run.watch.goodput()["value"] == 0.75
    at = "2026-01-01T00:{:02}:00+00:00"
    attempts = [{"started_utc": at.format(m), "seconds": 60.0, "parts": {"train": 30.0}} for m in (0, 1, 11)]
    found = goodput(attempts, 45.0)
    assert (found["wall_seconds"], found["idle_seconds"], found["value"]) == (180.0, 540.0, 0.25)
    assert found["seconds"] == {"productive": 45.0, "lost": 45.0, "other": 90.0}


def test_a_long_part_is_known_before_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("genflow.goodput.BEAT_SECONDS", 0.01)
    watch = RunClock()
    with watch.attempt(tmp_path), watch.measure("compile"):
        first, deadline = read_goodput(tmp_path)["attempts"], time.monotonic() + 60
        while read_goodput(tmp_path)["attempts"] == first or read_goodput(tmp_path)["wall_seconds"] < 0.2:
            assert time.monotonic() < deadline
    ended = (tmp_path / ATTEMPTS_FILE).stat().st_mtime_ns
    time.sleep(0.1)
    assert (tmp_path / ATTEMPTS_FILE).stat().st_mtime_ns == ended


def test_what_was_productive_stays_known_while_the_next_attempt_starts(tmp_path, now):
    run = Machine(tmp_path, now)
    run.spend("train", 10.0)
    run.save()
    watch = RunClock()
    with watch.attempt(tmp_path):
        now[0] += 10.0
        watch.beat()
        assert read_goodput(tmp_path)["value"] == 0.5


@pytest.mark.parametrize("text", [None, "", "[]", "{", '{"attempts": [{}], "productive": 1}', '{"productive": 1}'])
def test_a_folder_that_lost_its_attempts_starts_to_count_again(tmp_path, now, text):
    run = Machine(tmp_path, now)
    run.spend("train", 10.0)
    run.save()
    (tmp_path / ATTEMPTS_FILE).unlink() if text is None else (tmp_path / ATTEMPTS_FILE).write_text(text)
    assert read_goodput(tmp_path) == {}
    run.start()
    run.spend("train", 5.0)
    assert run.watch.goodput()["value"] == 1.0
    assert run.watch.goodput()["wall_seconds"] == run.watch.goodput()["seconds"]["productive"] == 5.0


def test_a_beat_on_a_full_disk_ends_no_run(tmp_path, now, monkeypatch):
    run = Machine(tmp_path, now)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("genflow.goodput.write_text", full)
    now[0] += 5.0
    run.watch.beat()
    assert read_goodput(tmp_path)["wall_seconds"] == 0.0


def test_a_killed_run_ends_with_the_goodput_of_both_attempts(tmp_path, capsys, monkeypatch):
    fields = {"train.num_steps": "60", "train.steps_per_call": "10", "train.log_every": "10", "checkpoint.every": "20"}
    config = cli.load_config("configs/realnvp_toy.py:debug", fields | {"eval.every": "0", "data.batch_size": "8"})

    def killed(name, step):
        if step == 50:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "failpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, str(tmp_path / "run"))
    record = train.train(config, str(tmp_path / "run"))
    found = record["goodput"]
    assert json.loads((tmp_path / "run" / "record.json").read_text())["goodput"] == found
    assert len(found["attempts"]) == 2
    assert sum(found["seconds"].values()) == pytest.approx(found["wall_seconds"], abs=1.0)  # each is rounded
    known = json.loads((tmp_path / "run" / ATTEMPTS_FILE).read_text())
    trained = [attempt["parts"]["train"] for attempt in known["attempts"]]
    assert trained[1] < known["productive"] < sum(trained)  # steps 41 to 50 were trained twice
    rows = [row for row in read_rows(tmp_path / "run") if row["split"] == "train"]
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert all(0 <= row["goodput"] < 1 for row in rows)


# Weights & Biases


class FakeRun:
    def __init__(self, **arguments):
        self.arguments, self.logged, self.summary, self.exit_codes, self.step = arguments, [], {}, [], 0

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self, exit_code=0):
        self.exit_codes.append(exit_code)


@pytest.fixture
def fake_wandb(monkeypatch):
    """A module in the place of wandb; the runs that it has opened."""
    runs = []

    def init(**arguments):
        runs.append(FakeRun(**arguments))
        return runs[-1]

    errors = types.SimpleNamespace(Error=type("Error", (Exception,), {}))
    fake = types.SimpleNamespace(init=init, Settings=dict, errors=errors)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return runs


CONFIG = {"name": "toy", "seed": 0}


@pytest.mark.parametrize("mode", ["", "off", "disabled"])
def test_it_is_off_unless_it_is_asked_for(tmp_path, fake_wandb, mode):
    with tracked(tmp_path, CONFIG, mode) as tracker:
        assert tracker is None
    assert fake_wandb == []


def test_offline_it_stays_in_the_run_folder_and_resumes_as_the_same_run(tmp_path, now, fake_wandb):
    for resumed_at, steps in ((0, [1, 2, 3]), (2, [3, 4])):
        Machine(tmp_path, now)
        with tracked(tmp_path, CONFIG, "offline") as tracker:
            writer = Writer(tmp_path, resumed_at, tracker=tracker)
            for step in steps:
                writer.write(step, "train", {"loss": step / 2, "bad": math.nan})
            writer.close()
    first, second = fake_wandb
    assert first.arguments == second.arguments
    assert (first.arguments["mode"], first.arguments["dir"], first.arguments["resume"]) == (
        "offline",
        str(tmp_path),
        "allow",
    )
    assert first.arguments["config"] == CONFIG
    assert first.logged == [(step, {"train/loss": step / 2}) for step in (1, 2, 3)]
    assert second.logged == [(step, {"train/loss": step / 2}) for step in (1, 2, 3, 4)]  # what a kill lost is there
    assert first.exit_codes == second.exit_codes == [0]
    private = first.arguments["settings"]
    assert private["save_code"] is False
    assert {"disable_git", "disable_code", "x_disable_meta", "x_disable_machine_info"} <= {
        n for n, v in private.items() if v
    }


def test_runs_of_other_folders_are_other_runs(tmp_path, now, fake_wandb, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Machine(tmp_path / name, now)
        with tracked(tmp_path / name, CONFIG, "offline"):
            pass
    assert fake_wandb[0].arguments["id"] != fake_wandb[1].arguments["id"]


def test_a_run_that_fails_is_told_so(tmp_path, fake_wandb):
    with pytest.raises(KeyboardInterrupt), tracked(tmp_path, CONFIG, "offline"):
        raise KeyboardInterrupt
    assert fake_wandb[0].exit_codes == [1]


def test_without_the_package_or_an_account_a_sentence_says_what_to_do(tmp_path, fake_wandb, monkeypatch):
    def refuse(**_):
        raise sys.modules["wandb"].errors.Error("api_key not configured\n(no-tty)")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    with pytest.raises(UserError, match=r"--wandb=online: api_key not configured \(no-tty\); run `wandb login` first"):
        with tracked(tmp_path, CONFIG, "online"):
            pass
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"--wandb=offline needs the package wandb: pip install -e '\.\[log\]'"):
        with tracked(tmp_path, CONFIG, "offline"):
            pass


REAL = """
import pathlib, sys
from genflow.goodput import RunClock
from genflow.metrics import Writer, tracked
folder = pathlib.Path(sys.argv[1])
with RunClock().attempt(folder), tracked(folder, {"name": "toy", "model": {"depth": 2}}, "offline") as tracker:
    writer = Writer(folder, 0, tracker=tracker)
    writer.write(1, "train", {"loss": 0.625})
    writer.close()
    tracker.summary.update({"value": 2.5})
"""


@pytest.mark.extras
def test_the_real_package_writes_offline_and_tells_no_secret(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install 'genflow[log]'")
    (tmp_path / "run").mkdir()
    environment = os.environ | {"MY_TOKEN": "hunter2secret", "WANDB_API_KEY": 40 * "a", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", REAL, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    (stored,) = folder.glob("*.wandb")
    assert b"train/loss" in stored.read_bytes()
    assert b"depth" in stored.read_bytes()
    written = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"hunter2secret" not in written
    assert 40 * b"a" not in written
