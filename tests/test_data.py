"""Data: every source matches its spec, splits are fixed, batches are functions of (seed, step), faults are named."""

import io
import itertools
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.common import base
from genflow.data import augment, batch_indices, binarize, load, stream, transform
from genflow.data.densities import DENSITIES, quadrature
from genflow.data.images import crop, resize
from genflow.errors import UserError

RNG = np.random.default_rng(0)


def section(name, **changes):
    config = base().data
    config.name, config.batch_size = str(name), 8
    config.update(changes)
    return config


def rows(x):
    """Each example as one hashable value."""
    return [a.tobytes() for a in x]


def unique_images(num, shape=(6, 6, 1), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


@pytest.fixture
def npz(tmp_path):
    """Writes an .npz and returns its data.name."""

    def write(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return f"array:{tmp_path / 'set.npz'}"

    return write


# What every source promises

SOURCES = ["digits", "patches", "moons", "synthetic:8x8x3", "synthetic:6x10x1:32"]


@pytest.mark.parametrize("name", SOURCES)
def test_parts_match_the_spec(name):
    spec, train, evaluation = load(section(name, num_examples=200), 0)
    assert train.num == 200
    for part in (train, evaluation["validation"], evaluation["test"]):
        x = part.arrays["x"]
        assert x.shape == (part.num, *spec.shape)
        assert x.dtype == (np.float32 if spec.bins is None else np.uint8)
        assert spec.bins is None or x.max() < spec.bins
        assert ("label" in part.arrays) == (spec.num_classes > 0)
        np.testing.assert_array_equal(part.fetch(np.array([3, 1]))["x"], x[[3, 1]])
        if spec.num_classes:
            assert part.arrays["label"].dtype == np.int32
            assert set(part.arrays["label"]) <= set(range(spec.num_classes))
    assert spec.license


def test_digits_use_all_their_gray_levels_and_the_documented_split():
    spec, train, evaluation = load(section("digits"), 0)
    assert spec.bins == 17
    assert train.arrays["x"].max() == 16
    assert train.num + evaluation["validation"].num == 1437
    assert evaluation["test"].num == 360


def test_patches_of_the_parts_share_no_pixel(monkeypatch):
    import sklearn.datasets

    place = np.arange(427 * 640, dtype=np.uint32)  # every pixel is its own number
    bytes_of = np.stack([place >> 16, place >> 8, place], axis=1).astype(np.uint8).reshape(427, 640, 3)
    pictures = [bytes_of, bytes_of + np.array([16, 0, 0], np.uint8)]
    monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: type("B", (), {"images": pictures}))
    _, train, evaluation = load(section("patches"), 0)
    seen = [set(rows(d.arrays["x"].reshape(-1, 3))) for d in (train, *evaluation.values())]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(seen, 2))
    assert min(map(len, seen)) > 40_000


@pytest.mark.parametrize("name", list(DENSITIES))
def test_density_has_mass_one_and_the_entropy_of_its_samples(name):
    density = DENSITIES[name]()
    mass, entropy = quadrature(density)
    surprise = -density.log_prob(density.sample(np.random.default_rng(7), 10_000))
    assert mass == pytest.approx(1, abs=1e-6)
    assert quadrature(density, cells=240)[1] == pytest.approx(entropy, abs=1e-4)
    assert abs(surprise.mean() - entropy) < 3 * surprise.std() / len(surprise) ** 0.5 + 1e-9
    assert load(section(name, num_examples=10), 0)[0].entropy == entropy


@pytest.mark.parametrize("name", list(DENSITIES))
def test_density_samples_fall_where_it_says(name):
    """Mass by sampling and by the density agree in each cell of a coarse grid: a wrong direction or scale fails."""
    density, edges = DENSITIES[name](), np.linspace(-5, 5, 11)
    dims = density.dims
    x = density.sample(np.random.default_rng(3), 20_000)
    assert x.shape == (20_000, dims)
    counts = np.histogramdd(x, bins=[edges] * dims)[0] / len(x)
    fine = np.linspace(-5, 5, 201)[:-1] + 0.025
    grid = np.stack(np.meshgrid(*[fine] * dims, indexing="ij"), -1).reshape(-1, dims)
    cells = np.exp(density.log_prob(grid)).reshape([10, 20] * dims)
    mass = cells.sum(tuple(range(1, 2 * dims, 2))) * 0.05**dims
    assert np.abs(counts - mass).max() < 5 * np.sqrt(mass.max() / len(x))


