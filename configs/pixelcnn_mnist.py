"""PixelCNN on binarized MNIST (Larochelle's fixed split): 7 residual blocks, h = 16, one Bernoulli for each pixel.

Protocol of the paper: 7 layers, h = 16, RMSProp, 16 images a step. The learning rate, its warm-up and its decay along a
cosine, clipping, the number of steps and the parameter average are ours; before the output there is one layer of 32
features.

Paper: van den Oord et al. (2016), Pixel recurrent neural networks, arXiv:1601.06759
Run: python main.py --config=configs/pixelcnn_mnist.py
Slice: v5e:2x2
Expect: 81.30 nats (test, from the paper, unverified here); not run; 100,000 steps of 16 images, 32 epochs
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "binarized_mnist"
    c.data.batch_size = 16
    c.model.update(name="pixelcnn", width=16, blocks=7, head=32, conditional=False)
    c.optimizer.name = "rmsprop"
    c.optimizer.b2 = 0.95
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 500
    c.optimizer.clip_norm = 100.0
    c.train.num_steps = 100_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.train.ema_decay = 0.999
    c.eval.every = 5_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", width=4, blocks=1, head=8)
    return c
