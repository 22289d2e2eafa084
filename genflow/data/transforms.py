"""What happens to a training batch on the device, inside the jitted step: binarization and augmentation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt8

from genflow.core import Batch, Key, Spec

Transform = Callable[[Key, UInt8[Array, "B *event"]], UInt8[Array, "B *event"]]


def binarize(mode: str) -> Transform:
    """Draws P(pixel = 1) = x / 255 for mode 'stochastic'; the identity for the others (see `images.quantize`).

    Reference: Salakhutdinov and Murray (2008), On the Quantitative Analysis of Deep Belief Networks, section 6.
    """
    if mode != "stochastic":
        return _identity
    return lambda key, x: (jax.random.uniform(key, x.shape) * 255 < x).astype(jnp.uint8)


def augment(name: str, shift_pixels: int) -> Transform:
    """Random flips and shifts of images [B, H, W, C], each example its own: none, flip, shift or shift_flip."""
    steps = {"flip": _flip, "shift": lambda key, x: _shift(key, x, shift_pixels)}
    chosen = [steps[word] for word in name.split("_") if word != "none"]
    return _compose(chosen)


def transform(config, spec: Spec) -> Callable[[Key, Batch], Batch]:
    """Returns the training transform of the `data` section: (key, batch) -> batch, values 0 .. spec.bins - 1."""
    steps = [binarize(config.binarize), augment(config.augment, config.shift_pixels)]
    change = _identity if spec.bins is None else _compose(steps)
    return lambda key, batch: {**batch, "x": change(key, batch["x"])}


def _identity(key, x):
    del key
    return x


def _compose(steps: list[Transform]) -> Transform:
    def run(key, x):
        for i, step in enumerate(steps):
            x = step(jax.random.fold_in(key, i), x)
        return x

    return run


def _flip(key, x):
    flipped = jax.random.bernoulli(key, shape=(x.shape[0], 1, 1, 1))
    return jnp.where(flipped, x[:, :, ::-1], x)


def _shift(key, x, pixels):
    """Moves each image by -pixels .. pixels along both axes; what enters repeats the edge."""
    offsets = jax.random.randint(key, (x.shape[0], 2), -pixels, pixels + 1)

    def move(image, offset):
        rows, columns = (jnp.clip(jnp.arange(n) + o, 0, n - 1) for n, o in zip(image.shape, offset, strict=False))
        return image[rows[:, None], columns[None, :]]

    return jax.vmap(move)(x, offsets)
