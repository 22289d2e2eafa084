"""The normalizing flow as a model: a bijector, a base density, a dequantizer, one loss."""

import jax
import jax.numpy as jnp

from genflow.core import Bijector, Model, Spec
from genflow.dequantize import Dequantizer, dequantizer
from genflow.distributions import Base, standard_normal


def flow(
    spec: Spec,
    bijector: Bijector,
    noise: Dequantizer | None = None,
    base: Base | None = None,
    conditional: bool = False,
) -> Model:
    """Log p(x) = log p(f(x)) + log |det df/dx| for continuous data; discrete data are dequantized first.

    For discrete data log_prob is one draw of the dequantization bound ('lower'), for continuous data it is exact. The
    loss hands its key to the bijector, where estimates are stochastic; log_prob does not.

    Args:
      noise: of discrete data; uniform unless given.
      base: density of the latents; standard normal unless given.
      conditional: log p(x | c) with c the label, one-hot, beside the vector 'cond' of the batch, where there are such.

    Raises:
      ValueError: conditional, but the data have neither labels nor condition vectors.

    Reference: Rezende and Mohamed (2015), arXiv:1505.05770; Dinh et al. (2017), arXiv:1605.08803, equation 2.
    """
    noise = dequantizer(spec) if noise is None else noise
    base = standard_normal() if base is None else base
    condition = conditioning(spec, conditional)

    def init(key, batch):
        key_noise, key_flow = jax.random.split(key)
        c = condition(batch)
        params_noise, y = noise.init(key_noise, batch["x"], c)
        return {"model": {"noise": params_noise, "flow": bijector.init(key_flow, y, c)[0]}}, {}

    def transform(params, key, key_flow, batch):
        c = condition(batch)
        y, log_weight = noise.forward(params["model"]["noise"], batch["x"], c, key)
        z, log_det = bijector.forward(params["model"]["flow"], y, c, key_flow)
        return z, log_det + log_weight

    def log_prob(params, state, key, batch):
        z, log_det = transform(params, key, None, batch)
        return base.log_prob(z) + log_det

    def loss(params, state, key, batch):
        z, log_det = transform(params, key, jax.random.fold_in(key, 0), batch)
        nll = -(base.log_prob(z) + log_det).mean()
        return nll, (state, {"nll": nll})

    def sample(params, state, key, num, cond=None, temperature=1.0):
        key_cond, key = jax.random.split(key) if conditional else (None, key)
        cond = draw_condition(spec, key_cond, num) | dict(cond or {}) if conditional else cond
        example = jax.ShapeDtypeStruct((num, *spec.shape), jnp.uint8 if spec.bins else jnp.float32)
        batch = {"x": example} | (cond or {})
        shapes = jax.eval_shape(lambda b: transform(params, None, None, b)[0], batch)
        return decode(params, state, base.sample(key, shapes, temperature), cond)

    def encode(params, state, key, batch):
        return transform(params, key, None, batch)[0]

    def decode(params, state, z, cond=None):
        return noise.inverse(bijector.inverse(params["model"]["flow"], z, condition(cond or {}))[0])

    bound = "exact" if spec.bins is None else "lower"
    return Model(init, {"model": loss}, sample, log_prob, bound, encode, decode)


def conditioning(spec: Spec, conditional: bool):
    """Returns batch -> c [B, num_classes + cond_dims] or None.

    Raises:
      ValueError: there is nothing to condition on.
    """
    if not conditional:
        return lambda batch: None
    if not (spec.num_classes or spec.cond_dims):
        raise ValueError(f"conditional=True, but {spec.name} has neither labels nor condition vectors")

    wanted = ["label"] * bool(spec.num_classes) + ["cond"] * bool(spec.cond_dims)

    def condition(batch):
        if missing := [name for name in wanted if name not in batch]:
            raise ValueError(f"a conditional model needs {' and '.join(missing)} beside the examples")
        parts = [jax.nn.one_hot(batch["label"], spec.num_classes)] if spec.num_classes else []
        parts += [batch["cond"]] if spec.cond_dims else []
        return jnp.concatenate(parts, axis=-1)

    return condition


def draw_condition(spec: Spec, key, num: int) -> dict:
    """Conditions for samples nobody asked conditions for: every class in turn, standard normal vectors."""
    cond = {"label": jnp.arange(num) % spec.num_classes} if spec.num_classes else {}
    return cond | ({"cond": jax.random.normal(key, (num, spec.cond_dims))} if spec.cond_dims else {})
