"""Score SDEs, EDM, likelihoods by the probability flow and interpolation, against data of which everything is known."""

import itertools
import json
import math
import runpy
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genflow import bounds, cli, train
from genflow.analysis.interpolation import interpolate, slerp
from genflow.bijectors.continuous import one_direction
from genflow.core import Denoised, Network, Spec
from genflow.dequantize import centered
from genflow.diffusion import path
from genflow.models import build
from genflow.models import diffusion as models_diffusion
from genflow.models.diffusion import Likelihood, Process, Sampling, diffusion
from genflow.models.edm import preconditioned, preconditioning
from genflow.models.score_sde import WEIGHTINGS, score_matching
from genflow.report import images

MEAN, VARIANCE = jnp.array([0.3, -0.6]), jnp.array([0.25, 0.04])
POINTS = Spec("points", (2,), None)
SDES = {"VP": path.vp_sde(), "sub-VP": path.sub_vp_sde(), "VE": path.ve_sde()}


def draw(key, num):
    return MEAN + jnp.sqrt(VARIANCE) * jax.random.normal(key, (num, 2))


# Stochastic differential equations


def test_drift_and_diffusion_are_those_of_the_papers():
    for t in (1e-5, 0.01, 0.3, 0.9, 1.0):
        beta, integral = 0.1 + t * 19.9, 0.1 * t + 0.5 * t**2 * 19.9
        sigma = 0.01 * 5000**t
        expected = {
            "VP": (-0.5 * beta, beta),
            "sub-VP": (-0.5 * beta, beta * -np.expm1(-2 * integral)),
            "VE": (0.0, sigma**2 * 2 * np.log(5000)),
        }
        for name, (rate, squared) in expected.items():
            found = path.sde(path.at(SDES[name], jnp.asarray(t), 1))
            np.testing.assert_allclose(found, (rate, squared), rtol=1e-4)
    np.testing.assert_allclose(path.sde(path.at(path.karras(), jnp.asarray(7.0), 1)), (0.0, 14.0))


def test_marginals_are_those_of_the_papers():
    t = 0.4
    integral = 0.1 * t + 0.5 * t**2 * 19.9
    vp, sub_vp, ve = (path.at(p, jnp.asarray(t), 1) for p in SDES.values())
    np.testing.assert_allclose(vp[:2], (np.exp(-0.5 * integral), np.sqrt(-np.expm1(-integral))), rtol=1e-5)
    np.testing.assert_allclose(sub_vp[:2], (np.exp(-0.5 * integral), -np.expm1(-integral)), rtol=1e-5)
    np.testing.assert_allclose(ve[:2], (1.0, 0.01 ** (1 - t) * 50**t), rtol=1e-5)
    assert [(p.start, p.end, p.prior_std) for p in SDES.values()] == [(1e-5, 1, 1), (1e-5, 1, 1), (0, 1, 50)]
    assert path.karras()[2:5] == (0.002, 80, 80)


# Score matching


def knows(p, error=0.0):
    """A network that says E[eps | z] of the Gaussian data, and an error more."""

    def apply(params, inputs, cond, key=None):
        point = path.at(p, cond[0], 2)
        z = inputs * jnp.sqrt(point.alpha**2 + point.sigma**2)
        return point.sigma * (z - point.alpha * MEAN) / (point.alpha**2 * VARIANCE + point.sigma**2) + error

    return Network(lambda *arguments: {}, apply)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", SDES)
