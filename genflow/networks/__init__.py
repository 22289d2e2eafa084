"""Leaf networks, as pure functions: the only room that imports flax."""

from genflow.networks.conv import conv2d
from genflow.networks.glow import glow_conv, zero_conv
from genflow.networks.mlp import mlp
from genflow.networks.resnet import resnet

__all__ = ["conv2d", "glow_conv", "mlp", "resnet", "zero_conv"]
