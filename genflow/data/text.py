"""Text as windows of characters or bytes: every overlapping one for training, side by side for evaluation."""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from genflow.core import Spec
from genflow.data.arrays import PARTS, read
from genflow.data.catalog import CATALOG
from genflow.data.dataset import Dataset
from genflow.data.embedded import Source
from genflow.errors import UserError

BYTES = tuple(f"0x{value:02x}" for value in range(256))  # no character's name, so that bytes are known by them
WINDOW = 256  # characters of an example, where data.window is 0
TENTHS = (0.8, 0.9)  # where the parts of a text that has none end
DESCRIPTIONS = {"validation": ("lfw",), "test": ("wine_data",)}  # the others are for training
MAX_BYTES = 1 << 31  # of a text: positions are int32


class Corpus(NamedTuple):
    """A text in UTF-8 by parts, and where it comes from."""

    name: str
    parts: Mapping[str, bytes]
    source: str
    license: str


def windows_of(config, corpus: Corpus) -> Source:
    """Returns a text as windows of `data.window` symbols; `data.tokens` says whether these are characters or bytes.

    The training part is every window of it, overlapping, cut where it is needed; the others are windows side by side:
    what remains after the last whole one, less than a window, is not scored.

    Raises:
      UserError: a part that is shorter than a window, no UTF-8, or has characters that the training part has not.
    """
    if missing := {"train", "validation", "test"} - set(corpus.parts):  # cut from overlapping windows, parts would leak
        raise UserError(f"{corpus.name!r} has no part {', '.join(sorted(missing))}; read the file itself, text:FILE")
    window = config.window or WINDOW
    if config.tokens == "bytes":
        symbols, tokens = BYTES, {part: np.frombuffer(text, np.uint8) for part, text in corpus.parts.items()}
    else:
        texts = {part: _decoded(corpus.name, part, text) for part, text in corpus.parts.items()}
        symbols = tuple(sorted(set(texts["train"])))
        tokens = {part: _indices(corpus.name, part, text, symbols) for part, text in texts.items()}
    parts = {
        part: _windows(corpus.name, part, t, window, 1 if part == "train" else window) for part, t in tokens.items()
    }
    spec = Spec(corpus.name, (window,), len(symbols), symbols=symbols, source=corpus.source, license=corpus.license)
    return spec, parts


def _windows(name: str, part: str, tokens: Int[np.ndarray, " N"], window: int, stride: int) -> Dataset:
    num = (len(tokens) - window) // stride + 1
    if num < 1:
        raise UserError(f"data.window={window}: the {part} part of {name!r} has {len(tokens):,} symbols only")

    def gather(arrays, index):
        return {"x": arrays["text"][index[..., None] * stride + np.arange(window, dtype=np.int32)]}

    arrays = {"text": tokens}
    return Dataset(num, lambda indices: gather(arrays, np.asarray(indices)), arrays, gather)


def _decoded(name: str, part: str, text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"the {part} part of {name!r} is no UTF-8 at byte {error.start:,}; set data.tokens=bytes"
        ) from error


def _indices(name: str, part: str, text: str, symbols: tuple[str, ...]) -> Int[np.ndarray, " N"]:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    index_of = np.full(sys.maxunicode + 1, -1, np.int32)
    index_of[[ord(symbol) for symbol in symbols]] = np.arange(len(symbols))
    index = index_of[points]
    if (unknown := np.flatnonzero(index < 0)).size:
        raise UserError(
            f"{part}[{unknown[0]:,}] of {name!r} is {text[unknown[0]]!r}, which the training part has not "
            f"({unknown.size:,} such characters); take them out or set data.tokens=bytes"
        )
    return index.astype(np.uint8 if len(symbols) <= 256 else np.uint16 if len(symbols) <= 65_536 else np.int32)


def encode(spec: Spec, text: str) -> Int[np.ndarray, " n"]:
    """Returns the symbols of a text as integers 0 .. bins - 1, int32.

    Raises:
      UserError: the data are no text, or the text has a character that they have not.
    """
    _check_text(spec)
    if spec.symbols == BYTES:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)
    index = {symbol: i for i, symbol in enumerate(spec.symbols)}
    unknown = sorted(set(text) - set(index))
    if unknown:
        raise UserError(
            f"{spec.name} has no {', '.join(map(repr, unknown[:8]))}; its {len(index)} characters are "
            f"{''.join(spec.symbols)[:200]!r}"
        )
    return np.array([index[character] for character in text], np.int32)


def decode(spec: Spec, tokens: Int[np.ndarray, " n"]) -> str:
    r"""Returns the text of symbols; of bytes, those that are no UTF-8 as \xNN.

    Raises:
      UserError: the data are no text.
    """
    _check_text(spec)
    values = np.asarray(tokens).astype(np.int64).ravel()
    if spec.symbols == BYTES:
        return values.astype(np.uint8).tobytes().decode("utf-8", "backslashreplace")
    return "".join(spec.symbols[value] for value in values)


def _check_text(spec: Spec) -> None:
    if not spec.symbols:
        raise UserError(f"{spec.name} is no text")


def cut(text: bytes, fractions: tuple[float, ...]) -> list[bytes]:
    """Cuts a text in order into parts that end near these fractions of it, never within a character."""
    stops = [_boundary(text, int(fraction * len(text))) for fraction in fractions]
    return [text[start:stop] for start, stop in zip([0, *stops], [*stops, len(text)], strict=True)]


def _boundary(text: bytes, at: int) -> int:
    while at < len(text) and text[at] & 0xC0 == 0x80:  # the second byte of a character, or a later one
        at += 1
    return at


def text_file(path: Path) -> Corpus:
    """Reads `text:FILE`: the last tenth of it is for the test, the tenth before for validation."""
    if not path.is_file():
        raise UserError(f"no text file {path}")
    if not 0 < path.stat().st_size < MAX_BYTES:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes, wanted 1 .. {MAX_BYTES - 1:,}")
    parts = dict(zip(("train", "validation", "test"), cut(path.read_bytes(), TENTHS), strict=True))
    return Corpus(f"text:{path}", parts, str(path), "not stated")


def prepared_text(name: str, path: Path) -> Corpus:
    """Reads what scripts/prepare_data.py wrote: bytes, as one array a part."""
    arrays = read(path, f"delete it and run `python scripts/prepare_data.py {name}`")
    parts = {part: arrays.get(keys[0]) for part, keys in PARTS.items()}
    if any(a is None or a.dtype != np.uint8 or a.ndim != 1 for a in parts.values()):
        raise UserError(f"{path} is no text in three parts; delete it and run `python scripts/prepare_data.py {name}`")
    entry = CATALOG[name]
    return Corpus(name, {part: a.tobytes() for part, a in parts.items()}, entry.homepage, entry.license)


def descriptions() -> Corpus:
    """The data-set descriptions that scikit-learn ships, 43,000 characters; they may differ between its versions."""
    root = Path(find_spec("sklearn").submodule_search_locations[0]) / "datasets" / "descr"
    texts: dict[str, list[bytes]] = {"train": [], "validation": [], "test": []}
    for path in sorted(root.glob("*.rst")):
        part = next((part for part, names in DESCRIPTIONS.items() if path.stem in names), "train")
        texts[part].append(path.read_bytes())
    parts = {part: b"\n\n".join(of_part) for part, of_part in texts.items()}
    return Corpus("descriptions", parts, "scikit-learn, datasets/descr", "BSD-3-Clause")
