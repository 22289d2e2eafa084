"""Noise conditional score network on CIFAR-10: ten levels, a RefineNet of width 128, annealed Langevin dynamics.

Protocol of the official code: noise from 0.01 to 1 for images in [0, 1], which is 0.02 to 2 here, in [-1, 1]; 100 steps
a level; flips; no average of the weights. There, the first level too has its 100 steps, from uniform noise, draws are
not denoised at the end, and the checkpoint is that with the best FID. `data.validation` is taken out of the training
part.

Paper: Song and Ermon (2019), arXiv:1907.05600, table 1
Run: python main.py --config=configs/ncsn_cifar10.py
Slice: v5e:4x4
Expect: FID 25.32, Inception score 8.87 (training part, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.data.validation = 0.02
    c.data.augment = "flip"
    c.model.update(name="ncsn", levels=10, sigma_min=0.02, sigma_max=2.0, objective="denoising", projections=1)
    c.model.update(prediction="score", width=128, multipliers=(1, 2, 2, 2), dilations=(1, 1, 2, 4), blocks=2)
    c.model.update(sampler="annealed_langevin", sampler_steps=10, spacing="linear")
    c.optimizer.learning_rate = 1e-3
    c.train.num_steps = 200_000
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.eval.select = "last"
    c.eval.baselines = False
    c.sample.every = 20_000
    c.sample.temperatures = (1.0,)
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        tiny = {"width": 4, "multipliers": (1,), "dilations": (1,), "blocks": 1}
        common.debug(c, "synthetic:8x8x3", levels=3, sampler_steps=3, **tiny)
    return c
