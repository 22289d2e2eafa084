"""GPT on the characters of Tiny Shakespeare, small enough for a CPU: 4 blocks of width 128 on windows of 64 characters.

The setting that nanoGPT's README gives for a CPU, which ends at 1.88 nats a character = 2.71 bits on its validation
part. How our ruler differs from its, and what else: see gpt_shakespeare.

Paper: Radford et al. (2019), Language models are unsupervised multitask learners
Run: python main.py --config=configs/gpt_shakespeare_cpu.py
Slice: cpu:1
Expect: 2.80 +- 0.01 bits/char (test, one seed; validation 2.75, nanoGPT's README 2.71 by another ruler); two minutes
  on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.update(name="tiny_shakespeare", window=64, tokens="characters", batch_size=12)
    c.model.update(
        name="gpt",
        width=128,
        layers=4,
        heads=4,
        dropout=0.0,
        positions="learned",
        tied=True,
        memory="store",
        conditional=False,
    )
    c.optimizer.update(learning_rate=1e-3, b2=0.99, schedule="cosine", warmup_steps=100, final_scale=0.1)
    c.optimizer.update(clip_norm=64.0, weight_decay=0.1, decay_pattern="kernel|embedding|position")
    c.train.update(num_steps=2_000, steps_per_call=50, log_every=250)
    c.eval.every = 250
    c.sample.update(num=16, temperatures=(0.5, 0.8, 1.0))
    if common.is_debug(arg):
        common.debug(c, "descriptions", width=4, layers=1, heads=2, dropout=0.2)
        c.data.window = 16
    return c
