"""Draws docs/images/two_kl_directions.png: one flow trained in each direction of KL on four Gaussians.

Example:
    python scripts/figures/two_kl_directions.py
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np

from genflow import cli, train, trained
from genflow.analysis.directions import compare
from genflow.report.directions import two_directions
from genflow.report.figures import lattice

TARGET, STEPS, POINTS = "four_gaussians", 1200, 3000
ROWS = {"forward KL": (1, 0), "reverse KL": (0, 1)}


def main() -> None:
    """Trains both flows in a temporary folder and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default=str(cli.ROOT / "docs" / "images" / "two_kl_directions.png"))
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        trained = {title: fitted(*weights, Path(folder) / title.replace(" ", "_")) for title, weights in ROWS.items()}
    first = next(iter(trained.values())).experiment
    x = first.evaluation["test"].fetch(np.arange(POINTS))["x"]
    grid, extent = lattice(np.array([[-5, -5], [5, 5]], np.float32))
    rows = {
        title: compare(t.experiment.model, t.params, t.state, jax.random.key(0), x, grid)
        for title, t in trained.items()
    }
    two_directions(rows, x, extent, first.model.target.log_normalizer, output)
    print(output)


def fitted(forward_weight: int, reverse_weight: int, folder: Path) -> trained.Trained:
    """Trains one flow as configs/reverse_kl_toy.py does, but on this target, in this direction and for fewer steps."""
    fields = {
        "data.name": f"target:{TARGET}",
        "data.batch_size": 256,
        "model.target": TARGET,
        "model.forward_weight": float(forward_weight),
        "model.reverse_weight": float(reverse_weight),
        "train.num_steps": STEPS,
    }
    words = [f"--config.{field}={value}" for field, value in fields.items()]
    train.train(cli.parse(["main.py", "--config=configs/reverse_kl_toy.py", *words]), str(folder))
    return trained.load_trained(folder)


if __name__ == "__main__":
    main()
