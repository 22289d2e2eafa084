"""Sweeps: what is refused, what is drawn, and that a kill loses no trial and runs none twice.

Trials run a stand-in for main.py that imports nothing heavy: a few validation rows, a checkpoint after each, a record;
one test runs main.py itself.
"""

import collections
import contextlib
import importlib.util
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from genflow import cli, workdir
from genflow.errors import UserError

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'genflow[sweep]'")

from genflow.sweep import Sweep, choice, driver, integer, local, log_uniform, results, run, space, study, trial, uniform
from genflow.sweep import slurm as queue

SCRIPT = cli.ROOT / "scripts" / "sweep.py"
RATE = {"optimizer.learning_rate": log_uniform(1e-4, 1e-2)}
TRAINER = '''
"""Stands in for main.py: it trains nothing, but keeps the promises of a run folder."""
import fcntl, json, os, pathlib, re, signal, sys, time

given = dict(re.match(r"--(?:config\\.)?([^=]+)=(.*)", word).groups() for word in sys.argv[1:])
folder, rate = pathlib.Path(given["workdir"]), float(given["optimizer.learning_rate"])
steps, pause = int(given["train.num_steps"]), float(os.environ.get("PAUSE", "0"))
if given["model.depth"] == os.environ.get("REFUSED"):
    print("error: no such depth"), sys.exit(2)
folder.mkdir(parents=True, exist_ok=True)
lock = (folder / ".lock").open("a+")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
(folder / "starts").open("a").write(json.dumps(sys.argv[1:]) + "\\n")
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
rows = (folder / "metrics.jsonl").open("a")
checkpoint = folder / "checkpoint"
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
while step < steps:
    step += 1
    time.sleep(pause)
    if given["model.depth"] == os.environ.get("DIVERGED"):
        print("error: training diverged"), sys.exit(2)
    value = 2 + (rate - 3e-3) ** 2 + (0.1 * step if step > 2 else -0.1 * step)  # best at step 2, the last is worse
    if step % int(given["eval.every"]) == 0:
        rows.write(json.dumps({"step": step, "split": "validation", "nats": value, "standard_error": 0.5}) + "\\n")
    rows.write(json.dumps({"step": step, "split": "test", "nats": -rate}) + "\\n")
    rows.flush()
    checkpoint.write_text(str(step))
    if stopped:
        (folder / "saved").touch()
        sys.exit(143)
with (folder / "records").open("a") as file:
    file.write("1")
(folder / "record.json").write_text(json.dumps({"value": -rate, "split": "test"}))
'''


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Writes a sweep's file whose trials run the stand-in; returns its path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trainer.py").write_text(TRAINER)

    def write(**changes):
        fields = {
            "config": "configs/glow_digits.py:debug",
            "space": {"optimizer.learning_rate": ("log_uniform", 1e-4, 1e-2), "model.depth": ("integer", 1, 50)},
            "overrides": {"train.num_steps": 4, "eval.every": 1},
            "num_trials": 4,
            "workers": 2,
            "sampler": "random",
            "trainer": (sys.executable, "-S", str(tmp_path / "trainer.py")),
        } | changes
        words = [f"{f!r}: {name}({', '.join(map(repr, args))})" for f, (name, *args) in fields.pop("space").items()]
        body = f"Sweep(space={{{', '.join(words)}}}, {', '.join(f'{k}={v!r}' for k, v in fields.items())})"
        file = tmp_path / "tiny.py"
        file.write_text(f"from genflow.sweep import *\n\ndef get_sweep():\n    return {body}\n")
        return str(file)

    return write


def sweep_of(**changes):
    defaults = {"config": "configs/realnvp_toy.py", "space": RATE, "num_trials": 4}
    return Sweep(**(defaults | changes))


REFUSED = {
    "num_trials=0: expected a whole number of at least 1": {"num_trials": 0},
    "workers=0": {"workers": 0},
    "sampler='cma': expected one of tpe, random, grid": {"sampler": "cma"},
    "direction='up'": {"direction": "up"},
    "space: expected at least one field": {"space": {}},
    "did you mean --config.optimizer.learning_rate?": {"space": {"optimizer.lr": uniform(1e-4, 1e-3)}},
    "low=-0.1 must be above zero on a log": {"space": {"optimizer.learning_rate": log_uniform(-0.1, 1.0)}},
    "low=2 must be below high=1": {"space": {"model.depth": integer(2, 1)}},
    "must be finite": {"space": {"optimizer.learning_rate": choice(1e-3, float("nan"))}},
    "both ends must be finite": {"space": {"optimizer.learning_rate": uniform(0.1, float("inf"))}},
    "both ends must be whole": {"space": {"model.depth": integer(1, 2.5)}},
    "expected an integer": {"space": {"model.depth": uniform(1.5, 2.5)}},
    "model.depth=3.9": {"space": {"model.depth": uniform(2, 8)}},
    "expected one of adam": {"space": {"optimizer.name": choice("adam", "adamm")}},
    "each only once": {"space": {"model.depth": choice(2, 2)}},
    "expected uniform, log_uniform": {"space": {"model.depth": (2, 3)}},
    "overrides sets it too": {"overrides": {"optimizer.learning_rate": 1e-3}},
    "overrides: --config.train.num_stpes: no such field": {"overrides": {"train.num_stpes": 3}},
    "it changes what is measured": {"space": {"seed": integer(0, 9)}},
    "space['eval.num_repeats']: it changes": {"space": {"eval.num_repeats": integer(1, 9)}},
    "space['data.validation']: it changes": {"space": {"data.validation": uniform(0.1, 0.2)}},
    "set overrides['eval.every']": {"pruner": "median", "overrides": {"eval.every": 0}},
    "below train.num_steps=10": {"pruner": "median", "overrides": {"train.num_steps": 10, "eval.every": 10}},
    "needs choice(...) or integer(...)": {"sampler": "grid"},
    "the grid has 6 points": {
        "sampler": "grid",
        "num_trials": 7,
        "space": {"model.depth": integer(2, 4), "optimizer.name": choice("adam", "sgd")},
    },
}


