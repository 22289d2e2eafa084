"""Classifiers: calibration by hand and by simulation, attacks against closed forms, scores of strange inputs, runs."""

import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss

from genflow import classify, cli, summary
from genflow.analysis import calibration
from genflow.analysis.logits import each, input_scores, log_density, margin
from genflow.analysis.outliers import detection
from genflow.analysis.robustness import Attack, projected_gradient, withstood
from genflow.classify import Question, check_question, check_runs, evaluate_classifiers
from genflow.core import Model, Spec
from genflow.data.dataset import in_memory, select
from genflow.errors import UserError
from genflow.experiment import assemble
from genflow.trained import Trained


def test_the_calibration_error_by_hand():
    confidence, correct = np.array([0.1, 0.95, 0.2, 0.55, 0.95]), np.array([False, True, True, True, False])
    bins = calibration.reliability(confidence, correct, 5)
    np.testing.assert_array_equal(bins.count, [2, 0, 1, 0, 2])  # 0.2 is on an edge, and belongs below it
    np.testing.assert_allclose(bins.accuracy[[0, 2, 4]], [0.5, 1.0, 0.5])
    assert np.isnan(bins.accuracy[1])
    assert np.isnan(bins.confidence[3])
    assert bins.error == pytest.approx((2 * 0.35 + 0.45 + 2 * 0.45) / 5)
    whole = calibration.reliability(confidence, correct, 1)
    assert whole.error == pytest.approx(abs(confidence.mean() - correct.mean()))
    pairs = calibration.reliability(np.array([0.9, 0.3, 0.4, 0.8]), np.array([1, 0, 1, 0]), 2, adaptive=True)
    np.testing.assert_array_equal(pairs.count, [2, 2])
    np.testing.assert_array_equal(pairs.edges, [0.3, 0.8, 0.9])
    assert pairs.error == pytest.approx((2 * abs(0.5 - 0.35) + 2 * abs(0.5 - 0.85)) / 4)
    np.testing.assert_array_equal(calibration.reliability(np.ones(3), np.ones(3)).count[-1], 3)
    for bad in (np.array([0.5, 1.01]), np.array([]), np.array([np.nan])):
        with pytest.raises(ValueError, match="all between 0 and 1"):
            calibration.reliability(bad, np.ones(len(bad)))


@pytest.mark.parametrize("adaptive", [False, True])
def test_calibrated_answers_stay_below_the_limit_and_overconfident_ones_do_not(adaptive):
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1, 400)
    known = calibration.if_calibrated(confidence, 500, adaptive=adaptive)
    errors = [
        calibration.reliability(confidence, generator.random(400) < confidence, adaptive=adaptive).error
        for _ in range(300)
    ]
    assert np.mean(errors) == pytest.approx(known.mean, rel=0.05)
    assert 0.01 < np.mean(np.array(errors) > known.limit) < 0.1
    right = generator.random(20_000) < 0.6
    assert calibration.reliability(np.full(20_000, 0.9), right, adaptive=adaptive).error == pytest.approx(0.3, abs=0.02)
    many = calibration.if_calibrated(np.repeat(confidence, 100), 20, adaptive=adaptive)
    assert many.mean < known.mean / 5  # of more examples, less


def test_proper_scores_are_their_definitions_and_intervals_cover():
    generator = np.random.default_rng(1)
    logits = 3 * generator.normal(size=(400, 4)) + 1000
    labels = generator.integers(0, 4, 400)
    found, probs = calibration.figures(logits, labels), np.exp(calibration.log_softmax(logits))
    assert found["accuracy"].value == np.mean(logits.argmax(1) == labels)
    assert found["cross_entropy"].value == pytest.approx(log_loss(labels, probs))
    assert found["brier"].value == pytest.approx(((probs - np.eye(4)[labels]) ** 2).sum(1).mean())
    for figure in found.values():
        assert figure.low < figure.value < figure.high
    all_right = calibration.share(np.ones(10, bool))
    assert all_right.low == pytest.approx(10 / (10 + 1.959964**2))
    assert all_right[::2] == (1.0, 1.0)
    hits = [calibration.share(generator.random(40) < 0.9) for _ in range(300)]
    assert 0.9 < np.mean([figure.low <= 0.9 <= figure.high for figure in hits]) < 0.99


