"""The likelihood of one diffusion model, computed in every way that it has, on the same examples.

The variational bound by the sum of its terms and at random times, the bound by importance weighting of whole chains,
and the probability-flow equation. The first three are of the stochastic chain, each on average at least its -log p(x);
the last is of the deterministic flow, which has another density unless the network is the best denoiser.
"""

import datetime
import json
import pathlib
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genflow import models, provenance
from genflow import workdir as folders
from genflow.analysis.evidence import Estimate, average, effective_samples, gap, of_chains, of_draws
from genflow.checkpoint import digest
from genflow.core import Model
from genflow.errors import UserError
from genflow.evaluate import in_unit, unit
from genflow.experiment import EVAL_STREAM
from genflow.hosts import to_host
from genflow.models.diffusion import EXACT_DIMS
from genflow.networks.precision import network_precision
from genflow.summary import finite
from genflow.trained import Trained, load_trained

GAP = ("value", "standard_error")  # of pairs, which share examples and some of the noise: it has all errors in it
LEAST = {"num": 2, "samples": 2, "repeats": 2, "batch_size": 1}  # the least value of each flag
CHAIN = "upper limit of the chain's -log p"
FEW = 3  # effective chains below which the error of their log-mean-exp is too small
FLOW = "probability flow"
KINDS = {
    "terms": f"{CHAIN}, on average; every term with one draw of noise",
    "random": f"{CHAIN}, on average; a random time for each draw",
    "chains": f"{CHAIN}, the tighter the more chains",
    "exact": "the flow's -log p itself, within the solver's tolerance",
    "trace": "estimate of the flow's -log p: unbiased trace, solver's tolerance",
    "dequantized": "upper limit of the flow's -log P, on average, within the solver's tolerance",
}


class Question(NamedTuple):
    """Which examples, and how much work."""

    num: int = 200  # examples, evenly spaced in the part
    split: str = "test"  # or validation
    tolerances: tuple[float, ...] = (1e-3, 1e-5)  # relative and absolute, of the equation's solver
    samples: int = 16  # whole chains of each example, and random times
    repeats: int = 2  # draws of all noise of each example, for the sum of terms and for the flow
    batch_size: int = 50  # examples at once
    seed: int = 0


class Method(NamedTuple):
    """One way: draw(key, batch) -> (log p [B, draws], network calls of an example in one draw [])."""

    name: str
    kind: str
    draw: Callable
    rounds: int  # how often draw is called
    combine: Callable  # log p of draws [B, K] -> [B, 2]: a value and its own standard error


def check_question(question: Question) -> None:
    """Raises UserError, which names the flag, for a number that is too small, before anything is computed."""
    for flag, least in LEAST.items():
        if getattr(question, flag) < least:
            raise UserError(f"--{flag}={getattr(question, flag)} must be {least} at least")
    if not question.tolerances or min(question.tolerances) <= 0:
        raise UserError(f"--tolerances={','.join(map(str, question.tolerances))}: expected numbers above zero")


def compare_bounds(workdir: str, question: Question, defaults: Mapping | None = None, as_json: bool = False) -> dict:
    """Compares them on a trained run, prints a table and writes bounds.json.

    Args:
      defaults: see `load_trained`.
      as_json: print what the file holds instead of the table.

    Raises:
      UserError: a run without a diffusion model, or a question that makes no sense.
    """
    check_question(question)
    path = pathlib.Path(workdir).expanduser().resolve()
    trained = load_trained(path, defaults)
    if trained.experiment.model.diffusion is None:
        name = trained.experiment.config.model.name
        raise UserError(f"{path}: {name} is no diffusion model, the likelihood of which has several forms to compare")
    record = answer(trained, question)
    text = json.dumps(record, indent=2, allow_nan=False)
    folders.write_text(path / "bounds.json", text + "\n")
    print(text if as_json else f"{table(record)}\nwritten to  {path / 'bounds.json'}")
    return record


