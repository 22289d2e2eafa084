"""SNGAN on CIFAR-10: residual networks, hinge loss, the critic's kernels divided by their largest singular values.

Protocol: that of the official code: critic batches of 64, generator batches of 128, five steps of the critic to one of
the generator, Adam at 2e-4 with b1 = 0 and b2 = 0.9 and linear decay from the first step, 50,000 steps of the
generator. A step here is one of the critic. conditional=True gives the labels to conditional batch normalization and to
the projection of Miyato and Koyama (2018), arXiv:1802.05637. The paper's FID is from 5,000 samples; a published
repetition with 50,000 has 14.3, on another scale.

Paper: Miyato et al. (2018), arXiv:1802.05957, table 2
Run: python main.py --config=configs/sngan_cifar10.py
Slice: v5e:4x4
Expect: FID 21.7, Inception score 8.22 (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 64
    c.data.validation = 0.0
    c.model.update(name="resnet_gan", loss="hinge", gradient_penalty=0.0, spectral_normalization=True)
    c.model.update(generator_batch=2, noise_dims=128, prior="normal", width=256, discriminator_width=128)
    c.model.update(levels=3, downsamplings=2, blocks=2, pooling="sum", batch_norm=True)
    c.model.update(dequantize=True, conditional=False)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b1 = 0.0
    c.optimizer.b2 = 0.9
    c.optimizer.schedule = "linear"
    c.optimizer.final_scale = 0.0
    c.optimizer.groups.generator = {"every": 5}
    c.train.num_steps = 250_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.eval.select = "last"
    c.eval.baselines = False
    c.sample.every = 10_000
    c.sample.temperatures = ()
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", noise_dims=4, width=4, discriminator_width=4)
        c.model.update(levels=1, downsamplings=1, blocks=1)
    return c
