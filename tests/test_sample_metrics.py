"""Metrics of samples by closed forms, by brute force and beside SciPy; what --mode=eval and a record say of them."""

import json

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import sklearn

from genflow import cli, summary, train, use
from genflow.analysis import features, judge
from genflow.analysis.distances import frechet
from genflow.analysis.features import Described, coordinates
from genflow.analysis.parzen import SIGMAS, Parzen, log_densities, parzen
from genflow.analysis.sample_metrics import Figure, class_score, density_coverage, kernel, metrics, precision_recall
from genflow.core import Model, Network
from genflow.data import Dataset
from genflow.data.dataset import in_memory, permutation
from genflow.data.embedded import digits
from genflow.errors import UserError
from genflow.trained import load_trained

GENERATOR = np.random.default_rng(1)


def normal(*shape, mean=0.0):
    return mean + GENERATOR.standard_normal(shape)


# Distances of moments and kernels


def test_frechet_is_that_of_a_matrix_square_root():
    a, b = normal(400, 5) @ normal(5, 5), normal(300, 5) @ normal(5, 5) + normal(5)
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root).real
    np.testing.assert_allclose(frechet(a, b), expected, rtol=1e-9)


def test_frechet_of_fewer_samples_than_features_is_that_of_their_span():
    basis = np.linalg.qr(normal(40, 40))[0]
    a, b = normal(12, 3), 2 * normal(12, 3) + 1
    wide = [(1e3 * np.pad(s, ((0, 0), (0, 37))) @ basis + 5) for s in (a, b)]
    np.testing.assert_allclose(frechet(*wide), 1e6 * frechet(a, b), rtol=1e-9)


@pytest.mark.parametrize("broken", [np.ones((1, 2)), np.full((4, 2), np.nan)])
def test_frechet_refuses_what_has_no_covariance(broken):
    with pytest.raises(ValueError, match="expected two or more of each, all finite"):
        frechet(broken, np.ones((4, 2)))


def test_kernel_distance_of_two_gaussians_is_the_closed_form():
    # of x, y with means a, b and variance 1, E(xy + 1)^3 = (a^3 + 3a)(b^3 + 3b) + 3(1 + a^2)(1 + b^2) + 3ab + 1
    m = 0.5
    expected = (m**3 + 3 * m) ** 2 + 3 * (1 + m**2) ** 2 + 3 * m**2 + 5 - 2 * (3 * (1 + m**2) + 1)
    value, error = kernel(normal(20_000, 1), normal(20_000, 1, mean=m), subset_size=500, num_subsets=40)
    assert abs(value - expected) < 4 * error < expected / 4
    assert 0.02 < error < 0.2


def test_kernel_distance_of_one_distribution_is_zero_on_average_however_few_the_samples():
    values = np.array([kernel(normal(12, 2), normal(9, 2), num_subsets=8, seed=i).value for i in range(600)])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert 0.3 < (values < 0).mean() < 0.8


def test_kernel_error_is_the_spread_over_sets_of_samples():
    found = [kernel(normal(200, 2), normal(200, 2, mean=0.7), num_subsets=40) for _ in range(60)]
    values, errors = np.array(found).T
    assert 0.7 < errors.mean() / values.std() < 1.5


def test_kernel_error_is_too_large_near_a_distance_of_zero_as_its_docstring_says():
    found = [kernel(normal(200, 2), normal(200, 2), num_subsets=40) for _ in range(150)]
    values, errors = np.array(found).T
    assert 1.3 < errors.mean() / values.std() < 2.1


def test_kernel_refuses_too_few():
    with pytest.raises(ValueError, match="expected four or more of each"):
        kernel(normal(3, 2), normal(9, 2))


# Class score


def test_class_score_counts_classes_that_are_told_apart():
    labels = np.arange(6_000) % 3
    assert class_score(np.eye(3)[labels], 4).value == pytest.approx(3, rel=2e-3)
    assert class_score(np.eye(3)[np.sort(labels)], 4).value == pytest.approx(3, rel=2e-3)  # class by class
    assert class_score(np.eye(3)[0 * labels], 4).value == pytest.approx(1)
    assert class_score(np.full((60, 3), 1 / 3), 4).value == pytest.approx(1)


