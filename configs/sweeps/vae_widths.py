"""A grid over the size of the VAE on the embedded digits.

Run: python scripts/sweep.py configs/sweeps/vae_widths.py
"""

from genflow.sweep import Sweep, choice


def get_sweep():
    return Sweep(
        config="configs/vae_digits.py",
        overrides={"train.num_steps": 1_000, "eval.every": 250, "checkpoint.every": 500},
        space={
            "model.latent_dims": choice(4, 12),
            "model.widths": choice((64,), (128, 128)),
            "optimizer.learning_rate": choice(5e-4, 2e-3),
        },
        sampler="grid",
        workers=2,
    )
