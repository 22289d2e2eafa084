"""Convolutional hierarchical VAE with three latents on binarized Fashion-MNIST, to tell MNIST from it.

Pixels are drawn anew with P(1) = intensity for each step, the KL terms grow over 200 epochs, 2 nats of each are free
for 200 epochs and fall to none over the next 200. Not as the official code: a tenth of its training part is held out to
choose the checkpoint (it chooses on the test part); the floor of free nats is on a level's KL averaged over the batch,
not on each dimension of each example; skip connections enter a stage once, at its first block, in q too (where the code
drops those of equal shape); strided convolutions read blocks of pixels; weights start without data-dependent scales.
Which k gives the paper's figure is not known: all are printed.

    python scripts/detect_outliers.py --workdir=runs/hvae_fashion_mnist --outliers=mnist

A smaller one for a CPU, on blocks of 2 x 2 pixels (the latents keep their shapes):
  --config.model.patch=2 --config.model.strides='(1,2,1)' --config.model.kernels='(3,3,3)' --config.model.width=32
  --config.model.blocks=1 --config.model.kl_warmup=108000 --config.model.free_nats_until=108000
  --config.optimizer.learning_rate=2e-3 --config.optimizer.schedule=cosine --config.train.ema_decay=0.999
  --config.train.num_steps=8000 --config.train.steps_per_call=50 --config.eval.every=500

Paper: Havtorn et al. (2021), arXiv:2102.08248 (ICML), section 5
Run: python main.py --config=configs/hvae_fashion_mnist.py
Slice: v5e:2x2
Expect: AUROC .984 of LLR>k against MNIST (paper, unverified here), NLL in nats (test, no figure known here); not run
"""

from configs import common

EPOCH = 54_000


def get_config(arg=""):
    c = common.base()
    c.data.name = "fashion_mnist"
    c.data.binarize = "stochastic"
    c.data.batch_size = 128
    c.model.update(name="hvae", width=64, kernels=(5, 3, 3), strides=(2, 2, 1), blocks=3, patch=1, activation="relu")
    c.model.update(latents=(8, 16, 8), num_dense=2, inference="bottom_up", likelihood="bernoulli", min_log_scale=-5.0)
    c.model.update(beta=1.0, free_nats=2.0, free_nats_until=200 * EPOCH, kl_warmup=200 * EPOCH)
    c.model.update(samples=1, gradient="reparameterized")
    c.optimizer.learning_rate = 3e-4
    c.train.num_steps = 1000 * EPOCH // 128
    c.train.log_every = 500
    c.eval.every = 4220
    if common.is_debug(arg):
        sizes = {"width": 4, "kernels": (3, 3), "strides": (2, 1), "latents": (1, 2), "num_dense": 1, "blocks": 1}
        common.debug(c, "synthetic:4x4x1:2", **sizes)
    return c
