"""Joint energy-based model of CIFAR-10: a WRN-28-10 without normalization that classifies and draws.

Protocol of the official code: 20 Langevin steps of step 1 and noise 0.01, a buffer of 10,000 images (here 9,984) of
which 5 % restart from noise, input noise 0.03, Adam 1e-4 with a warm-up of 1,000 steps, batches of 64, 200 epochs of
45,000 images with the learning rate times 0.3 after 160 and 180, flips and shifts up to 4 pixels. There, the two losses
see two batches and the input noise is on the test images too; here they share a batch and the test images have none.

Paper: Grathwohl et al. (2020), arXiv:1912.03263, table 1
Run: python main.py --config=configs/jem_cifar10.py
Slice: v5e:4x4
Expect: accuracy 92.9 %, FID 38.4 (test, from the paper, unverified here); not run
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 64
    c.data.validation = 0.1
    c.data.augment = "shift_flip"
    c.data.shift_pixels = 4
    c.model.update(name="jem", depth=28, width=10, norm="none", conditional=True, weight=1.0)
    c.model.update(steps=20, step_size=1.0, noise=0.01, max_gradient=0.0, buffer=10_000, restarts=0.05)
    c.model.update(regularization=0.0, input_noise=0.03, divergence=1000.0, sample_steps=100, sample_from_buffer=True)
    c.optimizer.learning_rate = 1e-4
    c.optimizer.warmup_steps = 1_000
    c.optimizer.milestones = ((112_500, 0.3), (126_562, 0.09))
    c.train.num_steps = 140_625
    c.eval.select = "last"
    c.eval.baselines = False
    c.train.max_rollbacks = 3
    c.sample.temperatures = ()
    if common.is_debug(arg):
        common.debug(c, "synthetic:8x8x3", depth=10, width=1, steps=3, buffer=32, sample_steps=4)
        c.sample.temperatures = ()
    return c
