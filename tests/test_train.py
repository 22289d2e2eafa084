"""The loop: resuming is exact, signals save, broken runs stop, one device equals eight."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ENVIRONMENT

from genflow import checkpoint, cli, hosts, models, train, use
from genflow.errors import UserError
from genflow.experiment import ROLLBACK_STRIDE, assemble, make_feed
from genflow.metrics import read_rows

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = "configs/realnvp_toy.py:debug"
OVERRIDES = {
    "train.num_steps": "200",
    "train.steps_per_call": "20",
    "train.log_every": "50",
    "train.ema_decay": "0.9",
    "eval.every": "100",
    "checkpoint.every": "50",
    "data.batch_size": "8",
}
LAST = {"eval__select": "last", "eval__every": 0, "optimizer__learning_rate": 0.3}
RESUMABLE = ("train.num_steps", "checkpoint")


def config(**overrides):
    """The toy experiment of this file, with fields changed."""
    return cli.load_config(CONFIG, OVERRIDES | {name.replace("__", "."): str(v) for name, v in overrides.items()})


def launch(workdir, devices, failpoint="", **overrides):
    """`python main.py` in a process of its own."""
    fields = OVERRIDES | {name.replace("__", "."): str(v) for name, v in overrides.items()}
    arguments = [f"--config.{name}={value}" for name, value in fields.items()]
    flags = ENVIRONMENT["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    environment = os.environ | ENVIRONMENT | {"XLA_FLAGS": flags, "GENFLOW_FAILPOINT": failpoint}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), f"--config={CONFIG}", f"--workdir={workdir}", *arguments],
        env=environment,
        cwd=workdir.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    """(status, stderr) of a process."""
    _, errors = process.communicate(timeout=120)
    return process.returncode, errors


def leaves(workdir, step=200):
    """Name, shape, type and digest of every leaf of the saved state: parameters, optimizer, average, counters."""
    text = (workdir / "checkpoints" / "latest" / str(step) / "record" / "metadata").read_text()
    return json.loads(text)["record"]["leaves"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """{number of devices: run folder} of 200 steps in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = launch(folder / "one", 1)
    train.train(config(), str(folder / "eight"))
    status, errors = finished(process)
    assert status == 0, errors
    return {1: folder / "one", 8: folder / "eight"}


def test_a_killed_run_resumes_to_the_same_bits_on_one_device(uninterrupted, tmp_path):
    status, errors = finished(launch(tmp_path / "run", 1, "train/step@120:kill9"))
    assert status == -signal.SIGKILL, errors
    status, errors = finished(launch(tmp_path / "run", 1))
    assert status == 0, errors
    assert "resuming" in errors
    assert leaves(tmp_path / "run") == leaves(uninterrupted[1])
    records = [json.loads((folder / "record.json").read_text()) for folder in (tmp_path / "run", uninterrupted[1])]
    assert records[0]["params_sha256"] == records[1]["params_sha256"]
    assert records[0]["value"] == records[1]["value"]
    rows = [[(r["step"], r["split"], r.get("nll")) for r in read_rows(f)] for f in (tmp_path / "run", uninterrupted[1])]
    assert rows[0] == rows[1]


def test_a_killed_and_a_stopped_run_resume_to_the_same_bits_on_eight_devices(uninterrupted, tmp_path):
    killed = launch(tmp_path / "killed", 8, "train/step@120:kill9")
    stopped = launch(tmp_path / "stopped", 8, "train/step@50:term")
    status, errors = finished(stopped)
    assert status == 128 + signal.SIGTERM, errors
    assert "run the same command to resume" in errors
    status, errors = finished(killed)
    assert status == -signal.SIGKILL, errors
    for name in ("killed", "stopped"):
        train.train(config(), str(tmp_path / name))
        assert leaves(tmp_path / name) == leaves(uninterrupted[8])


def test_one_device_equals_eight_to_rounding(uninterrupted):
    values = [json.loads((folder / "record.json").read_text())["value"] for folder in uninterrupted.values()]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


def test_a_finished_run_is_only_scored_again_and_can_be_prolonged(uninterrupted):
    before = leaves(uninterrupted[8])
    again = train.train(config(), str(uninterrupted[8]))
    assert leaves(uninterrupted[8]) == before
    assert again["value"] == json.loads((uninterrupted[8] / "record.json").read_text())["value"]
    longer = train.train(config(train__num_steps=220), str(uninterrupted[8]), RESUMABLE)
    assert longer["steps"] == 220


