"""Evidence and posteriors by Markov chains, against the linear-Gaussian model, of which everything is known."""

import contextlib
import io
import itertools
import json
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import cli, estimate, train
from genflow.analysis import evidence
from genflow.analysis.posterior import Chains, Joint, check, example_keys, is_noisy
from genflow.core import Spec
from genflow.models.latent import Gaussian, Hierarchy, Objective, Walk, draw_level, latent_variable
from genflow.models.linear_gaussian import linear_gaussian, log_evidence, posterior
from genflow.models.observation import gaussian


@pytest.fixture(scope="module")
def page():
    """What docs/bayesian-inference.md computes, prints, and says that it prints."""
    text = (cli.ROOT / "docs" / "bayesian-inference.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (shown,) = re.findall(r"It prints.*?^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "bayesian-inference.md", "exec"), names)
    return names | {"printed": printed.getvalue(), "shown": shown}


def test_the_page_shows_what_its_code_prints(page):
    printed, shown = (re.split(r"(-?\d+\.\d*)", page[name]) for name in ("printed", "shown"))
    # numpy pads with spaces where a last digit is zero
    assert [re.sub(r"\s+", "", a) for a in printed[::2]] == [re.sub(r"\s+", "", a) for a in shown[::2]]
    np.testing.assert_allclose([*map(float, printed[1::2])], [*map(float, shown[1::2])], atol=0.1)


