"""Draws docs/images/blind_spot.png: the pixels before one pixel that PixelCNN sees, and those that Gated PixelCNN sees.

Example:
    python scripts/figures/blind_spot.py
"""

import argparse

import jax
import numpy as np

from genflow import cli
from genflow.networks import gated_pixelcnn, pixelcnn
from genflow.report.receptive import receptive_fields

ROWS, COLUMNS, BLOCKS, WIDTH, IMAGES = 12, 15, 7, 16, 64
PIXEL = (8, 4)
NETWORKS = {"PixelCNN: a blind spot": pixelcnn, "Gated PixelCNN: none": gated_pixelcnn}


def main() -> None:
    """Differentiates networks with random weights and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=str(cli.ROOT / "docs" / "images" / "blind_spot.png"))
    output = parser.parse_args().output
    receptive_fields({title: field(builder) for title, builder in NETWORKS.items()}, PIXEL, output)
    print(output)


def field(builder) -> np.ndarray:
    """Magnitude of the gradient of the output at PIXEL, averaged over images of noise, [ROWS, COLUMNS]."""
    network = builder(COLUMNS, 1, 256, WIDTH, BLOCKS, WIDTH)(1)
    x = 255 * jax.random.uniform(jax.random.key(0), (IMAGES, ROWS * COLUMNS, 1))
    params = network.init(jax.random.key(1), x)
    site = PIXEL[0] * COLUMNS + PIXEL[1]
    gradient = jax.jit(jax.grad(lambda x: network.apply(params, x)[:, site].sum()))(x)
    return np.abs(np.asarray(gradient)).mean(0).reshape(ROWS, COLUMNS)


if __name__ == "__main__":
    main()
