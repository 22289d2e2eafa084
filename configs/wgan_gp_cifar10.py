"""WGAN-GP on CIFAR-10: residual networks, and a critic whose slope between data and samples is held near one.

Protocol: that of the official code: critic batches of 64, generator batches of 128, five steps of the critic to one of
the generator, penalty 10, Adam at 2e-4 with b1 = 0 and b2 = 0.9 and linear decay to zero, 100,000 steps of the
generator, which alone has batch normalization; images with uniform noise of one gray level. A step here is one of the
critic.

Paper: Gulrajani et al. (2017), arXiv:1704.00028, table 3
Run: python main.py --config=configs/wgan_gp_cifar10.py
Slice: v5e:4x4
Expect: Inception score 7.86, no FID in the paper (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 64
    c.data.validation = 0.0
    c.model.update(name="resnet_gan", loss="wasserstein", gradient_penalty=10.0, spectral_normalization=False)
    c.model.update(generator_batch=2, noise_dims=128, prior="normal", width=128, discriminator_width=128)
    c.model.update(levels=3, downsamplings=2, blocks=2, pooling="mean", batch_norm=True)
    c.model.update(dequantize=True, conditional=False)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b1 = 0.0
    c.optimizer.b2 = 0.9
    c.optimizer.schedule = "linear"
    c.optimizer.final_scale = 0.0
    c.optimizer.groups.generator = {"every": 5}
    c.train.num_steps = 500_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.eval.select = "last"
    c.eval.baselines = False
    c.sample.every = 20_000
    c.sample.temperatures = ()
    c.checkpoint.every = 20_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", noise_dims=4, width=4, discriminator_width=4)
        c.model.update(levels=1, downsamplings=1, blocks=1)
    return c
