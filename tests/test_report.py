"""The report: exact pixels, honest curves, a page that is self-contained, escaped, and complete for any kind of run."""

import html.parser
import json
import math
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from genflow.report import canvas, curves, figures, images, markup, sections, write_report

HOSTILE = '</td><script>alert("1")</script>&$x_2$'
VOID = {"meta", "img", "br"}


def make_record(**changes):
    baselines = [
        {"name": "uniform", "value": math.log2(17), "standard_error": None},
        {"name": "independent pixels", "value": 2.4311, "standard_error": 0.013},
    ]
    return {
        "name": "glow_digits",
        "paper": "Kingma and Dhariwal 2018, arXiv:1807.03039",
        "expect": "1.93 bits/dim",
        "config_hash": "3fa2c1d09be7",
        "model": "flow",
        "data": "digits",
        "bound": "exact",
        "unit": "bits/dim",
        "split": "test",
        "num_examples": 360,
        "value": 1.9324,
        "standard_error": 0.0123,
        "baselines": baselines,
        "validation": {"value": 1.9101, "standard_error": 0.019},
        "steps": 2500,
        "best_step": 2300,
        "seed": 0,
        "git_revision": "8c1f5a2",
        "versions": {"jax": "0.10.2"},
        "hardware": "2-core CPU",
        "wall_seconds": 203.4,
        "seconds": {"train": 148.0, "compile": 31.0},
        "images_per_second": 4123,
        "skipped_updates": 0,
        "rollbacks": 0,
        "nonfinite_samples": 0,
        "params_sha256": "9b74c989",
        "num_parameters": 524_312,
        "created_utc": "2026-11-20T10:22:31+00:00",
    } | changes


def make_rows(metric="bits_per_dim", count=20):
    train = [
        {"step": s, "split": "train", metric: 1.9 + 2 / s, "loss": 80.0, "grad_norm": 1.0, "skipped": 0.0}
        for s in range(1, count + 1)
    ]
    validation = [{"step": s, "split": "validation", metric: 2 + 2 / s, "standard_error": 0.02} for s in (10, 20)]
    return train + validation


