"""What a user does with a trained run, from its folder alone: score it, sample it."""

import json
import pathlib

import jax
import numpy as np

from genflow import workdir as folders
from genflow.errors import UserError
from genflow.evaluate import nonfinite, sampler, unit
from genflow.pictures import save
from genflow.summary import finite, part_scores
from genflow.trained import load_trained


def evaluate_run(workdir: str, seed: int = 0) -> dict:
    """Scores the chosen checkpoint on the validation and test parts, prints them and writes eval_seed_N.json."""
    path = pathlib.Path(workdir).expanduser().resolve()
    trained = load_trained(path)
    if trained.experiment.model.log_prob is None:
        raise UserError(f"{trained.experiment.config.model.name} has no likelihood; use --mode=sample")
    scores = part_scores(trained, seed)
    result = {
        "name": trained.experiment.config.name,
        "step": trained.step,
        "seed": seed,
        "unit": unit(trained.experiment.spec),
        "bound": trained.experiment.model.bound,
    } | {
        part: {"value": s.value, "standard_error": finite(s.standard_error), "num_examples": s.num_examples}
        for part, s in scores.items()
    }
    out = path / f"eval_seed_{seed}.json"
    folders.write_text(out, json.dumps(result, indent=2, allow_nan=False) + "\n")
    for part, s in scores.items():
        figure = f"{s.value:.4f} +- {s.standard_error:.4f} {result['unit']}"
        print(f"{part:<12}{figure} ({result['bound']}, {s.num_examples} examples)")
    print(f"written to  {out}")
    return result


def sample_run(
    workdir: str, num: int = 64, temperature: float | tuple[float, ...] = 1.0, seed: int = 0, label: int | None = None
) -> np.ndarray:
    """Draws from the chosen checkpoint; writes samples/*.npy and, for images, a PNG sheet.

    Args:
      temperature: of the latents: one number, or one for each level of a multi-scale flow, the coarsest first.
      label: class of all samples, for a conditional model.
    """
    path = pathlib.Path(workdir).expanduser().resolve()
    trained = load_trained(path)
    experiment = trained.experiment
    cond = _class_of(experiment, num, label)
    try:
        drawn = sampler(experiment.model, trained.params, trained.state, num, cond)(jax.random.key(seed), temperature)
    except ValueError as error:
        raise UserError(f"--temperature: {error}") from error
    stem = path / "samples" / _stem(num, temperature, seed, label)
    stem.parent.mkdir(exist_ok=True)
    np.save(f"{stem}.npy", drawn)
    written = [f"{stem}.npy", *save(experiment.spec, drawn, str(stem))]
    if broken := nonfinite(drawn):
        print(f"WARNING: {broken} of {num} samples are not finite; they are magenta in a sheet")
    print(*(f"written to  {name}" for name in written), sep="\n")
    return drawn


def _class_of(experiment, num, label):
    if label is None:
        return None
    classes = experiment.spec.num_classes if getattr(experiment.config.model, "conditional", False) else 0
    if not 0 <= label < classes:
        wanted = f"0 .. {classes - 1}" if classes else "a run with config.model.conditional=True on data with labels"
        raise UserError(f"--label={label}: wanted {wanted}")
    return {"label": np.full(num, label, np.int32)}


def _stem(num, temperature, seed, label):
    scales = temperature if isinstance(temperature, tuple) else (temperature,)
    stem = f"num_{num}_temperature_{'_'.join(f'{t:g}' for t in scales)}_seed_{seed}"
    return stem if label is None else f"{stem}_label_{label}"