def test_the_loss_of_the_best_network_is_that_of_the_data_and_an_error_adds_to_it(name, weighting):
    """E ||eps - E[eps | z]||^2 = sum_i alpha^2 v_i / (alpha^2 v_i + sigma^2), over time or, halved, over log-SNR."""
    p, error = SDES[name], 0.5
    x = draw(jax.random.key(0), 40_000)

    @jax.jit
    def losses(key):
        best, worse = (
            score_matching(POINTS, knows(p, e), p, weighting).loss({}, {}, key, x, None)[0] for e in (0, error)
        )
        return best, worse - best

    best, added = (np.asarray(a, np.float64) for a in losses(jax.random.key(1)))
    ends = [float(path.log_snr(p, jnp.asarray(t))) for t in (p.end, p.start)]
    if weighting == "likelihood":
        values = np.log1p(np.exp(ends)[:, None] * np.asarray(VARIANCE)).sum(1)
        expected, weight = 0.5 * (values[1] - values[0]), 0.5 * (ends[1] - ends[0])
    else:
        t = jnp.linspace(p.start, p.end, 20_001)
        snr = np.exp(np.asarray(path.log_snr(p, t), np.float64))[:, None] * np.asarray(VARIANCE)
        expected, weight = (snr / (1 + snr)).sum(1).mean(), 1.0
    assert abs(best.mean() - expected / 2) < 4 * best.std() / np.sqrt(len(x))
    assert best.std() / np.sqrt(len(x)) < 0.02 * best.mean()
    assert abs(added.mean() - weight * error**2) < 4 * added.std() / np.sqrt(len(x)) + 1e-3 * weight


def test_choices_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="weighting='snr': expected one of sigma, likelihood"):
        score_matching(POINTS, knows(SDES["VP"]), SDES["VP"], "snr")
    with pytest.raises(ValueError, match="data_std=0.0 and noise_std=1.2 must be above zero"):
        preconditioned(POINTS, knows(SDES["VP"]), data_std=0.0)


# EDM


def test_preconditioning_has_unit_variance_inside_and_out():
    std = 0.5
    for sigma in (1e-3, 0.002, 0.1, 0.5, 3.0, 80.0, 1e3):
        p = preconditioning(np.float64(sigma), std)
        skip, out, inside, noise = (float(a) for a in p)
        np.testing.assert_allclose(inside**2 * (std**2 + sigma**2), 1.0, rtol=1e-5)
        target = ((1 - skip) ** 2 * std**2 + skip**2 * sigma**2) / out**2
        np.testing.assert_allclose(target, 1.0, rtol=1e-3 if sigma > 0.01 else 0.05)
        covariance = inside * ((1 - skip) * std**2 - skip * sigma**2) / out  # what is left to say is not said by z
        np.testing.assert_allclose(covariance, 0.0, atol=1e-3)
        np.testing.assert_allclose(noise, np.log(sigma) / 4, rtol=1e-5)
    clean, noisy = preconditioning(jnp.asarray(1e-4), std), preconditioning(jnp.asarray(1e4), std)
    np.testing.assert_allclose(clean[:3], (1.0, 1e-4, 2.0), rtol=1e-4)
    np.testing.assert_allclose(noisy[:3], (0.0, 0.5, 1e-4), rtol=1e-4, atol=1e-6)


def test_the_losses_of_edm_are_known():
    """A silent network has loss 1 on N(0, data_std^2) at every level; the best one of N(0, v) has its own."""
    std, x = 0.5, 0.5 * jax.random.normal(jax.random.key(0), (40_000, 2))
    silent = Network(lambda *arguments: {}, lambda params, z, cond, key=None: 0.0 * z)
    for level in (-6.0, -1.2, 3.0):
        values = preconditioned(POINTS, silent, std, level, 0.3).loss({}, {}, jax.random.key(1), x, None)[0]
        assert abs(float(values.mean()) - 1) < 0.03

    variance = 0.01

    def best(params, inside, cond, key=None):
        sigma = jnp.exp(40 * cond[0])[:, None]  # time is ln(sigma) / 4, a tenth of it
        p = preconditioning(sigma, std)
        z = inside / p.inside
        return (variance / (variance + sigma**2) - p.skip) * z / p.out

    process = preconditioned(POINTS, Network(lambda *arguments: {}, best), std, fastest=10.0)
    values = np.asarray(process.loss({}, {}, jax.random.key(2), 0.2 * x, None)[0], np.float64)
    u = np.linspace(-6, 6, 4001)
    squared = np.exp(2 * (-1.2 + 1.2 * u))
    density = np.exp(-0.5 * u**2) / np.exp(-0.5 * u**2).sum()
    expected = ((squared + std**2) / (squared * std**2) * variance * squared / (variance + squared) * density).sum()
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values))
    assert values.std() / np.sqrt(len(values)) < 0.01
    found = process.denoise({}, jnp.array([[0.4, -0.2]]), jnp.array([0.3]))
    np.testing.assert_allclose(found.x, variance / (variance + 0.09) * np.array([[0.4, -0.2]]), rtol=1e-4)
    np.testing.assert_allclose(found.x + 0.3 * found.noise, [[0.4, -0.2]], rtol=1e-5)


