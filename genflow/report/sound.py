"""Sound to look at and to listen to: waveforms above spectrograms, wav files."""

import io
import math
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genflow.distributions import mu_law_decode
from genflow.report.canvas import LIGHT, style
from genflow.report.images import Picture

DECIBELS = (-90, -20)  # of full scale: the darkest and the brightest of a spectrogram
FRAME = 0.024  # seconds; a harmonic of a voice is wider than its reciprocal
FRAMES = 96  # of a spectrogram, about
COLORS = 16  # few, so that the page stays small
PANEL = {"width": 2.9, "left": 0.44, "right": 0.04}  # inches
HEIGHTS = {"bottom": 0.4, "spectrogram": 1.3, "gap": 0.05, "wave": 0.45, "top": 0.04}  # inches, from below

Sounds = Num[np.ndarray, "n samples"]  # mu-law codes


class Clip(NamedTuple):
    """A picture with its sound."""

    figure: Figure
    wav: bytes


def spectrogram(sound: Float[np.ndarray, " T"], rate: int) -> Float[np.ndarray, "frequencies frames"]:
    """Magnitudes of a short-time Fourier transform, dB of a full-scale sine; frequencies 0 .. rate / 2.

    >>> bool(abs(spectrogram(np.sin(np.pi / 4 * np.arange(256)), 8000).max()) < 0.1)
    True
    """
    size = min(2 ** round(math.log2(FRAME * rate)), len(sound))
    hop = max(len(sound) // FRAMES, 1)
    padded = np.pad(sound, (size // 2, size - size // 2 - 1))
    window = np.hanning(size + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * window
    magnitudes = np.abs(np.fft.rfft(frames, axis=1)).T * 2 / window.sum()
    return 20 * np.log10(np.maximum(magnitudes, 1e-6))


def decoded(codes: Num[np.ndarray, "*T"]) -> Float[np.ndarray, "*T"]:
    """Codes to sound in [-1, 1]."""
    return np.asarray(mu_law_decode(np.asarray(codes)))


def wav_bytes(sound: Float[np.ndarray, " T"], rate: int) -> bytes:
    """The contents of a wav file: one channel of 16 bits."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.rint(sound.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def clip(codes: Num[np.ndarray, " T"], rate: int, given: int = 0) -> Clip:
    """Draws a sound; a line marks where the first `given` samples end."""
    sound = decoded(codes)
    height = sum(HEIGHTS.values())
    with style():
        figure = Figure(figsize=(PANEL["width"], height))
        width = PANEL["width"] - PANEL["left"] - PANEL["right"]
        bottom = HEIGHTS["bottom"] + HEIGHTS["spectrogram"] + HEIGHTS["gap"]
        boxes = ((HEIGHTS["bottom"], HEIGHTS["spectrogram"]), (bottom, HEIGHTS["wave"]))
        below, above = (
            figure.add_axes((PANEL["left"] / PANEL["width"], low / height, width / PANEL["width"], size / height))
            for low, size in boxes
        )
        _draw_spectrogram(below, sound, rate)
        _draw_wave(above, sound, rate)
        for a in (below, above) if given else ():
            a.axvline(given / rate, color=LIGHT["muted"], linewidth=1, linestyle=(0, (3, 2)))
    return Clip(figure, wav_bytes(sound, rate))


def _draw_spectrogram(a: Axes, sound, rate) -> None:
    extent = (0, len(sound) / rate, 0, rate / 2000)
    colors, (low, high) = matplotlib.colormaps["magma"].resampled(COLORS), DECIBELS
    options = {"vmin": low, "vmax": high, "extent": extent, "origin": "lower", "aspect": "auto"}
    a.imshow(spectrogram(sound, rate), colors, interpolation="none", **options)
    a.set(xlabel="seconds", ylabel="kHz")
    a.xaxis.set_major_locator(MaxNLocator(5))
    a.yaxis.set_major_locator(MaxNLocator(4))


def _draw_wave(a: Axes, sound, rate) -> None:
    """The lowest and the highest value of each piece, as one band: a line through all samples would be a large file."""
    pieces = np.array_split(sound, min(len(sound), 2 * FRAMES))
    at = np.linspace(0, len(sound) / rate, len(pieces))
    low, high = ([bound(piece) for piece in pieces] for bound in (np.min, np.max))
    a.fill_between(at, low, high, color=LIGHT["accent"], linewidth=0.4)
    largest = max(np.abs(sound).max(), 1e-3)
    a.set(xlim=(0, len(sound) / rate), ylim=(-largest, largest), xticks=[], yticks=[])
    a.spines[["left", "bottom"]].set_visible(False)


def clips(codes: Sounds, rate: int, labels: Sequence[str]) -> Picture:
    """Returns one panel for each sound."""
    low, high = (f"{level}".replace("-", "\N{MINUS SIGN}") for level in DECIBELS)
    rows = {label: clip(row, rate) for label, row in zip(labels, codes, strict=True)}
    return Picture(rows, f"Spectrograms: {low} dB of full scale is black, {high} dB is white.")


def completions(codes: Sounds, draws: Sequence[Sounds], given: int, rate: int, labels: Sequence[str]) -> Picture:
    """Returns originals, each followed by its completions, which share their first `given` samples."""
    rows = {}
    for i, label in enumerate(labels):
        rows[f"{label}, original"] = clip(codes[i], rate, given)
        rows |= {f"{label}, completion {k + 1}": clip(draw[i], rate, given) for k, draw in enumerate(draws)}
    return Picture(rows, "What stands before the line was given.")


def sheet(codes: Sounds, rate: int, columns: int = 4) -> Figure:
    """Draws the spectrograms of all sounds in a grid."""
    columns = min(columns, len(codes))
    rows = math.ceil(len(codes) / columns)
    with style():
        figure = Figure(figsize=(2.2 * columns, 1.6 * rows), layout="constrained")
        for i, row in enumerate(codes):
            a = figure.add_subplot(rows, columns, i + 1)
            _draw_spectrogram(a, decoded(row), rate)
            a.label_outer()
    return figure


def save_wavs(codes: Sounds, rate: int, stem: Path | str) -> list[str]:
    """Writes STEM_1.wav, STEM_2.wav, ...; returns the paths."""
    paths = [f"{stem}_{i + 1}.wav" for i in range(len(codes))]
    for path, row in zip(paths, codes, strict=True):
        Path(path).write_bytes(wav_bytes(decoded(row), rate))
    return paths
