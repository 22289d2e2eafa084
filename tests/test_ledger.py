"""The ledger: what it takes in, what it refuses, and that its tables are up to date."""

import json
import subprocess
import sys

import pytest

from genflow import cli, ledger, provenance, workdir
from genflow.errors import UserError

REVISION = "0123456789abcdef" * 2 + "01234567"
RECORD = {
    "name": "glow_digits",
    "paper": "Kingma and Dhariwal (2018), arXiv:1807.03039",
    "expect": "",
    "data": "digits",
    "split": "test",
    "num_examples": 360,
    "value": 2.04321,
    "standard_error": 0.0123,
    "unit": "bits/dim",
    "bound": "lower",
    "steps": 2500,
    "best_step": 1750,
    "seed": 1,
    "git_revision": REVISION,
    "hardware": "2-core x86_64 CPU",
    "wall_seconds": 185.4,
    "params_sha256": "fedcba9876543210" * 4,
}


@pytest.fixture
def run(tmp_path):
    """A run folder: glow_digits with another seed, read from a folder of this machine."""
    folder = tmp_path / "runs" / "a run"
    folder.mkdir(parents=True)
    overrides = {"seed": "1", "data.data_dir": "/somewhere", "sample.temperatures": "(0.5, 1.0)"}
    workdir.write_config(folder, cli.load_config("configs/glow_digits.py", overrides))
    (folder / "record.json").write_text(json.dumps(RECORD))
    return folder


def change(run, **fields):
    (run / "record.json").write_text(json.dumps(RECORD | fields))


def rows_of(page, start):
    return [line for line in page.splitlines() if line.startswith(start)]


