"""HTML that escapes itself, and numbers, durations and counts as a reader wants them."""

import html
import math
import re

VOID = ("img", "br")  # elements without an end tag


class Markup(str):
    """Text that is HTML already; every other string is escaped where it enters an element."""


def element(tag: str, *children, **attributes) -> Markup:
    """Returns an element: children in order, `class_` for class, `data_x` for data-x."""
    names = "".join(f' {name.strip("_").replace("_", "-")}="{html.escape(str(v))}"' for name, v in attributes.items())
    return Markup(f"<{tag}{names}>" if tag in VOID else f"<{tag}{names}>{join(children)}</{tag}>")


def join(children) -> Markup:
    """Returns children side by side, escaped unless they are markup."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children))


def linked(text: str) -> Markup:
    """Returns text in which arXiv:NUMBER is a link."""
    parts = re.split(r"(arXiv:\d{4}\.\d{4,5})", text)
    return join(
        element("a", part, href=f"https://arxiv.org/abs/{part[6:]}") if i % 2 else part for i, part in enumerate(parts)
    )


def decimals(error: float | None) -> int:
    """Returns how many decimals a figure deserves: two significant digits of its error; 3 where that is not known."""
    return min(max(1 - math.floor(math.log10(error)), 0), 6) if error and math.isfinite(error) else 3


def number(value: float | None, places: int, signed: bool = False) -> str:
    """Returns a number with so many decimals and a true minus sign; 'not finite' for NaN, infinity and null."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return f"{value:{'+' if signed else ''},.{places}f}".replace("-", "−")


def amount(value: float) -> str:
    """Returns a large number to three digits, with M or B: 12,345 and 44.1 M."""
    for size, suffix in ((1e9, " B"), (1e6, " M")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Returns seconds as 0.42 s, 8.1 s, 3 min 20 s, 5 h 02 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
