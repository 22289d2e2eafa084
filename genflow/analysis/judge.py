"""Samples of a run and test data, both compared with training data: figures of models that have no density."""

import hashlib
import math
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
from genflow.data.dataset import permutation
from genflow.errors import UserError
from genflow.evaluate import nonfinite, sampler
from genflow.experiment import Experiment
from genflow.networks.inception import inception_params

MOST_EXAMPLES = 60_000  # of the training part
MOST_VALUES = 200_000_000  # numbers in memory at once
MOST_SAMPLES = 10_000  # where nobody says how many
CHUNK = 1_000  # examples read at once
SEED = 0  # of which examples, and of how training data are binarized: every run has the same ruler
LEAST_ACCURACY = 0.5  # of a small classifier whose features say something of the data
WEIGHTS_SHA256 = "6726825d"  # how the digest of the published Inception weights begins, and how their file is named


class Judge(NamedTuple):
    """What samples are compared with: training data, and what an extractor says of them, or None."""

    data: Events
    extractor: Extractor | None
    described: Described | None
    accuracy: float | None  # of the small classifier, on the test part

    @property
    def num(self) -> int:
        """Training examples."""
        return len(self.data if self.described is None else self.described.features)

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
    num_data: int  # training examples that both were compared with
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
        """Every figure with a name of its own; a test part that is too small for one has none."""
        lines = {}
        for name, figure in self.samples.items():
            lines |= {name: figure} | ({f"{name}, test data": self.floor[name]} if name in self.floor else {})
        if self.accuracy is not None:
            error = math.sqrt(self.accuracy * (1 - self.accuracy) / self.num_test)
            lines["test accuracy of the classifier"] = Figure(self.accuracy, error)
        for name, window in zip(("samples", "training data"), self.parzen or (), strict=False):
            lines |= {f"Parzen nats, {name}": Figure(window.value, window.standard_error)}
            lines |= {f"Parzen sigma, {name}{', at an end' * window.is_at_edge}": Figure(window.sigma)}
        return lines

    def warnings(self) -> list[str]:
        """What a reader of the figures should know."""
        found = []
        if self.nonfinite:
            found.append(f"{self.nonfinite} of {self.num} samples are not finite: there are no figures")
        if self.accuracy is not None and self.accuracy < LEAST_ACCURACY:
            found.append(
                f"the small classifier is right on {self.accuracy:.0%} of the test examples: what its features say of "
                "these data is worth little"
            )
        if any(window.is_at_edge for window in self.parzen or ()):
            found.append("the best Parzen sigma is at an end of those tried; a better one may lie beyond")
        return found


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


def make_judge(experiment: Experiment, num_test: int, inception: Params | None = None) -> Judge:
    """Reads training data and what describes them: the Inception network if given, or what the data allow.

    Nothing of it depends on the seed of a run or of its evaluation, but for data that are drawn with the run's seed.

    Args:
      num_test: examples of the test part that the small classifier is tested on.

    Raises:
      UserError: Inception features of what are no images.
    """
    spec, train = experiment.spec, _training(experiment)
    most = min(train.num, MOST_EXAMPLES)
    data = chosen_examples(train, min(most, max(MOST_VALUES // spec.dims, 2)))
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
    extractor, score = classifier(spec.name, data["x"], data["label"])
    test = chosen_examples(experiment.evaluation["test"], num_test)
    return Judge(data["x"], extractor, extractor.describe(data["x"]), score(test["x"], test["label"]))


def _training(experiment):
    """The training part; its pixels are still to be binarized, which those of the other parts are."""
    change, train = binarize(experiment.config.data.binarize), experiment.train

    def fetch(index):
        batch, key = train.fetch(index), jax.random.fold_in(jax.random.key(SEED), index[0])
        return batch | {"x": np.asarray(change(key, batch["x"]))}

    return Dataset(train.num, fetch)


def chosen_examples(dataset: Dataset, num: int) -> dict:
    """As many examples as there are of `num`, always the same, in a random order: a source may be sorted by class."""
    return dataset.fetch(permutation(dataset.num, SEED)[:num])


def _described(extractor, dataset, num):
    """Of the examples that `chosen_examples` chooses, a chunk in memory at a time."""
    order = permutation(dataset.num, SEED)[:num]
    parts = [extractor.describe(dataset.fetch(order[s : s + CHUNK])["x"]) for s in range(0, num, CHUNK)]
    return Described(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def draw_samples(experiment: Experiment, params: Params, state, num: int, seed: int = 0) -> Events:
    """Samples in data space, an evaluation batch at a time.

    Those of a conditional model are of every class in turn, or have the condition vectors and labels of test examples.
    """
    size = min(experiment.config.eval.batch_size, num)
    keys = jax.random.split(jax.random.key(seed), -(-num // size))
    run, drawn = (experiment.model, params, state, size), []
    for i, key in enumerate(keys):
        drawn.append(sampler(*run, _conditions(experiment, np.arange(i * size, (i + 1) * size)))(key))
    return np.concatenate(drawn)[:num]


def _conditions(experiment, position):
    """What a conditional model is given for the samples at these positions."""
    spec, test = experiment.spec, experiment.evaluation["test"]
    if not getattr(experiment.config.model, "conditional", False):
        return None
    if not spec.cond_dims:
        return {"label": (position % spec.num_classes).astype(np.int32)}
    rows = permutation(test.num, SEED)[position % test.num]
    return {name: a for name, a in test.fetch(rows).items() if name != "x"}


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
      seed: of the samples, and of the subsets of metrics that take such.
      with_parzen: the Parzen estimate too.

    Raises:
      UserError: the model has no samples, or the data are text, or Parzen windows have no validation part.
    """
    check(experiment, num, with_parzen)
    test = experiment.evaluation["test"]
    num = num or max(min(test.num, MOST_SAMPLES), 2)
    x = draw_samples(experiment, params, state, num, seed)
    tested = chosen_examples(test, num)["x"]
    if broken := nonfinite(x):
        return Comparison({}, {}, num, len(tested), 0, broken)
    judge = make_judge(experiment, len(tested), inception)
    windows = _parzen(experiment, x) if with_parzen else None
    figures = judge.figures(x, seed), judge.figures(tested, seed)
    return Comparison(*figures, num, len(tested), judge.num, 0, windows, judge.accuracy)


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
    if with_parzen and not spec.bins:
        raise UserError(f"{prefix}parzen: {spec.name} is continuous, a window is of whole numbers: leave it out")
    if with_parzen and not experiment.evaluation["validation"].num:
        raise UserError(
            f"{prefix}parzen: a window on {spec.name} needs a validation part, which chooses its width: leave it out, "
            "or train with --config.data.validation=0.1"
        )


def _parzen(experiment, x):
    """Of samples, and of as many training examples as there are, scaled to [0, 1]."""
    top = experiment.spec.bins - 1
    parts = (experiment.evaluation[part] for part in ("validation", "test"))
    validation, test = (chosen_examples(part, MOST_SAMPLES)["x"] / top for part in parts)
    train = chosen_examples(_training(experiment), len(x))["x"]
    return tuple(parzen(samples / top, validation, test) for samples in (x, train))
