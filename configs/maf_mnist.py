"""Masked autoregressive flow of five layers on MNIST, 28x28, behind a logit with alpha = 1e-6.

Protocol of the official code: Adam at 1e-4, batches of 100, ReLU, 1,024 units, the order reversed between layers.
Differences: ActNorm instead of batch normalization, bounded log-scales, no weight decay (1e-6 there), fresh
dequantization noise at every step (drawn once there), 50,000 steps with the best checkpoint of the validation part.

Paper: Papamakarios et al. (2017), arXiv:1705.07057, tables 2 and 4
Run: python main.py --config=configs/maf_mnist.py
Slice: v5e:2x2
Expect: 1.89 bits/dim (test, from the paper, unverified here); two hours on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 100
    c.model.update(
        name="maf", depth=5, widths=(1024,), activation="relu", alpha=1e-6, memory="store", conditional=False
    )
    c.optimizer.learning_rate = 1e-4
    c.train.num_steps = 50_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.eval.every = 1_000
    c.eval.batch_size = 1_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1", depth=2, widths=(8,))
    return c
