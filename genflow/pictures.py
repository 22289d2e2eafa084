"""What a run shows of its model: sheets of samples, reconstructions, completions, densities, each kind of data its own."""

import pathlib
import re

import jax
import numpy as np

from genflow.core import Spec
from genflow.evaluate import nonfinite, round_trip, sampler
from genflow.experiment import Experiment
from genflow.report import figures, images
from genflow.trained import Trained

PICTURE_EXAMPLES = 12  # a row of samples or reconstructions
SCATTER_EXAMPLES = 2_000
COMPLETIONS = 3  # of each occluded example


def draw(trained: Trained, workdir: pathlib.Path) -> tuple[dict, int]:
    """The sections of the report that show the model, each also as files in samples/; how many samples are broken."""
    return DRAW[trained.experiment.spec.kind](trained, workdir)


def save(spec: Spec, drawn: np.ndarray, stem: str) -> list[str]:
    """Writes samples in the form that one looks at or listens to; returns the paths."""
    return SAVE[spec.kind](spec, drawn, stem) if spec.kind in SAVE else []


def _save_sheet(spec, drawn, stem):
    images.save_png(images.sheet(drawn, spec.bins), f"{stem}.png")
    return [f"{stem}.png"]


def _draw_images(trained, workdir):
    """Sheets, temperature rows, reconstructions, completions."""
    experiment, spec = trained.experiment, trained.experiment.spec
    config, key = experiment.config.sample, jax.random.key(experiment.config.seed)
    test = experiment.evaluation["test"].fetch(np.arange(min(config.num, experiment.evaluation["test"].num)))
    draws = sampler(experiment.model, trained.params, trained.state, config.num, _conditions(trained, test, config.num))
    sheet, rows = draws(key), {t: draws(key, t)[:PICTURE_EXAMPLES] for t in config.temperatures}
    _write_png(workdir, f"step_{trained.step:08d}", images.sheet(sheet, spec.bins))
    for temperature, row in rows.items():
        _write_png(workdir, f"temperature_{temperature:g}", images.sheet(row, spec.bins, PICTURE_EXAMPLES))
    pictures = {"Samples by temperature": images.temperatures(rows, spec.bins)} if rows else {}
    pictures |= {
        "Samples": images.samples(sheet, spec.bins),
        "Test images": images.samples(test["x"], spec.bins),
    }
    if experiment.model.encode is not None:
        first = {name: a[:PICTURE_EXAMPLES] for name, a in test.items()}
        back = round_trip(experiment.model, trained.params, trained.state, first)
        pictures["Reconstructions"] = images.reconstructions(first["x"], back, spec.bins)
    if experiment.model.complete is not None:
        pictures["Completions"] = _completions(trained, test)
        _write_png(workdir, "completions", images.stacked(pictures["Completions"]))
    return pictures, nonfinite(sheet)


def _completions(trained, test):
    """Test images, their upper halves, and what the model makes of these, three times."""
    experiment, model = trained.experiment, trained.experiment.model
    first = {name: a[:PICTURE_EXAMPLES] for name, a in test.items()}
    known = (np.arange(experiment.spec.shape[0]) < experiment.spec.shape[0] // 2)[:, None, None]
    cond = _conditions(trained, first, len(first["x"]))
    complete = jax.jit(lambda p, s, key: model.complete(p, s, key, first["x"], known, cond))
    draws = [complete(trained.params, trained.state, jax.random.key(seed)) for seed in range(COMPLETIONS)]
    return images.completions(first["x"], known, [np.asarray(d) for d in draws], experiment.spec.bins)


def _conditions(trained, batch, num):
    """Those of a batch of test data, over and over, for the samples of a conditional model; None for any other."""
    if not getattr(trained.experiment.config.model, "conditional", False):
        return None
    return {name: np.resize(a, (num, *a.shape[1:])) for name, a in batch.items() if name != "x"}


def _draw_vectors(trained, workdir):
    experiment, model = trained.experiment, trained.experiment.model
    if experiment.spec.dims < 2:
        return {}, 0
    key = jax.random.key(experiment.config.seed)
    test = experiment.evaluation["test"]
    batch = test.fetch(np.arange(min(test.num, SCATTER_EXAMPLES)))
    given, real = _conditions(trained, batch, SCATTER_EXAMPLES), batch["x"]
    points = sampler(model, trained.params, trained.state, SCATTER_EXAMPLES, given)(key)
    if experiment.spec.dims == 2:
        pictures = {"Densities": figures.densities(real, points, _log_density(trained, real))}
    else:
        pictures = {"Projections": figures.projections(real, points)}
    for label, figure in (row for picture in pictures.values() for row in picture.rows.items()):
        _write_png(workdir, f"step_{trained.step:08d}_{re.sub('[^a-z0-9]+', '_', label).strip('_')}", figure)
    return pictures, nonfinite(points)


def _log_density(trained, real):
    model, (grid, _) = trained.experiment.model, figures.lattice(real)
    if model.log_prob is None or getattr(trained.experiment.config.model, "conditional", False):
        return None  # a density for each condition
    return np.asarray(jax.jit(model.log_prob)(trained.params, trained.state, None, {"x": grid}))


def write_sheet(experiment: Experiment, workdir: pathlib.Path, params, state, step: int) -> None:
    """A sheet of samples while training, samples/step_N.png; the same noise at every step."""
    if len(experiment.spec.shape) != 3:
        return
    key = jax.random.key(experiment.config.seed)
    drawn = sampler(experiment.model, params, state, experiment.config.sample.num)(key)
    _write_png(workdir, f"step_{step:08d}", images.sheet(drawn, experiment.spec.bins))


def _write_png(workdir, name, picture):
    folder = workdir / "samples"
    folder.mkdir(exist_ok=True)
    images.save_png(picture, folder / f"{name}.png")


DRAW = {"images": _draw_images, "vectors": _draw_vectors}
SAVE = {"images": _save_sheet}
