"""Wide residual network that classifies MNIST: the plain classifier beside jem_mnist.

Network, data, input noise, optimizer and number of steps are those of configs/jem_mnist.py; the loss is the
cross-entropy alone.

Paper: Zagoruyko and Komodakis (2016), Wide residual networks, arXiv:1605.07146
Run: python main.py --config=configs/wrn_mnist.py
Slice: v5e:2x2
Expect: no bits/dim, but a test accuracy (no published figure); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 64
    c.model.update(name="classifier", depth=10, width=2, norm="none", input_noise=0.03)
    c.optimizer.learning_rate = 1e-4
    c.optimizer.warmup_steps = 1_000
    c.optimizer.milestones = ((28_000, 0.3), (34_000, 0.09))
    c.train.num_steps = 40_000
    c.train.ema_decay = 0.999
    c.eval.select = "last"
    c.eval.baselines = False
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x1", width=1)
    return c
