"""Every configuration key that there is, once, with its meaning and unit; an experiment changes values only.

`python main.py --help` prints this file's comments, and the command line is checked against `CHOICES` and
`POSITIVE` before JAX is imported. A key that is not here (or in the experiment's `model` section, whose schema is
the signature of the model's builder) does not exist.
"""

from ml_collections import ConfigDict

# Fields with a closed set of values.
CHOICES = {
    "data.placement": ("auto", "device", "host", "stream"),
    "data.binarize": ("none", "threshold", "stochastic"),
    "data.tokens": ("characters", "bytes"),
    "data.augment": ("none", "flip", "shift", "shift_flip"),
    "optimizer.name": ("adam", "adamax", "sgd", "rmsprop", "lion"),
    "optimizer.schedule": ("constant", "cosine", "linear"),
    "eval.select": ("best", "last"),
    "eval.split": ("test", "validation"),
    "compute.matmul_precision": ("float32", "tensorfloat32", "bfloat16", "default"),
    "compute.network_precision": ("float32", "tensorfloat32", "bfloat16"),
    "model.activation": ("leaky_relu", "relu", "silu", "tanh"),
    "model.gradient": ("reparameterized", "doubly_reparameterized"),
    "model.likelihood": ("auto", "autoregressive", "bernoulli", "bound", "gaussian", "logistic", "mixture", "ode"),
    "model.memory": ("store", "remat", "invert"),
    "model.coupling": ("affine", "additive", "spline", "independent", "optimal_transport"),
    "model.inference": ("bottom_up", "bidirectional"),
    "model.layer": ("row", "diagonal"),
    "model.positions": ("learned", "rotary"),
    "model.posterior": ("gaussian", "planar", "iaf", "coupling"),
    "model.objective": ("simple", "vlb", "hybrid", "denoising", "sliced"),
    "model.path": ("linear", "trigonometric"),
    "model.prediction": ("noise", "data", "v", "score"),
    "model.schedule": ("linear", "cosine", "fixed", "monotone"),
    "model.sde": ("vp", "sub_vp", "ve"),
    "model.variance": ("large", "small", "learned"),
    "model.weighting": ("sigma", "likelihood"),
    "model.loss": ("minimax", "non_saturating", "hinge", "wasserstein"),
    "model.pooling": ("sum", "mean"),
    "model.prior": ("normal", "coupling", "autoregressive", "mixture", "vamp", "uniform"),
    "model.sampler": (
        *("ancestral", "ancestral_learned", "ancestral_small", "annealed_langevin", "ddim", "dpm_solver_pp_2m", "heun"),
        *("heun_churn", "predictor_corrector", "probability_flow", "reverse_sde"),
    ),
    "model.spacing": ("linear", "quadratic", "log_snr", "karras"),
}
# Fields that must be above zero; every other number must be finite and not negative (but see SIGNED).
POSITIVE = (
    "data.batch_size",
    "eval.batch_size",
    "optimizer.learning_rate",
    "optimizer.accumulate",
    "optimizer.every",
    "train.num_steps",
    "train.steps_per_call",
    "train.max_skipped",
    "eval.importance_samples",
    "eval.samples_per_call",
    "eval.num_repeats",
    "sharding.model",
    "checkpoint.keep",
    "sample.num",
)
# Fields that may be negative.
SIGNED = ("sharding.data", "data.crop")
# Fractions: below one.
BELOW_ONE = ("data.validation", "optimizer.b1", "optimizer.b2", "train.ema_decay")
# Fields that a resumed run may change; a change anywhere else is refused, because it changes the model or the data.
RESUMABLE = (
    "train.num_steps",
    "train.log_every",
    "train.max_rollbacks",
    "train.max_skipped",
    "eval",
    "sample",
    "checkpoint",
    "sharding",
    "data.data_dir",
    "data.placement",
)


