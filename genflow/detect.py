"""Outlier detection with a trained run, from its folder: scores, figures of merit, a table, a picture, a JSON file."""

import datetime
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping

import jax
import numpy as np

from genflow import data, provenance
from genflow import workdir as folders
from genflow.analysis.outliers import detection, likelihood_scores, roc, typicality
from genflow.checkpoint import digest
from genflow.data.dataset import Dataset, in_memory, select
from genflow.errors import UserError
from genflow.experiment import EVAL_STREAM, Experiment, place_batch
from genflow.report.outliers import Scored, outlier_scores
from genflow.summary import finite
from genflow.trained import Trained, load_trained

LEVEL = 0.95  # of the intervals
WIDTH = 22  # of the first column of the table


def detect_run(
    workdir: str,
    outliers: str,
    num: int = 0,
    seed: int = 0,
    samples: int = 1,
    samples_above: int = 1,
    num_resamples: int = 1000,
    lower: str = "mode",
    defaults: Mapping | None = None,
) -> dict:
    """Scores the test parts of the run's data and of another set; prints a table, writes outliers_NAME.json and .png.

    Args:
      outliers: a name that config.data.name accepts, prepared as the run's own data are.
      num: examples of each set, spread evenly over it; 0: as many as the smaller one has.
      seed: of the noise, and of the bootstrap.
      samples: draws in the log-mean-exp of L, of a latent variable model.
      samples_above: likewise, of L>k.
      num_resamples: of the bootstrap.
      lower: 'mode' or 'draw', what L>k takes of the levels below; see `analysis.outliers.scores_above`.
      defaults: see `load_trained`.

    Raises:
      UserError: the run has no likelihood, or the sets do not fit each other.
    """
    path = pathlib.Path(workdir).expanduser().resolve()
    trained = load_trained(path, defaults)
    check(trained.experiment, num, samples, samples_above, num_resamples)
    sets = paired(trained.experiment, outliers, num)
    draws = {"samples": samples, "samples_above": samples_above, "lower": lower}
    parts = {name: scores(trained, part, seed, **draws) for name, part in sets.items()}
    known = parts.pop("known")[0]
    for log_prob, found in parts.values():
        found["typicality"] = typicality(log_prob, known)
    inliers, strangers = (found for _, found in parts.values())
    inliers = {name: values for name, values in inliers.items() if _has_ranks(name, values, strangers[name])}
    figures = {name: _detection(name, inliers[name], strangers[name], num_resamples, seed) for name in inliers}
    options = {"seed": seed, **draws, "num_resamples": num_resamples}
    nats = {name: finite(-float(values.mean())) for name, (values, _) in parts.items()}
    nats["known"] = finite(-float(known.mean()))
    record = make_record(trained, path, outliers, len(inliers["likelihood"]), nats, figures, options)
    stem = path / f"outliers_{re.sub(r'[^A-Za-z0-9.-]+', '_', outliers)}"
    folders.write_text(stem.with_name(f"{stem.name}.json"), json.dumps(record, indent=2, allow_nan=False) + "\n")
    scored = {
        name: Scored(a, strangers[name], roc(a, strangers[name]), figures[name]["auroc"].value)
        for name, a in inliers.items()
    }
    names = f"{record['data']} (inliers)", f"{pathlib.PurePath(outliers).name} (outliers)"
    outlier_scores(scored, names, f"{stem}.png")
    print(table(record), *(f"written to  {stem}{end}" for end in (".json", ".png")), sep="\n")
    return record


def check(experiment: Experiment, num: int, samples: int, samples_above: int, num_resamples: int) -> None:
    """Raises UserError where a run cannot score outliers, or a number is out of range."""
    if num < 0 or min(samples, samples_above, num_resamples) < 1:
        raise UserError("--num must not be negative, --samples, --samples_above and --resamples must be above zero")
    if experiment.model.log_prob is None:
        raise UserError(f"{experiment.config.model.name} has no likelihood to score outliers with")
    if getattr(experiment.config.model, "conditional", False):
        raise UserError("the run models data given a label, which outliers do not have: train it unconditionally")


