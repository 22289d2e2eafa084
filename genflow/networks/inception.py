"""The Inception network whose features FID and KID compare, with the variations of its published weights.

They are of 2015 and of ImageNet. Against Inception-v3 as it is known today: 1,008 outputs, average pooling that does
not count its padding, and a maximum instead of an average in the last block.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genflow.core import Network, Params

SIDE, FEATURES, OUTPUTS = 299, 2048, 1008
EPSILON = 1e-3  # of the batch normalization that is folded into the convolutions

# A unit is (name, features, kernel, stride, whether it keeps the size), or the name of a pool; a branch is units one
# after another, where a tuple of units work side by side. A block puts its branches side by side, in this order.
ONE, FIVE, THREE, ROW, COLUMN = (1, 1), (5, 5), (3, 3), (1, 7), (7, 1)


def _unit(name, features, kernel=ONE, stride=1, same=True):
    return name, features, kernel, stride, same


STEM = (
    _unit("Conv2d_1a_3x3", 32, THREE, 2, False),
    _unit("Conv2d_2a_3x3", 32, THREE, 1, False),
    _unit("Conv2d_2b_3x3", 64, THREE),
    "max",
    _unit("Conv2d_3b_1x1", 80),
    _unit("Conv2d_4a_3x3", 192, THREE, 1, False),
    "max",
)


def _inception_a(pooled):
    double = _unit("branch3x3dbl_1", 64), _unit("branch3x3dbl_2", 96, THREE), _unit("branch3x3dbl_3", 96, THREE)
    fives = _unit("branch5x5_1", 48), _unit("branch5x5_2", 64, FIVE)
    return (_unit("branch1x1", 64),), fives, double, ("average", _unit("branch_pool", pooled))


def _inception_c(width):
    single = _unit("branch7x7_1", width), _unit("branch7x7_2", width, ROW), _unit("branch7x7_3", 192, COLUMN)
    double = (
        _unit("branch7x7dbl_1", width),
        *(_unit(f"branch7x7dbl_{i}", width, COLUMN if i % 2 == 0 else ROW) for i in (2, 3, 4)),
        _unit("branch7x7dbl_5", 192, ROW),
    )
    return (_unit("branch1x1", 192),), single, double, ("average", _unit("branch_pool", 192))


def _inception_e(pool):
    def both(stem):
        return _unit(f"{stem}a", 384, (1, 3)), _unit(f"{stem}b", 384, (3, 1))

    double = _unit("branch3x3dbl_1", 448), _unit("branch3x3dbl_2", 384, THREE), both("branch3x3dbl_3")
    single = _unit("branch3x3_1", 384), both("branch3x3_2")
    return (_unit("branch1x1", 320),), single, double, (pool, _unit("branch_pool", 192))


INCEPTION_B = (
    (_unit("branch3x3", 384, THREE, 2, False),),
    (
        _unit("branch3x3dbl_1", 64),
        _unit("branch3x3dbl_2", 96, THREE),
        _unit("branch3x3dbl_3", 96, THREE, 2, False),
    ),
    ("max",),
)
INCEPTION_D = (
    (_unit("branch3x3_1", 192), _unit("branch3x3_2", 320, THREE, 2, False)),
    (
        _unit("branch7x7x3_1", 192),
        _unit("branch7x7x3_2", 192, ROW),
        _unit("branch7x7x3_3", 192, COLUMN),
        _unit("branch7x7x3_4", 192, THREE, 2, False),
    ),
    ("max",),
)
BLOCKS = {
    "Mixed_5b": _inception_a(32),
    "Mixed_5c": _inception_a(64),
    "Mixed_5d": _inception_a(64),
    "Mixed_6a": INCEPTION_B,
    "Mixed_6b": _inception_c(128),
    "Mixed_6c": _inception_c(160),
    "Mixed_6d": _inception_c(160),
    "Mixed_6e": _inception_c(192),
    "Mixed_7a": INCEPTION_D,
    "Mixed_7b": _inception_e("average"),
    "Mixed_7c": _inception_e("max_same"),
}
POOLS = {
    "max": lambda x: nn.max_pool(x, THREE, (2, 2)),
    "max_same": lambda x: nn.max_pool(x, THREE, (1, 1), "SAME"),
    "average": lambda x: nn.avg_pool(x, THREE, (1, 1), "SAME", count_include_pad=False),
}


class _Branch(nn.Module):
    """Units one after another; a tuple of them side by side."""

    units: tuple

    @nn.compact
    def __call__(self, x):
        for unit in self.units:
            if isinstance(unit, str):
                x = POOLS[unit](x)
            elif isinstance(unit[0], tuple):
                x = jnp.concatenate([self._convolved(x, *one) for one in unit], axis=-1)
            else:
                x = self._convolved(x, *unit)
        return x

    def _convolved(self, x, name, features, kernel, stride, same):
        padding = [(side // 2,) * 2 if same else (0, 0) for side in kernel]
        return nn.relu(nn.Conv(features, kernel, (stride, stride), padding, name=name)(x))


class _Block(nn.Module):
    branches: tuple

    @nn.compact
    def __call__(self, x):
        branches = [_Branch(units, name=f"branch_{i}") for i, units in enumerate(self.branches)]
        return jnp.concatenate([branch(x) for branch in branches], axis=-1)


class _Inception(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = jax.image.resize(x, (len(x), SIDE, SIDE, x.shape[-1]), "bilinear", antialias=False)
        x = _Branch(STEM, name="stem")(x)
        for name, branches in BLOCKS.items():
            x = _Block(branches, name=name)(x)
        features = x.mean((1, 2))
        return features, nn.Dense(OUTPUTS, use_bias=False, name="fc")(features)


def inception() -> Network:
    """Images [B, H, W, 3] in [-1, 1] -> features [B, 2048], logits without their bias [B, 1008].

    Images are resized to 299 pixels a side, bilinearly between centres of pixels and without a filter.

    Reference: Szegedy et al. (2016), Rethinking the Inception architecture, arXiv:1512.00567; what is measured with it
      in Heusel et al. (2017), GANs trained by a two time-scale update rule, arXiv:1706.08500.
    """
    module = _Inception()
    return Network(
        lambda key, x, cond=None: module.init(key, x)["params"],
        lambda params, x, cond=None, key=None: module.apply({"params": params}, x),
    )


def inception_params(arrays: Mapping[str, np.ndarray]) -> Params:
    """The parameters of `inception` from a PyTorch state_dict with its names, batch normalization folded in.

    Raises:
      ValueError: an array is missing or has another shape.
    """
    params = {"stem": _branch_params(arrays, "", STEM)}
    for block, branches in BLOCKS.items():
        parts = {f"branch_{i}": _branch_params(arrays, f"{block}.", units) for i, units in enumerate(branches)}
        params[block] = {name: part for name, part in parts.items() if part}
    return params | {"fc": {"kernel": _array(arrays, "fc.weight", (OUTPUTS, FEATURES)).T}}


def _branch_params(arrays, prefix, units):
    flat = [one for unit in units for one in (unit if isinstance(unit[0], tuple) else (unit,)) if one not in POOLS]
    return {name: _folded(arrays, f"{prefix}{name}", features, kernel) for name, features, kernel, _, _ in flat}


def _folded(arrays, name, features, kernel) -> dict[str, Float[Array, "..."]]:
    weight = _array(arrays, f"{name}.conv.weight", (features, None, *kernel)).astype(np.float64)
    of_norm = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (
        _array(arrays, f"{name}.bn.{part}", (features,)).astype(np.float64) for part in of_norm
    )
    scale = scale / np.sqrt(variance + EPSILON)
    folded = {"kernel": (weight * scale[:, None, None, None]).transpose(2, 3, 1, 0), "bias": shift - mean * scale}
    return {part: a.astype(np.float32) for part, a in folded.items()}


def _array(arrays, name, shape):
    found = arrays[name].shape if name in arrays else None
    if found is None or len(found) != len(shape) or any(n not in (m, None) for n, m in zip(shape, found, strict=True)):
        raise ValueError(f"{name} has shape {found}, expected {shape}: these are not the weights of this network")
    return arrays[name]
