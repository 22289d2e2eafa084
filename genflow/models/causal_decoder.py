"""The autoregressive decoder: an observation whose dimensions depend on each other, and on the latents."""

import jax
import jax.numpy as jnp

from genflow.core import Model, Spec
from genflow.models.observation import Observation
from genflow.models.pixelcnn import gated_pixelcnn


def causal_decoder(spec: Spec, context_dims: int, width: int, blocks: int) -> Observation:
    """p(x | z) = prod_i p(x_i | x_1 .. x_(i-1), h(z)) by a Gated PixelCNN; h(z) enters every layer.

    Args:
      context_dims: numbers of h.
      width, blocks: of the Gated PixelCNN; its last hidden layer has `width` features too.

    Raises:
      ValueError: data that are no images; widths that the channels do not divide.

    Reference: Gulrajani et al. (2017), PixelVAE, arXiv:1611.05013 (there h(z) is a map, here a vector for all places);
    Chen et al. (2017), Variational lossy autoencoder, arXiv:1611.02731, on what such a decoder leaves for z to say.
    """
    given = spec._replace(num_classes=0, cond_dims=context_dims)
    return conditional_observation(gated_pixelcnn(given, width, blocks, width, conditional=True), given)


def conditional_observation(model: Model, spec: Spec) -> Observation:
    """A model given vectors as a distribution given h; `mean` is no mean, but its draw at temperature 0.

    The draw takes the likeliest value site by site, each given those taken before.
    """

    def sample(params, key, h, temperature=1.0):
        return model.sample({"model": params}, {}, key, len(h), {"cond": h}, temperature)

    return Observation(
        (spec.cond_dims,),
        lambda key, h, x: model.init(key, {"x": x, "cond": h})[0]["model"],
        lambda params, h, x, key=None: model.log_prob({"model": params}, {}, key, {"x": x, "cond": h}),
        sample,
        lambda params, h: sample(params, jax.random.key(0), h, jnp.zeros(())),
    )
