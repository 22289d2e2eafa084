"""The results ledger: records of runs that count (results/*.json) and the tables made of them.

A figure in docs/results.md or in README.md comes from a record and from nowhere else; `stale` tells where the tables
and the records differ.
"""

import json
import pathlib
import re
import shlex
from collections.abc import Mapping
from datetime import timedelta

from ml_collections import ConfigDict

from genflow import cli, ledger_tables
from genflow import workdir as folders
from genflow.errors import UserError
from genflow.ledger_tables import UNKNOWN

# What `add` is told -> what the tables say. The first two are claims about a paper's figure, so they need one.
STATUSES = {
    "reproduced": "reproduced",
    "short": "short of the paper",
    "partial": "partial (budget)",
    "measured": "measured",
}
COMPARED = ("reproduced", "short")
NOT_RUN = "not run"
# Fields that say where a run was and what was expected of it, not what it computed.
PLACE = ("name", "paper", "expect", "data.data_dir")
# The fields of record.json that the tables show, and those that `add` puts beside them.
RECORD = tuple(
    "name paper data split num_examples value standard_error unit bound steps best_step seed git_revision hardware "
    "wall_seconds params_sha256".split()
)
CLAIM = ("status", "paper_value", "paper_source", "note", "command")
OUTLIERS = tuple(
    "name command outliers scores num_examples samples samples_above lower seed git_revision params_sha256".split()
)  # what that table shows
CLASSIFIER = tuple(
    "name command data split num_examples accuracy calibration outliers robustness density train_seed git_revision "
    "params_sha256".split()
)
README_MARKERS = "<!-- models -->", "<!-- /models -->"


def experiments() -> dict[str, ConfigDict]:
    """Every experiment of configs/ by name."""
    return {path.stem: cli.load_config(str(path)) for path in cli.config_files()}


def read_records(folder: pathlib.Path) -> dict[str, dict]:
    """What `add` wrote, by file name, sorted; files of other scripts beside it have no paper_value and are left alone.

    Raises:
      UserError: a file is not JSON, or lacks a field that the tables show.
    """
    files = {path: _read(path) for path in sorted(folder.glob("*.json"))}
    return {path.stem: _complete(path, record, CLAIM) for path, record in files.items() if "paper_value" in record}


def add(
    run: pathlib.Path,
    folder: pathlib.Path,
    status: str,
    paper_value: float | None = None,
    paper_source: str = "",
    note: str = "",
    name: str = "",
    allow_changes: bool = False,
    figure: str = "",
) -> pathlib.Path:
    """Copies the record of a finished run into the ledger and returns its new path.

    Args:
      run: the run folder; its config.json gives the command that repeats it.
      folder: results/.
      status: a key of STATUSES.
      paper_value: the published figure, in the unit of the record.
      paper_source: where it stands; the experiment's `Paper:` line unless given.
      note: one sentence for the reader of the table.
      name: of the new file; the experiment's name unless given, so that a second run of it needs another.
      allow_changes: take a run of a source tree that no commit holds; the tables show it.
      figure: of a model without a likelihood, the name of the diagnostic that the table shows.

    Raises:
      UserError: no record, no such figure, a published one beside none of ours, an experiment that is not in configs/,
        a claim without its figure, uncommitted source.
    """
    record = _complete(run / "record.json", _read(run / "record.json"))
    _check(run, record, allow_changes)
    if figure:
        record |= _chosen(record, figure)
    if paper_value is not None and record["value"] is None:
        raise UserError(f"{run}/record.json has no value to compare with {paper_value}: name one by --figure=NAME")
    if status in COMPARED and paper_value is None:
        raise UserError(f"--status={status} compares with a paper: give --paper_value=FIGURE")
    source = paper_source or record["paper"] if paper_value is not None else ""
    claim = {"status": STATUSES[status], "paper_value": paper_value, "paper_source": source, "note": note}
    path = folder / f"{name or record['name']}.json"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record | claim | {"command": command(record["name"], run)}, indent=2, allow_nan=False)
    folders.write_text(path, text + "\n")
    return path


def add_outliers(
    file: pathlib.Path, folder: pathlib.Path, paper_auroc: float | None = None, note: str = "", allow_changes=False
) -> pathlib.Path:
    """Copies what scripts/detect_outliers.py wrote into the ledger and returns its new path.

    Args:
      file: outliers_NAME.json in the folder of a run whose own record is in the ledger.
      paper_auroc: the published area under the ROC curve, of the paper's best score.

    Raises:
      UserError: another file, a run that is not in the ledger, uncommitted source.
    """
    record = _found(file, folder, "scripts/detect_outliers.py", OUTLIERS, allow_changes)
    path = folder / f"outliers_{record['name']}_{file.stem.removeprefix('outliers_')}.json"
    claim = {"paper_auroc": paper_auroc, "note": note}
    folders.write_text(path, json.dumps(record | claim, indent=2, allow_nan=False) + "\n")
    return path


