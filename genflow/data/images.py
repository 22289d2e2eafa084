"""Cropping, resizing and quantizing images on the host, once, before training."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from genflow.core import Spec
from genflow.data.dataset import SPLIT_SEED, Dataset, in_memory
from genflow.errors import UserError

GRAY_LEVELS = 256  # of intensities that are to be binarized

Image = UInt8[np.ndarray, "H W C"]
Images = Sequence[Image]


LARGEST_SIDE = 4096  # pixels


def crop(images: UInt8[np.ndarray, "*B H W C"], window: tuple[int, int, int, int]) -> UInt8[np.ndarray, "*B h w C"]:
    """Cuts (top, left, height, width) out of images; a window around the whole image pads it with zeros.

    Raises:
      UserError: the window lies partly outside the image.
    """
    top, left, height, width = window
    bottom, right = images.shape[-3] - top - height, images.shape[-2] - left - width
    margins = np.array([top, left, bottom, right])
    if min(height, width) > 0 and (margins >= 0).all():
        return images[..., top : top + height, left : left + width, :]
    if (margins <= 0).all():
        pads = [(0, 0)] * (images.ndim - 3) + [(-top, -bottom), (-left, -right), (0, 0)]
        return np.pad(images, pads)
    raise UserError(
        f"data.crop={tuple(window)} (top, left, height, width) does not fit into an image of {images.shape[-3:]} pixels"
    )


def resize(image: Image, size: int) -> Image:
    """Scales the largest centered square of an image: by averaging whole blocks where they fit, else by Lanczos."""
    from PIL import Image as pillow

    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    method = pillow.Resampling.BOX if side % size == 0 else pillow.Resampling.LANCZOS
    planes = [pillow.fromarray(np.ascontiguousarray(square[..., c])) for c in range(square.shape[-1])]
    return np.stack([np.asarray(p.resize((size, size), method)) for p in planes], axis=-1)


def fit(images: Images | UInt8[np.ndarray, "N H W C"], window: tuple, size: int) -> UInt8[np.ndarray, "N h w C"]:
    """Crops and resizes images (empty window, zero size: as they are) and stacks them.

    Raises:
      UserError: the images are not of one shape.
    """
    if window:
        images = crop(images, window) if isinstance(images, np.ndarray) else [crop(i, window) for i in images]
    if size:
        images = [resize(i, size) for i in images]
    if isinstance(images, np.ndarray):
        return images
    shapes = sorted({i.shape for i in images})
    if len(shapes) > 1:
        raise UserError(f"images differ in shape, {shapes[0]} and {shapes[1]}: set data.image_size (pixels)")
    return np.stack(images)


def quantize(config, bins: int, part: str, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Keeps the upper `bits`, then binarizes: by threshold, or by a draw that is fixed for each evaluation example.

    Under 'stochastic' the training part becomes intensities 0 .. 255, from which `transforms.binarize` draws anew.
    """
    if config.bits < 8:
        x, bins = x >> (8 - config.bits), 2**config.bits
    if config.binarize == "threshold":
        return (x >= (bins - 1) / 2).astype(np.uint8)
    if config.binarize == "stochastic":
        intensity = x if bins == GRAY_LEVELS else np.rint(x * (255 / (bins - 1))).astype(np.uint8)
        return intensity if part == "train" else np.stack(list(map(_draw, intensity, indices)))
    return x


def prepared(config, spec: Spec, parts: dict[str, Dataset]) -> tuple[Spec, dict[str, Dataset]]:
    """Applies crop, image_size, bits and binarize of the `data` section to every part.

    Raises:
      UserError: the section asks for a change that data of this spec do not allow.
    """
    _check(config, spec)
    if spec.kind == "text":
        return spec, parts
    parts = {part: _prepared(config, spec, part, dataset) for part, dataset in parts.items()}
    bins = 2 if config.binarize != "none" else 2**config.bits if config.bits < 8 else spec.bins
    shape = parts["train"].fetch(np.arange(1))["x"].shape[1:]
    return spec._replace(shape=shape, bins=bins), parts


def _prepared(config, spec: Spec, part: str, dataset: Dataset) -> Dataset:
    def change(arrays, indices):
        x = arrays["x"]
        # images cropped and resized when they were prepared (scripts/prepare_data.py celeb_a) stay as they are
        if not isinstance(x, np.ndarray) or x.shape[1:3] != (config.image_size, config.image_size):
            x = fit(x, tuple(config.crop), config.image_size)
        return {**arrays, "x": quantize(config, spec.bins, part, x, indices)}

    if dataset.arrays is not None:
        return in_memory(**change(dataset.arrays, np.arange(dataset.num)))
    return Dataset(dataset.num, lambda indices: change(dataset.fetch(indices), indices))


def _check(config, spec: Spec) -> None:
    is_image, is_discrete = len(spec.shape) == 3 and spec.bins is not None, spec.bins is not None
    is_amount = is_discrete and spec.kind not in ("text", "sound")  # so that one value is more than another
    allowed = {
        "crop": not config.crop or is_image,
        "image_size": not config.image_size or (is_image and config.image_size <= LARGEST_SIDE),
        "augment": config.augment == "none" or is_image,
        "binarize": config.binarize == "none" or is_amount,
        "window": not config.window or spec.kind in ("text", "sound"),
        "bits": config.bits == 8 or (1 <= config.bits < 8 and spec.bins == 256 and is_amount),
    }
    for field, good in allowed.items():
        if not good:
            kind = f"shape {spec.shape} and {spec.bins} bins" if is_discrete else f"shape {spec.shape}, continuous"
            raise UserError(f"data.{field}={config[field]!r} does not apply to {spec.name!r} ({kind})")


def _draw(intensity: np.ndarray, index: int) -> np.ndarray:
    """Binarizes one evaluation example with noise that depends on its index alone."""
    words = np.random.Philox(key=np.array([SPLIT_SEED, index], np.uint64)).random_raw(intensity.size)
    return (words.reshape(intensity.shape) * 2.0**-64 * 255 < intensity).astype(np.uint8)
