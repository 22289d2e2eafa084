"""Transformer decoders: GPT on text, image GPT on sub-pixels."""

from genflow.core import Model, Spec
from genflow.distributions import categorical
from genflow.models.autoregressive import autoregressive
from genflow.networks import gpt as gpt_network

POSITIONS = ("learned", "rotary")
MEMORY = ("store", "remat")


def gpt(
    spec: Spec,
    width: int = 384,
    layers: int = 6,
    heads: int = 6,
    dropout: float = 0.0,
    positions: str = "learned",
    tied: bool = True,
    memory: str = "store",
    conditional: bool = False,
) -> Model:
    """Each token given those before it in its window, by a causal transformer with a softmax.

    Args:
      width: of a token's features; layers: blocks; heads: of each block's attention.
      dropout: rate, for embeddings, attention weights and what a block adds; training only.
      positions: 'learned' or 'rotary'.
      tied: the output layer is the transposed embedding.
      memory: 'store', or 'remat': less memory, more time.

    Raises:
      ValueError: an impossible size, a rate that is none, an unknown choice.

    Reference: Radford et al. (2019), Language models are unsupervised multitask learners, section 2.3.
    """
    if len(spec.shape) != 1:
        raise ValueError(f"models sequences; {spec.name} has events of shape {spec.shape}: take image_gpt")
    _check(positions=(positions, POSITIONS), memory=(memory, MEMORY))
    _check_sizes(width, layers, heads, dropout)
    if positions == "rotary" and width // heads % 2:
        raise ValueError(f"positions='rotary' turns pairs of features; width={width} / heads={heads} must be even")
    build = gpt_network((spec.dims,), spec.bins or 1, width, layers, heads, dropout, positions, tied, memory)
    return _model(spec, build, conditional)


def image_gpt(
    spec: Spec,
    width: int = 512,
    layers: int = 12,
    heads: int = 8,
    dropout: float = 0.0,
    tied: bool = False,
    memory: str = "store",
    conditional: bool = False,
) -> Model:
    """Each sub-pixel given those before it in raster order (channels innermost), by the network of `gpt`.

    A position is the sum of the learned embeddings of its row, its column and its channel; the values are categories,
    neither clustered nor rescaled.

    Args:
      width, layers, heads, dropout, tied, memory: see `gpt`.

    Raises:
      ValueError: an impossible size, a rate that is none, an unknown choice.

    Reference: Chen et al. (2020), Generative pretraining from pixels; Parmar et al. (2018), Image transformer,
    arXiv:1802.05751, section 3 (categorical distribution).
    """
    if spec.kind != "images":
        raise ValueError(f"models images; {spec.name} has events of shape {spec.shape}: take gpt")
    _check(memory=(memory, MEMORY))
    _check_sizes(width, layers, heads, dropout)
    build = gpt_network(spec.shape, spec.bins or 1, width, layers, heads, dropout, "learned", tied, memory)
    return _model(spec, build, conditional)


def _model(spec, build, conditional):
    output = categorical(spec.bins or 1)
    return autoregressive(spec, build(output.num_params), output, conditional=conditional)


def _check(**chosen):
    for name, (value, known) in chosen.items():
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")


def _check_sizes(width, layers, heads, dropout):
    if min(width, layers, heads) < 1:
        raise ValueError(f"width={width}, layers={layers} and heads={heads} must be above zero")
    if width % heads:
        raise ValueError(f"width={width} is not divisible by heads={heads}; choose a multiple")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} must be 0 or more and below 1")
