"""The picture of a comparison of samplers: distances to the data against network calls."""

from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from genflow.report.canvas import LIGHT, plain_numbers, style

WIDTH, HEIGHT = 4.4, 3.4  # of a panel, inches
COLORS = matplotlib.colormaps["viridis"]
MARKERS = "osD^vPX*<>"


def quality(
    rows: Sequence[Mapping],
    distances: Mapping[str, str],
    floors: Mapping[str, float],
    path: str,
    title: str,
    tested: str,
) -> None:
    """Writes a PNG: for each distance one line a sampler, and that of test examples to the same training data.

    The distances fall with the number of examples: that of fewer test examples than samples is no floor of theirs.

    Args:
      rows: each with 'sampler', 'calls' and the distances.
      distances: name in the rows, and what the axis says.
      tested: what the test examples are called.
    """
    samplers = list(dict.fromkeys(row["sampler"] for row in rows))
    with style():
        figure = Figure(figsize=(WIDTH * len(distances), HEIGHT), facecolor="white", layout="constrained")
        for panel, (name, label) in zip(
            figure.subplots(1, len(distances), squeeze=False)[0], distances.items(), strict=True
        ):
            for i, sampler in enumerate(samplers):
                own = sorted((row["calls"], row[name]) for row in rows if row["sampler"] == sampler)
                color = COLORS(0.9 * i / max(len(samplers) - 1, 1))
                panel.plot(*zip(*own, strict=True), color=color, marker=MARKERS[i % 10], ms=4, lw=1.1, label=sampler)
            panel.axhline(floors[name], color=LIGHT["faint"], lw=0.8, dashes=(4, 2), label=tested)
            panel.set(xscale="log", yscale="log", xlabel="network calls for a sample", ylabel=label)
            panel.set_xticks(sorted({row["calls"] for row in rows if row["sampler"] == samplers[0]}))
            plain_numbers(panel.xaxis)
            plain_numbers(panel.yaxis)
            panel.tick_params(axis="x", labelrotation=60, labelsize=7)
        figure.suptitle(title, x=0.01, ha="left")
        figure.legend(*panel.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=7)
        figure.savefig(path, dpi=130, metadata={"Software": None})
