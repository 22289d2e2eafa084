"""What moved latents show: the plane of two standard normal ones, and levels that come from the data."""

import jax
import jax.numpy as jnp
import numpy as np
from test_models import BINARY, VAE, made

from genflow.analysis import traversal
from genflow.models import build


def test_the_plane_decodes_quantiles_row_by_row_from_above_and_only_under_a_standard_normal_prior():
    model = build(VAE | {"latent_dims": 2}, BINARY)
    params, state = jax.jit(model.init)(jax.random.key(0), {"x": np.zeros((1, 4, 4, 1), np.uint8)})
    plane = traversal.plane(model, params, state, rows=3)
    far = 0.967421566  # the quantile of 5/6
    z = np.zeros((9, 2), np.float32)
    z[[0, 2, 6, 8]] = (-far, far), (far, far), (-far, -far), (far, -far)
    corners = [0, 2, 4, 6, 8]
    assert plane.shape == (9, 4, 4, 1)
    np.testing.assert_allclose(plane[corners], jax.jit(model.decode)(params, state, z)[jnp.array(corners)], rtol=1e-4)
    assert np.ptp(plane, axis=0).max() > 1e-3

    def joint(*arguments):  # of another prior
        log_prior, log_likelihood = model.latent.joint(*arguments)
        return log_prior + 0.1 * arguments[3][:, 0], log_likelihood

    other = model._replace(latent=model.latent._replace(joint=joint))
    assert traversal.plane(other, params, state, rows=3) is None
    three, _, *parts, _ = made("vae")
    assert traversal.latent_shapes(three, *parts) == [(3,)]
    assert traversal.plane(three, *parts) is None


def test_levels_from_the_data_are_modes_from_above_and_the_rest_is_drawn():
    """A decoder that shows its latents too, levels of 2 and 3 dimensions."""
    model, _, params, state, batch = made("iwae")

    def decode(params, state, z):
        return jnp.concatenate([*z, model.decode(params, state, z).reshape(len(batch["x"]), -1)], 1)

    seen = model._replace(decode=decode)
    kept = traversal.levels_from_data(seen, params, state, jax.random.key(1), batch)
    modes = jax.jit(lambda p, s, b: decode(p, s, model.encode(p, s, None, b)))(params, state, batch)
    assert list(kept) == [2, 1, 0]
    np.testing.assert_allclose(kept[2], modes, rtol=1e-4, atol=1e-5)
    same = {n: np.isclose(rows, modes, rtol=1e-4, atol=1e-5).all(0)[:5].tolist() for n, rows in kept.items()}
    assert same[1] == [True, True, False, False, False]
    assert same[0] == [False] * 5
