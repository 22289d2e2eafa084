"""What the precision of networks costs: a finished run scored under each, on the same examples with the same noise."""

import datetime
import json
import math
import pathlib
import shlex
import sys
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from genflow import models, provenance
from genflow import workdir as folders
from genflow.benchmark.tables import table
from genflow.checkpoint import digest
from genflow.core import Model
from genflow.errors import UserError
from genflow.evaluate import in_unit, log_probs, round_trip, unit
from genflow.experiment import evaluation_key, place_batch
from genflow.networks.precision import PRECISIONS, network_precision
from genflow.networks.rewrite import rewritten
from genflow.trained import Trained, load_trained

BITS = 10  # of the mantissa of TensorFloat32
PRODUCTS = ("dot_general", "conv_general_dilated")
MARKERS = "<!-- precision -->", "<!-- /precision -->"
COLUMNS = ("run", "networks in", "scored", "difference", "±", "worst example", "round trip")


def measure(workdirs: Sequence[str], defaults: Mapping | None = None, file: str = "") -> dict:
    """Scores the test part of runs under each precision, prints a table, and returns the record.

    Args:
      defaults: see `load_trained`.
      file: where the record is written, too; empty: nowhere.

    Raises:
      UserError: a run without a likelihood, or one that is float32 under every precision.
    """
    trained = [_checked(pathlib.Path(path).expanduser().resolve(), defaults) for path in workdirs]
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "emulated": ["tensorfloat32"] if _emulates() else [],
        "runs": [_of_run(run) for run in trained],
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    print(table(COLUMNS, rows(record)))
    if file:
        folders.write_text(pathlib.Path(file), json.dumps(record, indent=2, allow_nan=False) + "\n")
    return record


def _checked(path, defaults):
    run = load_trained(path, defaults)
    name = run.experiment.config.model.name
    if name in models.FLOAT32:
        raise UserError(f"{path}: {name} has no other precision than float32, because {models.FLOAT32[name]}")
    if run.experiment.model.log_prob is None:
        raise UserError(f"{path}: {name} has no likelihood that could be scored")
    return run


def _of_run(run: Trained) -> dict:
    config, spec = run.experiment.config, run.experiment.spec
    built = {precision: _built(run, precision) for precision in PRECISIONS}
    values = {precision: in_unit(spec, -_scored(run, model)) for precision, model in built.items()}
    return {
        "name": config.name,
        "model": config.model.name,
        "data": spec.name,
        "trained_in": config.compute.network_precision,
        "unit": unit(spec),
        "num_examples": len(values["float32"]),
        "config_hash": folders.config_hash(config),
        "params_sha256": digest(run.params),
        "rows": [
            {"precision": p} | paired(values[p], values["float32"]) | _round_trip(run, built[p]) for p in PRECISIONS
        ],
    }


def _built(run, precision) -> Model:
    with network_precision(precision):
        model = models.build(run.experiment.config.model, run.experiment.spec)
    if precision != "tensorfloat32" or not _emulates():
        return model
    emulated = {name: getattr(model, name) for name in ("log_prob", "log_weights", "encode", "decode")}
    return model._replace(**{name: f and emulate_tensorfloat32(f) for name, f in emulated.items()})


def _emulates():
    return jax.default_backend() == "cpu"


def emulate_tensorfloat32(function):
    """The function, whose matrix products and convolutions in TensorFloat32 round their operands: CPUs do not.

    The function is not differentiated; the arguments after the first four are constants.
    """

    def run(*arguments):
        arrays, constants = arguments[:4], arguments[4:]
        return rewritten(lambda *arrays: function(*arrays, *constants), _rounding, derivatives=False)(*arrays)

    return run


def _rounding(name, params, do, operands):
    if name in PRODUCTS and params["precision"] == (jax.lax.Precision.HIGH,) * 2:
        operands = [jax.lax.reduce_precision(a, 8, BITS) for a in operands]
    return do(operands)


def _scored(run, model) -> Float[np.ndarray, " N"]:
    """log_prob of the test part, nats: the noise depends on the run's seed alone."""
    experiment, config = run.experiment, run.experiment.config.eval
    place = place_batch(experiment)
    noise = evaluation_key(experiment), config.batch_size, config.num_repeats, config.max_examples
    draws = config.importance_samples, config.samples_per_call
    return log_probs(model, run.params, run.state, experiment.evaluation["test"], *noise, place, *draws)


def paired(values: Float[np.ndarray, " N"], reference: Float[np.ndarray, " N"]) -> dict:
    """The mean and, example by example, the difference to the reference with its standard error."""
    difference = values - reference
    if not np.isfinite(difference).all():
        return {"value": None, "difference": None, "standard_error": None, "largest": None}
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return {
        "value": float(values.mean()),
        "difference": float(difference.mean()),
        "standard_error": float(error),
        "largest": float(np.abs(difference).max()),
    }


def _round_trip(run, model) -> dict:
    """The mean distance of a batch of test examples to decode(encode(x)), of models that are bijections."""
    if model.encode is None or model.latent is not None or model.diffusion is not None:
        return {"round_trip": None}
    dataset, size = run.experiment.evaluation["test"], run.experiment.config.eval.batch_size
    batch = place_batch(run.experiment)(dataset, np.arange(size) % dataset.num)
    back = round_trip(model, run.params, run.state, batch)
    error = float(np.abs(back - _host(batch["x"])).mean())
    return {"round_trip": error if math.isfinite(error) else None}


def _host(x: Array) -> np.ndarray:
    return np.asarray(x, np.float32)


def rows(record: dict) -> list[list]:
    """Of the table, one for each run and precision."""
    lines = []
    for run in record["runs"]:
        name = run["name"] + (f", trained in {run['trained_in']}" if run["trained_in"] != "float32" else "")
        for row in run["rows"]:
            precision = row["precision"] + (" (emulated)" if row["precision"] in record["emulated"] else "")
            scored = _number(row["value"], 4) + f" {run['unit']}"
            differences = (_number(row[field], 6) for field in ("difference", "standard_error", "largest"))
            lines.append([name, precision, scored, *differences, _number(row["round_trip"], 6)])
    return lines


def _number(value, digits):
    return "-" if value is None else f"{value:.{digits}f}"


def page(text: str, records: Mapping[str, dict]) -> str:
    """A page, with what the records hold between its MARKERS.

    Raises:
      UserError: a page without them.
    """
    if any(text.count(marker) != 1 for marker in MARKERS):
        raise UserError(f"docs/precision.md: write {MARKERS[0]} once and {MARKERS[1]} once after it")
    before, rest = text.split(MARKERS[0])
    lines = ["not measured yet"]
    if records:
        cells = [COLUMNS, ["---"] * len(COLUMNS), *(row for record in records.values() for row in rows(record))]
        lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([before + MARKERS[0], *lines, MARKERS[1]]) + rest.split(MARKERS[1])[1]


def write_page(root: pathlib.Path, check: bool = False) -> bool:
    """Brings docs/precision.md up to date with results/precision_*.json; whether it was not.

    Args:
      check: leave it as it is.
    """
    path = root / "docs" / "precision.md"
    records = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(root.glob("results/precision_*.json"))}
    text = path.read_text("utf-8")
    wanted = page(text, records)
    if wanted != text and not check:
        folders.write_text(path, wanted)
    return wanted != text
