"""What a user does with a trained run, from its folder alone: score it, sample it."""

import hashlib
import json
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from genflow import workdir as folders
from genflow.analysis import judge, partition
from genflow.analysis.completion import can_complete
from genflow.analysis.parzen import CAVEAT
from genflow.data.text import encode
from genflow.errors import UserError
from genflow.evaluate import completer, in_unit, nonfinite, normalized, unit
from genflow.evaluate import sampler as drawer
from genflow.experiment import evaluation_key
from genflow.pictures import save
from genflow.summary import finite, part_scores
from genflow.trained import load_trained


def evaluate_run(
    workdir: str,
    seed: int = 0,
    defaults: Mapping | None = None,
    num: int = 0,
    features: str = "",
    parzen: bool = False,
) -> dict:
    """Scores the chosen checkpoint, and compares its samples with data; prints what it finds, writes eval_seed_N.json.

    The options that are given stand in the file and in its name: eval_seed_0_num_100_parzen.json.

    A model without a likelihood always has its samples compared; another where one of `num`, `features`, `parzen` or
    config.eval.num_samples asks for it.

    Args:
      defaults: see `load_trained`.
      num: samples; 0: config.eval.num_samples, or as many as there are test examples, at most 10,000.
      features: 'inception:FILE', the published weights; empty: a small classifier of the data, where they have labels.
      parzen: the Parzen window estimate too.

    Raises:
      UserError: another file, a model that has neither a likelihood nor samples, or data that have no such metrics.
    """
    path = pathlib.Path(workdir).expanduser().resolve()
    weights = judge.inception_weights(features.partition(":")[2]) if features else None
    trained = load_trained(path, defaults)
    experiment, section = trained.experiment, trained.experiment.config.eval
    is_scored = experiment.model.log_prob is not None
    if not is_scored and experiment.model.sample is None:
        raise UserError(f"{experiment.config.model.name} has neither a likelihood nor samples to evaluate")
    asked = {"num": num, "features": features.partition(":")[0], "parzen": parzen}
    asked = {name: value for name, value in asked.items() if value}
    num, parzen = num or section.num_samples, parzen or section.parzen
    is_compared = bool(num or features or parzen) or not is_scored
    if is_compared:
        judge.check(experiment, num, parzen)
    result = {"name": experiment.config.name, "step": trained.step, "seed": seed, "options": asked}
    result |= _scores(trained, seed) if is_scored else {}
    if is_compared:
        run = experiment, trained.params, trained.state
        result["samples"] = _compared(judge.compare(*run, num, seed, weights, parzen))
    options = "".join(f"_{name}" if value is True else f"_{name}_{value}" for name, value in asked.items())
    out = path / f"eval_seed_{seed}{options}.json"
    folders.write_text(out, json.dumps(result, indent=2, allow_nan=False) + "\n")
    print(f"written to  {out}")
    return result


def _scores(trained, seed):
    """The figures of the parts and the partition functions that they rest on, printed and as eval_seed_N.json has them.

    Estimates of log Z are drawn anew with the seed, as the noise of evaluation is.
    """
    experiment = trained.experiment
    run = experiment.model, trained.params, trained.state
    trained = trained._replace(state=normalized(*run, evaluation_key(experiment, seed)))
    scores = part_scores(trained, seed)
    result = {"unit": unit(experiment.spec), "bound": experiment.model.bound}
    for part, s in scores.items():
        result[part] = {"value": s.value, "standard_error": finite(s.standard_error), "num_examples": s.num_examples}
        figure = f"{s.value:.4f} +- {s.standard_error:.4f} {result['unit']}"
        print(f"{part:<12}{figure} ({result['bound']}, {s.num_examples} examples)")
    if experiment.model.energy_based is not None and "test" in scores:
        known = trained.state, scores["test"], lambda nats: in_unit(experiment.spec, nats)
        figures = partition.diagnostics(experiment.model, *known)
        result["partition"] = {name: {"value": v, "standard_error": finite(e)} for name, (v, e) in figures.items()}
        print(*(f"  {name:<38}{value:.4f} +- {error:.4f}" for name, (value, error) in figures.items()), sep="\n")
    return result


def _compared(found):
    """A comparison, printed and as eval_seed_N.json has it."""
    print(found.heading)
    if found.num_data:
        print(f"both against {found.num_data:,} training examples")
    lines = found.lines()
    for name, figure in lines.items():
        error = f" +- {figure.standard_error:.4f}" if np.isfinite(figure.standard_error) else ""
        print(f"  {name:<40}{figure.value:11.4f}{error}")
    if found.parzen:
        print(f"  {CAVEAT}")
    for warning in found.warnings():
        print(f"WARNING: {warning}")
    numbers = {"num": found.num, "num_test": found.num_test, "num_data": found.num_data, "nonfinite": found.nonfinite}
    figures = {
        name: {"value": figure.value, "standard_error": finite(figure.standard_error)} for name, figure in lines.items()
    }
    return numbers | {"classifier_accuracy": found.accuracy, "figures": figures}


