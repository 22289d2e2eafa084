"""Classifiers evaluated from the folders of their runs, side by side: accuracy, calibration, outliers, attacks."""

import datetime
import hashlib
import json
import pathlib
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from genflow import provenance
from genflow import workdir as folders
from genflow.analysis import calibration
from genflow.analysis.logits import SCORES, each, input_scores, logits
from genflow.analysis.outliers import detection
from genflow.analysis.robustness import NORMS, Attack, withstood
from genflow.checkpoint import digest
from genflow.data.dataset import Dataset, select
from genflow.detect import paired
from genflow.errors import UserError
from genflow.experiment import EVAL_STREAM, Experiment, place_batch
from genflow.report.classifier import Shown, classifiers
from genflow.summary import num_parameters
from genflow.trained import Trained, load_trained

LEVEL = 0.95  # of the intervals
LONGEST = 120  # letters of a file's name
WIDTH = 26  # of the first column of the table, and of each run's
TITLES = {"linf": "L-infinity", "l2": "L2"}


class Question(NamedTuple):
    """What is asked of every run, and how much work goes into the answers."""

    outliers: tuple[str, ...] = ()  # names that config.data.name accepts
    num: int = 0  # test examples of accuracy, calibration and of each set of outliers, evenly spaced; 0: all
    epsilons: Mapping[str, tuple[float, ...]] = {  # radii of attacks with data scaled to 0 to 1, by norm
        "linf": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3),
        "l2": (0.1, 0.25, 0.5, 1.0, 1.5, 2.0),
    }
    attacked: int = 500  # examples under attack, evenly spaced among the others; 0: all
    num_steps: int = 20  # of an attack
    restarts: int = 1
    num_bins: int = calibration.BINS
    num_resamples: int = 1000  # of the bootstrap, and of answers drawn as if calibrated
    seed: int = 0


def evaluate_classifiers(
    workdirs: Sequence[str], question: Question | None = None, defaults: Mapping | None = None
) -> list[dict]:
    """Evaluates runs that classify the same data; writes classifier.json into each folder, prints a table of all.

    The picture of all runs, classifier.png, goes into the folder of the first. A question that is not the usual one has
    files of its own: see `filename`. A run's file is written as soon as it is done.

    Args:
      defaults: see `load_trained`.

    Raises:
      UserError: a run that classifies nothing, runs of different data, or a number that is out of range.
    """
    question = question or Question()
    check_question(question)
    paths = [pathlib.Path(workdir).expanduser().resolve() for workdir in workdirs if workdir]
    if not paths or len(set(paths)) < len(paths):
        raise UserError(f"--workdir={','.join(workdirs)}: expected run folders, each once")
    runs = [load_trained(path, defaults) for path in paths]
    check_runs(paths, runs)
    sets = {name: paired(runs[0].experiment, name, question.num)["outliers"] for name in question.outliers}
    records, name = [], filename(question)
    for trained, path in zip(runs, paths, strict=True):
        records.append(evaluated(trained, path, sets, question))
        folders.write_text(path / f"{name}.json", json.dumps(records[-1], indent=2, allow_nan=False) + "\n")
        print(f"written to  {path / name}.json")
    print(table(records))
    classifiers([_shown(record) for record in records], str(paths[0] / f"{name}.png"))
    print(f"written to  {paths[0] / name}.png")
    return records


def filename(question: Question) -> str:
    """'classifier', and what sets a question apart from the usual one: classifier_outliers_kmnist_num_100.

    The end of a long one is a digest.
    """
    usual, given = Question(), {name: value for name, value in question._asdict().items() if name != "epsilons"}
    asked = [(n, v if isinstance(v, tuple) else (v,)) for n, v in given.items() if v != getattr(usual, n)]
    radii = {norm: question.epsilons.get(norm, ()) for norm in NORMS}
    asked += [(n, tuple(f"{e:.6g}" for e in radii[n])) for n in NORMS if radii[n] != usual.epsilons[n]]
    words = [word for name, values in asked for word in (name, *(map(str, values) if values else ["none"]))]
    stem = "_".join(["classifier", *(re.sub(r"[^A-Za-z0-9.-]+", "_", word) for word in words)])
    digest_of_all = hashlib.sha256(str(asked).encode()).hexdigest()[:8]
    return stem if len(stem) <= LONGEST else f"{stem[:LONGEST]}_{digest_of_all}"


