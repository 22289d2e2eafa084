"""GPT on text8, 100 million characters of English Wikipedia (a to z and blank): 12 blocks of width 512, windows of 512.

Size, dropout, batch and learning rate are those of Transformer-XL's base model (12 layers, 41 million parameters;
kimiyoung/transformer-xl), without its memory of the windows before: what is comparable is the 12-layer transformer of
Al-Rfou et al., whose auxiliary losses are not here. Rotary positions are later than both. Windows lie side by side in
evaluation, so that the first characters of each have little before them; sliding windows would score lower.
Data: `python scripts/prepare_data.py text8`.

Paper: Al-Rfou et al. (2019), Character-level language modeling with deeper self-attention, arXiv:1808.04444
Run: python main.py --config=configs/gpt_text8.py
Slice: v5e:1x1
Expect: 1.18 bits/char (test; 12 layers, from the paper, unverified here); not run: days on a GPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.update(name="text8", window=512, tokens="characters", batch_size=22)
    c.model.update(
        name="gpt",
        width=512,
        layers=12,
        heads=8,
        dropout=0.1,
        positions="rotary",
        tied=True,
        memory="store",
        conditional=False,
    )
    c.optimizer.update(learning_rate=2.5e-4, schedule="cosine", warmup_steps=1_000, clip_norm=128.0)
    c.train.update(num_steps=400_000, steps_per_call=20, log_every=1_000)
    c.eval.every = 10_000
    c.checkpoint.every = 10_000
    c.sample.update(num=16, temperatures=(0.5, 0.8, 1.0))
    if common.is_debug(arg):
        common.debug(c, "descriptions", width=4, layers=1, heads=2, dropout=0.2, positions="learned")
        c.data.window = 16
    return c
