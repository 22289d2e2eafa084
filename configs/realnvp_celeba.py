"""Real NVP on CelebA, aligned faces cropped to 148x148 and resized to 64x64: 5 scales, 4 blocks, width 32.

ActNorm and group normalization stand where the paper has batch normalization, the log-scales' weight norm and the skips
from every block to the output are left out, decay is decoupled and on all kernels, and the average of the weights is
scored. Adam, learning rate 1e-3, 64 images a step, gradients clipped at 100, pixels in [.05, .95] before the logit.

Paper: Dinh et al. (2017), arXiv:1605.08803, table 1
Run: python main.py --config=configs/realnvp_celeba.py
Slice: v5e:4x4
Expect: 3.02 bits/dim (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "celeb_a"
    c.data.batch_size = 64
    c.data.crop = (40, 15, 148, 148)
    c.data.image_size = 64
    c.data.augment = "flip"
    c.model.update(name="realnvp", scales=5, width=32, blocks=4, alpha=0.05)
    c.model.update(memory="remat", conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.clip_norm = 100.0
    c.optimizer.weight_decay = 5e-5
    c.train.num_steps = 300_000
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 5_000
    c.eval.max_examples = 10_000
    c.sample.every = 20_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", scales=2, width=4, blocks=1)
    return c
