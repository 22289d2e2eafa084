"""Plain-text tables."""

from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Aligned columns, the first to the left and the rest to the right; None is '-', floats have three digits.

    >>> print(table(["name", "ms"], [["ours", 12.34], ["theirs", None]]))
    name      ms
    ours    12.3
    theirs     -
    """
    cells = [list(columns), *([shown(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(_padded(row, widths)) for row in cells)


def _padded(row, widths):
    first, *rest = zip(row, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]


def shown(value: object) -> str:
    """A number with three significant digits, but never an exponent."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.{max(0, 2 - len(str(int(abs(value)))) + 1)}f}"
