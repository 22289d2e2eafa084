"""What --mode=sample does with test examples, prompts and truncation."""

import numpy as np
import pytest

from genflow import cli, train, use
from genflow.data.embedded import digits
from genflow.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of an autoregressive run and of a flow."""
    folder = tmp_path_factory.mktemp("runs")
    fields = {"train.num_steps": "2", "eval.every": "0", "eval.baselines": "false"}
    for name in ("markov_digits", "realnvp_toy"):
        train.train(cli.load_config(f"configs/{name}.py:debug", fields), str(folder / name))
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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("realnvp_toy", {"given": 0.5}, "are for autoregressive models; coupling_flow is none"),
        ("markov_digits", {"given": 0.5, "prompt": "x"}, "two ways to begin"),
        ("markov_digits", {"prompt": "x"}, "--prompt is for models of text"),
        ("markov_digits", {"temperature": (1.0, 0.5)}, "--mode=sample: an autoregressive model has one temperature"),
    ],
)
def test_what_a_run_has_no_use_for_is_refused(runs, name, options, message):
    with pytest.raises(UserError, match=message):
        use.sample_run(str(runs / name), num=2, **options)
