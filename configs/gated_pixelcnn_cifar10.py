"""Gated PixelCNN on CIFAR-10: 15 gated layers of 132 features in two stacks, a softmax over 256 values.

The paper gives neither sizes nor an optimizer for CIFAR-10 that were verified here: the sizes, Adam, its schedule,
clipping, the number of steps and the parameter average are ours. `data.validation` is held out of the training part to
choose the checkpoint.

Paper: van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, arXiv:1606.05328
Run: python main.py --config=configs/gated_pixelcnn_cifar10.py
Slice: v5e:4x4
Expect: 3.03 bits/dim (test, from the paper, unverified here); not run; about 12 GFLOP an image forward
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 16
    c.data.validation = 0.02
    c.model.update(name="gated_pixelcnn", width=132, blocks=14, head=264, conditional=False)
    c.optimizer.learning_rate = 3e-4
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 1_000
    c.optimizer.clip_norm = 1_000.0
    c.train.num_steps = 400_000
    c.train.steps_per_call = 20
    c.train.log_every = 1_000
    c.train.ema_decay = 0.9995
    c.eval.every = 10_000
    c.eval.batch_size = 64
    c.sample.every = 50_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", width=3, blocks=1, head=6)
    return c
