"""Parallel coordinates: a vertical axis for each field and one for the figure, a line for each trial."""

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from genflow.report.canvas import LIGHT, axes, style
from genflow.sweep.results import short_names
from genflow.sweep.space import Choice, Range, Sweep, text

SPREAD = 3.0  # figures farther from the best than this many times the median's distance share one colour and height
DOTS_PER_INCH = 160


class Scale:
    """Maps the values of one axis to heights between 0 and 1, and says where its labels are."""

    def __init__(self, what: Range | Choice):
        self._words = [text(value) for value in what.values] if isinstance(what, Choice) else []
        self._log = isinstance(what, Range) and what.is_log
        self._ends = (0, max(len(self._words) - 1, 1)) if self._words else what[:2]
        self._what = what

    def height(self, value: object) -> float:
        """Where a value is; a choice of one value is in the middle."""
        if self._words:
            return self._words.index(text(value)) / self._ends[1] if len(self._words) > 1 else 0.5
        bend = math.log if self._log else float
        low, high = map(bend, self._ends)
        return (bend(value) - low) / (high - low)

    def labels(self) -> list[tuple[float, str]]:
        """(height, text) of each label."""
        if self._words:
            return [(self.height(value), text(value)) for value in self._what.values]
        return [(self.height(tick), f"{tick:g}") for tick in ticks(*self._ends, self._log, self._what.is_integer)]


def ticks(low: float, high: float, is_log: bool, is_integer: bool = False) -> list[float]:
    """The ends, and round numbers between them that are not too near to one another.

    >>> ticks(1e-4, 1e-2, True), ticks(2, 5, False, True)
    ([0.0001, 0.0003, 0.001, 0.003, 0.01], [2, 3, 4, 5])
    """
    if is_integer and high - low <= 6 and not is_log:
        return list(range(low, high + 1))
    if is_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        inner = [float(f"{m}e{p}") for p in powers for m in (1, 3)]
    else:
        step = 10 ** math.floor(math.log10((high - low) / 2))
        step *= 2 if (high - low) / step > 6 else 1
        inner = [round(i * step, 12) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
    bend = math.log if is_log else float
    gap = 0.08 * (bend(high) - bend(low))
    inner = [t for t in inner if low < t < high and min(bend(t) - bend(low), bend(high) - bend(t)) > gap]
    return [low, *(round(t) if is_integer else t for t in inner), high]


def parallel_coordinates(path: pathlib.Path, sweep: Sweep, found: Mapping) -> None:
    """Writes the picture: colour is the figure, dashes are trials that were stopped early, the best is thick.

    Args:
      found: see `results.collect`.
    """
    names, scales = short_names(list(sweep.space)), [Scale(what) for what in sweep.space.values()]
    rows = [row for row in found["trials"] if len(row["params"]) == len(scales)]
    figures = figure_scale([row["value"] for row in rows], found["direction"])
    with style():
        a = axes(1.6 * (len(scales) + 1) + 0.6, 3.6, 0.9, 0.9, 0.55, 0.45)
        a.set(xlim=(0, len(scales)), ylim=(-0.03, 1.03), yticks=[], xticks=[])
        a.spines[:].set_visible(False)
        colors = a.scatter([], [], c=[], cmap="viridis", vmin=figures[0], vmax=figures[1])
        for row in reversed(rows):
            _line(
                a,
                row,
                [s.height(v) for s, v in zip(scales, row["params"].values(), strict=True)],
                figures,
                colors,
                found,
            )
        for i, (name, scale) in enumerate(zip(names.values(), scales, strict=True)):
            _axis(a, i, name, scale.labels())
        _axis(a, len(scales), found["metric"].replace("_per_", "/"), _figure_labels(figures, rows), bold=True)
        a.set_title(
            f"{found['name']}: {found['metric']} on the validation part; dashed: stopped early", pad=16, loc="left"
        )
        a.figure.savefig(path, dpi=DOTS_PER_INCH, facecolor=LIGHT["paper"])


def figure_scale(values: Sequence[float | None], direction: str) -> tuple[float, float]:
    """The lowest and the highest figure that have a height of their own: a trial that went wrong hides no other."""
    known = np.array([value for value in values if value is not None], float)
    best = known.min() if direction == "minimize" else known.max()
    distance = np.abs(known - best)
    reach = min(distance.max(), SPREAD * np.median(distance)) or distance.max() or 1.0
    return (float(best), float(best + reach)) if direction == "minimize" else (float(best - reach), float(best))


def _line(a, row, heights, figures, colors, found):
    if row["value"] is None:
        a.plot(range(len(heights)), heights, color=LIGHT["faint"], linewidth=0.8, linestyle=":")
        return
    shown = min(max(row["value"], figures[0]), figures[1])
    is_best = found["best"] is not None and row["number"] == found["best"]["number"]
    end = (shown - figures[0]) / (figures[1] - figures[0])
    look = {"linewidth": 2.6 if is_best else 1.2, "linestyle": "--" if row["state"] == "pruned" else "-"}
    a.plot(range(len(heights) + 1), [*heights, end], color=colors.to_rgba(shown), clip_on=False, **look)


def _figure_labels(figures, rows):
    low, high = figures
    known = [row["value"] for row in rows if row["value"] is not None]
    marks = {low: "≤ " * (min(known) < low), high: "≥ " * (max(known) > high)}
    points = np.linspace(low, high, 5).tolist()
    return [((p - low) / (high - low), f"{marks.get(p, '')}{p:.4g}") for p in points]


def _axis(a, at, name, labels, bold=False):
    a.axvline(at, ymin=0.028, ymax=0.972, color=LIGHT["muted"], linewidth=0.9, zorder=3)
    a.text(at, -0.09, name, ha="center", va="top", color=LIGHT["ink"], fontsize=9, weight="bold" if bold else "normal")
    background = {"facecolor": LIGHT["paper"], "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    side = {"ha": "left", "x": at + 0.04} if bold else {"ha": "right", "x": at - 0.03}
    for height, label in labels:
        a.text(side["x"], height, label, ha=side["ha"], va="center", color=LIGHT["ink"], bbox=background, zorder=4)
