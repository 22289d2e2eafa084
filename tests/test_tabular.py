"""The five published tables, from small files in the formats of the real ones; condition vectors in array files."""

import importlib.util

import numpy as np
import pytest
from test_data import npz, section  # noqa: F401

from genflow.data import load
from genflow.errors import UserError

RNG = np.random.default_rng(0)


def parts_of(name, folder):
    spec, train, evaluation = load(section(name, data_dir=str(folder)), 0)
    assert (spec.bins, spec.num_classes) == (None, 0)
    parts = [d.arrays["x"] for d in (train, evaluation["validation"], evaluation["test"])]
    assert {p.dtype for p in parts} == {np.dtype(np.float32)}
    assert {p.shape[1:] for p in parts} == {spec.shape}
    return parts


def write(path, array):
    path.parent.mkdir(exist_ok=True)
    np.save(path, array)


def test_power_drops_two_columns_adds_noise_and_standardizes(tmp_path):
    x = np.round(RNG.normal(5, 2, (1000, 8)), 3)
    x[:, (1, 3)] = 1e6
    write(tmp_path / "power" / "data.npy", x)
    parts = parts_of("power", tmp_path)
    assert [len(p) for p in parts] == [810, 90, 100]
    seen = np.concatenate(parts[:2])
    assert seen.shape[1] == 6
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-5)
    order = np.random.RandomState(42)
    rows = x.copy()
    order.shuffle(rows)
    last = rows[:900, 7]
    np.testing.assert_allclose(seen[:, 5], (last - last.mean()) / last.std(), atol=1e-5)  # the time has no noise
    voltage = rows[:900, 2] + 0.01 * order.rand(1000, 1)[:900, 0]  # the second column that is left
    np.testing.assert_allclose(seen[:, 1], (voltage - voltage.mean()) / voltage.std(), atol=1e-5)


def test_gas_drops_correlated_columns_from_the_left_and_standardizes_with_the_test_rows(tmp_path):
    x = RNG.normal(3, 2, (1000, 16))
    x[:, 4] = x[:, 1] + 1e-3 * x[:, 2]
    x[:, 9] = 2 * x[:, 1] + 1
    write(tmp_path / "gas" / "ethylene_CO.npy", x)
    parts = parts_of("gas", tmp_path)
    assert [len(p) for p in parts] == [810, 90, 100]
    kept = np.delete(x, (1, 4), axis=1)  # column 9 is the last of the three that are alike
    np.testing.assert_allclose(np.concatenate(parts), (kept - kept.mean(0)) / kept.std(0, ddof=1), atol=1e-5)


def test_hepmass_keeps_the_signal_and_the_continuous_columns(tmp_path):
    x = np.column_stack([RNG.integers(0, 2, 400), RNG.normal(2, 3, (400, 27))])
    x[:, 6] = np.round(x[:, 6])
    x[:, 6] = np.maximum(x[:, 6], 0)  # its smallest value recurs
    x[:6, 9] = x[:, 9].min() - 1  # six times, but two are background below
    x[:6, 0] = (1, 1, 1, 1, 0, 0)
    (tmp_path / "hepmass").mkdir()
    names = ",".join(["# label", *(f"f{i}" for i in range(27))])
    np.savetxt(tmp_path / "hepmass" / "1000_train.csv", x[:300], delimiter=",", header=names, comments="")
    longer = np.column_stack([x[300:], np.full(100, 1000.0)])
    np.savetxt(tmp_path / "hepmass" / "1000_test.csv", longer, delimiter=",", header=names + ",mass", comments="")
    train, validation, test = parts_of("hepmass", tmp_path)
    signal, signal_test = (np.delete(rows[rows[:, 0] == 1, 1:], 5, axis=1) for rows in (x[:300], x[300:]))
    mean, std = signal.mean(0), signal.std(0, ddof=1)
    assert len(validation) == len(signal) // 10
    np.testing.assert_allclose(np.concatenate([train, validation]), (signal - mean) / std, atol=1e-5)
    np.testing.assert_allclose(test, (signal_test - mean) / std, atol=1e-5)


def test_miniboone_is_cut_in_the_order_of_its_rows(tmp_path):
    x = RNG.normal(7, 3, (1000, 43)).astype(np.float32)
    write(tmp_path / "miniboone" / "data.npy", x)
    parts = parts_of("miniboone", tmp_path)
    expected = (x - x[:900].mean(0, dtype=np.float64)) / x[:900].std(0, dtype=np.float64)
    assert [len(p) for p in parts] == [810, 90, 100]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("h5py") is None, reason="needs h5py")
