"""Joint energy-based model of scikit-learn's handwritten digits (8x8 pixels): a classifier that draws digits.

The paper's method with a small network, a WRN-10-1 without normalization; step, noise, restarts and input noise are the
paper's. configs/wrn_digits.py is the same network as a plain classifier.

Paper: Grathwohl et al. (2020), arXiv:1912.03263
Run: python main.py --config=configs/jem_digits.py
Slice: cpu:1
Expect: no bits/dim, as log Z is not known; test accuracy 0.983 (seed 0), as wrn_digits; eight minutes on a shared
  2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 64
    c.model.update(name="jem", depth=10, width=1, norm="none", conditional=True, weight=1.0)
    c.model.update(steps=20, step_size=1.0, noise=0.01, max_gradient=0.0, buffer=10_000, restarts=0.05)
    c.model.update(regularization=0.0, input_noise=0.03, divergence=1000.0, sample_steps=200, sample_from_buffer=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 1_500
    c.train.ema_decay = 0.99
    c.eval.select = "last"
    c.eval.baselines = False
    c.eval.num_samples = 1_000
    c.train.max_rollbacks = 3
    c.sample.temperatures = ()
    c.checkpoint.every = 250
    if common.is_debug(arg):
        common.debug(c, steps=3, buffer=32, sample_steps=4)
        c.sample.temperatures = ()
    return c
