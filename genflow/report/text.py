"""Text: samples by temperature, and prompts continued beside what followed them."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from genflow.report.images import Picture
from genflow.report.markup import Markup, element

SHOWN = 2  # samples of a temperature, side by side
CONTROL_PICTURES = 0x2400  # of Unicode: a visible sign for each control character
DELETE, DELETE_PICTURE = 0x7F, 0x2421
RULE = "-" * 72


class Continued(NamedTuple):
    """A prompt, what the model wrote after it, and what had followed it."""

    prompt: str
    drawn: str
    original: str


def visible(text: str) -> str:
    r"""Returns text for the eye: control characters, and those that change the order of others, as signs or escapes.

    >>> visible("a\x00\u202eb")
    'a␀\\u202eb'
    """
    return "".join(_sign(c) if unicodedata.category(c) in ("Cc", "Cf") else c for c in text)


def _sign(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code == DELETE:
        return chr(DELETE_PICTURE)
    return chr(CONTROL_PICTURES + code) if code < 0x20 else character.encode("ascii", "backslashreplace").decode()


def temperatures(texts: Mapping[float, Sequence[str]]) -> Picture:
    """Returns a row of samples for each temperature."""
    return Picture({f"T = {t:g}": _columns(*map(_block, samples[:SHOWN])) for t, samples in texts.items()})


def continuations(texts: Sequence[Continued]) -> Picture:
    """Returns a row for each prompt: continued, and as it stands in the data."""
    rows = {
        f"prompt {i + 1}": _columns(
            _panel("continued", _block(text.drawn, text.prompt)), _panel("original", _block(text.original, text.prompt))
        )
        for i, text in enumerate(texts)
    }
    return Picture(rows, "What was given is on a gray ground; what follows it was drawn, or stood there.")


def _block(text: str, prompt: str = "") -> Markup:
    given = [element("mark", visible(prompt))] if prompt else []
    return element("pre", "\n", *given, visible(text))  # a browser drops a line break that comes first


def _panel(caption: str, block: Markup) -> Markup:
    return element("figure", element("figcaption", caption), block)


def _columns(*blocks: Markup) -> Markup:
    return element("div", *blocks, class_="texts")


def save_txt(texts: Sequence[str], path: str) -> None:
    """Writes texts to a file, a rule between them, control characters made visible: it may be shown in a terminal."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"\n{RULE}\n".join(map(visible, texts)) + "\n")
