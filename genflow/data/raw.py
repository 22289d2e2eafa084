"""Parsers of the original files of public data sets: {file name: path} -> arrays, without TensorFlow or pickle.

The files have passed their sha256 (`download`), and still no parser reads more than a declared cap, extracts an archive
or trusts a name in it.
"""

import gzip
import io
import math
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genflow.data.dataset import Arrays
from genflow.data.images import crop, resize
from genflow.data.sound import read_wav

Files = Mapping[str, Path]

IDX_TYPE = 8  # unsigned bytes
MAX_BYTES = 1 << 28  # of any one array or archive member, uncompressed
LARGE_TEXT = 100_000_000  # bytes
CIFAR_ROW = 1 + 32 * 32 * 3
CELEBA_WINDOW, CELEBA_SIZE = (40, 15, 148, 148), 64


def idx(files: Files) -> Arrays:
    """Parses MNIST and its kin: gzipped idx files (LeCun, Cortes and Burges)."""
    keys = {"train-images-idx3": "x_train", "train-labels-idx1": "y_train", "t10k-images-idx3": "x_test"}
    keys["t10k-labels-idx1"] = "y_test"
    arrays = {keys[name.removesuffix("-ubyte.gz")]: _idx_file(path) for name, path in files.items()}
    return {key: a[..., None] if a.ndim == 3 else a for key, a in arrays.items()}


def _idx_file(path: Path) -> np.ndarray:
    with gzip.open(path) as file:
        zero, kind, rank = np.frombuffer(file.read(4), [("zero", ">u2"), ("kind", "u1"), ("rank", "u1")])[0]
        shape = tuple(int(n) for n in np.frombuffer(file.read(4 * rank), ">u4"))
        if zero or kind != IDX_TYPE or not 0 < math.prod(shape) <= MAX_BYTES:
            raise ValueError(f"{path.name}: not an idx file of bytes, shape {shape}")
        values = np.frombuffer(file.read(math.prod(shape) + 1), np.uint8)
    return values.reshape(shape)


def amat(files: Files) -> Arrays:
    """Parses the binarized MNIST of Larochelle: one image a line, 784 digits 0 or 1, each followed by a blank."""
    parts = {"train": "x_train", "valid": "x_valid", "test": "x_test"}
    return {key: _amat_file(files[f"binarized_mnist_{part}.amat"]) for part, key in parts.items()}


def _amat_file(path: Path) -> np.ndarray:
    characters = np.fromfile(path, np.uint8, count=MAX_BYTES).reshape(-1, 784, 2)
    pixels = characters[..., 0] - ord("0")
    if pixels.max() > 1 or not np.isin(characters[..., 1], (ord(" "), ord("\n"))).all():
        raise ValueError(f"{path.name}: not lines of 784 binary digits")
    return pixels.reshape(-1, 28, 28, 1)