def test_a_changed_model_is_refused_with_the_difference(uninterrupted):
    with pytest.raises(UserError, match=r"config.model.depth: 2 -> 3"):
        train.train(config(model__depth=3), str(uninterrupted[1]), RESUMABLE)


def test_the_run_folder_alone_is_enough_to_score_and_sample(uninterrupted, capsys):
    record = json.loads((uninterrupted[1] / "record.json").read_text())
    result = use.evaluate_run(str(uninterrupted[1]), seed=0)
    np.testing.assert_allclose(result["test"]["value"], record["value"], rtol=1e-5)
    one, two = (use.sample_run(str(uninterrupted[1]), num=16, temperature=0.5, seed=s) for s in (0, 1))
    assert one.shape == (16, 2)
    assert (one != two).any()
    assert "16_temperature_0.5_seed_1.npy" in capsys.readouterr().out


@pytest.mark.parametrize("fields", [{"data.name": "digits"}, {"model.depth": "0"}, {"data.batch_size": "12"}])
def test_what_does_not_fit_together_leaves_no_folder(tmp_path, fields):
    with pytest.raises(UserError):
        train.train(cli.load_config(CONFIG, fields), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("('kernl', ('model',))", r"'kernl' .* of 1 or more dimensions; there are params/\S+/kernel, params/\S+, \S+$"),
        ("('kernel', ('', '', '', 'model'))", "'kernel' matches no parameter of 4 or more dimensions; there are none"),
    ],
)
def test_a_rule_that_speaks_of_nothing_is_told_with_what_there_is(tmp_path, rule, told):
    mistyped = config(sharding__rules=f"(('bias', ()), {rule})")
    with pytest.raises(UserError, match=told):
        train.train(mistyped, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_be_initialized_leaves_no_folder(tmp_path, monkeypatch):
    def broken(section, spec):
        def init(key, batch):
            raise UserError("no such parameters")

        return build(section, spec)._replace(init=init)

    build = models.build
    monkeypatch.setattr(models, "build", broken)
    with pytest.raises(UserError, match="no such parameters"):
        train.train(config(), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_another_host_does_not_see_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(hosts, "check_same", lambda what, value: None)
    monkeypatch.setattr(hosts, "every", lambda value: [value, ""])
    with pytest.raises(UserError, match="process 1 does not see the run folder of process 0: --workdir="):
        train.train(config(), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_other_words_about_an_experiment_are_the_same_experiment(uninterrupted):
    renamed = config()
    renamed.unlock()
    renamed.update(paper="another", expect="more")
    assert train.train(renamed, str(uninterrupted[1]))["steps"] == 200


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.mkdir(), "config.json"),
    ],
)
def test_a_folder_without_a_run_is_named(tmp_path, make, message):
    make(tmp_path / "nothing")
    with pytest.raises(UserError, match=message):
        use.evaluate_run(str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer__learning_rate": 1e30}, "were not finite and were skipped"),
        ({"optimizer__skip_norm": 1e-6}, "were not finite or above optimizer.skip_norm and were skipped"),
    ],
)
def test_a_run_that_diverges_stops_with_its_parameters_intact(tmp_path, fields, message):
    diverging = config(optimizer__clip_norm=0.0, train__max_skipped=5, **fields)
    with pytest.raises(UserError, match=message):
        train.train(diverging, str(tmp_path / "run"))


def falling(from_step, seeds):
    """A builder of models that say that they diverged from a step on, while the noise is that of one of some seeds."""

    def noise(seed, step):
        key = jax.random.fold_in(jax.random.key(seed), step.astype(jnp.int32))
        return jax.random.fold_in(jax.random.fold_in(key, 0), 0)  # of the first group, and its first micro-batch

    def builder(section, spec):
        model = build(section, spec)

        def init(key, batch):
            params, state = model.init(key, batch)
            return params, {"count": jnp.zeros(()), "inner": state}

        def loss(params, state, key, batch):
            same = [(jax.random.key_data(noise(s, state["count"])) == jax.random.key_data(key)).all() for s in seeds]
            value, (inner, metrics) = model.losses["model"](params, state["inner"], key, batch)
            diverged = jnp.stack(same).any() & (state["count"] >= from_step)
            state = {"count": state["count"] + 1, "inner": inner}
            return value, (state, metrics | {"diverged": diverged.astype(jnp.float32)})

        def sample(params, state, *rest, **options):
            return model.sample(params, state["inner"], *rest, **options)

        return model._replace(init=init, losses={"model": loss}, sample=sample)

    build = models.build
    return builder