@pytest.mark.parametrize(("told", "changes"), REFUSED.items())
def test_a_sweep_that_cannot_be_is_refused(told, changes):
    with pytest.raises(UserError, match=re.escape(told)):
        space.check(sweep_of(**changes))


def test_the_sweeps_of_the_house_are_sound():
    files = sorted((cli.ROOT / "configs" / "sweeps").glob("*.py"))
    assert len(files) >= 2
    for file in files:
        name, sweep = space.load_sweep(str(file))
        assert (name, sweep.num_trials) == (file.stem, 8)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("x = 1", "no function get_sweep()"),
        ("def get_sweep():\n    return {}", "no function get_sweep()"),
        ("\ndef get_sweep():\n    return 1 / 0", "line 3: ZeroDivisionError"),
        ("def get_sweep(:", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_sweep_is_told(tmp_path, source, told):
    (tmp_path / "bad.py").write_text(source)
    with pytest.raises(UserError, match=re.escape(told)):
        space.load_sweep(str(tmp_path / "bad.py"))
    with pytest.raises(UserError, match="did you mean configs/sweeps/glow_lr.py"):
        space.find_sweep("configs/sweeps/glow_rl.py")


def planned(tmp_path, **changes):
    tmp_path.mkdir(exist_ok=True)
    return trial.make_plan("s", space.check(sweep_of(**changes)), tmp_path)


def drawn(plan, count):
    known = study.Study(plan)
    return [known.params(known.ask()) for _ in range(count)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_study_that_goes_on_draws_what_it_would_have_drawn(tmp_path, sampler):
    settings = {"sampler": sampler, "num_trials": 6, "space": RATE | {"model.depth": integer(2, 40)}}
    whole = drawn(planned(tmp_path / "a", **settings), 6)
    halves = drawn(planned(tmp_path / "b", **settings), 2) + drawn(planned(tmp_path / "b", **settings), 4)
    assert halves == whole
    assert len({json.dumps(params) for params in whole}) == 6
    assert drawn(planned(tmp_path / "c", **settings, seed=1), 6) != whole
    assert study.Study(planned(tmp_path / "a", **settings)).ask() is None


def test_a_grid_is_drawn_once_each(tmp_path):
    axes = {"model.widths": choice((8,), (8, 8)), "model.depth": integer(2, 4), "optimizer.name": choice("adam", "sgd")}
    plan = planned(tmp_path, sampler="grid", num_trials=0, space=axes)
    points = drawn(plan, 5) + drawn(plan, 7)
    assert {tuple(p.values()) for p in points} == {
        (w, d, o) for w in ("(8,)", "(8, 8)") for d in "234" for o in ("adam", "sgd")
    }
    rows = study.Study(plan).trials()
    assert rows[0]["params"] == {"model.widths": (8,), "model.depth": 2, "optimizer.name": "adam"}
    for params in points:  # the command line takes every value back
        cli.load_config(plan.sweep.config, params)


def test_a_torn_journal_is_mended(tmp_path):
    plan = planned(tmp_path)
    drawn(plan, 2)
    with (tmp_path / study.JOURNAL_FILE).open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    (tmp_path / f"{study.JOURNAL_FILE}.lock").symlink_to(tmp_path / study.JOURNAL_FILE)
    known = study.Study(plan)
    assert (known.unfinished(), known.ask()) == ([0, 1], 2)


def write_rows(plan, number, values, **more):
    folder = plan.run_folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": i + 1, "split": "validation", "nats": v, "standard_error": 0.1} for i, v in enumerate(values)]
    rows += [{"step": 9, "split": split, "nats": -99.0} for split in ("test", "train", "abandoned")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row | more) + "\n" for row in rows))


