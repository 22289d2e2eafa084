"""DCGAN on CelebA, aligned faces cropped to 148x148 and resized to 64x64: four levels of 5x5 convolutions of stride 2.

Protocol: Adam at 2e-4 with b1 = 0.5, batches of 128, 25 epochs, weights from N(0, 0.02), uniform noise of 100 numbers.
The paper trains on faces of its own; the official code's L2 penalty of 1e-5 is left out, and so is noise on the scales
of batch normalization at the start.

Paper: Radford et al. (2016), arXiv:1511.06434
Run: python main.py --config=configs/dcgan_celeba.py
Slice: v5e:4x4
Expect: samples to look at (no published FID, and no bits/dim); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "celeb_a"
    c.data.batch_size = 128
    c.data.crop = (40, 15, 148, 148)
    c.data.image_size = 64
    c.model.update(name="dcgan", loss="non_saturating", noise_dims=100, prior="uniform", width=128, levels=4)
    c.model.update(dequantize=False)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b1 = 0.5
    c.train.num_steps = 32_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.eval.select = "last"
    c.eval.baselines = False
    c.sample.every = 2_000
    c.sample.temperatures = ()
    c.checkpoint.every = 4_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", noise_dims=4, width=4, levels=2)
    return c
