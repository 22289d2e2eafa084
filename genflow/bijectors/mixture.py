"""Distribution functions of mixtures as elementwise transforms."""

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid
from jax.scipy.special import logsumexp

from genflow.bijectors.transforms import Transform, tanh_scale


def mixture_cdf(components: int) -> Transform:
    """Z = logit(F(x)) exp(a) + b, F(x) = sum_j pi_j sigmoid((x - mu_j) / s_j) the CDF of a mixture of logistics.

    Both log F and log(1 - F) are sums in log space, so that float32 keeps the tails. At raw = 0 the centers are spread
    evenly over [-1, 1], which is close to the identity and lets the components learn apart. The scales are bounded:
    log s_j within +-7, a within +-2. The inverse bisects to the resolution of the type, then takes one Newton step,
    which also gives it the exact gradient.

    >>> mixture_cdf(4).num_params
    14

    Raises:
      ValueError: components is below one.

    Reference: Ho et al. (2019), Flow++, arXiv:1902.00275, section 3.2 (logistic mixture CDF coupling).
    """
    if components < 1:
        raise ValueError(f"components={components} must be above zero")
    spread = [2.0 * (j + 0.5) / components - 1.0 for j in range(components)]

    def mixture(raw):
        logits, offsets, raw_scales = jnp.split(raw[..., 2:], 3, axis=-1)
        return jax.nn.log_softmax(logits), jnp.array(spread, raw.dtype) + offsets, tanh_scale(7.0)(raw_scales)

    def forward(raw, x):
        y, log_slope = _logit_cdf(mixture(raw), x)
        a = tanh_scale()(raw[..., 1])
        return y * jnp.exp(a) + raw[..., 0], log_slope + a

    def inverse(raw, z):
        a = tanh_scale()(raw[..., 1])
        x = _solve(mixture(raw), (z - raw[..., 0]) * jnp.exp(-a))
        return x, -_logit_cdf(mixture(raw), x)[1] - a

    return Transform(2 + 3 * components, forward, inverse)


def _logit_cdf(mixture, x):
    """y = log F - log(1 - F), and log dy/dx = log f - log F - log(1 - F)."""
    log_weights, means, log_scales = mixture
    t = (x[..., None] - means) * jnp.exp(-log_scales)
    log_cdf, log_survival = logsumexp(log_weights + log_sigmoid(t), -1), logsumexp(log_weights + log_sigmoid(-t), -1)
    y = log_cdf - log_survival
    # from the side of the nearer tail, where f / (1 - F) has no cancellation: by symmetry the right one
    toward_tail = jnp.where(y[..., None] < 0, -t, t)
    shares = jax.nn.log_softmax(log_weights + log_sigmoid(-toward_tail))
    log_hazard = logsumexp(shares + log_sigmoid(toward_tail) - log_scales, -1)
    return y, log_hazard - jnp.maximum(log_cdf, log_survival)


def _solve(mixture, y):
    """The x with logit F(x) = y.

    sigmoid is monotone, so logit F lies between the smallest and the largest (x - mu_j) / s_j: that brackets x.
    """
    fixed, target = jax.lax.stop_gradient((mixture, y))
    _, means, log_scales = fixed
    ends = means + jnp.exp(log_scales) * target[..., None]

    def bisect(_, bracket):
        low, high = bracket
        middle = low + 0.5 * (high - low)
        is_low = _logit_cdf(fixed, middle)[0] < target
        return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

    num_steps = jnp.finfo(y.dtype).nmant + 16
    low, high = jax.lax.fori_loop(0, num_steps, bisect, (ends.min(-1), ends.max(-1)))
    middle = low + 0.5 * (high - low)
    reached, log_slope = _logit_cdf(mixture, middle)
    step = (y - reached) * jnp.exp(jnp.minimum(-jax.lax.stop_gradient(log_slope), 60.0))
    rounding = jax.lax.stop_gradient(jnp.clip(step, low - middle, high - middle) - step)
    return middle + (step + rounding)
