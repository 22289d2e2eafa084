"""Neural spline flow with couplings, RQ-NSF (C), on GAS, chemical sensors, 8 dimensions.

Settings of the paper's appendix and official code. Differences: no batch normalization in the conditioners, a
validation every 5,000 steps (250 there). RQ-NSF (AR) is `--config.model.autoregressive=true --config.model.depth=10
--config.model.blocks=2 --config.model.width=256 --config.data.batch_size=512`: -13.09 nats in the paper.

Paper: Durkan et al. (2019), arXiv:1906.04032, table 1
Run: python main.py --config=configs/nsf_gas.py --config.data.data_dir=DIR
Slice: v5e:2x2
Expect: -13.09 nats (test, negative log-density, from the paper, unverified here); not run
"""

from configs import uci


def get_config(arg=""):
    model = {"depth": 10, "width": 256, "blocks": 2, "bins": 8, "dropout": 0.1}
    return uci.nsf(arg, "gas", learning_rate=0.0005, batch_size=512, num_steps=400_000, **model)
