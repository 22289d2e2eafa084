"""VAE whose posterior is an inverse autoregressive flow, on binarized MNIST (Larochelle's fixed split).

The encoder and the decoder of vae_mnist, perceptrons of 512-512 units around 128 latents; behind the Gaussian are two
steps z <- sigma z + (1 - sigma) m of masked networks of 256 units, with the order of the latents reversed in between.
The paper's figure, 79.10 nats (unverified here), is of a deep convolutional VAE with flows of depth 8 and width 1920,
which this is not; what it may be compared with is vae_mnist.

Paper: Kingma et al. (2016), arXiv:1606.04934
Run: python main.py --config=configs/vae_iaf_mnist.py
Slice: v5e:2x2
Expect: about 95.33 nats by importance samples (test, from the README of github.com/altosaar/variational-autoencoder,
  whose flow differs from ours, unverified here); not run
"""

from configs import common, vae_mnist


def get_config(arg=""):
    c = vae_mnist.get_config()
    c.model.posterior = "iaf"
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", latent_dims=2, widths=(8,), context_dims=2, flow_widths=(8,))
    return c
