"""EDM on CIFAR-10 without labels: DDPM++ with preconditioning, noise levels for training, Heun's 18 steps.

The paper's configuration but for its augmentation, of which the network is told: images are flipped instead. 200M
images, warm-up of the learning rate for 10M of them, the average's half-life 0.5M images with a ramp of 5 %, one head
of attention at 16x16. Likelihoods by the probability-flow equation, from sigma = 0.002, are not in the paper.

Paper: Karras et al. (2022), arXiv:2206.00364, table 2
Run: python main.py --config=configs/edm_cifar10.py
Slice: v5e:8x8
Expect: FID 1.97 with 35 network calls (training set, from the paper, with augmentation, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 512
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="edm", width=128, multipliers=(2, 2, 2), blocks=4, attention=(16,), heads=1, dropout=0.13)
    c.model.update(memory="store", data_std=0.5, noise_mean=-1.2, noise_std=1.2)
    c.model.update(sampler="heun", sampler_steps=18, guidance=0.0, spacing="karras")
    c.model.update(likelihood="ode", rtol=1e-5, atol=1e-5, conditional=False, drop_condition=0.0)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 19_531  # 10M images
    c.train.num_steps = 390_625  # 200M images
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.99929  # 0.5^(512 / 500,000)
    c.train.ema_warmup = 0.05
    c.eval.select = "last"
    c.sample.every = 20_000
    c.checkpoint.every = 5_000
    c.sample.temperatures = (1.0,)
    if common.is_debug(arg):
        tiny = {"width": 4, "multipliers": (1,), "blocks": 1, "attention": ()}
        common.debug(c, "synthetic:4x4x3", sampler_steps=3, rtol=1e-2, atol=1e-2, **tiny)
    return c