def make_pictures():
    x = np.random.default_rng(0).integers(0, 17, (6, 8, 8, 1)).astype(np.uint8)
    return {
        "Samples by temperature": images.temperatures({0.5: x, 1.0: x}, 17),
        "Reconstructions": images.reconstructions(x, x.astype(np.float32), 17),
        "Samples": images.samples(x, 17),
    }


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and headings, and fails on an end tag that matches no start tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.headings, self.text = [], [], [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def write(folder, record=None, rows=(), pictures=()):
    path = write_report(folder, record or make_record(), rows, dict(pictures))
    assert path == folder / "report.html"
    return Page(path.read_text("utf-8"))


@pytest.mark.parametrize(("size", "bins"), [(1, 2), (8, 17), (28, 256), (40, 256)])
def test_sheet_holds_every_pixel_as_a_square_of_one_size(size, bins):
    x = np.random.default_rng(0).integers(0, bins, (7, size, size, 3)).astype(np.uint8)
    grid = images.sheet(x, bins, columns=3)
    factor = (grid.shape[1] - 2 * images.GAP) // (3 * size)
    assert grid.shape == (3 * factor * size + 2 * images.GAP, 3 * factor * size + 2 * images.GAP, 3)
    for i in range(7):
        top, left = (k * (factor * size + images.GAP) for k in divmod(i, 3))
        tile = grid[top : top + factor * size, left : left + factor * size].astype(float)
        levels = np.rint(tile * (bins - 1) / 255).astype(np.uint8)
        np.testing.assert_array_equal(levels, x[i].repeat(factor, 0).repeat(factor, 1))


@pytest.mark.parametrize(("num", "size"), [(64, 8), (64, 28), (64, 32), (100, 16)])
def test_sheet_is_enlarged_to_a_readable_width(num, size):
    assert 500 <= images.sheet(np.zeros((num, size, size, 1)), 2).shape[1] <= 900


def test_values_outside_the_range_are_clipped_and_only_nonfinite_pixels_are_magenta():
    x = np.zeros((1, 2, 2, 3), np.float32)
    x[0, 0, 0], x[0, 0, 1, 1], x[0, 1, 0] = 99.0, np.nan, -5.0
    pixels = images.rgb(x, 17)[0]
    np.testing.assert_array_equal(pixels[0], [[255, 255, 255], images.MAGENTA])
    np.testing.assert_array_equal(pixels[1], np.zeros((2, 3)))
    assert "1 of 1" in images.broken_note(x)
    assert images.broken_note(x[:, 1:]) == ""


def test_continuous_images_use_their_own_range():
    x = np.array([-2.0, 0.0, 2.0, np.inf]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(images.rgb(x, None)[0, ..., 1], [[0, 128], [255, 0]])


def test_an_array_that_is_no_image_is_named():
    with pytest.raises(ValueError, match=r"\[2, 4, 4, 5\]"):
        images.sheet(np.zeros((2, 4, 4, 5)), 256)


def test_reconstruction_note_states_the_largest_difference():
    x = np.zeros((3, 4, 4, 1), np.uint8)
    decoded = x.astype(np.float32)
    decoded[1, 2, 2] = 3
    picture = images.reconstructions(x, decoded, 17)
    assert list(picture.rows) == ["original", "reconstruction"]
    assert picture.note == "Largest difference 3 of 16 levels."


def test_png_file_gives_the_pixels_back(tmp_path):
    grid = images.sheet(np.arange(64).reshape(4, 4, 4, 1), 64)
    images.save_png(grid, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), grid)


def test_series_takes_the_last_row_of_a_step_and_null_as_nan():
    rows = [{"step": s, "split": "train", "loss": v} for s, v in ((1, 5.0), (3, None), (2, 4.0), (1, 6.0))]
    steps, values = curves.series([*rows, {"step": 9, "split": "validation", "loss": 0.0}], "train", "loss")
    np.testing.assert_array_equal(steps, [1, 2, 3])
    np.testing.assert_array_equal(values, [6, 4, np.nan])


def test_condensed_line_keeps_extremes_and_mean():
    values = np.random.default_rng(0).normal(size=10 * curves.MAX_POINTS)
    values[1234], values[77] = 50, np.nan
    steps, low, mean, high = curves.condense(np.arange(len(values)), values)
    assert len(steps) == curves.MAX_POINTS
    assert high.max() == 50
    assert low.min() == np.nanmin(values)
    assert abs(mean.mean() - np.nanmean(values)) < 1e-3


@pytest.mark.parametrize("wanted", [[0.5, 0.5, 0.5], [0.0, 0.0, 0.01], [0.97, 1.0, 1.0], [0.1, 0.5, 0.9]])
def test_spread_labels_stay_in_order_inside_and_apart(wanted):
    heights = np.array([0.1, 0.2, 0.1])
    placed = curves.spread(np.array(wanted), heights)
    assert (np.diff(placed) >= (heights[1:] + heights[:-1]) / 2 - 1e-3).all()
    assert placed.min() >= 0
    assert placed.max() <= 1
    if wanted == [0.1, 0.5, 0.9]:
        np.testing.assert_array_equal(placed, wanted)


def test_curves_label_every_baseline_and_mark_those_outside():
    baselines = [{"name": "costs $5 & $6", "value": 2.0}, {"name": "far", "value": 50.0}]
    text = canvas.svg(curves.likelihood(make_rows(), "bits/dim", baselines))
    for label in ("costs $5 &amp; $6", "far 50.000 ↑", "validation 2.100", "train 2.000", "bits/dim", "step"):
        assert f">{label}<" in text, label


def test_the_axis_shows_the_late_part_of_a_curve_and_the_baselines_near_it():
    steps = np.arange(1, 101)
    values = 2 + 50 * np.exp(-steps / 3)
    low, high = curves._limits(steps, values, [2.01, 400.0])
    assert low < 2.0 <= values[40] < 2.01 < high < 3
    rows = [{"step": s, "split": "train", "bits_per_dim": v} for s, v in ((1, 5.0), (2, 4.0))]
    low, high = curves.likelihood(rows, "bits/dim").axes[0].get_ylim()
    assert low < 4 < 5 < high


def test_no_curve_without_a_finite_value():
    rows = [{"step": 1, "split": "train", "bits_per_dim": None, "loss": None}]
    assert curves.likelihood(rows, "bits/dim") is None
    assert curves.multiples(rows) == {}


def test_small_plots_are_what_the_large_one_does_not_show():
    assert list(curves.multiples(make_rows())) == ["gradient norm"]
    rows = [{"step": 1, "split": "train", "critic/loss": -1.0, "skipped": 2.0, "learning_rate/critic": 1e-4}]
    assert list(curves.multiples(rows)) == ["learning rate: critic", "critic: loss", "skipped"]


def test_figures_use_the_themes_colours_leave_settings_alone_and_repeat_exactly():
    first, second = (canvas.svg(curves.likelihood(make_rows(), "bits/dim")) for _ in range(2))
    assert first == second
    assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]
    assert "<style" not in first
    assert set(re.findall(r"#[0-9a-f]{6}\b", first)) == set()
    assert set(re.findall(r"var\(--(\w+)\)", first)) <= set(canvas.LIGHT) == set(canvas.DARK)


