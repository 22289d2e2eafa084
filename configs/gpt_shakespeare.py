"""GPT on the characters of Tiny Shakespeare: 6 blocks of width 384 on windows of 256, 10.8 million parameters.

The setting that nanoGPT (config/train_shakespeare_char.py) trains on a GPU, which ends at 1.4697 nats a character =
2.120 bits on its validation part. Our ruler differs: every character of a window is scored, the first without anything
before it (there, too, the network learns); windows lie side by side and not at random; validation and test are 5 % each
of the text, and its validation part is both. As there, characters late in a window have more before them. Its loss is a
mean over characters and ours a sum over the window, so that clip_norm is 256 times its own. Our
projections, perceptrons and normalizations have biases where its have none, and GELU is its approximation by tanh.

Paper: Radford et al. (2019), Language models are unsupervised multitask learners
Run: python main.py --config=configs/gpt_shakespeare.py
Slice: v5e:2x2
Expect: near 2.12 bits/char (validation; nanoGPT's README, another ruler, see above); not run: made for a GPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.update(name="tiny_shakespeare", window=256, tokens="characters", batch_size=64)
    c.model.update(
        name="gpt",
        width=384,
        layers=6,
        heads=6,
        dropout=0.2,
        positions="learned",
        tied=True,
        memory="store",
        conditional=False,
    )
    c.optimizer.update(learning_rate=1e-3, b2=0.99, schedule="cosine", warmup_steps=100, final_scale=0.1)
    c.optimizer.update(clip_norm=256.0, weight_decay=0.1, decay_pattern="kernel|embedding|position")
    c.train.update(num_steps=5_000, steps_per_call=10, log_every=250)
    c.eval.every = 250
    c.sample.update(num=16, temperatures=(0.5, 0.8, 1.0))
    if common.is_debug(arg):
        common.debug(c, "descriptions", width=4, layers=1, heads=2)
        c.data.window = 16
    return c
