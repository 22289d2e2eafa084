"""Plans as text: one for a terminal, all of them as the table of docs/preflight.md."""

import json
import pathlib
from collections.abc import Mapping

from genflow import workdir as folders
from genflow.benchmark.tables import table
from genflow.errors import UserError
from genflow.ledger_tables import UNKNOWN
from genflow.ledger_tables import table as markdown_table

MARKERS = "<!-- preflight -->", "<!-- /preflight -->"
RECORD = pathlib.Path("results") / "preflight.json"
PAGE = pathlib.Path("docs") / "preflight.md"
COLUMNS = (
    *("config", "slice", "batch", "parameters", "memory, MiB", "GFLOP", "HBM, GB", "sent, MB", "ms", "bound by"),
    *("examples/s", "hours", "chip-hours", "note"),
)


def report(plan: Mapping) -> str:
    """What scripts/plan.py prints of one plan."""
    head = (
        f"{plan['name']} on {plan['slice']}: {plan['chips']} x {plan['device']}, mesh data={plan['mesh']['data']} x "
        f"model={plan['mesh']['model']}, batch {plan['batch_size']:,}, {plan['num_parameters']:,} parameters"
    )
    where = {"device": "kept on every chip", "host": "sent batch by batch", "stream": "sent batch by batch"}
    data = f"{plan['num_examples']:,} training examples, {where[plan['placement']]}"
    parts = [head, *[plan["note"]] * bool(plan["note"]), data, "", _memory(plan), "", *_work(plan), *_time(plan)]
    return "\n".join(parts)


def _memory(plan):
    rows = [(name, mebibytes(number)) for name, number in plan["memory"].items()]
    rows += [("peak", mebibytes(plan["peak_bytes"])), ("there is", mebibytes(plan["memory_bytes"]))]
    lines = table(("memory a chip, MiB", ""), rows)
    if plan["memory_bytes"] is None:
        return lines
    saves = ", or model.memory=remat" * (plan.get("model_memory") in ("store", "invert"))
    refusal = f"It does not fit. Take a larger slice or a smaller batch{saves}."
    verdict = "It fits." if plan["fits"] else refusal
    searched = "largest_batch" in plan
    largest = f"Largest batch that fits: {plan['largest_batch']:,}." if searched else "--largest_batch looks for it."
    return f"{lines}\n{verdict} {largest}"


def _work(plan):
    yield "a step, on one chip:"
    for precision, number in plan["matrix_flops"].items():
        yield f"  {number / 1e9:,.3f} GFLOP of matrix products and convolutions at precision {precision}"
    yield f"  {plan['elementwise_flops'] / 1e9:,.3f} G elementwise operations"
    if plan["open_loops"]:
        yield f"  {plan['open_loops']} loops end when they find out: one turn of each is counted"
    if "hbm_bytes" in plan:
        if not plan["quick"]:
            yield f"  {plan['hbm_bytes'] / 1e9:,.3f} GB to and from its memory"
        yield f"  {plan['sent_bytes'] / 1e6:,.3f} MB sent to other chips"
        for c in plan["collectives"]:
            yield f"    {c['count']} x {c['kind']} of {c['nbytes'] / 1e6:,.3f} MB among {c['group']}"


def _time(plan):
    if not plan.get("seconds"):
        compiled = "hbm_bytes" in plan
        return ["", "No rates are known of this device: no time." if compiled else "No program, so no time."]
    parts = ", ".join(
        f"{name} {1e3 * seconds:.3f} ms" for name, seconds in plan["seconds"].items() if seconds and name != "step"
    )
    by = ", memory traffic left out" if plan["quick"] else f", bound by {plan['bound_by']}"
    bound = " or so (rare updates are counted on each step)" if plan.get("every") else " or more"
    return [
        "",
        f"at the chip's peak rates: {parts}",
        f"so a step takes {1e3 * plan['seconds']['step']:.3f} ms or more{by}: at most "
        f"{plan['images_per_second']:,.0f} examples/s",
        f"{plan['num_steps']:,} steps take {plan['hours']:,.2f} hours{bound}, {plan['chip_hours']:,.2f} chip-hours",
    ]


def mebibytes(number: int | None) -> str:
    """'12.3' or, above a gibibyte, '12,345'; '–' where it is not known."""
    return UNKNOWN if number is None else f"{number / 2**20:,.{0 if number > 2**30 else 1}f}"


def rows(plans: Mapping[str, Mapping]) -> list[tuple[str, ...]]:
    """The table of all plans, its head first."""
    return [COLUMNS, *(_failed(plan) if "failed" in plan else _row(plan) for plan in plans.values())]


def _failed(plan):
    return (f"`{plan['name']}`", plan["slice"], *[UNKNOWN] * (len(COLUMNS) - 3), f"not compiled: {plan['failed']}")


def _row(plan):
    limit = f" of {mebibytes(plan['memory_bytes'])}" if plan["memory_bytes"] else ""
    peak = f"{mebibytes(plan['peak_bytes'])}{limit}"
    notes = ["about: rare updates counted on each step"] * bool(plan.get("every"))
    notes += ["one turn of open loops"] * bool(plan["open_loops"]) + ["quick"] * plan["quick"]
    batch = f"{plan['batch_size']:,}" + "*" * bool(plan["note"])
    work = f"{sum(plan['matrix_flops'].values()) / 1e9:,.2f}"
    head = (f"`{plan['name']}`", plan["slice"], batch, f"{plan['num_parameters']:,}")
    head = (*head, peak if plan["fits"] else f"**does not fit**: {peak}", work)
    if "hbm_bytes" not in plan:
        return (*head, *[UNKNOWN] * 7, ", ".join(notes))
    moved = UNKNOWN if plan["quick"] else f"{plan['hbm_bytes'] / 1e9:,.3f}", f"{plan['sent_bytes'] / 1e6:,.2f}"
    return (*head, *moved, *_times(plan), ", ".join(notes))


def _times(plan):
    if not plan["seconds"]:
        return (UNKNOWN,) * 5
    bound_by = UNKNOWN if plan["quick"] else plan["bound_by"]  # it may be the memory
    times = f"{1e3 * plan['seconds']['step']:.3f}", bound_by, f"{plan['images_per_second']:,.0f}"
    return (*times, f"{plan['hours']:,.2f}", f"{plan['chip_hours']:,.1f}")


def read(root: pathlib.Path) -> dict[str, dict]:
    """The plans of the record by name, sorted; none where there is no record."""
    path = root / RECORD
    return dict(sorted(json.loads(path.read_text("utf-8"))["plans"].items())) if path.exists() else {}


def write_record(root: pathlib.Path, plans: Mapping[str, Mapping]) -> None:
    """Replaces the record."""
    text = json.dumps({"plans": dict(sorted(plans.items()))}, indent=1, allow_nan=False)
    folders.write_text(root / RECORD, text + "\n")


def page(root: pathlib.Path) -> str:
    """docs/preflight.md as it should be: its text, with the table of the record between the markers.

    Raises:
      UserError: the page has not both markers once.
    """
    text, (begin, end) = (root / PAGE).read_text("utf-8"), MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"{root / PAGE}: write {begin} once and {end} once after it")
    before, rest = text.split(begin)
    lines = "\n".join(markdown_table(rows(read(root))))
    return f"{before}{begin}\n{lines}\n{end}{rest.split(end)[1]}"


def is_stale(root: pathlib.Path) -> bool:
    """Whether the page differs from the record."""
    return (root / PAGE).read_text("utf-8") != page(root)


def write_page(root: pathlib.Path) -> None:
    """Brings the page up to date."""
    folders.write_text(root / PAGE, page(root))
