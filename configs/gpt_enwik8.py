"""GPT on enwik8, the first 100 million bytes of an English Wikipedia dump: 12 blocks of width 512, windows of 512.

See gpt_text8, which differs in nothing but the data. Data: `python scripts/prepare_data.py enwik8`.

Paper: Al-Rfou et al. (2019), Character-level language modeling with deeper self-attention, arXiv:1808.04444
Run: python main.py --config=configs/gpt_enwik8.py
Slice: v5e:1x1
Expect: 1.11 bits/char, here bits a byte (test; 12 layers, from the paper, unverified here); not run: days on a GPU
"""

from configs import common, gpt_text8


def get_config(arg=""):
    c = gpt_text8.get_config(arg)
    if not common.is_debug(arg):
        c.data.update(name="enwik8", tokens="bytes")
    return c
