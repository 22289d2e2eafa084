"""Real NVP on MNIST, 28x28: 2 scales, residual networks of 2 blocks, width 32.

ActNorm and group normalization stand where the paper has batch normalization, the log-scales' weight norm and the skips
from every block to the output are left out, decay is decoupled and on all kernels, and the average of the weights is
scored. Adam, learning rate 1e-3, 64 images a step, gradients clipped at 100, pixels in [.05, .95] before the logit.

Paper: Dinh et al. (2017), arXiv:1605.08803, sections 3 and 4.1 (gives no MNIST figure)
Run: python main.py --config=configs/realnvp_mnist.py
Slice: v5e:2x2
Expect: no figure in bits/dim in the paper, compare with glow_mnist (test); not run in full
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 64
    c.model.update(name="realnvp", scales=2, width=32, blocks=2, alpha=0.05)
    c.model.update(memory="store", conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.clip_norm = 100.0
    c.optimizer.weight_decay = 5e-5
    c.train.num_steps = 50_000
    c.train.steps_per_call = 20
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 5_000
    c.eval.max_examples = 10_000
    c.sample.every = 20_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x1", scales=2, width=4, blocks=1)
    return c
