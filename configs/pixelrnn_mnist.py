"""PixelRNN on binarized MNIST (Larochelle's fixed split): Diagonal BiLSTM, 7 layers of 16 units.

Protocol of the paper: RMSProp, 16 images a step. Differences: a decay of the learning rate, clipped gradients and an
average of the parameters; the hidden output layer has 32 features, twice the units.

The paper's other figures, from the command line:
  Row LSTM: --config.model.layer=row                                                       80.54 nats
  Diagonal BiLSTM, 1 layer of 32 units: --config.model.layers=1 --config.model.width=32    80.75 nats

Paper: van den Oord et al. (2016), arXiv:1601.06759, section 5.4 and table 4
Run: python main.py --config=configs/pixelrnn_mnist.py
Slice: v5e:2x2
Expect: 79.20 nats (test; from the paper, unverified here); not run, a GPU for hours: 0.5 s a step on one CPU core
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "binarized_mnist"
    c.data.batch_size = 16
    c.model.update(name="pixelrnn", layer="diagonal", width=16, layers=7, conditional=False)
    c.optimizer.name = "rmsprop"
    c.optimizer.learning_rate = 1e-3
    c.optimizer.b2 = 0.99
    c.optimizer.clip_norm = 1.0
    c.optimizer.schedule = "cosine"
    c.train.num_steps = 312_500  # 100 epochs
    c.train.steps_per_call = 10
    c.train.log_every = 500
    c.train.ema_decay = 0.999
    c.eval.every = 12_500
    c.checkpoint.every = 12_500
    if common.is_debug(arg):
        common.debug(c, "synthetic:4x4x1:2", width=4, layers=1)
    return c
