"""Masked autoregressive flow of five layers on HEPMASS, particle collisions, 21 dimensions.

Protocol of the official code where it fixes one: Adam at 1e-4, batches of 100, the order reversed between layers,
ReLU units; of the widths that it tried, (512, 512). Differences: ActNorm instead of batch normalization, bounded log-
scales, no weight decay (1e-6 there), 300,000 steps (95 epochs) with the best checkpoint of the validation part
instead of early stopping after 30 epochs without gain.

Paper: Papamakarios et al. (2017), arXiv:1705.07057, table 1
Run: python main.py --config=configs/maf_hepmass.py --config.data.data_dir=DIR
Slice: v5e:2x2
Expect: 17.70 nats (test, negative log-density, from the paper, unverified here); not run
"""

from configs import uci


def get_config(arg=""):
    return uci.maf(arg, "hepmass", widths=(512, 512), activation="relu", num_steps=300_000)
