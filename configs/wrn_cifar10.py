"""Wide residual network that classifies CIFAR-10, a WRN-28-10: the plain classifier beside jem_cifar10.

Group normalization takes the place of the paper's batch normalization, so that an example's label does not depend on
its neighbours; `--config.model.norm=none` is the network of jem_cifar10, which needs a lower learning rate. Protocol of
the paper: momentum 0.9 (Nesterov's there, not here), batches of 128, 200 epochs, the learning rate 0.1 times 0.2 after
60, 120 and 160. Its weight decay, 5e-4 in the gradient, comes to ten times as much where momentum does not carry it, as
here; here only kernels decay.

Paper: Zagoruyko and Komodakis (2016), Wide residual networks, arXiv:1605.07146, table 5
Run: python main.py --config=configs/wrn_cifar10.py
Slice: v5e:4x4
Expect: no bits/dim, but accuracy 95.8 % (test, from Grathwohl et al. 2020, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.1
    c.data.augment = "shift_flip"
    c.data.shift_pixels = 4
    c.model.update(name="classifier", depth=28, width=10, norm="group", input_noise=0.0)
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.1
    c.optimizer.b1 = 0.9
    c.optimizer.weight_decay = 5e-3
    c.optimizer.milestones = ((21_093, 0.2), (42_187, 0.04), (56_250, 0.008))
    c.train.num_steps = 70_312
    c.eval.select = "last"
    c.eval.baselines = False
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", depth=10, width=1)
    return c
