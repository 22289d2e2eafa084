"""Learning curves: the likelihood with its baselines, and a small plot of every other metric."""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from genflow.report.canvas import LIGHT, axes, label_steps, style

Rows = Sequence[Mapping]  # lines of metrics.jsonl

TITLES = {"learning_rate": "learning rate", "grad_norm": "gradient norm", "images_per_second": "examples/s"}
LIKELIHOODS = {"bits_per_dim", "bits_per_char", "bits_per_sample", "nats"}
NOT_CURVES = {"step", "split", "time_utc", *LIKELIHOODS}
SAME_AS_LIKELIHOOD = {"loss", "nll"}  # in another unit
LINE_HEIGHT = 0.031  # of a label beside the curves, in heights of the axes
MAX_POINTS = 400  # of one drawn line; more rows than that are averaged in groups


def series(rows: Rows, split: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps and values of one metric: null is NaN, and the last row of a step replaces earlier ones."""
    points = {row["step"]: row[metric] for row in rows if row["split"] == split and metric in row}
    steps = sorted(points)
    values = [math.nan if points[step] is None else points[step] for step in steps]
    return np.array(steps, float), np.array(values, float)


def condense(steps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns columns (step, lowest, mean, highest) of at most MAX_POINTS groups of neighbouring rows."""
    groups = np.array_split(np.arange(len(steps)), min(MAX_POINTS, len(steps)))
    return np.array([(steps[g].mean(), *_low_mean_high(values[g])) for g in groups]).T


def _low_mean_high(values: np.ndarray) -> tuple[float, float, float]:
    finite = values[np.isfinite(values)]
    return (finite.min(), finite.mean(), finite.max()) if finite.size else (math.nan,) * 3


def line(a: Axes, steps: np.ndarray, values: np.ndarray, color: str) -> None:
    """Draws one metric: mean, range of the rows that it averages, and a mark below wherever it is not finite."""
    if not len(steps):
        return
    at, low, mean, high = condense(steps, values)
    a.fill_between(at, low, high, color=color, alpha=0.25, linewidth=0)
    a.plot(at, mean, color=color, linewidth=1.3, marker="o" if len(at) == 1 else None, markersize=3)
    bad = steps[~np.isfinite(values)][:MAX_POINTS]
    a.plot(bad, 0 * bad, "|", color=LIGHT["broken"], transform=a.get_xaxis_transform(), clip_on=False)


def likelihood(rows: Rows, unit: str, baselines: Sequence[Mapping] = ()) -> Figure | None:
    """Draws train and validation likelihood over the steps, with the baselines as thin labelled lines.

    Args:
      unit: 'bits/dim', 'bits/char', 'bits/sample' or 'nats', which chooses the metric.
      baselines: each with 'name' and 'value', in that unit.

    Returns:
      The figure; None if no row holds a finite value of the metric.
    """
    metric = unit.replace("/", "_per_")
    train, validation = series(rows, "train", metric), series(rows, "validation", metric)
    steps, values = np.concatenate([train, validation], axis=1)
    if not np.isfinite(values).any():
        return None
    levels = [baseline for baseline in baselines if np.isfinite(baseline["value"])]
    with style():
        a = axes(6.2, 4.95, left=0.55, right=1.5, bottom=0.45, top=0.08)
        line(a, *train, LIGHT["faint"])
        _validation(a, *validation, series(rows, "validation", "standard_error"))
        for baseline in levels:
            a.axhline(baseline["value"], color=LIGHT["muted"], linewidth=0.7, dashes=(2, 3), zorder=0.5)
        a.set_ylim(*_limits(steps, values, [baseline["value"] for baseline in levels]))
        _end_labels(a, [*_curve_labels(train, validation), *_level_labels(levels)])
        a.set_ylabel("negative log-likelihood (nats)" if unit == "nats" else unit)
        label_steps(a, 6)
    return a.figure


def _validation(a: Axes, steps: np.ndarray, values: np.ndarray, errors: tuple[np.ndarray, np.ndarray]) -> None:
    a.plot(steps, values, color=LIGHT["accent"], linewidth=1.3, marker="o", markersize=2.6)
    error = np.interp(steps, *errors) if len(errors[0]) else 0 * steps
    a.fill_between(steps, values - error, values + error, color=LIGHT["accent"], alpha=0.18, linewidth=0)
    if np.isfinite(values).any():
        best = np.nanargmin(values)
        a.plot(steps[best], values[best], "o", color=LIGHT["accent"], markerfacecolor="none", markersize=8)


def _limits(steps: np.ndarray, values: np.ndarray, levels: list[float]) -> tuple[float, float]:
    """Keeps the early fall of a curve and far-off baselines from squeezing the part that matters."""
    finite = np.isfinite(values)
    late = finite & (steps >= 0.2 * steps[finite].max())
    low, high = values[finite].min(), np.quantile(values[late], 0.98)
    near = [level for level in levels if low - (high - low) <= level <= high + (high - low)]
    low, high = min([low, *near]), max([high, *near])
    margin = 0.08 * (high - low) or 0.5 * max(1.0, abs(high))
    return low - margin, high + margin


def _curve_labels(train: tuple, validation: tuple) -> list[tuple[float, str, str]]:
    labels = []
    for (_, values), name, color in ((train, "train", "muted"), (validation, "validation", "accent")):
        finite = values[np.isfinite(values)]
        labels += [(finite[-1], f"{name} {finite[-1]:.3f}", LIGHT[color])] if finite.size else []
    return labels


def _level_labels(levels: Sequence[Mapping]) -> list[tuple[float, str, str]]:
    return [(b["value"], textwrap.fill(f"{b['name']} {b['value']:.3f}", 18), LIGHT["muted"]) for b in levels]


def _end_labels(a: Axes, labels: list[tuple[float, str, str]]) -> None:
    """Writes labels beside the right edge at their heights, moved apart; an arrow marks what lies outside."""
    low, high = a.get_ylim()
    labels = sorted(labels)
    heights = [LINE_HEIGHT * (1.4 + text.count("\n")) for _, text, _ in labels]
    wanted = [(value - low) / (high - low) for value, _, _ in labels]
    placed = spread(np.clip(wanted, 0, 1), np.array(heights))
    for (_, text, color), aim, at in zip(labels, wanted, placed, strict=True):
        arrow = "↑" if aim > 1 else "↓" if aim < 0 else ""
        if not arrow:
            a.plot([1.0, 1.02], [aim, at], color=color, linewidth=0.6, transform=a.transAxes, clip_on=False)
        a.text(1.03, at, f"{text} {arrow}".strip(), color=color, va="center", transform=a.transAxes, linespacing=1.05)


def spread(wanted: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Moves sorted label centres apart, within 0 .. 1, until boxes of these heights overlap no more."""
    placed = np.array(wanted, float)
    for _ in range(300):
        push = np.maximum((heights[1:] + heights[:-1]) / 2 - np.diff(placed), 0) / 2
        placed[1:] += push
        placed[:-1] -= push
        placed = placed.clip(0, 1)
    return placed


def multiples(rows: Rows) -> dict[str, Figure]:
    """Draws every other training metric in a small plot of its own: learning rate, gradient norm and speed first."""
    found = dict.fromkeys(name for row in rows if row["split"] == "train" for name in row)
    hidden = NOT_CURVES | (SAME_AS_LIKELIHOOD if LIKELIHOODS & {*found} else set())
    drawn = {name: series(rows, "train", name) for name in sorted(found, key=_rank) if name not in hidden}
    return {_title(name): _multiple(name, *points) for name, points in drawn.items() if _has_news(name, points[1])}


def _rank(name: str) -> int:
    known = [i for i, key in enumerate(TITLES) if key in name.split("/")]
    return known[0] if known else len(TITLES)


def _title(name: str) -> str:
    return ": ".join(TITLES.get(part, part.replace("_", " ")) for part in name.split("/"))


def _has_news(name: str, values: np.ndarray) -> bool:
    """False where nothing is finite, and for a counter of faults that stayed at zero."""
    return bool(np.isfinite(values).any() and not (name.startswith("skipped") and not np.nansum(values)))


def _multiple(name: str, steps: np.ndarray, values: np.ndarray) -> Figure:
    finite = values[np.isfinite(values)]
    with style():
        a = axes(2.9, 1.5, left=0.46, right=0.06, bottom=0.41, top=0.2)
        line(a, steps, values, LIGHT["accent"])
        a.set_title(_title(name), loc="left")
        a.set_title(f"last {_brief(finite[-1])}", loc="right", color=LIGHT["muted"])
        _scale(a, finite)
        label_steps(a, 3)
    return a.figure


def _scale(a: Axes, finite: np.ndarray) -> None:
    """Logarithmic where positive values span two decades, else from zero where none is negative."""
    if finite.min() > 0 and finite.max() > 100 * finite.min():
        a.set_yscale("log")
        a.yaxis.set_minor_formatter(NullFormatter())
    else:
        a.yaxis.set_major_locator(MaxNLocator(3))
        if finite.min() >= 0:
            a.set_ylim(0, 1.1 * finite.max() or 1)
    a.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _brief(value)))


def _brief(value: float) -> str:
    """Returns a number of at most seven characters: 120k, 4,123, 0.25, 1.6e-4."""
    if 0 < abs(value) < 0.01:
        return np.format_float_scientific(value, precision=2, trim="-", exp_digits=1)
    return f"{value / 1000:,.4g}k" if abs(value) >= 10_000 else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
