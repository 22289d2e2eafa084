"""PixelRNN: the receptive fields of its two layers, by the Jacobian, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_bijectors import perturbed

from genflow.core import Spec
from genflow.errors import UserError
from genflow.models import build
from genflow.networks import lstm, pixelrnn

H, W, ROW, COLUMN = 4, 17, 3, 8


def field(layer, layers):
    """[H, W]: whether the output at (ROW, COLUMN) depends on a pixel."""
    network = pixelrnn((H, W, 1), 4, layer, 8, layers)(4)
    x = jax.random.uniform(jax.random.key(0), (1, H * W, 1), maxval=3.0)
    params = perturbed(network.init(jax.random.key(1), x), 2, 0.5)
    gradient = jax.jit(jax.grad(lambda x: network.apply(params, x)[0, ROW * W + COLUMN].sum()))(x)
    return np.asarray(gradient).reshape(H, W) != 0


def test_a_row_lstm_sees_a_triangle_above_the_pixel():
    """Row d above: d + 1 columns to the left and d to the right, widened by the 3 of the first layer's 7x7 kernel."""
    wanted = np.zeros((H, W), bool)
    wanted[ROW, COLUMN - 4 : COLUMN] = True
    for above in range(1, ROW + 1):
        wanted[ROW - above, COLUMN - above - 4 : COLUMN + above + 3] = True
    np.testing.assert_array_equal(field("row", layers=1), wanted)


def test_a_diagonal_bilstm_sees_every_pixel_before_but_one():
    """No feature of a row sees the last pixel of that row; those of the next row do where the 7x7 kernel reaches it."""
    wanted = np.arange(H * W).reshape(H, W) < ROW * W + COLUMN
    wanted[ROW - 1, -1] = False
    np.testing.assert_array_equal(field("diagonal", layers=2), wanted)


@pytest.mark.parametrize("neighbours", [lstm._three_above, lstm._left_and_above])
def test_the_kernels_gradient_is_that_of_the_scan(neighbours):
    with jax.enable_x64(True):
        gates = jax.random.normal(jax.random.key(0), (5, 2, 4, 4 * 3))
        kernel = jax.random.normal(jax.random.key(1), (neighbours(gates[0, ..., :3]).shape[-1], 4 * 3))
        one, other = (
            jax.jit(jax.grad(lambda *a, f=f: jnp.sin(f(*a, neighbours, None)).sum(), (0, 1)))(gates, kernel)
            for f in (lstm.recurrence, lstm._turns)
        )
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("section", "spec", "message"),
    [
        ({}, Spec("vectors", (4,), 8), "models images"),
        ({"layer": "column"}, Spec("images", (4, 4, 1), 8), "layer='column': expected one of row, diagonal"),
        ({"width": 2}, Spec("images", (4, 4, 3), 8), "width=2 must be at least the number of channels, 3"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(section, spec, message):
    with pytest.raises(UserError, match=message):
        build({"name": "pixelrnn"} | section, spec)
