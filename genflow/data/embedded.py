"""Data that need no download: handwritten digits, photograph patches, synthetic images."""

import re

import numpy as np

from genflow.core import Spec
from genflow.data.dataset import SPLIT_SEED, Dataset, in_memory, permutation
from genflow.errors import UserError

Source = tuple[Spec, dict[str, Dataset]]

NUM_DIGITS_TEST = 360
# Columns of the photographs in bands of 64 pixels; what is not listed is for training.
BAND = 64
BANDS = {"validation": (2,), "test": (4, 9)}


def digits() -> Source:
    """Handwritten digits 8x8 with 17 gray levels, 1,437 for training and 360 for the test.

    Reference: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; the part that
      scikit-learn ships.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, label = bunch.images[..., None].astype(np.uint8), bunch.target
    order = permutation(len(x), SPLIT_SEED)
    rows = {"test": order[:NUM_DIGITS_TEST], "train": order[NUM_DIGITS_TEST:]}
    spec = Spec("digits", (8, 8, 1), 17, 10, source="scikit-learn load_digits (UCI)", license="CC BY 4.0")
    return spec, {part: in_memory(x[i], label[i]) for part, i in rows.items()}


def patches(size: int = 8, stride: int = 4) -> Source:
    """RGB patches of the two photographs that scikit-learn ships; parts come from disjoint columns of them."""
    from sklearn.datasets import load_sample_images

    bands = [image[:, i : i + BAND] for image in load_sample_images().images for i in range(0, image.shape[1], BAND)]
    per_image = len(bands) // 2
    part_of = {i: part for part, chosen in BANDS.items() for i in chosen}
    windows: dict[str, list] = {"train": [], "validation": [], "test": []}
    for i, band in enumerate(bands):
        views = np.lib.stride_tricks.sliding_window_view(band, (size, size, 3))[::stride, ::stride, 0]
        windows[part_of.get(i % per_image, "train")].append(views.reshape(-1, size, size, 3))
    spec = Spec("patches", (size, size, 3), 256, source="scikit-learn load_sample_images", license="CC BY 2.0")
    return spec, {part: in_memory(np.concatenate(views)) for part, views in windows.items()}


def synthetic(name: str, num: int) -> Source:
    """For tests: `synthetic:HxWxC[:BINS]`, stripes whose direction depends on the label; `synthetic:D`, vectors."""
    if re.fullmatch(r"synthetic:[1-9]\d*", name):
        return _vectors(name, int(name.partition(":")[2]), num)
    shape, bins = _parse_synthetic(name)
    spec = Spec(name, shape, bins, num_classes=10, source="drawn by genflow", license="Apache-2.0")
    sizes = {"train": num or 512, "validation": 64, "test": 64}
    return spec, {part: _stripes(spec, n, i) for i, (part, n) in enumerate(sizes.items())}


def _vectors(name: str, dims: int, num: int) -> Source:
    """A random walk of `dims` steps with Gaussian increments, standardized: Gaussian, strongly correlated."""
    scale = 1 / np.sqrt(np.arange(1, dims + 1))
    entropy = float(0.5 * dims * (1 + np.log(2 * np.pi)) + np.log(scale).sum())
    spec = Spec(name, (dims,), None, entropy=entropy, source="drawn by genflow", license="Apache-2.0")
    parts = {}
    for i, (part, size) in enumerate({"train": num or 512, "validation": 64, "test": 64}.items()):
        steps = np.random.default_rng([SPLIT_SEED, i]).standard_normal((size, dims))
        parts[part] = in_memory((scale * steps.cumsum(1)).astype(np.float32))
    return spec, parts


def _parse_synthetic(name: str) -> tuple[tuple[int, int, int], int]:
    fields = name.split(":")[1:]
    sizes = fields[0].split("x")
    numbers = [*sizes, *fields[1:]]
    if len(sizes) != 3 or len(fields) > 2 or not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise UserError(f"data.name={name!r}: write synthetic:HEIGHTxWIDTHxCHANNELS, synthetic:HxWxC:BINS or :D")
    bins = int(fields[1]) if len(fields) == 2 else 256
    if not 2 <= bins <= 256:
        raise UserError(f"data.name={name!r}: BINS is {bins}, wanted 2 .. 256")
    height, width, channels = map(int, sizes)
    return (height, width, channels), bins


def _stripes(spec: Spec, num: int, stream: int) -> Dataset:
    rng = np.random.default_rng([SPLIT_SEED, stream])
    label = rng.integers(spec.num_classes, size=num)
    height, width, channels = spec.shape
    angle = (np.pi / spec.num_classes * label)[:, None, None]
    row, column = np.arange(height)[:, None], np.arange(width)
    position = np.sin(angle) * row + np.cos(angle) * column
    phase = rng.uniform(0, 2 * np.pi, (num, 1, 1, channels))
    wave = np.sin(2 * np.pi / 8 * position[..., None] + phase) + 0.2 * rng.standard_normal((num, *spec.shape))
    x = np.clip((wave / 2.4 + 0.5) * spec.bins, 0, spec.bins - 1).astype(np.uint8)
    return in_memory(x, label)
