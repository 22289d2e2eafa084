"""The report of one run: a page that holds everything it shows and needs neither script nor network."""

import base64
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from genflow.report import canvas, sections
from genflow.report.curves import likelihood, multiples
from genflow.report.images import SHEET_WIDTH, Picture
from genflow.report.markup import Markup, element, join
from genflow.report.sound import Clip

SIZE_LIMIT = 1_000_000  # bytes; a larger page has its images compressed with loss, and says so
Pixels = UInt8[np.ndarray, "h w c"]
Encode = Callable[[Pixels], tuple[str, bytes]]


def write_report(
    workdir: Path | str,
    record: Mapping,
    curves: Sequence[Mapping],
    pictures: Mapping[str, Picture],
) -> Path:
    """Writes report.html into the run folder and returns its path; what the run lacks has no section.

    Args:
      record: what record.json holds.
      curves: the rows of metrics.jsonl.
      pictures: one section for each caption, in order.
    """
    workdir = Path(workdir)
    page = render(workdir, record, curves, pictures, png)
    if len(page) > SIZE_LIMIT:
        page = render(workdir, record, curves, pictures, webp)
    partial, path = workdir / ".report.html.partial", workdir / "report.html"
    partial.write_bytes(page)
    os.replace(partial, path)
    return path


def render(workdir: Path, record: Mapping, curves: Sequence[Mapping], pictures: Mapping, encode: Encode) -> bytes:
    """Returns the page with its images encoded by `encode`."""
    baselines = [b for b in record.get("baselines") or () if sections.is_finite(b["value"])]
    body = [
        sections.title(record),
        sections.headline(record, baselines),
        *sections.alerts(record, baselines),
        sections.facts(record),
        learning_curves(record, curves, baselines),
        sections.diagnostics(record),
        *(picture_section(caption, picture, encode) for caption, picture in pictures.items()),
        sections.configuration(_config(workdir), record.get("config_hash", "")),
        sections.timings(record),
        sections.environment(record),
        sections.provenance(record, workdir),
        _footer(encode),
    ]
    template = Template(resources.files("genflow.report").joinpath("template.html").read_text(encoding="utf-8"))
    light, dark = (" ".join(f"--{name}: {c};" for name, c in theme.items()) for theme in (canvas.LIGHT, canvas.DARK))
    heading = join([record["name"], " · genflow report"])
    return template.substitute(title=heading, light=light, dark=dark, body="\n".join(filter(None, body))).encode()


def _config(workdir: Path) -> dict:
    path = workdir / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def learning_curves(record: Mapping, curves: Sequence[Mapping], baselines: Sequence[Mapping]) -> Markup:
    """Returns the likelihood over the steps beside a small plot of each other metric."""
    main = likelihood(curves, record.get("unit") or "bits/dim", baselines)
    plots = [_plot(main, "likelihood over training steps", "main")] if main else []
    plots += [_plot(figure, f"{name} over training steps") for name, figure in multiples(curves).items()]
    return sections.section("Training", element("div", *plots, class_="curves") if plots else "")


def _plot(figure: Figure, description: str, kind: str = "") -> Markup:
    return element("figure", Markup(canvas.svg(figure)), role="img", aria_label=description, class_=kind)


def picture_section(caption: str, picture: Picture, encode: Encode) -> Markup:
    """Returns a section: plots as panels side by side, images and markup as rows with their labels in front."""
    plots = {label: row for label, row in picture.rows.items() if isinstance(row, Figure | Clip)}
    images = {label: row for label, row in picture.rows.items() if label not in plots}
    panels = [element("figure", element("figcaption", label), *_panel(plot, label)) for label, plot in plots.items()]
    return sections.section(
        caption,
        element("div", *panels, class_="panels") if panels else "",
        _strips(images, caption, encode) if images else "",
        element("p", picture.note, class_="note") if picture.note else "",
    )


def _panel(plot: Figure | Clip, label: str) -> list[Markup]:
    if isinstance(plot, Figure):
        return [_plot(plot, label)]
    source = f"data:audio/wav;base64,{base64.b64encode(plot.wav).decode()}"
    return [_plot(plot.figure, label), element("audio", controls="", preload="metadata", src=source, aria_label=label)]


def _strips(images: Mapping[str, Pixels | Markup], caption: str, encode: Encode) -> Markup:
    if list(images) == [""]:
        return _image(images[""], caption, encode)
    cells = [
        (element("span", label), row if isinstance(row, Markup) else _image(row, f"{caption}: {label}", encode))
        for label, row in images.items()
    ]
    return element("div", *(part for cell in cells for part in cell), class_="strips")


def _image(pixels: Pixels, description: str, encode: Encode) -> Markup:
    kind, data = encode(pixels)
    height, width = pixels.shape[:2]
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return element("img", src=source, alt=description, width=width, height=height)


def png(pixels: Pixels) -> tuple[str, bytes]:
    """Encodes pixels exactly."""
    return "image/png", _encoded(Image.fromarray(pixels), format="PNG")


def webp(pixels: Pixels) -> tuple[str, bytes]:
    """Encodes pixels with a loss that the eye hardly sees, shrunk to the width of a sheet."""
    image = Image.fromarray(pixels)
    image.thumbnail((SHEET_WIDTH, 8 * SHEET_WIDTH), Image.Resampling.BOX)
    return "image/webp", _encoded(image, format="WEBP", quality=75)


def _encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def _footer(encode: Encode) -> Markup:
    loss = " Images are compressed to keep this page small." if encode is webp else ""
    return element("footer", f"Written by genflow.{loss}")
