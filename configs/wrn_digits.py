"""Wide residual network that classifies scikit-learn's handwritten digits: the plain classifier beside jem_digits.

Network, data, input noise, optimizer and number of steps are those of configs/jem_digits.py; the loss is the
cross-entropy alone.

Paper: Zagoruyko and Komodakis (2016), Wide residual networks, arXiv:1605.07146
Run: python main.py --config=configs/wrn_digits.py
Slice: cpu:1
Expect: no bits/dim; test accuracy 0.983, 0.986, 0.972 (three seeds, no published figure); one minute on a 2-core
  x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 64
    c.model.update(name="classifier", depth=10, width=1, norm="none", input_noise=0.03)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 1_500
    c.train.ema_decay = 0.99
    c.eval.select = "last"
    c.eval.baselines = False
    if common.is_debug(arg):
        common.debug(c)
    return c
