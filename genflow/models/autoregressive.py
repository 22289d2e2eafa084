"""The autoregressive model: a causal network, the distribution of a site given its output, the chain rule."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from genflow.core import CausalNetwork, Model, Spec
from genflow.distributions import Output, bernoulli, categorical
from genflow.models.flow import conditioning, draw_condition
from genflow.samplers import draw_sites


def autoregressive(
    spec: Spec, network: CausalNetwork, output: Output, site_size: int = 1, conditional: bool = False
) -> Model:
    """Log p(x) = sum_i log p(x_i | x_1 .. x_(i-1)), a site being `site_size` consecutive integers of the flat event.

    log_prob is exact. `sample` draws by the network's cached steps, `complete` by any method of `samplers.METHODS`.

    Args:
      conditional: log p(x | c) with c the label, one-hot, beside the vector 'cond' of the batch, where there are such.

    Raises:
      ValueError: continuous data; conditional, but the data have neither labels nor condition vectors.
    """
    if spec.bins is None:
        raise ValueError(f"models discrete data; {spec.name} is continuous")
    condition = conditioning(spec, conditional)

    def sites(x):
        return x.reshape(x.shape[0], -1, site_size).astype(jnp.int32)

    def init(key, batch):
        return {"model": network.init(key, sites(batch["x"]), condition(batch))}, {}

    def site_log_prob(params, state, key, batch):
        x = sites(batch["x"])
        return output.log_prob(network.apply(params["model"], x, condition(batch)), x)

    def log_prob(params, state, key, batch):
        return site_log_prob(params, state, key, batch).sum(1)

    def loss(params, state, key, batch):
        x = sites(batch["x"])
        raw = network.apply(params["model"], x, condition(batch), key)
        nll = -output.log_prob(raw, x).sum(1).mean()
        return nll, (state, {"nll": nll})

    def sample(params, state, key, num, cond=None, temperature=1.0):
        x = jnp.zeros((num, *spec.shape), jnp.int32)
        return complete(params, state, key, x, jnp.zeros(spec.shape, bool), cond, temperature)

    def complete(
        params, state, key, x, known, cond=None, temperature=1.0, top_k=0, top_p=1.0, method="cached", num_sites=None
    ):
        if isinstance(temperature, tuple):
            raise ValueError("an autoregressive model has one temperature")
        if output.truncate is None and (top_k or top_p < 1):
            raise ValueError("top_k and top_p cut the values of a softmax; this model's output is none")
        cond = draw_condition(spec, key, x.shape[0]) | dict(cond or {}) if conditional else {}

        def draw(key, raw):
            if top_k or top_p < 1:
                tempered = output.truncate(raw / jnp.maximum(temperature, 1e-6), top_k, top_p)
                raw = jnp.where(jnp.isneginf(tempered), -jnp.inf, raw)
            return output.sample(key, raw, temperature)

        known = whole_sites(sites, known, x.shape)
        c = condition(cond)
        drawn = draw_sites(method, network, draw, params["model"], key, sites(x), known, c, num_sites)
        return drawn.sites.reshape(x.shape).astype(jnp.float32)

    return Model(
        *(init, {"model": loss}, sample, log_prob, "exact"),
        complete=complete,
        site_log_prob=site_log_prob,
        sites=sites,
        receptive_field=network.receptive_field,
    )


def whole_sites(sites, part, shape: tuple[int, ...]) -> Bool[Array, "B L"]:
    """Which sites of events of this shape (with the batch) a part marks.

    Raises:
      ValueError: some values of a site are marked and others are not.
    """
    if isinstance(part, jax.core.Tracer):
        return sites(jnp.broadcast_to(part, shape)).all(-1)
    with jax.ensure_compile_time_eval():
        marked = np.asarray(sites(jnp.broadcast_to(part, shape)), bool)
    if (marked.any(-1) != marked.all(-1)).any():
        raise ValueError("a part divides a site: this model draws the channels of a pixel together")
    return jnp.asarray(marked.all(-1))


def softmax_output(spec: Spec) -> Output:
    """The distribution of a value without any assumption: Bernoulli for two bins, a softmax over more."""
    return bernoulli() if spec.bins == 2 else categorical(spec.bins or 1)
