"""The picture of docs/two-kl-directions.md."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genflow.report.canvas import LIGHT, style

DEPTH = 8.0  # nats shown below the highest density
FURTHEST = 12.0  # most that a latent panel shows
HUES = matplotlib.colormaps["twilight_shifted"]
TITLES = ("data x ~ π, coloured by direction", "density q(x) of the flow", "same data at z = f(x), rings: N(0, I)")
FIGURES = (  # two lines
    "trained by {title}:  KL(π‖q) = {forward:.2f},  KL(q‖π) = {reverse:.2f},  "
    "ESS {ess:.0%} of draws,  log Z = {value:.3f} ± {error:.3f}  (true: {known:.3f})\n"
    "mean of x[0]:  data {data:.2f},  drawn from q {drawn:.2f},  re-weighted {mean:.2f} ± {mean_error:.2f}"
)


def two_directions(
    rows: Mapping[str, object], data: Float[np.ndarray, "N 2"], extent: tuple, known: float, path: str
) -> None:
    """Writes a PNG with a row for each way of training: data, density of the flow, data in latent space.

    Args:
      rows: title -> what `analysis.directions.compare` measured on the same data.
      extent: of the lattice on which the densities are given.
      known: the true log-normalizer, nats.
    """
    colors = HUES((np.arctan2(data[:, 1], data[:, 0]) / (2 * np.pi)) % 1)
    with style():
        figure = Figure(figsize=(8.4, 3.3 * len(rows)), facecolor="white")
        grid = figure.subplots(len(rows), 3, squeeze=False)
        figure.subplots_adjust(left=0.04, right=0.99, top=0.88, bottom=0.045, wspace=0.16, hspace=0.46)
        for panels, (title, row) in zip(grid, rows.items(), strict=True):
            _points(panels[0], data, colors, extent)
            _density(panels[1], row.log_density, extent)
            _latents(panels[2], row.latents, colors)
            for panel, text in zip(panels, TITLES, strict=True):
                panel.set_title(text, loc="left", color=LIGHT["muted"])
            panels[0].annotate(
                _numbers(title, row, known),
                (0, 1.14),
                xycoords="axes fraction",
                color=LIGHT["ink"],
                fontsize=9,
                linespacing=1.35,
            )
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _numbers(title, row, known):
    value, error = row.log_normalizer
    values = {"forward": row.forward_kl, "reverse": row.reverse_kl, "ess": row.relative_ess}
    values |= dict(zip(("data", "drawn", "mean"), row.means, strict=True)) | {"mean_error": row.mean_error}
    return FIGURES.format(title=title, value=value, error=error, known=abs(round(known, 3)) and known, **values)


def _points(a: Axes, x, colors, extent):
    a.scatter(*x.T, s=3, color=colors, alpha=0.6, linewidths=0)
    a.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xticks=(-4, 0, 4), yticks=(-4, 0, 4))


def _density(a: Axes, log_density, extent):
    side = round(len(log_density) ** 0.5)
    shown = np.exp(np.maximum(log_density - log_density.max(), -DEPTH)).reshape(side, side)
    a.imshow(shown, matplotlib.colormaps["Blues"], extent=extent, origin="lower", aspect="equal")
    a.set(xticks=(-4, 0, 4), yticks=(-4, 0, 4))


def _latents(a: Axes, z, colors):
    reach = min(max(4.0, 1.1 * np.quantile(np.abs(z), 0.999)), FURTHEST)
    a.scatter(*z.T, s=3, color=colors, alpha=0.6, linewidths=0)
    angle = np.linspace(0, 2 * np.pi, 100)
    for radius in (1, 2, 3):
        a.plot(radius * np.cos(angle), radius * np.sin(angle), color=LIGHT["ink"], linewidth=0.6, dashes=(4, 2))
    a.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    a.locator_params(nbins=5)
