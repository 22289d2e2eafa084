"""The benchmark: the turns of its contestants, a peer that is absent or fails, and one run of tiny sizes."""

import itertools
import json
import os
import subprocess
import sys
import textwrap

import pytest

from genflow.benchmark import core_suite
from genflow.benchmark.turns import Contestant, Score, take_turns
from genflow.errors import UserError


def contestant(name, body):
    """A process that serves; `body` sees `serve` and its own name."""
    source = f"from genflow.benchmark.turns import serve\nname = {name!r}\n" + textwrap.dedent(body)
    return Contestant(name, [sys.executable, "-c", source], core_suite.ENVIRONMENT)


def test_contestants_alternate_and_are_told_apart(tmp_path):
    log = tmp_path / "log"
    body = f"""
        def step():
            with open({str(log)!r}, "a") as file:
                file.write(name)
        serve({{"name": name}}, step)
    """
    scores = take_turns([contestant("a", body), contestant("b", body)], rounds=3, steps=4)
    assert log.read_text() == "aabb" + 3 * "aaaabbbb"
    assert [score.facts["name"] for score in scores] == ["a", "b"]
    for score in scores:
        assert [len(turn) for turn in score.wall] == [len(turn) for turn in score.cpu] == [4, 4, 4]
        assert score.median > 0
        assert 2**20 < score.peak_bytes < 2**30


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit('no memory left')", "a stopped with status 1: no memory left"),
        ("def step(): raise ValueError('step 3')\nserve({}, step)", "a stopped with status 1: ValueError: step 3"),
        ("import os\nos._exit(3)", "a stopped with status 3: no message"),
    ],
)
def test_a_contestant_that_dies_is_named_with_its_last_words(body, message):
    with pytest.raises(UserError, match=message):
        take_turns([contestant("b", "serve({}, lambda: 0)"), contestant("a", body)], rounds=1, steps=1)


def test_the_ratio_is_paired_by_turn():
    calm, busy = [1.0, 1.1, 1.2], [10.0, 11.0, 12.0]
    ours = Score("ours", {}, [calm, busy, busy], [], 0)
    theirs = Score("theirs", {}, [[2 * second for second in turn] for turn in ours.wall], [], 0)
    assert ours.ratio(theirs) == pytest.approx(0.5)
    assert ours.median == 10.0


def test_a_peer_that_is_absent_is_left_out_and_said_so(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho Traceback >&2\necho No module named torch >&2\nexit 1\n")
    broken.chmod(0o755)
    assert "--peer_python" in core_suite.missing_peer("")
    assert core_suite.missing_peer(str(broken)).endswith("No module named torch")
    assert core_suite.missing_peer(str(tmp_path / "none")).endswith("No such file or directory")
    assert {c.name for c in core_suite.contestants(core_suite.QUICK, 1, "")} == {
        "memory=store",
        "memory=remat",
        "memory=invert",
    }
    assert {c.name for c in core_suite.contestants(core_suite.QUICK, 1, "python")} > set(core_suite.PEERS)


def test_quick_run_prints_tables_and_writes_every_figure(tmp_path):
    out = tmp_path / "figures.json"
    words = ["--quick", "--memory=remat", "--peer_python=", f"--json={out}"]
    command = [sys.executable, str(core_suite.ROOT / "scripts/benchmark.py"), *words]
    environment = os.environ | core_suite.ENVIRONMENT
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(out.read_text())
    (row,) = result["glow"]
    assert row["contestant"] == "memory=remat"
    assert {name for name in core_suite.COLUMNS if row[name] is None} == {"/ peer"}
    assert 0 < row["best"] <= row["ms"]
    assert row["temp MB"] < row["peak MB"]
    rates = list(itertools.chain(*(list(row.values())[1:] for row in result["convs"])))
    assert len(rates) == 12
    assert min(rates) > 0
    assert {"jax", "python"} <= set(result["versions"])
    for text in (" cores of ", "load", "normflows under torch is left out", "temp MB", "conv2d in scan", f"to {out}"):
        assert text in done.stdout


@pytest.mark.parametrize("word", ["--depths=8,x", "--rounds=0", "--width=-1", "--suite=none", "stray"])
def test_a_wrong_word_stops_at_once(word):
    command = [sys.executable, str(core_suite.ROOT / "scripts/benchmark.py"), word]
    done = subprocess.run(command, env=os.environ | core_suite.ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert word.split("=")[-1].split(",")[-1] in done.stderr.splitlines()[-1]
