"""Masked autoregressive flow of five layers on GAS, chemical sensors, 8 dimensions.

Protocol of the official code where it fixes one: Adam at 1e-4, batches of 100, the order reversed between layers,
tanh units, as the paper has for this set; of the widths that it tried, (100, 100). Differences: ActNorm instead of
batch normalization, bounded log-scales, no weight decay (1e-6 there), 500,000 steps (59 epochs) with the best
checkpoint of the validation part instead of early stopping after 30 epochs without gain.

Paper: Papamakarios et al. (2017), arXiv:1705.07057, table 1
Run: python main.py --config=configs/maf_gas.py --config.data.data_dir=DIR
Slice: v5e:2x2
Expect: -9.07 nats (test, negative log-density, from the paper, unverified here); not run
"""

from configs import uci


def get_config(arg=""):
    return uci.maf(arg, "gas", widths=(100, 100), activation="tanh", num_steps=500_000)