@pytest.mark.parametrize(
    ("seeds", "from_step", "targets", "abandoned"),
    [((0,), 90, [50], [100]), ((0, ROLLBACK_STRIDE), 140, [100, 50], [100, 150, 150]), ((0,), 30, [0], [])],
)
def test_a_run_that_diverges_goes_back_to_a_checkpoint_with_other_noise(
    tmp_path, capsys, monkeypatch, seeds, from_step, targets, abandoned
):
    """With the noise of these seeds it diverges again and again: each time one checkpoint further back."""
    monkeypatch.setattr(models, "build", falling(from_step, seeds))
    record = train.train(config(train__max_rollbacks=2, eval__every=0), str(tmp_path / "run"))
    said = [int(word) for word in re.findall(r"back to step (\d+), with other noise", capsys.readouterr().err)]
    assert said == targets
    assert (record["rollbacks"], record["steps"], record["skipped_updates"]) == (len(seeds), 200, 0)
    rows = read_rows(tmp_path / "run")
    assert [row["step"] for row in rows if row["split"] == "train"] == [50, 100, 150, 200]
    assert [row["step"] for row in rows if row["split"] == "abandoned"] == abandoned
    with pytest.raises(UserError, match=r"training diverged by step .*; the checkpoints are intact\nlower --config"):
        train.train(config(train__max_rollbacks=len(seeds) - 1, eval__every=0), str(tmp_path / "other"))


def test_what_was_best_after_the_step_gone_back_to_is_forgotten(tmp_path, capsys, monkeypatch):
    """Without noise every later step is better: what is scored at the end must be of the second trajectory."""
    monkeypatch.setattr(models, "build", falling(140, (0,)))
    fields = {"eval__every": 20, "checkpoint__every": 50, "train__max_rollbacks": 1, "eval__num_repeats": 1}
    record = train.train(config(**fields), str(tmp_path / "run"))
    assert record["rollbacks"] == 1
    scored = {row["step"]: row for row in read_rows(tmp_path / "run") if row["split"] == "validation"}
    lowest = min(scored.values(), key=lambda row: row["nats"])
    assert record["best_step"] == lowest["step"]
    assert record["validation"]["value"] == pytest.approx(lowest["nats"], rel=1e-6)


def test_what_was_best_after_the_step_resumed_from_is_forgotten(tmp_path, monkeypatch):
    """The run reaches step 40 a second time, by another schedule: what was saved there the first time is not of it."""
    fields = {"optimizer__schedule": "linear", "eval__num_repeats": 1, "checkpoint__every": 100}

    def killed(name, step):
        if step == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "failpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(config(train__num_steps=60, eval__every=20, **fields), str(tmp_path / "run"))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == []
    assert checkpoint.steps(tmp_path / "run" / "checkpoints", "best") == [40]
    shorter = config(train__num_steps=40, eval__every=40, **fields)
    record = train.train(shorter, str(tmp_path / "run"), (*RESUMABLE, "eval"))
    scored = [row["nats"] for row in read_rows(tmp_path / "run") if row["split"] == "validation"]
    assert record["best_step"] == 40
    assert [record["validation"]["value"]] == pytest.approx(scored, rel=1e-6)


def test_a_run_that_was_killed_after_a_rollback_goes_on_with_the_new_noise(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "build", falling(110, (0,)))
    run = config(train__max_rollbacks=1, eval__every=0)

    seen = []

    def killed(name, step):
        seen.append(step)
        if seen.count(120) == 2:  # after the rollback to 100, before the next checkpoint
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "failpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train(run, str(tmp_path / "run"))
    assert "back to step 100" in capsys.readouterr().err
    record = train.train(run, str(tmp_path / "run"))
    assert "back to step" not in capsys.readouterr().err
    assert (record["rollbacks"], record["steps"]) == (1, 200)


def test_a_model_that_cannot_be_scored_still_ends_with_a_record(tmp_path, capsys, monkeypatch):
    def broken(section, spec):
        model = build(section, spec)
        return model._replace(log_prob=lambda *arguments: jnp.nan * model.log_prob(*arguments))

    build = models.build
    monkeypatch.setattr(models, "build", broken)
    record = train.train(config(train__num_steps=20, eval__every=0), str(tmp_path / "run"))
    assert record["value"] is None
    assert "log_prob is not finite for 16 of 16 examples of test" in capsys.readouterr().err
    json.loads((tmp_path / "run" / "record.json").read_text(), parse_constant=pytest.fail)


