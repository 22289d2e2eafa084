"""Pixels: sheets of images, rows by temperature, reconstructions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num, UInt8
from matplotlib.figure import Figure
from PIL import Image

from genflow.report import canvas
from genflow.report.markup import Markup

MAGENTA = (255, 0, 255)  # what a pixel that is not finite looks like
SHEET_WIDTH = 810  # pixels, at most, unless the images themselves are wider
TILE_WIDTH = 96  # pixels, at most, to which a small image is enlarged
MAX_FACTOR = 9  # of enlargement
GAP = 3  # pixels between images

Images = Num[np.ndarray, "n h w c"]  # values 0 .. bins - 1, or any range where bins is None; 1 or 3 channels


class Picture(NamedTuple):
    """One section of the report: pictures, or HTML, by label ('' for none) and a sentence about them."""

    rows: Mapping[str, UInt8[np.ndarray, "h w c"] | Figure | Markup]
    note: str = ""


def rgb(images: Images, bins: int | None) -> UInt8[np.ndarray, "n h w 3"]:
    """Returns images for the eye: clipped to their range, gray as RGB, pixels that are not finite magenta."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"only images [n, h, w, 1 or 3] can be drawn, not an array of shape {list(images.shape)}")
    values = np.asarray(images, np.float32)
    finite = np.isfinite(values)
    low, high = (0, bins - 1) if bins else (values.min(where=finite, initial=0), values.max(where=finite, initial=0))
    levels = np.where(finite, (values - low) / max(high - low, 1e-12), 0).clip(0, 1)
    pixels = np.rint(255 * levels).astype(np.uint8)
    return np.where(finite.all(-1, keepdims=True), pixels, np.uint8(MAGENTA))