def test_the_temperature_is_what_the_logits_were_multiplied_by():
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(20_000, 3)) * 2
    labels = (calibration.log_softmax(logits) + generator.gumbel(size=logits.shape)).argmax(1)
    assert calibration.temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    assert calibration.temperature(logits / 2, labels) == pytest.approx(0.5, rel=0.05)
    assert calibration.temperature(np.eye(3)[labels], labels) == pytest.approx(0.1)  # nothing is wrong: at the end


SPEC = Spec("plane", (3, 2), 11, 2)
WEIGHTS = np.array([[1.0, -2.0], [0.5, 0.0], [-1.0, 3.0]])


def linear(scale=1.0, calls=None):
    """Two classes whose logits differ by scale * (w.x + 3)."""

    def logits(params, state, x):
        if calls is not None:
            calls.append(x.shape)
        value = scale * ((x * WEIGHTS).sum((1, 2)) + 3.0)
        return jnp.stack([-value / 2, value / 2], 1)

    return Model(None, {}, classify=logits)


def points(num=300, low=4.0, high=6.0):
    x = np.random.default_rng(3).uniform(low, high, (num, 3, 2)).astype(np.float32)
    value = (x * WEIGHTS).sum((1, 2)) + 3.0
    return x, (value > 0).astype(np.int32), np.abs(value)


@pytest.mark.parametrize("scale", [1.0, 1e4])  # at the second, p(y | x) is 1 in float32
@pytest.mark.parametrize(("norm", "dual", "reach"), [("linf", 1, 0.999), ("l2", 2, 0.95)])
def test_an_attack_on_a_linear_classifier_succeeds_where_its_margin_says(norm, dual, reach, scale):
    x, label, distance = points()
    limit = distance / np.linalg.norm(WEIGHTS.ravel(), dual)
    epsilon = float(np.median(limit))
    attack = projected_gradient(linear(scale).classify, Attack(norm, 40, 4), (0.0, 10.0))
    found = jax.jit(attack)({}, {}, jax.random.key(0), x, label, epsilon)
    fooled, moved = np.asarray(found.fooled), np.asarray(found.x) - x
    assert not fooled[limit > epsilon * 1.001].any()
    assert fooled[limit < epsilon * reach].all()
    assert (limit < epsilon * reach).sum() > 100
    length = np.abs(moved).max((1, 2)) if norm == "linf" else np.sqrt((moved**2).sum((1, 2)))
    assert length.max() <= epsilon * (1 + 1e-5)
    assert length[~fooled].min() > 0.9 * epsilon  # the others were tried to the end


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_stays_in_the_box_and_leaves_wrong_answers_alone(norm):
    x, label, _ = points(low=0.0, high=10.0)
    label[:50] = 1 - label[:50]
    attack = projected_gradient(linear().classify, Attack(norm, 5, restarts=2), (0.0, 10.0))
    found = jax.jit(attack)({}, {}, jax.random.key(0), x, label, 4.0)
    assert np.asarray(found.x).min() == 0.0
    assert np.asarray(found.x).max() == 10.0
    np.testing.assert_array_equal(found.x[:50], x[:50])
    assert np.asarray(found.fooled)[:50].all()
    assert (np.asarray(found.x)[50:] != x[50:]).any((1, 2)).all()
    logits = np.asarray(linear().classify({}, {}, found.x))
    np.testing.assert_array_equal(found.fooled, logits.argmax(1) != label)


def test_a_second_start_finds_what_the_first_does_not():
    """A bump of the other class on one side of a flat plain: only starts on that side see a slope."""

    def logits(params, state, x):
        bump = jnp.maximum(x[:, 0, 0] - 5.2, 0.0) * 10
        return jnp.stack([jnp.ones(len(x)), bump], 1)

    x, label = np.full((400, 3, 2), 5.0, np.float32), np.zeros(400, np.int32)
    share = [
        float(
            projected_gradient(logits, Attack("linf", 10, n), (0.0, 10.0))(
                {}, {}, jax.random.key(1), x, label, 1.0
            ).fooled.mean()
        )
        for n in (1, 3)
    ]
    assert share[0] == pytest.approx(0.4, abs=0.08)
    assert share[1] == pytest.approx(1 - 0.6**3, abs=0.08)