def test_bsds300_has_the_parts_of_its_file(tmp_path):
    import h5py

    (tmp_path / "BSDS300").mkdir()
    wanted = {part: RNG.normal(0, 1, (n, 63)) for part, n in (("train", 200), ("validation", 100), ("test", 120))}
    with h5py.File(tmp_path / "BSDS300" / "BSDS300.hdf5", "w") as file:
        for part, x in wanted.items():
            file[part] = x
    for x, expected in zip(parts_of("bsds300", tmp_path), wanted.values(), strict=True):
        np.testing.assert_allclose(x, expected, atol=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="needs an environment without h5py")
def test_bsds300_says_what_it_needs(tmp_path):
    write(tmp_path / "BSDS300" / "x.npy", np.zeros(1))
    (tmp_path / "BSDS300" / "BSDS300.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match="pip install h5py"):
        parts_of("bsds300", tmp_path)


@pytest.mark.parametrize("name", ["power", "gas", "hepmass", "miniboone", "bsds300"])
def test_a_missing_file_is_named_with_where_to_get_it(name, tmp_path):
    with pytest.raises(UserError, match=rf"no file {tmp_path}/\S+; .*https://zenodo.org/records/1161203") as error:
        parts_of(name, tmp_path)
    assert "\n" not in str(error.value)
    assert ("to_numpy" in str(error.value)) == (name == "gas")


def test_other_arrays_and_texts_are_refused(tmp_path):
    write(tmp_path / "power" / "data.npy", np.zeros((200, 6)))
    with pytest.raises(UserError, match=r"holds float64 \(200, 6\), wanted numbers \[100 or more, 8\]"):
        parts_of("power", tmp_path)
    write(tmp_path / "miniboone" / "data.npy", np.array([{}], dtype=object))
    with pytest.raises(UserError, match="damaged"):
        parts_of("miniboone", tmp_path)
    (tmp_path / "hepmass").mkdir()
    for part in ("train", "test"):
        (tmp_path / "hepmass" / f"1000_{part}.csv").write_text("<html>\nnot, a table\n")
    with pytest.raises(UserError, match="1000_train.csv is no table of numbers"):
        parts_of("hepmass", tmp_path)


def test_synthetic_vectors_are_standardized_and_correlated():
    spec, train, _ = load(section("synthetic:6", num_examples=5000), 0)
    x = train.arrays["x"]
    np.testing.assert_allclose(x.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(x.std(0), 1, atol=0.06)
    assert np.corrcoef(x, rowvar=False)[4, 5] > 0.8
    gaussian = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(x, rowvar=False))[1]
    assert spec.entropy == pytest.approx(gaussian, abs=0.1)


def arrays_with_conditions(**changes):
    x, cond = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 2))
    return {"x_train": x[:40], "x_test": x[40:], "cond_train": cond[:40], "cond_test": cond[40:]} | changes


def test_condition_vectors_stay_with_their_examples(npz):  # noqa: F811
    arrays = arrays_with_conditions()
    spec, train, evaluation = load(section(npz(**arrays), validation=0.2), 0)
    assert spec.cond_dims == 2
    for part, source in ((train, "train"), (evaluation["validation"], "train"), (evaluation["test"], "test")):
        batch = part.fetch(np.array([1, 0]))
        assert batch["cond"].dtype == np.float32
        for x, cond in zip(batch["x"], batch["cond"], strict=True):
            row = np.argmin(np.abs(arrays[f"x_{source}"] - x).sum(1))
            np.testing.assert_allclose(cond, arrays[f"cond_{source}"][row], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cond_test": np.zeros((20, 3))}, r"cond_test is float64 \(20, 3\), wanted numbers \(20, 2\)"),
        ({"cond_train": np.zeros((39, 2))}, r"cond_train is float64 \(39, 2\), wanted numbers \(40, 2\)"),
        ({"cond_train": np.full((40, 2), np.inf)}, r"train\[0\] 'cond' is inf, wanted finite values"),
        ({"cond_train": np.array(["a"] * 40)}, "cond_train is <U1"),
        ({"cond_train": np.array(1.0)}, "cond_train is float64"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(npz, changes, message):  # noqa: F811
    with pytest.raises(UserError, match=message):
        load(section(npz(**arrays_with_conditions(**changes))), 0)


def test_conditions_of_some_parts_only_are_refused(npz):  # noqa: F811
    arrays = arrays_with_conditions()
    del arrays["cond_test"]
    with pytest.raises(UserError, match="some parts have conditions"):
        load(section(npz(**arrays)), 0)