def test_a_conditional_model_ends_with_a_record_and_draws_the_class_that_is_asked_for(tmp_path):
    rng = np.random.default_rng(0)
    label, cond = np.arange(96) % 2, rng.normal(50, 1, (96, 3)).astype(np.float32)
    x = (rng.normal(size=(96, 2)) + 4 * label[:, None]).astype(np.float32)
    parts = {"train": slice(0, 64), "test": slice(64, 96)}
    arrays = {
        f"{n}_{part}": a[rows] for part, rows in parts.items() for n, a in (("x", x), ("y", label), ("cond", cond))
    }
    np.savez(tmp_path / "labelled.npz", **arrays)
    name = f"array:{tmp_path / 'labelled.npz'}"
    run = str(tmp_path / "run")
    fields = {"data__name": name, "model__conditional": True, "train__num_steps": 20, "eval__every": 0}
    record = train.train(config(**fields), run)
    assert np.isfinite(record["value"])
    assert use.sample_run(run, num=4, label=1).shape == (4, 2)
    with pytest.raises(UserError, match=r"--label=2: wanted 0 \.\. 1"):
        use.sample_run(run, num=4, label=2)


def test_a_class_cannot_be_asked_of_a_model_without_classes(uninterrupted):
    with pytest.raises(UserError, match="--label=0: wanted a run with config.model.conditional=True"):
        use.sample_run(str(uninterrupted[1]), num=4, label=0)


def test_calls_end_where_something_is_due():
    section = config(train__steps_per_call=30, eval__every=100, checkpoint__every=50, train__log_every=50)
    step, stops = 0, []
    while step < 200:
        step = train.next_stop(section, step)
        stops.append(step)
    assert stops == [30, 50, 80, 100, 130, 150, 180, 200]


def test_the_checkpoint_that_is_scored_is_the_best_on_the_validation_part(tmp_path):
    wild = config(optimizer__learning_rate=0.3, optimizer__schedule="constant", eval__every=20, train__ema_decay=0.0)
    record = train.train(wild, str(tmp_path / "run"))
    rows = [row for row in read_rows(tmp_path / "run") if row["split"] == "validation"]
    best = min(rows, key=lambda row: row["nats"])
    assert best["step"] < 200, "the example must get worse at its end"
    assert record["best_step"] == best["step"]
    np.testing.assert_allclose(record["validation"]["value"], best["nats"], rtol=1e-5)
    last = train.train(config(**LAST), str(tmp_path / "last"))
    assert last["best_step"] == 200


@pytest.mark.parametrize("placement", ["host", "stream"])
def test_where_the_data_are_changes_nothing_but_rounding(uninterrupted, tmp_path, placement):
    train.train(config(data__placement=placement), str(tmp_path / "run"))
    rows = [
        [row["nll"] for row in read_rows(f) if row["split"] == "train"] for f in (tmp_path / "run", uninterrupted[8])
    ]
    np.testing.assert_allclose(rows[0], rows[1][: len(rows[0])], rtol=1e-4)


def test_a_run_that_is_chosen_among_others_is_judged_on_the_validation_part(tmp_path, capsys):
    fields = {"train__num_steps": 20, "train__log_every": 20, "eval__every": 20, "checkpoint__every": 20}
    record = train.train(config(eval__split="validation", **fields), str(tmp_path / "run"))
    assert record["split"] == "validation"
    assert record["value"] == record["validation"]["value"]
    assert record["num_examples"] == record["validation"]["num_examples"]
    assert "validation nats on" in capsys.readouterr().out
    final = train.train(config(eval__split="test", **fields), str(tmp_path / "run"), ("eval",))
    assert final["split"] == "test"
    assert final["validation"] == record["validation"]
    assert final["value"] != record["value"]
    with pytest.raises(UserError, match="eval.split=validation: no such part; set config.data.validation above 0"):
        train.train(cli.load_config("configs/glow_digits.py", {"eval.split": "validation", "data.validation": "0"}))


def test_a_stream_begins_anew_where_a_run_goes_back():
    experiment = assemble(config(data__placement="stream", train__steps_per_call=2))
    feed = make_feed(experiment)
    feed.entries(10, 2)
    np.testing.assert_array_equal(feed.entries(3, 2)["x"], make_feed(experiment).entries(3, 2)["x"])
