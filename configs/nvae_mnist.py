"""NVAE on dynamically binarized MNIST: 5 groups of latents at 4x4 and 10 at 8x8, 20 channels each, no flows.

Sizes, batch (2 x 200), 400 epochs, Adamax, KL warm-up over 30 % of training with balancing, spectral regularization as
in the official code; images are surrounded to 32x32, and the likelihood is that of the 28x28. Deviations: every example
is normalized alone (groups of 16 channels) instead of batch normalization, and kernels are not weight-normalized;
decoupled weight decay of kernels only (the official code adds it to the gradient, of all parameters); standard
deviations of latents have a floor of exp(-5), where the official code adds 0.01 to all; short-cuts of upsampling cells
repeat pixels instead of interpolating, those of downsampling cells are one 2x2 convolution of stride 2 instead of four
1x1 convolutions; what the decoder starts from is drawn in [-1, 1) instead of [0, 1); data.validation is held out of the
training part; the last checkpoint is scored.

Paper: Vahdat and Kautz (2020), arXiv:2007.03898, table 1
Run: python main.py --config=configs/nvae_mnist.py
Slice: v5e:2x4
Expect: 78.01 nats (test, 1,000 importance samples, from the paper, unverified here); not run; 21 hours on 2 V100 there
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.binarize = "stochastic"
    c.data.batch_size = 400
    c.data.validation = 0.02
    c.model.update(name="nvae", width=32, groups=(5, 10), channels=20, cells=2, blocks=2, block_cells=3, flows=0)
    c.model.update(likelihood="auto", min_log_scale=-5.0, memory="store", spectral=1e-2)
    c.model.update(beta=1.0, free_nats=0.0, kl_warmup=7_056_000, balance=True)  # 120 epochs
    c.optimizer.name = "adamax"
    c.optimizer.learning_rate = 1e-2
    c.optimizer.eps = 1e-3
    c.optimizer.weight_decay = 3e-4
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 735  # 5 epochs
    c.train.num_steps = 58_800  # 400 epochs
    c.train.log_every = 500
    c.eval.every = 2_000
    c.eval.select = "last"
    c.eval.importance_samples = 1_000
    c.eval.samples_per_call = 10
    c.checkpoint.every = 1_000
    if common.is_debug(arg):
        common.debug(c, "synthetic:5x5x1:2", width=2, groups=(2,), channels=2, cells=1, blocks=1, block_cells=1)
        c.model.kl_warmup = 64
    return c
