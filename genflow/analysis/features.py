"""What sets of samples are compared by: features of a small classifier, of the Inception network, or coordinates.

The small classifier is trained on the data themselves: distances of its features compare models on one data set, and
carry its name (`frechet_digits`). Only those of the Inception network with its published weights are FID, KID and IS.
"""

import os
import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from genflow.analysis.distances import Events, Features, flat
from genflow.core import Params, Spec
from genflow.networks.inception import inception

HIDDEN, BATCH = 64, 200  # of the classifier: hidden units, examples an update
UPDATES, PASSES = 3_000, 20  # at least so many, and so many times over the data
CLASSIFIER_SEED = 0  # of every run: figures of two seeds are of one ruler
CONSTANT = 1e-9  # standard deviation, relative to the largest value, up to which a coordinate counts as constant
INCEPTION_BATCH = 50


class Described(NamedTuple):
    """What an extractor says of a set of events."""

    features: Features
    probabilities: Float[np.ndarray, "N K"] | None = None  # of classes, where the extractor is a classifier


class Extractor(NamedTuple):
    """A name that the metrics get, and describe(events) -> Described, each event on its own."""

    name: str
    describe: Callable[[Events], Described]


def short_name(name: str) -> str:
    """A data set's name without the folders of this machine.

    >>> short_name("folder:/home/me/cats"), short_name("digits")
    ('folder:cats', 'digits')
    """
    kind, colon, path = name.partition(":")
    return f"{kind}:{os.path.basename(os.path.abspath(path))}" if colon else name


def classifier(
    name: str, x: Events, labels: Int[np.ndarray, " N"]
) -> tuple[Extractor, Callable[[Events, Int[np.ndarray, " N"]], float]]:
    """Trains a perceptron with one hidden layer, whose units are the features; returns it, and its accuracy.

    Events are scaled to the range that they have here. The same data give the same perceptron.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second of every start, if it stood above
    from sklearn.neural_network import MLPClassifier

    low, span = x.min(), max(np.ptp(x), 1e-12)
    batch_size = min(BATCH, len(x))
    passes = max(UPDATES * batch_size // len(x), PASSES)
    network = MLPClassifier((HIDDEN,), random_state=CLASSIFIER_SEED, max_iter=passes, batch_size=batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a limit of passes that is meant
        network.fit((flat(x) - low) / span, labels)

    def describe(events):
        scaled = (flat(events) - low) / span
        features = np.maximum(scaled @ network.coefs_[0] + network.intercepts_[0], 0)
        return Described(features, network.predict_proba(scaled))

    def accuracy(events, labels):
        return float(network.score((flat(events) - low) / span, labels))

    return Extractor(short_name(name), describe), accuracy


def coordinates(x: Events) -> Extractor:
    """Every coordinate, in units of the standard deviation that it has here: for vectors, which need no network.

    A coordinate that is constant here keeps its own units.
    """
    deviation = flat(x).std(0)
    scale = np.where(deviation > CONSTANT * np.abs(flat(x)).max(0), deviation, 1.0)
    return Extractor("coordinates", lambda events: Described(flat(events) / scale))


def inception_extractor(params: Params, spec: Spec) -> Extractor:
    """The Inception network's pooled features, and its class probabilities.

    These are without the last layer's bias, as in the program with which the Inception score was published.

    Args:
      params: of `networks.inception`, from `inception_params`.
      spec: of the images; a gray one is shown as a colour one, fewer than 256 values are spread over the same range.

    Raises:
      ValueError: not images of whole numbers with one or three channels.
    """
    if spec.kind != "images" or spec.bins is None or spec.shape[-1] not in (1, 3):
        raise ValueError(f"Inception features are of images with 1 or 3 channels; {spec.name} has shape {spec.shape}")
    network = inception()

    @jax.jit
    def apply(params, x):
        x = jnp.broadcast_to(x, (*x.shape[:-1], 3)) / (spec.bins - 1) * 2 - 1
        features, logits = network.apply(params, x.astype(jnp.float32))
        return features, jax.nn.softmax(logits)

    def describe(events):
        size = min(INCEPTION_BATCH, len(events))
        index = [np.minimum(np.arange(s, s + size), len(events) - 1) for s in range(0, len(events), size)]
        parts = [jax.device_get(apply(params, events[i])) for i in index]
        features, probabilities = (np.concatenate(found)[: len(events)] for found in zip(*parts, strict=True))
        return Described(features, probabilities)

    return Extractor("inception", describe)
