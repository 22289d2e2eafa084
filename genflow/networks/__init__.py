"""Leaf networks, as pure functions: the only room that imports flax."""

from genflow.networks.concatsquash import concatsquash_conv, concatsquash_mlp
from genflow.networks.conv import conv2d
from genflow.networks.film import FiLM
from genflow.networks.flowpp import checkerboard_context, gated_attention
from genflow.networks.glow import glow_conv, zero_conv
from genflow.networks.lipschitz import lipschitz_conv, lipschitz_mlp
from genflow.networks.made import made, residual_made
from genflow.networks.markov import markov_mlp
from genflow.networks.mlp import mlp, residual_mlp
from genflow.networks.resnet import resnet
from genflow.networks.transformer import transformer

__all__ = [
    "FiLM",
    "checkerboard_context",
    "concatsquash_conv",
    "concatsquash_mlp",
    "conv2d",
    "gated_attention",
    "glow_conv",
    "lipschitz_conv",
    "lipschitz_mlp",
    "made",
    "markov_mlp",
    "mlp",
    "residual_made",
    "residual_mlp",
    "resnet",
    "transformer",
    "zero_conv",
]