def test_class_score_is_the_exponential_of_a_mutual_information():
    p = GENERATOR.dirichlet(np.ones(4), 50)
    halves = np.split(p[permutation(50, 0)], 2)
    scores = [np.exp(scipy.stats.entropy(s, s.mean(0, keepdims=True), axis=1).mean()) for s in halves]
    value, error = class_score(p, 2)
    assert value == pytest.approx(np.mean(scores))
    assert error == pytest.approx(abs(scores[0] - scores[1]) / 2)
    with pytest.raises(ValueError, match="1 samples in 2 splits"):
        class_score(p[:1], 2)


# Supports


def balls(centers, k):
    distances = np.linalg.norm(centers[:, None] - centers, axis=-1)
    return np.sort(distances, axis=1)[:, k]  # the nearest is the center itself


@pytest.mark.parametrize("memory", [1024, 1e-3])
def test_supports_by_brute_force(memory):
    samples, data = normal(30, 3), normal(40, 3, mean=0.8)
    distances = np.linalg.norm(samples[:, None] - data, axis=-1)
    in_data, in_samples = distances <= balls(data, 3), distances <= balls(samples, 3)[:, None]
    in_five = distances <= balls(data, 5)
    with sklearn.config_context(working_memory=memory):  # in one chunk, and in chunks of a few rows
        found = precision_recall(samples + 1e4, data + 1e4) | density_coverage(samples + 1e4, data + 1e4)
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(
        {
            "precision": in_data.any(1).mean(),
            "recall": in_samples.any(0).mean(),
            "density": in_five.sum() / (5 * 30),
            "coverage": in_five.any(0).mean(),
        }
    )
    assert 0 < found["precision"].value < 1
    assert found["density"].standard_error == pytest.approx(scipy.stats.sem(in_five.sum(1)) / 5)


def test_supports_of_the_same_and_of_distant_sets():
    data = normal(100, 2)
    same = precision_recall(data, data) | density_coverage(data, data)
    assert [same[name].value for name in ("precision", "recall", "coverage")] == [1, 1, 1]
    apart = precision_recall(data, data + 1e3) | density_coverage(data, data + 1e3)
    assert [figure.value for figure in apart.values()] == [0, 0, 0, 0]


def test_a_generator_of_one_mode_is_precise_and_has_no_recall():
    modes = np.where(np.arange(400) < 200, -50, 50)[:, None]
    found = precision_recall(normal(400, 2) - 50, normal(400, 2) + modes)
    assert found["precision"].value > 0.9
    assert 0.3 < found["recall"].value < 0.55
    assert 0.3 < density_coverage(normal(400, 2) - 50, normal(400, 2) + modes)["coverage"].value < 0.55


def test_density_and_coverage_of_one_distribution_are_those_of_the_paper():
    found = density_coverage(normal(4_000, 2), normal(4_000, 2))
    assert found["density"].value == pytest.approx(1, abs=4 * found["density"].standard_error)
    assert found["coverage"].value == pytest.approx(1 - 2**-5, abs=0.015)


def test_supports_refuse_too_few():
    with pytest.raises(ValueError, match="3 features: expected more than the 3 neighbours"):
        precision_recall(normal(9, 2), normal(3, 2))


def test_only_the_inception_network_gives_metrics_their_published_names():
    described = Described(normal(20, 2), GENERATOR.dirichlet(np.ones(4), 20))
    published, own = (metrics(described, Described(normal(30, 2)), name) for name in ("inception", "digits"))
    assert set(published) >= {"FID", "KID", "IS", "precision_inception", "coverage_inception"}
    assert {name.rpartition("_")[2] for name in own} == {"digits"}
    assert len(own) == len(published) == 7
    assert set(metrics(described._replace(probabilities=None), described, "x")) == {
        f"{name}_x" for name in ("frechet", "kernel", "precision", "recall", "density", "coverage")
    }


def test_coordinates_are_in_units_of_the_data():
    x = normal(200, 2) * [1e-3, 1e3]
    np.testing.assert_allclose(coordinates(x).describe(x).features.std(0), 1)


def test_a_constant_coordinate_keeps_its_units():
    x = np.stack([np.full(200, 0.1), np.zeros(200), normal(200)], 1)
    shown = coordinates(x).describe(x + [[3.0, 4.0, 0.0]]).features
    np.testing.assert_allclose(shown[:, :2], np.tile([3.1, 4.0], (200, 1)))
    assert shown[:, 2].std() == pytest.approx(1)