def add_classifier(
    file: pathlib.Path, folder: pathlib.Path, note: str = "", name: str = "", allow_changes=False
) -> pathlib.Path:
    """Copies what scripts/evaluate_classifier.py wrote into the ledger and returns its new path.

    Args:
      file: classifier.json, or that of another question, in the folder of a run whose own record is in the ledger.
      name: of the new file, behind classifier_; the experiment's and what tells the question from the usual one
        unless given, so that a second run of the experiment needs another.

    Raises:
      UserError: another file, a run that is not in the ledger, uncommitted source, the name of another record.
    """
    record = _found(file, folder, "scripts/evaluate_classifier.py", CLASSIFIER, allow_changes)
    path = folder / f"classifier_{name or record['name'] + file.stem.removeprefix('classifier')}.json"
    if path.exists() and path.stem not in read_classifiers(folder):
        raise UserError(f"{path} is another kind of record: give another --name")
    folders.write_text(path, json.dumps(record | {"note": note}, indent=2, allow_nan=False) + "\n")
    return path


def _found(file, folder, script, fields, allow_changes):
    """What a script wrote of a run that is in the ledger, with a command that holds for every machine."""
    record = _read(file)
    if missing := [field for field in fields if field not in record]:
        raise UserError(f"{file} is not from {script}: it has no field {missing[0]!r}")
    digests = {r["params_sha256"] for r in read_records(folder).values()}
    if record["params_sha256"] not in digests:
        raise UserError(f"{file} is of a run that the ledger does not have: `ledger.py add {file.parent}` first")
    _check(file.parent, record, allow_changes)
    here = re.sub(r"--workdir[= ]('[^']*'|\S+)", f"--workdir=runs/{record['name']}", record["command"])
    return record | {"command": here}


def _chosen(record, figure):
    """The fields of a record that show one of its diagnostics as its figure."""
    lines = {line["name"]: line for line in record["diagnostics"]}
    if record["value"] is not None or figure not in lines:
        names = ", ".join(lines) or "none"
        raise UserError(f"--figure={figure}: for a run without a likelihood, one of its diagnostics ({names})")
    line = {name: lines[figure][name] for name in ("value", "standard_error")}
    num = lines[figure].get("num_examples", record["num_examples"])
    return line | {"unit": f"({figure})", "num_examples": num}


def _check(run, record, allow_changes):
    if record["name"] not in experiments():
        raise UserError(f"{run}/record.json is of {record['name']!r}; there is no configs/{record['name']}.py")
    if (split := record.get("split", "test")) != "test":
        raise UserError(f"{run} was scored on the {split} part: resume it with --config.eval.split=test")
    if not allow_changes and not re.fullmatch("[0-9a-f]{40,}", record["git_revision"]):
        found = record["git_revision"] or "no revision"
        raise UserError(f"{run} was made by {found}, which no commit holds: commit and run again, or --allow_changes")


def command(name: str, run: pathlib.Path) -> str:
    """The command line that repeats a run: its experiment and every value that differs from it."""
    changes = folders.diff(experiments()[name], folders.read_config(run))
    kept = [(field, value) for field, _, value in changes if field not in PLACE and value != folders.ABSENT]
    flags = [f" --config.{field}={shlex.quote(str(value))}" for field, value in kept]
    return f"python main.py --config=configs/{name}.py{''.join(flags)}"


