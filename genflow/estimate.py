"""What a user asks of a trained latent variable model: the evidence of examples, and how good q(z | x) is."""

import datetime
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from genflow import provenance
from genflow import workdir as folders
from genflow.analysis import evidence
from genflow.analysis.evidence import NEEDS_EXACT
from genflow.analysis.posterior import check, compare, example_keys, is_noisy, sample_posterior
from genflow.checkpoint import digest
from genflow.errors import UserError
from genflow.experiment import EVAL_STREAM
from genflow.summary import finite
from genflow.trained import Trained, load_trained

# The least value of each flag.
LEAST = {"num": 2, "importance_samples": 2, "chains": 2, "steps": 1, "leapfrog": 1, "batch_size": 1}
LEAST |= {"nuts": 0, "nuts_draws": 4, "simulated": 0}
FEW = 3  # effective draws below which the error of a log-mean-exp is too small


class Question(NamedTuple):
    """Which examples, and how much work."""

    num: int = 100  # examples, evenly spaced in the part
    split: str = "test"  # or validation
    importance_samples: int = 1000
    annealing: evidence.Annealing = evidence.Annealing()
    nuts: int = 0  # the first so many examples' posteriors are sampled
    nuts_draws: int = 500  # of each of four chains, and as many before to adapt
    simulated: int = 0  # examples drawn from the model itself, whose evidence is bounded from both sides
    batch_size: int = 50  # examples at once
    seed: int = 0


def check_question(question: Question) -> None:
    """Raises UserError, which names the flag, for a number that is too small, before anything is computed."""
    walk = question.annealing
    numbers = question._asdict() | {"chains": walk.num_chains, "steps": walk.num_steps, "leapfrog": walk.num_leapfrog}
    for flag, least in LEAST.items():
        if numbers[flag] < least:
            raise UserError(f"--{flag}={numbers[flag]} must be {least} at least")
    if question.nuts > question.num:
        raise UserError(f"--nuts={question.nuts} must not be above --num={question.num}: they are the first of these")


def estimate_run(workdir: str, question: Question, defaults: Mapping | None = None) -> dict:
    """Estimates log p(x) by ELBO, IWAE bound and AIS on the same examples, prints a table and writes evidence.json.

    Args:
      defaults: see `load_trained`.

    Raises:
      UserError: a run without continuous latents, or a question that makes no sense.
    """
    check_question(question)
    path = pathlib.Path(workdir).expanduser().resolve()
    trained = load_trained(path, defaults)
    try:
        record = answer(trained, question)
    except ValueError as error:
        raise UserError(f"{trained.experiment.config.model.name}: {error}") from error
    out = path / "evidence.json"
    folders.write_text(out, json.dumps(record, indent=2, allow_nan=False) + "\n")
    print(table(record))
    print(f"written to  {out}")
    return record