def test_density_draws_depend_on_the_seed_and_its_test_does_not():
    (_, a, first), (_, b, second) = (load(section("rings", num_examples=50), seed) for seed in (0, 1))
    assert (a.arrays["x"] != b.arrays["x"]).all()
    np.testing.assert_array_equal(first["test"].arrays["x"], second["test"].arrays["x"])


@pytest.mark.parametrize(
    "name", ["synthetic:8x8", "synthetic:8x0x1", "synthetic:axbxc", "synthetic:8x8x1:300", "array:"]
)
def test_a_malformed_name_says_the_form(name):
    with pytest.raises(UserError, match="write synthetic:|wanted 2|write array:"):
        load(section(name), 0)


def test_unknown_name_says_where_it_looked_and_what_to_run(tmp_path, monkeypatch):
    with pytest.raises(UserError) as error:
        load(section("mnist", data_dir=str(tmp_path)), 0)
    assert str(tmp_path) in str(error.value)
    assert f"python scripts/prepare_data.py mnist --data_dir={tmp_path}" in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("GENFLOW_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "theirs"))
    with pytest.raises(UserError, match="did you mean 'digits'.*") as error:
        load(section("digit"), 0)
    assert str(error.value).index("mine") < str(error.value).index("theirs")
    with pytest.raises(UserError, match="not found"):
        load(section("../digits"), 0)


def test_imports_stay_light():
    code = "import sys, genflow.data; print(*{m.partition('.')[0] for m in sys.modules})"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"tensorflow", "tensorflow_datasets", "grain", "sklearn", "PIL", "scipy.io", "flax"} & set(modules)


# Splits and order


def test_split_is_disjoint_and_the_same_for_every_seed(npz):
    x = unique_images(100)
    name = npz(x_train=x, x_test=unique_images(20, seed=1))
    _, train, evaluation = load(section(name, validation=0.25), 0)
    _, again, _ = load(section(name, validation=0.25), 5)
    parts = rows(train.arrays["x"]), rows(evaluation["validation"].arrays["x"])
    assert (len(parts[0]), len(parts[1])) == (75, 25)
    assert set(parts[0]) | set(parts[1]) == set(rows(x))
    np.testing.assert_array_equal(train.arrays["x"], again.arrays["x"])


def test_validation_is_the_official_part_where_there_is_one_and_none_where_not_wanted(npz):
    x, valid = unique_images(40), unique_images(10, seed=1)
    _, train, evaluation = load(section(npz(x_train=x, x_valid=valid, x_test=valid)), 0)
    np.testing.assert_array_equal(evaluation["validation"].arrays["x"], valid)
    assert train.num == 40
    _, train, evaluation = load(section(npz(x_train=x, x_test=valid), validation=0.0), 0)
    assert (train.num, evaluation["validation"].num, evaluation["test"].num) == (40, 0, 10)
    _, train, evaluation = load(section(npz(x_train=x, x_valid=valid)), 0)  # as for ImageNet
    np.testing.assert_array_equal(evaluation["test"].arrays["x"], valid)
    assert set(rows(evaluation["validation"].arrays["x"])) < set(rows(x))


