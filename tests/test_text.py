"""Text as data: windows by index, alphabets, parts; and as a report: signs for what cannot be seen."""

import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from genflow.core import Spec
from genflow.data import batch_indices, load
from genflow.data.dataset import in_memory, select
from genflow.data.raw import large_text, tiny_shakespeare
from genflow.data.text import BYTES, cut, decode, encode
from genflow.errors import UserError
from genflow.models.baseline import baselines
from genflow.report import text as report
from genflow.report.markup import element

LETTERS = "the quick brown fox jumps over the lazy dog, "


def section(name, **changes):
    config = common.base().data
    config.update(name=name, window=8, batch_size=4, **changes)
    return config


def written(tmp_path, content, **changes):
    path = tmp_path / "text.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return section(f"text:{path}", **changes)


# Windows


def test_training_sees_every_window_and_evaluation_every_character_once(tmp_path):
    text = LETTERS * 20
    spec, train, evaluation = load(written(tmp_path, text), 0)
    assert (spec.shape, spec.bins, spec.kind) == ((8,), len(set(text)), "text")
    first, last = int(0.8 * len(text)), int(0.9 * len(text))
    assert train.num == first - 8 + 1
    windows = [decode(spec, x) for x in train.fetch(np.arange(train.num))["x"]]
    assert windows == [text[i : i + 8] for i in range(train.num)]
    parts = {"validation": text[first:last], "test": text[last:]}
    for part, held_out in parts.items():
        seen = "".join(decode(spec, x) for x in evaluation[part].fetch(np.arange(evaluation[part].num))["x"])
        assert seen == held_out[: len(held_out) // 8 * 8]


def test_the_text_is_held_once_and_cut_alike_on_host_and_device(tmp_path):
    _, train, _ = load(written(tmp_path, LETTERS * 20), 0)
    assert sum(a.nbytes for a in train.arrays.values()) == int(0.8 * len(LETTERS * 20))
    index = batch_indices(0, 3, train.num, 5).astype(np.int32)
    on_device = jax.jit(train.gather)(jax.tree.map(jnp.asarray, train.arrays), index)
    np.testing.assert_array_equal(on_device["x"], train.fetch(index)["x"])


def test_fewer_examples_are_windows_spread_over_the_text(tmp_path):
    config = written(tmp_path, LETTERS * 20, num_examples=16)
    _, train, _ = load(config, 0)
    config.num_examples = 0
    _, whole, _ = load(config, 0)
    assert train.num == 16
    index = np.arange(16, dtype=np.int32)
    x = train.fetch(index)["x"]
    np.testing.assert_array_equal(x, whole.fetch(train.arrays["selected"])["x"])
    np.testing.assert_array_equal(jax.jit(train.gather)(jax.tree.map(jnp.asarray, train.arrays), index)["x"], x)
    starts = train.arrays["selected"]
    assert starts.max() - starts.min() > whole.num / 2
    assert select(train, np.arange(0)).num == 0


def test_rows_of_arrays_are_gathered_as_before():
    data = in_memory(np.arange(6).reshape(3, 2), np.arange(3))
    picked = data.gather(data.arrays, np.array([2, 0]))
    np.testing.assert_array_equal(picked["x"], [[4, 5], [0, 1]])
    np.testing.assert_array_equal(picked["label"], [2, 0])


# Symbols


@pytest.mark.parametrize("text", ["Zürich\n→ 東京 🎲", LETTERS])
def test_bytes_and_characters_come_back(tmp_path, text):
    for tokens, symbols in (("bytes", BYTES), ("characters", tuple(sorted(set(text * 2))))):
        spec, train, _ = load(written(tmp_path, text * 40, tokens=tokens), 0)
        assert (spec.symbols, spec.bins) == (symbols, len(symbols))
        np.testing.assert_array_equal(decode(spec, encode(spec, text)), text)
        assert train.fetch(np.arange(3))["x"].max() < spec.bins


def test_an_alphabet_of_more_than_a_byte_holds_its_numbers(tmp_path):
    text = "".join(chr(0x4E00 + i % 300) for i in range(5000))
    spec, train, _ = load(written(tmp_path, text), 0)
    assert spec.bins == 300
    assert decode(spec, train.fetch(np.array([290]))["x"][0]) == text[290:298]


def test_a_part_never_ends_within_a_character():
    text = "aé東🎲".encode() * 7
    for percent in range(1, 100):
        parts = cut(text, (percent / 100,))
        assert b"".join(parts) == text
        assert all(part.decode() is not None for part in parts)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (
            LETTERS * 20 + "é",
            {},
            r"test\[89\] of .* is 'é', which the training part has not \(1 such.*tokens=bytes",
        ),
        (b"\xff\xfe" * 99, {}, "the train part of .* is no UTF-8 at byte 0; set data.tokens=bytes"),
        ("aaaaa", {}, "data.window=8: the train part of .* has 4 symbols only"),
        ("", {}, "0 bytes, wanted 1"),
        (LETTERS * 20, {"binarize": "threshold"}, "data.binarize='threshold' does not apply"),
        (LETTERS * 20, {"bits": 5, "tokens": "bytes"}, "data.bits=5 does not apply"),
        (LETTERS * 20, {"augment": "flip"}, "data.augment='flip' does not apply"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(tmp_path, content, changes, message):
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, content, **changes), 0)


