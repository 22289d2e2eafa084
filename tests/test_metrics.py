"""What a run writes while it trains: rows that survive kills and resumption, and a line that people can read."""

import io
import json
import math
import struct
import sys
import time

import pytest
from tensorboardX.proto.event_pb2 import Event

from genflow import metrics
from genflow.metrics import METRICS_FILE, Progress, Stopwatch, Writer, clock, read_rows


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
    return seconds


def test_a_line_for_each_log_where_there_is_no_terminal(capsys, now):
    progress = Progress(start=100, total=400, batch_size=64)
    now[0] += 10.0
    progress.update(150, 3.0, "bits/dim")
    progress.log(200, 2.12345, "bits/dim")
    progress.close()
    assert progress.images_per_second(200) == 640.0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split() == "step 200/400 640 images/s 2.1235 bits/dim 0:20 left".split()


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
    time.sleep(0.11)  # tqdm draws at most ten times a second
    progress.update(60, 2.5, "bits/dim")
    progress.log(60, 2.5, "bits/dim")
    progress.close()
    text = terminal.getvalue()
    assert "step 60/100" in text
    assert "60%" in text
    assert "images/s, 2.500 bits/dim" in text
    assert "left" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (36_061, "10:01:01")]
    + [(math.nan, "?"), (math.inf, "?")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_stopwatch_adds_up_and_keeps_what_failed(now):
    before = {"train": 5.0}
    watch = Stopwatch(before)
    for part, seconds in (("train", 2.0), ("eval", 1.0), ("train", 3.0)):
        with watch.measure(part):
            now[0] += seconds

    def fail():
        now[0] += 4.0
        raise RuntimeError

    with pytest.raises(RuntimeError), watch.measure("eval"):
        fail()
    assert watch.seconds == {"train": 10.0, "eval": 5.0}
    assert before == {"train": 5.0}
    assert Stopwatch().seconds == {}
