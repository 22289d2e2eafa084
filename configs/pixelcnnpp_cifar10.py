"""PixelCNN++ on CIFAR-10: a mixture of ten logistics for a pixel, two streams of shifted convolutions, dropout.

Protocol of the official code: 3 resolutions of 5 gated residual blocks, 160 channels, dropout 0.5, weight normalization
initialized from the first batch, Adam(0.95, 0.9995) at 1e-3, the weights' average scored, neither flips nor
dequantization. Differences: 32 images a step on one device (8 x 16 there, the learning rate the same), the learning
rate decays along a cosine (there by 0.999995 a step), data.validation held out to choose the checkpoint.

Paper: Salimans et al. (2017), arXiv:1701.05517, table 1
Run: python main.py --config=configs/pixelcnnpp_cifar10.py
Slice: v5e:4x4
Expect: 2.92 bits/dim (test, from the paper, unverified here); not run; the official code: 5 days on 8 GPUs of 2016
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 32
    c.data.validation = 0.02
    c.model.update(name="pixelcnnpp", width=160, stages=3, blocks=5, components=10, dropout=0.5, conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b1 = 0.95
    c.optimizer.b2 = 0.9995
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 1_000_000
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9995
    c.eval.every = 20_000
    c.eval.batch_size = 64
    c.sample.every = 20_000
    c.checkpoint.every = 2_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", width=4, stages=1, blocks=1, components=2)
    return c