def test_num_examples_are_spread_over_a_sorted_set(npz):
    x = unique_images(300)
    y = np.repeat(np.arange(3), 100)
    _, train, _ = load(section(npz(x_train=x, y_train=y, x_test=x, y_test=y), num_examples=60), 0)
    assert train.num == 60
    assert np.bincount(train.arrays["label"], minlength=3).min() > 5
    images = dict(zip(rows(x), y, strict=True))
    assert [images[r] for r in rows(train.arrays["x"])] == train.arrays["label"].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 91}, "data.batch_size=91 is more than the 90 training examples"),
        ({"validation": 0.001}, "data.validation=0.001.*validation"),
        ({"validation": 1.0}, "data.validation=1.0.*train"),
        ({"num_examples": 4}, "data.batch_size=8 is more than the 4"),
    ],
)
def test_a_part_that_is_empty_or_smaller_than_a_batch_is_refused(npz, changes, message):
    x = unique_images(100)
    with pytest.raises(UserError, match=message):
        load(section(npz(x_train=x, x_test=x), **changes), 0)


@pytest.mark.parametrize(("num", "batch_size"), [(12, 4), (10, 4), (7, 16)])
def test_each_epoch_visits_each_example_once(num, batch_size):
    steps = 3 * num
    order = np.concatenate([batch_indices(3, step, num, batch_size) for step in range(steps)])
    epochs = order[: len(order) // num * num].reshape(-1, num)
    assert (np.sort(epochs, axis=1) == np.arange(num)).all()
    assert (epochs[0] != epochs[1]).any()


def test_batch_indices_are_the_same_on_every_machine_and_differ_between_seeds():
    assert batch_indices(0, 0, 10, 10).tolist() == [0, 2, 9, 1, 8, 5, 4, 3, 6, 7]
    assert batch_indices(1, 0, 10, 10).tolist() != batch_indices(0, 0, 10, 10).tolist()
    assert batch_indices(0, 10**9, 50_000, 128).dtype == np.int64


def test_stream_gives_the_batches_of_memory_from_any_step_and_for_any_rows():
    _, train, _ = load(section("synthetic:6x6x1"), 0)
    direct = [train.fetch(batch_indices(4, step, train.num, 8)) for step in range(5, 9)]
    for rows_of_host in (slice(None), slice(4, 8)):
        streamed = list(stream(train, 4, 5, 9, 8, rows_of_host))
        assert len(streamed) == 4
        for a, b in zip(direct, streamed, strict=True):
            np.testing.assert_array_equal(a["x"][rows_of_host], b["x"])
            np.testing.assert_array_equal(a["label"][rows_of_host], b["label"])


# What happens to images


def test_shift_moves_each_image_and_repeats_its_edge():
    x = unique_images(40, (5, 4, 2))
    padded = np.pad(x, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="edge")
    out = np.asarray(jax.jit(augment("shift", 2))(jax.random.key(0), jnp.asarray(x)))
    offsets = set()
    for i, image in enumerate(out):
        fits = [
            (r, c) for r, c in itertools.product(range(5), repeat=2) if (padded[i, r : r + 5, c : c + 4] == image).all()
        ]
        assert fits
        offsets.update(fits)
    assert len(offsets) > 15
    assert {0, 4} <= {r for r, _ in offsets}


def test_flip_mirrors_half_of_the_images_and_none_changes_nothing():
    x = jnp.asarray(unique_images(200))
    out = augment("flip", 0)(jax.random.key(1), x)
    flipped = (out == x[:, :, ::-1]).all((1, 2, 3))
    assert ((out == x).all((1, 2, 3)) ^ flipped).all()
    assert 60 < flipped.sum() < 140
    assert (augment("none", 3)(jax.random.key(1), x) == x).all()
    both = augment("shift_flip", 1)(jax.random.key(1), x)
    assert both.shape == x.shape
    assert both.dtype == jnp.uint8


def test_stochastic_binarization_draws_training_anew_and_evaluation_once(npz):
    x = np.repeat(unique_images(1, (16, 16, 1)), 400, axis=0)
    config = section(npz(x_train=x, x_test=x), binarize="stochastic")
    spec, train, evaluation = load(config, 0)
    change = jax.jit(transform(config, spec))
    a, b = (change(jax.random.key(i), train.fetch(np.arange(360)))["x"] for i in range(2))
    tests = [load(config, seed)[2]["test"].arrays["x"] for seed in range(2)]
    assert spec.bins == 2
    assert (a != b).any()
    np.testing.assert_array_equal(*tests)
    for draws in (np.asarray(a), tests[0]):
        assert set(np.unique(draws)) == {0, 1}
        assert np.abs(draws.mean(0) - x[0] / 255).max() < 0.12
    assert not binarize("stochastic")(jax.random.key(0), jnp.zeros((4, 4), jnp.uint8)).any()
    assert binarize("stochastic")(jax.random.key(0), jnp.full((64, 64), 255, jnp.uint8)).all()


def test_bits_and_threshold(npz):
    x = np.arange(256, dtype=np.uint8).reshape(16, 4, 4, 1)
    name = npz(x_train=x, x_test=x)
    for changes, bins, wanted in [({"bits": 5}, 32, x // 8), ({"binarize": "threshold"}, 2, x >= 128)]:
        spec, _, evaluation = load(section(name, validation=0.0, **changes), 0)
        assert spec.bins == bins
        np.testing.assert_array_equal(evaluation["test"].arrays["x"], wanted)
    spec, train, evaluation = load(section("digits", binarize="stochastic"), 0)
    assert (spec.bins, train.arrays["x"].max(), evaluation["test"].arrays["x"].max()) == (2, 255, 1)


def test_crop_cuts_or_pads_and_refuses_the_rest():
    x = unique_images(3, (6, 5, 3))
    np.testing.assert_array_equal(crop(x, (1, 2, 4, 3)), x[:, 1:5, 2:5])
    padded = crop(x[0], (-1, -2, 8, 9))
    np.testing.assert_array_equal(padded[1:7, 2:7], x[0])
    assert padded.sum() == x[0].sum()
    with pytest.raises(UserError, match="data.crop="):
        crop(x, (3, 0, 4, 5))


def test_resize_averages_whole_blocks_and_centers():
    x = unique_images(1, (8, 12, 3))[0]
    blocks = x[:, 2:10].reshape(4, 2, 4, 2, 3).mean((1, 3))
    np.testing.assert_allclose(resize(x, 4), blocks, atol=1)
    assert resize(x, 3).shape == (3, 3, 3)
    spec, _, _ = load(section("synthetic:8x8x3", crop=(0, 0, 6, 6), image_size=3), 0)
    assert spec.shape == (3, 3, 3)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("moons", {"binarize": "threshold"}),
        ("moons", {"image_size": 4}),
        ("moons", {"augment": "flip"}),
        ("digits", {"bits": 5}),
        ("synthetic:4x4x1", {"bits": 9}),
    ],
)
def test_a_change_that_the_data_do_not_allow_is_refused(name, changes):
    (field,) = changes
    with pytest.raises(UserError, match=f"data.{field}="):
        load(section(name, **changes), 0)


def test_transform_leaves_continuous_data_and_labels_alone():
    config = section("moons", num_examples=20)
    spec, train, _ = load(config, 0)
    batch = train.fetch(np.arange(8))
    np.testing.assert_array_equal(transform(config, spec)(jax.random.key(0), batch)["x"], batch["x"])


# Array files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_saved_in_any_layout(tmp_path, save):
    x, y = unique_images(30, (4, 6)), RNG.integers(0, 5, 30)
    save(tmp_path / "a.npz", x_train=np.asfortranarray(x), y_train=y, x_test=x[:9], y_test=y[:9], note=np.array("any"))
    spec, train, evaluation = load(section(f"array:{tmp_path / 'a.npz'}", validation=0.0), 0)
    assert (spec.shape, spec.bins, spec.num_classes) == ((4, 6, 1), 256, y.max() + 1)
    np.testing.assert_array_equal(train.arrays["x"][..., 0], x)
    np.testing.assert_array_equal(train.arrays["label"], y)
    assert evaluation["test"].num == 9


def test_one_npy_array_is_split_and_floats_are_continuous(tmp_path):
    x = RNG.standard_normal((50, 7))
    np.save(tmp_path / "a.npy", x)
    spec, train, evaluation = load(section(f"array:{tmp_path / 'a.npy'}"), 0)
    assert (spec.shape, spec.bins) == ((7,), None)
    assert (train.num, evaluation["validation"].num, evaluation["test"].num) == (36, 4, 10)
    parts = [d.arrays["x"] for d in (train, *evaluation.values())]
    assert set(rows(np.concatenate(parts))) == set(rows(x.astype(np.float32)))


@pytest.mark.parametrize(("values", "bins"), [(2, 2), (256, 256), (16, 16)])
def test_bins_are_declared_or_inferred(npz, values, bins):
    x = np.arange(16 * 16, dtype=np.int64).reshape(16, 4, 4) % values
    spec, train, _ = load(section(npz(x_train=x, x_test=x, **({"bins": 16} if bins == 16 else {}))), 0)
    assert spec.bins == bins
    assert train.arrays["x"].dtype == np.uint8


def spoiled(index, value, kind=np.float32, shape=(20, 3)):
    x = np.zeros(shape, kind) + (0.5 if kind == np.float32 else 0)
    x[index] = value
    return x


GOOD = np.full((20, 4, 4), 7, np.uint8)
MISMATCHES = {
    "nan": ({"x_train": spoiled((3, 1), np.nan), "x_test": spoiled(0, 1)}, r"train\[3\] 'x' is nan, wanted finite"),
    "overflow": ({"x_train": spoiled((4, 1), 1e300, np.float64), "x_test": spoiled(0, 1)}, r"train\[4\] 'x' is inf"),
    "range": (
        {"x_train": GOOD, "x_test": spoiled((5, 1, 1), 300, np.int32, (9, 4, 4))},
        r"test\[5\] 'x' is 300, wanted 0",
    ),
    "negative": ({"x_train": GOOD, "x_test": spoiled((2, 1, 1), -1, np.int32, (9, 4, 4))}, r"test\[2\] 'x' is -1"),
    "shape": ({"x_train": GOOD, "x_test": GOOD[:, :3]}, r"test\[0\] 'x' is shape \(3, 4, 1\), wanted \(4, 4, 1\)"),
    "label": (
        {"x_train": GOOD, "y_train": np.arange(20) - 1, "x_test": GOOD, "y_test": np.arange(20)},
        r"train\[0\] 'label' is -1",
    ),
    "label length": ({"x_train": GOOD, "y_train": np.arange(3)}, r"y_train is int64 \(3,\), wanted integers \(20,\)"),
    "label missing": ({"x_train": GOOD, "y_train": np.arange(20), "x_test": GOOD}, "some parts have labels"),
    "bins": ({"x_train": GOOD, "x_test": GOOD, "bins": 1}, "bins is 1"),
    "too many bins": ({"x_train": GOOD, "x_test": GOOD, "bins": 7}, r"train\[0\] 'x' is 7, wanted 0 .. 6"),
    "scaled images": ({"x_train": GOOD / np.float32(255), "x_test": GOOD / np.float32(255)}, "save them as uint8"),
    "float images": ({"x_train": GOOD.astype(np.float32)}, "save them as uint8"),
    "empty": ({"x_train": GOOD[:0], "x_test": GOOD}, "train part is empty"),
    "names": ({"images": GOOD}, "holds images; wanted at least x_train"),
    "text": ({"x_train": np.array([["a"]])}, "x_train is <U1"),
}


@pytest.mark.parametrize("case", list(MISMATCHES))
def test_data_that_do_not_match_their_spec_are_named(npz, case):
    arrays, message = MISMATCHES[case]
    with pytest.raises(UserError, match=message):
        load(section(npz(**arrays)), 0)


def mutations(content):
    middle = len(content) // 2
    yield from (b"", content[:middle], content[:-1], b"<html>quota exceeded</html>", b"\x80\x04" + content[2:])
    yield content[:middle] + bytes([content[middle] ^ 16]) + content[middle + 1 :]
    for position in np.linspace(0, len(content) - 1, 12).astype(int):
        yield content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_refused_or_harmless(tmp_path, save):
    """A flipped bit in a name or a date of the archive may leave the data whole; wrong data never come out."""
    path, x = tmp_path / "a.npz", unique_images(60)
    save(path, x_train=x, x_test=x)
    config, messages = section(f"array:{path}", validation=0.0), []
    for content in list(mutations(path.read_bytes())):
        path.write_bytes(content)
        try:
            _, train, _ = load(config, 0)
        except UserError as error:
            messages.append(str(error))
            continue
        assert set(rows(train.arrays["x"])) <= set(rows(x))
    assert len(messages) >= 8
    assert "\n" not in "".join(messages)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a data file ran')",)


def test_pickled_objects_are_refused_unread(npz):
    with pytest.raises(UserError, match="an array of object"):
        load(section(npz(x_train=np.array([Bomb()], dtype=object))), 0)


@pytest.mark.parametrize(
    ("declared", "message"), [((10**7, 10**7), "damaged.*declares"), ((3, 3), "damaged.*declares")]
)
def test_a_header_that_declares_another_size_is_refused_before_allocation(tmp_path, declared, message):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": declared})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", member.getvalue() + bytes(16))
    with pytest.raises(UserError, match=message):
        load(section(f"array:{tmp_path / 'a.npz'}"), 0)


