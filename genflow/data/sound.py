"""Sound as mu-law codes: spoken digits, folders of wav files, tones that are drawn."""

import functools
import wave
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int16, UInt8

from genflow.core import Spec
from genflow.data import arrays
from genflow.data.catalog import CATALOG
from genflow.data.dataset import SPLIT_SEED, Arrays, Dataset, in_memory, permutation
from genflow.data.embedded import Source
from genflow.data.folder import classes_of, part_files
from genflow.data.split import TEST_FRACTION
from genflow.distributions import mu_law_encode
from genflow.errors import UserError

WINDOW = 4096  # samples of one example, unless data.window says otherwise
SILENCE = 128  # the code of zero
BINS = 256
FIELDS = {"audio": "i2", "length": "ui", "label": "ui", "speaker": "ui", "speaker_name": "U", "take": "ui"} | {
    "sample_rate": "ui"
}
TEST_TAKES, VALIDATION_TAKES = range(5), range(5, 10)
LJSPEECH = ("LJSpeech-1.1/wavs", "downloads/extracted/*/LJSpeech-1.1/wavs")


def codes(audio: Int16[np.ndarray, "*T"]) -> UInt8[np.ndarray, "*T"]:
    """16-bit samples to mu-law codes 0 .. 255.

    >>> codes(np.array([-32768, 0, 32767], np.int16)).tolist()
    [0, 128, 255]
    """
    return _table()[audio.view(np.uint16)]


@functools.cache
def _table():
    sound = np.arange(1 << 16, dtype=np.uint16).view(np.int16) / np.float32(1 << 15)
    return np.asarray(mu_law_encode(sound, BINS)).astype(np.uint8)


# Spoken digits


def spoken_digit(folders: list[Path], window: int) -> Source:
    """Free Spoken Digit Dataset 1.0.9: 2,500 recordings at 8 kHz of ten digits by five speakers.

    An example is the start of one recording, and silence after its end: of 4,096 samples that is 23 % of all values.
    The label is the digit, 'cond' the speaker, one-hot. Takes 0 to 4 of each digit and speaker are the usual test part,
    5 to 9 are for validation.

    Args:
      folders: one has spoken_digit.npz: int16 `audio`, recordings end to end, and their `length`, `label`, ...
      window: samples; 0: 4,096.

    Raises:
      UserError: no such file, a field that is missing, or not what it should be.

    Reference: Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset.
    """
    command = f"python scripts/prepare_data.py spoken_digit --data_dir={folders[0]}"
    path = next((path for root in folders if (path := root / "spoken_digit.npz").is_file()), None)
    if path is None:
        searched = ", ".join(map(str, folders))
        raise UserError(f"data.name='spoken_digit' was not found in {searched}; run `{command}`")
    fields = _checked(path, arrays.read(path, f"delete it and run `{command}`", FIELDS))
    x = _starts(codes(fields["audio"]), fields["length"].astype(int), window or WINDOW)
    cond = np.eye(len(fields["speaker_name"]), dtype=np.float32)[fields["speaker"].astype(int)]
    tests, validations = (np.isin(fields["take"], takes) for takes in (TEST_TAKES, VALIDATION_TAKES))
    parts = {"train": ~(tests | validations), "validation": validations, "test": tests}
    entry = CATALOG["spoken_digit"]
    spec = Spec("spoken_digit", x.shape[1:], BINS, 10, cond.shape[1], sample_rate=int(fields["sample_rate"]))
    spec = spec._replace(source=entry.homepage, license=entry.license)
    return spec, {part: in_memory(x[rows], fields["label"][rows], cond[rows]) for part, rows in parts.items()}


