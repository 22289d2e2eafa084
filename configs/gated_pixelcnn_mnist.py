"""Gated PixelCNN on binarized MNIST (Larochelle's fixed split): 7 gated blocks of 32 features in two stacks.

The paper has no figure for MNIST; PixelCNN's is 81.30 nats, and a public implementation reports 81.50 with another
binarization, drawn anew for each epoch. The protocol is that of configs/pixelcnn_mnist.py, with Adam for RMSProp.

Paper: van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, arXiv:1606.05328
Run: python main.py --config=configs/gated_pixelcnn_mnist.py
Slice: v5e:2x2
Expect: about 81.4 nats (test, no published figure on this split); not run to its end; 100,000 steps of 16
  images, 32 epochs
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "binarized_mnist"
    c.data.batch_size = 16
    c.model.update(name="gated_pixelcnn", width=32, blocks=7, head=64, conditional=False)
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