def test_the_objective_is_the_validation_figure_of_the_checkpoint_that_a_run_is_judged_by(tmp_path):
    plan = planned(tmp_path)
    write_rows(plan, 0, [3.0, 1.0, None, 2.0])
    points = trial.curve(plan, 0)
    assert trial.objective(plan, points) == 1.0
    assert trial.objective(plan._replace(select="last"), points) == 2.0
    assert trial.objective(plan._replace(sweep=plan.sweep._replace(direction="maximize")), points) == 3.0
    assert trial.objective(plan, [(1, float("nan"))]) is None
    with pytest.raises(UserError, match="the validation rows of metrics.jsonl have nats"):
        trial.curve(plan._replace(sweep=plan.sweep._replace(metric="bits_per_dim")), 0)


def test_what_became_of_a_trial(tmp_path):
    plan = planned(tmp_path)
    plan.log(0).parent.mkdir()
    plan.log(0).write_text("step 1\nerror: config.x is wrong\nset it right\n")
    assert trial.outcome(plan, 0, 2) == ("refused", None, "config.x is wrong\nset it right")
    write_rows(plan, 0, [3.0, 2.0])
    assert trial.outcome(plan, 0, 2)[:2] == ("failed", 2.0)  # it has trained: it diverged
    assert trial.outcome(plan, 0, 1).state == "failed"
    assert {trial.outcome(plan, 0, status).state for status in (-9, -15, 137, 139, 143)} == {"interrupted"}
    assert trial.outcome(plan, 0, 143, stopped=True)[:2] == ("pruned", 2.0)
    plan.log(0).write_text(f"error: {plan.run_folder(0)} is in use by process 7 on host\nwait\n")
    assert trial.outcome(plan, 0, 2).state == "interrupted"  # an orphan took the folder first
    (plan.run_folder(0) / "record.json").write_text('{"value": -99.0}')
    assert {trial.outcome(plan, 0, s, stopped=True) for s in (0, 143)} == {("complete", 2.0, "")}
    write_rows(plan, 0, [None])
    assert trial.outcome(plan, 0, 0).state == "failed"


