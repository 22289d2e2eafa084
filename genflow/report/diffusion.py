"""What a diffusion model's likelihood is made of: the terms of its bound over the steps of the chain."""

import numpy as np
from jaxtyping import Float

from genflow.report.canvas import LIGHT, axes, plain_numbers, style
from genflow.report.images import Picture

MOST_POINTS = 400  # of a drawn line


def bound_terms(means: Float[np.ndarray, " T+1"], errors: Float[np.ndarray, " T+1"], unit: str) -> Picture:
    """Draws each term against its step on logarithmic axes, with its standard error, and the prior's as a level.

    Args:
      means: the prior's term first, then those of steps 1 .. T; the first of them is the decoder's.
    """
    steps = _some(len(means) - 1)
    drawn = steps[(means[steps] > 0) & np.isfinite(means[steps])]
    with style():
        a = axes(5.6, 2.9, left=0.62, right=0.2, bottom=0.44, top=0.14)
        a.set(xscale="log", yscale="log", xlabel="step", ylabel=unit)
        plain_numbers(a.xaxis)
        plain_numbers(a.yaxis)
        if drawn.size:
            middle, error = means[drawn], np.nan_to_num(errors[drawn])
            low = np.maximum(middle - error, 0.1 * middle)
            a.fill_between(drawn, low, middle + error, color=LIGHT["accent"], alpha=0.2, linewidth=0)
            a.plot(drawn, middle, color=LIGHT["accent"], linewidth=1.3, marker="o", markersize=2)
        if means[0] > 0:
            a.axhline(means[0], color=LIGHT["faint"], linewidth=0.8, dashes=(4, 2))
            a.annotate("prior", (1, means[0]), (3, 3), textcoords="offset points", color=LIGHT["muted"])
    note = f"Step 1 is the decoder's term; with the prior's, {means[0]:.2g}, they add up to {means.sum():.4f} {unit}."
    negative = int((means[steps] <= 0).sum())
    note += f" Terms below zero, not drawn: {negative}." * bool(negative)
    return Picture({"": a.figure}, note)


def _some(num: int) -> np.ndarray:
    """Whole numbers from 1 to num, all of them or evenly spread on a logarithmic axis."""
    return np.unique(np.geomspace(1, num, MOST_POINTS).round().astype(int))
