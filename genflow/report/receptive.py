"""The picture of what one output of a network on pixels sees: docs/images/blind_spot.png."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from genflow.report.canvas import LIGHT, style

DECADES = 5.0  # of gradient magnitude shown below the largest


def receptive_fields(fields: Mapping[str, Float[np.ndarray, "H W"]], pixel: tuple[int, int], path: str) -> None:
    """Writes a PNG with a panel for each network.

    Args:
      fields: title -> magnitude of the gradient of one output with respect to every pixel, in raster order of drawing.
      pixel: (row, column) of that output.
    """
    with style():
        figure = Figure(figsize=(4.1 * len(fields), 3.5), facecolor="white")
        figure.subplots_adjust(left=0.01, right=0.99, top=0.9, bottom=0.11, wspace=0.05)
        panels = figure.subplots(1, len(fields), squeeze=False)[0]
        for panel, (title, field) in zip(panels, fields.items(), strict=True):
            _field(panel, field, pixel)
            panel.set_title(title, loc="left", fontsize=9.5)
        _legend(figure)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def _field(a: Axes, field, pixel):
    height, width = field.shape
    colors = matplotlib.colormaps["Blues"]
    for (row, column), value in np.ndenumerate(field):
        corner = (column + 0.04, row + 0.04)
        if (row, column) == pixel:
            look = {"facecolor": LIGHT["warning"]}
        elif value > 0:
            strength = 1 + np.log10(value / field.max()) / DECADES
            look = {"facecolor": colors(0.15 + 0.8 * max(strength, 0))}
        elif (row, column) < pixel:
            look = {"facecolor": "white", "edgecolor": LIGHT["warning"], "hatch": "////", "linewidth": 0}
        else:
            look = {"facecolor": LIGHT["panel"]}
        a.add_patch(Rectangle(corner, 0.92, 0.92, **{"linewidth": 0} | look))
    a.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    a.axis("off")


def _legend(figure: Figure):
    looks = {
        "the pixel to be drawn": {"facecolor": LIGHT["warning"]},
        "seen: darker is a larger gradient": {"facecolor": matplotlib.colormaps["Blues"](0.6)},
        "drawn before, but not seen": {"facecolor": "white", "edgecolor": LIGHT["warning"], "hatch": "//////"},
        "not drawn yet": {"facecolor": LIGHT["panel"], "edgecolor": LIGHT["line"]},
    }
    patches = [Rectangle((0, 0), 1, 1, **{"linewidth": 0} | look) for look in looks.values()]
    figure.legend(
        patches, list(looks), loc="lower center", ncols=len(looks), frameon=False, handlelength=1, handleheight=1
    )
