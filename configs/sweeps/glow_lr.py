"""Learning rate, depth and width of a small Glow on the embedded digits.

Run: python scripts/sweep.py configs/sweeps/glow_lr.py
"""

from genflow.sweep import Sweep, choice, integer, log_uniform


def get_sweep():
    return Sweep(
        config="configs/glow_digits.py",
        overrides={"train.num_steps": 400, "eval.every": 50, "checkpoint.every": 200, "optimizer.warmup_steps": 40},
        space={
            "optimizer.learning_rate": log_uniform(3e-4, 3e-2),
            "model.depth": integer(2, 6),
            "model.width": choice(16, 32, 48),
        },
        num_trials=8,
        workers=2,
        pruner="median",
    )
