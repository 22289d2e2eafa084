"""Gated PixelCNN on the embedded digits: every pixel given all before it, by a softmax over its 17 values.

Protocol: those of the digits everywhere here (10 % of the training part chooses the checkpoint). Adam and a parameter
average replace the paper's optimizer, weight decay is ours: 1,500 images are quickly learnt by heart.

Paper: van den Oord et al. (2016), Conditional image generation with PixelCNN decoders, arXiv:1606.05328
Run: python main.py --config=configs/gated_pixelcnn_digits.py
Slice: cpu:1
Expect: 1.800 +- 0.014 bits/dim (test, one seed, no published figure; independent pixels 2.43); one minute on a 2-core
  x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 64
    c.model.update(name="gated_pixelcnn", width=32, blocks=3, head=64, conditional=False)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.weight_decay = 0.3
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 1_000
    c.train.steps_per_call = 50
    c.train.log_every = 250
    c.train.ema_decay = 0.99
    c.eval.every = 250
    c.sample.temperatures = (0.5, 0.7, 0.85, 1.0)
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", width=4, blocks=1, head=8)
    return c
