"""Jet on 64x64 ImageNet, the official configuration: patches of 4, 32 couplings of 2 layers, width 512.

Protocol of the official code: four couplings of channels, then one of tokens; uniform dequantization, Adam with beta2
0.95, cosine from 3e-4 after 10 % of warm-up, gradients clipped to norm 1, 1024 images a step, 200 epochs, weight decay
1e-5 that is times the schedule but not times the learning rate. Deviations: ActNorm before the couplings, couplings of
tokens see half of the tokens whole, moments in float32, a part of the training images held out to choose the
checkpoint; the official validation part is the test. The official configuration expects 3.66 bits/dim of 64 couplings
of 5 layers.

Paper: Kolesnikov et al. (2024), arXiv:2412.15129 and google-research/big_vision, configs/proj/jet/imagenet64.py
Run: python main.py --config=configs/jet_imagenet64.py
Slice: v5e:8x8
Expect: 3.72 bits/dim (validation part, from the official configuration, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "downsampled_imagenet/64x64"
    c.data.batch_size = 1024
    c.data.validation = 0.002
    c.model.update(name="jet", patch=4, width=512, couplings=32, layers=2, heads=8)
    c.model.update(memory="remat", gaussianize=False, conditional=False)
    c.optimizer.learning_rate = 3e-4
    c.optimizer.b2 = 0.95
    c.optimizer.weight_decay = 1e-5 / 3e-4
    c.optimizer.decay_pattern = "/layers/"  # everything but ActNorm and the prior
    c.optimizer.clip_norm = 1.0
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 25_000  # 10 %
    c.optimizer.final_scale = 0.0
    c.train.num_steps = 250_000  # 200 epochs of 1,281,149 images
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.eval.every = 10_000
    c.sample.every = 50_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", patch=4, width=8, couplings=5, layers=1, heads=2)
    return c
