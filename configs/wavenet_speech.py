"""WaveNet on spoken digits at 8 kHz, given digit and speaker: 18 layers, 1,024 samples of receptive field (128 ms).

Two cycles of dilations 1 to 256 behind a causal input of two taps: 2 + 2 * 511 samples. The paper has 16 kHz speech of
109 speakers, wider layers and about 300 ms. An example is the first 4,096 samples of a recording, about half a second;
what follows the end of a recording is silence, 23 % of all values, which the score counts. Takes 0 to 4 of each
digit and speaker are the test part, 5 to 9 the validation part.

Paper: van den Oord et al. (2016), WaveNet: A generative model for raw audio, arXiv:1609.03499
Run: python main.py --config=configs/wavenet_speech.py
Slice: cpu:1
Expect: 3.07 +- 0.09 bits/sample (test, one seed, no published figure; each sample given the last: 4.29); 16 minutes on
  a 2-core x86 CPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "spoken_digit"
    c.data.window = 4096
    c.data.batch_size = 4
    c.model.update(
        name="wavenet",
        width=32,
        skip_width=64,
        cycles=2,
        dilations=(1, 2, 4, 8, 16, 32, 64, 128, 256),
        kernel=2,
        components=0,
        conditional=True,
    )
    c.optimizer.learning_rate = 4e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 100
    c.train.num_steps = 2_400
    c.train.steps_per_call = 10
    c.train.log_every = 100
    c.train.ema_decay = 0.99
    c.eval.every = 600
    c.eval.batch_size = 25
    c.sample.num = 6
    c.sample.temperatures = ()
    c.checkpoint.every = 600
    if common.is_debug(arg):
        common.debug(c, "tones", width=4, skip_width=4, cycles=1, dilations=(1, 2, 4))
        c.data.window = 64
    return c