def base() -> ConfigDict:
    """Returns the configuration that every experiment starts from."""
    c = ConfigDict()
    c.name = ""  # filled in by the command line: the file's name
    c.paper = ""  # filled in by the command line: from the file's docstring
    c.expect = ""  # filled in by the command line: from the file's docstring
    c.seed = 0  # of everything: initialization, batches, noise (integer >= 0)

    c.data = ConfigDict()
    c.data.name = "digits"  # digits, moons, ..., a prepared set, array:FILE, folder:DIR, text:FILE; see docs/data.md
    c.data.data_dir = ""  # where prepared data sets are; empty: $GENFLOW_DATA, $TFDS_DATA_DIR or ~/tensorflow_datasets
    c.data.batch_size = 128  # examples a step, over all devices and hosts
    c.data.validation = 0.1  # held out for choosing the checkpoint where no official part exists (fraction of train)
    c.data.num_examples = 0  # use only this many training examples; 0: all (densities: how many to draw; 0: 100,000)
    c.data.image_size = (
        0  # resize to this many pixels a side; 0: as they are. Images of this size are not cropped either
    )
    c.data.crop = ()  # (top, left, height, width) in pixels, before resizing; empty: none
    c.data.bits = 8  # keep this many of the 8 bits of an image (5 for CelebA-HQ in the Glow paper)
    c.data.binarize = (
        "none"  # none, threshold (pixel >= half) or stochastic (redrawn every step for training, once for evaluation)
    )
    c.data.window = 0  # characters of text, or samples of sound, of one example; 0: as the data set has them
    c.data.tokens = "characters"  # of text: characters (those of the training part) or bytes
    c.data.augment = "none"  # none, flip (horizontal), shift (up to shift_pixels) or shift_flip; training only
    c.data.shift_pixels = 1  # largest shift of `augment`, pixels
    c.data.placement = (
        "auto"  # auto, device (array on the accelerator), host (in memory) or stream (read while training)
    )

    c.model = ConfigDict()
    c.model.name = ""  # a key of genflow.models.MODELS; the other keys are that builder's keyword arguments

    c.optimizer = ConfigDict()
    c.optimizer.name = "adam"  # adam, adamax, sgd, rmsprop or lion
    c.optimizer.learning_rate = 1e-3  # peak
    c.optimizer.b1 = 0.9  # first-moment decay (momentum of sgd)
    c.optimizer.b2 = 0.999  # second-moment decay
    c.optimizer.eps = 1e-8  # added to the denominator
    c.optimizer.initial_second_moment = 0.0  # of adam and rmsprop, squared gradients
    c.optimizer.schedule = "constant"  # after warm-up: constant, cosine or linear decay
    c.optimizer.warmup_steps = 0  # linear warm-up, steps
    c.optimizer.final_scale = 0.01  # learning rate at the last step, as a fraction of the peak (cosine, linear)
    c.optimizer.milestones = ()  # ((step, scale), ...): from each step on, the learning rate is that times the schedule
    c.optimizer.clip_norm = 0.0  # global-norm gradient clipping; 0: off
    c.optimizer.skip_norm = 0.0  # an update whose gradient norm, before clipping, is above it is skipped; 0: off
    c.optimizer.weight_decay = 0.0  # decoupled, times the learning rate
    c.optimizer.decay_pattern = "kernel"  # regular expression: which parameter paths decay
    c.optimizer.accumulate = 1  # micro-batches a step whose gradients are averaged
    c.optimizer.every = 1  # update on every N-th step only (the generator of a GAN with N critic steps)
    c.optimizer.groups = ConfigDict()  # {group: {key of this section: value}} where a parameter group differs

    c.train = ConfigDict()
    c.train.num_steps = 1000  # optimizer steps
    c.train.steps_per_call = 10  # steps in one on-device scan
    c.train.log_every = 100  # steps between lines of metrics.jsonl
    c.train.ema_decay = 0.0  # decay of the parameter average that evaluation and sampling use; 0: off
    c.train.ema_warmup = 0.0  # its half-life is at most this fraction of the steps so far; 0: debiased, no warm-up
    c.train.max_rollbacks = 0  # back to a checkpoint, with other noise, so often where training diverges; then give up
    c.train.max_skipped = 20  # give up after so many updates in a row that were not finite or above skip_norm

    c.eval = ConfigDict()
    c.eval.every = 0  # steps between evaluations on the validation part; 0: only at the end
    c.eval.batch_size = 256  # examples a batch
    c.eval.max_examples = 0  # of each part; 0: all
    c.eval.num_repeats = 1  # independent noise draws averaged for each example (dequantization, latent samples)
    c.eval.importance_samples = 1  # draws in the log-mean-exp of each repeat of the final score: a tighter bound
    c.eval.samples_per_call = 16  # of a latent variable model, draws that are in memory at once
    c.eval.select = "best"  # best (lowest validation loss) or last: the checkpoint that is scored and sampled
    c.eval.split = "test"  # what a finished run is scored and shown on; validation: while choosing among runs
    c.eval.num_samples = 0  # at the end, samples that are compared with as many test examples; 0: none
    c.eval.parzen = False  # with num_samples, the Parzen window estimate too (whole numbers, a validation part)
    c.eval.baselines = True  # score uniform, independent-pixel and Gaussian baselines on the same split

    c.sample = ConfigDict()
    c.sample.num = 64  # images a sheet
    c.sample.every = 0  # steps between sheets while training; 0: only at the end
    c.sample.temperatures = (0.0, 0.5, 0.7, 0.85, 1.0)  # rows of the report's sample figure

    c.checkpoint = ConfigDict()
    c.checkpoint.every = (
        1000  # steps between checkpoints; one is always written at the end and on a signal; 0: only then
    )
    c.checkpoint.keep = 2  # how many of the latest to keep (the best one is kept apart)

    c.sharding = ConfigDict()
    c.sharding.data = -1  # devices along the batch axis; -1: all that remain
    c.sharding.model = 1  # devices along the parameter axis
    c.sharding.rules = ()  # ((regular expression on the path, (axis or '' for each last dimension)), ...), first wins

    c.compute = ConfigDict()
    c.compute.matmul_precision = "float32"  # of float32 matrix products and convolutions on GPU and TPU
    c.compute.network_precision = (
        "float32"  # inside networks: float32, tensorfloat32 or bfloat16; parameters and losses are float32
    )
    return c


