"""What the page of results says beside its rows of runs: introductions, and tables of outliers and of classifiers.

Records in, lines of Markdown out.
"""

from collections.abc import Mapping, Sequence

UNKNOWN = "–"
INTRODUCTION = """\
# Results

Written by `python scripts/ledger.py` from the records in `results/`; do not edit it by hand.

Figures are means over the named part of the data ± the standard error of that mean over its examples; lower is better,
but for a figure of samples, whose name stands in parentheses: docs/sample-metrics.md says which way it is meant.
`≤` marks a model that bounds the likelihood from below, so that the figure is an upper limit;
`≈` one that estimates such a bound.

* **reproduced**: the paper's protocol, and its figure within two of our standard errors or better.
* **short of the paper**: the paper's protocol, and not its figure.
* **partial (budget)**: fewer steps, a smaller model or less data than the paper's.
* **measured**: a figure of ours where no paper gives one.
* **not run**: no record; the column "paper" shows what the experiment's file expects.
"""
OUTLIERS_INTRODUCTION = """\
Scores of scripts/detect_outliers.py on the test parts of both sets, high for outliers, with 95 % bootstrap intervals.
[outliers.md](outliers.md) says what they are. Scores for all k are listed: choosing one by its AUROC would be choosing
on the test set. The paper's AUROC is of a likelihood ratio, of which the official code computes the part in log p(x|z):
it stands beside both."""
RATIOS = ("LLR>", "delta log p(x|z)>")  # beginnings of the scores that a paper's figure is of
CLASSIFIERS_INTRODUCTION = """\
Figures of scripts/evaluate_classifier.py in percent, with 95 % intervals; [classifiers.md](classifiers.md) says what
they are. "If calibrated" is the mean ECE of answers that are drawn to be right as often as the confidences say, and
what 95 % of them stay below: an ECE below that shows no miscalibration. The ECE at T is that of f(x) / T, with the
temperature of the validation part."""
AUROC_INTRODUCTION = """\
How well each score tells another data set from the run's own: the area under the ROC curve. log_density of a run
without a density is its logsumexp of the logits."""
SHORT, SCORES = ("config", "seed"), ("log_density", "confidence", "approximate_mass")
BALLS = {"linf": "L-infinity", "l2": "L2"}


def outlier_section(records: Mapping[str, dict]) -> list[str]:
    """Lines of Markdown: how well each score of a run tells another data set from its own."""
    head = ("config", "outliers", "examples of each", "score", "AUROC", "AUPRC", "FPR80", "paper's AUROC")
    rows = [(*head, "draws of L", "draws of L>k", "levels below", "seed", "revision")]
    for r in records.values():
        for score, found in r["scores"].items():
            others = (f"{found[name]['value']:.4f}" for name in ("auprc", "fpr80"))
            compared = r["paper_auroc"] is not None and score.startswith(RATIOS)
            published = f"{r['paper_auroc']:g}" if compared else UNKNOWN
            how = (*(str(r[name]) for name in ("samples", "samples_above", "lower", "seed")), r["git_revision"][:10])
            sets = (f"`{r['name']}`", r["outliers"], f"{r['num_examples']:,}")
            rows.append((*sets, score, _interval(found["auroc"]), *others, published, *how))
    notes = [f"* `{r['name']}`, {r['outliers']}{note(r)}" for r in records.values() if r["note"]]
    lines = ["", "## Outliers", "", OUTLIERS_INTRODUCTION, "", *table(rows), *["", *notes] * bool(notes)]
    return lines if records else []


def classifier_section(records: Mapping[str, dict]) -> list[str]:
    """Lines of Markdown: accuracy and calibration of each run, AUROCs, accuracy under attack, how to repeat them."""
    if not records:
        return []
    head = ("config", "data", "seed", "accuracy", "ECE", "ECE if calibrated", "ECE at T", "revision", "parameters")
    lines = ["", "## Classifiers", "", CLASSIFIERS_INTRODUCTION, ""]
    lines += table([head, *(_classifier_row(r) for r in records.values())])
    if rows := [row for r in records.values() for row in _auroc_rows(r)]:
        columns = (*SHORT, "outliers", "examples of each", "density", *SCORES)
        lines += ["", AUROC_INTRODUCTION, "", *table([columns, *rows])]
    for norm in BALLS:
        lines += _attacks(norm, [r for r in records.values() if norm in r["robustness"]])
    return [*lines, "", *(f"* `{r['command']}`{note(r)}" for r in records.values())]


def _classifier_row(r):
    error, at = r["calibration"]["ece"], UNKNOWN
    known = error["if_calibrated"]
    if "tempered" in r:
        at = f"{100 * r['tempered']['calibration']['ece']['value']:.2f} (T = {r['tempered']['temperature']:.3f})"
    return (
        f"`{r['name']}`",
        f"{r['data']}, {r['split']} ({r['num_examples']:,})",
        str(r["train_seed"]),
        _interval(r["accuracy"], 100),
        f"{100 * error['value']:.2f}",
        f"{100 * known['mean']:.2f} (95 %: < {100 * known['limit']:.2f})",
        at,
        revision(r),
        f"`{r['params_sha256'][:12]}`",
    )


def _auroc_rows(r):
    for name, scores in r["outliers"].items():
        cells = (_interval(scores[score]["auroc"]) for score in SCORES)
        yield (f"`{r['name']}`", str(r["train_seed"]), name, f"{scores['num_examples']:,}", r["density"], *cells)


def _attacks(norm, records):
    """Accuracy within each radius that any of the runs was attacked at."""
    if not records:
        return []
    radii = sorted({row["epsilon"] for r in records for row in r["robustness"][norm]})
    rows = [(*SHORT, "attacked", "steps", "restarts", *(f"{radius:.4g}" for radius in radii))]
    for r in records:
        found = {row["epsilon"]: _interval(row, 100) for row in r["robustness"][norm]}
        numbers = (f"{r['robustness'][name]:,}" for name in ("num_examples", "num_steps", "restarts"))
        rows.append((f"`{r['name']}`", str(r["train_seed"]), *numbers, *(found.get(e, UNKNOWN) for e in radii)))
    title = f"Accuracy that projected gradient descent leaves in {BALLS[norm]} balls, by the radius of data in 0 to 1:"
    return ["", title, "", *table(rows)]


def _interval(figure, scale=1):
    digits = 2 if scale == 100 else 4
    value, low, high = (f"{scale * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def revision(record: Mapping) -> str:
    """The beginning of the commit that made a record, and whether it was changed."""
    found = record["git_revision"]
    return (found[:10] + "+changes" * found.endswith("+changes")) or "unknown"


def note(record: Mapping) -> str:
    """What stands behind a line of a list."""
    return f": {record['note']}" if record["note"] else ""


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the first row of which is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
