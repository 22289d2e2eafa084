"""Image GPT on CIFAR-10: a transformer over all 3,072 sub-pixels, each a category of 256, none clustered.

Sizes and dropout are those of the Image Transformer's categorical model (12 layers, width 512, 4 heads, dropout 0.3;
tensor2tensor), whose attention sees blocks of 256 sub-pixels; here it sees every one before. Chen et al. train far
larger networks on 9-bit clusters of colors, whose likelihoods are no bits/dim of images.

Paper: Parmar et al. (2018), Image transformer, arXiv:1802.05751
Run: python main.py --config=configs/image_gpt_cifar10.py
Slice: v5e:4x4
Expect: 2.90 bits/dim (test; tensor2tensor's docstring for its local attention, unverified here); not run: days on GPUs
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.update(name="cifar10", batch_size=32, augment="flip")
    c.model.update(
        name="image_gpt",
        width=512,
        layers=12,
        heads=4,
        dropout=0.3,
        tied=False,
        memory="remat",
        conditional=False,
    )
    c.optimizer.update(learning_rate=3e-4, b2=0.98, schedule="cosine", warmup_steps=4_000, clip_norm=3_072.0)
    c.train.update(num_steps=400_000, steps_per_call=10, log_every=1_000, ema_decay=0.999)
    c.eval.update(every=10_000, batch_size=32)
    c.checkpoint.every = 10_000
    c.sample.update(num=16, temperatures=(0.85, 1.0))
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3:8", width=4, layers=1, heads=2, memory="store")
        c.data.augment = "none"
    return c
