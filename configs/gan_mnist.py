"""GAN of perceptrons on MNIST, scored by the Parzen estimate of the first GANs.

What was published in 2014, a non-saturating loss with maxout, dropout and SGD, did not train here: with the official
code's settings the discriminator told everything apart within 400 steps and the generator died; with Adam every sample
was the same image after 10,000 (trials without a record). This is the Wasserstein loss with a gradient penalty
(Gulrajani et al. 2017, arXiv:1704.00028) on ReLU layers, which does train. The settings of 2014:
  --config.model.loss=non_saturating --config.model.gradient_penalty=0 --config.model.pieces=5
  --config.model.widths='(1200,1200)' --config.model.discriminator_widths='(240,240)' --config.model.dropout_input=0.2
  --config.model.dropout=0.5 --config.model.generator_init=0.05 --config.model.discriminator_init=0.005
  --config.optimizer.name=sgd --config.optimizer.learning_rate=0.1 --config.optimizer.b1=0.6
  --config.optimizer.schedule=linear --config.optimizer.final_scale=0.6065 --config.train.num_steps=125000
(the official momentum rises from 0.5 to 0.7).

The paper's figure is a Parzen estimate, the density of Gaussians around 10,000 samples, in nats: another number than a
likelihood, and an unreliable one.

Paper: Goodfellow et al. (2014), arXiv:1406.2661, table 1
Run: python main.py --config=configs/gan_mnist.py
Slice: v5e:2x2
Expect: 225 nats by the Parzen estimate (test, from the paper, unverified here: 112 after 15,000 steps); twelve minutes
  on a shared 2-core x86 CPU for these
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.batch_size = 100
    c.data.validation = 1 / 6
    c.model.update(name="gan", loss="wasserstein", gradient_penalty=10.0, spectral_normalization=False)
    c.model.update(noise_dims=100, prior="uniform", widths=(512, 512), generator_init=0.0)
    c.model.update(discriminator_widths=(512, 512), pieces=1, dropout_input=0.0, dropout=0.0, discriminator_init=0.0)
    c.model.update(dequantize=False, conditional=False)
    c.optimizer.learning_rate = 1e-4
    c.optimizer.b1 = 0.0
    c.optimizer.b2 = 0.9
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
