"""WaveNet: what the two tables of causal networks and models do not ask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import SOUND, WAVENET

from configs import wavenet_ljspeech, wavenet_speech
from genflow.errors import UserError
from genflow.models import build
from genflow.networks import receptive_field, wavenet
from genflow.samplers import draw_sites

FRAMES = 3


@pytest.fixture(scope="module")
def local():
    """(network, parameters, sites, frames) of a network of three taps, in float64."""
    with jax.enable_x64(True):
        network = wavenet((1, 3), 4, 8, 4, kernel=3)(5)
        x = jax.random.randint(jax.random.key(0), (2, 15, 1), 0, 4)
        frames = jax.random.normal(jax.random.key(1), (2, FRAMES, 2), jnp.float64)
        shapes, rng = jax.eval_shape(network.init, jax.random.key(2), x, frames), np.random.default_rng(0)
        params = jax.tree.map(lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape)), shapes)
        return network, params, x, frames


def test_the_jacobian_reaches_as_far_back_as_the_receptive_field_says(local):
    network, params, x, frames = local
    with jax.enable_x64(True):
        codes = jax.nn.one_hot(x[:1, :, 0], 4, dtype=jnp.float64)  # the embedding is linear in them

        def last(codes):
            embedded = params | {"codes_kernel": jnp.einsum("blv,kvw->klw", codes, params["codes_kernel"])}
            sites = jnp.arange(x.shape[1])[None, :, None]
            return network.apply(embedded, sites, frames[:1])[0, -1]

        moved = np.abs(np.asarray(jax.jit(jax.jacobian(last))(codes))).max((0, 1, 3))
    field = receptive_field(3, (1, 3))
    assert field == 11
    assert (moved[-field - 1 : -1] > 1e-6).all()
    assert not moved[-1]
    assert not moved[: -field - 1].any()


def test_the_window_holds_all_that_an_output_sees_and_no_more(local):
    network, params, x, _ = local
    rows, size = network.window
    with jax.enable_x64(True):
        apply = jax.jit(network.apply)
        whole, just, short = (apply(params, x[:, -length:])[:, -1] for length in (x.shape[1], rows, rows - 1))
    assert size == 1
    np.testing.assert_allclose(just, whole, rtol=1e-12, atol=1e-12)
    assert (np.abs(short - whole) > 1e-6).any()


@pytest.mark.parametrize("config", [wavenet_speech, wavenet_ljspeech])
def test_an_experiment_says_its_receptive_field(config):
    section = config.get_config().model
    field = receptive_field(section.kernel, section.dilations * section.cycles)
    assert f"{field:,} samples of receptive field" in config.__doc__


def test_a_frame_conditions_its_own_samples_and_those_that_see_them(local):
    network, params, x, frames = local
    length = x.shape[1] // FRAMES
    with jax.enable_x64(True):
        both = jnp.concatenate([frames[:1], frames[:1].at[:, 1].add(1.0)])
        raw = np.asarray(jax.jit(network.apply)(params, jnp.repeat(x[:1], 2, 0), both))
    moved = np.abs(raw[1] - raw[0]).max(-1) > 1e-9
    assert not moved[:length].any()
    assert moved[length:].all()  # the field is longer than the frame


def test_steps_under_local_conditions_give_what_the_whole_evaluation_gives(local):
    network, params, x, frames = local
    with jax.enable_x64(True):

        @jax.jit
        def both(params, x, frames):
            def one_step(cache, i):
                raw, cache = network.step(params, cache, x, i, frames)
                return cache, raw

            steps = jax.lax.scan(one_step, network.start(params, len(x), frames), jnp.arange(x.shape[1]))[1]
            constant = jnp.broadcast_to(frames[:, :1], frames.shape)
            return (
                steps.swapaxes(0, 1),
                network.apply(params, x, frames),
                [network.apply(params, x, cond) for cond in (constant, frames[:, 0])],
            )

        with pytest.raises(ValueError, match="one condition for all"):  # where the frames begin, no window knows
            draw_sites("windowed", network, None, params, jax.random.key(0), x, None, frames)
        steps, raw, (framed, single) = both(params, x, frames)
    np.testing.assert_allclose(steps, raw, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(framed, single, rtol=1e-12, atol=1e-12)  # a global condition is one long frame


def test_the_first_prediction_is_nearly_uniform():
    model = build(WAVENET | {"conditional": False, "width": 32, "skip_width": 32}, SOUND._replace(bins=256))
    x = jax.random.randint(jax.random.key(0), (2, *SOUND.shape), 0, 256)
    params, state = jax.jit(model.init)(jax.random.key(1), {"x": x})
    bits = -jax.jit(model.log_prob)(params, state, None, {"x": x}) / SOUND.dims / np.log(2)
    np.testing.assert_allclose(bits, 8.0, atol=0.1)


@pytest.mark.parametrize("change", [{"width": 0}, {"dilations": ()}, {"dilations": (1, 0)}, {"kernel": 1}])
def test_a_size_that_is_no_size_is_refused(change):
    with pytest.raises(UserError, match="kernel="):
        build(WAVENET | change, SOUND)