def test_what_is_fooled_within_one_radius_is_fooled_within_a_larger_one():
    """A thin shell without a slope, which random starts in a large ball seldom hit."""

    def logits(params, state, x):
        offset = jnp.abs(x[:, 0, 0] - 5.0)
        wrong = ((offset > 0.4) & (offset < 0.6)).astype(jnp.float32)
        return jnp.stack([1 - wrong, wrong], 1)

    data = in_memory(np.full((300, 3, 2), 5, np.uint8), np.zeros(300, np.int32))
    arguments = Model(None, {}, classify=logits), {}, {}, data, jax.random.key(0), 300, SPEC
    right = withstood(*arguments, (0.06, 0.5), Attack("linf", 1))
    alone = withstood(*arguments, (0.5,), Attack("linf", 1))
    assert right[0].mean() == pytest.approx(1 - 1 / 3, abs=0.1)
    assert alone.mean() > right[0].mean() + 0.1
    assert (right[1] <= right[0]).all()


def test_nothing_survives_a_logit_that_is_not_a_number():
    attack = projected_gradient(lambda p, s, x: jnp.full((len(x), 3), jnp.nan), Attack("linf", 2), (0.0, 10.0))
    x, label, _ = points(4)
    assert np.asarray(attack({}, {}, jax.random.key(0), x, label, 1.0).fooled).all()


def test_radii_are_of_data_scaled_to_one_and_share_one_program():
    x, label, distance = points(30)
    data, calls = in_memory(np.rint(x).astype(np.uint8), label), []
    arguments = {}, {}, data, jax.random.key(0), 8
    one = withstood(linear(calls=calls), *arguments, SPEC, (0.01,), Attack("linf", 5))
    traced, calls[:] = len(calls), []
    right = withstood(linear(calls=calls), *arguments, SPEC, (0.0, 0.01, 0.1, 0.2, 0.9), Attack("linf", 5))
    assert len(calls) == traced > 0
    assert (one.shape, right.shape) == ((1, 30), (5, 30))
    value = (np.rint(x) * WEIGHTS).sum((1, 2)) + 3.0
    is_right = (value > 0) == label
    np.testing.assert_array_equal(right[0], is_right & (value != 0))
    expected = is_right & (np.abs(value) > 0.1 * 10 * np.abs(WEIGHTS).sum())
    np.testing.assert_array_equal(right[2], expected)
    assert (right[1:] <= right[:-1]).all()
    assert not right[-1].any()
    for bad in ((0.2, 0.1), (-0.1, 0.1), ()):
        with pytest.raises(ValueError, match="in increasing order"):
            withstood(linear(), *arguments, SPEC, bad, Attack())
    with pytest.raises(ValueError, match="expected linf or l2"):
        projected_gradient(linear().classify, Attack("l1"), (0.0, 1.0))
    with pytest.raises(ValueError, match="num_steps=0, restarts=1: expected 1 or more"):
        projected_gradient(linear().classify, Attack("l2", 0), (0.0, 1.0))


def test_scores_of_inputs_are_their_closed_forms():
    def quadratic(params, state, x, cond=None):
        return 0.5 * params["stiffness"] * ((x / 10) ** 2).sum((1, 2))

    model, params = linear()._replace(energy=quadratic), {"stiffness": jnp.float32(3.0)}
    x = np.random.default_rng(5).integers(0, 11, (7, 3, 2)).astype(np.uint8)
    found = each(input_scores(model, SPEC), params, {}, in_memory(x), 4)
    radius = np.sqrt(((x / 10.0) ** 2).sum((1, 2)))
    np.testing.assert_allclose(found["approximate_mass"], 3 * radius, rtol=1e-5)  # of data in 0 to 1
    np.testing.assert_allclose(found["log_density"], 1.5 * radius**2, rtol=1e-5)
    difference = (x * WEIGHTS).sum((1, 2)) + 3.0
    np.testing.assert_allclose(found["confidence"], -np.abs(difference), rtol=1e-4, atol=1e-5)
    plain = log_density(linear())({}, {}, x.astype(np.float32))
    np.testing.assert_allclose(plain, np.logaddexp(difference / 2, -difference / 2), rtol=1e-5)


