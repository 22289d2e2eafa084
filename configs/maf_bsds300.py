"""Masked autoregressive flow of five layers on BSDS300, patches of photographs, 63 dimensions.

Protocol of the official code where it fixes one: Adam at 1e-4, batches of 100, the order reversed between layers,
ReLU units; of the widths that it tried, (512, 512). Differences: ActNorm instead of batch normalization, bounded log-
scales, no weight decay (1e-6 there), 500,000 steps (50 epochs) with the best checkpoint of the validation part
instead of early stopping after 30 epochs without gain.

Paper: Papamakarios et al. (2017), arXiv:1705.07057, table 1
Run: python main.py --config=configs/maf_bsds300.py --config.data.data_dir=DIR
Slice: v5e:2x2
Expect: -155.69 nats (test, negative log-density, from the paper, unverified here); not run
"""

from configs import uci


def get_config(arg=""):
    return uci.maf(arg, "bsds300", widths=(512, 512), activation="relu", num_steps=500_000)