def check_question(question: Question) -> None:
    """Raises UserError, which names the flag, for a number that is out of range."""
    for flag, least in {"num": 0, "attacked": 0, "seed": 0, "num_steps": 1, "restarts": 1, "num_bins": 2}.items():
        if getattr(question, flag) < least:
            raise UserError(f"--{flag}={getattr(question, flag)} must be {least} at least")
    if question.num == 1:
        raise UserError("--num=1: figures with intervals need 2 test examples or more; 0 takes all")
    if question.num_resamples < 1:
        raise UserError(f"--resamples={question.num_resamples} must be 1 at least")
    for norm, epsilons in question.epsilons.items():
        if not all(0 < epsilon < np.inf for epsilon in epsilons):
            flag = "--epsilons" if norm == "linf" else f"--epsilons_{norm}"
            raise UserError(
                f"{flag}={','.join(map(str, epsilons))}: expected radii above zero, of data scaled to 0 to 1"
            )
    if len(set(question.outliers)) < len(question.outliers):
        raise UserError(f"--outliers={','.join(question.outliers)}: name each set once")


def check_runs(paths: Sequence[pathlib.Path], runs: Sequence[Trained]) -> None:
    """Raises UserError unless all runs classify, and the same data, of which there are enough."""
    first = runs[0].experiment
    for path, trained in zip(paths, runs, strict=True):
        experiment = trained.experiment
        if experiment.model.classify is None:
            raise UserError(
                f"{path.name}: {experiment.config.model.name} classifies nothing: train a jem or a classifier"
            )
        if not experiment.spec.num_classes:
            raise UserError(f"{path.name}: {experiment.spec.name} has no labels")
        if experiment.spec != first.spec or not _same_test(experiment, first):
            raise UserError(
                f"{path.name} has another test set ({experiment.spec.name}) than {paths[0].name} ({first.spec.name}): "
                "compare runs of the same data section"
            )
    if first.evaluation["test"].num < 2:
        raise UserError(f"{first.spec.name} has 1 test example: figures with intervals need 2 or more")


def _same_test(one: Experiment, other: Experiment) -> bool:
    a, b = (experiment.evaluation["test"] for experiment in (one, other))
    if a.num != b.num:
        return False
    chosen = np.linspace(0, a.num - 1, min(a.num, 64)).astype(int)
    return all(np.array_equal(a.fetch(chosen)[name], b.fetch(chosen)[name]) for name in ("x", "label"))


def _spread(part: Dataset, num: int) -> Dataset:
    return select(part, np.linspace(0, part.num - 1, min(num, part.num) if num else part.num).astype(int))


def evaluated(trained: Trained, path: pathlib.Path, sets: Mapping[str, Dataset], question: Question) -> dict:
    """The record of one run: its figures, and everything that a reader needs to trust or repeat them."""
    experiment = trained.experiment
    part = _spread(experiment.evaluation["test"], question.num)
    found = answers(trained, {"test": part, "validation": experiment.evaluation["validation"]}, question)
    found |= {"outliers": strangers(trained, part, sets, question)}
    found |= {"robustness": resisted(trained, _spread(part, question.attacked), question)}
    return make_record(trained, path, part.num, found, question)


def answers(trained: Trained, parts: Mapping[str, Dataset], question: Question) -> dict:
    """Accuracy, proper scores and calibration of the test part; the last also at the validation part's temperature."""
    arguments, options = _apply(trained)
    function = logits(trained.experiment.model)
    z = each(function, *arguments, parts["test"], **options)
    if bad := int((~np.isfinite(z).all(1)).sum()):
        raise UserError(f"the logits of {bad} of {len(z)} test examples are not finite: the run has diverged")
    labels = _labels(parts["test"])
    found = {name: figure._asdict() for name, figure in calibration.figures(z, labels, LEVEL).items()}
    found["calibration"] = calibrated(z, labels, question)
    if parts["validation"].num:
        held_out = each(function, *arguments, parts["validation"], **options)
        value = calibration.temperature(held_out, _labels(parts["validation"]))
        found["tempered"] = {"temperature": value} | {
            "cross_entropy": calibration.figures(z / value, labels, LEVEL)["cross_entropy"]._asdict(),
            "calibration": calibrated(z / value, labels, question),
        }
    return found