# Likelihood


def gaussian(spec, p, mean, covariance, tolerance=1e-6):
    """The diffusion model of N(mean, covariance) that denoises as well as can be."""
    values, vectors = (jnp.asarray(a, jnp.float32) for a in np.linalg.eigh(covariance))

    def denoise(params, z, t, c=None, key=None):
        point = path.at(p, t, z.ndim)
        shrink = point.alpha * values / (point.alpha**2 * values + point.sigma**2)
        x = mean + shrink * ((z - point.alpha * mean) @ vectors) @ vectors.T
        return Denoised(x, (z - point.alpha * x) / point.sigma)

    process = Process(lambda key, x, c: {}, lambda params: p, denoise, None)
    return diffusion(spec, process, Sampling(), Likelihood("ode", tolerance, tolerance))


def log_normal(x, mean, covariance):
    offset = np.asarray(x, np.float64) - mean
    return -0.5 * (
        (offset @ np.linalg.inv(covariance) * offset).sum(1) + np.linalg.slogdet(2 * np.pi * np.asarray(covariance))[1]
    )


def correlated(dims):
    factor = np.random.default_rng(0).normal(size=(dims, dims)) / math.sqrt(dims)
    return factor @ factor.T + 0.1 * np.eye(dims)


@pytest.mark.parametrize("dims", [3, 17])
def test_the_likelihood_of_correlated_data_is_exact_and_unbiased_where_it_is_estimated(dims):
    covariance, mean, num = correlated(dims), np.linspace(-0.5, 0.5, dims), 400
    model = gaussian(Spec("points", (dims,), None), path.vp_sde(), jnp.asarray(mean, jnp.float32), covariance)
    assert model.bound == ("exact" if dims <= 16 else "estimate")
    x = jnp.repeat(jnp.asarray(mean + 0.3 * np.arange(dims) / dims, jnp.float32)[None], num, axis=0)
    log_prob, calls = jax.jit(lambda key: model.diffusion.ode_log_prob({"model": {}}, {}, key, {"x": x}, 1e-6, 1e-6))(
        jax.random.key(0)
    )
    log_prob, truth = np.asarray(log_prob, np.float64), log_normal(x[:1], mean, covariance)[0]
    error = log_prob.std() / np.sqrt(num)
    if dims <= 16:
        np.testing.assert_allclose(log_prob, truth, atol=5e-3)
    else:
        assert 0.01 < error < 0.3
        assert abs(log_prob.mean() - truth) < 4 * error
    assert 50 < int(calls) < 2000


def box(mean, std, bins):
    """The mass that N(mean, std^2) has in the bins of integers, which are scaled to [-1, 1]."""
    edges = (np.arange(bins + 1) - 0.5) * 2 / (bins - 1) - 1
    cumulative = [0.5 * math.erf((e - mean) / std / math.sqrt(2)) for e in edges]
    return np.diff(cumulative)


@pytest.mark.parametrize("std", [0.3, 0.9])
def test_the_masses_of_all_integers_are_those_of_their_bins(std):
    bins, mean, num = 4, np.array([0.2, -0.1]), 400
    model = gaussian(Spec("integers", (2,), bins), path.vp_sde(), jnp.asarray(mean, jnp.float32), std**2 * np.eye(2))
    pairs = np.array(list(itertools.product(range(bins), repeat=2)))
    x = jnp.asarray(np.repeat(pairs, num, axis=0))
    assert model.bound == "lower"
    log_prob = jax.jit(lambda key: model.log_prob({"model": {}}, {}, key, {"x": x}))(jax.random.key(0))
    log_prob = np.asarray(log_prob, np.float64).reshape(len(pairs), num)
    masses = np.exp(log_prob)
    errors = masses.std(1) / np.sqrt(num)
    truth = np.outer(box(mean[0], std, bins), box(mean[1], std, bins)).reshape(-1)
    assert (np.abs(masses.mean(1) - truth) < 4.5 * errors + 1e-4).all()
    assert abs(masses.mean(1).sum() - truth.sum()) < 4 * np.sqrt((errors**2).sum())
    assert truth.sum() > 0.98 if std < 0.5 else truth.sum() < 0.95
    assert (log_prob.mean(1) < np.log(truth) + 4 * log_prob.std(1) / np.sqrt(num)).all()


