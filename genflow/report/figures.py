"""Plots of two-dimensional data: points, samples and the model's log-density."""

import math

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from genflow.report.canvas import LIGHT, POINTS, axes, style
from genflow.report.images import Picture

Extent = tuple[float, float, float, float]  # left, right, bottom, top, in data units

PANEL = {"width": 2.9, "height": 2.5, "left": 0.44, "right": 0.44, "bottom": 0.42, "top": 0.06}  # inches
MAX_SCATTER = 4000  # points
NATS_SHOWN = 12.0  # depth of the log-density map below its maximum


def lattice(data: Float[np.ndarray, "n 2"], size: int = 128) -> tuple[Float[np.ndarray, "m 2"], Extent]:
    """Returns the cell centres of a square lattice that holds the data, row by row from below, and its extent."""
    low, high = np.min(data, 0), np.max(data, 0)
    centre, half = (low + high) / 2, 0.575 * (high - low).max() or 1.0
    left, bottom = centre - half
    at = (np.arange(size) + 0.5) / size * 2 * half
    points = np.stack(np.meshgrid(left + at, bottom + at), -1).reshape(-1, 2)
    return points.astype(np.float32), (left, left + 2 * half, bottom, bottom + 2 * half)


def densities(
    data: Float[np.ndarray, "n 2"],
    samples: Float[np.ndarray, "_ 2"],
    log_density: Float[np.ndarray, " m"] | None = None,
) -> Picture:
    """Draws data beside samples on the same axes.

    Args:
      log_density: nats at the points of `lattice(data)`, drawn as a map.
    """
    _, extent = lattice(data)
    panels = {"data": scatter(data, extent), "samples": scatter(samples, extent)}
    if log_density is not None:
        panels["model log-density"] = heat_map(log_density, extent)
    return Picture(panels, _broken(samples))


def projections(data: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "_ d"]) -> Picture:
    """Draws data beside samples of more than two coordinates: the first two of them, then the last two."""
    last = data.shape[1] - 1
    panels = {}
    for i, j in ((0, 1), (last - 1, last)):
        _, extent = lattice(data[:, (i, j)])
        for name, points in (("data", data), ("samples", samples)):
            panels[f"{name}, x[{i}] and x[{j}]"] = scatter(points[:, (i, j)], extent, (i, j))
    return Picture(panels, _broken(samples))


def _broken(samples):
    bad = int((~np.isfinite(samples).all(-1)).sum())
    return f"Samples that are not finite, not drawn: {bad:,} of {len(samples):,}." if bad else ""


def scatter(points: Float[np.ndarray, "n 2"], extent: Extent, coordinates: tuple[int, int] = (0, 1)) -> Figure:
    """Draws the first MAX_SCATTER points; what is not finite leaves no mark."""
    with style():
        a = axes(**PANEL)
        a.scatter(*points[:MAX_SCATTER].T, s=2.5, color=POINTS, alpha=0.45, linewidths=0, rasterized=True)
        _plane(a, extent, coordinates)
    return a.figure


def heat_map(log_density: Float[np.ndarray, " m"], extent: Extent) -> Figure:
    """Draws a log-density on a square lattice, down to NATS_SHOWN below its maximum; magenta: not finite."""
    size = math.isqrt(len(log_density))
    finite = log_density[np.isfinite(log_density)]
    top = finite.max() if finite.size else 0.0
    colors = matplotlib.colormaps["viridis"].with_extremes(bad=LIGHT["broken"])
    values = np.where(np.isneginf(log_density), top - 2 * NATS_SHOWN, log_density).reshape(size, size)
    with style():
        a = axes(**PANEL)
        image = a.imshow(values, colors, vmin=top - NATS_SHOWN, vmax=top, extent=extent, origin="lower")
        bar = a.figure.colorbar(image, cax=a.inset_axes((1.04, 0, 0.045, 0.9)))
        bar.ax.set_title("nats", loc="left", color=LIGHT["muted"])
        bar.outline.set_visible(False)
        _plane(a, extent)
    return a.figure


def _plane(a: Axes, extent: Extent, coordinates: tuple[int, int] = (0, 1)) -> None:
    names = {f"{side}label": f"x[{i}]" for side, i in zip("xy", coordinates, strict=True)}
    a.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", **names)
    a.xaxis.set_major_locator(MaxNLocator(4))
    a.yaxis.set_major_locator(MaxNLocator(4))