def test_an_archive_that_declares_more_than_it_holds_is_refused(tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (1000, 1)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", member.getvalue() + bytes(16))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    size = content.index(b"PK\x01\x02") + 24  # of the member, in the central directory
    content[size : size + 4] = (len(member.getvalue()) + 1000).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match="ends after 16 of 1000 bytes"):
        load(section(f"array:{tmp_path / 'a.npz'}"), 0)


def test_an_archive_larger_than_the_machine_is_refused_before_reading(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x_train=np.zeros((1000, 1000), np.uint8))
    monkeypatch.setattr("genflow.data.arrays.physical_memory", lambda: 500_000)
    with pytest.raises(UserError, match="declares 1,000,128 bytes, the machine has 500,000"):
        load(section(f"array:{tmp_path / 'a.npz'}"), 0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no data file .*nothing.npz"):
        load(section(f"array:{tmp_path / 'nothing.npz'}"), 0)


# Folders of images


def save_images(folder, x, suffix="png", mode=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(x):
        Image.fromarray(image.squeeze(), mode).save(folder / f"{i:03}.{suffix}")


def test_folder_with_parts_and_classes(tmp_path):
    x = unique_images(40, (5, 4, 3))
    for part, kind, start in [("train", "cat", 0), ("train", "dog", 15), ("test", "cat", 30), ("test", "dog", 35)]:
        save_images(tmp_path / part / kind, x[start : start + (15 if part == "train" else 5)])
    spec, train, evaluation = load(section(f"folder:{tmp_path}", validation=0.0), 0)
    assert (spec.shape, spec.bins, spec.num_classes) == ((5, 4, 3), 256, 2)
    np.testing.assert_array_equal(train.arrays["x"], x[:30])
    assert train.arrays["label"].tolist() == [0] * 15 + [1] * 15
    np.testing.assert_array_equal(evaluation["test"].arrays["x"], x[30:])


def test_flat_gray_folder_is_split_and_read_lazily_under_stream(tmp_path):
    x = unique_images(30)
    save_images(tmp_path, x)
    name = f"folder:{tmp_path}"
    spec, train, evaluation = load(section(name), 0)
    lazy_spec, lazy, _ = load(section(name, placement="stream"), 0)
    assert lazy_spec == spec
    assert (spec.shape, spec.num_classes) == ((6, 6, 1), 0)
    assert lazy.arrays is None
    np.testing.assert_array_equal(lazy.fetch(np.arange(lazy.num))["x"], train.arrays["x"])
    assert set(rows(train.arrays["x"])) | {r for d in evaluation.values() for r in rows(d.arrays["x"])} == set(rows(x))


def test_images_of_different_sizes_need_image_size(tmp_path):
    save_images(tmp_path, unique_images(20, (8, 8, 3)))
    save_images(tmp_path / "more", [])
    Image.fromarray(unique_images(1, (9, 7, 3))[0]).save(tmp_path / "999.png")
    with pytest.raises(UserError, match=r"999.png has \(9, 7\) pixels.*set data.image_size"):
        load(section(f"folder:{tmp_path}"), 0)
    spec, train, _ = load(section(f"folder:{tmp_path}", image_size=4), 0)
    assert (spec.shape, train.arrays["x"].shape[1:]) == ((4, 4, 3), (4, 4, 3))


@pytest.mark.parametrize("content", [b"", b"<html></html>", "half", "deep"])
def test_a_file_that_is_no_8_bit_image_is_named(tmp_path, content):
    save_images(tmp_path, unique_images(20, (30, 30, 3)))
    path = tmp_path / "007.png"
    if content == "deep":
        Image.fromarray(np.zeros((30, 30), np.uint16)).save(path)
    else:
        path.write_bytes(path.read_bytes()[:1500] if content == "half" else content)
    with pytest.raises(UserError, match="007.png"):
        load(section(f"folder:{tmp_path}"), 0)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no images"):
        load(section(f"folder:{tmp_path}"), 0)


# Data sets that tensorflow_datasets prepared


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A small data set in the format of tensorflow_datasets, written by its own code."""
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("tfds")

    class TinyImages(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(shape=(6, 6, 1)), "label": tfds.features.ClassLabel(num_classes=3)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(40, 0), "test": self._generate_examples(20, 100)}

        def _generate_examples(self, num, first):
            for i in range(num):
                yield i, {"image": Image.fromarray(np.full((6, 6), first + i, np.uint8)), "label": i % 3}

    TinyImages(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.mark.parametrize("name", ["tiny_images", "tiny_images/1.0.0"])
def test_prepared_set_is_read_without_tensorflow(tfds_dir, name):
    spec, train, evaluation = load(section(name, data_dir=str(tfds_dir), validation=0.25), 0)
    assert (spec.shape, spec.bins, spec.num_classes) == ((6, 6, 1), 256, 3)
    assert (train.num, evaluation["validation"].num) == (30, 10)
    whole = np.concatenate([d.arrays["x"][:, 0, 0, 0] for d in (train, evaluation["validation"])])
    assert sorted(whole) == list(range(40))
    assert sorted(evaluation["test"].arrays["x"][:, 5, 5, 0]) == list(range(100, 120))
    np.testing.assert_array_equal(train.arrays["label"], train.arrays["x"][:, 0, 0, 0] % 3)
    assert "tensorflow" not in sys.modules


def test_prepared_set_streams_what_memory_holds(tfds_dir):
    config = section("tiny_images", data_dir=str(tfds_dir), crop=(1, 1, 4, 4), bits=5)
    _, train, _ = load(config, 0)
    config.placement = "stream"
    spec, lazy, _ = load(config, 0)
    assert (lazy.arrays, spec.shape, spec.bins) == (None, (4, 4, 1), 32)
    for step, batch in enumerate(stream(lazy, 1, 0, 3, 8)):
        np.testing.assert_array_equal(batch["x"], train.fetch(batch_indices(1, step, train.num, 8))["x"])


@pytest.mark.parametrize(
    "file", ["tiny_images-train.array_record-00000-of-00001", "dataset_info.json", "features.json"]
)
def test_a_damaged_prepared_set_is_named(tfds_dir, tmp_path, file):
    import shutil

    folder = shutil.copytree(tfds_dir / "tiny_images", tmp_path / "tiny_images") / "1.0.0"
    content = (folder / file).read_bytes()
    middle = np.flatnonzero(np.frombuffer(content, np.uint8))[-20]
    for spoiled_content in (content[: len(content) // 2], content[:middle] + b"\xff" + content[middle + 1 :]):
        (folder / file).write_bytes(spoiled_content)
        with pytest.raises(UserError, match="is damaged or incomplete"):
            load(section("tiny_images", data_dir=str(tmp_path)), 0)


def test_a_prepared_npz_comes_before_the_other_format(tfds_dir, tmp_path):
    np.savez(tmp_path / "tiny_images.npz", x_train=GOOD, x_test=GOOD)
    spec, _, _ = load(section("tiny_images", data_dir=str(tmp_path)), 0)
    assert spec.shape == (4, 4, 1)
