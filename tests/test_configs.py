"""Every experiment of configs/: it says what it is, its model section fits the builder, its :debug does everything."""

import ast
import functools
import inspect
import json
import re
import shlex

import jax
import numpy as np
import pytest
from PIL import Image

import main
from configs import common
from genflow import cli, models, schema, workdir
from genflow.data.densities import DENSITIES
from genflow.experiment import assemble, initializer, make_feed
from genflow.metrics import read_rows
from genflow.plan import topology
from genflow.report.text import RULE
from genflow.step import make_call, make_step

FILES = {path.stem: path for path in cli.config_files()}
EMBEDDED = ("descriptions", "digits", "patches", "tones", *DENSITIES)
# Scored and sampled again from the folder alone, by the same code for every model: one for each unit and kind of bound.
EVALUATED = (
    "ddpm_digits",
    "glow_digits",
    "gpt_enwik8",
    "iwae_mnist",
    "made_digits",
    "maf_toy",
    "residual_flow_cifar10",
    "wavenet_speech",
)
DRAWN = ("synthetic:", "target:", "trajectories:")
RECORD = set(
    "name paper expect command config_hash model receptive_field data bound unit split num_examples value "
    "standard_error abilities baselines validation steps best_step importance_samples seed git_revision versions "
    "hardware wall_seconds seconds goodput images_per_second skipped_updates rollbacks nonfinite_samples diagnostics "
    "diagnostics_heading params_sha256 num_parameters created_utc".split()
)
TRAIN_ROW = {"step", "split", "time_utc", "loss", "grad_norm", "skipped", "skipped_in_a_row", "images_per_second"}


def load(name, arg=""):
    return cli.load_config(f"configs/{name}.py" + f":{arg}" * bool(arg))


