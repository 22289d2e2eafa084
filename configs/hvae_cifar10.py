"""Convolutional hierarchical VAE with three latents on CIFAR-10, to tell SVHN from it.

Maps of 256 channels, latents of 128 and 64 channels and one of 32 numbers, mixtures of logistics for the pixels;
otherwise as hvae_fashion_mnist, with the same deviations from the official code, whose README has narrower first
stages and latents of 8, 16 and 32 channels. Pixels are integers whose mass is bounded without dequantization.

    python scripts/detect_outliers.py --workdir=runs/hvae_cifar10 --outliers=svhn_cropped

Paper: Havtorn et al. (2021), arXiv:2102.08248 (ICML), section 5
Run: python main.py --config=configs/hvae_cifar10.py
Slice: v5e:4x4
Expect: AUROC .811 of LLR>k against SVHN (paper, unverified here), NLL in bits/dim (test, no figure known here); not run
"""

from configs import common

EPOCH = 45_000


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 128
    c.model.update(name="hvae", width=256, kernels=(5, 3, 3), strides=(2, 2, 2), blocks=3, patch=1, activation="relu")
    c.model.update(latents=(128, 64, 32), num_dense=1, inference="bottom_up", likelihood="mixture", min_log_scale=-5.0)
    c.model.update(beta=1.0, free_nats=2.0, free_nats_until=200 * EPOCH, kl_warmup=200 * EPOCH)
    c.model.update(samples=1, gradient="reparameterized")
    c.optimizer.learning_rate = 3e-4
    c.train.num_steps = 2000 * EPOCH // 128
    c.train.log_every = 500
    c.eval.every = 3515
    if common.is_debug(arg):
        sizes = {"width": 4, "kernels": (3,), "strides": (2,), "latents": (1,), "num_dense": 0, "blocks": 1}
        common.debug(c, "synthetic:4x4x3", **sizes)
    return c