def test_metrics_of_user_data_are_named_without_the_folders_of_a_machine():
    x, labels = normal(40, 2), np.arange(40) % 2
    names = ("folder:/tmp/somewhere/cats/", "array:some/where/cats.npz", "digits", "imagenet_resized/32x32")
    found = [features.classifier(name, x, labels)[0].name for name in names]
    assert found == ["folder:cats", "array:cats.npz", "digits", "imagenet_resized/32x32"]


# Parzen windows


@pytest.mark.parametrize("memory", [1024, 1e-3])
def test_a_parzen_window_is_a_mixture_of_gaussians(memory):
    samples, x = GENERATOR.random((7, 2, 3)), GENERATOR.random((5, 2, 3))
    logs = [[scipy.stats.norm(s, 0.3).logpdf(one).sum() for s in samples] for one in x]
    expected = np.log(np.exp(logs).mean(1))
    with sklearn.config_context(working_memory=memory):
        found = log_densities(samples, x, (0.1, 0.3))
    np.testing.assert_allclose(found[1], expected, rtol=1e-10)
    assert (found[0] != found[1]).all()


def test_validation_chooses_the_width_and_test_data_give_the_figure():
    samples, validation = 0.2 * normal(300, 2), 0.2 * normal(200, 2)
    test = 0.2 * normal(500, 2, mean=0.1)
    found = parzen(samples, validation, test)
    every = [log_densities(samples, validation, (s,))[0].mean() for s in SIGMAS]
    assert found.sigma == SIGMAS[int(np.argmax(every))]
    values = log_densities(samples, test, (found.sigma,))[0]
    assert (found.value, found.standard_error) == pytest.approx((values.mean(), scipy.stats.sem(values)))
    assert SIGMAS[0] == pytest.approx(0.1)
    assert SIGMAS[-1] == pytest.approx(1)
    assert parzen(samples, samples, test).is_at_edge  # what is in the window wants it narrow
    assert not parzen(samples, 0.5 * normal(200, 2), test).is_at_edge


# Runs


@pytest.fixture(scope="module", autouse=True)
def short_training():
    """Of the small classifier."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "UPDATES", 300)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of a run that compares its samples at its end."""
    folder = tmp_path_factory.mktemp("runs") / "markov"
    fields = {"train.num_steps": "2", "eval.every": "0", "eval.num_samples": "24", "eval.parzen": "true"}
    train.train(cli.load_config("configs/markov_digits.py:debug", fields), str(folder))
    return folder


@pytest.fixture
def drawing(run):
    """The experiment with another model: one that draws what it is given."""
    experiment = load_trained(run).experiment

    def given(x):
        model = Model(None, {}, lambda params, state, key, num, cond, temperature: np.asarray(x, np.float32)[:num])
        config = experiment.config.copy_and_resolve_references()
        with config.unlocked():
            config.eval.batch_size = len(x)
        return experiment._replace(model=model, config=config)

    return given


def test_a_record_has_metrics_of_samples_beside_those_of_test_data(run):
    record = json.loads((run / "record.json").read_text())
    lines = {line["name"]: line for line in record["diagnostics"]}
    assert record["diagnostics_heading"].startswith("Samples beside test data, 24 each; Parzen windows mislead")
    for name in ("frechet_digits", "kernel_digits", "coverage_digits", "sliced_wasserstein"):
        assert np.isfinite(lines[name]["value"])
        assert lines[name]["value"] != lines[f"{name}, test data"]["value"]
    assert lines["Parzen nats, samples"]["value"] < lines["Parzen nats, training data"]["value"]
    assert not [name for name in lines if {"FID", "KID", "IS"} & {*name.split()}]


