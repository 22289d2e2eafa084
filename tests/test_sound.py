"""Sound: recordings and folders of wav files become codes, and what the report shows of them."""

import io
import tarfile
import wave

import numpy as np
import pytest
from test_data import section

from genflow.core import Spec
from genflow.data import load
from genflow.data.catalog import CATALOG
from genflow.data.prepare import prepare
from genflow.data.sound import codes
from genflow.distributions import mu_law_decode
from genflow.errors import UserError
from genflow.models.baseline import baselines
from genflow.report import page, sound

RNG = np.random.default_rng(0)
SPEAKERS, TAKES = ("ann", "bob"), range(12)


def noise(num):
    return RNG.integers(-30_000, 30_000, num).astype(np.int16)


def wav(samples, rate=8000, channels=1, width=2):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.wav").write_bytes(content)


# Spoken digits


@pytest.fixture(scope="module")
def recordings():
    """{name of the original file: samples}, of 5 to 14 samples each."""
    names = [f"{digit}_{speaker}_{take}.wav" for digit in range(10) for speaker in SPEAKERS for take in TAKES]
    return {name: noise(5 + i % 10) for i, name in enumerate(names)}


@pytest.fixture(scope="module")
def digits(recordings, tmp_path_factory):
    """A folder with spoken_digit.npz, made from an archive like the original one."""
    from test_prepare import resource_of

    folder, out = tmp_path_factory.mktemp("digits"), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in [*((f"recordings/{n}", wav(a)) for n, a in recordings.items()), ("README.md", b"hello")]:
            info = tarfile.TarInfo(f"free-spoken-digit-dataset-1.0.9/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (filename,) = CATALOG["spoken_digit"].files
    (folder / filename).write_bytes(out.getvalue())
    prepare("spoken_digit", folder, folder, [resource_of(out.getvalue(), filename)])
    return folder


def test_an_example_is_the_start_of_a_recording_and_silence(digits, recordings):
    spec, train, evaluation = load(section("spoken_digit", data_dir=str(digits), window=10), 0)
    assert (spec.shape, spec.bins, spec.num_classes, spec.cond_dims) == ((10,), 256, 10, 2)
    assert (spec.kind, spec.sample_rate, spec.license) == ("sound", 8000, "CC BY-SA 4.0")
    found = {}
    for part, dataset in {"train": train, **evaluation}.items():
        a = dataset.arrays
        assert a["x"].dtype == np.uint8
        rows = zip(a["x"].tolist(), a["label"], a["cond"].tolist(), strict=True)
        found |= {(tuple(x), int(digit), tuple(speaker)): part for x, digit, speaker in rows}
    assert len(found) == len(recordings)
    for name, samples in recordings.items():
        digit, speaker, take = name.removesuffix(".wav").split("_")
        x = [*codes(samples).tolist(), *[128] * 10][:10]
        part = "test" if int(take) < 5 else "validation" if int(take) < 10 else "train"
        assert found[(tuple(x), int(digit), (float(speaker == "ann"), float(speaker == "bob")))] == part


def test_codes_are_those_of_the_mu_law():
    samples = np.arange(-(2**15), 2**15, 7).astype(np.int16)
    error = np.abs(np.asarray(mu_law_decode(codes(samples))) - samples / 2**15)
    assert (error <= 0.03 * np.abs(samples / 2**15) + 1e-4).all()
    assert (np.diff(codes(samples).astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("take", None, "'take' is missing"),
        ("audio", np.zeros(3), "'audio' is float64"),
        ("audio", np.zeros(3, np.int16), "the lengths add to"),
        ("speaker", np.full(240, 2), "'speaker' has 2, there are 2 names"),
        ("label", np.zeros(3, int), "'label' has shape"),
        ("label", np.full(240, 10), "'label' is 10, wanted 0 .. 9"),
    ],
)
def test_a_field_that_is_wrong_is_named(digits, tmp_path, field, value, message):
    with np.load(digits / "spoken_digit.npz") as whole:
        fields = {k: a for k, a in whole.items() if k != field} | ({} if value is None else {field: value})
    np.savez(tmp_path / "spoken_digit.npz", **fields)
    with pytest.raises(UserError, match=message):
        load(section("spoken_digit", data_dir=str(tmp_path), window=10), 0)


def test_what_is_missing_names_the_remedy(tmp_path):
    with pytest.raises(UserError, match=r"not found in .*prepare_data.py spoken_digit --data_dir="):
        load(section("spoken_digit", data_dir=str(tmp_path)), 0)
    with pytest.raises(UserError, match="unpack https://.*LJSpeech"):
        load(section("ljspeech", data_dir=str(tmp_path)), 0)


# Folders of wav files


def test_recordings_are_cut_end_to_end_and_stay_on_one_side(tmp_path):
    samples = {f"clip{i:02}": noise(25 + i) for i in range(20)} | {"short": noise(4)}
    write(tmp_path / "downloads/extracted/ARCHIVE/LJSpeech-1.1/wavs", **{n: wav(a, 22050) for n, a in samples.items()})
    spec, train, evaluation = load(section("ljspeech", data_dir=str(tmp_path), window=10), 0)
    assert (spec.shape, spec.sample_rate, spec.num_classes) == ((10,), 22050, 0)
    wanted = {
        codes(np.pad(a, (0, 10)))[10 * i : 10 * i + 10].tobytes(): name
        for name, a in samples.items()
        for i in range(max(len(a) // 10, 1))
    }
    files = [{wanted.pop(x.tobytes()) for x in d.arrays["x"]} for d in (train, *evaluation.values())]
    assert not wanted
    assert [len(f) for f in files] == [15, 2, 4]
    assert len(set.union(*files)) == 21


def test_folders_are_classes_and_parts(tmp_path):
    for part, kind, num in (("train", "cat", 3), ("train", "dog", 2), ("test", "cat", 1), ("test", "dog", 1)):
        write(
            tmp_path / part / kind, **{f"{i}": wav(np.full(8, 1000 * (1 + (kind == "dog")), "<i2")) for i in range(num)}
        )
    config = section(f"sounds:{tmp_path}", window=8, validation=0.0, batch_size=2)
    spec, train, evaluation = load(config, 0)
    assert (spec.num_classes, train.num, evaluation["test"].num) == (2, 5, 2)
    for arrays in (train.arrays, evaluation["test"].arrays):
        np.testing.assert_array_equal(arrays["label"] == 1, arrays["x"][:, 0] == codes(np.array([2000], np.int16)))
    config.placement = "stream"
    lazy = load(config, 0)[1]
    assert lazy.arrays is None
    np.testing.assert_array_equal(lazy.fetch(np.array([4, 0]))["x"], train.arrays["x"][[4, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wav(noise(8), rate=4000), "has 4000 Hz, 0.wav has 8000"),
        (wav(noise(8), channels=2), "has 2 channels of 16 bits"),
        (wav(noise(8), width=1), "has 1 channels of 8 bits"),
        (b"nothing", "cannot be opened as a wav file"),
        (wav(noise(8))[:-4], "ends 2 samples before its declared end"),
    ],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, content, message):
    write(tmp_path, **{f"{i}": wav(noise(8)) for i in range(4)}, bad=content)
    with pytest.raises(UserError, match=message):
        load(section(f"sounds:{tmp_path}", window=8, batch_size=1), 0)
    with pytest.raises(UserError, match="holds 0 wav files"):
        load(section(f"sounds:{tmp_path / 'none'}"), 0)


# Drawn


def test_tones_have_the_pitch_of_their_class_and_the_overtones_of_their_voice():
    spec, train, evaluation = load(section("tones", window=2000, num_examples=40, validation=0.0), 0)
    assert (spec.shape, spec.num_classes, spec.cond_dims, train.num) == ((2000,), 10, 2, 40)
    assert {d.num for d in evaluation.values()} == {64}
    spectrum = np.abs(np.fft.rfft(sound.decoded(train.arrays["x"]), axis=1))
    hertz = spectrum.argmax(1) * 8000 / 2000
    np.testing.assert_allclose(hertz, 200 * 2 ** (train.arrays["label"] / 4), atol=3)
    second = np.array(
        [row[2 * i - 2 : 2 * i + 3].max() / row[i] for i, row in zip(spectrum.argmax(1), spectrum, strict=True)]
    )
    np.testing.assert_array_equal(second > 0.2, train.arrays["cond"][:, 1] == 1)


def test_the_baseline_is_a_table_of_each_value_given_the_last():
    spec = Spec("sound", (3,), 3, sample_rate=8)
    model = baselines(spec, np.array([[0, 1, 2], [0, 1, 1]], np.uint8))["each sample given the last"]
    every = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3).astype(np.uint8)
    mass = np.exp(np.asarray(model.log_prob({}, {}, None, {"x": every})))
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(mass[0 * 9 + 1 * 3 + 2], 3 / 5 * 3 / 5 * 2 / 5, rtol=1e-6)  # add-one counts


# The report


def test_a_spectrogram_shows_a_tone_where_and_when_it_sounds():
    rate, t = 8000, np.arange(4000) / 8000
    levels = sound.spectrogram(np.where(t < 0.25, 0.5 * np.sin(2 * np.pi * 1000 * t), 0.0), rate)
    hertz = np.linspace(0, rate / 2, len(levels))
    early, late = levels[:, 10 : levels.shape[1] // 2 - 5], levels[:, levels.shape[1] // 2 + 5 :]
    assert (hertz[early.argmax(0)] == 1000).all()
    np.testing.assert_allclose(early.max(0), 20 * np.log10(0.5), atol=0.1)
    assert late.max() == -120


def test_a_wav_file_holds_what_the_codes_mean(tmp_path):
    x = RNG.integers(0, 256, (2, 100))
    paths = sound.save_wavs(x, 8000, tmp_path / "a")
    for path, row in zip(paths, x, strict=True):
        with wave.open(path) as file:
            assert (file.getframerate(), file.getnframes()) == (8000, 100)
            np.testing.assert_array_equal(codes(np.frombuffer(file.readframes(100), "<i2")), row)


def test_a_clip_stands_in_the_page_with_its_sound():
    x = RNG.integers(0, 256, (3, 64))
    picture = sound.completions(x, [x[::-1]], 32, 8000, ["one", "<two>"])
    markup = page.picture_section("Completions", picture, page.png)
    assert markup.count("<audio") == markup.count("data:audio/wav;base64,") == markup.count("<svg") == 4
    assert "&lt;two&gt;, completion 1" in markup
    assert sound.sheet(x, 8000).axes
