"""Image GPT on the embedded digits: a transformer of 4 blocks and width 64 over the 64 pixels in raster order.

Dropout and batch size were chosen on the validation part; longer runs were not tried.

Paper: Chen et al. (2020), Generative pretraining from pixels
Run: python main.py --config=configs/image_gpt_digits.py
Slice: cpu:1
Expect: 1.802 +- 0.013 bits/dim (test, one seed, no published figure); two minutes on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 32
    c.model.update(
        name="image_gpt",
        width=64,
        layers=4,
        heads=4,
        dropout=0.1,
        tied=False,
        memory="store",
        conditional=False,
    )
    c.optimizer.update(learning_rate=2e-3, b2=0.99, schedule="cosine", warmup_steps=100)
    c.optimizer.update(weight_decay=0.1, decay_pattern="kernel|embedding|position")
    c.train.update(num_steps=2_000, steps_per_call=50, log_every=250, ema_decay=0.99)
    c.eval.every = 100
    c.sample.temperatures = (0.5, 0.7, 0.85, 1.0)
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3:8", width=4, layers=1, heads=2)
    return c