def test_evaluation_of_a_model_without_a_likelihood_compares_its_samples(run, monkeypatch, capsys):
    trained = load_trained(run)
    experiment = trained.experiment._replace(model=trained.experiment.model._replace(log_prob=None, bound="none"))
    monkeypatch.setattr(use, "load_trained", lambda *_: trained._replace(experiment=experiment))
    use.evaluate_run(str(run), seed=3)
    out = capsys.readouterr().out
    written = json.loads((run / "eval_seed_3.json").read_text())
    assert set(written) == {"name", "step", "seed", "options", "samples"}
    assert (written["samples"]["num"], written["samples"]["num_test"], written["samples"]["num_data"]) == (24, 24, 64)
    assert written["samples"]["classifier_accuracy"] > 0.5
    for name, figure in written["samples"]["figures"].items():
        assert f"{name:<40}{figure['value']:11.4f}" in out
    assert "Theis et al. 2016" in out
    config = experiment.config.copy_and_resolve_references()
    with config.unlocked():
        config.eval.update(num_samples=0, parzen=False)
    silent = experiment._replace(config=config)  # nothing asks for samples, and there is nothing else
    monkeypatch.setattr(use, "load_trained", lambda *_: trained._replace(experiment=silent))
    found = use.evaluate_run(str(run))["samples"]
    assert (found["num"], found["num_test"]) == (360, 360)
    assert "Parzen nats, samples" not in found["figures"]
    bare = experiment._replace(model=Model(None, {}))
    monkeypatch.setattr(use, "load_trained", lambda *_: trained._replace(experiment=bare))
    with pytest.raises(UserError, match="markov has neither a likelihood nor samples"):
        use.evaluate_run(str(run))


def test_evaluation_scores_and_compares_where_both_are_asked_for(run):
    found = use.evaluate_run(str(run), seed=4, num=30)
    assert (found["samples"]["num"], found["unit"], found["bound"]) == (30, "bits/dim", "exact")
    assert json.loads((run / "eval_seed_4_num_30.json").read_text()) == found
    assert found["options"] == {"num": 30}
    assert use.evaluate_run(str(run), seed=4, num=12, parzen=True)["options"] == {"num": 12, "parzen": True}
    assert sorted(file.name for file in run.glob("eval_seed_4*")) == [
        "eval_seed_4_num_12_parzen.json",
        "eval_seed_4_num_30.json",
    ]
    assert found["test"]["value"] > 0
    trained = load_trained(run)
    drawn = judge.draw_samples(trained.experiment, trained.params, trained.state, 30)
    assert np.unique(drawn.reshape(30, 64), axis=0).shape == (30, 64)


def test_a_model_that_draws_test_data_is_at_the_floor(drawing):
    test = digits()[1]["test"].arrays["x"]
    found = judge.compare(drawing(test[permutation(360, 0)]), {}, {})
    assert found.samples == found.floor
    assert (found.num, found.num_test) == (360, 360)
    assert found.samples["frechet_digits"].value < 1.5
    repeated = judge.compare(drawing(np.repeat(test[:1], 360, 0)), {}, {})
    assert repeated.samples["coverage_digits"].value < 0.2
    assert repeated.samples["recall_digits"].value < 0.2


def test_the_inception_network_describes_training_data_chunk_by_chunk(drawing, monkeypatch):
    def show(params, x):
        return x[:, ::4, ::4].reshape(len(x), -1), x[:, 4, 4]

    monkeypatch.setattr(features, "inception", lambda: Network(None, show))
    monkeypatch.setattr(judge, "CHUNK", 30)
    found = judge.compare(drawing(digits()[1]["test"].arrays["x"]), {}, {}, num=40, inception={})
    assert {"FID", "KID", "IS", "recall_inception"} < set(found.samples)
    assert found.accuracy is None
    experiment = drawing(np.zeros((2, 8, 8, 1)))
    described = judge.make_judge(experiment, 4, inception={}).described
    whole = features.inception_extractor({}, experiment.spec).describe(experiment.train.fetch(permutation(64, 0))["x"])
    np.testing.assert_allclose(described.features, whole.features, rtol=1e-6)


def sorted_by_class(part):
    """Digits, class by class, as folders are read; and of how many classes some are, by their first pixel."""
    arrays = digits()[1][part].arrays
    order = np.argsort(arrays["label"], kind="stable")
    x = arrays["x"][order].copy()
    x[:, 0, 0, 0] = arrays["label"][order]
    return in_memory(x, arrays["label"][order])


