"""What the experiments on the five tables of Papamakarios et al. (2017) have in common: one section for each flow."""

from configs import common


def maf(arg, data, widths, activation, num_steps):
    """MAF(5): Adam at 1e-4, batches of 100, the best of regular evaluations on the validation part."""
    c = _base(data, num_steps)
    c.data.batch_size = 100
    c.model.update(
        name="maf", depth=5, widths=widths, activation=activation, alpha=1e-6, memory="store", conditional=False
    )
    c.optimizer.learning_rate = 1e-4
    if common.is_debug(arg):
        common.debug(c, "synthetic:5", depth=2, widths=(8,))
    return c


def nsf(arg, data, learning_rate, batch_size, num_steps, **model):
    """RQ-NSF (C): Adam with cosine decay to zero, gradients clipped to norm 5."""
    c = _base(data, num_steps)
    c.data.batch_size = batch_size
    c.model.update(name="nsf", bound=3.0, autoregressive=False, memory="store", conditional=False, **model)
    c.optimizer.learning_rate = learning_rate
    c.optimizer.schedule = "cosine"
    c.optimizer.final_scale = 0.0
    c.optimizer.clip_norm = 5.0
    if common.is_debug(arg):
        common.debug(c, "synthetic:5", depth=2, width=8, blocks=1, bins=4, dropout=0.1)
    return c


def _base(data, num_steps):
    c = common.base()
    c.data.name = data
    c.train.num_steps = num_steps
    c.train.steps_per_call = 100
    c.train.log_every = 1_000
    c.eval.every = 5_000
    c.eval.batch_size = 5_000
    c.checkpoint.every = 10_000
    return c
