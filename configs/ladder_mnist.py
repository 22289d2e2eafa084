"""Ladder variational autoencoder with five levels of 64, 32, 16, 8 and 4 latents on binarized MNIST.

Pixels are drawn anew as Bernoulli variables of their gray values whenever a training image is seen; two hidden layers
a level of 512, 256, 128, 64 and 32 (from memory of the paper, and as in a reimplementation);
2,000 epochs of batches of 256, the weight of the KL terms growing over 200 of them.

Deviations: layer normalization where the paper has batch normalization, so that the bound of an image does not depend
on the others of its batch; a cosine of the learning rate, which is constant there as far as we remember; 400 training
images are held out, and the checkpoint that they score best is the one that is scored; the test images are drawn once;
no finetuning with more draws at the end.

Ten draws: --config.model.samples=10 --config.model.kl_warmup=0 (the bound of several draws has no KL to weigh)

Paper: Sønderby et al. (2016), Ladder variational autoencoders, arXiv:1602.02282
Run: python main.py --config=configs/ladder_mnist.py
Slice: v5e:2x2
Expect: 82.1 nats (test, 81.84 after finetuning and 81.74 with ten draws; from the paper, unverified here); not run
"""

from configs import common

EPOCH = 59_600 // 256


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.binarize = "stochastic"
    c.data.validation = 400 / 60_000
    c.data.batch_size = 256
    c.model.update(name="ladder", latents=(64, 32, 16, 8, 4), activation="leaky_relu", normalize=True)
    c.model.widths = ((512, 512), (256, 256), (128, 128), (64, 64), (32, 32))
    c.model.update(likelihood="auto", min_log_scale=-5.0, std=0.0)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=200 * 59_600, samples=1)
    c.optimizer.learning_rate = 2e-3
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 2000 * EPOCH
    c.train.steps_per_call = 50
    c.train.log_every = EPOCH
    c.eval.every = 20 * EPOCH
    c.eval.batch_size = 100
    c.eval.importance_samples = 5000
    c.eval.samples_per_call = 16
    c.checkpoint.every = 5 * EPOCH
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", latents=(3, 2), widths=((8,), (4,)))
        c.data.binarize = "none"
    return c