def _checked(path: Path, fields: Arrays) -> Arrays:
    for name, kind in FIELDS.items():
        if name not in fields or not (fields[name].dtype.kind in kind or fields[name].dtype.str[1:] in kind):
            found = f"is {fields[name].dtype}" if name in fields else "is missing"
            raise UserError(f"{path}: {name!r} {found}, wanted numbers or names of kind {kind!r}")
    lengths, names, speakers = fields["length"], fields["speaker_name"], fields["speaker"]
    for name in ("label", "speaker", "take"):
        if fields[name].shape != lengths.shape:
            raise UserError(f"{path}: {name!r} has shape {fields[name].shape}, there are {lengths.shape} lengths")
    if fields["audio"].shape != (lengths.sum(dtype=int),):
        raise UserError(f"{path}: 'audio' has shape {fields['audio'].shape}, the lengths add to {lengths.sum():,}")
    if speakers.max(initial=0) >= len(names):
        raise UserError(f"{path}: 'speaker' has {speakers.max()}, there are {len(names)} names")
    return fields


def _starts(values, lengths, window):
    x = np.full((len(lengths), window), SILENCE, np.uint8)
    ends = np.cumsum(lengths)
    for row, first, last in zip(x, ends - lengths, ends, strict=True):
        start = values[first : min(last, first + window)]
        row[: len(start)] = start
    return x


# Files of sound


def sound_folder(name: str, folder: Path, window: int, validation: float) -> Source:
    """Reads `sounds:DIR`, lazily: wav files of 16-bit samples, one channel, one rate, cut into windows end to end.

    What is left of a recording is dropped; a recording shorter than a window is filled up with silence.

    Args:
      folder: holds the files, or a folder of files per class, or either of these in each of train, validation, test.
        Of the recordings, a fifth is cut off where there is no test part, and `validation` of the rest.

    Raises:
      UserError: fewer than three recordings, a file that is none, files of different rates.
    """
    found = part_files(folder, (".wav",))
    everything = [path for paths in found.values() for path in paths]
    if "train" not in found or len(everything) < 3:
        raise UserError(f"data.name={name!r}: {folder} holds {len(everything)} wav files, wanted three or more")
    classes = classes_of(folder, everything)
    spec = Spec(name, (window or WINDOW,), BINS, len(classes), source=str(folder), license="not stated")
    for part, fraction in {"test": TEST_FRACTION, "validation": validation}.items():
        found |= {} if part in found or not fraction else _cut(found["train"], part, fraction)
    lengths, rate = _scan(everything)
    parts = {part: _windows(paths, lengths, classes, *spec.shape) for part, paths in found.items()}
    return spec._replace(sample_rate=rate), parts


def ljspeech(folders: list[Path], window: int, validation: float) -> Source:
    """The LJ Speech Dataset 1.1: 24 hours of one voice at 22,050 Hz, from the files of its unpacked archive.

    They are in <data_dir>/LJSpeech-1.1, or where tensorflow_datasets unpacks them.

    Reference: Ito and Johnson (2017), https://keithito.com/LJ-Speech-Dataset.
    """
    found = [path for root in folders for pattern in LJSPEECH for path in sorted(root.glob(pattern))]
    if not found:
        searched = ", ".join(str(root / LJSPEECH[0]) for root in folders)
        raise UserError(
            f"data.name='ljspeech': no {searched}; unpack https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2 "
            "there, or run `tfds build ljspeech`"
        )
    spec, parts = sound_folder("ljspeech", found[0], window, validation)
    return spec._replace(source="https://keithito.com/LJ-Speech-Dataset", license="public domain"), parts


def _cut(paths: list[Path], part: str, fraction: float) -> dict[str, list[Path]]:
    """Whole recordings for another part: windows of one recording are too much alike to be on both sides."""
    order = permutation(len(paths), SPLIT_SEED, 1)
    num = max(round(fraction * len(paths)), 1)
    return {name: [paths[i] for i in np.sort(rows)] for name, rows in ((part, order[:num]), ("train", order[num:]))}


def _scan(paths: list[Path]) -> tuple[dict[Path, int], int]:
    """The samples of each file and the rate of all, from their headers."""
    lengths, first = {}, None
    for path in paths:
        with _open(path, str(path)) as file:
            lengths[path] = file.getnframes()
            first = first or file.getframerate()
            if file.getframerate() != first:
                raise UserError(
                    f"{path} has {file.getframerate()} Hz, {paths[0].name} has {first}: resample one of them"
                )
    return lengths, first


