"""The first GAN, on MNIST: perceptrons of 1200-1200 ReLUs against two layers of 240 maxout units with dropout.

The networks, the noise and the dropout are those of the official code. Its optimizer is not: with SGD at 0.1 our
discriminator tells everything apart within 400 steps and the generator dies. Adam and larger first weights do not.
The official protocol: --config.optimizer.name=sgd --config.optimizer.learning_rate=0.1 --config.optimizer.b1=0.6
(of a momentum that rises from 0.5 to 0.7) --config.optimizer.schedule=linear --config.optimizer.final_scale=0.6065
--config.model.generator_init=0.05 --config.model.discriminator_init=0.005 --config.train.num_steps=125000

The paper's figure is a Parzen estimate, the density of Gaussians around 10,000 samples, in nats: another number than a
likelihood, and an unreliable one.

Paper: Goodfellow et al. (2014), arXiv:1406.2661, table 1
Run: python main.py --config=configs/gan_mnist.py
Expect: 225 nats by the Parzen estimate (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 100
    c.data.validation = 1 / 6
    c.model.update(name="gan", loss="non_saturating", gradient_penalty=0.0, spectral_normalization=False)
    c.model.update(noise_dims=100, prior="uniform", widths=(1200, 1200), generator_init=0.0)
    c.model.update(discriminator_widths=(240, 240), pieces=5, dropout_input=0.2, dropout=0.5, discriminator_init=0.0)
    c.model.update(dequantize=False, conditional=False)
    c.optimizer.learning_rate = 2e-4
    c.optimizer.b1 = 0.5
    c.train.num_steps = 50_000
    c.train.steps_per_call = 50
    c.train.log_every = 1_000
    c.eval.select = "last"
    c.eval.baselines = False
    c.eval.num_samples = 10_000
    c.eval.parzen = True
    c.sample.every = 5_000
    c.sample.temperatures = ()
    c.checkpoint.every = 5_000
    if common.is_debug(arg):
        common.debug(c, "digits", noise_dims=4, widths=(8,), discriminator_widths=(8,))
    return c
