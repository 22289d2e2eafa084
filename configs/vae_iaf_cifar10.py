"""ResNet VAE with inverse autoregressive flow on CIFAR-10: 20 levels of 32 maps of 16x16, width 160.

The settings of the official command: Adamax at 2e-3, 8 x 32 images a step, average of the parameters at .999, a rounded
logistic with one learned scale, ELU, residuals times .1. Weight normalization with initialization from the first batch
is as there; outputs that do not vary over that batch start with a gain of 1, and the gain itself is what is computed
from the batch (the official code trains from its cube root). The free bits are .1 nats for each of the 32 maps there;
here they are 3.2 nats for the level, the sum: a looser constraint. The two convolutions of stride 2 are 3x3 ones on
blocks of 2x2 pixels, which see a little more than the official 5x5. Means are not clipped to the range of the data. The
validation images, the number of steps and the choice of the checkpoint are ours: the official code does not say.

Paper: Kingma et al. (2016), arXiv:1606.04934, table 3
Run: python main.py --config=configs/vae_iaf_cifar10.py
Slice: v5e:2x2
Expect: 3.15 bits/dim (test, one draw; 3.11 with --config.eval.importance_samples=10000; official README); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 256
    c.data.validation = 0.1
    c.model.update(name="iaf_vae", blocks=(20,), width=160, latent_channels=32, memory="store", min_log_scale=-5.0)
    c.model.update(beta=1.0, free_nats=3.2, kl_warmup=0)
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 2e-3
    c.train.num_steps = 300_000
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 5_000
    c.eval.batch_size = 100
    c.sample.every = 10_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", blocks=(2,), width=4, latent_channels=2)
    return c
