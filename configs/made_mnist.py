"""MADE on binarized MNIST (Larochelle's fixed split): one layer of 500 units, one mask, the natural order of pixels.

Differences: Adam with a cosine and weight decay (chosen on the validation part) stands where the paper has Adagrad, an
average of the parameters is scored, the number of steps is fixed, every level has equally many units.

The paper's larger networks, from the command line (a GPU, or many hours; nats on the test part, from the paper):
  88.40, 1 x 8000, 1 mask: --config.model.widths='(8000,)' --config.model.shuffle=True
  88.04, 1 x 8000, 32 masks and orderings: --config.model.num_masks=32 beside those
  86.64, 2 x 8000, 32 masks and orderings: --config.model.widths='(8000,8000)' instead

Paper: Germain et al. (2015), arXiv:1502.03509, section 6
Run: python main.py --config=configs/made_mnist.py
Slice: v5e:2x2
Expect: 90.67 +- 0.23 nats (test, one seed; 94.5 in karpathy/pytorch-made for 500 units, unverified here); three minutes
  on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "binarized_mnist"
    c.data.batch_size = 100
    c.model.update(name="made", widths=(500,), num_masks=1, shuffle=False, direct=True, seed=0, conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.weight_decay = 0.05
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 25_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 1_000
    c.eval.batch_size = 1_000
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", widths=(8,))
    return c