def answer(trained: Trained, question: Question) -> dict:
    """What bounds.json holds."""
    config, spec = trained.experiment.config, trained.experiment.spec
    examples = _examples(trained, question)
    found, lines = {}, []
    for method in methods(trained, question):
        values, line = _measure(trained, method, examples, question)
        found[method.name] = values
        lines.append({"name": method.name, "kind": method.kind} | _figures(spec, average(values)) | line)
    gaps = [
        {"name": f"{one} - ({other})"} | _figures(spec, gap(found[one], found[other]), GAP)
        for one, other in pairs(found)
    ]
    return {
        "name": config.name,
        "command": shlex.join(["python", *sys.argv]),
        "config_hash": folders.config_hash(config),
        "model": config.model.name,
        "data": spec.name,
        "split": question.split,
        "num_examples": question.num,
        "unit": unit(spec),
        "settings": question._asdict(),
        "methods": lines,
        "gaps": gaps,
        "step": trained.step,
        "seed": question.seed,
        "params_sha256": digest(trained.params),
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
        "created_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """What is compared: each with the first, and each of the flows, which share their noise, with the one before."""
    names = list(names)
    flows = [name for name in names if name.startswith(FLOW)]
    return [(name, names[0]) for name in names[1:]] + [
        pair for pair in zip(flows[1:], flows, strict=False) if pair[1] != names[0]
    ]


def _examples(trained, question):
    dataset = trained.experiment.evaluation.get(question.split)
    if dataset is None or question.num > dataset.num:
        raise UserError(f"--num={question.num} examples of {question.split}: there are {dataset.num if dataset else 0}")
    return dataset.fetch(np.linspace(0, dataset.num - 1, question.num).astype(int))


def methods(trained: Trained, question: Question) -> list[Method]:
    """Those that the model has, in the order of the table; each is one compiled program."""
    model, weights = trained.experiment.model, (trained.params, trained.state)
    found, samples, repeats = [], question.samples, question.repeats
    if model.diffusion.terms is not None:
        name = f"bound, sum of {model.diffusion.num_terms + 1} terms"
        found.append(Method(name, KINDS["terms"], _sum_of_terms(model, weights), repeats, of_draws))
    if (by_bound := _with_bound(trained)) is not None:
        name = f"bound, {samples} random times"
        found.append(Method(name, KINDS["random"], _random_times(by_bound, weights), samples, of_draws))
    if model.log_weights is not None:
        per_call = min(samples, trained.experiment.config.eval.samples_per_call)
        rounds = -(-samples // per_call)
        draw = _chains(model, weights, per_call)
        name = f"importance weighting, {rounds * per_call} chains"
        found.append(Method(name, KINDS["chains"], draw, rounds, of_chains))
    for tolerance in question.tolerances:
        name, kind = f"{FLOW}, tolerance {tolerance:g}", KINDS[_flow_kind(trained.experiment.spec)]
        found.append(Method(name, kind, _flow(model, weights, tolerance), repeats, of_draws))
    return found


def _flow_kind(spec):
    if spec.bins is not None:
        return "dequantized"
    return "exact" if spec.dims <= EXACT_DIMS else "trace"


def _with_bound(trained) -> Model | None:
    """The model with the variational bound as its log_prob, whatever its own is; None where its builder has none."""
    experiment = trained.experiment
    if experiment.model.bound == "average":
        return experiment.model
    try:
        with network_precision(experiment.config.compute.network_precision):
            return models.build(dict(experiment.config.model) | {"likelihood": "bound"}, experiment.spec)
    except UserError:
        return None


def _sum_of_terms(model, weights):
    num = model.diffusion.num_terms

    @jax.jit
    def total(params, state, key, batch):
        def add(i, value):
            return value + model.diffusion.terms(params, state, jax.random.fold_in(key, i), batch, i)

        return -jax.lax.fori_loop(0, num + 1, add, jnp.zeros(len(batch["x"])))[:, None], num

    return lambda key, batch: total(*weights, key, batch)


def _random_times(model, weights):
    log_prob = jax.jit(lambda params, state, key, batch: model.log_prob(params, state, key, batch)[:, None])
    return lambda key, batch: (log_prob(*weights, key, batch), 1)


def _chains(model, weights, per_call):
    draw = jax.jit(model.log_weights, static_argnums=4)
    return lambda key, batch: (draw(*weights, key, batch, per_call), per_call * model.diffusion.num_terms)


def _flow(model, weights, tolerance):
    @jax.jit
    def log_prob(params, state, key, batch):
        values, calls = model.diffusion.ode_log_prob(params, state, key, batch, tolerance, tolerance)
        return values[:, None], calls

    return lambda key, batch: log_prob(*weights, key, batch)


def _measure(trained, method, examples, question) -> tuple[Float[np.ndarray, "N 2"], dict]:
    """-log p of each example with its own standard error, nats, and what it took."""
    key = jax.random.fold_in(jax.random.key(question.seed), EVAL_STREAM)
    num, size = len(examples["x"]), min(question.batch_size, len(examples["x"]))
    rows, calls, start = [], [], time.perf_counter()
    for first in range(0, num, size):
        index = np.minimum(np.arange(first, first + size), num - 1)
        batch = {name: a[index] for name, a in examples.items()}
        draws = [method.draw(jax.random.fold_in(key, first + i * num), batch) for i in range(method.rounds)]
        values = np.concatenate([to_host(value) for value, _ in draws], axis=1)
        rows.append(values[: num - first])
        calls.append(sum(int(count) for _, count in draws))
    log_probs = np.concatenate(rows)
    found = method.combine(log_probs) * np.array([-1.0, 1.0])
    cost = {"draws": log_probs.shape[1], "network_calls": finite(float(np.mean(calls)))}
    if method.combine is of_chains:
        effective = effective_samples(log_probs)
        means = {"mean": float(effective.mean()), "least": float(effective.min())}
        cost |= {"effective_draws": means | {"examples_with_few": int((effective < FEW).sum())}}
    return found, cost | {"seconds": round(time.perf_counter() - start, 2)}


def _figures(spec, estimate, fields=Estimate._fields):
    return {field: finite(float(in_unit(spec, getattr(estimate, field)))) for field in fields}


def table(record: dict) -> str:
    """The lines that the command line prints."""
    lines = [
        f"-log p(x) of {record['num_examples']} {record['split']} examples ({record['data']}), {record['unit']}, lower"
        " is better; +- of the examples, in brackets of the draws alone"
    ]
    for line in record["methods"]:
        cost = f"{line['network_calls']:,.0f} network calls an example, {line['seconds']:.1f} s with compilation"
        lines += [_line(line), f"    {line['kind']}", f"    {cost}"]
        if "effective_draws" in line:
            mean, least, few = line["effective_draws"].values()
            warning = (
                f"; below {FEW} for {few} examples: their part of the error in brackets is too small" if few else ""
            )
            lines.append(f"    effective chains {mean:.1f} of {line['draws']} (least {least:.1f}){warning}")
    return "\n".join([*lines, "on the same examples", *map(_line, record["gaps"])])


def _line(line):
    value, error, own = (_number(line[field]) if field in line else "" for field in Estimate._fields)
    return f"  {line['name']:<72}{value:>10} +- {error}" + (f" ({own})" if own else "")


def _number(value):
    return "nan" if value is None else f"{value:.4f}"
