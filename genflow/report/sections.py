"""The report's sections of text and numbers; each is empty where the record has nothing for it."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from genflow.report.markup import Markup, amount, decimals, duration, element, join, linked, number

BOUNDS = {
    "exact": ("", "exact likelihood"),
    "lower": ("≤ ", "upper limit, from a lower bound on the likelihood"),
    "average": ("≤ ", "upper limit, from a lower bound on the likelihood estimated at random times"),
    "estimate": ("≈ ", "estimate, neither an upper nor a lower limit"),
}
LIMIT = "entropy of the data"  # the one baseline that no model can be better than


def section(heading: str, *children) -> Markup:
    """Returns a section; nothing where its children are empty."""
    content = join(children)
    return element("section", element("h2", heading), content) if content else Markup()


def title(record: Mapping) -> Markup:
    """Returns the name of the run, what it is and what its config promises."""
    created = (record.get("created_utc") or "")[:16].replace("T", " ")
    subject = " on ".join(str(record[key]) for key in ("model", "data") if record.get(key))
    parts = [subject, record.get("paper"), record.get("expect") and f"Expected: {record['expect']}"]
    return element(
        "header",
        element("p", "genflow report", f" · {created} UTC" if created else "", class_="overline"),
        element("h1", record["name"]),
        *(element("p", linked(part), class_="lede") for part in parts if part),
    )


def headline(record: Mapping, baselines: Sequence[Mapping]) -> Markup:
    """Returns the figure with its standard error beside the baselines; nothing for a model without likelihood."""
    if record.get("bound") not in BOUNDS:
        return Markup()
    return element("div", _score(record), _baseline_table(record, baselines), class_="headline")


def _score(record: Mapping) -> Markup:
    prefix, meaning = BOUNDS[record["bound"]]
    places = decimals(record.get("standard_error"))
    error = f" ± {number(record['standard_error'], places)}" if record.get("standard_error") else ""
    split = f"{record.get('split', 'test')} split, {amount(record['num_examples'])} examples"
    return element(
        "div",
        element("p", prefix, number(record.get("value"), places), element("span", error), class_="value"),
        element("p", "nats per example" if record["unit"] == "nats" else record["unit"], class_="unit"),
        element("small", f"{split}; ± is one standard error. {meaning.capitalize()}; lower is better."),
    )


def _baseline_table(record: Mapping, baselines: Sequence[Mapping]) -> Markup:
    if not baselines:
        return Markup()
    ours = {key: record.get(key) for key in ("name", "value", "standard_error")}
    lines = sorted([*baselines, ours] if is_finite(ours["value"]) else baselines, key=lambda b: b["value"])
    limit = [b for b in baselines if b["name"] == LIMIT]
    reference = min(limit or baselines, key=lambda b: b["value"])
    span = min(0.0, lines[0]["value"]), max(0.0, lines[-1]["value"])
    places = decimals(record.get("standard_error"))
    names = ("", "", record["unit"], "± s.e.", "above entropy" if limit else "to best baseline")
    head = (element("th", name, class_="number" if name else "") for name in names)
    rows = [_baseline_row(b, reference, places, span, "ours" if b is ours else "") for b in lines]
    return element("table", element("tr", *head), *rows, class_="baselines")


def _baseline_row(line: Mapping, reference: Mapping, places: int, span: tuple[float, float], kind: str) -> Markup:
    difference, error = line["value"] - reference["value"], line.get("standard_error")
    numbers = (
        number(line["value"], places),
        number(error, places) if error else "",
        "–" if line is reference else number(difference, places, signed=True),
    )
    return element(
        "tr",
        element("td", line["name"]),
        element("td", _bar(line["value"], error or 0.0, *span), class_="bar"),
        *(element("td", text, class_="number") for text in numbers),
        class_=kind,
    )


def _bar(value: float, error: float, low: float, high: float) -> Markup:
    """Returns a bar from zero to the value and a whisker of one standard error each way."""
    width = (high - low) or 1.0

    def piece(tag, start, stop):
        return element(tag, style=f"left:{100 * (start - low) / width:.2f}%;width:{100 * (stop - start) / width:.2f}%")

    bar, whisker = piece("i", min(value, 0), max(value, 0)), piece("b", value - error, value + error)
    return element("div", bar, whisker if error else "")


def alerts(record: Mapping, baselines: Sequence[Mapping]) -> list[Markup]:
    """Returns a sentence for each thing that a reader of the figures must know first."""
    skipped, broken = record.get("skipped_updates"), record.get("nonfinite_samples")
    rollbacks = record.get("rollbacks")
    value, error = record.get("value"), record.get("standard_error") or 0.0
    lines = {b["name"]: b["value"] for b in baselines} if is_finite(value) else {}
    better = [name for name, level in lines.items() if level < value and name != LIMIT]
    sentences = [
        skipped and f"Updates skipped because a gradient was not finite, or above optimizer.skip_norm: {skipped:,}.",
        rollbacks and f"Training diverged and went back to a checkpoint: {rollbacks:,} times.",
        broken and f"Samples that are not finite: {broken:,}.",
        record.get("bound") in BOUNDS and not is_finite(value) and "The likelihood of the test data is not finite.",
        better and f"Better than this model: the baseline {', '.join(better)}.",
        lines.get(LIMIT, -math.inf) > (value or 0.0) + 4 * error
        and f"Better than the {LIMIT}: look for a leak or an error.",
    ]
    return [element("p", sentence, class_="alert") for sentence in sentences if sentence]


def facts(record: Mapping) -> Markup:
    """Returns the strip of numbers that say what the run was and cost."""
    validation = record.get("validation") or {}
    places = decimals(validation.get("standard_error"))
    best, speed = record.get("best_step"), record.get("images_per_second")
    goodput = record.get("goodput") or {}
    entries = [
        ("Steps", record.get("steps"), amount, f"step {best:,} scored" if best else ""),
        ("Parameters", record.get("num_parameters"), amount, ""),
        ("Validation", validation.get("value"), lambda v: number(v, places), record.get("unit", "")),
        ("Training speed", speed, amount, "examples/s"),
        ("Wall time", record.get("wall_seconds"), duration, ""),
        ("Goodput", goodput.get("value"), lambda v: f"{v:.0%}", "of the time of all attempts"),
        ("Seed", record.get("seed"), str, ""),
    ]
    items = [_fact(name, show(value), remark) for name, value, show, remark in entries if value is not None]
    return element("dl", *items, class_="facts") if items else Markup()


def _fact(name: str, value: str, remark: str) -> Markup:
    small = element("small", remark) if remark else ""
    return element("div", element("dt", name), element("dd", value, small))


def diagnostics(record: Mapping) -> Markup:
    """Returns what is known of the model beside its likelihood: importance weights, or the use of its latents."""
    lines = {d["name"]: _with_error(d) for d in record.get("diagnostics") or ()}
    heading = record.get("diagnostics_heading") or "Importance weights against the target"
    return section(heading, pairs(lines) if lines else "")


def _with_error(line: Mapping) -> str:
    error, value = line.get("standard_error"), line["value"]
    if not error and is_finite(value) and value == int(value):
        return number(value, 0)
    return number(line["value"], decimals(error)) + (f" ± {number(error, decimals(error))}" if error else "")


def configuration(config: Mapping, config_hash: str) -> Markup:
    """Returns the resolved configuration, folded to one line until it is opened."""
    if not config:
        return Markup()
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    tables = [pairs(flatten(values), caption) for caption, values in ({"run": plain} | nested).items() if values]
    count = len(flatten(config))
    summary = element(
        "summary", element("h2", "Configuration"), element("small", f"{count} values, hash {config_hash}")
    )
    return element("section", element("details", summary, element("div", *tables, class_="columns")))


def flatten(tree: Mapping, prefix: str = "") -> dict[str, object]:
    """Returns {dotted path: leaf} of nested mappings; an empty mapping is a leaf."""
    leaves = {}
    for key, value in tree.items():
        branch = isinstance(value, Mapping) and value
        leaves |= flatten(value, f"{prefix}{key}.") if branch else {f"{prefix}{key}": value}
    return leaves


def pairs(values: Mapping, caption: str = "", kind: str = "pairs") -> Markup:
    """Returns a table of names and values."""
    heading = element("caption", caption) if caption else ""
    rows = (element("tr", element("th", k), element("td", element("code", _shown(v)))) for k, v in values.items())
    return element("table", heading, *rows, class_=kind)


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def timings(record: Mapping) -> Markup:
    """Returns where the wall time went: a bar to scale and its legend."""
    seconds = {name: value for name, value in (record.get("seconds") or {}).items() if value}
    other = (record.get("wall_seconds") or 0) - sum(seconds.values())
    seconds |= {"other": other} if seconds and other > 0.5 else {}
    seconds = dict(sorted(seconds.items(), key=lambda item: -item[1]))
    shades = {name: f"opacity:{max(1 - 0.18 * i, 0.18):.2f}" for i, name in enumerate(seconds)}
    bars = [element("i", style=f"flex:{value:.3f};{shades[name]}") for name, value in seconds.items()]
    keys = [
        element("span", element("i", style=shades[name]), name, " ", element("b", duration(value)))
        for name, value in seconds.items()
    ]
    parts = (element("div", *bars, class_="timing"), element("div", *keys, class_="legend")) if keys else ()
    return section("Time", *parts)


def environment(record: Mapping) -> Markup:
    """Returns the hardware and the versions."""
    hardware, versions = record.get("hardware"), record.get("versions") or {}
    machine = element("p", hardware, class_="machine") if hardware else ""
    listed = [element("span", name, " ", element("b", version)) for name, version in versions.items()]
    return section("Machine and versions", machine, element("div", *listed, class_="legend") if listed else "")


def provenance(record: Mapping, workdir: Path) -> Markup:
    """Returns what identifies the run, and the commands that repeat it and work on it."""
    names = {"git revision": "git_revision", "config": "config_path", "config hash": "config_hash"}
    names |= {"params sha256": "params_sha256", "finished": "created_utc"}
    known = {name: record[key] for name, key in names.items() if record.get(key)}
    folder = shlex.quote(str(workdir))
    commands = [record["command"]] if record.get("command") else []
    commands += [f"python {program} --workdir={folder}" for program in _programs(record)]
    return section("Provenance", pairs(known, kind="pairs provenance"), element("pre", "\n".join(commands)))


def _programs(record):
    """Those that work on such a run; a record that does not say so is of a model with a likelihood and samples."""
    able = set(record.get("abilities", ("score", "sample")))
    needs = {
        "main.py --mode=eval": {"score", "sample"},
        "main.py --mode=sample": {"sample"},
        "scripts/evaluate_classifier.py": {"classify"},
    }
    return [program for program, one_of in needs.items() if able & one_of]


def is_finite(value: float | None) -> bool:
    """False for null, as JSON writes what is not finite."""
    return value is not None and math.isfinite(value)