# Interpolation


def test_an_arc_has_its_ends_and_keeps_lengths_and_angles():
    one, other = jnp.array([[3.0, 0.0], [1.0, 2.0]]), jnp.array([[0.0, 3.0], [1.0, 2.0]])
    np.testing.assert_allclose(slerp(one, other, 0.0), one, atol=1e-6)
    np.testing.assert_allclose(slerp(one, other, 1.0), other, atol=1e-6)
    third = slerp(one, other, 1 / 3)
    np.testing.assert_allclose(third[0], (3 * np.cos(np.pi / 6), 3 * np.sin(np.pi / 6)), rtol=1e-5)
    np.testing.assert_allclose(third[1], (1.0, 2.0), rtol=1e-5)  # to itself
    z = jax.random.normal(jax.random.key(0), (2, 50, 40, 3))
    middle = slerp(z[0], z[1], 0.5)
    assert abs(float((middle**2).mean()) - 1) < 0.05


def test_a_walk_between_examples_has_both_at_its_ends_and_goes_through_the_latents():
    covariance = correlated(3)
    model = gaussian(Spec("points", (3,), None), path.vp_sde(), jnp.zeros(3), covariance)
    ones, others = ({"x": jax.random.normal(jax.random.key(i), (2, 3))} for i in (0, 1))
    walk = interpolate(model, {"model": {}}, {}, ones, others, 5)
    assert walk.shape == (2, 5, 3)
    np.testing.assert_allclose(walk[:, 0], ones["x"], atol=2e-3)
    np.testing.assert_allclose(walk[:, -1], others["x"], atol=2e-3)
    # the flow of a centred Gaussian is linear: z = C^(-1/2) x
    values, vectors = np.linalg.eigh(covariance)
    whiten, color = (vectors * values**power @ vectors.T for power in (-0.5, 0.5))
    middle = slerp(ones["x"] @ whiten, others["x"] @ whiten, 0.5) @ color
    np.testing.assert_allclose(walk[:, 2], middle, atol=5e-3)


def test_the_condition_of_a_walk_is_that_of_the_nearer_end():
    def encode(params, state, key, batch):
        return batch["x"] - 10.0 * batch["label"][:, None]

    def decode(params, state, z, cond):
        return z + 10.0 * cond["label"][:, None]

    model = gaussian(POINTS, path.vp_sde(), jnp.zeros(2), np.eye(2))._replace(encode=encode, decode=decode)
    ones = {"x": jnp.ones((1, 2)), "label": jnp.array([0])}
    others = {"x": jnp.full((1, 2), 31.0), "label": jnp.array([3])}
    walk = interpolate(model, {}, {}, ones, others, 4)
    np.testing.assert_allclose(walk[0], [[1, 1], [1, 1], [31, 31], [31, 31]], atol=1e-5)
    with pytest.raises(ValueError, match="needs a model that encodes"):
        interpolate(model._replace(encode=None), {}, {}, ones, others, 4)
    with pytest.raises(ValueError, match="num=1 points"):
        interpolate(model, {}, {}, ones, others, 1)


def test_the_picture_of_walks_shows_both_images_and_says_how_far_the_ends_are_from_them():
    ones, others = np.zeros((2, 4, 4, 1), np.uint8), np.full((2, 4, 4, 1), 7, np.uint8)
    walks = np.linspace(ones, others.astype(np.float32), 3, axis=1)
    walks[1, -1, 0, 0] = 5.0
    picture = images.interpolations(ones, walks, others, 8)
    assert list(picture.rows) == ["pair 1", "pair 2"]
    row = picture.rows["pair 1"][:, :, 0]
    assert row.shape[1] > 4 * row.shape[0]  # five images beside one another
    assert (row[0, 0], row[0, -1]) == (0, 255)
    assert "differ from them by 2 of 7 levels at most" in picture.note


