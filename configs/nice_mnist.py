"""NICE on MNIST: four additive couplings between even and odd pixels, each with five layers of 1000 ReLU units.

Protocol of the official code: 200 images a step, 1,500 epochs, a logistic prior, the best of the validation part.
Differences: Adam (beta2 0.99, epsilon 1e-4) stands where that code has RMSProp with momentum (the paper's text says
Adam), the learning rate falls from 1e-3 to 1e-4 by a cosine over the whole run (within 4,600 steps there), weights
start as usual for the width (uniform within 0.01 there), the scaling starts from the first batch (at one there). The
figure here is bits/dim of the 8-bit data, a bound through uniform dequantization, not nats of rescaled pixels.

Paper: Dinh et al. (2015), arXiv:1410.8516, figure 3
Run: python main.py --config=configs/nice_mnist.py
Slice: v5e:2x2
Expect: 4.36 bits/dim (test; the paper's 1980.50 nats from memory); not run in full, a day or more on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 200
    c.data.validation = 1 / 6  # 10,000 of 60,000
    c.model.update(name="nice", depth=4, widths=(1000,) * 5, memory="store", conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 0.99
    c.optimizer.eps = 1e-4
    c.optimizer.schedule = "cosine"
    c.optimizer.final_scale = 0.1
    c.train.num_steps = 375_000  # 1,500 epochs
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.eval.every = 2_500
    c.eval.batch_size = 1_000
    c.sample.every = 50_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x1", depth=2, widths=(8,))
    return c
