"""What the outputs of PixelCNN and Gated PixelCNN see, by the true Jacobian, against the paper's pictures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow import networks
from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.networks.pixelcnn import Layer, init_layer, whole

ROWS, COLUMNS, BLOCKS = 4, 10, 2
REACH = 3 + BLOCKS  # 3 pixels of the first layer and one of each block


@functools.cache
def sees(name, rows, columns, channels, blocks):
    """Whether d raw_i / d x_j differs from zero, [L, L]; summed over images, in which different ReLUs are active."""
    network = getattr(networks, name)(columns, channels, 4, 8 * channels, blocks, 8 * channels)(2)
    x = 3 * jax.random.uniform(jax.random.key(0), (8, rows * columns * channels, 1))
    params = perturbed(jax.jit(network.init)(jax.random.key(1), x), 2, 0.3)
    jacobian = jax.jit(jax.jacrev(lambda x: network.apply(params, x).sum((0, 2))))(x)
    return np.abs(np.asarray(jacobian)).sum((1, 3)) > 0


def picture(name, rows=ROWS):
    """Figure 1 of arXiv:1606.05328 in closed form, [L, L]: the plain network sees, d rows up, to d + 2 on the right."""
    row, column = np.divmod(np.arange(rows * COLUMNS), COLUMNS)
    up, right = row[:, None] - row, column - column[:, None]
    above = (up > 0) & (up <= REACH) & (np.abs(right) <= REACH)
    if name == "pixelcnn":
        above &= right <= up + 2
    return above | ((up == 0) & (right < 0) & (right >= -REACH))


@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn"])
def test_the_receptive_field_is_the_papers(name):
    np.testing.assert_array_equal(sees(name, ROWS, COLUMNS, 1, BLOCKS), picture(name))


@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn"])
def test_the_number_of_the_receptive_field_is_the_way_to_the_furthest_pixel(name):
    network = getattr(networks, name)(COLUMNS, 1, 4, 4, BLOCKS, 8)(4)
    seen = picture(name, rows=REACH + 1).nonzero()
    assert max(i - j for i, j in zip(*seen, strict=True)) == network.receptive_field


def test_the_blind_spot_is_the_plain_networks_alone():
    blind = picture("gated_pixelcnn") & ~picture("pixelcnn")
    assert blind.any()
    assert sees("gated_pixelcnn", ROWS, COLUMNS, 1, BLOCKS)[blind].all()
    assert not sees("pixelcnn", ROWS, COLUMNS, 1, BLOCKS)[blind].any()


@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn"])
def test_red_comes_before_green_and_green_before_blue(name):
    """A value sees all of the pixels before its own, and of its own pixel the channels before its own."""
    np.testing.assert_array_equal(sees(name, 1, 2, 3, 1), np.tri(6, k=-1, dtype=bool))


@pytest.mark.parametrize("mask", ["A", "B"])
def test_mask_b_adds_the_own_group_to_mask_a(mask):
    layers = {"layer": Layer(6, 12, above=1, left=1, right=1, mask=mask, parts=2)}
    params = {"layer": init_layer(jax.random.key(0), layers["layer"], 3)}
    jacobian = jax.jacrev(lambda x: whole(layers, params, 3, None)("layer", x)[0, 1, 1])(jnp.ones((1, 3, 3, 6)))
    seen = np.asarray(jacobian)[:, 0] != 0  # [O, 3, 3, I]
    group = np.arange(6) // 2
    inside = (group < group[:, None]) if mask == "A" else (group <= group[:, None])
    np.testing.assert_array_equal(seen[:, 1, 1], np.tile(inside, (2, 1)))
    assert seen[:, 0].all()
    assert seen[:, 1, 0].all()
    assert not seen[:, 1, 2].any()
    assert not seen[:, 2].any()


@pytest.mark.parametrize("name", ["pixelcnn", "gated_pixelcnn"])
@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"width": 4}, "multiples of the 3 channels"), ({"width": 6, "blocks": 0, "head": 6}, "must be above zero")],
)
def test_impossible_sizes_are_refused(name, sizes, message):
    with pytest.raises(UserError, match=message):
        build({"name": name, **sizes}, Spec("colour", (4, 4, 3), 8))


def test_data_without_rows_are_refused():
    with pytest.raises(UserError, match="masked convolutions are for images; points has events of shape"):
        build({"name": "pixelcnn"}, Spec("points", (2,), 8))