# Comparison of bounds


class Parts(types.SimpleNamespace):
    """What `bounds` asks of a trained run."""


def measured(question, **changes):
    """Lines by name of a made-up model of N(0, I): a bound of which everything is known, and the exact flow."""
    spec = Spec("points", (2,), None)
    model = gaussian(spec, path.vp_sde(), jnp.zeros(2), np.eye(2))

    def terms(params, state, key, batch, i):  # 0 .. 4: mean 2 each
        return 2.0 + 0.1 * jax.random.normal(jax.random.fold_in(key, i), (len(batch["x"]),))

    def log_weights(params, state, key, batch, num):  # E exp = exp(-3)
        return -3.0 - 0.5 * 0.2**2 + 0.2 * jax.random.normal(key, (len(batch["x"]), num))

    def log_prob(params, state, key, batch):
        return -5.0 + jax.random.normal(key, (len(batch["x"]),))

    model = model._replace(
        log_prob=log_prob,
        bound="average",
        log_weights=log_weights,
        diffusion=model.diffusion._replace(terms=terms, num_terms=4),
    )._replace(**changes)
    config = Parts(model={"name": "glow"}, eval=Parts(samples_per_call=7), compute=Parts(network_precision="float32"))
    experiment = Parts(model=model, spec=spec, config=config)
    trained = Parts(experiment=experiment, params={"model": {}}, state={})
    x = np.asarray(jax.random.normal(jax.random.key(9), (question.num, 2)))
    found = {}
    for method in bounds.methods(trained, question):
        values, line = bounds._measure(trained, method, {"x": x}, question)
        found[method.name] = (values, line, method.kind)
    return x, found


def test_every_likelihood_of_one_model_is_measured_with_its_errors_and_cost():
    question = bounds.Question(num=5, samples=14, repeats=8, batch_size=2, tolerances=(1e-3, 1e-6))
    x, found = measured(question)
    assert list(found) == [
        "bound, sum of 5 terms",
        "bound, 14 random times",
        "importance weighting, 14 chains",
        "probability flow, tolerance 0.001",
        "probability flow, tolerance 1e-06",
    ]
    (terms, random, chains, loose, tight) = found.values()
    for (values, *_), expected, own in (
        (terms, 10.0, 0.1 * math.sqrt(5 / 8)),
        (random, 5.0, 14**-0.5),
        (chains, 3.0, 0.05),
    ):
        assert values.shape == (5, 2)
        assert (np.abs(values[:, 0] - expected) < 5 * own).all()
        assert values[:, 0].std() > 0.1 * own
        np.testing.assert_allclose(values[:, 1], own, rtol=1.0)
    assert [line["network_calls"] for _, line, _ in (terms, random, chains)] == [4 * 8, 14, 14 * 4]
    assert [line["draws"] for _, line, _ in found.values()] == [8, 14, 14, 8, 8]
    effective = chains[1]["effective_draws"]
    assert 10 < effective["least"] < effective["mean"] < 14
    assert effective["examples_with_few"] == 0
    truth = -log_normal(x, np.zeros(2), np.eye(2))
    np.testing.assert_allclose(tight[0][:, 0], truth, atol=2e-4)
    assert not tight[0][:, 1].any()
    assert tight[1]["network_calls"] > loose[1]["network_calls"] > 8 * 10
    assert tight[2].startswith("the flow's -log p itself")


def test_all_are_compared_with_the_first_and_flows_with_one_another():
    loose, tight = "probability flow, tolerance 1", "probability flow, tolerance 0.1"
    assert bounds.pairs(["bound", loose, tight]) == [(loose, "bound"), (tight, "bound"), (tight, loose)]
    assert bounds.pairs([loose, tight]) == [(tight, loose)]


