"""A plain classifier: nothing of p(x), but what a joint energy-based model is compared with."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genflow.core import Model, Spec
from genflow.models.energy_based import centered_scale
from genflow.networks.wide_resnet import wide_resnet


def classifier(spec: Spec, depth: int = 28, width: int = 10, norm: str = "none", input_noise: float = 0.0) -> Model:
    """p(y | x) of images by a wide residual network; there are no samples.

    Args:
      depth, width, norm: see `networks.wide_resnet`.
      input_noise: standard deviation, added to the training data in [-1, 1].

    Raises:
      ValueError: data without labels, or a network that does not exist.

    Reference: Zagoruyko and Komodakis (2016), Wide residual networks, arXiv:1605.07146.
    """
    check_labels(spec)
    network, scale = wide_resnet(depth, width, norm)(spec.num_classes), centered_scale(spec, input_noise)

    def init(key, batch):
        return {"model": network.init(key, scale.forward(batch["x"]))}, {}

    def loss(params, state, key, batch):
        logits = network.apply(params["model"], scale.forward(batch["x"], key))
        value, metrics = cross_entropy(logits, batch["label"])
        return value, (state, metrics)

    def classify(params, state, x):
        return network.apply(params["model"], scale.forward(x))

    return Model(init, {"model": loss}, classify=classify)


def check_labels(spec: Spec) -> None:
    """Raises ValueError for data that have no classes to tell apart."""
    if spec.num_classes < 2:
        raise ValueError(f"classifies, but {spec.name} has no labels; take data that have some")


def cross_entropy(logits: Float[Array, "B K"], label: Int[Array, " B"]) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The mean of -log p(y | x), nats, and metrics: that and the fraction whose class is the likeliest."""
    log_mass = jax.nn.log_softmax(logits)
    value = -jnp.take_along_axis(log_mass, label[:, None].astype(jnp.int32), axis=1).mean()
    accuracy = (logits.argmax(1) == label).mean(dtype=jnp.float32)
    return value, {"cross_entropy_loss": value, "accuracy": accuracy}