def test_the_margin_is_the_odds_of_the_other_classes_and_tells_what_rounds_to_one():
    logits = np.random.default_rng(6).normal(size=(5, 4)) * 2
    label = np.array([0, 1, 2, 3, 0])
    p = np.exp(calibration.log_softmax(logits))[np.arange(5), label]
    np.testing.assert_allclose(margin(jnp.asarray(logits), label), np.log((1 - p) / p), rtol=1e-4)
    high = jnp.array([[200.0, 0.0, 0.0], [300.0, 0.0, 0.0]])
    assert len(set(jax.nn.softmax(high).max(1).tolist())) == 1
    assert float(margin(high, jnp.array([0, 0]))[1]) == pytest.approx(np.log(2) - 300)


def test_strangers_are_told_by_what_sets_them_apart():
    """Inputs far out have a steep quadratic density: both scores of it rise with the distance."""
    model = linear()._replace(energy=lambda params, state, x, cond=None: ((x - 5) ** 2).sum((1, 2)))
    near, far = points(60)[0], points(60, 1.0, 9.0)[0]
    scores = input_scores(model, SPEC._replace(bins=None))
    inliers, outliers = (each(scores, {}, {}, in_memory(x), 60) for x in (near, far))
    for name in ("log_density", "approximate_mass"):
        assert detection(inliers[name], outliers[name], 10)["auroc"].value > 0.98
        assert detection(inliers[name][:30], inliers[name][30:], 10)["auroc"].value == pytest.approx(0.5, abs=0.2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two run folders, and what would be read from them: least squares on the digits, logits times 8 and times 40."""
    config = cli.load_config("configs/vae_digits.py:debug", {"data.num_examples": "0", "eval.batch_size": "64"})
    experiment = assemble(config)
    data = experiment.train.arrays
    x = np.concatenate([data["x"].reshape(len(data["x"]), -1), np.ones((len(data["x"]), 1))], 1)
    weights = np.linalg.lstsq(x, np.eye(10)[data["label"]], rcond=None)[0].astype(np.float32)

    def logits(params, state, x):
        return params["model"]["scale"] * (x.reshape(len(x), -1) @ params["model"]["w"] + params["model"]["b"])

    def energy(params, state, x, cond=None):
        return -jax.nn.logsumexp(logits(params, state, x), axis=1)

    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, scale, of_inputs in (("joint", 8.0, energy), ("plain", 40.0, None)):
        model = Model(None, {}, classify=logits, energy=of_inputs)
        params = {"model": {"w": jnp.asarray(weights[:-1]), "b": jnp.asarray(weights[-1]), "scale": jnp.float32(scale)}}
        (folder / name).mkdir()
        found[folder / name] = Trained(experiment._replace(model=model), params, {}, 3, 3, {}, {})
    noise = np.random.default_rng(0).integers(0, 17, (80, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", x_train=noise[:30], x_test=noise[30:], bins=17)
    return found


def test_two_runs_stand_side_by_side(runs, monkeypatch, capsys):
    monkeypatch.setattr(classify, "load_trained", lambda path, defaults: runs[path])
    folders = list(runs)
    outliers = f"array:{folders[0].parent}/noise.npz"
    original, numbers = classify.detection, set()
    monkeypatch.setattr(
        classify, "detection", lambda a, b, *rest: numbers.add((len(a), len(b))) or original(a, b, *rest)
    )
    question = Question((outliers,), 100, {"linf": (0.1, 0.02), "l2": (0.5,)}, 40, 5, num_resamples=20)
    monkeypatch.setattr(classify, "filename", lambda asked: f"all_{asked == question}")
    joint, plain = evaluate_classifiers([str(folders[0]), "", str(folders[1]), ""], question)
    printed = capsys.readouterr().out
    for path, record in zip(folders, (joint, plain), strict=True):
        assert json.loads((path / "all_True.json").read_text()) == record
        assert str(path / "all_True.json") in printed
        assert {"params_sha256", "git_revision", "config_hash", "hardware", "seed"} <= set(record)
        assert f"{100 * record['accuracy']['value']:.2f} [" in printed
    assert (folders[0] / "all_True.png").stat().st_size > 20_000
    assert not (folders[1] / "all_True.png").exists()
    assert joint["accuracy"] == plain["accuracy"]
    assert 0.85 < joint["accuracy"]["value"] < 1  # least squares
    ece = [record["calibration"]["ece"]["value"] for record in (joint, plain)]
    tempered = [record["tempered"]["calibration"]["ece"]["value"] for record in (joint, plain)]
    assert tempered[0] == pytest.approx(tempered[1], abs=1e-3)  # the logits differ by a factor
    assert plain["tempered"]["temperature"] / joint["tempered"]["temperature"] == pytest.approx(5, rel=1e-3)
    assert ece[0] != pytest.approx(ece[1], abs=1e-3)
    assert sum(row["count"] for row in joint["calibration"]["bins"]) == joint["num_examples"] == 100
    assert joint["outliers"][outliers]["num_examples"] == 50
    assert numbers == {(50, 50)}
    aurocs = [scores["auroc"]["value"] for scores in list(joint["outliers"][outliers].values())[1:]]
    assert len(set(aurocs)) == 3
    curve = joint["robustness"]["linf"]
    assert [row["epsilon"] for row in curve] == [0.0, 0.02, 0.1]
    assert 0.9 > curve[1]["value"] > curve[2]["value"] + 0.3
    (row,) = (line for line in printed.splitlines() if line.split()[0] == "0.5")
    assert "/255" not in row  # an L2 radius is no number of gray levels
    for text in ("joint", "0.02 (5.1/255)", "plain: no density; log_density is its logsumexp of the logits"):
        assert text in printed
    assert "joint: no density" not in printed


def test_runs_and_numbers_that_do_not_fit_are_refused(runs):
    (path, trained), (_, other) = runs.items()
    experiment = trained.experiment
    own = experiment.evaluation["test"]

    def tested(part):
        return experiment._replace(evaluation=experiment.evaluation | {"test": part})

    cases = {
        "classifies nothing: train a jem": experiment._replace(model=experiment.model._replace(classify=None)),
        "digits has no labels": experiment._replace(spec=experiment.spec._replace(num_classes=0)),
        r"another test set \(plane\)": experiment._replace(spec=SPEC),
        r"another test set \(digits\) than": tested(select(own, np.arange(1))),
        r"another test set \(digits\) ": tested(in_memory(own.arrays["x"][:, ::-1], own.arrays["label"])),
        r"another test set \(digits": tested(in_memory(own.arrays["x"], own.arrays["label"][::-1])),
    }
    for message, changed in cases.items():
        with pytest.raises(UserError, match=message):
            check_runs([path, path], [other, trained._replace(experiment=changed)])
    one = trained._replace(experiment=tested(select(own, np.arange(1))))
    with pytest.raises(UserError, match="digits has 1 test example: figures with intervals need 2 or more"):
        check_runs([path], [one])
    questions = {
        "--num=-1 must be 0 at least": Question(num=-1),
        "--num=1: figures with intervals need 2 test examples or more": Question(num=1),
        "--num_steps=0 must be 1": Question(num_steps=0),
        "--resamples=0": Question(num_resamples=0),
        r"--epsilons=0\.1,-0\.1: expected radii above zero": Question(epsilons={"linf": (0.1, -0.1)}),
        "--epsilons_l2=inf": Question(epsilons={"l2": (np.inf,)}),
        "--outliers=mnist,mnist: name each set once": Question(("mnist", "mnist")),
    }
    for message, question in questions.items():
        with pytest.raises(UserError, match=message):
            check_question(question)
    with pytest.raises(UserError, match="expected run folders, each once"):
        evaluate_classifiers([str(path), str(path)])
    with pytest.raises(UserError, match="expected run folders"):
        evaluate_classifiers(["", ""])


QUICK = Question(num=20, epsilons={}, num_resamples=2)


def test_a_run_that_fails_leaves_the_file_of_the_one_before(runs, monkeypatch):
    (first, one), (second, other) = runs.items()
    broken = {"model": other.params["model"] | {"scale": jnp.float32(np.nan)}}
    loaded = {first: one, second: other._replace(params=broken)}
    monkeypatch.setattr(classify, "load_trained", lambda path, defaults: loaded[path])
    with pytest.raises(UserError, match="the run has diverged"):
        evaluate_classifiers([str(first), str(second)], QUICK)
    name = f"{classify.filename(QUICK)}.json"
    assert json.loads((first / name).read_text())["run"] == "joint"
    assert not (second / name).exists()


NAMES = {
    "classifier": Question(),
    "classifier_num_100": Question(num=100),
    "classifier_outliers_kmnist_array_a_b.npz": Question(("kmnist", "array:/a/b.npz")),
    "classifier_attacked_40_seed_3": Question(attacked=40, seed=3),
    "classifier_linf_0.1_0.05": Question(epsilons=Question().epsilons | {"linf": (0.1, 0.05)}),
    "classifier_linf_none_l2_2": Question(epsilons={"linf": (), "l2": (2.0,)}),
    "classifier_num_20_num_resamples_2_linf_none_l2_none": QUICK,
}


def test_another_question_has_another_file():
    assert {classify.filename(question): question for question in NAMES.values()} == NAMES
    long = [Question((f"folder:/{'a' * 300}/{i}",), num=7) for i in range(2)]
    names = [classify.filename(question) for question in long]
    assert names[0] != names[1]
    assert all(name.startswith("classifier_outliers_folder_a") and len(name) < 150 for name in names)
    given = {name: value for name, value in Question()._asdict().items() if not isinstance(value, int)}
    for name, value in Question()._asdict().items():
        if name not in given:
            assert classify.filename(Question(**{name: value + 2})) == f"classifier_{name}_{value + 2}"


@pytest.mark.parametrize("limit", [0, 50])
def test_the_end_of_training_says_how_the_test_part_is_classified(runs, limit):
    trained = next(iter(runs.values()))
    config = trained.experiment.config.copy_and_resolve_references()
    config.eval.max_examples = limit
    trained = trained._replace(experiment=trained.experiment._replace(config=config))
    part = trained.experiment.evaluation["test"]
    if limit:
        part = select(part, np.arange(limit))
    z = each(trained.experiment.model.classify, trained.params, {}, part, 64)
    figures = calibration.figures(z, part.arrays["label"])
    found = summary.diagnostics(trained)
    assert found["diagnostics_heading"] == f"Classification, on {limit or 360} test examples"
    accuracy, entropy = found["diagnostics"]
    assert accuracy["num_examples"] == entropy["num_examples"] == (limit or 360)
    assert (accuracy["name"], entropy["name"]) == ("test accuracy of p(y | x)", "test cross-entropy of p(y | x), nats")
    assert accuracy["value"] == pytest.approx(figures["accuracy"].value)
    p = accuracy["value"]
    assert accuracy["standard_error"] == pytest.approx(np.sqrt(p * (1 - p) / (limit or 360)))
    assert entropy["value"] == pytest.approx(figures["cross_entropy"].value, rel=1e-5)
    half = (figures["cross_entropy"].high - figures["cross_entropy"].low) / 2
    assert entropy["standard_error"] == pytest.approx(half / 1.959964, rel=1e-4)
    broken = {"model": trained.params["model"] | {"scale": jnp.float32(np.nan)}}
    lines = summary.diagnostics(trained._replace(params=broken))["diagnostics"]
    assert [line["value"] for line in lines] == [None, None]


def test_one_example_has_no_standard_error_of_its_cross_entropy():
    found = calibration.diagnostics(np.array([[0.0, 1.0]]), np.array([1]))
    (right, _), (nats, error) = found.values()
    assert (right, nats) == (1.0, pytest.approx(np.log1p(np.exp(-1))))
    assert np.isnan(error)


def test_a_run_that_diverged_is_told(runs):
    trained = next(iter(runs.values()))
    params = {"model": trained.params["model"] | {"scale": jnp.float32(np.nan)}}
    parts = trained.experiment.evaluation
    with pytest.raises(UserError, match="the logits of 360 of 360 test examples are not finite"):
        classify.answers(trained._replace(params=params), parts, Question())


def test_radii_are_read_as_fractions():
    radii = runpy.run_path(str(cli.ROOT / "scripts/evaluate_classifier.py"))["radii"]
    assert radii("8/255,0.5") == (8 / 255, 0.5)
    assert radii("") == ()
    with pytest.raises(Exception, match="'1/0' is not a list of numbers"):
        radii("1/0")
