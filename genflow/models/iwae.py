"""Importance weighted autoencoders: any number of levels, inferred from the data upwards."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec, sum_event
from genflow.distributions import normal_kl
from genflow.models.chain import Chain, as_gaussian, chain, check_sizes
from genflow.models.latent import Hierarchy, Objective, Walk, latent_variable
from genflow.models.observation import observation
from genflow.networks import activation_by_name, glorot_mlp


def iwae(
    spec: Spec,
    latents: tuple[int, ...] = (50,),
    widths: tuple[tuple[int, ...], ...] = ((200, 200),),
    activation: str = "tanh",
    likelihood: str = "auto",
    min_log_scale: float = -5.0,
    std: float = 0.0,
    samples: int = 50,
    gradient: str = "reparameterized",
) -> Model:
    """Log p(x) >= E[log (1/k) sum_k p(x, z_k) / q(z_k | x)], q(z | x) = q(z_L | x) q(z_(L-1) | z_L) ... q(z_1 | z_2).

    Level L, nearest to the data, is inferred first and generated last.

    Args:
      latents: sizes of the levels, nearest to the data first.
      widths: of the hidden layers between each level and what is below it; the decoder has them in the other order.
      likelihood, min_log_scale, std: see `observation`. The biases of Bernoulli logits start at the logits of the first
        batch's pixel means, clipped to 0.001 .. 0.999.
      samples, gradient: k, and the estimate of the bound's gradient; see `Objective`.

    Raises:
      ValueError: sizes, a likelihood that does not fit the data, or an unknown gradient.

    Reference: Burda et al. (2016), Importance weighted autoencoders, arXiv:1509.00519, equation 8 and section 5.
    """
    check_sizes(latents, widths)
    seen = observation(spec, likelihood, min_log_scale, std)
    is_binary = spec.bins == 2 and likelihood != "gaussian"
    down = chain(seen, latents, widths, activation_by_name(activation), is_binary=is_binary)
    hierarchy = bottom_up(down, latents, widths, activation)
    return latent_variable(spec, hierarchy, seen, Objective(samples=samples, gradient=gradient))


def bottom_up(down: Chain, latents: tuple[int, ...], widths: tuple[tuple[int, ...], ...], activation: str) -> Hierarchy:
    """q infers every level from the level below alone, p is a chain.

    A level that is to come from the prior is drawn in a second pass, from the top down; upwards q passes its mode
    there, whatever the temperature. log_posterior and kl are those of q given what it passed upwards.
    """
    num = len(latents)
    activate = activation_by_name(activation)
    layers = [glorot_mlp(d, w, activate, 2) for d, w in zip(latents, widths, strict=True)][::-1]
    names = [f"level_{i + 1}" for i in range(num)]

    def init(key, x):
        keys = jax.random.split(key, num + 1)
        inputs = [jnp.zeros((x.shape[0], d), x.dtype) for d in latents[-2::-1]] + [x]
        inference = {name: layers[i].init(keys[i], inputs[i]) for i, name in enumerate(names)}
        return {"inference": inference, "generation": down.init(keys[num], x)}

    def posterior(params, level, below):
        return as_gaussian(layers[level].apply(params["inference"][names[level]], below))

    def evidence(params, x):
        return posterior(params, num - 1, (x + 1) / 2)  # pixels in [0, 1], as the paper's

    def infer(params, key, e, from_posterior, temperature):
        keys = jax.random.split(key, num)
        q, drawn = {num - 1: e}, {}
        for i in reversed(range(num)):
            # q's draw of a level that p draws is not part of z: what is inferred from it is to be that of x
            drawn[i] = q[i].draw(keys[i], jnp.where(from_posterior[i], temperature[i], 0.0))
            q |= {i - 1: posterior(params, i - 1, drawn[i])} if i else {}
        z, p = (e.mean,), {}
        for i in range(num):
            p[i] = down.prior(params["generation"], i, z[-1])
            z += (jnp.where(from_posterior[i], drawn[i], p[i].draw(keys[i], temperature[i])),)
        z = z[1:]
        log_prior, log_posterior = (jnp.stack([of[i].log_prob(z[i]) for i in range(num)]) for of in (p, q))
        # only the level that q draws last has a closed form: the others' priors are given what was drawn from them
        top = sum_event(normal_kl(*q[0], *p[0]))
        kl = jnp.concatenate([top[None], (log_posterior - log_prior)[1:]])
        return Walk(z, down.decode(params["generation"], z[-1]), log_prior, log_posterior, kl)

    def log_posterior(params, e, z):
        q = [posterior(params, i, z[i + 1]) for i in range(num - 1)] + [e]
        return jnp.stack([one.log_prob(level) for one, level in zip(q, z, strict=True)])

    def joint(params, z):
        return down.joint(params["generation"], z)

    def generate(params, *arguments):
        return down.generate(params["generation"], *arguments)

    return Hierarchy(num, init, evidence, infer, joint, generate, log_posterior)