def test_what_a_model_does_not_have_is_not_measured():
    found = measured(bounds.Question(num=2), bound="exact", log_weights=None)[1]
    assert list(found) == [
        "bound, sum of 5 terms",
        "probability flow, tolerance 0.001",
        "probability flow, tolerance 1e-05",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num": 1}, "--num=1 must be 2 at least"),
        ({"samples": 1}, "--samples=1 must be 2 at least"),
        ({"tolerances": (1e-3, 0.0)}, "--tolerances=0.001,0.0: expected numbers above zero"),
    ],
)
def test_a_question_without_sense_is_refused(fields, message):
    with pytest.raises(bounds.UserError, match=message):
        bounds.check_question(bounds.Question(**fields))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of flow_matching_toy:debug."""
    folder = tmp_path_factory.mktemp("runs") / "matching"
    fields = {"train.num_steps": "2", "eval.every": "0", "eval.baselines": "false", "model.coupling": "independent"}
    train.train(cli.load_config("configs/flow_matching_toy.py:debug", fields), str(folder))
    return folder


def script(monkeypatch, run, *words):
    monkeypatch.setattr("sys.argv", ["compare_bounds.py", f"--workdir={run}", *words])
    runpy.run_path(str(cli.ROOT / "scripts" / "compare_bounds.py"), run_name="__main__")


def test_the_script_prints_a_table_or_json_and_writes_strict_json(run, monkeypatch, capsys):
    words = ("--num=3", "--tolerances=1e-2", "--samples=2", "--batch_size=2")
    capsys.readouterr()
    script(monkeypatch, run, *words)
    table = capsys.readouterr().out
    assert "-log p(x) of 3 test examples (moons), nats, lower is better" in table
    text = (run / "bounds.json").read_text("utf-8")
    record = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    random, flow = record["methods"]
    assert [line["name"] for line in record["methods"]] == ["bound, 2 random times", "probability flow, tolerance 0.01"]
    for line in (random, flow):
        assert f"{line['value']:.4f} +- {line['standard_error']:.4f} ({line['monte_carlo_error']:.4f})" in table
        assert line["kind"] in table
    assert record["gaps"][0]["value"] == pytest.approx(flow["value"] - random["value"], abs=1e-5)
    assert (record["unit"], record["num_examples"]) == ("nats", 3)
    assert record["params_sha256"] == json.loads((run / "record.json").read_text("utf-8"))["params_sha256"]
    script(monkeypatch, run, *words, "--json")
    assert json.loads(capsys.readouterr().out)["methods"][1]["value"] == flow["value"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--num=20000", "--num=20000 examples of test: there are 10000"),
        ("--repeats=1", "--repeats=1 must be 2 at least"),
    ],
)
def test_the_script_refuses_in_a_sentence(run, monkeypatch, capsys, word, message):
    with pytest.raises(SystemExit, match="2"):
        script(monkeypatch, run, word)
    assert message in capsys.readouterr().err


def test_a_run_without_a_diffusion_model_is_refused(monkeypatch, tmp_path):
    model = Parts(diffusion=None)
    experiment = Parts(model=model, config=Parts(model=Parts(name="glow")))
    monkeypatch.setattr(bounds, "load_trained", lambda *arguments: Parts(experiment=experiment))
    with pytest.raises(bounds.UserError, match="glow is no diffusion model"):
        bounds.compare_bounds(str(tmp_path), bounds.Question())


def test_the_probe_of_a_trace_is_independent_of_the_noise_of_dequantization(monkeypatch):
    spec, seen = Spec("integers", (40,), 4), []

    def recorded(y, key):
        probe = one_direction(y, key)
        seen.append((y, probe[0]))
        return probe

    monkeypatch.setattr(models_diffusion, "one_direction", recorded)
    model = build({"name": "score_sde", "width": 4, "blocks": 1, "rtol": 1.0, "atol": 1.0}, spec)
    x = jax.random.randint(jax.random.key(0), (16, 40), 0, 4)
    params, state = model.init(jax.random.key(1), {"x": x})
    model.log_prob(params, state, jax.random.key(2), {"x": x})
    ((y, probe),) = seen
    same = (y > centered(spec).forward({}, x)[0]) == (probe > 0)
    assert abs(float(same.mean()) - 0.5) < 5 * 0.5 / x.size**0.5
