"""Flows over image patches with transformers inside: TarFlow (autoregressive) and Jet (couplings)."""

from genflow import bijectors as bj
from genflow.core import Bijector, Model, Spec
from genflow.models.flow import flow
from genflow.networks import transformer

LOG_SCALE_BOUND = 3.0  # of a TarFlow block: a scale within e^-3 .. e^3


def tarflow(
    spec: Spec,
    patch: int = 2,
    width: int = 768,
    blocks: int = 8,
    layers: int = 8,
    heads: int = 12,
    memory: str = "store",
    gaussianize: bool = False,
    conditional: bool = False,
) -> Model:
    """Causal-transformer affine flows over patches, z_i = (x_i + shift(x_<i)) exp(s(x_<i)), their orders alternating.

    Beyond the official code: an ActNorm brings the patches to unit variance, log-scales are bounded, and a condition
    modulates every layer norm instead of being added to the tokens once.

    Args:
      patch: pixels on a side of a patch, which is one token.
      width: of the transformers' tokens.
      blocks: autoregressive flows in the stack; layers: of one block's transformer.
      memory: see `bijectors.repeat`; 'invert' goes through each sequence token by token in the backward pass.
      gaussianize: give every pixel its own learned histogram first, as in `glow`.

    Reference: Zhai et al. (2024), Normalizing flows are capable generative models, arXiv:2412.06329, section 2.2.
    """
    rows, columns = _grid(spec, patch, gaussianize, width=width, blocks=blocks, layers=layers, heads=heads)
    if rows * columns < 2:
        raise ValueError(f"patch={patch} makes one token of an image; use smaller patches")
    network = transformer(width, layers, heads, causal=True)
    block = bj.token_autoregressive(bj.affine(bj.tanh_scale(LOG_SCALE_BOUND)), network)
    stack = bj.repeat(bj.chain(block=block, flip=bj.flip(axis=1)), blocks, memory)
    return flow(spec, _on_patches(spec, patch, gaussianize, stack), conditional=conditional)


def jet(
    spec: Spec,
    patch: int = 4,
    width: int = 512,
    couplings: int = 32,
    layers: int = 2,
    heads: int = 8,
    memory: str = "remat",
    gaussianize: bool = False,
    conditional: bool = False,
) -> Model:
    """Affine couplings (x + shift) * 2 sigmoid(raw) over patches, with vision transformers for conditioners.

    Four couplings between halves of randomly permuted channels, then one between halves of the tokens, and so on; those
    are the colors of a checkerboard, then odd and even columns, then rows, each both ways.

    Beyond the official code: an ActNorm brings the patches to unit variance; a coupling of tokens sees half as many
    tokens, where the official one cuts each in two.

    Args:
      patch: pixels on a side of a patch, which is one token.
      width: of the transformers' tokens.
      couplings: in the whole flow; layers: of one coupling's transformer.
      memory: see `bijectors.repeat`.
      gaussianize: give every pixel its own learned histogram first, as in `glow`.

    Reference: Kolesnikov, Pinto and Tschannen (2024), Jet: A modern transformer-based normalizing flow,
    arXiv:2412.15129, and the official code.
    """
    rows, columns = _grid(spec, patch, gaussianize, width=width, couplings=couplings, layers=layers, heads=heads)
    if patch**2 * spec.shape[2] < 2:
        raise ValueError(f"patch={patch} leaves one channel, which has no halves; use larger patches")
    transform, network = bj.affine(bj.double_sigmoid_scale), transformer(width, layers, heads)
    channel = bj.chain(order=bj.permutation(), coupling=bj.coupling(transform, network))
    spatial = [bj.coupling(transform, network, bj.halves(swap, axis=1)) for swap in (False, True)]
    stack = bj.chain(order=bj.parity_order(rows, columns), couplings=_cycle(channel, spatial, couplings, memory))
    return flow(spec, _on_patches(spec, patch, gaussianize, stack), conditional=conditional)


def _cycle(channel, spatial, num, memory):
    """Scans groups of ten couplings; 'invert' walks back over whole groups, and one group's memory does not grow."""
    inner, outer = ("remat", "invert") if memory == "invert" else (memory, "store")
    parts = {}
    if num >= 10:
        group = bj.chain(couplings=_jet_group(channel, spatial, 10, inner), rotate=bj.rotate_parity())
        parts["groups"] = bj.repeat(group, num // 10, outer)
    if num % 10:
        parts["rest"] = _jet_group(channel, spatial, num % 10, memory)
    return bj.chain(**parts)


def _jet_group(channel: Bijector, spatial: list[Bijector], num: int, memory: str) -> Bijector:
    """The first `num` of ten couplings: four of channels, one of tokens, four of channels, the tokens' other way."""
    parts = {}
    for i, start in enumerate((0, 5)):
        if num > start:
            parts[f"channels_{i}"] = bj.repeat(channel, min(num - start, 4), memory)
        if num > start + 4:
            parts[f"tokens_{i}"] = bj.repeat(spatial[i], 1, memory)
    return bj.chain(**parts)


def _on_patches(spec, patch, gaussianize, layers):
    first = {"marginals": bj.histogram_gaussianization(spec.bins)} if gaussianize else {}
    patches = bj.patchify(patch, *spec.shape[:2])
    return bj.chain(**first, patches=patches, norm=bj.actnorm(), layers=layers, prior=bj.channel_affine())


def _grid(spec, patch, gaussianize, **sizes):
    """Rows and columns of tokens, and a refusal of what cannot be."""
    if len(spec.shape) != 3 or (gaussianize and spec.bins is None):
        raise ValueError(f"models discrete images [height, width, channels]; {spec.name} has shape {spec.shape}")
    for name, size in (sizes | {"patch": patch}).items():
        if size < 1:
            raise ValueError(f"{name}={size} must be above zero")
    if any(side % patch for side in spec.shape[:2]):
        raise ValueError(f"patch={patch} does not divide an image of {spec.shape[0]}x{spec.shape[1]}; choose a divisor")
    return spec.shape[0] // patch, spec.shape[1] // patch