def _apply(trained):
    config = trained.experiment.config
    options = {"batch_size": config.eval.batch_size, "place": place_batch(trained.experiment)}
    return (trained.params, trained.state), options


def _labels(part):
    return part.fetch(np.arange(part.num))["label"]


def calibrated(z: np.ndarray, labels: np.ndarray, question: Question) -> dict:
    """Both calibration errors with what a calibrated classifier would show, and the bins of the first."""
    confidence, correct = np.exp(calibration.log_softmax(z)).max(1).clip(0, 1), z.argmax(1) == labels
    found = {}
    for name, adaptive in (("ece", False), ("adaptive_ece", True)):
        bins = calibration.reliability(confidence, correct, question.num_bins, adaptive)
        draws = question.num_resamples, LEVEL, question.seed, question.num_bins, adaptive
        found[name] = {"value": bins.error, "if_calibrated": calibration.if_calibrated(confidence, *draws)._asdict()}
        if not adaptive:
            columns = zip(*(np.asarray(a).tolist() for a in bins[1:]), strict=True)
            rows = [dict(zip(("count", "confidence", "accuracy"), row, strict=True)) for row in columns]
            found["bins"] = [row if row["count"] else {"count": 0} for row in rows]
    return {"mean_confidence": float(confidence.mean())} | found


def strangers(trained: Trained, part: Dataset, sets: Mapping[str, Dataset], question: Question) -> dict:
    """How well each score tells each set of outliers from the test part: {set: {score: figures of merit}}."""
    if not sets:
        return {}
    arguments, options = _apply(trained)
    function = input_scores(trained.experiment.model, trained.experiment.spec)
    known, found = each(function, *arguments, part, **options), {}
    for name, other in sets.items():
        chosen = np.linspace(0, part.num - 1, min(part.num, other.num)).astype(int)  # AUPRC depends on the numbers
        scores = each(function, *arguments, _spread(other, part.num), **options)
        found[name] = {"num_examples": len(chosen)}
        for score in SCORES:
            try:
                merits = detection(known[score][chosen], scores[score], question.num_resamples, LEVEL, question.seed)
            except ValueError as error:
                raise UserError(f"{score} of {name}: {error}") from error
            found[name][score] = {merit: figure._asdict() for merit, figure in merits.items()}
    return found


def resisted(trained: Trained, part: Dataset, question: Question) -> dict:
    """The share of examples whose answer stays right within each radius, {norm: [{epsilon, value, low, high}]}."""
    (params, state), options = _apply(trained)
    experiment, found = trained.experiment, {}
    key = jax.random.fold_in(jax.random.key(question.seed), EVAL_STREAM)
    for i, norm in enumerate(NORMS):
        radii = sorted({0.0, *question.epsilons.get(norm, ())})
        if len(radii) < 2:
            continue
        attack = Attack(norm, question.num_steps, question.restarts)
        given = experiment.model, params, state, part, jax.random.fold_in(key, i)
        right = withstood(*given, spec=experiment.spec, epsilons=radii, attack=attack, **options)
        found[norm] = [
            {"epsilon": radius} | calibration.share(row, LEVEL)._asdict()
            for radius, row in zip(radii, right, strict=True)
        ]
    return found | {"num_examples": part.num, "num_steps": question.num_steps, "restarts": question.restarts}


