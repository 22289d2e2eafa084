"""Flow matching with straight paths on two moons, the noise of a batch paired with its data by optimal transport.

Paper: Tong et al. (2023), arXiv:2302.00482
Run: python main.py --config=configs/flow_matching_toy.py
Slice: cpu:1
Expect: 2.412 nats (test; the data's entropy is 2.3939, no published figure); two minutes on 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "moons"
    c.data.batch_size = 128
    c.model.update(name="flow_matching", path="linear", latent_noise=0.0, coupling="optimal_transport")
    c.model.update(width=128, multipliers=(1,), blocks=3, attention=(), heads=1, dropout=0.0, memory="store")
    c.model.update(sampler="ddim", sampler_steps=50, guidance=0.0, spacing="linear")
    c.model.update(likelihood="ode", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 5_000
    c.train.steps_per_call = 100
    c.train.log_every = 1_000
    c.train.ema_decay = 0.999
    c.eval.batch_size = 1_000
    c.eval.select = "last"
    if common.is_debug(arg):
        common.debug(c, width=16, blocks=1, rtol=0.01, atol=0.01)
    return c
