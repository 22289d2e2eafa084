"""Samples of a run and test data, both compared with training data: figures of models that have no density."""

import hashlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from genflow.analysis.distances import Events, sliced_wasserstein
from genflow.analysis.features import Described, Extractor, classifier, coordinates, inception_extractor
from genflow.analysis.parzen import Parzen, parzen
from genflow.analysis.sample_metrics import Figure, metrics
from genflow.analysis.torch_file import read_torch_file
from genflow.core import Params
from genflow.data import Dataset, binarize
from genflow.errors import UserError
from genflow.evaluate import nonfinite, sampler
from genflow.experiment import Experiment
from genflow.networks.inception import inception_params

MOST_EXAMPLES = 60_000  # of the training part, its first
MOST_VALUES = 200_000_000  # numbers in memory at once
MOST_SAMPLES = 10_000  # where nobody says how many
CHUNK = 1_000  # examples read at once
WEIGHTS_SHA256 = "6726825d"  # how the digest of the published Inception weights begins, and how their file is named


class Judge(NamedTuple):
    """What samples are compared with: training data, and what an extractor says of them, or None."""

    data: Events
    extractor: Extractor | None
    described: Described | None
    accuracy: float | None  # of the small classifier, on the test part

    def figures(self, x: Events, seed: int = 0) -> dict[str, Figure]:
        """Every metric of a set of events, by name."""
        affordable = max(MOST_VALUES // x[0].size, 2)
        found = {"sliced_wasserstein": Figure(sliced_wasserstein(x[:affordable], self.data))}
        if self.extractor is not None:
            found |= metrics(self.extractor.describe(x), self.described, self.extractor.name, seed)
        return found


class Comparison(NamedTuple):
    """Metrics of samples and, for those that have such, of test data or of training images; by name."""

    samples: Mapping[str, Figure]
    floor: Mapping[str, Figure]
    num: int
    num_test: int
    num_data: int
    nonfinite: int  # samples that are not finite: there are no figures then
    parzen: tuple[Parzen, Parzen] | None = None  # of the samples, and of as many training examples
    accuracy: float | None = None  # of the small classifier, on the test part

    @property
    def heading(self) -> str:
        """What the figures are of."""
        tested = "each" if self.num == self.num_test else f"and {self.num_test:,}"
        warning = "; Parzen windows mislead in many dimensions (Theis et al. 2016)" if self.parzen else ""
        return f"Samples beside test data, {self.num:,} {tested}{warning}"

    def lines(self) -> dict[str, Figure]:
        """Every figure with a name of its own."""
        lines = {}
        for name, figure in self.samples.items():
            lines |= {name: figure, f"{name}, test data": self.floor[name]}
        for name, window in zip(("samples", "training data"), self.parzen or (), strict=False):
            lines |= {f"Parzen nats, {name}": Figure(window.value, window.standard_error)}
            lines |= {f"Parzen sigma, {name}": Figure(window.sigma)}
        return lines


def inception_weights(path: str, sha256: str = WEIGHTS_SHA256) -> Params:
    """The published weights of the Inception network from the user's file.

    Raises:
      UserError: no such file, or another one.
    """
    file = pathlib.Path(path).expanduser()
    try:
        with open(file, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"--features=inception:{path}: {error.strerror}; see docs/sample-metrics.md") from error
    if not digest.startswith(sha256):
        raise UserError(
            f"--features=inception:{path}: its sha256 begins with {digest[:8]}, that of the published weights with "
            f"{sha256}\ntake pt_inception-2015-12-05-{sha256}.pth; see docs/sample-metrics.md"
        )
    try:
        return inception_params(read_torch_file(file))
    except ValueError as error:
        raise UserError(f"--features=inception:{path}: {error}") from error


def make_judge(experiment: Experiment, num_test: int, seed: int = 0, inception: Params | None = None) -> Judge:
    """Reads training data and what describes them: the Inception network if given, or what the data allow.

    Args:
      num_test: examples of the test part that the small classifier is tested on.
      seed: of the small classifier.

    Raises:
      UserError: Inception features of what are no images.
    """
    spec, train = experiment.spec, _training(experiment)
    most = min(train.num, MOST_EXAMPLES)
    data = _examples(train, min(most, max(MOST_VALUES // spec.dims, 2)))
    if inception is not None:
        try:
            extractor = inception_extractor(inception, spec)
        except ValueError as error:
            raise UserError(f"--features: {error}") from error
        return Judge(data["x"], extractor, _described(extractor, train, most), None)
    if spec.kind == "vectors":
        extractor = coordinates(data["x"])
        return Judge(data["x"], extractor, extractor.describe(data["x"]), None)
    if "label" not in data or len(np.unique(data["label"])) < 2:
        return Judge(data["x"], None, None, None)
    extractor, score = classifier(spec.name, data["x"], data["label"], seed)
    test = _examples(experiment.evaluation["test"], num_test)
    return Judge(data["x"], extractor, extractor.describe(data["x"]), score(test["x"], test["label"]))


def _training(experiment):
    """The training part; its pixels are still to be binarized, which those of the other parts are."""
    change, train = binarize(experiment.config.data.binarize), experiment.train

    def fetch(index):
        batch, key = train.fetch(index), jax.random.fold_in(jax.random.key(experiment.config.seed), index[0])
        return batch | {"x": np.asarray(change(key, batch["x"]))}

    return Dataset(train.num, fetch)


def _examples(dataset: Dataset, num: int) -> dict:
    return dataset.fetch(np.arange(min(num, dataset.num)))


def _described(extractor, dataset, num):
    """Of the first examples of a data set, a chunk in memory at a time."""
    starts = range(0, num, CHUNK)
    parts = [extractor.describe(dataset.fetch(np.arange(s, min(s + CHUNK, num)))["x"]) for s in starts]
    return Described(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def draw_samples(experiment: Experiment, params: Params, state, num: int, seed: int = 0) -> Events:
    """Samples in data space, an evaluation batch at a time; of a conditional model of every class in turn."""
    size = min(experiment.config.eval.batch_size, num)
    keys = jax.random.split(jax.random.key(seed), -(-num // size))
    given = _conditions(experiment, size)
    draw = sampler(experiment.model, params, state, size, given)
    return np.concatenate([draw(key) for key in keys])[:num]


def _conditions(experiment, num):
    """Condition vectors of test examples, where a conditional model needs such."""
    if not getattr(experiment.config.model, "conditional", False) or not experiment.spec.cond_dims:
        return None
    test = experiment.evaluation["test"]
    return {name: a for name, a in test.fetch(np.arange(num) % test.num).items() if name != "x"}


def compare(
    experiment: Experiment,
    params: Params,
    state,
    num: int = 0,
    seed: int = 0,
    inception: Params | None = None,
    with_parzen: bool = False,
) -> Comparison:
    """Draws samples and measures them and as many test examples, as far as there are so many.

    Args:
      num: samples; 0: as many as there are test examples, at most 10,000.
      with_parzen: the Parzen estimate too.

    Raises:
      UserError: the model has no samples, or the data are text, or Parzen windows have no validation part.
    """
    check(experiment, num, with_parzen)
    test = experiment.evaluation["test"]
    num = num or max(min(test.num, MOST_SAMPLES), 2)
    x = draw_samples(experiment, params, state, num, seed)
    tested = _examples(test, num)["x"]
    num_data = min(experiment.train.num, MOST_EXAMPLES)
    if broken := nonfinite(x):
        return Comparison({}, {}, num, len(tested), num_data, broken)
    judge = make_judge(experiment, len(tested), seed, inception)
    windows = _parzen(experiment, x) if with_parzen else None
    figures = judge.figures(x, seed), judge.figures(tested, seed)
    return Comparison(*figures, num, len(tested), num_data, 0, windows, judge.accuracy)


def check(experiment: Experiment, num: int = 0, with_parzen: bool = False, prefix: str = "--") -> None:
    """Refuses, before anything is computed, what `compare` cannot do.

    Args:
      prefix: of the names of the flags or fields that ask for it.

    Raises:
      UserError: as `compare` does.
    """
    spec, wanted = experiment.spec, f"{prefix}{'num_samples' if prefix.startswith('config') else 'num'}"
    if experiment.model.sample is None:
        raise UserError(f"{experiment.config.model.name} draws no samples to compare with data: leave {wanted} out")
    if spec.kind == "text":
        raise UserError(f"{spec.name} is text, metrics of samples are of images, sound and vectors: leave {wanted} out")
    if num == 1:
        raise UserError(f"{wanted}=1: metrics of samples need 2 or more")
    if with_parzen and not (experiment.evaluation["validation"].num and spec.bins):
        raise UserError(
            f"{prefix}parzen: a window on {spec.name} needs whole numbers and a validation part, which chooses its "
            "width: leave it out, or train with --config.data.validation=0.1"
        )


def _parzen(experiment, x):
    """Of samples, and of as many training examples as there are, scaled to [0, 1]."""
    top = experiment.spec.bins - 1
    parts = (experiment.evaluation[part] for part in ("validation", "test"))
    validation, test = (_examples(part, MOST_SAMPLES)["x"] / top for part in parts)
    train = _examples(_training(experiment), len(x))["x"]
    return tuple(parzen(samples / top, validation, test) for samples in (x, train))