def pages(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """{path: text} of the files that hold tables, as they should be."""
    configs, records = experiments(), read_records(root / "results")
    others = read_outliers(root / "results"), read_classifiers(root / "results")
    wanted = {root / "docs" / "results.md": results_page(configs, records, *others)}
    readme = root / "README.md"
    if readme.exists() and any(marker in readme.read_text("utf-8") for marker in README_MARKERS):
        wanted[readme] = _between_markers(readme, models_table(configs, records))
    return wanted


def stale(root: pathlib.Path) -> dict[pathlib.Path, str]:
    """The part of `pages` that differs from what is on disk."""
    return {path: text for path, text in pages(root).items() if not path.exists() or path.read_text("utf-8") != text}


def write(root: pathlib.Path) -> list[pathlib.Path]:
    """Brings the tables up to date and returns the files that changed."""
    changed = stale(root)
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        folders.write_text(path, text)
    return list(changed)


def results_page(
    configs: Mapping[str, ConfigDict],
    records: Mapping[str, dict],
    outliers: Mapping[str, dict] | None = None,
    classifiers: Mapping[str, dict] | None = None,
) -> str:
    """docs/results.md: every record with its provenance, every experiment without one, and how to repeat each run."""
    head = ("config", "data", "figure", "bound", "paper", "status", "steps", "seed")
    rows = [(*head, "revision", "hardware", "time", "parameters")]
    for name, config in configs.items():
        runs = _runs(name, records)
        rows += [_result_row(record) for record in runs.values()] or [_expected_row(name, config)]
    repeats = [f"* `{record['command']}`{ledger_tables.note(record)}" for record in records.values()]
    section = ["", "## To repeat a run", "", *repeats] if repeats else []
    others = ledger_tables.outlier_section(outliers or {}) + ledger_tables.classifier_section(classifiers or {})
    return "\n".join([ledger_tables.INTRODUCTION, *ledger_tables.table(rows), *others, *section, ""])


def read_outliers(folder: pathlib.Path) -> dict[str, dict]:
    """What `add_outliers` wrote, by file name, sorted."""
    return {path.stem: _read(path) for path in sorted(folder.glob("outliers_*.json"))}


def read_classifiers(folder: pathlib.Path) -> dict[str, dict]:
    """What `add_classifier` wrote, by file name, sorted; a record of a run may begin with the same word."""
    files = {path.stem: _read(path) for path in sorted(folder.glob("classifier_*.json"))}
    return {stem: record for stem, record in files.items() if "calibration" in record}


def models_table(configs: Mapping[str, ConfigDict], records: Mapping[str, dict]) -> str:
    """The table of the README: one line for each experiment, by the year of its paper."""
    head, rows = ("year", "paper", "config", "ours", "paper's", "status"), []
    for name, config in configs.items():
        for record in [*_runs(name, records).values()] or [None]:
            figures = (_figure(record), _published(record), record["status"]) if record else _expectation(config)
            other_data = f", {record['data']}" if record and record["data"] != config.data.name else ""
            rows.append((_year(config.paper), _linked(config.paper), f"`{name}`{other_data}", *figures))
    return "\n".join(ledger_tables.table([head, *sorted(rows, key=lambda row: (row[0], row[2]))]))


def _runs(name, records):
    return {file: record for file, record in records.items() if record["name"] == name}


def _result_row(r):
    best = f" (best {r['best_step']:,})" if r["best_step"] != r["steps"] else ""
    return (
        f"`{r['name']}`",
        f"{r['data']}, {r['split']} ({r['num_examples']:,})",
        _figure(r),
        r["bound"],
        _published(r) + (f" ({r['paper_source']})" if r["paper_source"] else ""),
        r["status"],
        f"{r['steps']:,}{best}",
        str(r["seed"]),
        ledger_tables.revision(r),
        r["hardware"],
        str(timedelta(seconds=round(r["wall_seconds"]))),
        f"`{r['params_sha256'][:12]}`",
    )


def _expected_row(name, config):
    figure, expected, status = _expectation(config)
    return (
        f"`{name}`",
        f"{config.data.name}, test",
        figure,
        UNKNOWN,
        expected,
        status,
        *[UNKNOWN] * 6,
    )


def _expectation(config):
    """(our figure, what is expected, status) of an experiment that has no record."""
    expected = re.split(r";\s*(?![^(]*\))", config.expect)[0]  # up to the first semicolon outside parentheses
    published = re.search(r"from the paper|from memory|from the official|the paper's", expected)
    return UNKNOWN, expected if published else UNKNOWN, NOT_RUN


def _figure(record):
    if record["value"] is None:
        return UNKNOWN
    mark = {"lower": "≤ ", "average": "≤ ", "estimate": "≈ "}.get(record["bound"], "")
    error = f" ± {record['standard_error']:.4f}" if record["standard_error"] is not None else ""
    return f"{mark}{record['value']:.4f}{error} {record['unit']}"


def _published(record):
    return UNKNOWN if record["paper_value"] is None else f"{record['paper_value']:g} {record['unit']}"


def _year(paper):
    match = re.search(r"\((\d{4})\)", paper)
    return match.group(1) if match else UNKNOWN


def _linked(paper):
    """Authors and a link: 'Dinh et al. (2017), arXiv:1605.08803' without its year."""
    without_year = re.sub(r" ?\(\d{4}\)", "", paper)
    return re.sub(r"arXiv:([\w./-]*\w)", r"[arXiv:\1](https://arxiv.org/abs/\1)", without_year) or UNKNOWN


def _between_markers(path, table):
    text, (begin, end) = path.read_text("utf-8"), README_MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise UserError(f"{path}: write {begin} once and {end} once after it")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"


def _read(path):
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}\na finished run has a record.json; see --mode=train") from error


def _complete(path, record, claim=()):
    if missing := [field for field in RECORD + claim if field not in record]:
        raise UserError(f"{path} is not a record of this form: it has no field {missing[0]!r}")
    return record
