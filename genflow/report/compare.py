"""Several runs on one page: a table to sort, their curves over each other, and the fields of config that differ."""

import base64
import datetime
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np

from genflow.errors import UserError
from genflow.report import canvas, sections
from genflow.report.markup import Markup, element, join
from genflow.report.runs import COLUMNS, NOT_METRICS, Run, is_finished
from genflow.workdir import ABSENT, DESCRIPTIVE, write_text

POINTS = 400  # of one curve; more rows than that are averaged in groups
SPLITS = ("train", "validation")
COLORS = ("#2f74ba", "#cf5a3c", "#34975a", "#8f62ba", "#b5850f", "#1f98a6", "#c4528f", "#75832f", "#8a6850", "#78808c")
DASHES = ("", "6 3", "2 3", "8 3 2 3")  # one more for every ten runs


def write_comparison(runs: Sequence[Run], output: Path | str) -> Path:
    """Writes the page, complete in one file, and returns its path.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(output).expanduser()
    try:
        write_text(path, render(runs, path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another with --output=FILE.html") from error
    return path


def render(runs: Sequence[Run], beside: Path) -> str:
    """Returns the page: the report's style, and one script that its policy knows by its hash.

    Args:
      beside: the folder that it will lie in; links to the reports of the runs start there.
    """
    package = resources.files("genflow.report")
    style, _, body = package.joinpath("compare.html").read_text("utf-8").partition("</style>\n")
    names = display_names([run.folder for run in runs])
    parts = {"title": _title(runs), "table": table(runs, names, beside), "configuration": configurations(runs, names)}
    parts["data"] = _embedded(curves(runs, names))
    for name, markup in parts.items():
        body = body.replace(f"<!-- {name} -->", markup, 1)
    light, dark = (" ".join(f"--{name}: {c};" for name, c in theme.items()) for theme in (canvas.LIGHT, canvas.DARK))
    template = Template(package.joinpath("template.html").read_text("utf-8"))
    page = template.substitute(title=f"{_count(runs)} · genflow comparison", light=light, dark=dark, body=body)
    script = body.partition("<script>")[2].partition("</script>")[0]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = "style-src 'unsafe-inline'"
    page = page.replace(policy, f"{policy}; script-src 'sha256-{allowed}'", 1)
    return page.replace("</head>", f"{style}</style>\n</head>", 1)


def display_names(folders: Sequence[Path]) -> list[str]:
    """Folders without what all of them share: 'a', 'sweep/trials/3'."""
    full = [folder.resolve() for folder in folders]
    shared = os.path.commonpath([folder.parent for folder in full])
    return [str(folder.relative_to(shared)) for folder in full]


def _count(runs):
    return f"{len(runs):,} run{'s' * (len(runs) != 1)}"


def _title(runs):
    now = datetime.datetime.now(datetime.UTC).isoformat(sep=" ", timespec="minutes")[:16]
    open_runs = sum(not is_finished(run) for run in runs)
    lede = element("p", f"{open_runs:,} of them unfinished, with what they have so far.", class_="lede")
    overline = element("p", f"genflow comparison · {now} UTC", class_="overline")
    return element("header", overline, element("h1", _count(runs)), lede if open_runs else "")


def table(runs: Sequence[Run], names: Sequence[str], beside: Path) -> Markup:
    """Returns a row for each run with the box that shows or hides it, under headings that sort."""
    headings = {"Run": False} | {name: is_number for name, (_, is_number) in COLUMNS.items()}
    head = [element("th", _box("all", "show all runs"), class_="pick")]
    head += [_heading(name, is_number) for name, is_number in headings.items()]
    rows = [_row(i, run, name, beside) for i, (run, name) in enumerate(zip(runs, names, strict=True))]
    body = element("tbody", *rows)
    return element("table", element("thead", element("tr", *head)), body, id="runs")


def _heading(name, is_number):
    kind = "number" if is_number else "text"
    return element("th", element("button", name, type="button"), class_=kind, scope="col", data_kind=kind)


def _row(index, run, name, beside):
    cells = [_cell(make(run), is_number) for make, is_number in COLUMNS.values()]
    report = run.folder.resolve() / "report.html"
    link = quote(os.path.relpath(report, beside.resolve()))
    label = element("a", name, href=link) if report.exists() else name
    swatch = element("i", class_="swatch", style=f"background:{COLORS[index % len(COLORS)]}")
    named = element("th", swatch, label, scope="row", data_sort=name)
    return element("tr", element("td", _box(index, f"show {name}"), class_="pick"), named, *cells, data_run=index)


def _cell(cell, is_number):
    key = {} if cell.key is None else {"data_sort": cell.key}
    return element("td", cell.content or "–", class_="number" if is_number else "text", **key)


def _box(run, label):
    box = element("input", type="checkbox", checked="", data_show=run, aria_label=label)
    return Markup(box.removesuffix("</input>"))


def configurations(runs: Sequence[Run], names: Sequence[str]) -> Markup:
    """Returns the fields that differ between runs, a column for each run, and the equal ones folded away."""
    leaves = [{f"config.{path}": _shown(v) for path, v in sections.flatten(_essential(run)).items()} for run in runs]
    paths = sorted({path for run in leaves for path in run})
    values = {path: [run.get(path, ABSENT) for run in leaves] for path in paths}
    different = {path: row for path, row in values.items() if len(set(row)) > 1}
    equal = {path: row[0] for path, row in values.items() if path not in different}
    heads = [element("th", name, data_run=i, scope="col") for i, name in enumerate(names)]
    body = [_fields(path, row) for path, row in different.items()]
    head = element("thead", element("tr", element("th", "field"), *heads))
    shown = element("div", element("table", head, element("tbody", *body), id="fields"), class_="scroll")
    summary = element("summary", f"{len(equal):,} fields are equal in all runs")
    folded = element("details", summary, element("div", sections.pairs(equal), class_="columns"))
    return join([shown if different else element("p", "No field differs."), folded])


def _essential(run):
    return {name: value for name, value in run.config.items() if name not in DESCRIPTIVE}


def _shown(value):
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _fields(path, row):
    cells = [element("td", element("code", value), data_run=i) for i, value in enumerate(row)]
    return element("tr", element("th", element("code", path), scope="row"), *cells)


def curves(runs: Sequence[Run], names: Sequence[str]) -> list[dict]:
    """What the script draws: for each run its name, colour, dashes, and by split steps, seconds and every metric."""
    looks = [(COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]) for i in range(len(runs))]
    return [
        {"name": name, "color": color, "dash": dash} | {split: _curve(run, split) for split in SPLITS}
        for run, name, (color, dash) in zip(runs, names, looks, strict=True)
    ]


def _curve(run, split):
    by_step = {row["step"]: row for row in run.rows if row["split"] == split}  # the last row of a step counts
    rows = [by_step[step] for step in sorted(by_step)]
    if not rows:
        return {"step": [], "seconds": [], "metrics": {}}
    starts = np.linspace(0, len(rows), min(POINTS, len(rows)), endpoint=False).astype(int)
    metrics = dict.fromkeys(name for row in rows for name in row if name not in NOT_METRICS)
    return {
        "step": _means([row["step"] for row in rows], starts),
        "seconds": _means(active_seconds([row["time_utc"] for row in rows], run.goodput.get("attempts", ())), starts),
        "metrics": {name: _means([row.get(name) for row in rows], starts) for name in metrics},
    }


def _means(values, starts) -> list[float | None]:
    """The mean of each group that begins at `starts`, without what is not finite; None where nothing is."""
    array = np.array(values, float)
    finite = np.isfinite(array)
    sums, counts = (np.add.reduceat(a, starts) for a in (np.where(finite, array, 0.0), finite.astype(int)))
    return [float(f"{s / n:.6g}") if n else None for s, n in zip(sums, counts, strict=True)]


def active_seconds(times: Sequence[str], attempts: Sequence[Mapping]) -> np.ndarray:
    """Seconds for which the run had run at these moments: the time between its attempts does not count.

    Args:
      attempts: each with 'started_utc' and 'seconds'; where none is known all is counted from the first moment.
    """
    moments = np.array([datetime.datetime.fromisoformat(time).timestamp() for time in times])
    if not attempts:
        return moments - moments[0]
    begins = [datetime.datetime.fromisoformat(a["started_utc"]).timestamp() for a in attempts]
    parts = [np.clip(moments - b, 0, a["seconds"]) for b, a in zip(begins, attempts, strict=True)]
    return np.sum(parts, axis=0)


def _embedded(data) -> Markup:
    """JSON inside a script element, where '<' could end it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
