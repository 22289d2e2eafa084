"""Energy-based model of scikit-learn's handwritten digits (8x8 pixels): the paper's method at a small size.

Two stages of one block each, and 20 steps a chain instead of 60. Steps are of size 1 instead of 10: of 64 pixels each
has a larger share of the gradient than of 3,072, and steps that the clipping of gradients cuts to 0.1 a pixel do not
settle; gradients are clipped at 0.03. The buffer is a tenth of the paper's, with fewer restarts: in so short a run most
of a larger one would stay noise. The noise and the regularization are the paper's. The learning rate is higher.

Paper: Du and Mordatch (2019), arXiv:1903.08689
Run: python main.py --config=configs/igebm_digits.py
Slice: cpu:1
Expect: no bits/dim, as log Z is not known; frechet_digits 2.2 (0.4 of test data, no published figure); nine minutes
  on a shared 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "digits"
    c.data.batch_size = 64
    c.model.update(name="igebm", width=32, multipliers=(1, 2), blocks=1, activation="leaky_relu")
    c.model.update(spectral_normalization=True, conditional=False, steps=20, step_size=1.0, noise=0.005)
    c.model.update(max_gradient=0.03, buffer=1_000, restarts=0.02, regularization=1.0, input_noise=0.0)
    c.model.update(divergence=100.0, sample_steps=400, sample_from_buffer=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b1 = 0.0
    c.optimizer.clip_norm = 1.0
    c.train.num_steps = 1_500
    c.train.ema_decay = 0.99
    c.eval.select = "last"
    c.eval.baselines = False
    c.eval.num_samples = 1_000
    c.train.max_rollbacks = 3
    c.sample.temperatures = ()
    c.checkpoint.every = 250
    if common.is_debug(arg):
        common.debug(c, width=4, steps=3, buffer=32, sample_steps=4)
        c.sample.temperatures = ()
    return c