def test_the_tables_of_this_repository_are_up_to_date():
    script = [sys.executable, "scripts/ledger.py", "--check"]
    done = subprocess.run(script, cwd=cli.ROOT, env={"PYTHONPATH": str(cli.ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_record_becomes_a_row_and_the_others_stay_not_run(run, tmp_path):
    path = ledger.add(run, tmp_path / "results", "partial", note="Half the steps.", paper_value=2.0)
    stored = json.loads(path.read_text())
    assert {name: stored[name] for name in RECORD} == RECORD
    assert stored["command"] == (
        "python main.py --config=configs/glow_digits.py --config.sample.temperatures='(0.5, 1.0)' --config.seed=1"
    )
    page = ledger.results_page(ledger.experiments(), ledger.read_records(tmp_path / "results"))
    (row,) = rows_of(page, "| `glow_digits`")
    for cell in (
        "digits, test (360)",
        "≤ 2.0432 ± 0.0123 bits/dim",
        "lower",
        "2 bits/dim (Kingma and Dhariwal (2018), arXiv:1807.03039)",
        "partial (budget)",
        "2,500 (best 1,750)",
        "0123456789",
        "0:03:05",
        "`fedcba987654`",
    ):
        assert f"| {cell} |" in row
    assert f"* `{stored['command']}`: Half the steps." in page
    assert "| not run |" in rows_of(page, "| `glow_cifar10`")[0]
    assert "3.35 bits/dim" in rows_of(page, "| `glow_cifar10`")[0]


def test_a_revision_tells_of_changes_to_what_computes_and_not_of_figures_that_were_written(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    assert provenance.git_revision(tmp_path) == ""
    files = [tmp_path / name for name in ("results/a.json", "docs/a.md", "README.md", "a.py")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD").strip()
    for file in files[:-1]:
        file.write_text("2")
    assert provenance.git_revision(tmp_path) == commit
    files[-1].write_text("2")
    assert provenance.git_revision(tmp_path) == commit + "+changes"


@pytest.mark.parametrize("revision", ["", REVISION + "+changes"])
def test_source_that_nobody_can_check_out_is_refused_or_shown(run, tmp_path, revision):
    change(run, git_revision=revision)
    with pytest.raises(UserError, match="--allow_changes"):
        ledger.add(run, tmp_path / "results", "measured")
    assert not (tmp_path / "results").exists()
    ledger.add(run, tmp_path / "results", "measured", allow_changes=True)
    page = ledger.results_page(ledger.experiments(), ledger.read_records(tmp_path / "results"))
    assert ("| 0123456789+changes |" if revision else "| unknown |") in page


@pytest.mark.parametrize("status", ledger.COMPARED)
def test_a_claim_about_a_paper_needs_its_figure(run, tmp_path, status):
    with pytest.raises(UserError, match="--paper_value"):
        ledger.add(run, tmp_path / "results", status)
    ledger.add(run, tmp_path / "results", status, paper_value=2.0)


def test_a_debug_run_is_no_result(run, tmp_path):
    change(run, name="glow_digits-debug")
    with pytest.raises(UserError, match=r"no configs/glow_digits-debug\.py"):
        ledger.add(run, tmp_path / "results", "measured")


def test_a_broken_record_is_named_and_files_of_other_scripts_are_left_alone(tmp_path):
    (tmp_path / "other.json").write_text('{"kills": 3}')
    assert ledger.read_records(tmp_path) == {}
    (tmp_path / "x.json").write_text('{"name": "glow_digits", "paper_value": null}')
    with pytest.raises(UserError, match=r"x\.json .* no field 'paper'"):
        ledger.read_records(tmp_path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*x\.json"):
        ledger.read_records(tmp_path)


def test_writing_fills_the_markers_of_the_readme_and_leaves_the_rest(run, tmp_path):
    ledger.add(run, tmp_path / "results", "reproduced", paper_value=2.0)
    begin, end = ledger.README_MARKERS
    (tmp_path / "README.md").write_text(f"# Title\n\n{begin}\nold\n{end}\n\nMore.\n")
    changed = [tmp_path / "docs" / "results.md", tmp_path / "README.md"]
    assert ledger.write(tmp_path) == changed
    assert ledger.write(tmp_path) == []
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"# Title\n\n{begin}\n| year | paper | config | ours | paper's | status |\n|---|")
    assert text.endswith(f"|\n{end}\n\nMore.\n")
    assert (
        "| 2018 | Kingma and Dhariwal, [arXiv:1807.03039](https://arxiv.org/abs/1807.03039) | `glow_digits` | "
        "≤ 2.0432 ± 0.0123 bits/dim | 2 bits/dim | reproduced |"
    ) in text
    years = [line.split("|")[1] for line in text.splitlines() if line.startswith("| 2")]
    assert years == sorted(years)
    (tmp_path / "README.md").write_text(text.replace("reproduced", "certain"))
    assert list(ledger.stale(tmp_path)) == [tmp_path / "README.md"]


def test_a_readme_with_one_marker_is_an_error_and_without_any_is_left_alone(tmp_path):
    (tmp_path / "README.md").write_text("# Title\n")
    assert tmp_path / "README.md" not in ledger.pages(tmp_path)
    (tmp_path / "README.md").write_text(f"{ledger.README_MARKERS[1]}\n")
    with pytest.raises(UserError, match=r"README\.md: write <!-- models --> once"):
        ledger.pages(tmp_path)


def test_outlier_scores_join_the_ledger_after_their_run(run, tmp_path):
    results, merit = tmp_path / "results", {"value": 0.81234, "low": 0.79, "high": 0.83}
    found = {name: RECORD[name] for name in ("name", "git_revision", "params_sha256")}
    scores = dict.fromkeys(("L>1", "LLR>1", "delta log p(x|z)>1"), dict.fromkeys(("auroc", "auprc", "fpr80"), merit))
    found |= {"outliers": "mnist", "num_examples": 1500, "samples": 7, "samples_above": 2, "lower": "mode", "seed": 3}
    found["scores"] = scores
    found["command"] = f"python scripts/detect_outliers.py --workdir='{run}' --outliers=mnist"
    file = run / "outliers_mnist.json"
    file.write_text(json.dumps(found))
    with pytest.raises(UserError, match="is of a run that the ledger does not have"):
        ledger.add_outliers(file, results)
    ledger.add(run, results, "measured")
    path = ledger.add_outliers(file, results, 0.984, "A tenth of the steps.")
    assert path.name == "outliers_glow_digits_mnist.json"
    told = json.loads(path.read_text())["command"]
    assert told == "python scripts/detect_outliers.py --workdir=runs/glow_digits --outliers=mnist"
    page = ledger.results_page(ledger.experiments(), ledger.read_records(results), ledger.read_outliers(results))
    level, *ratios = rows_of(page, "| `glow_digits` | mnist")
    for row, score, published in (
        (level, "L>1", "–"),
        (ratios[0], "LLR>1", "0.984"),
        (ratios[1], r"delta log p(x\|z)>1", "0.984"),
    ):
        figures = f"{score} | 0.8123 [0.7900, 0.8300] | 0.8123 | 0.8123 | {published}"
        assert f"| 1,500 | {figures} | 7 | 2 | mode | 3 | 0123456789 |" in row
    assert "* `glow_digits`, mnist: A tenth of the steps." in page
    file.write_text(json.dumps({"name": "glow_digits"}))
    with pytest.raises(UserError, match="is not from scripts/detect_outliers.py: it has no field 'command'"):
        ledger.add_outliers(file, results)


FIGURE = {"value": 0.91234, "low": 0.89, "high": 0.93}
SCORES = ("log_density", "confidence", "approximate_mass")
CLASSIFIED = {name: RECORD[name] for name in ("name", "data", "split", "git_revision", "params_sha256")} | {
    "num_examples": 360,
    "accuracy": FIGURE,
    "calibration": {"ece": {"value": 0.04567, "if_calibrated": {"mean": 0.0211, "limit": 0.0333}}},
    "tempered": {"temperature": 1.5, "calibration": {"ece": {"value": 0.019, "if_calibrated": {"limit": 0.03}}}},
    "outliers": {},
    "robustness": {"num_examples": 100, "num_steps": 20, "restarts": 2},
    "density": "energy",
    "seed": 9,
    "train_seed": 1,
}


def classified(run, stem="classifier", **fields):
    """What scripts/evaluate_classifier.py wrote."""
    command = f"python scripts/evaluate_classifier.py --workdir '{run},{run}-2' --num=360"
    path = run / f"{stem}.json"
    path.write_text(json.dumps(CLASSIFIED | {"command": command} | fields))
    return path


def classifier_rows(results):
    page = ledger.results_page(ledger.experiments(), {}, {}, ledger.read_classifiers(results))
    section = page.partition("## Classifiers")[2]
    return section, rows_of(section, "| `glow_digits`")


def test_classifiers_join_the_ledger_after_their_run(run, tmp_path):
    results = tmp_path / "results"
    file = classified(run)
    with pytest.raises(UserError, match="is of a run that the ledger does not have"):
        ledger.add_classifier(file, results)
    ledger.add(run, results, "measured")
    path = ledger.add_classifier(file, results, "A tenth | of the steps.")
    assert path.name == "classifier_glow_digits.json"
    told = json.loads(path.read_text())["command"]
    assert told == "python scripts/evaluate_classifier.py --workdir=runs/glow_digits --num=360"
    section, rows = classifier_rows(results)
    assert rows == [
        "| `glow_digits` | digits, test (360) | 1 | 91.23 [89.00, 93.00] | 4.57 | 2.11 (95 %: < 3.33) "
        "| 1.90 (T = 1.500) | 0123456789 | `fedcba987654` |"
    ]
    assert f"* `{told}`: A tenth | of the steps." in section
    assert set(ledger.read_records(results)) == {"glow_digits"}
    for revision in ("", REVISION + "+changes"):
        with pytest.raises(UserError, match="--allow_changes"):
            ledger.add_classifier(classified(run, git_revision=revision), results)
    ledger.add_classifier(classified(run, git_revision=REVISION + "+changes"), results, allow_changes=True)
    assert "| 0123456789+changes |" in classifier_rows(results)[1][0]
    assert "## Classifiers" not in ledger.results_page(ledger.experiments(), {}, {}, {})
    assert "## Classifiers" in ledger.pages(tmp_path)[tmp_path / "docs" / "results.md"]


def test_outliers_and_attacks_of_classifiers_have_tables_of_their_own(run, tmp_path):
    results = tmp_path / "results"
    ledger.add(run, results, "measured")
    scores = {"num_examples": 50} | {
        score: {"auroc": {"value": i / 10, "low": i / 10 - 0.05, "high": i / 10 + 0.05}, "auprc": FIGURE}
        for i, score in enumerate(SCORES, 6)
    }
    curve = [{"epsilon": radius} | FIGURE for radius in (0.0, 8 / 255)]
    file = classified(run, "classifier_outliers_kmnist", outliers={"kmnist": scores})
    assert ledger.add_classifier(file, results).name == "classifier_glow_digits_outliers_kmnist.json"
    attacked = {"robustness": CLASSIFIED["robustness"] | {"linf": curve}, "tempered": None}
    file = classified(run, "classifier_num_9", **{k: v for k, v in attacked.items() if v})
    assert ledger.add_classifier(file, results, name="other").name == "classifier_other.json"
    more = {"linf": [curve[0] | {"value": 0.5}], "l2": curve}
    file = classified(run, robustness=CLASSIFIED["robustness"] | more, density="logsumexp of the logits")
    ledger.add_classifier(file, results)
    assert len(ledger.read_classifiers(results)) == 3
    section, rows = classifier_rows(results)
    (auroc,) = [row for row in rows if "kmnist" in row]
    assert auroc == (
        "| `glow_digits` | 1 | kmnist | 50 | energy | 0.6000 [0.5500, 0.6500] | 0.7000 [0.6500, 0.7500] "
        "| 0.8000 [0.7500, 0.8500] |"
    )
    assert rows_of(section, "| config | seed | outliers")[0].endswith(
        " | log_density | confidence | approximate_mass |"
    )
    heads = rows_of(section, "| config | seed | attacked")
    assert [head.split(" | ")[5:] for head in heads] == [["0", "0.03137 |"], ["0", "0.03137 |"]]
    shown = "91.23 [89.00, 93.00]"
    steps = "| `glow_digits` | 1 | 100 | 20 | 2 |"
    found = [row for row in rows if row.startswith(steps)]
    assert found == [
        f"{steps} 50.00 [89.00, 93.00] | – |",
        f"{steps} {shown} | {shown} |",
        f"{steps} {shown} | {shown} |",
    ]
    assert section.index("L-infinity balls") < section.index("L2 balls")


def test_a_classifier_without_a_validation_part_has_no_temperature(run, tmp_path):
    ledger.add(run, tmp_path, "measured")
    file = classified(run)
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "tempered"}))
    ledger.add_classifier(file, tmp_path)
    assert "| 2.11 (95 %: < 3.33) | – | 0123456789 |" in classifier_rows(tmp_path)[1][0]


def test_only_files_of_that_script_are_taken_as_classifiers(run, tmp_path):
    ledger.add(run, tmp_path, "measured", name="classifier_mine")
    assert ledger.read_classifiers(tmp_path) == {}
    with pytest.raises(UserError, match=r"is not from scripts/evaluate_classifier\.py: it has no field 'command'"):
        ledger.add_classifier(run / "record.json", tmp_path)
    ledger.add_classifier(classified(run), tmp_path, name="mine-2")
    with pytest.raises(UserError, match=r"classifier_mine\.json is another kind of record: give another --name"):
        ledger.add_classifier(classified(run), tmp_path, name="mine")


def test_a_figure_of_a_run_without_a_likelihood_is_of_as_many_examples_as_it_was_made_of(run, tmp_path):
    line = {"name": "test accuracy of p(y | x)", "value": 0.9, "standard_error": 0.01}
    absent = {"value": None, "standard_error": None, "num_examples": 0, "bound": "none"}
    for num in (360, None):
        lines = [line | ({"num_examples": num} if num else {})]
        change(run, **absent, diagnostics=lines)
        ledger.add(run, tmp_path, "measured", figure=line["name"])
        (row,) = rows_of(ledger.results_page(ledger.experiments(), ledger.read_records(tmp_path)), "| `glow_digits`")
        assert row.startswith(
            rf"| `glow_digits` | digits, test ({num or 0}) | 0.9000 ± 0.0100 (test accuracy of p(y \| x)) |"
        )
    with pytest.raises(UserError, match=r"--figure=FID: .* one of its diagnostics \(test accuracy"):
        ledger.add(run, tmp_path, "measured", figure="FID")
