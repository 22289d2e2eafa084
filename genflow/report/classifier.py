"""The picture of classifiers side by side: calibration, robustness against attacks, detection of outliers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from genflow.report.canvas import LIGHT, style

SIDE, COLUMNS = 2.9, 3  # inches of a panel, and how many stand in a row
MARKERS = "osD^vPX*<>"


class Shown(NamedTuple):
    """One run; a bin without predictions has NaN. Intervals are (value, low, high)."""

    name: str
    count: Int[np.ndarray, " M"]
    confidence: Float[np.ndarray, " M"]
    accuracy: Float[np.ndarray, " M"]
    error: float  # expected calibration error
    whole_accuracy: float
    curves: Mapping[str, Float[np.ndarray, "E 4"]]  # of each attack: radius, accuracy with its interval
    auroc: Mapping[str, Mapping[str, tuple[float, float, float]]]  # of each set of outliers, by score


def classifiers(runs: Sequence[Shown], path: str) -> None:
    """Writes a PNG: a reliability diagram of each run, then curves and AUROCs of all of them.

    All runs have the same attacks, sets and scores.
    """
    shared = [(_curve, name) for name in runs[0].curves] + [(_aurocs, "outliers")] * bool(runs[0].auroc)
    rows, columns = -(-len(runs) // COLUMNS), min(COLUMNS, max(len(runs), 2))
    heights = [1.25 * SIDE * rows, 1.1 * SIDE * bool(shared)]
    with style():
        size = 1.15 * SIDE * max(columns, len(shared)), sum(heights) + 0.2
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        parts = figure.subfigures(1 + bool(shared), 1, height_ratios=[h for h in heights if h], squeeze=False)[:, 0]
        _reliabilities(parts[0], runs, rows, columns)
        if shared:
            panels = parts[1].subplots(1, len(shared), squeeze=False)[0]
            for panel, (draw, name) in zip(panels, shared, strict=True):
                draw(panel, name, runs)
            panels[0].legend(frameon=False, fontsize=7)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _colors(runs):
    more = matplotlib.colormaps["viridis"](np.linspace(0.3, 0.9, max(len(runs) - 2, 0)))
    return [LIGHT["accent"], LIGHT["warning"], *more][: len(runs)]


def _reliabilities(part, runs, rows, columns):
    """Two panels for each run: accuracy against confidence, and below it how many predictions a bin has."""
    panels = part.subplots(2 * rows, columns, sharex=True, squeeze=False, height_ratios=[3.4, 1] * rows)
    for i, (run, color) in enumerate(zip(runs, _colors(runs), strict=True)):
        upper, lower = panels[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]
        _reliability(upper, run, color, i)
        _counts(lower, run, color)
    for i in range(len(runs), rows * columns):
        for panel in panels[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]:
            panel.set_visible(False)


def _edges(run):
    return np.linspace(0, 1, len(run.count) + 1)


def _reliability(a: Axes, run, color, i):
    """Bars are the accuracies of the bins; a line from each bar to the bin's confidence is its share of the error."""
    full = run.count > 0
    edges = _edges(run)
    a.plot((0, 1), (0, 1), color=LIGHT["faint"], linewidth=0.8, dashes=(4, 2), label="calibrated")
    a.bar(edges[:-1][full], run.accuracy[full], edges[1] - edges[0], align="edge", color=color, alpha=0.35, lw=0)
    a.vlines(run.confidence[full], run.accuracy[full], run.confidence[full], color=color, lw=1.2)
    a.plot(run.confidence[full], run.accuracy[full], MARKERS[i % 10], color=color, ms=3.5)
    a.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy of the bin")
    a.set_title(f"{run.name}\naccuracy {run.whole_accuracy:.1%}, ECE {run.error:.1%}", loc="left")
    a.legend(loc="upper left", frameon=False, fontsize=7)


def _counts(a: Axes, run, color):
    """Predictions in each bin; most are in the last, so the axis is logarithmic above ten."""
    a.bar(_edges(run)[:-1], run.count, _edges(run)[1], align="edge", color=color, alpha=0.35, lw=0)
    a.set_yscale("symlog", linthresh=10)
    top = 10 ** np.ceil(np.log10(max(run.count.max(), 10)))
    a.set(ylim=(0, top), xlabel="confidence, max p(y|x)", ylabel="examples")
    a.set_yticks([0, 10, top] if top > 10 else [0, 10])
    a.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    a.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _curve(a: Axes, name, runs):
    for i, (run, color) in enumerate(zip(runs, _colors(runs), strict=True)):
        radius, value, low, high = np.asarray(run.curves[name]).T
        a.fill_between(radius, low, high, color=color, alpha=0.15, lw=0)
        a.plot(radius, value, color=color, marker=MARKERS[i % 10], ms=3.5, lw=1.1, label=run.name, clip_on=False)
    a.set(ylim=(0, 1.02), xlabel=name, ylabel="accuracy under attack")
    a.set_xlim(left=0)
    a.yaxis.set_major_formatter(PercentFormatter(1, 0))
    a.set_title("projected gradient descent", loc="left")


def _aurocs(a: Axes, title, runs):
    """A line for each set and score, the sets one below the other."""
    lines = [(name, score) for name, scores in runs[0].auroc.items() for score in scores]
    for i, (run, color) in enumerate(zip(runs, _colors(runs), strict=True)):
        value, low, high = np.array([run.auroc[name][score] for name, score in lines]).T
        y = np.arange(len(lines)) + 0.3 * (i - (len(runs) - 1) / 2) / len(runs)
        a.hlines(y, low, high, color=color, lw=1.4, alpha=0.6)
        a.plot(value, y, MARKERS[i % 10], color=color, ms=3.5, label=run.name, clip_on=False)
    a.axvline(0.5, color=LIGHT["faint"], lw=0.8, dashes=(4, 2))
    firsts = [i for i, (name, _) in enumerate(lines) if not i or lines[i - 1][0] != name]
    for i in firsts[1:]:
        a.axhline(i - 0.5, color=LIGHT["line"], lw=0.8)
    labels = [f"{name}\n{score}" if i in firsts else score for i, (name, score) in enumerate(lines)]
    a.set_yticks(range(len(lines)), [label.replace("_", " ") for label in labels], fontsize=7)
    a.set(xlim=(0, 1), ylim=(len(lines) - 0.5, -0.5), xlabel="AUROC; 0.5 is a coin")
    a.set_title(title, loc="left")
