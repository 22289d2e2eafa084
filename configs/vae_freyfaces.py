"""Gaussian VAE with a Gaussian decoder and two latents on the Frey faces: the manifold of the paper's figure 4.

Protocol: 200 tanh units in the encoder and in the decoder, which gives a mean and a standard deviation for each pixel.
Adam with a cosine and gradients clipped at a norm of 1,000 instead of Adagrad; an average of the parameters
is scored, at the checkpoint that is best on a validation part. Pixels are dequantized, so that the figure is a bound in
bits of the 256 gray levels, where the paper's curves are of a density; a fixed fifth of the 1,965 frames, neighbours in
one film, is the test part.

The frames have no checksum that anyone publishes, so that no script fetches them. Download frey_rawface.mat from
https://cs.nyu.edu/~roweis/data.html (license not stated), and make an array of it once:
  python -c "import numpy, scipy.io; frames = scipy.io.loadmat('frey_rawface.mat')['ff'].T.reshape(-1, 28, 20, 1);
  numpy.save('freyfaces.npy', frames.astype('uint8'))"

Paper: Kingma and Welling (2014), arXiv:1312.6114
Run: python main.py --config=configs/vae_freyfaces.py
Slice: v5e:2x2
Expect: below independent pixels, which the run prints, in bits/dim (test, no published figure); two minutes on a
  2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "array:freyfaces.npy"
    c.data.batch_size = 100
    c.model.update(name="vae", latent_dims=2, widths=(200,), activation="tanh")
    c.model.update(posterior="gaussian", posterior_depth=4, context_dims=32)
    c.model.update(prior="normal", prior_depth=4, components=10, flow_widths=(64,))
    c.model.update(likelihood="gaussian", causal_width=16, causal_blocks=3, min_log_scale=-5.0, std=0.0)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=0, samples=1, gradient="reparameterized")
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.clip_norm = 1_000.0
    c.train.num_steps = 10_000
    c.train.steps_per_call = 50
    c.train.log_every = 500
    c.train.ema_decay = 0.995
    c.eval.every = 500
    c.eval.num_repeats = 16
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:16", widths=(8,))
    return c
