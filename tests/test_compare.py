"""One page for several runs: what is found and read, what the page holds, and in a browser that it sorts and hides."""

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from genflow import cli, workdir
from genflow.errors import UserError
from genflow.goodput import ATTEMPTS_FILE, read_goodput
from genflow.metrics import METRICS_FILE, read_rows
from genflow.report import compare
from genflow.report.runs import find_runs, read_runs

CONFIG = "configs/realnvp_toy.py:debug"
EVIL = "a<script>alert(1)<!-- data --></script>&\"'"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def moment(second):
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000+00:00"


def make_run(folder, test=2.5, steps=(10, 20, 30), record=True, num_steps=30, **overrides):
    """A run folder without a training; `record` may be fields that differ from the usual, or False."""
    folder.mkdir(parents=True)
    fields = {"train.num_steps": str(num_steps)} | {k.replace("__", "."): str(v) for k, v in overrides.items()}
    workdir.write_config(folder, cli.load_config(CONFIG, fields))
    rows = [{"step": s, "split": "train", "time_utc": moment(s), "loss": 90 / s, "nats": 90 / s} for s in steps]
    rows += [row | {"split": "validation", "standard_error": 0.02} for row in rows]
    (folder / METRICS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    if record is not False:
        figures = {"value": test, "standard_error": 0.01, "unit": "nats", "bound": "exact", "steps": num_steps}
        figures |= {"validation": {"value": 2.7, "standard_error": 0.02}, "data": "moons", "num_parameters": 1234}
        figures |= {"hardware": "2-core x86 CPU", "wall_seconds": 61.0, "goodput": {"value": 0.5}}
        (folder / "record.json").write_text(json.dumps(figures | (record if isinstance(record, dict) else {})))
    return folder


def read(*paths):
    return read_runs(find_runs(paths), read_rows, read_goodput)


def written(tmp_path, *paths):
    return compare.write_comparison(read(*paths), tmp_path / "compare.html").read_text("utf-8")


class Page(html.parser.HTMLParser):
    """The scripts, links and table rows of a page, as a browser would read them."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.addresses, self.rows, self.open = [], [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.addresses += [found[name] for name in ("src", "href") if name in found]
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.rows[len(self.rows)] = []
        if tag in ("td", "th"):
            self.rows[len(self.rows) - 1].append([found.get("data-sort"), ""])

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self.rows and self.rows[len(self.rows) - 1]:
            self.rows[len(self.rows) - 1][-1][1] += data

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def data(self):
        return json.loads(self.scripts[0])

    def cell(self, run, heading):
        """(key to sort by, text) of a run's row."""
        column = [text for _, text in self.rows[0]].index(heading)
        return next(row[column] for row in self.rows.values() if any(text == run for _, text in row))


# What is found


def test_runs_are_found_by_themselves_in_folders_of_runs_and_in_sweeps_each_once(tmp_path):
    paths = [make_run(tmp_path / "runs" / name) for name in ("b", "a", "sweep/trials/1", "sweep/trials/2")]
    assert sorted(find_runs([tmp_path / "runs"])) == sorted(paths)
    assert find_runs([tmp_path / "runs" / "sweep"]) == paths[2:]
    assert find_runs([paths[0], tmp_path / "runs" / "a" / ".." / "b", paths[1]])[1:] == [paths[1]]
    assert compare.display_names(find_runs([tmp_path / "runs"])) == ["a", "b", "sweep/trials/1", "sweep/trials/2"]
    assert compare.display_names(paths[::-1]) == ["sweep/trials/2", "sweep/trials/1", "a", "b"]
    assert compare.display_names([paths[0]]) == ["b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("glow_digts", r"glow_digts: no run there \(no config.json\); did you mean .*runs/glow_digits\?"),
        ("empty", "empty: no run there .*; name run folders, or a folder of runs"),
    ],
)
def test_a_folder_without_runs_is_named_with_the_nearest(tmp_path, name, message):
    make_run(tmp_path / "runs" / "glow_digits")
    (tmp_path / "runs" / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_runs([tmp_path / "runs" / "glow_digits", tmp_path / "runs" / name])


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", '{"value": ', "cannot read .*torn/config.json"),
        ("record.json", '{"value": ', "cannot read .*torn/record.json"),
        ("record.json", "[]", "cannot read .*torn/record.json: it holds no record; remove it"),
        ("metrics.jsonl", "5\n", "torn/metrics.jsonl: line 1 is no row with a step and a split; remove it"),
    ],
)
def test_a_run_that_cannot_be_read_is_left_out_with_a_warning_and_alone_refused(tmp_path, capsys, file, text, message):
    make_run(tmp_path / "good")
    (make_run(tmp_path / "torn") / file).write_text(text)
    assert [run.folder.name for run in read(tmp_path)] == ["good"]
    assert re.search(f"WARNING: left out: .*{message}", capsys.readouterr().err)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "torn")