def test_examples_are_of_every_class_where_the_source_is_sorted(drawing, monkeypatch):
    experiment = drawing(sorted_by_class("test").arrays["x"][permutation(360, 1)])
    parts = {"test": sorted_by_class("test"), "validation": sorted_by_class("test")}
    experiment = experiment._replace(train=sorted_by_class("train"), evaluation=parts)
    handed = []
    monkeypatch.setattr(judge, "parzen", lambda *sets: handed.extend(sets) or Parzen(0.0, 0.1, 0.3, False))
    monkeypatch.setattr(judge, "MOST_EXAMPLES", 200)
    monkeypatch.setattr(judge, "MOST_SAMPLES", 150)
    found = judge.compare(experiment, {}, {}, num=150, with_parzen=True)
    assert found.accuracy > 0.7
    assert found.floor["class_score_digits"].value > 4
    assert {len(np.unique(events[:, 0, 0, 0])) for events in handed} == {10}
    monkeypatch.setattr(judge, "CHUNK", 30)
    described = judge.make_judge(experiment, 4).described
    assert described.probabilities.shape == (200, 10)


def test_the_ruler_is_the_same_for_every_seed(drawing):
    experiment = drawing(digits()[1]["test"].arrays["x"])
    found = [judge.compare(experiment, {}, {}, num=40, seed=seed) for seed in (0, 1)]
    assert found[0].floor["frechet_digits"] == found[1].floor["frechet_digits"]
    assert found[0].floor["kernel_digits"] != found[1].floor["kernel_digits"]
    gray = Dataset(50, lambda index: {"x": np.full((len(index), 8, 8, 1), 64, np.uint8)})
    with experiment.config.unlocked():
        experiment.config.data.binarize = "stochastic"
    one = judge.make_judge(experiment._replace(train=gray), 4).data
    experiment.config.seed = 5
    np.testing.assert_array_equal(judge.make_judge(experiment._replace(train=gray), 4).data, one)


def test_the_number_of_training_examples_is_that_of_those_in_memory(drawing, monkeypatch):
    monkeypatch.setattr(judge, "MOST_VALUES", 64 * 40)
    found = judge.compare(drawing(digits()[1]["test"].arrays["x"]), {}, {}, num=30)
    assert found.num_data == 40


def test_a_test_part_that_is_too_small_for_a_metric_has_no_line_of_it(drawing):
    experiment = drawing(digits()[1]["test"].arrays["x"])
    experiment.evaluation["test"] = in_memory(**{k: a[:3] for k, a in digits()[1]["test"].arrays.items()})
    lines = judge.compare(experiment, {}, {}, num=30).lines()
    assert {"frechet_digits, test data", "kernel_digits"} <= set(lines)
    assert "kernel_digits, test data" not in lines


