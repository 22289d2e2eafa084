"""Images and texts that tensorflow_datasets has prepared (array_record files), read without TensorFlow."""

import io
import re
from pathlib import Path

import numpy as np

from genflow.core import Spec
from genflow.data.catalog import CATALOG
from genflow.data.dataset import Dataset
from genflow.data.embedded import Source
from genflow.data.text import Corpus
from genflow.errors import UserError

PARTS = ("train", "validation", "test")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def prepared_version(folder: Path) -> Path | None:
    """Returns the newest prepared version in `folder` (or itself), None where there is none.

    A folder without dataset_info.json is never opened: tensorflow_datasets would try to download, for minutes.
    """
    versions = [v for v in [folder, *sorted(folder.glob("*"), key=_version)] if (v / "dataset_info.json").is_file()]
    return versions[-1] if versions else None


def prepared_set(name: str, folder: Path) -> Source:
    """Returns the parts of a prepared data set of images, read lazily; labels where it has a `label` class."""
    builder = _builder(name, folder)
    features = dict(builder.info.features.items())
    channels, decoders = _image_feature(name, features)
    num_classes = getattr(features.get("label"), "num_classes", 0)
    parts = {
        part: _lazy(folder, builder.as_data_source(split=part, decoders=decoders), channels, bool(num_classes))
        for part in PARTS
        if part in builder.info.splits
    }
    entry = CATALOG.get(name.partition("/")[0])
    origin = (entry.homepage, entry.license) if entry else (builder.info.homepage, _license(builder))
    bins = entry.bins if entry else 256
    return Spec(name, tuple(features["image"].shape), bins, num_classes, source=origin[0], license=origin[1]), parts


def prepared_text(name: str, folder: Path) -> Corpus:
    """Returns the parts of a prepared text, each the records of its feature `text` one after another."""
    builder = _builder(name, folder)
    try:
        parts = {
            part: b"".join(record["text"] for record in builder.as_data_source(split=part))
            for part in PARTS
            if part in builder.info.splits
        }
    except (RuntimeError, OSError) as error:
        raise _damage(folder, error) from error
    entry = CATALOG[name]
    return Corpus(name, parts, entry.homepage, entry.license)


def _builder(name: str, folder: Path):
    import tensorflow_datasets as tfds
    from google.protobuf import json_format

    try:
        builder = tfds.builder_from_directory(folder)
    except (ValueError, RuntimeError, OSError, json_format.Error) as error:
        raise _damage(folder, error) from error
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{folder} is in format {builder.info.file_format.value}, which needs TensorFlow; write it again with "
            f"`tfds build {name} --file_format=array_record`"
        )
    return builder


def _image_feature(name: str, features: dict) -> tuple[int, dict | None]:
    """Returns the channels of the feature `image`, and what makes tensorflow_datasets leave it encoded."""
    import tensorflow_datasets as tfds

    image = features.get("image")
    if image is None or image.np_dtype != np.uint8 or len(image.shape) != 3 or image.shape[-1] not in MODES:
        found = ", ".join(f"{k}: {v.np_dtype} {v.shape}" for k, v in features.items())
        raise UserError(f"data.name={name!r} has no 8-bit feature 'image', only {found}"[:300])
    is_encoded = isinstance(image, tfds.features.Image)
    return image.shape[-1], {"image": tfds.decode.SkipDecoding()} if is_encoded else None


def _lazy(folder: Path, source, channels: int, has_label: bool) -> Dataset:
    def fetch(indices):
        try:
            records = source.__getitems__(np.asarray(indices).tolist())
            x = [_decode(record["image"], channels) for record in records]
        except (RuntimeError, OSError) as error:  # array_record's checksums and Pillow, of a damaged file
            raise _damage(folder, error) from error
        return {"x": x} | ({"label": np.array([r["label"] for r in records], np.int32)} if has_label else {})

    return Dataset(len(source), fetch)


def _decode(image: bytes | np.ndarray, channels: int) -> np.ndarray:
    """Decodes an encoded image; the decoder of tensorflow_datasets would log a warning that OpenCV is missing."""
    if isinstance(image, np.ndarray):
        return image
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(image)).convert(MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def _damage(folder: Path, error: Exception) -> UserError:
    detail = " ".join(str(error).split())[:200]
    return UserError(f"{folder} is damaged or incomplete ({detail}); delete it and prepare it again")


def _license(builder) -> str:
    info = builder.info.redistribution_info
    return getattr(info, "license", "") or "not stated"


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", folder.name)))