def test_a_window_is_of_text_or_sound_and_a_missing_file_is_named():
    with pytest.raises(UserError, match="data.window=8 does not apply to 'digits'"):
        load(section("digits"), 0)
    with pytest.raises(UserError, match="no text file /nowhere"):
        load(section("text:/nowhere"), 0)


def test_a_prompt_with_unknown_characters_is_refused():
    spec = Spec("abc", (8,), 3, symbols=("a", "b", "c"))
    assert encode(spec, "cab").tolist() == [2, 0, 1]
    with pytest.raises(UserError, match="abc has no 'd', 'é'; its 3 characters are 'abc'"):
        encode(spec, "déb")
    with pytest.raises(UserError, match="digits is no text"):
        decode(Spec("digits", (8, 8, 1), 17), np.zeros(3, int))
    assert decode(spec._replace(symbols=BYTES), np.array([104, 255, 105])) == "h\\xffi"


# Prepared sets


def test_the_embedded_text_has_three_parts():
    spec, train, evaluation = load(section("descriptions"), 0)
    assert spec.bins < 128
    assert train.num > 20_000
    assert min(part.num for part in evaluation.values()) > 300


@pytest.mark.parametrize("name", ["text8", "enwik8", "tiny_shakespeare"])
def test_original_files_become_bytes_in_three_parts(tmp_path, monkeypatch, name):
    content = np.random.default_rng(0).integers(97, 123, 1000, np.uint8)
    monkeypatch.setattr("genflow.data.raw.LARGE_TEXT", 1000)
    path = tmp_path / (f"{name}.zip" if name[-1] == "8" else "input.txt")
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content.tobytes())
        arrays = large_text({path.name: path})
    else:
        path.write_bytes(content.tobytes())
        arrays = tiny_shakespeare({path.name: path})
    np.savez(tmp_path / f"{name}.npz", bins=np.array(256), **arrays)
    spec, train, evaluation = load(section(name, data_dir=str(tmp_path), tokens="bytes"), 0)
    assert (spec.bins, train.num, evaluation["validation"].num, evaluation["test"].num) == (256, 893, 6, 6)
    np.testing.assert_array_equal(evaluation["test"].fetch(np.array([0]))["x"][0], content[950:958])
    assert spec.source.startswith("http")


def test_a_large_text_of_another_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "text8.zip", "w") as archive:
        archive.writestr("text8", b"abc")
    with pytest.raises(ValueError, match="3 bytes, wanted 100,000,000"):
        large_text({"text8.zip": tmp_path / "text8.zip"})


# Baselines


def test_the_baseline_of_a_text_is_its_histogram():
    spec = Spec("text", (4,), 3, symbols=("a", "b", "c"))
    x = np.array([[0, 0, 0, 1], [0, 1, 0, 0]], np.uint8)
    models = baselines(spec, x)
    assert list(models) == ["uniform", "independent characters"]
    log_prob = models["independent characters"].log_prob({}, {}, None, {"x": jnp.asarray(x[:1])})
    np.testing.assert_allclose(log_prob, 3 * np.log(7 / 11) + np.log(3 / 11), rtol=1e-6)


# The report


def test_what_cannot_be_seen_gets_a_sign_and_nothing_is_html():
    text = "a<b>&\n\tc\x00\x1b[31m\x7f\x85\u202e\ufeff"
    shown = report.visible(text)
    assert shown == "a<b>&\n\tc␀␛[31m␡\\x85\\u202e\\ufeff"
    page = report.temperatures({0.5: [text, text, "third"]}).rows["T = 0.5"]
    assert page.count("a&lt;b&gt;&amp;\n\tc␀") == report.SHOWN
    assert "third" not in page


def test_what_was_given_is_set_apart_from_what_was_drawn():
    rows = report.continuations([report.Continued("<To be", " drawn", " or not")]).rows
    drawn, original = (element("pre", "\n", element("mark", "<To be"), rest) for rest in (" drawn", " or not"))
    assert drawn in rows["prompt 1"]
    assert original in rows["prompt 1"]
    assert rows["prompt 1"].index(drawn) < rows["prompt 1"].index(original)


def test_a_file_of_samples_is_safe_to_show(tmp_path):
    report.save_txt(["one\n", "two\x1b"], f"{tmp_path}/a.txt")
    assert (tmp_path / "a.txt").read_text("utf-8") == f"one\n\n{report.RULE}\ntwo␛\n"
