"""The lecture's smallest autoregressive model on the embedded digits: a perceptron of the 16 pixels before, a softmax.

Two rows of 8 pixels before each pixel are all that it sees, and it does not know where in the image it is: what later
families gain, they gain over this.

Paper: Bengio et al. (2003), A neural probabilistic language model, section 2
Run: python main.py --config=configs/markov_digits.py
Slice: cpu:1
Expect: 2.002 +- 0.013 bits/dim (test, one seed, no published figure; independent pixels 2.43); one minute on a 2-core
  x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 128
    c.model.update(name="markov", order=16, widths=(128, 128), conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.weight_decay = 1.0
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 2_000
    c.train.steps_per_call = 50
    c.train.log_every = 250
    c.train.ema_decay = 0.99
    c.eval.every = 250
    c.sample.temperatures = (0.5, 0.7, 0.85, 1.0)
    if common.is_debug(arg):
        common.debug(c, widths=(8,), order=4)
    return c
