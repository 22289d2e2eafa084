"""Leaf networks, as pure functions: the only room that imports flax."""

from genflow.networks.concatsquash import concatsquash_conv, concatsquash_mlp
from genflow.networks.conv import conv2d
from genflow.networks.dense import glorot_mlp, heads, hidden_layers
from genflow.networks.film import FiLM
from genflow.networks.flowpp import checkerboard_context, gated_attention
from genflow.networks.gan import StatefulNetwork, gan_discriminator, gan_generator
from genflow.networks.gan_convs import dcgan_discriminator, dcgan_generator, resnet_discriminator, resnet_generator
from genflow.networks.gated_pixelcnn import gated_pixelcnn
from genflow.networks.glow import glow_conv, zero_conv
from genflow.networks.gpt import gpt
from genflow.networks.hvae import hvae_head, hvae_stage, to_channels, to_pixels
from genflow.networks.iaf_vae import bottom_up, elu_conv, masked_convs
from genflow.networks.lipschitz import lipschitz_conv, lipschitz_mlp
from genflow.networks.made import made, residual_made
from genflow.networks.markov import markov_mlp
from genflow.networks.masked import arranged, masked_perceptron
from genflow.networks.mlp import ACTIVATIONS, activation_by_name, mlp, residual_mlp
from genflow.networks.pixelcnn import pixelcnn
from genflow.networks.pixelcnnpp import pixelcnnpp
from genflow.networks.pixelrnn import pixelrnn
from genflow.networks.resnet import resnet
from genflow.networks.transformer import transformer
from genflow.networks.unet import unet
from genflow.networks.vdvae import average_pool, bottleneck, nearest_upsample
from genflow.networks.wavenet import receptive_field, wavenet

__all__ = [
    "ACTIVATIONS",
    "FiLM",
    "StatefulNetwork",
    "activation_by_name",
    "arranged",
    "average_pool",
    "bottleneck",
    "bottom_up",
    "checkerboard_context",
    "concatsquash_conv",
    "concatsquash_mlp",
    "conv2d",
    "dcgan_discriminator",
    "dcgan_generator",
    "elu_conv",
    "gan_discriminator",
    "gan_generator",
    "gated_attention",
    "gated_pixelcnn",
    "glorot_mlp",
    "glow_conv",
    "gpt",
    "heads",
    "hidden_layers",
    "hvae_head",
    "hvae_stage",
    "lipschitz_conv",
    "lipschitz_mlp",
    "made",
    "markov_mlp",
    "masked_convs",
    "masked_perceptron",
    "mlp",
    "nearest_upsample",
    "pixelcnn",
    "pixelcnnpp",
    "pixelrnn",
    "receptive_field",
    "residual_made",
    "residual_mlp",
    "resnet",
    "resnet_discriminator",
    "resnet_generator",
    "to_channels",
    "to_pixels",
    "transformer",
    "unet",
    "wavenet",
    "zero_conv",
]