def make_record(trained: Trained, path: pathlib.Path, num: int, found: Mapping, question: Question) -> dict:
    """What classifier.json holds."""
    experiment, config = trained.experiment, trained.experiment.config
    return {
        "name": config.name,
        "run": path.name,
        "command": shlex.join(["python", *sys.argv]),
        "config_hash": folders.config_hash(config),
        "model": config.model.name,
        "density": "energy" if experiment.model.energy else "logsumexp of the logits",
        "data": experiment.spec.name,
        "num_classes": experiment.spec.num_classes,
        "split": "test",
        "num_examples": num,
        "num_parameters": num_parameters(trained.params),
        "num_bins": question.num_bins,
        "num_resamples": question.num_resamples,
        "interval": LEVEL,
        **found,
        "seed": question.seed,
        "train_seed": config.seed,
        "best_step": trained.step,
        "params_sha256": digest(trained.params),
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(records: Sequence[Mapping]) -> str:
    """The figures of all runs, a column for each, as lines of text."""
    first = records[0]
    lines = [f"{first['data']}, {first['num_examples']:,} test examples; intervals of {first['interval']:.0%}"]
    lines.append(_line("", [record["run"] for record in records]))
    for name, scale in (("accuracy", 100), ("cross_entropy", 1), ("brier", 1)):
        label = {"accuracy": "accuracy, %", "cross_entropy": "cross-entropy, nats"}.get(name, name)
        lines.append(_line(label, [_interval(record[name], scale) for record in records]))
    for label, path in (("ECE", ("calibration", "ece")), ("adaptive ECE", ("calibration", "adaptive_ece"))):
        lines.append(_line(f"{label}, %", [_error(record, path) for record in records]))
    if any("tempered" in record for record in records):
        lines.append(_line("temperature", [_tempered(record) for record in records]))
        lines.append(_line("ECE at it, %", [_error(record, ("tempered", "calibration", "ece")) for record in records]))
    for name, scores in first["outliers"].items():
        lines.append(f"AUROC of {name}, {scores['num_examples']:,} examples")
        for score in SCORES:
            cells = [_interval(record["outliers"][name][score]["auroc"]) for record in records]
            lines.append(_line(f"  {score}", cells))
    for norm in NORMS:
        if norm in first["robustness"]:
            lines.append(f"accuracy in {TITLES[norm]} balls, {first['robustness']['num_examples']:,} examples, %")
            for i, row in enumerate(first["robustness"][norm]):
                cells = [_interval(record["robustness"][norm][i], 100) for record in records]
                levels = f" ({255 * row['epsilon']:.3g}/255)" if norm == "linf" else ""
                lines.append(_line(f"  {row['epsilon']:.4g}{levels}", cells))
    lines += [f"{r['run']}: no density; log_density is its {r['density']}" for r in records if r["density"] != "energy"]
    return "\n".join(lines)


def _line(label, cells):
    return f"  {label:<{WIDTH}}" + "".join(f"{cell:<{WIDTH}}  " for cell in cells).rstrip()


def _interval(figure, scale=1):
    digits = 2 if scale == 100 else 4
    value, low, high = (f"{scale * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _error(record, path):
    for name in path:
        record = record.get(name, {})
    if not record:
        return "no validation part"
    return f"{100 * record['value']:.2f} (calibrated: < {100 * record['if_calibrated']['limit']:.2f})"


def _tempered(record):
    return f"{record['tempered']['temperature']:.3f}" if "tempered" in record else "no validation part"


def _shown(record) -> Shown:
    """What the picture shows of a record."""
    names, found = ("value", "low", "high"), record["calibration"]
    bins = [[row.get(name, np.nan) for name in ("count", "confidence", "accuracy")] for row in found["bins"]]
    short = [pathlib.PurePath(name).name for name in record["outliers"]]
    titles = short if len(set(short)) == len(short) else list(record["outliers"])
    auroc = {
        title: {score: tuple(scores[score]["auroc"][n] for n in names) for score in SCORES}
        for title, scores in zip(titles, record["outliers"].values(), strict=True)
    }
    curves = {
        f"{TITLES[norm]} radius of data in 0 to 1": np.array([[row[n] for n in ("epsilon", *names)] for row in rows])
        for norm, rows in record["robustness"].items()
        if norm in NORMS
    }
    return Shown(record["run"], *np.transpose(bins), found["ece"]["value"], record["accuracy"]["value"], curves, auroc)
