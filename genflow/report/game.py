"""One-dimensional games: the densities of data and of samples, and what the discriminator makes of the difference."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from genflow.report.canvas import LIGHT, axes, style, svg
from genflow.report.images import Picture
from genflow.report.markup import Markup, element

WIDTH, HEIGHT = 5.2, 3.9  # inches
LEFT, RIGHT = 0.62, 0.14
DPI = 110  # of a frame
HEADROOM = 1.7  # of the densities' axis, in maxima of the data's
SECONDS, LAST_SECONDS = 0.12, 2.0  # of a frame, and of the last


class Scene(NamedTuple):
    """What is known at one step, at points x in order.

    is_logit: the discriminator's value is a logit, with the optimum p / (p + q); otherwise that of a critic
    broken: samples that are not finite
    """

    step: int
    x: Float[np.ndarray, " n"]
    data: Float[np.ndarray, " n"]  # p
    samples: Float[np.ndarray, " n"]  # q
    discriminator: Float[np.ndarray, " n"] | None = None
    is_logit: bool = True
    broken: int = 0


def optimum(scene: Scene) -> Float[np.ndarray, " n"]:
    """p / (p + q); NaN where there is next to nothing of either.

    Reference: Goodfellow et al. (2014), arXiv:1406.2661, proposition 1.
    """
    total = scene.data + scene.samples
    known = total > 1e-3 * scene.data.max()
    return np.divide(scene.data, total, out=np.full_like(total, np.nan), where=known)


def frame(scene: Scene) -> Figure:
    """Draws the densities, and below them the discriminator, on axes that stay, but for those of a critic's values."""
    with style():
        top = axes(WIDTH, HEIGHT, LEFT, RIGHT, bottom=0.42 if scene.discriminator is None else 1.95, top=0.28)
        _densities(top, scene)
        if scene.discriminator is not None:
            box = LEFT / WIDTH, 0.42 / HEIGHT, (WIDTH - LEFT - RIGHT) / WIDTH, 1.33 / HEIGHT
            bottom = top.figure.add_axes(box, sharex=top)
            (_probability if scene.is_logit else _critic)(bottom, scene)
            top.tick_params(labelbottom=False)
        top.figure.axes[-1].set_xlabel("x")
    return top.figure


def _densities(a: Axes, scene: Scene) -> None:
    a.fill_between(scene.x, scene.data, color=LIGHT["faint"], alpha=0.45, linewidth=0, label="data, p(x)")
    a.plot(scene.x, scene.samples, color=LIGHT["accent"], linewidth=1.4, label="generator, q(x)")
    a.set(xlim=(scene.x[0], scene.x[-1]), ylim=(0, HEADROOM * scene.data.max()), ylabel="density")
    a.yaxis.set_major_locator(MaxNLocator(4))
    a.set_title(f"step {scene.step:,}", loc="right", color=LIGHT["muted"])
    a.legend(loc="upper left", frameon=False, ncols=2)


def _probability(a: Axes, scene: Scene) -> None:
    a.axhline(0.5, color=LIGHT["line"], linewidth=0.8)
    a.plot(scene.x, optimum(scene), color=LIGHT["muted"], linewidth=1.2, dashes=(3, 2), label="best, p / (p + q)")
    said = np.exp(-np.logaddexp(0, -scene.discriminator))
    a.plot(scene.x, said, color=LIGHT["warning"], linewidth=1.4, label="discriminator, D(x)")
    a.set(ylim=(0, 1.32), ylabel="D(x)", yticks=(0, 0.5, 1))
    a.spines.left.set_bounds(0, 1)
    a.legend(loc="upper left", frameon=False, ncols=2)


def _critic(a: Axes, scene: Scene) -> None:
    value = scene.discriminator - scene.discriminator.mean()
    a.plot(scene.x, value, color=LIGHT["warning"], linewidth=1.4, label="critic, less its mean")
    a.set_ylabel("value")
    a.yaxis.set_major_locator(MaxNLocator(4))
    a.margins(y=0.3)
    a.legend(loc="upper left", frameon=False)


def picture(last: Scene, film: bytes) -> Picture:
    """Returns the last frame, sharp, above the film, an animated GIF that the page holds."""
    still = element("figure", Markup(svg(frame(last))), role="img", aria_label="last frame", style="max-width: 36rem")
    source = f"data:image/gif;base64,{base64.b64encode(film).decode()}"
    rows = {f"step {last.step:,}": still, "training": element("img", src=source, alt="the frames while training")}
    note = f"Samples that are not finite, not drawn: {last.broken:,}." if last.broken else ""
    return Picture(rows, note)


def save_frame(figure: Figure, path: Path | str) -> None:
    """Writes a frame to a PNG file; all of one run have the same size."""
    with style():
        figure.savefig(path, format="png", dpi=DPI, facecolor="white")


def save_animation(frames: Sequence[Path | str], path: Path | str) -> None:
    """Writes PNG files of one size, in order, to an animated GIF, with the colours of the last one."""
    pictures = []
    for name in frames:
        with Image.open(name) as picture:
            pictures.append(picture.convert("RGB"))
    palette = pictures[-1].quantize(64, Image.Quantize.FASTOCTREE)
    reduced = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    times = [round(1000 * SECONDS)] * (len(reduced) - 1) + [round(1000 * LAST_SECONDS)]
    reduced[0].save(path, format="GIF", save_all=True, append_images=reduced[1:], duration=times, loop=0)