def linear(page):
    """W, b, sigma, and A, c, s of q, float64; x, and log N(x; b, W W^T + sigma^2 I) by the large matrix."""
    levels = jax.tree.map(lambda a: np.asarray(a, np.float64), page["params"]["model"]["levels"])
    q, p = levels["inference"], levels["generation"]
    sigma = np.exp(-5 + np.log1p(np.exp(p["log_std"] + 5)))
    x = np.asarray(page["batch"]["x"], np.float64)
    covariance = p["kernel"].T @ p["kernel"] + sigma**2 * np.eye(4)
    r = x - p["bias"]
    log_p = -0.5 * ((r @ np.linalg.inv(covariance) * r).sum(1) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    return p["kernel"], p["bias"], sigma, q, x, log_p


def test_closed_forms_satisfy_equation_four_to_rounding(page):
    """E_q[log p(x | z)] - KL(q || p(z)), both closed, is log p(x) - KL(q || p(z | x))."""
    w, b, sigma, q, x, log_p = linear(page)
    np.testing.assert_allclose(page["truth"], log_p, rtol=1e-5)
    mean, std = x @ q["kernel"] + q["bias"], np.exp(q["log_std"])
    squares = ((x - b - mean @ w) ** 2).sum(1) + (w.T**2 @ std**2).sum()
    reconstruction = -0.5 * squares / sigma**2 - 4 * np.log(sigma) - 2 * np.log(2 * np.pi)
    kl = (0.5 * (mean**2 + std**2 - 1) - np.log(std)).sum(1)
    np.testing.assert_allclose(reconstruction - kl, page["truth"] - page["kl"], rtol=1e-5)
    elbo, error = evidence.of_draws(page["weights"]).T
    assert (np.abs(elbo - reconstruction + kl) < 4 * error).all()


def test_importance_weighted_bounds_grow_towards_the_evidence(page):
    """Each number of draws has draws of its own: of the same ones every log-mean-exp grows, whatever they are."""
    rows, truth = np.asarray(page["weights"], np.float64), np.asarray(page["truth"], np.float64)
    found = []
    for k, start, stop in ((1, 0, 400), (10, 400, 1000), (100, 1000, 2000)):
        bounds = np.logaddexp.reduce(rows[:, start:stop].reshape(5, -1, k), 2) - np.log(k)
        missing = truth - bounds.mean(1)
        found.append((missing.mean(), np.sqrt((bounds.var(1, ddof=1) / bounds.shape[1]).mean() / 5)))
    for (gap, error), (smaller, other_error) in itertools.pairwise(found):
        assert gap - smaller > 4 * np.hypot(error, other_error)
        assert smaller > -4 * other_error
    gap, error = found[0]
    assert abs(gap - np.mean(page["kl"])) < 4 * error


def test_chains_have_the_moments_of_the_posterior(page):
    chains, beside, covariance = page["chains"], page["beside"], page["covariance"]
    assert (chains.rhat < 1.02).all()
    assert (chains.divergences == 0).all()
    assert (chains.effective_samples > 300).all()
    error = np.sqrt(np.diag(covariance) / chains.effective_samples)
    assert (np.abs(beside.mean - page["mean"]) < 4.5 * error).all()
    covariances = np.stack([np.cov(draws.reshape(-1, 2).T) for draws in chains.draws])
    np.testing.assert_allclose(covariances, np.broadcast_to(covariance, (5, 2, 2)), atol=0.12)
    assert (np.abs(covariances.mean(0) - covariance) < 0.04).all()
    np.testing.assert_allclose(beside.variance, np.diagonal(covariances, axis1=1, axis2=2), rtol=1e-4)


def test_the_moments_of_q_are_its_own_and_are_measured_in_units_of_the_posterior(page):
    _, _, _, q, x, _ = linear(page)
    std, beside = np.exp(q["log_std"]), page["beside"]
    scale = np.sqrt(np.diag(page["covariance"]))
    np.testing.assert_allclose(beside.guide_mean, x @ q["kernel"] + q["bias"], atol=0.1)
    np.testing.assert_allclose(beside.guide_variance, np.broadcast_to(std**2, (5, 2)), rtol=0.15)
    np.testing.assert_allclose(beside.spread(), np.broadcast_to(std / scale, (5, 2)), rtol=0.15)
    np.testing.assert_allclose(beside.shift(), (x @ q["kernel"] + q["bias"] - page["mean"]) / scale, atol=0.6)


def test_weights_of_a_short_walk_have_the_mean_p_and_of_one_back_the_inverse(page):
    """From exact draws of the posterior of one x, with so few steps that their logarithms are far from log p(x)."""
    model, params, state, num = page["model"], page["params"], page["state"], 256
    x = jnp.repeat(page["batch"]["x"][:1], num, axis=0)
    mean, covariance = posterior(params, x)
    z = mean + jax.random.normal(jax.random.key(7), mean.shape) @ jnp.linalg.cholesky(covariance).T
    keys = example_keys(jax.random.key(8), num)
    walks = evidence.anneal(model, params, state, keys, {"x": x}, evidence.Annealing(4, 3, 3, "linear"), z)
    truth = float(log_evidence(params, x[:1])[0])
    for log_ratio in (walks.log_weights - truth, truth - walks.reverse):
        ratios = np.exp(np.asarray(log_ratio, np.float64)).mean(1)
        error = ratios.std() / np.sqrt(num)
        assert abs(ratios.mean() - 1) < 4 * error
        assert error < 0.1
        assert log_ratio.mean() < -0.15
    assert evidence.of_chains(walks.log_weights)[:, 0].mean() < truth < evidence.from_above(walks.reverse)[:, 0].mean()


def test_an_example_is_answered_by_its_key_whatever_its_neighbours(page):
    parts, turned = (page["model"], page["params"], page["state"]), {"x": page["batch"]["x"][::-1]}
    walks = evidence.anneal(*parts, page["keys"][::-1], turned, page["annealing"])
    np.testing.assert_allclose(walks.log_weights[::-1], page["walks"].log_weights, rtol=0.02, atol=0.02)
    weights = evidence.importance_weights(*parts, page["keys"][::-1], turned, 2000)
    np.testing.assert_allclose(weights[::-1], page["weights"], rtol=1e-4, atol=1e-4)


def test_annealing_agrees_with_the_evidence_from_both_sides(page):
    for estimate_, sign in ((evidence.of_chains(page["walks"].log_weights), 1), (page["above"], -1)):
        values = estimate_[:, 0] if sign > 0 else estimate_
        assert abs((values - np.asarray(page["truth"])).mean()) < 0.25
    assert ((page["walks"].acceptance > 0.55) & (page["walks"].acceptance < 0.9)).all()


def two_levels():
    """z_1 ~ N(0, 1), z_2 ~ N(z_1, 0.5^2 I_2), x ~ N(z_2, I_2): a tree; q is the exact posterior."""
    unit, half = Gaussian(jnp.zeros(()), jnp.zeros(())), jnp.log(0.5)

    def below(top):
        return Gaussian(jnp.concatenate([top, top], 1), half)

    def seen(z):
        return z["below"][..., None]

    def infer(params, key, e, from_posterior, temperature):
        keys = jax.random.split(key)
        top = draw_level(keys[0], unit, Gaussian(e.sum(1, keepdims=True) / 1.25 / 2.6, -0.5 * jnp.log(2.6)))
        low = draw_level(keys[1], below(top.z), Gaussian((4 * top.z + e) / 5, -0.5 * jnp.log(5.0)))
        z = {"below": low.z, "top": top.z}
        return Walk(z, seen(z), *(jnp.stack(pair) for pair in zip(top[1:], low[1:], strict=True)))

    def joint(params, z):
        return seen(z), jnp.stack([unit.log_prob(z["top"]), below(z["top"]).log_prob(z["below"])])

    def generate(params, key, num, temperature):
        keys = jax.random.split(key)
        top = jax.random.normal(keys[0], (num, 1))
        z = {"below": below(top).draw(keys[1]), "top": top}
        return z, seen(z)

    return Hierarchy(2, lambda key, x: {}, lambda params, x: x, infer, joint, generate)


def test_a_tree_of_two_levels_is_one_vector():
    spec = Spec("points", (2,), None)
    model = latent_variable(spec, two_levels(), gaussian(spec, std=1.0), Objective())
    params = {"model": {"levels": {}, "observation": {}}}
    batch, z = evidence.simulate(model, params, {}, jax.random.key(0), 4)
    assert Joint(model.latent, params, {}).vectors(z).shape == (4, 3)
    keys = example_keys(jax.random.key(1), 4)
    walks = evidence.anneal(model, params, {}, keys, batch, evidence.Annealing(64, 12, 4, num_pilots=64))
    covariance = np.ones((2, 2)) + (0.25 + 1.0) * np.eye(2)  # of z_1, of z_2 given it, of the observation
    x = np.asarray(batch["x"], np.float64)
    truth = -0.5 * ((x @ np.linalg.inv(covariance) * x).sum(1) + np.linalg.slogdet(2 * np.pi * covariance)[1])
    values, errors = evidence.of_chains(walks.log_weights).T
    assert (np.abs(values - truth) < 4 * errors).all()
    assert (errors < 0.3).all()
    weights = evidence.importance_weights(model, params, {}, keys, batch, 50)
    np.testing.assert_allclose(weights, np.broadcast_to(truth[:, None], (4, 50)), atol=1e-4)


def test_the_noise_of_a_gaussian_decoder_of_integers_is_held_fixed():
    """q is the exact posterior of x without noise: with one noise for all draws, no weight differs from another."""
    spec = Spec("integers", (3,), 8)
    model = linear_gaussian(spec, latent_dims=1)
    batch = {"x": jnp.array([[1, 5, 7], [0, 3, 3]], jnp.uint8)}
    params, state = model.init(jax.random.key(0), batch)
    levels = params["model"]["levels"]
    levels["generation"]["kernel"] = jnp.zeros((1, 3))
    levels["inference"]["kernel"] = jnp.zeros((3, 1))
    assert is_noisy(model, params, state, jax.random.key(1), batch)
    weights = evidence.importance_weights(model, params, state, example_keys(jax.random.key(2), 2), batch, 60)
    assert weights.shape == (2, 60)
    np.testing.assert_allclose(weights, np.repeat(weights[:, :1], 60, axis=1), atol=1e-5)
    others = evidence.importance_weights(model, params, state, example_keys(jax.random.key(3), 2), batch, 1)
    assert (np.abs(others[:, 0] - weights[:, 0]) > 1e-4).all()
    with pytest.raises(ValueError, match="take likelihood='logistic'"):
        evidence.simulate(model, params, state, jax.random.key(0), 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of vae_digits:debug."""
    folder = tmp_path_factory.mktemp("runs") / "vae"
    fields = {"train.num_steps": "2", "eval.every": "0", "eval.baselines": "false"}
    train.train(cli.load_config("configs/vae_digits.py:debug", fields), str(folder))
    return folder


def script(monkeypatch, run, *words):
    monkeypatch.setattr("sys.argv", ["estimate_evidence.py", f"--workdir={run}", *words])
    runpy.run_path(str(cli.ROOT / "scripts" / "estimate_evidence.py"), run_name="__main__")


def walked(model, params, state, keys, batch, num_chains, num_warmup, num_samples):
    draws = np.random.default_rng(0).standard_normal((len(keys), num_chains, num_samples, 12))
    rhat, effective = np.linspace(1, 1.75, 12)[None], np.linspace(5, 60, 12)[None]
    return Chains(draws, *(np.repeat(a, len(keys), axis=0) for a in (np.array([0.5]), np.array([3]), rhat, effective)))


def test_the_script_prints_a_table_and_writes_strict_json(run, monkeypatch, capsys):
    words = "--num=3 --chains=4 --steps=3 --leapfrog=2 --importance_samples=60 --batch_size=2 --simulated=3"
    monkeypatch.setattr(estimate, "sample_posterior", walked)  # the page has the real one
    script(monkeypatch, run, *words.split(), "--nuts=3", "--nuts_draws=20")
    printed = capsys.readouterr().out
    for row in (
        "ELBO",
        "IWAE, 60 draws",
        "AIS, 4 x 3",
        "AIS - IWAE",
        "IWAE: effective of 60 draws",
        "AIS: effective of 4 chains",
        "AIS: acceptance",
        "reverse AIS, from above",
        "rhat",
    ):
        assert row in printed
    record = json.loads((run / "evidence.json").read_text("utf-8"), parse_constant=lambda name: pytest.fail(name))
    elbo, iwae, ais = (line["value"] for line in record["methods"])
    assert elbo < iwae
    np.testing.assert_allclose(record["gaps"][0]["value"], ais - elbo, rtol=1e-6)
    assert record["params_sha256"] == json.loads((run / "record.json").read_text("utf-8"))["params_sha256"]
    assert (record["num_examples"], record["split"], record["noise_held_fixed"]) == (3, "test", False)
    assert {"command", "config_hash", "created_utc", "git_revision"} <= set(record)
    assert record["bound"] == "lower"
    few = record["effective_samples"]["examples_with_few"]
    assert few > 0
    assert f"below 3 for {few} of 3 examples" in printed
    assert 1 <= record["effective_draws"]["least"] <= record["effective_draws"]["mean"] <= 60
    assert [row["example"] for row in record["posterior"]] == [0, 1, 2]
    of_one = record["posterior"][2]
    assert [of_one[name] for name in ("rhat", "effective_samples", "divergences", "acceptance")] == [1.75, 5, 3, 0.5]
    lower, upper, _ = record["simulated"]["methods"]
    assert record["simulated"]["num_examples"] == 3
    assert lower["value"] < upper["value"]


def test_batches_cover_the_examples_and_their_keys_depend_on_the_position_alone():
    key = jax.random.key(0)
    parts = list(estimate._batches({"x": np.arange(5)}, key, 2))
    assert [(list(batch["x"]), count) for batch, _, count in parts] == [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]
    keys = jnp.concatenate([jax.random.key_data(k)[:count] for _, k, count in parts])
    np.testing.assert_array_equal(keys, jax.random.key_data(example_keys(key, 5)))
    assert list(next(estimate._batches({"x": np.arange(5)}, key, 50))[0]["x"]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--num=500", "vae: --num=500 examples of test: there are 360"),
        ("--num=1", "--num=1 must be 2 at least"),
        ("--importance_samples=1", "--importance_samples=1 must be 2 at least"),
        ("--steps=0", "--steps=0 must be 1 at least"),
        ("--chains=1", "--chains=1 must be 2 at least"),
        ("--leapfrog=0", "--leapfrog=0 must be 1 at least"),
        ("--batch_size=0", "--batch_size=0 must be 1 at least"),
        ("--simulated=-1", "--simulated=-1 must be 0 at least"),
        ("--nuts=-1", "--nuts=-1 must be 0 at least"),
        ("--nuts=4", "--nuts=4 must not be above --num=3"),
        ("--nuts_draws=3", "--nuts_draws=3 must be 4 at least"),
    ],
)
def test_a_question_without_sense_is_refused(run, monkeypatch, capsys, word, message):
    words = ("--num=3", "--importance_samples=60", "--batch_size=2", word)

    def work(*_):
        raise AssertionError("nothing is computed for such a question")

    monkeypatch.setattr(estimate, "bounds", work)
    with pytest.raises(SystemExit, match="2"):
        script(monkeypatch, run, *words)
    assert message in capsys.readouterr().err


def test_models_on_whose_latents_no_chain_can_walk_are_refused(page):
    model, parts = page["model"], (page["params"], page["state"])
    with pytest.raises(ValueError, match="needs a latent variable model"):
        check(model._replace(latent=None), *parts)
    codes = model.latent._replace(generate=lambda *arguments: jnp.zeros((1, 3), jnp.int32))
    with pytest.raises(ValueError, match="needs continuous latents"):
        check(model._replace(latent=codes), *parts)


def test_estimates_by_hand():
    """Weights 1 and 3 of one example, 2 and 2 of another."""
    log_weights = np.log([[1.0, 3.0], [2.0, 2.0]])
    np.testing.assert_allclose(evidence.of_chains(log_weights), [[np.log(2), 0.5], [np.log(2), 0]], atol=1e-7)
    above = [[-np.log(2 / 3), 0.5], [np.log(2), 0]]
    np.testing.assert_allclose(evidence.from_above(log_weights), above, atol=1e-7)
    np.testing.assert_allclose(evidence.of_draws(log_weights), [[np.log(3) / 2] * 2, [np.log(2), 0]], atol=1e-7)
    np.testing.assert_allclose(evidence.effective_samples(log_weights), [1.6, 2.0])
    one, other = np.array([[5.0, 0.3], [1.0, 0.4]]), np.array([[2.0, 0.0], [0.0, 0.3]])
    np.testing.assert_allclose(evidence.average(one), (3.0, 2.0, 0.25))
    np.testing.assert_allclose(evidence.gap(one, other), (2.0, 1.0, np.hypot(0.3, 0.5) / 2))


def test_schedules_rise_from_zero_to_one():
    for name in evidence.SCHEDULES:
        betas = evidence.temperatures(10, name)
        assert (betas[0], betas[-1], len(betas)) == (0, 1, 11)
        assert (np.diff(betas) > 0).all()
    slopes = np.diff(evidence.temperatures(10))
    assert slopes[0] < slopes[5]
    with pytest.raises(ValueError, match="sigmoid or linear"):
        evidence.temperatures(10, "cosine")
