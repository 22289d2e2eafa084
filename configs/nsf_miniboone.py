"""Neural spline flow with couplings, RQ-NSF (C), on MINIBOONE, neutrino events, 43 dimensions.

Settings of the paper's appendix and official code. Differences: no batch normalization in the conditioners, a
validation every 5,000 steps (250 there). RQ-NSF (AR) is `--config.model.autoregressive=true --config.model.depth=10
--config.model.blocks=2 --config.model.width=64 --config.data.batch_size=64 --config.train.num_steps=250000`: 9.22 nats
in the paper.

Paper: Durkan et al. (2019), arXiv:1906.04032, table 1
Run: python main.py --config=configs/nsf_miniboone.py --config.data.data_dir=DIR
Slice: v5e:2x2
Expect: 9.67 nats (test, negative log-density, from the paper, unverified here); not run
"""

from configs import uci


def get_config(arg=""):
    model = {"depth": 10, "width": 32, "blocks": 1, "bins": 4, "dropout": 0.2}
    return uci.nsf(arg, "miniboone", learning_rate=0.0003, batch_size=128, num_steps=200_000, **model)