def test_a_page_that_cannot_be_written_is_told(tmp_path):
    runs = read(make_run(tmp_path / "a"))
    with pytest.raises(UserError, match=r"cannot write .*absent/x.html: No such file.*--output=FILE.html"):
        compare.write_comparison(runs, tmp_path / "absent" / "x.html")


def test_the_command_line_answers_in_one_line(tmp_path):
    command = [sys.executable, str(cli.ROOT / "scripts" / "compare.py"), str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .*/runs: no run there .*\n", done.stderr)


# What the page holds


def test_rows_tell_figures_with_their_errors_and_sort_by_numbers(tmp_path):
    make_run(tmp_path / "a", test=12.5, optimizer__learning_rate=1e-3)
    make_run(tmp_path / "b", test=None, record={"bound": "none", "validation": None, "unit": "nats"})
    page = Page(written(tmp_path, tmp_path))
    assert page.cell("a", "Test") == ["12.5", "12.500 ± 0.010"]
    assert page.cell("a", "Validation") == ["2.7", "2.700 ± 0.020"]
    assert page.cell("b", "Test") == [None, "–"]
    assert page.cell("a", "Unit")[1] == "nats"
    assert page.cell("a", "Wall time") == ["61.0", "1 min 01 s"]
    assert page.cell("a", "Goodput") == ["0.5", "50.0%"]
    assert page.cell("a", "Parameters") == ["1234", "1,234"]
    config = cli.load_config(CONFIG, {"train.num_steps": "30", "optimizer.learning_rate": "1e-3"})
    assert page.cell("a", "Config")[0] == workdir.config_hash(config) != page.cell("b", "Config")[0]


def test_an_unfinished_run_shows_what_it_has(tmp_path):
    open_run = make_run(tmp_path / "open", record=False, num_steps=400)
    attempts = [{"started_utc": moment(0), "seconds": 40.0, "parts": {"train": 30.0}}]
    (open_run / ATTEMPTS_FILE).write_text(json.dumps({"productive": 30.0, "attempts": attempts}))
    make_run(tmp_path / "longer", record={"steps": 30}, num_steps=60)  # finished once, then prolonged
    text = written(tmp_path, tmp_path)
    page = Page(text)
    assert "2 of them unfinished" in text
    for run in ("open", "longer"):
        assert page.cell(run, "Status")[1] == "unfinished"
    assert page.cell("open", "Steps") == ["30", "30 of 400"]
    assert page.cell("open", "Validation") == ["3.0", "3.000 ± 0.020"]  # the lowest so far
    assert page.cell("longer", "Validation")[0] == "3.0"  # that of the record, 2.7, was of another checkpoint
    assert page.cell("open", "Goodput")[0] == "0.75"
    assert page.cell("open", "Test") == [None, "–"]
    assert page.cell("open", "Model")[1] == "coupling_flow"


def test_a_run_that_was_killed_at_its_start_is_a_row_too(tmp_path):
    make_run(tmp_path / "a", steps=(), record=False)
    page = Page(written(tmp_path, tmp_path / "a"))
    assert page.cell("a", "Steps") == ["0", "0 of 30"]
    assert page.data()[0]["train"]["metrics"] == {}


def test_fields_that_differ_have_a_column_for_each_run_and_equal_ones_are_folded(tmp_path):
    make_run(tmp_path / "a", optimizer__learning_rate=1e-3)
    make_run(tmp_path / "b", optimizer__learning_rate=2e-3)
    stored = json.loads((tmp_path / "b" / "config.json").read_text())
    del stored["seed"]
    (tmp_path / "b" / "config.json").write_text(json.dumps(stored))
    found = compare.configurations(read(tmp_path), ["a", "b"])
    shown, folded = found.split("<details>")
    fields = re.findall(r"<code>(config\.[\w.]+)</code>", shown)
    assert fields == ["config.optimizer.learning_rate", "config.seed"]
    assert "0.001" in shown
    assert "0.002" in shown
    assert workdir.ABSENT in shown
    assert "config.model.name" in folded
    assert "config.seed" not in folded
    assert "No field differs" in compare.configurations(read(tmp_path / "a"), ["a"])


def test_everything_is_escaped_and_nothing_comes_from_elsewhere(tmp_path):
    make_run(tmp_path / "runs" / EVIL.replace("/", "÷"), record={"data": EVIL, "hardware": EVIL})
    run = make_run(tmp_path / "runs" / "b", record={"unit": EVIL, "value": 1.0})
    (run / "report.html").write_text("")
    (run / METRICS_FILE).write_text(json.dumps({"step": 1, "split": "train", "time_utc": moment(1), EVIL: 1.0}) + "\n")
    text = written(tmp_path, tmp_path / "runs")
    page = Page(text)
    assert len(page.scripts) == 2
    assert page.addresses == ["runs/b/report.html"]
    assert "alert(1)<" not in text
    assert text.count("<script") == 2
    assert [run["name"] for run in page.data()] == [EVIL.replace("/", "÷"), "b"]
    assert page.data()[1]["train"]["metrics"] == {EVIL: [1.0]}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy.startswith("default-src 'none'")
    assert re.search(r"script-src 'sha256-[\w+/=]{44}'$", policy)


# Curves


@pytest.mark.parametrize("num", [1, 7, compare.POINTS, compare.POINTS + 1, 5 * compare.POINTS + 3])
def test_a_curve_of_many_rows_is_a_few_means_of_all_of_them(tmp_path, num):
    values = np.random.default_rng(0).normal(size=num)
    rows = [{"step": i, "split": "train", "time_utc": moment(i % 3600), "loss": v} for i, v in enumerate(values)]
    run = read(make_run(tmp_path / "a"))[0]._replace(rows=rows)
    (curve,) = compare.curves([run], ["a"])
    found = curve["train"]
    assert len(found["step"]) == len(found["metrics"]["loss"]) == len(found["seconds"]) == min(num, compare.POINTS)
    assert found["step"] == sorted(found["step"])
    sizes = np.diff(np.append(np.linspace(0, num, min(num, compare.POINTS), endpoint=False).astype(int), num))
    np.testing.assert_allclose(np.average(found["metrics"]["loss"], weights=sizes), values.mean(), atol=1e-5)
    assert curve["validation"] == {"step": [], "seconds": [], "metrics": {}}


def test_null_is_a_gap_the_last_row_of_a_step_counts_and_abandoned_rows_do_not(tmp_path):
    row = {"split": "train", "time_utc": moment(0)}
    rows = [{"step": 1, "loss": 9.0}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": None}, {"step": 3, "extra": 5.0}]
    rows = [row | r for r in rows] + [row | {"step": 4, "loss": 7.0, "split": "abandoned"}]
    (curve,) = compare.curves([read(make_run(tmp_path / "a"))[0]._replace(rows=rows)], ["a"])
    assert curve["train"]["metrics"] == {"loss": [1.0, None, None], "extra": [None, None, 5.0]}
    assert curve["train"]["step"] == [1, 2, 3]
    rows = [row | {"step": i, "loss": None if i % 2 else 3.0} for i in range(2 * compare.POINTS)]
    (curve,) = compare.curves([read(tmp_path / "a")[0]._replace(rows=rows)], ["a"])
    assert curve["train"]["metrics"]["loss"] == [3.0] * compare.POINTS


def test_the_time_between_attempts_does_not_count():
    times = [moment(s) for s in (10, 30, 130, 150)]
    attempts = [{"started_utc": moment(s), "seconds": length} for s, length in ((0, 40.0), (120, 60.0))]
    assert compare.active_seconds(times, attempts).tolist() == [10, 30, 50, 70]
    assert compare.active_seconds(times, []).tolist() == [0, 20, 120, 140]


def test_every_run_of_many_has_a_look_of_its_own(tmp_path):
    run = read(make_run(tmp_path / "a"))[0]
    found = compare.curves([run] * 40, [str(i) for i in range(40)])
    assert len({(curve["color"], curve["dash"]) for curve in found}) == 40


# In a browser

CLICKS = """
<pre id="seen"></pre><script>
const seen = [], names = () => all("#runs tbody tr").map((row) => row.children[1].textContent);
const paths = () => new Set(all("#charts svg path").map((path) => path.dataset.curve)).size;
const heading = (name) => all("#runs thead button").find((button) => button.textContent === name);
window.addEventListener("error", (event) => seen.push(event.message));
heading("Test").click(); seen.push(names());
heading("Test").click(); seen.push(names());
heading("Run").click(); seen.push(names());
seen.push(paths(), all("#fields tbody tr").filter((row) => !row.hidden).length);
all('[data-show="2"]')[0].click(); seen.push(paths());
all('[data-show="3"]')[0].click(); seen.push(all("#fields tbody tr").filter((row) => !row.hidden).length);
all('[data-show="all"]')[0].click(); seen.push(paths());
const fall = { main: [[1, 99], [100, 3], [1000, 2]] }, short = { main: [[50, 8], [60, 5]] };
seen.push(limits([fall, short], {}, false).y.map(Math.round), limits([fall, short], {}, true).y[1] > 99);
for (const id of ["logx", "logy", "whole"]) at(id).click();
at("x").value = "seconds"; at("smooth").value = 0.9; drawAll();
seen.push(all("#charts svg path").every((path) => !path.getAttribute("d").includes("NaN")), paths());
at("seen").textContent = JSON.stringify(seen);
</script>
"""


def browse(path, folder):
    """(page as it stands after its scripts, lines of the console)."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    options += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    done = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
def test_in_a_browser_headings_sort_and_boxes_hide(tmp_path):
    make_run(tmp_path / "runs" / "a", test=0.5, optimizer__learning_rate=1e-3)
    make_run(tmp_path / "runs" / "b", test=0.25, optimizer__learning_rate=2e-3, seed=1)
    make_run(tmp_path / "runs" / "c", record=False, optimizer__learning_rate=3e-3)
    make_run(tmp_path / "runs" / EVIL.replace("/", "÷"), test=-2.0, optimizer__learning_rate=1e-3)
    text = written(tmp_path, tmp_path / "runs")
    evil = EVIL.replace("/", "÷")
    clicked = tmp_path / "clicked.html"
    policy = re.sub(r"script-src 'sha256-[^']*'", "script-src 'unsafe-inline'", text)
    clicked.write_text(policy.replace("</body>", CLICKS + "</body>"))
    page, console = browse(clicked, tmp_path)
    assert console == []
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', page, re.DOTALL).group(1)))
    up, down, by_name, drawn, fields, without_b, fewer_fields, everything, near, whole, no_nan, still = seen
    assert up == [evil, "b", "a", "c"]  # -2 < 0.25 < 0.5 as numbers, and what is missing last
    assert down == ["a", "b", evil, "c"]
    assert by_name == ["a", evil, "b", "c"]
    assert (drawn, without_b, everything, still) == (4, 3, 4, 4)
    assert (fields, fewer_fields) == (2, 0)  # learning rate and seed; without b and c neither
    assert near == [2, 5]  # the lowest point of a short curve beside a long one, and not the long one's fall
    assert (whole, no_nan) == (True, True)


@needs_browser
def test_in_a_browser_the_pages_own_policy_lets_its_script_draw(tmp_path):
    make_run(tmp_path / "runs" / "a")
    written(tmp_path, tmp_path / "runs")
    page, console = browse(tmp_path / "compare.html", tmp_path)
    assert console == []
    assert page.count('data-curve="0"') >= 2
    assert math.isfinite(
        float(re.search(r'<path stroke="#\w+" data-curve="0" stroke-dasharray="" d="M([\d.]+)', page)[1])
    )