def cifar10(files: Files) -> Arrays:
    """Parses the binary version of CIFAR-10: rows of one label and 3 x 32 x 32 bytes (Krizhevsky, 2009)."""
    (path,) = files.values()
    wanted = {f"cifar-10-batches-bin/{name}.bin" for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]}
    rows = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.isreg() and member.name in wanted and member.size <= MAX_BYTES:
                content = archive.extractfile(member).read(member.size)
                rows[member.name] = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_ROW)
    if missing := wanted - set(rows):
        raise ValueError(f"{path.name}: no {', '.join(sorted(missing))}")
    *train, test = (rows[name] for name in sorted(wanted))
    both = {"train": np.concatenate(train), "test": test}
    images = {f"x_{part}": r[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for part, r in both.items()}
    return images | {f"y_{part}": r[:, 0] for part, r in both.items()}


def svhn(files: Files) -> Arrays:
    """Parses the cropped digits of SVHN: MATLAB arrays X [32, 32, 3, n] and y [n, 1], where 10 means zero."""
    from scipy.io import loadmat

    arrays = {}
    for part in ("train", "test"):
        content = loadmat(files[f"{part}_32x32.mat"], variable_names=("X", "y"))
        arrays[f"x_{part}"] = content["X"].transpose(3, 0, 1, 2)
        arrays[f"y_{part}"] = (content["y"].reshape(-1) % 10).astype(np.uint8)
    return arrays


def celeb_a(files: Files) -> Arrays:
    """Parses the aligned images of CelebA, cut to rows 40-187 and columns 15-162 and resized to 64x64.

    Reference: the window of Dinh et al. (2017), Real NVP, arXiv:1605.08803; the whole set at 218x178 would be 23 GB.
    """
    lines = [line.split() for line in files["list_eval_partition.txt"].read_text().splitlines() if line.strip()]
    arrays = {}
    with zipfile.ZipFile(files["img_align_celeba.zip"]) as archive:
        for key, code in {"x_train": "0", "x_valid": "1", "x_test": "2"}.items():
            names = [f"img_align_celeba/{name}" for name, part in lines if part == code]
            arrays[key] = np.empty((len(names), CELEBA_SIZE, CELEBA_SIZE, 3), np.uint8)
            for i, name in enumerate(names):
                arrays[key][i] = resize(crop(_zipped_image(archive, name, "RGB"), CELEBA_WINDOW), CELEBA_SIZE)
    return arrays


def omniglot(files: Files) -> Arrays:
    """Parses Omniglot: 964 characters for training and 659 others for the test, 105x105, ink is 1."""
    arrays, first = {}, 0
    for part, stem in {"train": "images_background", "test": "images_evaluation"}.items():
        with zipfile.ZipFile(files[f"{stem}.zip"]) as archive:
            names = sorted(n for n in archive.namelist() if n.startswith(f"{stem}/") and n.endswith(".png"))
            arrays[f"x_{part}"] = np.stack([_zipped_image(archive, n, "L") < 128 for n in names]).astype(np.uint8)
        _, label = np.unique([n.rpartition("/")[0] for n in names], return_inverse=True)
        arrays[f"y_{part}"] = (first + label).astype(np.int32)
        first += int(label.max()) + 1
    return arrays


def tiny_shakespeare(files: Files) -> Arrays:
    """Cuts the text as tensorflow_datasets does: 90 % for training, 5 % each for validation and test."""
    (path,) = files.values()
    return _parts(np.fromfile(path, np.uint8, count=MAX_BYTES), (0.9, 0.95))


def large_text(files: Files) -> Arrays:
    """Parses text8 and enwik8: of 100 million bytes the first 90 are for training, 5 for validation, 5 for test.

    Reference: the split of Al-Rfou et al. (2019), arXiv:1808.04444, section 3, and of nearly all after them.
    """
    (path,) = files.values()
    with zipfile.ZipFile(path) as archive, archive.open(path.stem) as member:
        text = np.frombuffer(member.read(MAX_BYTES), np.uint8)
    if len(text) != LARGE_TEXT:
        raise ValueError(f"{path.name}: {len(text):,} bytes, wanted {LARGE_TEXT:,}")
    return _parts(text, (0.9, 0.95))


def _parts(text: np.ndarray, stops: tuple[float, float]) -> Arrays:
    names = ("x_train", "x_valid", "x_test")
    return dict(zip(names, np.split(text, [int(stop * len(text)) for stop in stops]), strict=True))


def spoken_digit(files: Files) -> Arrays:
    """Parses the recordings of the Free Spoken Digit Dataset, DIGIT_SPEAKER_TAKE.wav, in the order of their names."""
    (path,) = files.values()
    recordings = {}
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            match = re.fullmatch(r"[^/]+/recordings/((\d)_([a-z]+)_(\d+)\.wav)", member.name)
            if match and member.isreg() and member.size <= MAX_BYTES:
                content = io.BytesIO(archive.extractfile(member).read(member.size))
                recordings[match[1]] = (*match.groups()[1:], read_wav(content, match[1]))
    if not recordings:
        raise ValueError(f"{path.name}: no recordings")
    digits, speakers, takes, audio = zip(*(recordings[name] for name in sorted(recordings)), strict=True)
    names, speaker = np.unique(speakers, return_inverse=True)
    return {
        "audio": np.concatenate(audio),
        "length": np.array([len(a) for a in audio], np.int32),
        "label": np.array(digits, np.uint8),
        "speaker": speaker.astype(np.uint8),
        "speaker_name": names,
        "take": np.array(takes, np.int32),
        "sample_rate": np.array(8000),
    }


def _zipped_image(archive: zipfile.ZipFile, name: str, mode: str) -> np.ndarray:
    from PIL import Image

    if archive.getinfo(name).file_size > MAX_BYTES:
        raise ValueError(f"{name} declares {archive.getinfo(name).file_size:,} bytes")
    pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


PARSERS = {
    "mnist": idx,
    "fashion_mnist": idx,
    "kmnist": idx,
    "binarized_mnist": amat,
    "cifar10": cifar10,
    "svhn_cropped": svhn,
    "celeb_a": celeb_a,
    "omniglot": omniglot,
    "spoken_digit": spoken_digit,
    "tiny_shakespeare": tiny_shakespeare,
    "text8": large_text,
    "enwik8": large_text,
}
