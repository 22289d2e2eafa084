"""Matplotlib figures in the page's own colours, as SVG markup."""

import io
import re

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

# Every colour of the report by role. The page declares them as CSS variables of these names, and `svg` writes the
# variables into the figures, so that one figure serves the light theme, the dark theme and print.
LIGHT = {
    "paper": "#fdfdfc",
    "panel": "#f4f4f1",
    "ink": "#1e222a",
    "muted": "#676d78",
    "line": "#dcddd9",
    "accent": "#2864a6",
    "faint": "#a9b0bb",
    "warning": "#8f5205",
    "broken": "#d400d4",
}
POINTS = "#3d85d1"  # of dense scatter plots, which are pixels and must do for both themes
DARK = {
    "paper": "#15171b",
    "panel": "#1e2126",
    "ink": "#e4e6e9",
    "muted": "#9aa1ac",
    "line": "#33373e",
    "accent": "#79afea",
    "faint": "#6d7581",
    "warning": "#e5b567",
    "broken": "#ff5cff",
}
STYLE = {
    "font.size": 8.5,
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlesize": 8.5,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "text.color": LIGHT["muted"],
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",  # text stays text: the page's font, selectable, small
    "svg.hashsalt": "genflow",  # the same run draws the same bytes
}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def plain_numbers(axis: Axis) -> None:
    """Labels the powers of ten of a logarithmic axis as numbers, and nothing between them."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def axes(width: float, height: float, left: float, right: float, bottom: float, top: float) -> Axes:
    """Returns the axes of a new figure; call it inside `style`.

    All lengths are inches, the last four are the margins: fixed, so that plots of one size line up on the page.
    """
    box = left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height
    return Figure(figsize=(width, height)).add_axes(box)


def style():
    """Returns the context manager under which figures are drawn; it leaves Matplotlib's settings as they were."""
    return matplotlib.rc_context(STYLE)


def label_steps(a: Axes, count: int) -> None:
    """Labels the horizontal axis as optimizer steps, with about `count` ticks."""
    a.set_xlabel("step")
    a.xaxis.set_major_locator(MaxNLocator(count, integer=True))
    a.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))


def svg(figure: Figure) -> str:
    """Returns a figure as markup to put inside an HTML page: sized by the page, colours as CSS variables."""
    buffer = io.StringIO()
    with style():
        figure.savefig(buffer, format="svg", transparent=True, dpi=200, metadata=NO_METADATA)
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :].strip()
    markup = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", markup, count=1)
    markup = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", markup, count=1)
    markup = re.sub(r"<style.*?</style>", "", markup, flags=re.DOTALL)  # it would restyle the whole page
    markup = re.sub(r'<g id="[^"]*"', "<g", markup)  # figure_1 in every figure: not unique on one page
    for name, color in LIGHT.items():
        markup = markup.replace(color, f"var(--{name})")
    return markup
