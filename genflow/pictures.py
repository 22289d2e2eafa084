"""What a run shows of its model: samples, reconstructions, completions, densities, each kind of data its own way."""

import pathlib
import re

import jax
import numpy as np

from genflow.analysis import traversal
from genflow.analysis.completion import can_complete
from genflow.analysis.game import scene_of
from genflow.analysis.interpolation import interpolate
from genflow.analysis.variational_bound import Terms
from genflow.core import Spec
from genflow.data.text import decode
from genflow.evaluate import completer, nonfinite, round_trip, sampler
from genflow.experiment import Experiment
from genflow.hosts import to_host
from genflow.report import diffusion, figures, game, images, sound, text
from genflow.trained import Trained

PICTURE_EXAMPLES = 12  # a row of samples or reconstructions
SCATTER_EXAMPLES = 2_000
SOUNDS, SOUNDS_IN_A_ROW = 6, 3
PAIRS, POINTS = 3, 8  # of test images between which one walks, and images of a walk
COMPLETIONS = 3  # of each occluded example
CONTINUATIONS = 3  # of as many prompts, from all over the test part


def draw(trained: Trained, workdir: pathlib.Path) -> tuple[dict, int]:
    """The sections of the report that show the model, each also as files in samples/; how many samples are broken."""
    return DRAW[trained.experiment.spec.kind](trained, workdir)


