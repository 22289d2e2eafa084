"""Energy-based model of CIFAR-10, unconditional, with the chains of the official code.

Protocol of the official code: 60 Langevin steps of step 10 and noise 0.005 on images in [0, 1], gradients clipped to
0.01, images clipped, a buffer of 10,000 images (here 9,984, 78 for each row of a batch) of which 5 % restart from
noise, squared energies in the loss, spectral normalization, Adam without momentum. A sample goes on from the buffer, in
which chains of all ages are, for another 60 steps. The ResNet is that of the paper's table: three stages of two blocks.

Paper: Du and Mordatch (2019), arXiv:1903.08689, table 1
Run: python main.py --config=configs/igebm_cifar10.py
Slice: v5e:4x4
Expect: FID 40.58 (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.0
    c.data.augment = "flip"
    c.model.update(name="igebm", width=128, multipliers=(1, 2, 2), blocks=2, activation="leaky_relu")
    c.model.update(spectral_normalization=True, conditional=False, steps=60, step_size=10.0, noise=0.005)
    c.model.update(max_gradient=0.01, buffer=10_000, restarts=0.05, regularization=1.0, input_noise=0.0)
    c.model.update(divergence=100.0, sample_steps=60, sample_from_buffer=True)
    c.optimizer.learning_rate = 3e-4
    c.optimizer.b1 = 0.0
    c.train.num_steps = 100_000
    c.train.ema_decay = 0.999
    c.eval.select = "last"
    c.eval.baselines = False
    c.train.max_rollbacks = 3
    c.sample.temperatures = ()
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", width=4, multipliers=(1, 2), blocks=1, steps=3, buffer=32, sample_steps=4)
        c.sample.temperatures = ()
    return c
