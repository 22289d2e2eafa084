"""Importance weighted autoencoder with one level of 50 latents on binarized MNIST.

Protocol of the official code: 59,600 training images (400 are set aside), pixels drawn anew as Bernoulli variables of
their gray values whenever an image is seen, 3,280 epochs in eight stages of 3^(i-1) epochs with learning rates from
1e-3 to 1e-4, Adam with first-moment decay 0.99 whose second moments start at 1, and gradients summed over 20 images.
Here they are averages, with epsilon 1e-4 / 20 and second moments from 1 / 20^2, which is the same; another batch size B
needs 1e-4 / B and 1 / B^2. 5,000 draws bound each test image.

Deviations: epochs are shuffled; the test images are drawn once; the output biases start at the pixel means of the first
20 images, not of the training data; log-standard deviations go through 7 tanh(a / 7); one draw takes the KL in closed
form; epsilon is added after Adam's bias correction.

Fewer draws:      --config.model.samples=1 or 5
Two levels:       --config.model.latents="(100,50)" --config.model.widths="((200,200),(100,100))"
Other gradients:  --config.model.gradient=doubly_reparameterized
Short runs:       --config.data.batch_size=100 --config.optimizer.learning_rate=3e-3 --config.optimizer.schedule=cosine
  --config.optimizer.milestones="()" --config.optimizer.initial_second_moment=0 --config.optimizer.b1=0.9
  --config.optimizer.eps=1e-8 --config.train.ema_decay=0.999, with --config.train.num_steps as time allows

Paper: Burda et al. (2016), Importance weighted autoencoders, arXiv:1509.00519
Run: python main.py --config=configs/iwae_mnist.py
Slice: v5e:2x2
Expect: 84.78 nats (test, from the paper, as are 85.54 for 5 draws, 86.76 for 1, and 82.90 for two levels); not run
"""

from configs import common

EPOCH = 59_600 // 20
STAGES = tuple(3**i for i in range(8))  # epochs
RATES = (1.0, 0.72, 0.52, 0.37, 0.27, 0.19, 0.14, 0.1)  # of the first learning rate: 10^(-i/7), rounded


def get_config(arg=""):
    c = common.base()
    c.data.name = "mnist"
    c.data.binarize = "stochastic"
    c.data.validation = 400 / 60_000
    c.data.batch_size = 20
    c.model.update(name="iwae", latents=(50,), widths=((200, 200),), activation="tanh")
    c.model.update(likelihood="auto", min_log_scale=-5.0, std=0.0)
    c.model.update(samples=50, gradient="reparameterized")
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b1 = 0.99
    c.optimizer.eps = 1e-4 / 20
    c.optimizer.initial_second_moment = 1 / 20**2
    c.optimizer.milestones = tuple((sum(STAGES[:i]) * EPOCH, RATES[i]) for i in range(1, 8))
    c.train.num_steps = sum(STAGES) * EPOCH
    c.train.steps_per_call = 100
    c.train.log_every = EPOCH
    c.eval.every = 20 * EPOCH
    c.eval.select = "last"
    c.eval.batch_size = 100
    c.eval.importance_samples = 5000
    c.eval.samples_per_call = 16
    c.checkpoint.every = 5 * EPOCH
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", latents=(3, 2), widths=((8,), (4,)), samples=2)
        c.data.binarize = "none"
    return c
