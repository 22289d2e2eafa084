"""Outlier scores: figures of merit against their definitions, LLR>k against the bounds it is made of, a whole run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from genflow import cli, detect, train
from genflow.analysis.outliers import detection, levels_above, likelihood_scores, roc, scores_above, typicality
from genflow.core import Inference, Latent, Model
from genflow.data.dataset import in_memory
from genflow.detect import check, detect_run, paired
from genflow.errors import UserError
from genflow.experiment import assemble
from genflow.models.latent import Gaussian, draw_level, log_weight
from genflow.trained import load_trained
from genflow.workdir import read_config

RANDOM = np.random.default_rng(0)
SETS = {
    "apart": (RANDOM.normal(0, 1, 37), RANDOM.normal(1, 2, 53)),
    "ties": (RANDOM.integers(0, 5, 40).astype(float), RANDOM.integers(1, 7, 30).astype(float)),
    "all equal": (np.zeros(4), np.zeros(6)),
    "perfect": (np.zeros(3), np.ones(5)),
}


@pytest.mark.parametrize("name", SETS)
def test_figures_of_merit_are_their_definitions(name):
    low, high = SETS[name]
    found = detection(low, high, num_resamples=20)
    pairs = high[:, None] - low
    assert found["auroc"].value == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    reached = [t for t in high if (high >= t).mean() >= 0.8]
    assert found["fpr80"].value == pytest.approx((low >= max(reached)).mean())
    labels, scores = np.repeat([0, 1], [len(low), len(high)]), np.concatenate([low, high])
    assert found["auroc"].value == pytest.approx(roc_auc_score(labels, scores))
    assert found["auprc"].value == pytest.approx(average_precision_score(labels, scores))
    assert np.trapezoid(*roc(low, high)[::-1]) == pytest.approx(found["auroc"].value)
    for figure in found.values():
        assert 0 <= figure.low <= figure.high <= 1


@pytest.mark.parametrize(("level", "least", "most"), [(0.95, 88, 100), (0.5, 35, 65)])
def test_the_interval_covers_the_truth_as_often_as_it_says(level, least, most):
    truth, hits = 0.7602499, 0  # P(Y > X) of N(0, 1) and N(1, 1)
    for seed in range(100):
        generator = np.random.default_rng(seed)
        auroc = detection(generator.normal(size=60), generator.normal(1, 1, 60), 200, level, seed)["auroc"]
        hits += auroc.low <= truth <= auroc.high
    assert least <= hits <= most


def test_infinite_scores_have_a_rank_and_nan_has_none():
    low, high = np.array([0.0, 1.0, np.inf]), np.array([np.inf, np.inf, 2.0, -np.inf])
    found = detection(low, high, num_resamples=20)
    assert found["auroc"].value == pytest.approx(((1 + 1 / 2 + 1 + 1 / 2) / 3 + (2 / 3) + 0) / 4 + 2 / 12)
    false, true = roc(low, high)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(found["auroc"].value)
    with pytest.raises(ValueError, match="1 of 3 scores of the outliers are NaN"):
        detection(np.zeros(2), np.array([0.0, np.nan, 1.0]))


def fooled():
    """p(x) = N(x; (3 z_1, 2 z_2), .25 I) with six z_1 above one z_2, all N(0, 1), and the exact posterior."""

    def infer(params, state, key, batch, from_posterior=True, temperature=1.0):
        use, scale = (jnp.broadcast_to(a, (2,)) for a in (from_posterior, temperature))

        def level(i, x, slope):
            precision = 1 + 4 * slope**2
            q = Gaussian(4 * slope * x / precision, jnp.full_like(x, -0.5 * np.log(precision)))
            nothing = jnp.zeros_like(x)
            return draw_level(jax.random.fold_in(key, i), Gaussian(nothing, nothing), q, use[i], scale[i])

        drawn = level(0, batch["x"][:, :6], 3.0), level(1, batch["x"][:, 6:], 2.0)
        z, *terms = zip(*drawn, strict=True)
        mean = jnp.concatenate([3 * z[0], 2 * z[1]], 1)
        log_likelihood = Gaussian(mean, jnp.full_like(mean, np.log(0.5))).log_prob(batch["x"])
        return Inference(z, log_likelihood, *(jnp.stack(term) for term in terms))

    def log_prob(params, state, key, batch):
        return log_weight(infer(params, state, key, batch))

    return Model(
        None, {}, log_prob=log_prob, latent=Latent(2, infer, *(None,) * (len(Latent._fields) - 2)), bound="lower"
    )


def marginal(x, variances):
    """log N(x; 0, diag(variances))."""
    return Gaussian(jnp.zeros_like(x), jnp.log(jnp.asarray(variances)) / 2 * jnp.ones_like(x)).log_prob(x)


def test_the_score_without_any_level_is_the_likelihood_and_without_all_that_of_the_prior_s_mode():
    model, x = fooled(), np.random.default_rng(2).normal(size=(5, 7)).astype(np.float32)
    batch, key = {"x": x}, jax.random.key(4)
    whole = scores_above(model)({}, {}, key, batch, 0).score
    np.testing.assert_allclose(whole, marginal(x, [9.25] * 6 + [4.25]), rtol=1e-4)  # the posterior is exact
    log_prob, scores = likelihood_scores(model, {}, {}, in_memory(x), key, 3)
    np.testing.assert_allclose(log_prob, whole, rtol=1e-4)
    np.testing.assert_allclose(scores["L>1"], -marginal(x, [9.25] * 6 + [0.25]), rtol=1e-4)
    np.testing.assert_allclose(scores["L>2"], -marginal(x, [0.25] * 7), rtol=1e-4)
    for k in (1, 2):
        np.testing.assert_allclose(scores[f"LLR>{k}"], log_prob + scores[f"L>{k}"], rtol=1e-4)
    with pytest.raises(ValueError, match="expected mode or draw"):
        scores_above(model, "mean")


def test_lower_levels_that_are_drawn_make_a_bound_and_modes_do_not():
    """At x = 0 the mode of the lower level is right by chance, and scores more than log p(x)."""
    model, x = fooled(), np.zeros((2000, 7), np.float32)
    log_p = float(marginal(x[:1], [9.25] * 6 + [4.25])[0])
    found = {
        lower: levels_above(model, {}, {}, in_memory(x), jax.random.key(1), 2000, lower=lower).score
        for lower in ("mode", "draw")
    }
    assert found["mode"][1].mean() > log_p + 1
    drawn = found["draw"][1]
    assert drawn.mean() < log_p - 1
    # p(x | upper) is the mean of exp L>1 over draws of the lower level: what is drawn has the right weight
    ratios = np.exp(drawn - log_p)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(x))


def test_the_difference_of_likelihoods_has_one_noise_and_no_prior():
    model, x = fooled(), np.random.default_rng(2).normal(size=(5, 7)).astype(np.float32)
    _, scores = likelihood_scores(model, {}, {}, in_memory(x), jax.random.key(4), 5, samples_above=2)

    def log_likelihood(i, num_above):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(4), 0), i)
        is_above = jnp.arange(2) < num_above
        return model.latent.infer({}, {}, key, {"x": x}, is_above, is_above.astype(jnp.float32)).log_likelihood

    for k in (1, 2):
        expected = np.mean([log_likelihood(i, 2) - log_likelihood(i, 2 - k) for i in (0, 1)], axis=0)
        np.testing.assert_allclose(scores[f"delta log p(x|z)>{k}"], expected, rtol=1e-4, atol=1e-4)


def test_the_ratio_sees_what_the_likelihood_does_not():
    """Outliers at the middle of the upper level, which is likely, need the lower one as no inlier does."""
    generator, model = np.random.default_rng(3), fooled()
    inliers = np.concatenate([3 * generator.normal(size=(200, 6)), 0.5 * generator.normal(size=(200, 1))], 1)
    outliers = np.concatenate([np.zeros((200, 6)), 3 + generator.random((200, 1))], 1)
    found = [
        likelihood_scores(model, {}, {}, in_memory(x.astype(np.float32)), jax.random.key(0), 200)
        for x in (inliers, outliers)
    ]
    auroc = {name: detection(found[0][1][name], found[1][1][name], 10)["auroc"].value for name in found[0][1]}
    levels = {f"{score}>{k}" for score in ("L", "LLR", "delta log p(x|z)") for k in (1, 2)}
    assert set(auroc) == {"likelihood", *levels}
    assert auroc["likelihood"] < 0.4
    assert auroc["LLR>1"] > 0.99
    strange = typicality(np.array([-9.0, -5.0, -1.0]), np.array([-4.0, -6.0]))
    np.testing.assert_array_equal(strange, [4.0, 0.0, 4.0])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and beside it sets that fit it and that do not."""
    folder = tmp_path_factory.mktemp("run")
    fields = {"train.num_steps": "2", "eval.every": "0", "eval.baselines": "false"}
    train.train(cli.load_config("configs/vae_digits.py:debug", fields), str(folder / "run"))
    noise = np.random.default_rng(0).integers(0, 17, (40, 8, 8, 1)).astype(np.uint8)
    np.savez(folder / "noise.npz", x_train=noise[:30], x_test=noise[30:], bins=17)
    np.savez(folder / "small.npz", x_train=noise[:30, 1:], x_test=noise[30:, 1:], bins=17)
    return folder / "run"


