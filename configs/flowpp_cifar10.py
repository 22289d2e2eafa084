"""Flow++ on CIFAR-10: mixture-of-logistics couplings with self-attention, learned dequantization noise.

Protocol of the official code: 10 blocks of 96 channels with 4 heads, 32 logistics, dropout 0.2, Adam 3e-4 after 2,000
steps of warm-up, 64 images a step, gradients clipped at 1, the weights' average scored. Differences: no dropout in the
dequantizer, horizontal flips, initialization from 64 images (128 there), 300,000 steps, data.validation held out to
choose the checkpoint. The paper's score takes 4,096 draws of the noise for each image: run the finished run again with
--config.eval.importance_samples=4096; validations while training take one.

Paper: Ho et al. (2019), arXiv:1902.00275, table 1
Run: python main.py --config=configs/flowpp_cifar10.py
Slice: v5e:4x4
Expect: 3.08 bits/dim (test, 4,096 importance samples, from the paper, unverified here); not run; 8 GPUs of 2019
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 64
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="flowpp", width=96, blocks=10, components=32, heads=4, dropout=0.2)
    c.model.update(noise_width=96, noise_blocks=2, alpha=0.05, memory="remat", conditional=False)
    c.optimizer.learning_rate = 3e-4
    c.optimizer.warmup_steps = 2_000
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 300_000
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 10_000
    c.eval.batch_size = 64
    c.sample.every = 10_000
    c.checkpoint.every = 2_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", width=4, blocks=1, components=2, heads=1, noise_width=4, noise_blocks=1)
    return c