def draw_bound(terms: Terms, workdir: pathlib.Path) -> dict:
    """The section of the report that shows the terms of a variational bound, also as a file in samples/."""
    picture = diffusion.bound_terms(terms.means, terms.errors, terms.unit)
    _write_png(workdir, "terms_of_the_bound", picture.rows[""])
    return {"Terms of the bound": picture}


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
    if experiment.model.sample is None:
        return _draw_classes(trained, test, workdir), 0
    given = _conditions(experiment, test, config.num)
    draws = sampler(experiment.model, trained.params, trained.state, config.num, given)
    sheet = draws(key)
    rows = {t: (sheet if t == 1 else draws(key, t))[:PICTURE_EXAMPLES] for t in config.temperatures}
    _write_png(workdir, f"step_{trained.step:08d}", images.sheet(sheet, spec.bins))
    for temperature, row in rows.items():
        _write_png(workdir, f"temperature_{temperature:g}", images.sheet(row, spec.bins, PICTURE_EXAMPLES))
    pictures = {"Samples by temperature": images.temperatures(rows, spec.bins)} if rows else {}
    pictures |= {
        "Samples": images.samples(sheet, spec.bins),
        "Test images": images.samples(test["x"], spec.bins),
    }
    if experiment.model.diffusion is not None:
        pictures |= _walks(trained, test, workdir)
    elif experiment.model.encode is not None and experiment.model.latent is None:
        first = {name: a[:PICTURE_EXAMPLES] for name, a in test.items()}
        back = round_trip(experiment.model, trained.params, trained.state, first)
        pictures["Reconstructions"] = images.reconstructions(first["x"], back, spec.bins)
    if experiment.model.latent is not None:
        pictures |= _latents(trained, {name: a[:PICTURE_EXAMPLES] for name, a in test.items()}, key)
        for caption in ("Plane of the latents", "Levels", "Means of samples"):
            if caption in pictures:
                _write_png(workdir, re.sub("[^a-z]+", "_", caption.lower()), images.stacked(pictures[caption]))
    if experiment.model.energy_based is not None:
        pictures |= _energy_based(trained, workdir)
    # test images, their upper halves, and what the model makes of these
    known = (np.arange(spec.shape[0]) < spec.shape[0] // 2)[:, None, None]
    first = {name: a[:PICTURE_EXAMPLES] for name, a in test.items()}
    if completed := _completed(trained, first, known, COMPLETIONS):
        pictures["Completions"] = images.completions(first["x"], known, completed, spec.bins)
        _write_png(workdir, "completions", images.stacked(pictures["Completions"]))
    return pictures, nonfinite(sheet)


def _energy_based(trained, workdir):
    """The chains that training left, "fantasy particles", and the weights of the most active hidden units."""
    spec, num, model = (
        trained.experiment.spec,
        trained.experiment.config.sample.num,
        trained.experiment.model.energy_based,
    )
    chains = to_host(jax.jit(model.chains)(trained.params, trained.state))[:num]
    pictures = {"Chains of training": images.samples(chains, spec.bins)}
    _write_png(workdir, "chains", images.sheet(chains, spec.bins))
    if model.filters is not None:
        filters = to_host(jax.jit(model.filters)(trained.params, trained.state))[:num]
        pictures["Filters"] = images.filters(filters)
        _write_png(workdir, "filters", images.stacked(pictures["Filters"]))
    return pictures


def _draw_classes(trained, test, workdir):
    """Of a classifier, which draws nothing: test images in the order of the classes that it finds likeliest."""
    experiment = trained.experiment
    logits = jax.jit(experiment.model.classify)(trained.params, trained.state, test["x"])
    ordered = test["x"][np.argsort(np.asarray(logits).argmax(1), kind="stable")]
    _write_png(workdir, "by_predicted_class", images.sheet(ordered, experiment.spec.bins))
    shown = {"Test images": test["x"], "Test images by predicted class": ordered}
    return {caption: images.samples(x, experiment.spec.bins) for caption, x in shown.items()}


def _walks(trained, test, workdir):
    """Between the first test images and those after them; nothing where the model has no latents."""
    experiment, pairs = trained.experiment, min(PAIRS, len(test["x"]) // 2)
    if experiment.model.encode is None or not pairs:
        return {}
    ones, others = ({name: a[i * pairs : (i + 1) * pairs] for name, a in test.items()} for i in (0, 1))
    walks = interpolate(experiment.model, trained.params, trained.state, ones, others, POINTS)
    picture = images.interpolations(ones["x"], walks, others["x"], experiment.spec.bins)
    _write_png(workdir, "interpolations", images.stacked(picture))
    return {"Interpolations": picture}


def _latents(trained, batch, key):
    """Reconstructions by the mode and by a draw of q, levels drawn anew, samples without the observation's noise."""
    spec, run = trained.experiment.spec, (trained.experiment.model, trained.params, trained.state)
    back, drawn = round_trip(*run, batch), traversal.posterior_draw(*run, key, batch)
    pictures = {"Reconstructions": images.reconstructions(batch["x"], back, spec.bins, drawn)}
    means = traversal.sample_means(*run, key, trained.experiment.config.sample.num)
    pictures["Means of samples"] = images.samples(means, spec.bins)
    if (plane := traversal.plane(*run)) is not None:
        pictures["Plane of the latents"] = images.samples(plane, spec.bins)
    if trained.experiment.model.latent.num_levels > 1:
        pictures["Levels"] = images.levels(batch["x"], traversal.levels_from_data(*run, key, batch), spec.bins)
    return pictures


def _completed(trained, batch, known, num):
    """A batch of test examples drawn anew, `num` times, but for what is known; empty where the model cannot do it."""
    experiment, model = trained.experiment, trained.experiment.model
    if not can_complete(model, known, experiment.spec.shape):
        return []
    draw = completer(
        model, trained.params, trained.state, batch["x"], known, _conditions(experiment, batch, len(batch["x"]))
    )
    return [draw(jax.random.key(experiment.config.seed + i)) for i in range(num)]


def _conditions(experiment, batch, num):
    """Those of a batch of test data, over and over, for the samples of a conditional model; None for any other."""
    if not getattr(experiment.config.model, "conditional", False):
        return None
    return {name: np.resize(a, (num, *a.shape[1:])) for name, a in batch.items() if name != "x"}


def _draw_vectors(trained, workdir):
    experiment, model = trained.experiment, trained.experiment.model
    if experiment.spec.dims < 2:
        return _draw_line(trained, workdir) if model.sample is not None else ({}, 0)
    key = jax.random.key(experiment.config.seed)
    test = experiment.evaluation["test"]
    batch = test.fetch(np.arange(min(test.num, SCATTER_EXAMPLES)))
    given, real = _conditions(experiment, batch, SCATTER_EXAMPLES), batch["x"]
    points = sampler(model, trained.params, trained.state, SCATTER_EXAMPLES, given)(key)
    if experiment.spec.dims == 2:
        pictures = {"Densities": figures.densities(real, points, _log_density(trained, real))}
    else:
        pictures = {"Projections": figures.projections(real, points)}
    for label, figure in (row for picture in pictures.values() for row in picture.rows.items()):
        _write_png(workdir, f"step_{trained.step:08d}_{re.sub('[^a-z0-9]+', '_', label).strip('_')}", figure)
    return pictures, nonfinite(points)


def _draw_line(trained, workdir):
    """The last frame, and all of them as a film: samples/training.gif."""
    last = _write_frame(trained.experiment, workdir, trained.params, trained.state, trained.step)
    film, frames = workdir / "samples" / "training.gif", sorted((workdir / "samples").glob("step_*.png"))
    game.save_animation(frames, film)
    return {"Densities on the line": game.picture(last, film.read_bytes())}, last.broken


def _write_frame(experiment, workdir, params, state, step):
    scene = scene_of(experiment, params, state, step)
    (workdir / "samples").mkdir(exist_ok=True)
    game.save_frame(game.frame(scene), workdir / "samples" / f"step_{step:08d}.png")
    return scene


def _log_density(trained, real):
    model, (grid, _) = trained.experiment.model, figures.lattice(real)
    if model.log_prob is None or getattr(trained.experiment.config.model, "conditional", False):
        return None  # a density for each condition
    return np.asarray(jax.jit(model.log_prob)(trained.params, trained.state, None, {"x": grid}))


def _draw_text(trained, workdir):
    """Samples by temperature, and prompts of the test part continued."""
    experiment, spec = trained.experiment, trained.experiment.spec
    config, key = experiment.config.sample, jax.random.key(experiment.config.seed)
    test = experiment.evaluation["test"]
    few = test.fetch(np.linspace(0, test.num - 1, CONTINUATIONS).astype(int))
    given = _conditions(experiment, few, config.num)
    draws = sampler(experiment.model, trained.params, trained.state, config.num, given)
    rows = {t: draws(key, t) for t in config.temperatures}
    (workdir / "samples").mkdir(exist_ok=True)
    for temperature, row in rows.items():
        _save_text(spec, row, f"{workdir}/samples/temperature_{temperature:g}")
    pictures = {}
    if rows:
        readable = {t: [decode(spec, x) for x in row[: text.SHOWN]] for t, row in rows.items()}
        pictures["Samples by temperature"] = text.temperatures(readable)
    first = max(spec.dims // 4, 1)  # characters of each window that are given
    for drawn in _completed(trained, few, np.arange(spec.dims) < first, 1):
        parts = [(x[:first], y[first:], x[first:]) for x, y in zip(few["x"], drawn, strict=True)]
        continued = [text.Continued(*(decode(spec, part) for part in three)) for three in parts]
        pictures["Continuations"] = text.continuations(continued)
    return pictures, 0


def _save_text(spec, drawn, stem):
    text.save_txt([decode(spec, x) for x in drawn], f"{stem}.txt")
    return [f"{stem}.txt"]


def write_sheet(experiment: Experiment, workdir: pathlib.Path, params, state, step: int) -> None:
    """A sheet of samples while training, samples/step_N.png; the same noise at every step."""
    if experiment.spec.kind == "vectors" and experiment.spec.dims == 1 and experiment.model.sample is not None:
        _write_frame(experiment, workdir, params, state, step)
    if experiment.spec.kind not in SAVE or experiment.model.sample is None:
        return
    key = jax.random.key(experiment.config.seed)
    test, num = experiment.evaluation["test"], experiment.config.sample.num
    cond = _conditions(experiment, test.fetch(np.arange(min(num, test.num))), num)
    drawn = sampler(experiment.model, params, state, num, cond)(key)
    (workdir / "samples").mkdir(exist_ok=True)
    save(experiment.spec, drawn, f"{workdir}/samples/step_{step:08d}")


def _write_png(workdir, name, picture):
    folder = workdir / "samples"
    folder.mkdir(exist_ok=True)
    images.save_png(picture, folder / f"{name}.png")


def _draw_sound(trained, workdir):
    """Clips of samples beside test recordings of the same conditions, of colder samples, and completions."""
    experiment, spec = trained.experiment, trained.experiment.spec
    config, key = experiment.config.sample, jax.random.key(experiment.config.seed)
    num = min(config.num, SOUNDS)
    test = experiment.evaluation["test"]
    spread = np.arange(num) * 0.618 % 1  # of a part that is sorted, by class, speaker and take, with no common period
    batch = test.fetch((spread * test.num).astype(int))
    given = _conditions(experiment, batch, num)
    draws = sampler(experiment.model, trained.params, trained.state, num, given)
    sounds = draws(key)
    captions = _captions(batch, num) if given else _captions({}, num)
    pictures = {"Samples": sound.clips(sounds, spec.sample_rate, captions)}
    pictures["Test recordings"] = sound.clips(batch["x"], spec.sample_rate, _captions(batch, num))
    for t in config.temperatures:
        cold = draws(key, t)[:SOUNDS_IN_A_ROW]
        pictures[f"Samples at temperature {t:g}"] = sound.clips(cold, spec.sample_rate, captions[: len(cold)])
    few, half = {name: a[:SOUNDS_IN_A_ROW] for name, a in batch.items()}, spec.dims // 2
    if completed := _completed(trained, few, np.arange(spec.dims) < half, SOUNDS_IN_A_ROW - 1):
        shown = _captions(batch, len(few["x"]))
        pictures["Completions"] = sound.completions(few["x"], completed, half, spec.sample_rate, shown)
    (workdir / "samples").mkdir(exist_ok=True)
    _save_sound(spec, sounds, str(workdir / "samples" / f"step_{trained.step:08d}"))
    return pictures, nonfinite(sounds)


def _captions(batch, num):
    """What each of the first `num` examples of a batch is; a number where it has neither label nor condition."""
    captions = [f"{i + 1}" for i in range(num)]
    if "label" in batch:
        captions = [f"{c}. class {label}" for c, label in zip(captions, batch["label"], strict=False)]
    if "cond" in batch:
        captions = [f"{c}, condition {np.argmax(cond)}" for c, cond in zip(captions, batch["cond"], strict=False)]
    return captions


def _save_sound(spec, drawn, stem):
    images.save_png(sound.sheet(drawn, spec.sample_rate), f"{stem}.png")
    return [f"{stem}.png", *sound.save_wavs(drawn, spec.sample_rate, stem)]


DRAW = {"images": _draw_images, "text": _draw_text, "sound": _draw_sound, "vectors": _draw_vectors}
SAVE = {"images": _save_sheet, "sound": _save_sound, "text": _save_text}
