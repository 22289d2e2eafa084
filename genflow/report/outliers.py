"""The picture of an outlier detection: what each score says of both sets, and what a threshold on it costs."""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genflow.report.canvas import LIGHT, style

COLUMNS, SIDE = 3, 2.6  # panels a row, and the size of one in inches
BINS, SHOWN = 40, 0.005  # of a histogram, and the share of both sets on each side that its last bin holds
LINES = matplotlib.colormaps["viridis"]


class Scored(NamedTuple):
    """One score of two sets, nats; infinities are shown in the outermost bins."""

    inliers: Float[np.ndarray, " N"]
    outliers: Float[np.ndarray, " M"]
    rates: tuple[np.ndarray, np.ndarray]  # false and true positive, as the threshold falls
    auroc: float


def outlier_scores(scored: Mapping[str, Scored], names: tuple[str, str], path: str) -> None:
    """Writes a PNG: a histogram of each score for both sets, and the ROC curves of all scores.

    Args:
      names: of the inliers and the outliers.
    """
    rows = -(-(len(scored) + 1) // COLUMNS)
    with style():
        figure = Figure(figsize=(SIDE * 1.25 * COLUMNS, SIDE * rows), facecolor="white", layout="constrained")
        panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for panel, (title, score) in zip(panels, scored.items(), strict=False):
            _histogram(panel, title, score, names)
        _curves(panels[len(scored)], scored)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        for panel in panels[len(scored) + 1 :]:
            panel.set_visible(False)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _histogram(a: Axes, title, score, names):
    both = np.concatenate([score.inliers, score.outliers])
    both = both[np.isfinite(both)] if np.isfinite(both).any() else np.zeros(1)
    low, high = np.quantile(both, [SHOWN, 1 - SHOWN])
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    colors = (LIGHT["accent"], LIGHT["warning"])
    for values, name, color in zip((score.inliers, score.outliers), names, colors, strict=True):
        shares = np.full(len(values), 1 / len(values))
        a.hist(np.clip(values, edges[0], edges[-1]), edges, weights=shares, color=color, alpha=0.5, label=name)
    a.set_title(f"{title}, AUROC {score.auroc:.3f}", loc="left")
    a.set(xlabel="score (nats)", ylabel="share of the set in a bin")
    a.xaxis.set_major_locator(MaxNLocator(5))
    a.yaxis.set_major_locator(MaxNLocator(4))


def _curves(a: Axes, scored):
    colors = LINES(np.linspace(0, 0.9, len(scored)))
    for color, (title, score) in zip(colors, scored.items(), strict=True):
        a.plot(*score.rates, color=color, linewidth=1.1, label=title)
    a.plot((0, 1), (0, 1), color=LIGHT["faint"], linewidth=0.6, dashes=(4, 2))
    a.set_title("ROC", loc="left")
    a.set(xlabel="inliers above the threshold (share)", ylabel="outliers above it (share)", xlim=(0, 1), ylim=(0, 1))
    a.legend(labelcolor=LIGHT["ink"], fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
