"""Feature-wise conditioning, the one way in which convolutional and transformer networks take `cond`."""

import flax.linen as nn


class FiLM(nn.Module):
    """h * (1 + dense_0(cond)) + dense(cond) over the features of h [B, ..., C]; h itself where cond is None.

    dense_0 starts at zero, so that the statistics of h are those of h plus a shift at first.

    Reference: Perez et al. (2018), FiLM: Visual reasoning with a general conditioning layer, arXiv:1709.07871,
    equation 2.
    """

    @nn.compact
    def __call__(self, h, cond=None):
        if cond is None:
            return h
        shape = (h.shape[0],) + (1,) * (h.ndim - 2) + h.shape[-1:]
        cond = cond.reshape(cond.shape[0], -1).astype(h.dtype)
        scale = nn.Dense(h.shape[-1], kernel_init=nn.initializers.zeros, param_dtype=h.dtype, name="scale")(cond)
        shift = nn.Dense(h.shape[-1], param_dtype=h.dtype, name="shift")(cond)
        return h * (1.0 + scale.reshape(shape)) + shift.reshape(shape)
