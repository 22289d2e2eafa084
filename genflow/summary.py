"""The end of a run: its figures beside the baselines, its pictures, record.json, report.html, one short table."""

import datetime
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from genflow import provenance
from genflow import workdir as folders
from genflow.analysis import calibration, importance, judge, latents, partition, variational_bound
from genflow.analysis.logits import each, logits
from genflow.checkpoint import digest
from genflow.core import Model, Params
from genflow.data.dataset import select
from genflow.data.transforms import binarize
from genflow.errors import UserError
from genflow.evaluate import Score, in_unit, log_probs, score, unit
from genflow.experiment import Experiment, evaluation_key, place_batch
from genflow.goodput import RunClock
from genflow.metrics import read_rows
from genflow.models.baseline import baselines
from genflow.pictures import draw, draw_bound
from genflow.report import write_report
from genflow.step import TrainState
from genflow.trained import Trained, choose

NUM_WEIGHTS = importance.NUM_WEIGHTS
BASELINE_EXAMPLES, BASELINE_VALUES = 50_000, 50_000_000  # at most, to fit the baselines


def finish(
    experiment: Experiment, target: TrainState, workdir: pathlib.Path, output: pathlib.Path, watch: RunClock
) -> dict:
    """Scores the chosen checkpoint, draws, writes record.json and report.html to `output`, prints the table."""
    trained = choose(judged(experiment), workdir, target)
    with watch.measure("eval"):
        scores = part_scores(trained, experiment.config.seed)
        references = baseline_scores(trained.experiment) if experiment.config.eval.baselines else {}
        terms = bound_terms(trained)
        found = with_samples(diagnostics(trained, terms, scores), sample_comparison(trained))
    with watch.measure("samples"):
        pictures, broken = draw(trained, output)
        pictures |= draw_bound(terms, output) if terms else {}
    record = make_record(trained, scores, references, broken, watch.seconds) | found
    record["goodput"] = watch.goodput()
    folders.write_text(output / "record.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
    with watch.measure("report"):
        write_report(output, record, read_rows(output), pictures)
    if jax.process_index() == 0:
        print(table(record, output))
    return record


def judged(experiment: Experiment) -> Experiment:
    """With what eval.split names for a test part: nobody looks at the real one while choosing among runs."""
    evaluation = experiment.evaluation
    return experiment._replace(evaluation=evaluation | {"test": evaluation[experiment.config.eval.split]})


def part_scores(trained: Trained, seed: int) -> dict[str, Score]:
    """Scores of the validation and test parts; empty for a model without log_prob."""
    experiment = trained.experiment
    if experiment.model.log_prob is None:
        return {}
    known, samples = (experiment.model, trained.params, trained.state), experiment.config.eval.importance_samples
    is_one = experiment.evaluation["test"] is experiment.evaluation["validation"]
    parts = [part for part in ("validation", "test")[: 1 if is_one else 2] if experiment.evaluation[part].num]
    scores = {part: part_score(experiment, *known, part, seed, samples) for part in parts}
    return scores | {"test": scores["validation"]} if is_one else scores


def part_score(
    experiment: Experiment, model, params, state, part: str, seed: int, importance_samples: int = 1
) -> Score:
    """The one ruler: a part's score under the evaluation noise of a seed; NaN, with a warning, for a broken model."""
    config = experiment.config.eval
    key = evaluation_key(experiment, seed)
    dataset, place = experiment.evaluation[part], place_batch(experiment)
    values = log_probs(
        model,
        params,
        state,
        dataset,
        key,
        config.batch_size,
        config.num_repeats,
        config.max_examples,
        place,
        importance_samples,
        config.samples_per_call,
    )
    try:
        return score(experiment.spec, values, part)
    except FloatingPointError as error:
        print(f"WARNING: {error}", file=sys.stderr)
        return Score(math.nan, math.nan, len(values))


def baseline_scores(experiment: Experiment) -> dict[str, Score]:
    """The baselines, fitted on the training part, on the same test part by the same ruler."""
    train, seed = experiment.train, experiment.config.seed
    count = min(train.num, BASELINE_EXAMPLES, max(BASELINE_VALUES // experiment.spec.dims, 1))
    # the first windows of a text overlap, the first recordings are of one class
    is_sorted = experiment.spec.kind in ("text", "sound")
    index = np.linspace(0, train.num - 1, count).astype(int) if is_sorted else np.arange(count)
    batch = train.fetch(index)
    x = binarize(experiment.config.data.binarize)(jax.random.key(seed), batch["x"])
    fitted = baselines(experiment.spec, np.asarray(x))
    scores = {name: part_score(experiment, model, {}, {}, "test", seed) for name, model in fitted.items()}
    if experiment.spec.entropy is not None:
        scores["entropy of the data"] = Score(experiment.spec.entropy, 0.0, 0)
    return scores


def bound_terms(trained: Trained) -> variational_bound.Terms | None:
    """Every term of the bound of a model with a chain of steps, on some test examples; None for any other model."""
    experiment = trained.experiment
    if experiment.model.diffusion is None or not experiment.model.diffusion.num_terms:
        return None
    test, config, devices = experiment.evaluation["test"], experiment.config.eval, experiment.mesh.size
    num_terms = experiment.model.diffusion.num_terms
    num = variational_bound.affordable(num_terms, min(test.num, config.max_examples or test.num))
    size = min(config.batch_size, math.ceil(num / devices) * devices)
    key = evaluation_key(experiment)
    run = experiment.model, experiment.spec, trained.params, trained.state
    return variational_bound.terms(*run, key, test, size, num, place_batch(experiment))


def diagnostics(
    trained: Trained, terms: variational_bound.Terms | None = None, scores: Mapping[str, Score] = {}
) -> dict:
    """What importance weights say of a model that has a target, test data of one that has latents, a chain or classes.

    Returns the lines and their heading, as record.json has them; of any other model no lines.
    """
    experiment, run = trained.experiment, (trained.experiment.model, trained.params, trained.state)
    key = evaluation_key(experiment)
    figures, heading, num = importance.diagnostics(*run, key), "Importance weights against the target", NUM_WEIGHTS
    if experiment.model.latent is not None:
        test, config, place = experiment.evaluation["test"], experiment.config.eval, place_batch(experiment)
        num = min(test.num, config.max_examples or latents.NUM_EXAMPLES, latents.NUM_EXAMPLES)
        figures = latents.diagnostics(*run, key, test, config.batch_size, num, place)
        heading = f"Latent variables, on {num:,} {config.split} examples"
    if terms:
        figures, num = terms.parts(), terms.num_examples
        heading = f"Terms of the variational bound, on {num:,} {experiment.config.eval.split} examples"
    if "test" in scores and experiment.model.energy_based is not None:
        spec, num = experiment.spec, scores["test"].num_examples
        known = trained.state, scores["test"], lambda nats: in_unit(spec, nats)
        figures, heading = partition.diagnostics(experiment.model, *known), "Partition function"
    lines = [_line(name, Score(value, error, num)) for name, (value, error) in figures.items()]
    classified, more = classification(trained)
    headings = [heading] * bool(lines) + [more] * bool(classified)
    return {"diagnostics": lines + classified, "diagnostics_heading": "; ".join(headings)}


def classification(trained: Trained) -> tuple[list[dict], str]:
    """Lines of p(y | x) on the test part, or on the examples of it that are scored, and their heading."""
    experiment, config = trained.experiment, trained.experiment.config.eval
    if experiment.model.classify is None:
        return [], ""
    test = experiment.evaluation["test"]
    part = select(test, np.arange(min(test.num, config.max_examples or test.num)))
    run = logits(experiment.model), trained.params, trained.state
    values = each(*run, part, config.batch_size, place_batch(experiment))
    figures = calibration.diagnostics(values, part.fetch(np.arange(part.num))["label"])
    if not np.isfinite(values).all():
        print("WARNING: the logits of some examples are not finite", file=sys.stderr)
    lines = [_line(name, Score(value, error, part.num)) for name, (value, error) in figures.items()]
    return lines, f"Classification, on {part.num:,} {config.split} examples"


def sample_comparison(trained: Trained) -> judge.Comparison | None:
    """Metrics of `eval.num_samples` samples, by the small classifier of the data; None without that many."""
    experiment, config = trained.experiment, trained.experiment.config
    if not config.eval.num_samples:
        return None
    wanted = config.eval.num_samples, config.seed, None, config.eval.parzen
    return judge.compare(experiment, trained.params, trained.state, *wanted)


def check_samples(experiment: Experiment) -> None:
    """Refuses a configuration that asks for metrics of samples that cannot be had.

    Raises:
      UserError: a model without samples, text, or a Parzen window without a validation part.
    """
    config = experiment.config.eval
    if config.num_samples:
        judge.check(experiment, config.num_samples, config.parzen, "config.eval.")
    elif config.parzen:
        raise UserError("config.eval.parzen=True needs samples: set --config.eval.num_samples=10000")


def with_samples(found: Mapping, compared: judge.Comparison | None) -> dict:
    """Diagnostics and their heading, with those of samples."""
    if compared is None:
        return dict(found)
    for warning in compared.warnings():
        print(f"WARNING: {warning}", file=sys.stderr)
    if compared.nonfinite:
        return dict(found)
    lines = [_line(name, Score(*figure, compared.num)) for name, figure in compared.lines().items()]
    heading = "; ".join(filter(None, (found["diagnostics_heading"], compared.heading)))
    return {"diagnostics": [*found["diagnostics"], *lines], "diagnostics_heading": heading}


def make_record(
    trained: Trained, scores: Mapping[str, Score], references: Mapping[str, Score], broken: int, seconds: Mapping
) -> dict:
    """What record.json holds: the figures, and everything that a reader needs to trust or repeat them."""
    experiment, config = trained.experiment, trained.experiment.config
    test, train_seconds = scores.get("test"), seconds.get("train", 0.0)
    return {
        "name": config.name,
        "paper": config.paper,
        "expect": config.expect,
        "command": shlex.join(["python", *sys.argv]),
        "config_hash": folders.config_hash(config),
        "model": config.model.name,
        "receptive_field": experiment.model.receptive_field,
        "data": experiment.spec.name,
        "bound": experiment.model.bound,
        "unit": unit(experiment.spec),
        "split": config.eval.split,
        "num_examples": test.num_examples if test else 0,
        "value": finite(test.value) if test else None,
        "standard_error": finite(test.standard_error) if test else None,
        "abilities": abilities(experiment.model),
        "baselines": [_line(name, s) for name, s in references.items()],
        "validation": _line("validation", scores["validation"]) if "validation" in scores else None,
        "steps": trained.last_step,
        "best_step": trained.step,
        "importance_samples": config.eval.importance_samples,
        "seed": config.seed,
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "wall_seconds": round(sum(seconds.values()), 1),
        "seconds": {part: round(s, 1) for part, s in seconds.items()},
        "images_per_second": round(trained.last_step * config.data.batch_size / train_seconds)
        if train_seconds
        else None,
        "skipped_updates": trained.counts["skipped"],
        "rollbacks": trained.counts["rollbacks"],
        "nonfinite_samples": broken,
        "params_sha256": digest(trained.params),
        "num_parameters": num_parameters(trained.params),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def abilities(model: Model) -> list[str]:
    """What can be done with a run of a model: 'score', 'sample', 'classify'."""
    found = {"score": model.log_prob, "sample": model.sample, "classify": model.classify}
    return [name for name, function in found.items() if function is not None]


def _line(name, s):
    figures = {"value": finite(s.value), "standard_error": finite(s.standard_error)}
    return {"name": name} | figures | {"num_examples": s.num_examples}


def finite(value: float) -> float | None:
    """None for NaN and infinities, which JSON does not have."""
    return value if np.isfinite(value) else None


def num_parameters(params: Params) -> int:
    """Trainable scalars."""
    return sum(a.size for a in jax.tree.leaves(params) if np.issubdtype(a.dtype, np.floating))


def table(record: Mapping, workdir: pathlib.Path) -> str:
    """The lines that a training run ends with."""
    rows = [(b["name"], b["value"], b["standard_error"]) for b in record["baselines"]]
    if record["value"] is not None:
        rows.append((f"{record['name']} (this run)", record["value"], record["standard_error"]))
    mark = {"lower": "<= ", "average": "<= ", "estimate": "~ "}.get(record["bound"], "")
    scored = f"{record['split']} {record['unit']} on {record['num_examples']} examples ({record['data']})"
    lines = [f"{scored}, lower is better" if record["bound"] != "none" else _unscored(record, workdir)]
    lines += [
        f"  {name:<40}{_figure(value, error, mark if i == len(rows) - 1 else '')}"
        for i, (name, value, error) in enumerate(rows)
    ]
    known = [d for d in record["diagnostics"] if d["value"] is not None]
    lines += [record["diagnostics_heading"]] * bool(known)
    lines += [f"  {d['name']:<40}{_figure(d['value'], d['standard_error'])}" for d in known]
    if record["receptive_field"]:
        lines.append(f"  {'receptive field':<40}{record['receptive_field']:>11,} sites back")
    return "\n".join([*lines, *paths(record, workdir)])


def _unscored(record, workdir):
    if "sample" in record["abilities"]:
        return f"{record['model']} has no likelihood ({record['data']}); look at its samples"
    command = f"python scripts/evaluate_classifier.py --workdir={_shown(workdir)}"
    return f"{record['model']} has no likelihood and no samples ({record['data']}); run {command}"


def _shown(workdir):
    return workdir.relative_to(pathlib.Path.cwd()) if workdir.is_relative_to(pathlib.Path.cwd()) else workdir


def _figure(value, error, mark=""):
    is_count = not error and value == int(value)
    return (
        f"{mark:>3}{value:8.0f}"
        if is_count and not mark
        else f"{mark:>3}{value:8.4f}" + (f" +- {error:.4f}" if error else "")
    )


def paths(record: Mapping, workdir: pathlib.Path) -> Sequence[str]:
    """Where the run wrote what."""
    names = {"report": "report.html", "record": "record.json", "samples": "samples/", "checkpoints": "checkpoints/"}
    return [f"{title:<12}{_shown(workdir) / name}" for title, name in names.items()]
