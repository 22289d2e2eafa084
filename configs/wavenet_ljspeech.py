"""WaveNet on LJ Speech, 24 hours of one voice at 22,050 Hz: 30 layers, 3,071 samples of receptive field (139 ms).

Three cycles of dilations 1 to 512 behind a causal input of two taps: 2 + 3 * 1,023 samples. The output is a mixture of
ten logistics on the mu-law codes. Neither text nor spectrogram is given: free generation, as in section 3.1 of the
paper. The data are the wav files of the archive, in <data_dir>/LJSpeech-1.1 or where `tfds build ljspeech` unpacks
them. The archive names no parts: a fixed fifth of the recordings is for the test, 5 % of the rest for validation.

Paper: van den Oord et al. (2016), WaveNet: A generative model for raw audio, arXiv:1609.03499
Run: python main.py --config=configs/wavenet_ljspeech.py
Slice: v5e:2x4
Expect: no published likelihood in bits/sample; not run; hours on one GPU
"""

from configs import common


def get_config(arg=""):
    c = common.base()
    c.data.name = "ljspeech"
    c.data.window = 16_384
    c.data.batch_size = 8
    c.data.validation = 0.05
    c.model.update(
        name="wavenet",
        width=64,
        skip_width=256,
        cycles=3,
        dilations=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        kernel=2,
        components=10,
        conditional=False,
    )
    c.optimizer.learning_rate = 1e-3
    c.optimizer.schedule = "cosine"
    c.optimizer.warmup_steps = 1_000
    c.train.num_steps = 200_000
    c.train.steps_per_call = 100
    c.train.log_every = 500
    c.train.ema_decay = 0.9999
    c.eval.every = 10_000
    c.eval.batch_size = 16
    c.eval.max_examples = 2_000
    c.sample.num = 6
    c.sample.temperatures = ()
    c.checkpoint.every = 2_000
    if common.is_debug(arg):
        common.debug(c, "tones", width=4, skip_width=4, cycles=1, dilations=(1, 2, 4), components=2)
        c.data.update(window=64, validation=0.1)
    return c
