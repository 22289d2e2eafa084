"""The lecture's one-dimensional GAN, filmed: data, generator, and the discriminator beside its optimum p / (p + q).

Two Gaussians on the line, perceptrons, and a generator that maximizes log D (--config.model.loss=minimax: the lecture's
own game). samples/training.gif, also in the report, has a frame every hundred steps: the files samples/step_N.png.

Paper: Goodfellow et al. (2014), arXiv:1406.2661
Run: python main.py --config=configs/gan_toy1d.py
Slice: cpu:1
Expect: no likelihood in nats, but a film to look at; one minute on a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "two_gaussians"
    c.data.batch_size = 512
    c.model.update(name="gan", loss="non_saturating", gradient_penalty=0.0, spectral_normalization=False)
    c.model.update(noise_dims=4, prior="normal", widths=(64, 64), generator_init=0.0)
    c.model.update(discriminator_widths=(64, 64), pieces=1, dropout_input=0.0, dropout=0.0, discriminator_init=0.0)
    c.model.update(dequantize=False, conditional=False)
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b1 = 0.5
    c.optimizer.groups.generator = {"learning_rate": 2e-4}
    c.train.num_steps = 5_000
    c.train.steps_per_call = 100
    c.train.log_every = 250
    c.eval.select = "last"
    c.eval.baselines = False
    c.sample.every = 100
    if common.is_debug(arg):
        common.debug(c, widths=(8,), discriminator_widths=(8,))
        c.sample.every = 2
    return c
