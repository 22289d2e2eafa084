"""Very deep VAE on CIFAR-10: 43 levels from 1x1 to 32x32, width 384, 39 million parameters.

The official settings: Adam at 2e-4 with second-moment decay .9, 100 steps of warm-up, weight decay .01 on all
parameters, their average at .9999, 45,000 training and 5,000 validation images, the best checkpoint on these, and one
draw of the latents in the score. There the loss is in nats per dimension, here in nats per image: the norms of 200 at
which a gradient is clipped, and of 400 above which its update is skipped, are so many times larger.

Otherwise as there, except: log-standard deviations of the latents are softly clipped at 7, the encoder sees pixels in
[-1, 1] instead of standardized ones, and the batch of 32 is on one device instead of two of 16, each of which clips its
gradient by itself. The paper counts 45 levels; the official code's blocks are the 43 here.

Paper: Child (2021), arXiv:2011.10650
Run: python main.py --config=configs/vdvae_cifar10.py
Slice: v5e:4x4
Expect: 2.87 bits/dim (test, bound of one draw, mean of four seeds from 2.842 to 2.898; official README); not run
"""

from configs import common

DIMS = 32 * 32 * 3


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 32
    c.data.validation = 0.1
    c.model.update(name="vdvae", blocks=((1, 1), (4, 3), (8, 6), (16, 11), (32, 22)))
    c.model.update(encoder_blocks=((32, 12), (16, 7), (8, 7), (4, 4), (1, 3)))
    c.model.update(width=384, bottleneck_width=96, latent_channels=16, memory="store")
    c.model.update(likelihood="mixture", min_log_scale=-7.0, beta=1.0, free_nats=0.0, kl_warmup=0)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b2 = 0.9
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 200.0 * DIMS
    c.optimizer.skip_norm = 400.0 * DIMS
    c.optimizer.weight_decay = 0.01
    c.optimizer.decay_pattern = "."
    c.train.num_steps = 1_000_000  # the official runs were best at 650,000 to 1,050,000
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.train.ema_decay = 0.9999
    c.train.max_skipped = 1_000
    c.eval.every = 14_060  # 10 epochs
    c.sample.every = 14_060
    c.sample.temperatures = (0.1, 0.5, 0.7, 0.85, 1.0)
    c.checkpoint.every = 10_000
    if common.is_debug(arg):
        shrink(c)
    return c


def shrink(c):
    """What `:debug` does, here and in configs/vdvae_imagenet32.py."""
    blocks = {"blocks": ((4, 2),), "encoder_blocks": ((4, 2),)}
    return common.debug(c, "synthetic:4x4x3", width=4, bottleneck_width=3, latent_channels=2, **blocks)
