"""Very deep VAE on 32x32 ImageNet: 78 levels from 1x1 to 32x32, width 512, 119 million parameters.

The official settings: Adam at 1.5e-4 with second-moment decay .9, 100 steps of warm-up, weight decay .01, clipping at
200 and skipping above 300 (in nats per dimension, see configs/vdvae_cifar10.py), average of the parameters at .999,
batches of 8 images on each of 32 devices, 1.7 million steps, one draw of the latents in the score. Differences as in
configs/vdvae_cifar10.py, and the best checkpoint on the validation images is scored, there the one at 1.7 million
steps. The data are tensorflow_datasets' downsampled_imagenet, the older of two sets that papers call ImageNet 32x32
(which of them the paper used was not verified); its official validation part is the test.

Paper: Child (2021), arXiv:2011.10650
Run: python main.py --config=configs/vdvae_imagenet32.py
Slice: v5e:8x16
Expect: 3.80 bits/dim (bound of one draw; official README, unverified here); 2.5 weeks on 32 V100 there; not run
"""

from configs import common, vdvae_cifar10


def get_config(arg=""):
    c = vdvae_cifar10.get_config()
    c.data.name = "downsampled_imagenet/32x32"
    c.data.batch_size = 256
    c.data.validation = 0.004  # 5,000 images
    c.model.blocks = ((1, 2), (4, 5), (8, 10), (16, 20), (32, 41))
    c.model.encoder_blocks = ((32, 16), (16, 10), (8, 9), (4, 7), (1, 6))
    c.model.update(width=512, bottleneck_width=128)
    c.optimizer.learning_rate = 1.5e-4
    c.optimizer.skip_norm = 300.0 * vdvae_cifar10.DIMS
    c.train.num_steps = 1_700_000
    c.train.ema_decay = 0.999
    c.eval.every = 10_000
    c.sample.every = 10_000
    if common.is_debug(arg):
        vdvae_cifar10.shrink(c)
    return c