def _windows(paths: list[Path], lengths: dict[Path, int], classes: list[str], window: int) -> Dataset:
    counts = np.array([max(lengths[path] // window, 1) for path in paths])
    ends = np.cumsum(counts)

    def fetch(indices):
        files = np.searchsorted(ends, indices, side="right")
        firsts = (indices - (ends - counts)[files]) * window
        pieces = [
            codes(read_wav(paths[f], str(paths[f]), int(first), window)) for f, first in zip(files, firsts, strict=True)
        ]
        x = _starts(np.concatenate(pieces), np.array([len(p) for p in pieces]), window)
        label = np.array([classes.index(paths[f].parent.name) for f in files], np.int32) if classes else None
        return {"x": x} if label is None else {"x": x, "label": label}

    return Dataset(int(counts.sum()), fetch)


def read_wav(file: Path | BinaryIO, name: str, first: int = 0, num: int | None = None) -> Int16[np.ndarray, " T"]:
    """Samples first .. first + num - 1 of a wav file of 16 bits and one channel, as many of them as it declares.

    Raises:
      UserError: another kind of file, or one that is shorter than it declares.
    """
    with _open(file, name) as opened:
        declared = max(opened.getnframes() - first, 0)
        num = declared if num is None else min(num, declared)
        opened.setpos(first)
        samples = np.frombuffer(opened.readframes(num), "<i2").astype(np.int16)
    if len(samples) < num:
        raise UserError(f"{name} ends {num - len(samples)} samples before its declared end; replace or remove it")
    return samples


def _open(file: Path | BinaryIO, name: str) -> wave.Wave_read:
    try:
        opened = wave.open(str(file) if isinstance(file, Path) else file, "rb")
    except (wave.Error, EOFError) as error:
        raise UserError(f"{name} cannot be opened as a wav file ({error}); convert it to 16-bit PCM") from error
    if (opened.getnchannels(), opened.getsampwidth()) != (1, 2):
        found = f"{opened.getnchannels()} channels of {8 * opened.getsampwidth()} bits"
        raise UserError(f"{name} has {found}; convert it to one channel of 16 bits")
    return opened


# Drawn


def tones(num: int, window: int) -> Source:
    """Tones of ten pitches at 8 kHz (200 Hz, and each a minor third higher) in two voices, with a little noise.

    The label is the pitch, 'cond' the voice, one-hot: a sine, or one with overtones.
    """
    spec = Spec("tones", (window or WINDOW,), BINS, 10, 2, sample_rate=8000)
    sizes = {"train": num or 512, "validation": 64, "test": 64}
    spec = spec._replace(source="drawn by genflow", license="Apache-2.0")
    return spec, {part: _tones(spec, n, i) for i, (part, n) in enumerate(sizes.items())}


def _tones(spec: Spec, num: int, stream: int) -> Dataset:
    rng = np.random.default_rng([SPLIT_SEED, stream])
    label, voice = rng.integers(spec.num_classes, size=num), rng.integers(spec.cond_dims, size=num)
    hertz = 200 * 2 ** (label / 4)
    phase = 2 * np.pi * (hertz[:, None] * np.arange(*spec.shape) / spec.sample_rate + rng.uniform(size=(num, 1)))
    overtones = sum(np.sin(k * phase) / k for k in (2, 3))
    loudness = rng.uniform(0.1, 0.4, (num, 1))
    sound = loudness * (np.sin(phase) + voice[:, None] * overtones) + 0.01 * rng.standard_normal(phase.shape)
    x = codes((sound.clip(-1, 1) * 32767).astype(np.int16))
    return in_memory(x, label, np.eye(spec.cond_dims, dtype=np.float32)[voice])


NAMED = {
    "tones": lambda config, folders: tones(config.num_examples, config.window),
    "spoken_digit": lambda config, folders: spoken_digit(folders, config.window),
    "ljspeech": lambda config, folders: ljspeech(folders, config.window, config.validation),
}