def answer(trained: Trained, question: Question) -> dict:
    """What evidence.json holds; every figure is in nats an example."""
    model, params, state = trained.experiment.model, trained.params, trained.state
    check(model, params, state)
    config, dataset = trained.experiment.config, trained.experiment.evaluation.get(question.split)
    if dataset is None or question.num > dataset.num:
        found = dataset.num if dataset else 0
        raise ValueError(f"--num={question.num} examples of {question.split}: there are {found}")
    examples = dataset.fetch(np.linspace(0, dataset.num - 1, question.num).astype(int))
    key = jax.random.fold_in(jax.random.key(question.seed), EVAL_STREAM)
    noisy = is_noisy(model, params, state, key, {name: a[:2] for name, a in examples.items()})
    if noisy and question.simulated:
        raise ValueError(f"--simulated: {NEEDS_EXACT}")
    record = {
        "name": config.name,
        "command": shlex.join(["python", *sys.argv]),
        "config_hash": folders.config_hash(config),
        "model": config.model.name,
        "bound": model.bound,
        "data": trained.experiment.spec.name,
        "split": question.split,
        "num_examples": question.num,
        "unit": "nats",
        "noise_held_fixed": noisy,
        "settings": question._asdict() | {"annealing": question.annealing._asdict()},
        "step": trained.step,
        "seed": question.seed,
        "params_sha256": digest(params),
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    record |= bounds(trained, key, examples, question)
    record["posterior"] = _posteriors(trained, key, examples, question) if question.nuts else []
    record["simulated"] = _sandwich(trained, key, question) if question.simulated else None
    return record


def bounds(trained: Trained, key, examples, question: Question) -> dict:
    """ELBO, IWAE and AIS on the same examples, their gaps, and how the chains of AIS did."""
    model, params, state = trained.experiment.model, trained.params, trained.state
    draws, walks, acceptance, seconds = [], [], [], {"importance": 0.0, "annealing": 0.0}
    num, per_call = question.importance_samples, trained.experiment.config.eval.samples_per_call
    for batch, keys, count in _batches(examples, key, question.batch_size):
        start = time.perf_counter()
        weights = evidence.importance_weights(model, params, state, keys, batch, num, min(num, per_call))
        middle = time.perf_counter()
        walked = evidence.anneal(model, params, state, keys, batch, question.annealing)
        seconds["importance"] += middle - start
        seconds["annealing"] += time.perf_counter() - middle
        draws.append(weights[:count])
        walks.append(walked.log_weights[:count])
        acceptance.append(walked.acceptance[:count])
    draws, walks, acceptance = map(np.concatenate, (draws, walks, acceptance))
    elbo, iwae, ais = evidence.of_draws(draws), evidence.of_chains(draws), evidence.of_chains(walks)
    return {
        "methods": [
            _line("ELBO", evidence.average(elbo)),
            _line(f"IWAE, {num} draws", evidence.average(iwae)),
            _line(f"AIS, {question.annealing.num_chains} x {question.annealing.num_steps}", evidence.average(ais)),
        ],
        "gaps": [
            _line("AIS - ELBO, near KL(q(z|x) || p(z|x))", evidence.gap(ais, elbo)),
            _line("AIS - IWAE", evidence.gap(ais, iwae)),
        ],
        "acceptance": {"mean": finite(float(acceptance.mean())), "least": finite(float(acceptance.min()))},
        "effective_draws": _effective(draws),
        "effective_samples": _effective(walks),
        "seconds": {part: round(s, 1) for part, s in seconds.items()},
    }


def _effective(log_weights):
    effective = evidence.effective_samples(log_weights)
    means = {"mean": finite(float(effective.mean())), "least": finite(float(effective.min()))}
    return means | {"examples_with_few": int((effective < FEW).sum())}


def _batches(examples, key, batch_size):
    """(batch, keys, number of real examples in it); the last is filled up by repeating its last example."""
    num = len(examples["x"])
    size = min(batch_size, num)
    for start in range(0, num, size):
        index = np.minimum(np.arange(start, start + size), num - 1)
        batch = {name: a[index] for name, a in examples.items()}
        yield batch, example_keys(key, size, start), min(size, num - start)


def _posteriors(trained, key, examples, question):
    parts, rows = (trained.experiment.model, trained.params, trained.state), []
    first = {name: a[: question.nuts] for name, a in examples.items()}
    for batch, keys, count in _batches(first, key, question.batch_size):
        chains = sample_posterior(*parts, keys, batch, 4, question.nuts_draws, question.nuts_draws)
        rows += _beside(chains, compare(*parts, keys, batch, chains), len(rows))[:count]
    return rows


def _beside(chains, comparison, start):
    shift, spread = np.abs(comparison.shift()).max(1), comparison.spread()
    return [
        {
            "example": start + i,
            "rhat": finite(float(chains.rhat[i].max())),
            "effective_samples": finite(float(chains.effective_samples[i].min())),
            "divergences": int(chains.divergences[i]),
            "acceptance": finite(float(chains.acceptance[i])),
            "largest_shift": finite(float(shift[i])),
            "least_spread": finite(float(spread[i].min())),
            "largest_spread": finite(float(spread[i].max())),
        }
        for i in range(len(shift))
    ]


def _sandwich(trained, key, question):
    parts, num = (trained.experiment.model, trained.params, trained.state), question.simulated
    size, found = min(question.batch_size, num), []
    for start in range(0, num, size):
        batch, z = evidence.simulate(*parts, jax.random.fold_in(key, start), size)
        walked = evidence.anneal(*parts, example_keys(key, size, start), batch, question.annealing, z)
        found.append((evidence.of_chains(walked.log_weights), evidence.from_above(walked.reverse)))
    lower, upper = (np.concatenate(part)[:num] for part in zip(*found, strict=True))
    return {
        "num_examples": question.simulated,
        "methods": [
            _line("forward AIS, from below", evidence.average(lower)),
            _line("reverse AIS, from above", evidence.average(upper)),
            _line("between them", evidence.gap(upper, lower)),
        ],
    }


def _line(name, estimate):
    return {"name": name} | {field: finite(value) for field, value in estimate._asdict().items()}


def table(record: dict) -> str:
    """The lines that the command line prints."""
    settings, acceptance = record["settings"], record["acceptance"]
    num, chains = settings["importance_samples"], settings["annealing"]["num_chains"]
    lines = [
        f"log p(x) of {record['num_examples']} {record['split']} examples ({record['data']}), nats an example;"
        " +- of the examples, in brackets of the draws alone",
        *map(_figures, record["methods"] + record["gaps"]),
        f"  {'AIS: acceptance':<42}{_number(acceptance['mean'])} (least {_number(acceptance['least'])})",
        *_effective_lines(f"IWAE: effective of {num} draws", record["effective_draws"], record["num_examples"]),
        *_effective_lines(f"AIS: effective of {chains} chains", record["effective_samples"], record["num_examples"]),
    ]
    if record["noise_held_fixed"]:
        lines.append("  of one dequantized copy of each example, the same for all methods: on average below log P(x)")
    if record["simulated"]:
        lines.append(f"{record['simulated']['num_examples']} examples drawn from the model")
        lines += map(_figures, record["simulated"]["methods"])
    if record["posterior"]:
        lines.append("p(z | x) by NUTS beside q(z | x): worst dimension of each example; shift and spread in its std")
        names = [name for name in record["posterior"][0] if name != "example"]
        lines.append(f"  {'example':<9}" + "".join(f"{name.replace('_', ' '):>19}" for name in names))
        for row in record["posterior"]:
            lines.append(f"  {row['example']:<9}" + "".join(f"{_number(row[name]):>19}" for name in names))
    return "\n".join(lines)


def _effective_lines(name, effective, num):
    yield f"  {name:<42}{_number(effective['mean'])} (least {_number(effective['least'])})"
    if few := effective["examples_with_few"]:
        yield f"    below {FEW} for {few} of {num} examples: their part of the error in brackets is too small"


def _figures(line):
    error, own = _number(line["standard_error"]), _number(line["monte_carlo_error"])
    return f"  {line['name']:<42}{_number(line['value'])} +- {error} ({own})"


def _number(value):
    return "nan" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
