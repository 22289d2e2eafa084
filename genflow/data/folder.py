"""A folder of images; class subfolders are optional, and so are folders named train, validation and test."""

from pathlib import Path

import numpy as np

from genflow.core import Spec
from genflow.data.dataset import Dataset
from genflow.data.embedded import Source
from genflow.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".pgm", ".gif")
PARTS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
GRAY = ("1", "L")
COLOR = ("LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # a palette or transparency is resolved to RGB


def image_folder(folder: Path, resized: bool) -> Source:
    """Reads `folder:DIR`, lazily; the images are gray if all of them are.

    Args:
      folder: holds the images, or a folder of images per class, or either of these in each of train, validation, test.
      resized: the images may differ in size, because they will be cropped or resized.

    Raises:
      UserError: no images, a file that is none, images of different sizes.
    """
    files = part_files(folder, SUFFIXES)
    if "train" not in files:
        raise UserError(f"data.name='folder:{folder}' holds no images ({' '.join(SUFFIXES)}) to train on")
    everything = [path for paths in files.values() for path in paths]
    modes, shape = _scan(everything, resized)
    channels = 1 if modes <= set(GRAY) else 3
    classes = classes_of(folder, everything)
    spec = Spec(f"folder:{folder}", (*shape, channels), 256, len(classes), source=str(folder), license="not stated")
    return spec, {part: _lazy(paths, channels, classes) for part, paths in files.items()}


def part_files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """The files of each part that `folder` has; all are 'train' where it has no folder of that name."""
    return {part: found for part, root in _part_folders(folder).items() if (found := _files(root, suffixes))}


def classes_of(folder: Path, files: list[Path]) -> list[str]:
    """The names of the folders, inside those of the parts, in which the files are."""
    roots = set(_part_folders(folder).values())
    return sorted({path.parent.name for path in files if path.parent not in roots})


def _part_folders(folder: Path) -> dict[str, Path]:
    named = {part: folder / name for part, names in PARTS.items() for name in names if (folder / name).is_dir()}
    return named if "train" in named else {"train": folder}


def _files(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Returns the files in `root`, or where it has none, those in its subfolders."""
    for pattern in ("*", "*/*"):
        if found := sorted(p for p in root.glob(pattern) if p.suffix.lower() in suffixes and p.name[0] != "."):
            return found
    return []


def _scan(paths: list[Path], resized: bool) -> tuple[set[str], tuple[int, int]]:
    """Returns the pixel formats of the files and the height and width of the first, from their headers alone."""
    modes, first = set(), None
    for path in paths:
        with _open(path) as image:
            shape = image.height, image.width
            first = first or shape
            modes.add(image.mode)
            if image.mode not in GRAY + COLOR:
                raise UserError(f"{path} has pixel format {image.mode}; convert it to 8 bits")
            if shape != first and not resized:
                raise UserError(
                    f"{path} has {shape} pixels, {paths[0].name} has {first}: set data.image_size (pixels a side)"
                )
    return modes, first


def _lazy(paths: list[Path], channels: int, classes: list[str]) -> Dataset:
    def fetch(indices):
        x = [_pixels(paths[i], channels) for i in indices]
        label = [classes.index(paths[i].parent.name) for i in indices] if classes else None
        return {"x": x} if label is None else {"x": x, "label": np.array(label, np.int32)}

    return Dataset(len(paths), fetch)


def _pixels(path: Path, channels: int) -> np.ndarray:
    with _open(path) as image:
        try:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged data
            raise UserError(f"{path} is damaged ({error}); replace or remove it") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _open(path: Path):
    from PIL import Image

    try:
        return Image.open(path)
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be opened as an image ({error}); replace or remove it") from error