def paired(experiment: Experiment, outliers: str, num: int) -> dict[str, Dataset]:
    """The sets to score: 'inliers' and 'outliers', of equal number, and 'known', inliers of another part.

    Raises:
      UserError: shapes or values that differ.
    """
    own = experiment.evaluation["test"]
    section = experiment.config.data.copy_and_resolve_references()
    section.update(name=outliers, batch_size=1, num_examples=0)
    spec, _, evaluation = data.load(section, experiment.config.seed)
    if _form(spec) != _form(experiment.spec):
        raise UserError(
            f"--outliers={outliers} has {_kind(spec)}, the run's {experiment.spec.name} {_kind(experiment.spec)}: "
            "take a set that its config.data section brings to the same shape and values"
        )
    other = evaluation["test"]
    count = min(own.num, other.num, num or own.num)
    validation = experiment.evaluation["validation"]
    known = validation if validation.num else _training_part(experiment, count)
    chosen = {"inliers": own, "outliers": other, "known": known}
    return {name: _spread(part, count) for name, part in chosen.items()}


def _form(spec):
    return spec.kind, spec.shape, spec.bins, spec.symbols


def _kind(spec):
    values = "continuous values" if spec.bins is None else f"{spec.bins} values"
    symbols = f", the symbols {''.join(spec.symbols)!r}" if spec.symbols else ""
    return f"shape {spec.shape} and {values} ({spec.kind}{symbols})"


def _spread(part, count):
    return select(part, np.linspace(0, part.num - 1, min(count, part.num)).astype(int))


def _training_part(experiment, count):
    """Examples of the training part, binarized as evaluation parts are."""
    batch = _spread(experiment.train, count).fetch(np.arange(min(count, experiment.train.num)))
    x = data.binarize(experiment.config.data.binarize)(jax.random.key(experiment.config.seed), batch["x"])
    return in_memory(np.asarray(x))


def scores(trained: Trained, part: Dataset, seed: int, **draws):
    """log p(x) of every example and its scores, with the draws of `analysis.outliers.likelihood_scores`."""
    experiment, config = trained.experiment, trained.experiment.config.eval
    return likelihood_scores(
        *(experiment.model, trained.params, trained.state, part),
        jax.random.fold_in(jax.random.key(seed), EVAL_STREAM),
        config.batch_size,
        place=place_batch(experiment),
        samples_per_call=config.samples_per_call,
        **draws,
    )


def _has_ranks(name, *sets):
    """Whether a score is to be compared; a difference of infinities is told and left out, a likelihood never."""
    undefined = sum(int(np.isnan(values).sum()) for values in sets)
    if undefined and name != "likelihood":
        print(f"{name} is left out: the model gives {undefined} examples no number that it could be made of")
    return not undefined or name == "likelihood"


def _detection(name, inliers, outliers, num_resamples, seed):
    try:
        return detection(inliers, outliers, num_resamples, LEVEL, seed)
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def make_record(trained: Trained, path: pathlib.Path, outliers: str, num, nats, figures, options) -> dict:
    """What the JSON file holds: the figures, and everything that a reader needs to trust or repeat them."""
    experiment, config = trained.experiment, trained.experiment.config
    return {
        "name": config.name,
        "run": path.name,
        "command": shlex.join(["python", *sys.argv]),
        "config_hash": folders.config_hash(config),
        "model": config.model.name,
        "bound": experiment.model.bound,
        "data": experiment.spec.name,
        "outliers": outliers,
        "split": "test",
        "num_examples": num,
        "unit": "nats",
        "nll": nats,
        "num_levels": experiment.model.latent.num_levels if experiment.model.latent else 0,
        **options,
        "interval": LEVEL,
        "scores": {name: {merit: f._asdict() for merit, f in found.items()} for name, found in figures.items()},
        "best_step": trained.step,
        "params_sha256": digest(trained.params),
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(record: dict) -> str:
    """The figures as lines of text."""
    nll = record["nll"]
    lines = [
        f"{record['data']} (inliers) and {record['outliers']} (outliers), {record['num_examples']} test examples each",
        f"NLL {_number(nll['inliers'])} and {_number(nll['outliers'])} nats an example ({record['bound']})",
        f"  {'score':<{WIDTH}}{'AUROC':>7}  {'95 % interval':<18}{'AUPRC':>7}{'FPR80':>8}",
    ]
    for name, found in record["scores"].items():
        auroc, interval = found["auroc"]["value"], "[{low:.4f}, {high:.4f}]".format(**found["auroc"])
        lines.append(
            f"  {name:<{WIDTH}}{auroc:7.4f}  {interval:<18}{found['auprc']['value']:7.4f}{found['fpr80']['value']:8.4f}"
        )
    return "\n".join(lines)


def _number(value):
    return "infinite" if value is None else f"{value:.2f}"
