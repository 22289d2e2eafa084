"""PixelCNN on CIFAR-10: 12 residual blocks, red, then green, then blue, each by a softmax over 256 values.

Protocol of the paper: 12 layers, h = 128, RMSProp, 16 images a step. Differences: h = 129, and one layer of 1,023
features before the output, because three channels divide them into equal groups; the learning rate, its warm-up and
its decay along a cosine, clipping, the number of steps and the parameter average are ours; `data.validation` is held
out of the training part to choose the checkpoint.

Paper: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759
Run: python main.py --config=configs/pixelcnn_cifar10.py
Slice: v5e:4x4
Expect: 3.14 bits/dim (test, from the paper, unverified here); not run; about 6 GFLOP an image forward
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 16
    c.data.validation = 0.02
    c.model.update(name="pixelcnn", width=129, blocks=12, head=1023, conditional=False)
    c.optimizer.name = "rmsprop"
    c.optimizer.b2 = 0.95
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