def test_accelerators_and_cores_are_cut_among_the_workers():
    cut = local.environments
    assert [e["CUDA_VISIBLE_DEVICES"] for e in cut(2, "0,1,2,3", {})] == ["0,1", "2,3"]
    assert cut(2, "auto", {"CUDA_VISIBLE_DEVICES": "5,7"}) == [{"CUDA_VISIBLE_DEVICES": d} for d in "57"]
    shared = cut(2, "0,0", {})
    assert shared == [{"CUDA_VISIBLE_DEVICES": "0", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}] * 2
    with pytest.raises(UserError, match="--devices=0,1,2: 3 cannot be cut evenly among 2 workers"):
        cut(2, "0,1,2", {})
    assert cut(2, "auto", {"CUDA_VISIBLE_DEVICES": "0"}) == shared
    three = cut(3, "auto", {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert [e["CUDA_VISIBLE_DEVICES"] for e in three] == ["0", "1", "0"]
    assert ["XLA_PYTHON_CLIENT_MEM_FRACTION" in e for e in three] == [True, False, True]
    rest = cut(2, "auto", {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"})
    assert [e["CUDA_VISIBLE_DEVICES"] for e in rest] == ["0,1", "2,3"]
    cores = len(os.sched_getaffinity(0))
    assert cut(2, "auto", {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"})[1]["NPROC"] == str(max(cores // 2, 1))
    assert cut(1, "none", {}) == [{}]
    assert cut(2, "none", {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}) == [{}, {}]


def starts(folder):
    """{trial: the command lines that it was started with}."""
    files = sorted(folder.glob("trials/*/starts"))
    return {file.parent.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def check_each_once(folder, num):
    """No trial is lost, done twice, or has another's values."""
    assert [p.name for p in sorted((folder / "trials").iterdir())] == [f"{i:03}" for i in range(num)]
    assert {(p / "records").read_text() for p in (folder / "trials").iterdir()} == {"1"}
    commands = starts(folder)
    assert all(len({tuple(words) for words in lines}) == 1 for lines in commands.values())
    rates = collections.Counter(word for lines in commands.values() for word in lines[0] if "learning_rate" in word)
    assert set(rates.values()) == {1}
    assert len(rates) == num


def test_a_sweep_runs_to_its_end_and_is_not_repeated(make, tmp_path, capsys):
    file = make()
    found = run.run_sweep(file, "out")
    check_each_once(tmp_path / "out", 4)
    assert [row["state"] for row in found["trials"]] == ["complete"] * 4
    values = [row["value"] for row in found["trials"]]
    assert values == sorted(values)
    assert found["metric"] == "nats"
    assert (tmp_path / "out" / results.PICTURE).stat().st_size > 10_000
    assert (tmp_path / "out" / results.RESULTS_CSV).read_text().count("\n") == 5
    told = capsys.readouterr().out
    assert found["best_command"] in told
    argv = found["best_command"].split()[1:]
    best = cli.parse(argv)  # it can be typed
    assert best.optimizer.learning_rate == found["best"]["params"]["optimizer.learning_rate"]
    assert best.eval.baselines  # what a trial leaves out is in the run that counts
    assert best.train.num_steps == 4
    before = starts(tmp_path / "out")
    assert run.run_sweep(file, "out")["trials"] == found["trials"]
    journal = (tmp_path / "out" / study.JOURNAL_FILE).read_bytes()
    assert run.report_sweep(file, "out")["trials"] == found["trials"]
    assert (tmp_path / "out" / study.JOURNAL_FILE).read_bytes() == journal
    more = run.run_sweep(make(num_trials=6), "out")
    check_each_once(tmp_path / "out", 6)
    assert len(more["trials"]) == 6
    assert {k: v for k, v in starts(tmp_path / "out").items() if k in before} == before
    with pytest.raises(UserError, match="holds a sweep with another sampler"):
        run.run_sweep(make(sampler="tpe"), "out")
    with pytest.raises(UserError, match="another configuration: config.train.num_steps: 4 -> 5"):
        run.run_sweep(make(overrides={"train.num_steps": 5, "eval.every": 1}), "out")


def test_devices_that_cannot_be_cut_are_told_before_anything_is_written(make, tmp_path):
    with pytest.raises(UserError, match="--devices=0,1,2"):
        run.run_sweep(make(), "out", place=run.Place(devices="0,1,2"))
    assert not (tmp_path / "out").exists()


def test_a_report_of_a_sweep_without_trials_writes_nothing(make, tmp_path):
    plan = run.plan_of(make(), "out", 0)
    plan.folder.mkdir()
    study.check_folder(plan)
    with pytest.raises(UserError, match="no trial of a sweep tiny there yet"):
        run.report_sweep("tiny.py", "out")
    assert not (tmp_path / "out" / study.JOURNAL_FILE).exists()


def test_a_field_that_came_later_does_not_refuse_an_unfinished_sweep(tmp_path):
    plan = planned(tmp_path)
    study.check_folder(plan)
    stored = json.loads((tmp_path / study.SWEEP_FILE).read_text())
    del stored["configuration"]["train"]["ema_decay"]  # as if it had come later
    (tmp_path / study.SWEEP_FILE).write_text(json.dumps(stored))
    assert "ema_decay" in cli.defaults().train
    study.check_folder(plan)
    stored["configuration"]["train"]["num_steps"] += 1
    (tmp_path / study.SWEEP_FILE).write_text(json.dumps(stored))
    with pytest.raises(UserError, match="another configuration: config.train.num_steps"):
        study.check_folder(plan)


def test_rows_are_read_again_only_when_there_are_new_ones(tmp_path):
    plan, sizes = planned(tmp_path), {}
    assert not driver.has_grown(plan, 0, sizes)
    write_rows(plan, 0, [3.0])
    assert [driver.has_grown(plan, 0, sizes) for _ in range(2)] == [True, False]
    write_rows(plan, 0, [3.0, 2.0])
    assert driver.has_grown(plan, 0, sizes)


def test_a_trial_that_is_behind_is_ended_after_a_checkpoint(make, tmp_path, monkeypatch):
    far = {"optimizer.learning_rate": ("choice", 0.003, 0.0031, 0.0029, 1.0), "model.depth": ("choice", 2)}
    steps = {"train.num_steps": 60, "eval.every": 1}
    file = make(space=far, sampler="grid", num_trials=0, pruner="median", workers=1, overrides=steps)
    monkeypatch.setattr(study, "num_random", lambda sweep: 1)
    monkeypatch.setattr(driver, "POLL", 0.05)
    monkeypatch.setenv("PAUSE", "0.01")
    found = run.run_sweep(file, "out")
    last = next(row for row in found["trials"] if row["params"]["optimizer.learning_rate"] == 1.0)
    assert (last["state"], found["trials"][-1]) == ("pruned", last)
    folder = tmp_path / "out" / "trials" / "003"
    assert 2 <= int((folder / "checkpoint").read_text()) < 60
    assert not (folder / "record.json").exists()


def test_a_refused_trial_stops_the_sweep_and_a_diverged_one_does_not(make, tmp_path, monkeypatch):
    depths = {"optimizer.learning_rate": ("choice", 0.003), "model.depth": ("choice", 2, 3, 4)}
    file = make(space=depths, sampler="grid", num_trials=0, workers=1)
    monkeypatch.setenv("DIVERGED", "3")
    found = run.run_sweep(file, "out")
    assert [(row["state"], row["params"]["model.depth"]) for row in found["trials"]] == [
        ("complete", 2),
        ("complete", 4),
        ("failed", 3),
    ]
    assert found["trials"][-1]["detail"] == "training diverged"
    monkeypatch.setenv("REFUSED", "3")
    with pytest.raises(UserError, match="trial 1 was refused: no such depth"):
        run.run_sweep(file, "other")
    assert not (tmp_path / "other" / "trials" / "002").exists()


def launch(file, *words, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), file, "--workdir=out", "--devices=none", *words],
        env={**os.environ, **environment, "PYTHONPATH": str(cli.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def is_alive(folder):
    return any(trial.is_locked(path) for path in (folder / "trials").glob("*"))


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_sweep_loses_no_trial_and_runs_none_twice(make, tmp_path, how):
    file, out = make(num_trials=8), tmp_path / "out"
    rng = random.Random(int(how))
    for target in (rng.randint(0, 2), rng.randint(3, 6)):
        process = launch(file, PAUSE="0.15")
        wait_for(lambda target=target: len(starts(out)) > target)
        time.sleep(rng.uniform(0, 0.5))
        os.killpg(process.pid, how)
        told = process.communicate(timeout=60)[0]
        assert process.returncode in (-9, 143), told
        wait_for(lambda: not is_alive(out), 20)  # nobody is left behind
    process = launch(file, PAUSE="0.01")
    told = process.communicate(timeout=100)[0]
    assert process.returncode == 0, told
    check_each_once(out, 8)
    counts = sorted(len(lines) for lines in starts(out).values())
    assert counts[-1] > 1  # some were resumed
    assert counts[0] == 1  # and the finished ones were let be
    states = [row["state"] for row in json.loads((out / results.RESULTS_JSON).read_text())["trials"]]
    assert states == ["complete"] * 8


def test_a_trial_that_something_else_kills_is_resumed(make, tmp_path, monkeypatch):
    process = launch(make(num_trials=1, workers=1), PAUSE="0.2")
    checkpoint = tmp_path / "out" / "trials" / "000" / "checkpoint"
    wait_for(checkpoint.exists)
    os.kill(pid_of(tmp_path / "trainer.py"), signal.SIGKILL)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == 0, told
    check_each_once(tmp_path / "out", 1)
    assert len(starts(tmp_path / "out")["000"]) == 2


class Preempting:
    """Stands in for a queue: start k of a trial ends out of time at step `steps[k]`, the last with a record."""

    capacity = 1

    def __init__(self, plan, steps):
        self._plan, self._steps = plan, list(steps)

    def attach(self, number):
        return None

    def start(self, jobs):
        """Each job has ended before anybody looks."""
        for job in jobs:
            folder = self._plan.run_folder(job.number)
            folder.mkdir(parents=True, exist_ok=True)
            rows = [{"step": i + 1, "split": "validation", "nats": 2.0} for i in range(self._steps[0])]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            self._steps.pop(0)
            if not self._steps:
                (folder / trial.RECORD_FILE).write_text("{}")
        return [self for _ in jobs]

    def poll(self):
        return trial.LOST if self._steps else 0

    def stop(self):
        pass

    kill = stop


LIMIT = "its job or node was lost, cancelled or out of time, 3 times without getting further"


@pytest.mark.parametrize(
    ("steps", "state", "detail"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 7, 8], "complete", ""),
        ([3, 3, 3], "complete", ""),
        ([3, 3, 2, 3, 4], "failed", LIMIT),
        ([0, 0, 0, 4], "failed", LIMIT),
    ],
)
def test_a_trial_is_resumed_as_long_as_it_gets_further(tmp_path, monkeypatch, steps, state, detail):
    monkeypatch.setattr(driver, "POLL", 0.0)
    plan, told = planned(tmp_path, num_trials=1), []
    driver.drive(plan, study.Study(plan), Preempting(plan, steps), lambda number, found: told.append(found))
    assert [(found.state, found.detail) for found in told] == [(state, detail)]


LEASHED = """
import pathlib, sys, threading, time
from genflow.sweep.local import Job, Process
for _ in range(20):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
Process(Job(0, sys.argv[2:], ".", pathlib.Path(sys.argv[1])))
time.sleep(60)
"""
TOLD = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("told", flush=True))
print("ready", flush=True)
for _ in range(50):
    time.sleep(0.01)
"""


def test_the_death_of_a_sweep_is_told_to_a_trial_once(tmp_path):
    log = tmp_path / "log"
    words = [sys.executable, "-c", LEASHED, str(log), sys.executable, "-S", "-c", TOLD]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(cli.ROOT)}) as process:
        wait_for(lambda: log.exists() and log.read_text())
        process.kill()
    wait_for(lambda: "told" in log.read_text(), 5)
    time.sleep(0.2)
    assert log.read_text().splitlines() == ["ready", "told"]  # a run takes a second signal for impatience


def test_the_warning_of_a_queue_does_not_end_a_trial(make, tmp_path, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.05")
    plan = run.plan_of(make(), "out", 0)
    plan.folder.mkdir()
    known = study.Study(plan)
    process = local.Process(driver.make_job(plan, known, known.ask()))
    wait_for(lambda: starts(plan.folder))
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        os.killpg(process._child.pid, number)
    wait_for(lambda: process.poll() is not None)
    assert process.poll() == 0
    check_each_once(plan.folder, 1)


def pid_of(*words):
    """The process whose command line has these words, and is not the leash's."""
    return next(int(p.parent.name) for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if runs(p, words))


def runs(cmdline, words):
    try:
        has = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False
    return {str(word).encode() for word in words} <= set(has) and b"-P" not in has


def test_a_trial_that_ended_just_before_its_sweep_is_not_run_again(make, tmp_path):
    file = make(num_trials=2, workers=1)
    plan = run.plan_of(file, "out", 0)
    plan.folder.mkdir()
    assert study.Study(plan).ask() == 0
    write_rows(plan, 0, [2.0, 1.0, 3.0])
    (plan.run_folder(0) / trial.RECORD_FILE).write_text("{}")
    found = run.run_sweep(file, "out")
    assert set(starts(tmp_path / "out")) == {"001"}
    assert (found["best"]["number"], found["best"]["value"], found["best"]["state"]) == (0, 1.0, "complete")


def test_two_processes_do_not_run_one_sweep(make, tmp_path):
    process = launch(make(num_trials=2), PAUSE="0.2")
    wait_for(lambda: starts(tmp_path / "out"))
    with pytest.raises(UserError, match="is in use by process"):
        run.run_sweep(make(num_trials=2), "out")
    os.killpg(process.pid, signal.SIGTERM)
    assert "run the same command to go on" in process.communicate(timeout=60)[0]


def test_an_orphan_is_waited_for_and_then_ended(tmp_path):
    hold = "import sys, time\nfrom genflow.workdir import *\nwith lock(Path(sys.argv[1])):\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], env={**os.environ, "PYTHONPATH": cli.ROOT})
    wait_for(lambda: trial.is_locked(tmp_path))
    trial.wait_until_free(tmp_path, patience=0.5)
    assert process.wait(10) == -signal.SIGTERM
    assert not trial.is_locked(tmp_path)


def test_an_orphan_holds_up_no_other_trial(make, tmp_path, monkeypatch):
    plan = run.plan_of(make(num_trials=3, workers=2), "out", 0)
    plan.folder.mkdir()
    known, told = study.Study(plan), []
    assert known.ask() == 0
    plan.run_folder(0).mkdir(parents=True)
    slots = local.Slots([{}, {}])
    with contextlib.ExitStack() as orphan:
        orphan.enter_context(workdir.lock(plan.run_folder(0)))
        monkeypatch.setattr(driver, "POLL", 0.02)

        def tell(number, found):
            told.append(number)
            if len(told) == 2:
                orphan.close()

        driver.drive(plan, known, slots, tell)
    assert told == [1, 2, 0]  # one worker's place is the orphan's
    check_each_once(tmp_path / "out", 3)


REAL = """
from genflow.sweep import Sweep, log_uniform

def get_sweep():
    return Sweep(
        config="configs/vae_digits.py:debug",
        overrides={"train.num_steps": 60, "eval.every": 2, "checkpoint.every": 20, "data.validation": %s},
        space={"optimizer.learning_rate": log_uniform(1e-4, 1e-2)},
        num_trials=2,
        sampler="random",
    )
"""


def test_real_trials_survive_a_kill_and_are_scored_on_the_validation_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(REAL % 0.1)
    plan = run.plan_of("tiny.py", "out", 0)
    plan.folder.mkdir()
    study.check_folder(plan)  # as if the sweep had been checked: the probe would cost another start
    process = launch("tiny.py")
    wait_for(lambda: trial.curve(plan, 0), 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: not is_alive(plan.folder), 60)
    assert not trial.is_recorded(plan, 0)
    begun = trial.curve(plan, 0)
    process = launch("tiny.py")
    told = process.communicate(timeout=200)[0]
    assert process.returncode == 0, told
    found = json.loads((plan.folder / results.RESULTS_JSON).read_text())
    assert [row["state"] for row in found["trials"]] == ["complete"] * 2
    for row in found["trials"]:
        record = json.loads((plan.run_folder(row["number"]) / trial.RECORD_FILE).read_text())
        assert (record["split"], record["steps"]) == ("validation", 60)
        assert row["value"] == min(value for _, value in trial.curve(plan, row["number"]))
    assert trial.curve(plan, 0)[: len(begun)] == begun
    assert (
        len(json.loads((plan.run_folder(0) / "attempts.json").read_text())["attempts"]) == 2
    )  # resumed, not begun again


def test_a_sweep_without_a_validation_part_is_refused(tmp_path):
    (tmp_path / "tiny.py").write_text(REAL % 0.0)
    with pytest.raises(UserError, match="data.validation"):
        run.check_sweep(str(tmp_path / "tiny.py"))


def test_a_sweep_for_other_devices_than_these_is_sound(tmp_path):
    meshed = REAL.replace('"eval.every": 2', '"eval.every": 2, "sharding.model": 3, "data.batch_size": 3 * 8 + 1')
    (tmp_path / "tiny.py").write_text(meshed % 0.1)
    assert "2 trials of configs/vae_digits.py:debug" in run.check_sweep(str(tmp_path / "tiny.py"))


def test_words_of_the_command_line_that_are_no_amounts_are_told():
    assert run.amounts(["cpu=2", "gpu=0.5"], "--resources") == {"cpu": 2, "gpu": 0.5}
    for word in ("cpu=abc", "cpu=-1", "gpu=nan", "gpu=inf"):
        with pytest.raises(UserError, match=f"--resources={word}: expected a number"):
            run.amounts([word], "--resources")
    with pytest.raises(UserError, match="--resources=cpu: expected NAME=VALUE"):
        run.amounts(["cpu"], "--resources")


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("a warning\nerror: config.x is wrong\nset it right\n", "config.x is wrong\nset it right"),
        ("Traceback\nValueError: 3\n", "ValueError: 3"),
        ("", "the check ended with exit status 1"),
    ],
)
def test_what_the_check_says_is_told_whole(monkeypatch, printed, told):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", printed))
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        run._probe("tiny.py")


class Executor:
    """Stands in for submitit's, whose process is killed while it submits."""

    cluster = "slurm"

    def __init__(self):
        self.submitted = []

    def map_array(self, call, tasks):
        self.submitted += tasks
        raise KeyboardInterrupt


def test_jobs_that_may_be_in_the_queue_are_not_submitted_again(make, tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'genflow[slurm]'")
    executor, file = Executor(), make(num_trials=3)
    monkeypatch.setattr(queue, "make_executor", lambda *_: executor)
    place = run.Place("slurm")
    with pytest.raises(KeyboardInterrupt):
        run.run_sweep(file, "out", place=place)
    assert len(executor.submitted) == 3
    with pytest.raises(UserError, match="squeue --me --name=tiny"):
        run.run_sweep(file, "out", place=place)
    assert len(executor.submitted) == 3
    marker = tmp_path / "out" / "slurm" / queue.MARKER_FILE
    for words, remains in (("Invalid partition", False), ("Socket timed out on send", True)):
        marker.unlink()
        wrong = submitit.core.utils.FailedJobError(words)
        monkeypatch.setattr(executor, "map_array", lambda *_, wrong=wrong: (_ for _ in ()).throw(wrong))
        with pytest.raises(UserError, match=words):
            run.run_sweep(file, "out", place=place)
        assert marker.exists() == remains
        marker.touch()


def test_a_slurm_array_is_drawn_at_once(make, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'genflow[slurm]'")
    place = run.Place("slurm", cluster="local", slurm={"timeout_min": 5})
    found = run.run_sweep(make(num_trials=3), "out", place=place)
    assert not (tmp_path / "out" / "slurm" / queue.MARKER_FILE).exists()
    assert [row["state"] for row in found["trials"]] == ["complete"] * 3
    check_each_once(tmp_path / "out", 3)
    with pytest.raises(UserError, match="use random or grid"):
        run.run_sweep(make(sampler="tpe"), "other", place=place)
    for wrong in ({"no_such_option": 1}, {"timeout_min": 0.2}):
        with pytest.raises(UserError, match=f"--engine=slurm: (.|\n)*{next(iter(wrong))}"):
            run.run_sweep(make(num_trials=3), "third", place=place._replace(slurm=wrong))
    assert not list(tmp_path.glob(f"other/{study.SWEEP_FILE}")) + list(tmp_path.glob(f"third/{study.SWEEP_FILE}"))


def test_a_job_that_is_out_of_time_saves_and_is_queued_again(make, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'genflow[slurm]'")
    monkeypatch.setenv("PAUSE", "0.1")
    out = tmp_path / "out"

    def warn():
        wait_for(lambda: starts(out))
        os.kill(pid_of("submitit.core._submit", out / "slurm"), signal.SIGUSR2)

    queue_itself = threading.Thread(target=warn)
    queue_itself.start()
    run.run_sweep(make(num_trials=1), "out", place=run.Place("slurm", cluster="local", slurm={"timeout_min": 1}))
    queue_itself.join()
    check_each_once(out, 1)
    assert (len(starts(out)["000"]), (out / "trials" / "000" / "saved").exists()) == (2, True)
    assert len(list((out / "slurm").glob("*_submitted.pkl"))) == 1  # the job itself came again


def needs_ray(test):
    missing = importlib.util.find_spec("ray") is None
    reason = "ray is not installed: pip install 'genflow[ray]'"
    return pytest.mark.extras(pytest.mark.skipif(missing, reason=reason)(test))


@needs_ray
def test_ray_tune_runs_the_same_trials(make, tmp_path):
    words = ["--engine=ray", "--resources=cpu=1", "--workdir=out"]
    command = [sys.executable, str(SCRIPT), make(num_trials=3), *words]
    environment = {**os.environ, "PYTHONPATH": str(cli.ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stdout + done.stderr
    check_each_once(tmp_path / "out", 3)
    states = [row["state"] for row in json.loads((tmp_path / "out" / results.RESULTS_JSON).read_text())["trials"]]
    assert states == ["complete"] * 3


@needs_ray
def test_a_cluster_that_cannot_run_a_trial_is_told(capsys):
    from genflow.sweep.ray_tune import check_room

    small, large = ({"Alive": True, "Resources": {"CPU": 4.0 * n, "GPU": n - 1.0}} for n in (1, 2))
    for resources in ({"cpu": 4}, {"cpu": 4, "gpu": 0}, {"cpu": 8, "gpu": 1}):
        check_room([small, large], resources, grows=False)
    for nodes in ([], [small], [small, large | {"Alive": False}]):
        with pytest.raises(UserError, match="--resources=cpu=1 --resources=gpu=1: no node has these; ask for less"):
            check_room(nodes, {"cpu": 1, "gpu": 1}, grows=False)
    assert not capsys.readouterr().err
    check_room([small], {"gpu": 1}, grows=True)
    assert capsys.readouterr().err == "--resources=gpu=1: no node has these; waiting for one that has\n"


@needs_ray
@pytest.mark.parametrize("signals", [[], [signal.SIGINT]])
def test_a_trial_on_ray_is_given_up_by_itself_and_not_because_its_sweep_is_stopped(monkeypatch, signals):
    from genflow.sweep import ray_tune

    lost = trial.Outcome("interrupted", None, "")
    monkeypatch.setattr(ray_tune.trial, "outcome", lambda *_: lost)
    search, settled = object.__new__(ray_tune.Search), []
    search._plan, search._signals, search._waiting, search.pruned = None, signals, [], set()
    search._restarts = types.SimpleNamespace(allow=lambda number: False)
    search._settle = lambda *found: settled.append(found)
    search.numbers = {"a": 7}
    search.on_trial_complete("a")
    assert (search._waiting, settled) == (([7], []) if signals else ([], [(7, lost)]))


@needs_ray
def test_a_step_on_ray_ends_with_a_validation_or_a_turn(make, tmp_path, monkeypatch):
    from genflow.sweep import ray_tune

    monkeypatch.setattr(ray_tune, "TURN", 0.1)
    monkeypatch.setattr(driver, "POLL", 0.02)
    monkeypatch.setenv("PAUSE", "0.1")
    plan = run.plan_of(make(overrides={"train.num_steps": 8, "eval.every": 2}), "out", 0)
    plan.folder.mkdir()
    known = study.Study(plan)
    actor = object.__new__(ray_tune.Trainable)
    actor.setup({"number": 0, "command": driver.make_job(plan, known, known.ask()).command}, plan, "")
    told = [actor.step()]
    while not told[-1]["done"]:
        told.append(actor.step())
    assert (told[-1]["status"], {step["status"] for step in told[:-1]}) == (0, {None})
    assert [step["validations"] for step in told if step["is_news"]][:3] == [1, 2, 3]
    assert not all(step["is_news"] for step in told[:-1])


CLUSTER = """
import ray, sys
found = ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR")
print(found.address_info["address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster():
    """The address of a Ray cluster that outlives the sweeps; its trials take 0.05 s a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PAUSE", "0.05")
        words = [sys.executable, "-c", CLUSTER]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield process.stdout.readline().strip()
            process.stdin.close()


@needs_ray
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_trials_on_ray_save_when_their_sweep_is_stopped_or_killed(make, tmp_path, cluster, how):
    file, out = make(num_trials=1, overrides={"train.num_steps": 80, "eval.every": 80}), tmp_path / "out"
    words = ["--engine=ray", f"--ray_address={cluster}"]
    process = launch(file, *words)
    wait_for(lambda: starts(out))
    os.killpg(process.pid, how)
    told = process.communicate(timeout=60)[0]
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), told
    wait_for((out / "trials" / "000" / "saved").exists, 10)
    if how == signal.SIGINT:
        assert told.splitlines()[-1] == "stopped; run the same command to go on"
        return
    process = launch(file, *words)
    told = process.communicate(timeout=100)[0]
    assert process.returncode == 0, told
    check_each_once(out, 1)
    assert len(starts(out)["000"]) == 2


@pytest.mark.parametrize(("engine", "package", "extra"), [("ray", "ray", "ray"), ("slurm", "submitit", "slurm")])
def test_a_missing_engine_is_told(make, tmp_path, monkeypatch, engine, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "genflow.sweep.ray_tune", raising=False)
    monkeypatch.delattr("genflow.sweep.ray_tune", raising=False)
    with pytest.raises(UserError, match=re.escape(f"pip install 'genflow[{extra}]'")):
        run.run_sweep(make(), "out", place=run.Place(engine))
    assert not (tmp_path / "out").exists()
