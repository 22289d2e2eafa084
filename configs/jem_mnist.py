"""Joint energy-based model of MNIST: a WRN-10-2 without normalization that classifies and draws.

The paper has no MNIST; chains, buffer, input noise and warm-up are those of configs/jem_cifar10.py.
configs/wrn_mnist.py is the same network as a plain classifier.

Paper: Grathwohl et al. (2020), arXiv:1912.03263
Run: python main.py --config=configs/jem_mnist.py
Slice: v5e:2x2
Expect: no bits/dim, as log Z is not known, but a test accuracy within 1.5 points of wrn_mnist; not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 64
    c.model.update(name="jem", depth=10, width=2, norm="none", conditional=True, weight=1.0)
    c.model.update(steps=20, step_size=1.0, noise=0.01, max_gradient=0.0, buffer=10_000, restarts=0.05)
    c.model.update(regularization=0.0, input_noise=0.03, divergence=1000.0, sample_steps=400, sample_from_buffer=False)
    c.optimizer.learning_rate = 1e-4
    c.optimizer.warmup_steps = 1_000
    c.optimizer.milestones = ((28_000, 0.3), (34_000, 0.09))
    c.train.num_steps = 40_000
    c.train.ema_decay = 0.999
    c.eval.select = "last"
    c.eval.baselines = False
    c.train.max_rollbacks = 3
    c.sample.temperatures = ()
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x1", width=1, steps=3, buffer=32, sample_steps=4)
        c.sample.temperatures = ()
    return c