def tiles(images: Images, bins: int | None, columns: int = 0) -> UInt8[np.ndarray, "h w 4"]:
    """Returns images in a grid, enlarged by a whole factor, on a transparent ground; columns 0: as many as rows."""
    pixels = rgb(images, bins)
    num, height, width, _ = pixels.shape
    columns = min(columns or math.isqrt(num - 1) + 1, num)
    factor = min(max(min(SHEET_WIDTH // columns - GAP, TILE_WIDTH) // width, 1), MAX_FACTOR)
    pixels = pixels.repeat(factor, 1).repeat(factor, 2)
    row, column = height * factor + GAP, width * factor + GAP
    grid = np.zeros((math.ceil(num / columns) * row, columns * column, 4), np.uint8)
    for i, tile in enumerate(pixels):
        top, left = i // columns * row, i % columns * column
        place = grid[top : top + row - GAP, left : left + column - GAP]
        place[..., :3], place[..., 3] = tile, 255
    return grid[:-GAP, :-GAP]


def sheet(images: Images, bins: int | None, columns: int = 0) -> UInt8[np.ndarray, "h w 3"]:
    """Returns `tiles` on white."""
    grid = tiles(images, bins, columns)
    return np.where(grid[..., 3:] > 0, grid[..., :3], np.uint8(255))


def samples(images: Images, bins: int | None) -> Picture:
    """Returns one large sheet."""
    return Picture({"": tiles(images, bins)}, broken_note(images))


def filters(weights: Images) -> Picture:
    """Returns weights as images, each with its own scale: gray is zero, white the largest absolute value."""
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    return Picture({"": tiles(127.5 * (1 + weights / np.maximum(largest, 1e-12)), 256)}, "Gray is zero.")


def temperatures(images: Mapping[float, Images], bins: int | None) -> Picture:
    """Returns a row of samples for each temperature."""
    rows = {f"T = {temperature:g}": _strip(row, bins) for temperature, row in images.items()}
    return Picture(rows, broken_note(np.concatenate(list(images.values()))))


def reconstructions(images: Images, decoded: Images, bins: int | None, drawn: Images | None = None) -> Picture:
    """Returns originals above their reconstructions.

    Args:
      drawn: reconstructions from a draw of the posterior, where `decoded` are those from its mode.
    """
    rows = {"original": _strip(images, bins), "reconstruction": _strip(decoded, bins)}
    if drawn is not None:
        note = "Means of p(x | z), with z the mode of q(z | x) and a draw of it."
        mode = rows["reconstruction"]
        return Picture({"original": rows["original"], "mode of q": mode, "draw of q": _strip(drawn, bins)}, note)
    difference = np.abs(np.asarray(images, np.float32) - decoded)
    largest = difference.max(where=np.isfinite(difference), initial=0)
    note = f"Largest difference {largest:.3g}" + (f" of {bins - 1} levels." if bins else ".")
    return Picture(rows, f"{note} {broken_note(decoded)}".strip())


def completions(images: Images, known: np.ndarray, draws: Sequence[Images], bins: int | None) -> Picture:
    """Returns originals, what is given of them (the rest gray), and completions.

    Args:
      known: bool, like one image or broadcast to it.
      draws: each like `images`.
    """
    given = np.where(known, np.asarray(images, np.float32), (bins - 1) / 2 if bins else 0.0)
    rows = {"original": _strip(images, bins), "given": _strip(given, bins)}
    rows |= {f"completion {i + 1}": _strip(draw, bins) for i, draw in enumerate(draws)}
    return Picture(rows)


def levels(images: Images, decoded: Mapping[int, Images], bins: int | None) -> Picture:
    """Returns originals, and what is left of them when only the first n levels are those of the data.

    Args:
      decoded: images by n, the levels after them being drawn from the prior.
    """
    rows = {"original": _strip(images, bins)}
    rows |= {f"{n} of the data" if n else "prior alone": _strip(drawn, bins) for n, drawn in decoded.items()}
    return Picture(rows, "Levels from the first, furthest from the data, are inferred; the others are drawn anew.")


def interpolations(ones: Images, walks: Num[np.ndarray, "p n h w c"], others: Images, bins: int | None) -> Picture:
    """Returns a row for each pair of images: the one, a walk between their reconstructions, the other."""
    rows = {}
    for i, (one, walk, other) in enumerate(zip(ones, walks, others, strict=True)):
        shown = np.stack([one, *walk, other])
        rows[f"pair {i + 1}"] = tiles(shown, bins, len(shown))
    ends = np.stack([walks[:, 0] - ones.astype(np.float32), walks[:, -1] - others.astype(np.float32)])
    largest = np.abs(ends).max(where=np.isfinite(ends), initial=0)
    difference = f"{largest:.3g}" + (f" of {bins - 1} levels" if bins else "")
    note = f"Two test images and the arc between their latents; its ends differ from them by {difference} at most."
    return Picture(rows, f"{note} {broken_note(walks.reshape(-1, *walks.shape[2:]))}".strip())


def stacked(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the rows of a picture of strips as one sheet."""
    grid = np.concatenate([np.pad(row, ((0, GAP), (0, 0), (0, 0))) for row in picture.rows.values()])[:-GAP]
    return np.where(grid[..., 3:] > 0, grid[..., :3], np.uint8(255))


def _strip(images: Images, bins: int | None) -> UInt8[np.ndarray, "h w 4"]:
    width = images.shape[2]
    columns = max(SHEET_WIDTH // (GAP + width * math.ceil(60 / width)), 4)  # at least 60 pixels an image
    return tiles(images[:columns], bins, columns)


def broken_note(images: np.ndarray) -> str:
    """Returns a sentence that counts the images with pixels that are not finite; nothing where there are none."""
    count = int((~np.isfinite(images).reshape(len(images), -1).all(1)).sum())
    return f"Images with non-finite pixels, drawn in magenta: {count:,} of {len(images):,}." if count else ""


def save_png(picture: UInt8[np.ndarray, "h w c"] | Figure, path: Path | str) -> None:
    """Writes a sheet or a plot to a PNG file."""
    if isinstance(picture, Figure):
        with canvas.style():
            picture.savefig(path, format="png", dpi=200, facecolor="white", bbox_inches="tight")
    else:
        Image.fromarray(picture).save(path, format="PNG", optimize=True)