def test_lattice_holds_the_data_and_the_map_has_its_orientation():
    data = np.array([[0.0, 5.0], [2.0, 6.0]], np.float32)
    points, (left, right, bottom, top) = figures.lattice(data, size=8)
    assert points.shape == (64, 2)
    assert left < 0 < 2 < right
    assert bottom < 5 < 6 < top
    assert right - left == pytest.approx(top - bottom)
    image = figures.heat_map(points[:, 0] + 10 * points[:, 1], (left, right, bottom, top)).axes[0].images[0]
    values = np.asarray(image.get_array())
    assert image.origin == "lower"
    assert (np.diff(values, axis=0) > np.diff(values, axis=1).max()).all()


def test_densities_count_what_they_cannot_draw(tmp_path):
    data = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    samples, log_density = data.copy(), np.zeros(128 * 128, np.float32)
    samples[3, 1], log_density[5], log_density[6] = np.inf, np.nan, -np.inf
    picture = figures.densities(data, samples, log_density)
    assert list(picture.rows) == ["data", "samples", "model log-density"]
    assert "1 of 50" in picture.note
    page = write(tmp_path, make_record(unit="nats"), make_rows("nats"), {"Densities": picture})
    assert page.tags.count("svg") == 5
    assert "negative log-likelihood (nats)" in page.text


def test_full_page_has_every_section_and_needs_nothing_else(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"seed": 0, "model": {"name": "flow", "net": {"split": {"a": []}}}})
    )
    page = write(tmp_path, rows=make_rows(), pictures=make_pictures())
    assert page.headings == [
        *("Training", "Samples by temperature", "Reconstructions", "Samples"),
        *("Configuration", "Time", "Machine and versions", "Provenance"),
    ]
    for text in (
        "1.932",
        "± 0.012",
        "−0.499",
        "+1.656",
        "T = 0.5",
        "net.split.a",
        "9b74c989",
        "3 min 23 s",
        "arXiv:1807.03039",
    ):
        assert text in page.text, text
    links = [v for name, v in page.attributes if name in ("src", "href", "xlink:href", "srcset") and v[0] != "#"]
    assert {v for v in links if not v.startswith("data:image/")} == {"https://arxiv.org/abs/1807.03039"}
    assert not {"script", "link", "iframe", "object"} & {*page.tags}
    assert "url(" not in re.sub(r"url\(#\w+\)", "", (tmp_path / "report.html").read_text())
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_missing_pieces_leave_no_trace(tmp_path):
    page = write(tmp_path, {"name": "bare"})
    assert page.headings == ["Provenance"]
    assert not {"img", "svg", "dl"} & {*page.tags}
    record = make_record(bound="none", value=None, standard_error=None, baselines=[], validation=None)
    page = write(tmp_path, record, [{"step": 1, "split": "train", "loss": 1.0}])
    assert "headline" not in [v for name, v in page.attributes if name == "class"]
    assert not re.search(r"\b(None|nan|null)\b", page.text)