def debug(c: ConfigDict, data: str = "", **model) -> ConfigDict:
    """Shrinks any experiment to a few seconds on a CPU: two calls of train and eval, a checkpoint, samples.

    Args:
      data: a name that replaces data.name, such as 'synthetic:16x16x3', where the real set is not embedded.
      model: builder arguments, such as a smaller width.
    """
    c.data.name = data or c.data.name
    c.data.update(crop=(), image_size=0)
    c.data.batch_size = 8
    c.data.num_examples = 64
    c.train.num_steps = 4
    c.train.steps_per_call = 2
    c.train.log_every = 2
    c.eval.every = 2
    c.eval.batch_size = 8
    c.eval.max_examples = 16
    c.eval.num_repeats = 1
    c.eval.importance_samples = 1
    c.eval.num_samples = min(c.eval.num_samples, 16)
    c.sample.num = 4
    c.sample.temperatures = (0.7, 1.0)
    c.checkpoint.every = 4
    c.optimizer.warmup_steps = min(c.optimizer.warmup_steps, 2)
    for group in c.optimizer.groups.values():
        if "every" in group:
            group.every = min(group.every, 2)
    c.model.update(model)
    return c


def is_debug(arg: str) -> bool:
    """Parses the part of `--config=FILE:ARG` after the colon.

    Raises:
      ValueError: the argument is neither empty nor 'debug'.
    """
    if arg not in ("", "debug"):
        raise ValueError(f"unknown config argument {arg!r}; write FILE.py or FILE.py:debug")
    return arg == "debug"
