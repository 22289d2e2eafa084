"""What --mode=sample does with test examples, prompts and truncation."""

import numpy as np
import pytest

from genflow import cli, train, use
from genflow.data.embedded import digits
from genflow.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of an autoregressive run, of a flow and of a diffusion model."""
    folder = tmp_path_factory.mktemp("runs")
    fields = {"train.num_steps": "2", "eval.every": "0", "eval.baselines": "false"}
    own = {"flow_matching_toy": {"model.coupling": "independent"}}  # a velocity with a score: what completions need
    for name in ("markov_digits", "realnvp_toy", "flow_matching_toy"):
        config = cli.load_config(f"configs/{name}.py:debug", fields | own.get(name, {}))
        train.train(config, str(folder / name))
    return folder


def test_given_keeps_the_upper_rows_of_test_examples_and_draws_the_rest(runs):
    drawn = use.sample_run(str(runs / "markov_digits"), num=6, given=0.5)
    test = digits()[1]["test"].arrays["x"][np.linspace(0, 359, 6).astype(int)]
    np.testing.assert_array_equal(drawn[:, :4], test[:, :4])
    assert (drawn[:, 4:] != test[:, 4:]).any()
    assert (runs / "markov_digits" / "samples" / "num_6_temperature_1_seed_0_given_0.5.png").is_file()


def test_the_likeliest_value_alone_is_what_temperature_zero_draws(runs):
    run = str(runs / "markov_digits")
    greedy, cold = use.sample_run(run, num=2, top_k=1), use.sample_run(run, num=2, temperature=0.0)
    np.testing.assert_array_equal(greedy, cold)
    assert (runs / "markov_digits" / "samples" / "num_2_temperature_1_seed_0_top_k_1.npy").is_file()


def test_a_diffusion_model_draws_by_the_sampler_that_is_asked_for(runs, monkeypatch, capsys):
    run = str(runs / "flow_matching_toy")
    plain, same = use.sample_run(run, num=4), use.sample_run(run, num=4, sampler="ddim", sampler_steps=50)
    np.testing.assert_array_equal(plain, same)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    capsys.readouterr()
    other = use.sample_run(run, num=4, sampler="heun", sampler_steps=18, spacing="karras")
    assert np.abs(other - plain).min() > 0
    named = "num_4_temperature_1_seed_0_sampler_heun_sampler_steps_18_spacing_karras"
    assert (runs / "flow_matching_toy" / "samples" / f"{named}.npy").is_file()
    steps = capsys.readouterr().err.split("\r")[1:]
    assert sorted(steps) == sorted(f"  drawing: step {i}/17" + "\n" * (i == 17) for i in range(1, 18))


def test_a_diffusion_model_completes_test_examples(runs):
    run = str(runs / "flow_matching_toy")
    one, two = (use.sample_run(run, num=4, given=0.5, sampler_steps=5, resample=r) for r in (1, 2))
    np.testing.assert_array_equal(one[:, 0], two[:, 0])
    assert (one[:, 1] != two[:, 1]).all()
    assert len(list((runs / "flow_matching_toy" / "samples").glob("*given_0.5_sampler_steps_5_resample_*.npy"))) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("realnvp_toy", {"given": 0.5}, "diffusion models too; coupling_flow is neither"),
        ("markov_digits", {"given": 0.5, "prompt": "x"}, "two ways to begin"),
        ("markov_digits", {"prompt": "x"}, "--prompt is for models of text"),
        ("markov_digits", {"sampler": "heun"}, "--sampler is for diffusion models; markov is none"),
        ("markov_digits", {"guidance": 0.0}, "--guidance is for diffusion models; markov is none"),
        ("markov_digits", {"given": 0.5, "resample": 2}, "--resample is for diffusion models; markov is none"),
        ("flow_matching_toy", {"resample": 2}, "--resample is for --given, which completes test examples"),
        ("flow_matching_toy", {"guidance": 2.0}, "guidance=2.0 needs a model that was trained with and without"),
        ("flow_matching_toy", {"given": 0.5, "top_k": 2}, "--mode=sample: top_k, top_p, method and num_sites are for"),
        ("flow_matching_toy", {"temperature": (1.0, 0.5)}, "--mode=sample: a diffusion model has one temperature"),
        ("markov_digits", {"temperature": (1.0, 0.5)}, "--mode=sample: an autoregressive model has one temperature"),
    ],
)
def test_what_a_run_has_no_use_for_is_refused(runs, name, options, message):
    with pytest.raises(UserError, match=message):
        use.sample_run(str(runs / name), num=2, **options)