def sample_run(
    workdir: str,
    num: int = 64,
    temperature: float | tuple[float, ...] = 1.0,
    seed: int = 0,
    label: int | None = None,
    prompt: str = "",
    given: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    sampler: str = "",
    sampler_steps: int | None = None,
    guidance: float | None = None,
    spacing: str = "",
    resample: int | None = None,
    defaults: Mapping | None = None,
) -> np.ndarray:
    """Draws from the chosen checkpoint; writes samples/*.npy and, by kind of data, a PNG sheet, text or sound.

    Args:
      temperature: of the latents: one number, or one for each level of a multi-scale flow, the coarsest first.
      label: class of all samples, for a conditional model.
      prompt: how every sample begins, for a model of text.
      given: this fraction of test examples (their upper rows, first characters or samples of sound) is kept and the
        rest drawn, for an autoregressive or a diffusion model.
      top_k, top_p: only the likeliest values, for an autoregressive model with a softmax.
      sampler, sampler_steps, guidance, spacing: instead of what a diffusion model was configured with.
      resample: of a diffusion model's completion, how often each step is taken.
      defaults: see `load_trained`.

    Raises:
      UserError: the run has no use for one of them.
    """
    path = pathlib.Path(workdir).expanduser().resolve()
    trained = load_trained(path, defaults)
    experiment = trained.experiment
    if experiment.model.sample is None:
        raise UserError(f"{experiment.config.model.name} draws no samples: it says the label of an image, no more")
    cond = _conditions(experiment, num, label, given)
    key = jax.random.key(seed)
    chosen = {"sampler": sampler, "sampler_steps": sampler_steps, "guidance": guidance, "spacing": spacing}
    how = _way(experiment, chosen, resample, given)
    try:
        if prompt or given or top_k or top_p < 1:
            drawn = _complete(trained, key, num, temperature, cond, prompt, given, how | _cut(top_k, top_p))
        else:
            drawn = drawer(experiment.model, trained.params, trained.state, num, cond, **how)(key, temperature)
    except ValueError as error:
        raise UserError(f"--mode=sample: {error}") from error
    named = {"label": label, "given": given, "top_k": top_k, "top_p": top_p} | chosen | {"resample": resample}
    stem = path / "samples" / _stem(num, temperature, seed, **named)
    stem = stem.with_name(stem.name + f"_prompt_{hashlib.sha256(prompt.encode()).hexdigest()[:6]}" * bool(prompt))
    stem.parent.mkdir(exist_ok=True)
    np.save(f"{stem}.npy", drawn)
    written = [f"{stem}.npy", *save(experiment.spec, drawn, str(stem))]
    if broken := nonfinite(drawn):
        print(f"WARNING: {broken} of {num} samples are not finite; they are magenta in a sheet")
    print(*(f"written to  {name}" for name in written), sep="\n")
    return drawn


def _way(experiment, chosen, resample, given):
    """The options of a diffusion model's draw."""
    asked = {name: value for name, value in chosen.items() if value not in ("", None)}
    if resample is not None and not given:
        raise UserError("--resample is for --given, which completes test examples")
    how = asked | ({} if resample is None else {"resample": resample})
    if how and experiment.model.diffusion is None:
        raise UserError(f"--{next(iter(how))} is for diffusion models; {experiment.config.model.name} is none")
    return {"num_steps" if name == "sampler_steps" else name: value for name, value in how.items()}


def _cut(top_k, top_p):
    return ({"top_k": top_k} if top_k else {}) | ({"top_p": top_p} if top_p < 1 else {})


def _complete(trained, key, num, temperature, cond, prompt, given, options):
    experiment, model = trained.experiment, trained.experiment.model
    if model.complete is None:
        name = experiment.config.model.name
        raise UserError(
            f"--prompt, --given, --top_k and --top_p are for autoregressive models, --given for diffusion models too; "
            f"{name} is neither"
        )
    x, known = _beginning(experiment, num, prompt, given)
    if known.any() and not can_complete(model, known, experiment.spec.shape):
        raise UserError("--given keeps the first rows, and this model draws in another order, or in several")
    return completer(model, trained.params, trained.state, x, known, cond, **options)(key, temperature)


def _beginning(experiment, num, prompt, given):
    """Examples, and what of them is known."""
    spec = experiment.spec
    if prompt and given:
        raise UserError("--prompt and --given are two ways to begin; choose one")
    if not prompt:
        rows = np.arange(spec.shape[0]) < round(given * spec.shape[0])
        return _test_examples(experiment, num)["x"], rows.reshape(-1, *(1,) * (len(spec.shape) - 1))
    if spec.kind != "text":
        raise UserError(f"--prompt is for models of text; {spec.name} is {spec.kind}")
    tokens = encode(spec, prompt)
    if len(tokens) > spec.dims:
        raise UserError(f"--prompt has {len(tokens)} symbols, more than the {spec.dims} of an example")
    x = np.zeros((num, *spec.shape), np.int32)
    x[:, : len(tokens)] = tokens
    return x, np.arange(spec.dims) < len(tokens)


def _test_examples(experiment, num):
    test = experiment.evaluation["test"]
    return test.fetch(np.linspace(0, test.num - 1, num).astype(int))


def _conditions(experiment, num, label, given):
    """Those of the test examples that are completed or give condition vectors, and the class that is asked for."""
    spec, conditional = experiment.spec, getattr(experiment.config.model, "conditional", False)
    classes = spec.num_classes if conditional else 0
    if label is not None and not 0 <= label < classes:
        wanted = f"0 .. {classes - 1}" if classes else "a run with config.model.conditional=True on data with labels"
        raise UserError(f"--label={label}: wanted {wanted}")
    if not conditional:
        return None
    examples = _test_examples(experiment, num) if given or spec.cond_dims else {}
    chosen = {} if label is None else {"label": np.full(num, label, np.int32)}
    return {name: a for name, a in examples.items() if name != "x"} | chosen


def _stem(num, temperature, seed, **options):
    scales = temperature if isinstance(temperature, tuple) else (temperature,)
    stem = f"num_{num}_temperature_{'_'.join(f'{t:g}' for t in scales)}_seed_{seed}"
    unused = {"given": 0.0, "top_k": 0, "top_p": 1.0, "sampler": "", "spacing": ""}
    asked = {name: value for name, value in options.items() if value != unused.get(name)}
    return stem + "".join(f"_{name}_{v if isinstance(v, str) else f'{v:g}'}" for name, v in asked.items())