def strict_json(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# What a file says


@pytest.mark.parametrize("name", FILES)
def test_docstring_says_paper_command_and_expectation(name):
    doc = ast.get_docstring(ast.parse(FILES[name].read_text()))
    found = {word: cli.entry(doc, word) for word in ("Paper", "Run", "Slice", "Expect")}
    assert all(found.values()), found
    assert re.search(r"[A-Z]\w+.* \((19|20)\d\d\)", found["Paper"])
    assert len(doc.splitlines()[0]) > 20
    program, script, *words = shlex.split(found["Run"])
    assert (program, script, words[0]) == ("python", "main.py", f"--config=configs/{name}.py")
    config = cli.parse(["main.py", *words])
    slice_size = topology.parse(found["Slice"]).chips
    assert config.data.batch_size % slice_size == config.eval.batch_size % slice_size == 0
    assert config.name == name
    assert (config.paper, config.expect) == (found["Paper"], found["Expect"])


@pytest.mark.parametrize("name", FILES)
def test_expectation_has_a_unit_and_a_cost_or_says_that_it_was_not_run(name):
    expect = load(name).expect
    assert re.search(r"bits/(dim|char|sample)|nats|FID", expect), expect
    assert "not run" in expect or re.search(r"(minute|hour|second|day)s? on ", expect), expect


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("arg", ["", "debug"])
def test_model_section_lists_the_arguments_of_the_builder(name, arg):
    section = load(name, arg).model
    arguments = list(inspect.signature(models.MODELS[section.name]).parameters)
    assert arguments[0] == "spec"
    assert {"name", *arguments[1:]} == set(section)


@pytest.mark.parametrize("name", FILES)
def test_config_survives_config_json(name, tmp_path):
    config = load(name)
    workdir.write_config(tmp_path, config)
    assert workdir.diff(workdir.read_config(tmp_path), config) == []


@pytest.mark.parametrize("name", FILES)
def test_debug_is_the_same_experiment_made_small(name):
    full, debug = load(name), load(name, "debug")
    assert debug.name == f"{name}-debug"
    assert debug.model.name == full.model.name
    assert debug.train.num_steps == 4
    assert debug.data.name in EMBEDDED or debug.data.name.startswith(DRAWN)
    changed = {field for field, *_ in workdir.diff(full, debug)}
    assert changed <= {field for field, _ in schema.fields(full)}
    shortened = {"optimizer.warmup_steps", "optimizer.groups.generator.every"}
    assert not {f for f in changed if f.startswith("optimizer.")} - shortened


# What :debug does, through the command line


def run(*words):
    main.main(main.parse_flags(["main.py", *map(str, words)]))


def kind(config):
    """Of the data: it decides what a run draws and in which unit it is scored."""
    source, _, shape = config.data.name.partition(":")
    if source == "digits" or shape.count("x") == 2:
        return "image"
    return "vectors" if source in ("synthetic", *DENSITIES) else source


def choices(config):
    """What sets the program of a debug run apart: the model's choices (not its sizes), and the data.

    Optimizers, augmentation, sources of images, their bits, and what the backward pass keeps in memory have tests of
    their own.
    """
    chosen = {k: v for k, v in config.model.items() if isinstance(v, str | bool) and k != "memory"}
    switches = {k: bool(v) for k, v in config.model.items() if isinstance(v, float)}
    return str([chosen, switches, kind(config), config.data.name.rpartition(":")[2] == "2"])


DEBUG = {name: load(name, "debug") for name in reversed(FILES)}
# Run from beginning to end: of models that can do the same with the same kind of data, one that compiles soon.
RUN = (
    *EVALUATED,
    "bayesian_regression",
    "boltzmann_double_well",
    "flow_matching_toy",
    "gan_mnist",
    "gan_toy1d",
    "igebm_digits",
    "jem_digits",
    "ladder_mnist",
    "nsf_power",
    "ncsn_digits",
    "rbm_digits",
    "rbm_mnist",
    "vae_digits",
    "wrn_digits",
)
# Half a minute of compilation each, of functions that test_models compiles too.
LONG = ("edm_cifar10", "flow_matching_digits", "score_sde_cifar10", "vdm_digits")
TRACED = {choices(DEBUG[name]): name for name in (*DEBUG, *RUN)}
TRACED = sorted(set(TRACED.values()) - set(RUN))


@functools.cache
def assembled(name):
    return assemble(DEBUG[name])


def abilities(name):
    """What decides which code a run goes through: what the model can do, and the kind of data."""
    model = assembled(name).model
    able = [field for field, value in model._asdict().items() if value is not None]
    return (*able, model.bound, len(model.losses), kind(DEBUG[name]))


def test_every_model_is_traced_and_all_that_models_can_do_is_run():
    assert {DEBUG[name].model.name for name in (*RUN, *TRACED)} == set(models.MODELS)
    assert {choices(c) for c in DEBUG.values()} == {choices(DEBUG[name]) for name in (*RUN, *TRACED)}
    done = {abilities(name) for name in (*RUN, *LONG)}
    assert [name for name in DEBUG if abilities(name) not in done] == []


@pytest.mark.parametrize("name", TRACED)
def test_debug_with_other_choices_can_train_score_and_draw(name):
    experiment = assembled(name)
    target, feed = initializer(experiment)[1], make_feed(experiment)
    model, step = experiment.model, make_step(experiment.model, experiment.optimizers, 0, DEBUG[name].train.ema_decay)
    call = make_call(step, feed.fetch)
    after, metrics = jax.eval_shape(call, target, feed.data, feed.entries(0, 1), jax.ShapeDtypeStruct((), np.int32))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), target)
    assert {"loss", "grad_norm"} <= {name.rpartition("/")[2] for name in metrics}
    batch, key = experiment.evaluation["test"].fetch(np.arange(4)), jax.random.key(0)
    if model.log_prob is not None:
        values = jax.eval_shape(model.log_prob, after.params, after.state, key, batch)
        assert values.shape == (4,)
    if model.sample is not None:
        drawn = jax.eval_shape(lambda p, s: model.sample(p, s, key, 4), after.params, after.state)
        assert drawn.shape == (4, *experiment.spec.shape)


@pytest.mark.parametrize("name", RUN)
def test_debug_trains_evaluates_and_samples(name, tmp_path, capsys):
    run(f"--config=configs/{name}.py:debug", f"--workdir={tmp_path}")
    config, record = load(name, "debug"), strict_json((tmp_path / "record.json").read_text())
    check_record(config, record)
    check_rows(config, record, read_rows(tmp_path))
    check_files(config, record, tmp_path)
    out = capsys.readouterr().out
    check_table(record, tmp_path, out)
    check_diagnostics(config, record, tmp_path, out)
    if name in EVALUATED:
        run("--mode=eval", f"--workdir={tmp_path}")
        check_evaluation(record, strict_json((tmp_path / "eval_seed_0.json").read_text()))
        capsys.readouterr()
        run("--mode=sample", f"--workdir={tmp_path}", "--num=4", "--temperature=0.7", "--seed=1")
        check_samples(config, record, tmp_path, capsys.readouterr().out)


