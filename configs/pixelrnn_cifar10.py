"""PixelRNN on CIFAR-10: Row LSTM, 12 layers of 128 units, a softmax over the 256 values of each channel.

Protocol of the paper: RMSProp, 16 images a step. Differences: a decay of the learning rate, clipped gradients and an
average of the parameters; the hidden output layer has 256 features, twice the units; the features of a pixel stand in
three groups of almost equal size.

The paper's better figure, from the command line: Diagonal BiLSTM, --config.model.layer=diagonal, 3.00 bits/dim.

Paper: van den Oord et al. (2016), arXiv:1601.06759, section 5.5 and table 5
Run: python main.py --config=configs/pixelrnn_cifar10.py
Slice: v5e:4x4
Expect: 3.07 bits/dim (test; from the paper, unverified here); not run, a GPU for days
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "cifar10"
    c.data.batch_size = 16
    c.data.validation = 0.02
    c.model.update(name="pixelrnn", layer="row", width=128, layers=12, conditional=False)
    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 3e-4
    c.optimizer.b2 = 0.99
    c.optimizer.clip_norm = 1.0
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 306_250  # 100 epochs of 49,000 images
    c.train.steps_per_call = 10
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 12_500
    c.checkpoint.every = 12_500
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x3", width=4, layers=1)
    return c