def test_a_run_tells_outliers_and_writes_what_it_found(run, capsys):
    record = detect_run(str(run), f"array:{run.parent}/noise.npz", num=8, samples=3, num_resamples=20, lower="draw")
    printed = capsys.readouterr().out
    (written,) = run.glob("outliers_*.json")
    assert json.loads(written.read_text()) == record
    assert written.with_suffix(".png").stat().st_size > 10_000
    assert list(record["scores"]) == ["likelihood", "L>1", "LLR>1", "delta log p(x|z)>1", "typicality"]
    assert (record["num_examples"], record["lower"]) == (8, "draw")
    for score, found in record["scores"].items():
        assert f"{score:<22}{found['auroc']['value']:7.4f}" in printed
        assert 0 <= found["auroc"]["low"] <= found["auroc"]["high"] <= 1
    assert {"params_sha256", "git_revision", "seed", "samples", "num_levels", "config_hash"} <= set(record)


def test_a_likelihood_of_zero_is_scored_and_a_difference_of_infinities_left_out(run, capsys, monkeypatch):
    def scores(trained, part, seed, **draws):
        log_prob = np.array([-1.0, -2.0, -np.inf])
        return log_prob, {"likelihood": -log_prob, "LLR>1": np.array([0.0, 0.0, np.nan])}

    monkeypatch.setattr(detect, "scores", scores)
    record = detect_run(str(run), "digits", num=3, num_resamples=20)
    assert list(record["scores"]) == ["likelihood"]
    assert record["nll"] == {"inliers": None, "outliers": None, "known": None}
    printed = capsys.readouterr().out
    assert "LLR>1 is left out: the model gives 2 examples no number" in printed
    assert "NLL infinite and infinite nats" in printed