def check_record(config, record):
    assert set(record) == RECORD
    assert (record["name"], record["paper"], record["expect"]) == (config.name, config.paper, config.expect)
    assert record["config_hash"] == workdir.config_hash(config)
    assert (record["model"], record["steps"], record["seed"]) == (config.model.name, 4, 0)
    assert record["best_step"] in (2, 4)
    figures = record["baselines"]
    if record["bound"] == "none":
        assert [record[k] for k in ("value", "standard_error", "validation", "num_examples")] == [None, None, None, 0]
    else:
        assert record["bound"] in ("exact", "lower", "average", "estimate")
        assert (record["split"], record["num_examples"]) == ("test", 16)
        assert record["standard_error"] > 0
        figures = [record, record["validation"], *figures]
    assert all(np.isfinite(line["value"]) for line in figures)
    assert len(record["baselines"]) >= 2 * config.eval.baselines
    assert (record["skipped_updates"], record["nonfinite_samples"]) == (0, 0)
    assert re.fullmatch("[0-9a-f]{64}", record["params_sha256"])
    assert record["num_parameters"] > 50
    assert record["versions"]["jax"] == jax.__version__
    assert {"compile", "train", "eval", "samples", "checkpoint"} <= set(record["seconds"])
    assert 0 < sum(record["seconds"].values()) < 300


def check_rows(config, record, rows):
    unit = record["unit"].replace("/", "_per_")
    splits = ("train",) if record["bound"] == "none" else ("train", "validation")
    assert [(row["step"], row["split"]) for row in rows] == [(step, split) for step in (2, 4) for split in splits]
    for row in rows:
        assert row["time_utc"].endswith("+00:00")
        assert all(np.isfinite(value) for key, value in row.items() if key not in ("split", "time_utc"))
    for row in rows[:: len(splits)]:
        groups = {name.partition("/")[0] for name in row if name.endswith("/grad_norm")} or {""}
        for group in groups:
            own = {name.removeprefix(f"{group}/").removesuffix(f"/{group}") for name in row} if group else set(row)
            assert TRAIN_ROW | {"learning_rate"} <= own
        assert {unit, "nll"} <= set(row) or any(name.endswith(("_loss", "_gap", "/real")) for name in row)
        rates = [value for name, value in row.items() if name.startswith("learning_rate")]
        assert len(rates) == len(groups)
        assert 0 < min(rates) <= max(rates) <= config.optimizer.learning_rate * 1.001
        assert row["skipped"] == 0
    if record["bound"] == "none":
        return
    best = min(rows[1::2], key=lambda row: row[unit]) if config.eval.select == "best" else rows[-1]
    assert (best["step"], best[unit]) == (record["best_step"], pytest.approx(record["validation"]["value"], rel=1e-6))


def check_files(config, record, folder):
    assert workdir.diff(workdir.read_config(folder), config) == []
    strict_json((folder / "config.json").read_text())
    assert sum(p.stat().st_size for p in (folder / "tensorboard").glob("events.out.tfevents.*")) > 500
    assert sorted(p.name for p in (folder / "checkpoints" / "latest").iterdir() if p.name.isdigit()) == ["4"]
    if config.eval.select == "best":
        assert (folder / "checkpoints" / "best" / str(record["best_step"])).is_dir()
    is_text = record["unit"] == "bits/char"
    pictures = sorted((folder / "samples").glob("*.png"))
    assert pictures or is_text
    for path in pictures:
        with Image.open(path) as picture:
            assert min(np.asarray(picture).shape[:2]) > 4
    report = (folder / "report.html").read_text("utf-8")
    assert config.name in report
    if film := list((folder / "samples").glob("*.gif")):
        assert "data:image/gif;base64," in report
        with Image.open(film[0]) as picture:
            assert picture.n_frames == len(pictures) > 1
    else:
        assert report.count('<div class="texts">' if is_text else "data:image/png;base64,") >= 2
    assert not re.search(r"<script|<link|src=.?http|\bnan\b", report)
    assert not [p for p in folder.rglob("*.part")]