def test_every_batch_of_a_conditional_model_has_conditions_of_its_own(drawing):
    experiment = drawing(np.zeros((4, 8, 8, 1)))
    with experiment.config.unlocked():
        experiment.config.model.conditional = True

    def shown(params, state, key, num, cond, temperature):
        return np.zeros((num, 1)) + (cond["label"] if "cond" not in cond else cond["cond"].sum(1))[:, None]

    experiment = experiment._replace(model=Model(None, {}, shown))
    drawn = judge.draw_samples(experiment, {}, {}, 13)
    assert drawn[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    vectors = np.arange(10, dtype=np.float32)[:, None] * [[0.5, 0.5]]
    test = in_memory(np.zeros((10, 8, 8, 1)), np.arange(10) % 2, vectors.astype(np.float32))
    experiment = experiment._replace(spec=experiment.spec._replace(cond_dims=2), evaluation={"test": test})
    drawn = judge.draw_samples(experiment, {}, {}, 13)[:, 0]
    assert sorted(drawn[:10]) == [*range(10)]
    assert (drawn[10:] == drawn[:3]).all()


def test_the_end_of_training_warns_as_an_evaluation_does(capsys):
    windows = Parzen(-5.0, 0.1, 0.1, True), Parzen(-4.0, 0.1, 0.3, False)
    found = judge.Comparison({"frechet_x": Figure(1.0)}, {}, 30, 25, 64, 0, windows, 0.2)
    lines = summary.with_samples({"diagnostics": [], "diagnostics_heading": ""}, found)["diagnostics"]
    figures = {line["name"]: line["value"] for line in lines}
    assert figures["Parzen sigma, samples, at an end"] == 0.1
    assert figures["Parzen sigma, training data"] == 0.3
    assert figures["test accuracy of the classifier"] == 0.2
    error = next(line["standard_error"] for line in lines if line["name"].startswith("test accuracy"))
    assert error == pytest.approx(0.08)
    warned = capsys.readouterr().err
    assert "WARNING: the best Parzen sigma is at an end of those tried" in warned
    assert "WARNING: the small classifier is right on 20% of the test examples" in warned
    summary.with_samples({"diagnostics": [], "diagnostics_heading": ""}, found._replace(accuracy=0.6, parzen=None))
    assert capsys.readouterr().err == ""


def test_samples_that_are_not_finite_have_no_figures(drawing):
    found = judge.compare(drawing(np.full((360, 8, 8, 1), np.nan)), {}, {}, num=8)
    assert (found.nonfinite, found.samples, found.lines()) == (8, {}, {})


def test_a_judge_binarizes_training_data_as_a_step_does(drawing):
    experiment = drawing(np.zeros((2, 8, 8, 1)))
    with experiment.config.unlocked():
        experiment.config.data.binarize = "stochastic"
    gray = Dataset(50, lambda index: {"x": np.full((len(index), 8, 8, 1), 64, np.uint8)})
    found = judge.make_judge(experiment._replace(train=gray), 4)
    assert set(np.unique(found.data)) == {0, 1}
    assert found.data.mean() == pytest.approx(64 / 255, abs=0.03)


def test_unlabelled_images_have_the_distance_that_needs_no_classifier(drawing):
    experiment = drawing(digits()[1]["test"].arrays["x"])
    plain = experiment.train
    unlabelled = Dataset(plain.num, lambda index: {"x": plain.fetch(index)["x"]})
    assert set(judge.compare(experiment._replace(train=unlabelled), {}, {}).samples) == {"sliced_wasserstein"}


REFUSED = {
    "one sample": ({}, {"num": 1}, "--num=1: metrics of samples need 2 or more"),
    "no validation part": (
        {"validation": None},
        {"with_parzen": True},
        "on digits needs a validation part.*--config.data.validation",
    ),
    "continuous data": ({"bins": None}, {"with_parzen": True}, "--parzen: digits is continuous.*: leave it out$"),
    "no samples": ({"sample": None}, {}, "markov draws no samples to compare with data: leave --num out"),
    "text": ({"symbols": ("a", "b")}, {}, "digits is text"),
}


@pytest.mark.parametrize(("changes", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_compared_is_refused_before_anything_is_drawn(drawing, changes, options, message):
    experiment = drawing(np.zeros((2, 8, 8, 1)))
    if "sample" in changes:
        experiment = experiment._replace(model=experiment.model._replace(sample=None))
    if {"symbols", "bins"} & set(changes):
        experiment = experiment._replace(spec=experiment.spec._replace(**changes))
    if "validation" in changes:
        experiment.evaluation["validation"] = Dataset(0, None)
    with pytest.raises(UserError, match=message):
        judge.compare(experiment, {}, {}, **options)


def test_a_configuration_that_cannot_be_compared_is_refused_before_training(tmp_path):
    for fields, message in (
        ({"eval.num_samples": "1"}, "config.eval.num_samples=1: metrics"),
        ({"eval.parzen": "true"}, "config.eval.parzen=True needs samples"),
    ):
        config = cli.load_config("configs/markov_digits.py:debug", fields)
        with pytest.raises(UserError, match=message):
            train.train(config, str(tmp_path / "refused"))
        assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--features=vgg:x"], "flag --features=vgg:x: expected inception:FILE"),
        (["--features=inception:"], "flag --features=inception:: expected inception:FILE"),
        (["--features=inception:nowhere.pth"], "flag --features=inception:nowhere.pth: no such file"),
        (["--mode=sample", "--features=inception:x"], "--features is for --mode=eval"),
        (["--mode=train", "--parzen"], "--parzen is for --mode=eval; for training set --config.eval.parzen"),
    ],
)
def test_flags_of_evaluation_are_checked(run, words, message):
    with pytest.raises(UserError, match=message):
        cli.parse(["main.py", "--mode=eval", f"--workdir={run}", *words])
    cli.parse(["main.py", "--mode=eval", f"--workdir={run}", "--seed=2", "--parzen"])
    assert cli.evaluation() == {"seed": 2, "num": 0, "features": "", "parzen": True}