def test_everything_is_escaped(tmp_path):
    def poison(value):
        if isinstance(value, dict):
            return {f"{k}{HOSTILE}": poison(v) for k, v in value.items()}
        return value + HOSTILE if isinstance(value, str) else value

    fixed = {"bound", "unit"}
    record = {k: v if k in fixed else v + HOSTILE if isinstance(v, str) else v for k, v in make_record().items()}
    record |= {key: poison(record[key]) for key in ("versions", "seconds")}
    record["baselines"] = [b | {"name": HOSTILE} for b in record["baselines"]]
    (tmp_path / "config.json").write_text(json.dumps(poison({"seed": 0, "model": {"name": "flow"}})))
    rows = [row | {HOSTILE: 1.0} for row in make_rows()]
    picture = next(iter(make_pictures().values()))
    picture = images.Picture({label + HOSTILE: row for label, row in picture.rows.items()}, HOSTILE)
    page = write(tmp_path, record, rows, {HOSTILE: picture})
    assert "script" not in page.tags
    assert page.text.count('alert("1")') > 20


def test_large_images_are_compressed_and_the_page_says_so(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (16, 20, 20, 3)).repeat(10, 1).repeat(10, 2)
    noisy = x + np.random.default_rng(1).integers(0, 9, x.shape)
    page = write(tmp_path, pictures={"Samples": images.samples(noisy, 256)})
    assert "Images are compressed" in page.text
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
    assert "Images are compressed" not in write(tmp_path, pictures=make_pictures()).text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"value": 2.5}, "Better than this model: the baseline independent pixels."),
        ({"value": None}, "The likelihood of the test data is not finite."),
        ({"rollbacks": 2}, "Training diverged and went back to a checkpoint: 2 times."),
        ({"skipped_updates": 3}, "Updates skipped because a gradient was not finite, or above optimizer.skip_norm: 3."),
        ({"nonfinite_samples": 1}, "Samples that are not finite: 1."),
        ({"baselines": [{"name": sections.LIMIT, "value": 2.0}]}, "Better than the entropy of the data"),
    ],
)
def test_what_the_reader_must_know_first_is_said(tmp_path, changes, sentence):
    assert sentence in write(tmp_path, make_record(**changes)).text
    assert sentence not in write(tmp_path).text


WORKS = {
    "score": "main.py --mode=eval",
    "sample": "main.py --mode=sample",
    "classify": "scripts/evaluate_classifier.py",
}


@pytest.mark.parametrize(
    ("abilities", "wanted"),
    [
        (None, ["score", "sample"]),  # of a record from before there was such a field
        (["score"], ["score"]),
        (["sample"], ["score", "sample"]),  # without a likelihood samples are compared with data
        (["classify"], ["classify"]),
        (["sample", "classify"], ["score", "sample", "classify"]),
    ],
)
def test_only_commands_that_work_on_the_run_are_shown(tmp_path, abilities, wanted):
    text = write(tmp_path, make_record(**({} if abilities is None else {"abilities": abilities}))).text
    for name, command in WORKS.items():
        assert (f"python {command} --workdir={tmp_path}" in text) == (name in wanted)


def test_a_figure_within_its_error_of_the_entropy_is_no_alarm():
    baselines = [{"name": sections.LIMIT, "value": 2.0}]
    assert sections.alerts(make_record(value=1.96), baselines) == []
    assert sections.alerts(make_record(value=2.04), baselines) == []


MARKED = {"exact": "1.932", "lower": "≤ 1.932", "average": "≤ 1.932", "estimate": "≈ 1.932"}


@pytest.mark.parametrize(("bound", "mark"), MARKED.items())
def test_the_kind_of_bound_is_marked(bound, mark):
    text = sections.headline(make_record(bound=bound), [])
    assert f'<p class="value">{mark}<span> ± 0.012</span>' in text


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (markup.number(-0.5, 2, signed=True), "−0.50"),
        (markup.number(1234.5, 1), "1,234.5"),
        (markup.number(math.nan, 1), "not finite"),
        (markup.decimals(0.0123), 3),
        (markup.decimals(12.0), 0),
        (markup.decimals(None), 3),
        (markup.amount(44_120_000), "44.1 M"),
        (markup.amount(524_312), "524,312"),
        (markup.amount(0.25), "0.25"),
        (markup.duration(0.42), "0.42 s"),
        (markup.duration(59.9), "60 s"),
        (markup.duration(203.4), "3 min 23 s"),
        (markup.duration(3600 * 5 + 125), "5 h 02 min"),
    ],
)
def test_numbers_read_well(made, wanted):
    assert made == wanted