def check_table(record, folder, out):
    for line in record["baselines"]:
        assert f"{line['name']} " in out
    if record["bound"] == "none":
        assert "no likelihood" in out
        report, refused = (folder / "report.html").read_text("utf-8"), "sample" not in record["abilities"]
        assert ("--mode=sample" not in report) == ("no samples" in out) == refused
        script = "python scripts/evaluate_classifier.py --workdir="
        assert (script in report) == ("classify" in record["abilities"])
        assert not refused or script in out
    else:
        figure = rf"{record['value']:.4f} \+- {record['standard_error']:.4f}"
        assert re.search(rf"^  {re.escape(record['name'])} \(this run\) .* {figure}$", out, re.MULTILINE)
    for name in ("report.html", "record.json", "samples", "checkpoints"):
        assert str(folder / name) in out


def check_diagnostics(config, record, folder, out):
    found = {line["name"]: line["value"] for line in record["diagnostics"]}
    has_latents, has_terms = "KL, nats" in found, f"decoder, {record['unit']}" in found
    is_compared, classifies = bool(config.eval.num_samples), config.model.name in ("classifier", "jem")
    has_target, has_partition = hasattr(config.model, "target"), any(name.startswith("log Z by ") for name in found)
    assert bool(found) == (has_target or has_latents or has_terms or has_partition or is_compared or classifies)
    assert {"test accuracy of p(y | x)", "test cross-entropy of p(y | x), nats"} <= set(found) or not classifies
    assert has_partition == (config.model.name == "rbm")
    assert has_terms == (config.model.name == "ddpm") == (folder / "samples" / "terms_of_the_bound.png").is_file()
    assert has_latents == any(hasattr(config.model, name) for name in ("beta", "latent_dims", "latents"))
    report = (folder / "report.html").read_text("utf-8")
    assert ("Importance weights" in report) == has_target
    assert ("Partition function" in report) == has_partition
    assert ("Samples beside test data, 16 each" in report) == is_compared
    assert ("Classification, on 16 test examples" in report) == classifies
    assert not found or f"\n{record['diagnostics_heading']}\n" in out
    assert ("Latent variables, on 16 test examples" in report) == has_latents
    for name, value in found.items():
        shown = f"{value:.0f}" if value == int(value) else f"{value:.4f}"
        assert re.search(rf"^  {re.escape(name)} .*{shown}", out, re.MULTILINE)


def check_evaluation(record, evaluation):
    assert (evaluation["name"], evaluation["step"]) == (record["name"], record["best_step"])
    assert (evaluation["unit"], evaluation["bound"]) == (record["unit"], record["bound"])
    assert evaluation["test"]["value"] == pytest.approx(record["value"], rel=1e-6)
    assert evaluation["validation"]["value"] == pytest.approx(record["validation"]["value"], rel=1e-6)


def check_samples(config, record, folder, out):
    path = folder / "samples" / "num_4_temperature_0.7_seed_1.npy"
    samples = np.load(path, allow_pickle=False)
    assert str(path) in out
    assert samples.shape[0] == 4
    assert np.isfinite(samples).all()
    assert samples.std() > 0
    if record["unit"] == "bits/dim" or config.data.name.endswith(":2"):  # binary images are scored in nats
        assert samples.ndim == 4
        assert np.array_equal(samples, np.round(samples))
        assert samples.min() >= 0
        assert path.with_suffix(".png").is_file()
    elif record["unit"] == "bits/char":
        assert samples.shape == (4, config.data.window)
        assert path.with_suffix(".txt").read_text("utf-8").count(RULE) == 3
    elif record["unit"] == "bits/sample":
        assert samples.shape == (4, config.data.window)
        for suffix in (".png", "_1.wav", "_4.wav"):
            assert path.with_name(path.stem + suffix).is_file()
    else:
        assert samples.ndim == 2


def test_common_has_a_rule_only_for_fields_that_exist():
    known = dict(schema.fields(common.base()))
    arguments = {f"model.{a}" for build in models.MODELS.values() for a in inspect.signature(build).parameters}
    sections = {field.rpartition(".")[0] for field in known}
    for field in (*common.CHOICES, *common.POSITIVE, *common.SIGNED, *schema.FORMS, *schema.FILLED):
        assert field in known or field in arguments
    for field in common.RESUMABLE:
        assert field in known or field in sections
    for field, choices in common.CHOICES.items():
        assert known.get(field, choices[0]) in choices