def test_kinds_and_symbols_are_compared_too(run, monkeypatch):
    experiment = assemble(read_config(run))
    for change, message in (
        ({"sample_rate": 8000}, r"\(sound\), the run's"),
        ({"symbols": tuple("0123456789abcdefg")}, r"\(text, the symbols '0123456789abcdefg'\)"),
    ):
        other = experiment.spec._replace(**change)
        monkeypatch.setattr(detect.data, "load", lambda *_, other=other: (other, None, experiment.evaluation))
        with pytest.raises(UserError, match=message):
            paired(experiment, "digits", 0)


def test_a_run_of_an_earlier_revision_has_its_absent_fields_filled_but_for_those_of_its_model(run, tmp_path, capsys):
    def without(**sections):
        stored = json.loads((run / "config.json").read_text())
        for section, name in sections.items():
            del stored[section][name]
        (tmp_path / "config.json").write_text(json.dumps(stored))
        (tmp_path / "checkpoints").unlink(missing_ok=True)
        (tmp_path / "checkpoints").symlink_to(run / "checkpoints")
        return load_trained(tmp_path, cli.defaults())

    trained = without(optimizer="milestones", eval="samples_per_call")
    assert trained.experiment.config == read_config(run)
    assert trained.experiment.config.is_locked
    assert "has no eval.samples_per_call, optimizer.milestones: taken as the defaults" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"config\.json has no config\.model\.beta: the run was made") as told:
        without(model="beta")
    assert "git_revision of record.json" in str(told.value)


def test_sets_that_do_not_fit_are_refused(run):
    experiment = assemble(read_config(run))
    cases = {
        f"array:{run.parent}/small.npz": r"has shape \(7, 8, 1\) and 17 values .* digits shape \(8, 8, 1\) and 17",
        "moons": r"has shape \(2,\) and continuous values",
        "nothing_like_it": "nothing_like_it",
    }
    for outliers, message in cases.items():
        with pytest.raises(UserError, match=message):
            paired(experiment, outliers, 0)
    own = paired(experiment, "digits", 7)
    assert [part.num for part in own.values()] == [7, 7, 7]
    assert (own["known"].arrays["x"] != own["inliers"].arrays["x"]).any()
    with pytest.raises(UserError, match="must be above zero"):
        check(experiment, 0, 0, 1, 1)
    with pytest.raises(UserError, match="no likelihood"):
        check(experiment._replace(model=experiment.model._replace(log_prob=None)), 0, 1, 1, 1)
