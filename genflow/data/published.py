"""Public data sets by what their authors say of them: the spec and the size of the training part, without the data.

`described` takes a `data` section through the same cuts, crops and bits as `genflow.data.load`; the examples it hands
out are zeros.
"""

import string
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from genflow.core import Spec
from genflow.data import sound, text
from genflow.data.catalog import CATALOG
from genflow.data.check import check_sizes
from genflow.data.dataset import Dataset
from genflow.data.embedded import Source
from genflow.data.images import prepared
from genflow.data.split import split

SPEECH_RATE = 22_050  # Hz, of LJ Speech
ENGLISH = (" " + string.ascii_lowercase).encode()
SHAKESPEARE = ("\n !$&',-.3:;?" + string.ascii_letters).encode()


class Facts(NamedTuple):
    """What a data set is as its source has it, before the `data` section changes anything."""

    shape: tuple[int, ...]
    parts: dict[str, int]  # examples of train, validation, test, as far as there are such
    bins: int | None = 256
    num_classes: int = 0
    cond_dims: int = 0
    sample_rate: int = 0


class Text(NamedTuple):
    """A text: its characters, and the bytes of its parts."""

    symbols: bytes
    train: int


def _table(dims: int, train: int, validation: int, test: int) -> Facts:
    return Facts((dims,), {"train": train, "validation": validation, "test": test}, None)


MNIST = Facts((28, 28, 1), {"train": 60_000, "test": 10_000}, num_classes=10)
IMAGENET = {"train": 1_281_149, "validation": 49_999}
# Sizes from the papers and pages that the catalog, tabular.py and docs/data.md name, and from the catalog of
# tensorflow_datasets, https://www.tensorflow.org/datasets/catalog.
PUBLISHED = {
    "mnist": MNIST,
    "fashion_mnist": MNIST,
    "kmnist": MNIST,
    "binarized_mnist": Facts((28, 28, 1), {"train": 50_000, "validation": 10_000, "test": 10_000}, bins=2),
    "array:freyfaces.npy": Facts((28, 20, 1), {"train": 1_965}),  # one array, which is cut here
    "cifar10": Facts((32, 32, 3), {"train": 50_000, "test": 10_000}, num_classes=10),
    "cifar100": Facts((32, 32, 3), {"train": 50_000, "test": 10_000}, num_classes=100),
    "svhn_cropped": Facts((32, 32, 3), {"train": 73_257, "test": 26_032}, num_classes=10),
    "celeb_a": Facts((218, 178, 3), {"train": 162_770, "validation": 19_867, "test": 19_962}),
    "celeb_a_hq/256": Facts((256, 256, 3), {"train": 30_000}),
    "downsampled_imagenet/32x32": Facts((32, 32, 3), IMAGENET),
    "downsampled_imagenet/64x64": Facts((64, 64, 3), IMAGENET),
    "lsun/church_outdoor": Facts((256, 342, 3), {"train": 126_227, "validation": 300}),  # the shorter side is 256
    "power": _table(6, 1_659_917, 184_435, 204_928),
    "gas": _table(8, 852_174, 94_685, 105_206),
    "hepmass": _table(21, 315_123, 35_013, 174_987),
    "miniboone": _table(43, 29_556, 3_284, 3_648),
    "bsds300": _table(63, 1_000_000, 50_000, 250_000),
    "text8": Text(ENGLISH, 90_000_000),
    "enwik8": Text(bytes(range(128)), 90_000_000),  # read as bytes; it has far more characters
    "tiny_shakespeare": Text(SHAKESPEARE, 1_003_854),
}


def described(config, name: str) -> tuple[Spec, Dataset, dict[str, jax.ShapeDtypeStruct]]:
    """The spec, the training part and the shapes of its arrays, of a `data` section whose set is in PUBLISHED.

    Args:
      name: data.name; `sound` sets count windows of data.window samples.

    Returns:
      `genflow.data.load`'s spec; the training part, whose examples are zeros, but for `arrays`, which are the third.

    Raises:
      UserError: the section asks for a change that data of this spec do not allow.
    """
    facts = SOUNDS[name](config) if name in SOUNDS else PUBLISHED[name]
    if isinstance(facts, Text):
        return _text(config, name, facts)
    spec, parts = _zeros(name, facts)
    parts = split(config, parts)
    check_sizes(config, parts)
    spec, parts = prepared(config, spec, parts)
    return spec, parts["train"], shapes_of(parts["train"])


def shapes_of(train: Dataset) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the arrays of a part that is read lazily, were it in memory."""
    one = train.fetch(np.arange(1))
    return {name: jax.ShapeDtypeStruct((train.num, *a.shape[1:]), a.dtype) for name, a in one.items()}


def _zeros(name: str, facts: Facts) -> Source:
    kind = np.float32 if facts.bins is None else np.uint8

    def fetch(indices):
        arrays = {"x": np.zeros((len(indices), *facts.shape), kind)}
        arrays |= {"label": np.zeros(len(indices), np.int32)} if facts.num_classes else {}
        return arrays | ({"cond": np.zeros((len(indices), facts.cond_dims), np.float32)} if facts.cond_dims else {})

    entry = CATALOG.get(name)
    origin = (entry.homepage, entry.license) if entry else ("", "")
    spec = Spec(name, facts.shape, facts.bins, facts.num_classes, facts.cond_dims, sample_rate=facts.sample_rate)
    return spec._replace(source=origin[0], license=origin[1]), {p: Dataset(n, fetch) for p, n in facts.parts.items()}


def _text(config, name: str, facts: Text) -> tuple[Spec, Dataset, dict[str, jax.ShapeDtypeStruct]]:
    """Windows of a text that has every symbol; their number is that of the real one."""
    window = config.window or text.WINDOW
    sample = facts.symbols * (1 + window // len(facts.symbols))
    entry = CATALOG[name]
    parts = dict.fromkeys(("train", "validation", "test"), sample)
    spec, made = text.windows_of(config, text.Corpus(name, parts, entry.homepage, entry.license))
    arrays = {"text": jax.ShapeDtypeStruct((facts.train,), made["train"].arrays["text"].dtype)}
    return spec, made["train"]._replace(num=facts.train - window + 1), arrays


def _spoken_digit(config) -> Facts:
    """Fifty takes of ten digits by five speakers, of which ten are not for training."""
    parts = {"train": 2_000, "validation": 250, "test": 250}
    return Facts((config.window or sound.WINDOW,), parts, 256, 10, 5, 8_000)


def _ljspeech(config) -> Facts:
    """13,100 clips of 23 h 55 min: about as many windows as fit, half a window less for each clip."""
    window = config.window or sound.WINDOW
    windows = round(86_117 * SPEECH_RATE / window - 13_100 / 2)
    return Facts((window,), {"train": windows}, sample_rate=SPEECH_RATE)


SOUNDS: dict[str, Callable] = {"spoken_digit": _spoken_digit, "ljspeech": _ljspeech}


def is_published(name: str) -> bool:
    """Whether `described` knows the set."""
    return name in PUBLISHED or name in SOUNDS
