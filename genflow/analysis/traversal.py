"""What the latents of a model show when they are moved: the plane of two, levels drawn anew, means of samples."""

from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np

from genflow.core import Key, Model, Params
from genflow.distributions import standard_normal_log_prob
from genflow.hosts import to_host

ROWS = 20  # of the plane of two latents
CUTS = 6  # rows of a hierarchy's levels, at most


def latent_shapes(model: Model, params: Params, state) -> list[tuple[int, ...]]:
    """Shapes of the leaves of one example's latents."""
    z = jax.eval_shape(lambda p, s: model.latent.generate(p, s, jax.random.key(0), 1), params, state)
    return [leaf.shape[1:] for leaf in jax.tree.leaves(z)]


def plane(model: Model, params: Params, state, rows: int = ROWS) -> np.ndarray | None:
    """E[x | z] at rows x rows quantiles of two latents, row by row from above; None unless their prior is N(0, I).

    Reference: Kingma and Welling (2014), arXiv:1312.6114, figure 4.
    """
    if latent_shapes(model, params, state) != [(2,)]:
        return None
    quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / rows) for i in range(rows)], np.float32)
    across, down = np.meshgrid(quantiles, quantiles[::-1])
    z = np.stack([across, down], -1).reshape(-1, 2)
    structure = jax.tree.structure(jax.eval_shape(lambda: model.latent.generate(params, state, jax.random.key(0), 1)))
    decode = jax.jit(lambda p, s, z: model.decode(p, s, structure.unflatten([z])))

    @jax.jit
    def log_prior(params, state, z):
        x = jnp.zeros_like(decode(params, state, z))  # joint asks for data; the prior does not depend on them
        return model.latent.joint(params, state, jax.random.key(0), structure.unflatten([z]), {"x": x})[0].sum(0)

    if not np.allclose(to_host(log_prior(params, state, z)), standard_normal_log_prob(z), atol=1e-3):
        return None
    return to_host(decode(params, state, z))


def sample_means(model: Model, params: Params, state, key: Key, num: int) -> np.ndarray:
    """E[x | z] for z of the prior: samples without the noise of the observation."""
    draw = jax.jit(lambda p, s, key: model.decode(p, s, model.latent.generate(p, s, key, num)))
    return to_host(draw(params, state, key))


def posterior_draw(model: Model, params: Params, state, key: Key, batch) -> np.ndarray:
    """E[x | z] for one draw z of q(z | x)."""
    draw = jax.jit(lambda p, s, key, batch: model.decode(p, s, model.latent.infer(p, s, key, batch).z))
    return to_host(draw(params, state, key, batch))


def levels_from_data(model: Model, params: Params, state, key: Key, batch) -> dict[int, np.ndarray]:
    """E[x | z] with levels 1 .. n at the mode of q(z | x) and the rest drawn from the prior, for several n.

    What a row shares with the data is what its levels hold.

    Reference: Havtorn et al. (2021), Hierarchical VAEs know what they don't know, arXiv:2102.08248, figure 3.
    """
    num_levels = model.latent.num_levels

    @jax.jit
    def draw(params, state, kept):
        from_data = jnp.arange(num_levels) < kept
        drawn = model.latent.infer(params, state, key, batch, from_data, jnp.where(from_data, 0.0, 1.0))
        return model.decode(params, state, drawn.z)

    kept = np.unique(np.linspace(0, num_levels, min(num_levels + 1, CUTS)).round().astype(int))[::-1]
    return {int(n): to_host(draw(params, state, n)) for n in kept}
