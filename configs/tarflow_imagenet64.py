"""TarFlow on 64x64 ImageNet, the paper's likelihood model: patches of 2, 8 blocks of 8 layers, width 768.

Protocol of the official code: uniform dequantization and no Gaussian noise, float32, AdamW with betas 0.9 and 0.95 and
weight decay 1e-4, cosine from 1e-4 to 1e-6 after one epoch of warm-up, 256 images a step, 100 epochs, unconditional.
Deviations: ActNorm before the blocks, log-scales bounded to +-3 a block, a norm before each block's output, a part of
the training images held out to choose the checkpoint; the official validation part is the test.
The data set is tensorflow_datasets' downsampled_imagenet, the older of two that papers call ImageNet 64x64.

Paper: Zhai et al. (2024), arXiv:2412.06329, table 2
Run: python main.py --config=configs/tarflow_imagenet64.py
Slice: v5e:8x8
Expect: 2.99 bits/dim (test, from the paper, unverified here); not run; the authors used 16 GPUs
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "downsampled_imagenet/64x64"
    c.data.batch_size = 256
    c.data.validation = 0.002
    c.model.update(name="tarflow", patch=2, width=768, blocks=8, layers=8, heads=12)
    c.model.update(memory="remat", gaussianize=False, conditional=False)
    c.optimizer.learning_rate = 1e-4
    c.optimizer.b2 = 0.95
    c.optimizer.weight_decay = 1e-4
    c.optimizer.decay_pattern = "/layers/"  # everything but ActNorm and the prior
    c.optimizer.warmup_steps = 5_000  # 1 epoch of 1,281,149 images
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 500_000  # 100 epochs
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.eval.every = 10_000
    c.sample.every = 50_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", patch=4, width=8, blocks=2, layers=1, heads=2)
    return c
