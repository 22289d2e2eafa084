"""Model families. `MODELS` maps `config.model.name` to a builder; the builder's signature is the section's schema."""

import inspect
from collections.abc import Mapping

from genflow.core import Model, Spec
from genflow.errors import UserError
from genflow.models.autoregressive_flow import maf, nsf
from genflow.models.boltzmann import boltzmann
from genflow.models.classifier import classifier
from genflow.models.dcgan import dcgan
from genflow.models.ddpm import ddpm
from genflow.models.edm import edm
from genflow.models.ffjord import ffjord, ffjord_mlp
from genflow.models.flow_matching import flow_matching
from genflow.models.flowpp import flowpp
from genflow.models.gan import gan
from genflow.models.glow import glow
from genflow.models.gpt import gpt, image_gpt
from genflow.models.hvae import hvae
from genflow.models.iaf_vae import iaf_vae
from genflow.models.igebm import igebm
from genflow.models.iwae import iwae
from genflow.models.jem import jem
from genflow.models.ladder import ladder
from genflow.models.linear_gaussian import linear_gaussian
from genflow.models.made import made
from genflow.models.markov import markov
from genflow.models.ncsn import ncsn
from genflow.models.nice import nice
from genflow.models.nvae import nvae
from genflow.models.pixelcnn import gated_pixelcnn, pixelcnn
from genflow.models.pixelcnnpp import pixelcnnpp
from genflow.models.pixelrnn import pixelrnn
from genflow.models.rbm import rbm
from genflow.models.realnvp import coupling_flow, realnvp
from genflow.models.residual_flow import residual_flow, residual_mlp_flow
from genflow.models.resnet_gan import resnet_gan
from genflow.models.score_sde import score_sde
from genflow.models.transformer_flow import jet, tarflow
from genflow.models.vae import vae
from genflow.models.vdm import vdm
from genflow.models.vdvae import vdvae
from genflow.models.wavenet import wavenet
from genflow.networks.precision import current_precision, network_precision

MODELS = {
    "boltzmann": boltzmann,
    "classifier": classifier,
    "coupling_flow": coupling_flow,
    "dcgan": dcgan,
    "ddpm": ddpm,
    "edm": edm,
    "ffjord": ffjord,
    "ffjord_mlp": ffjord_mlp,
    "flow_matching": flow_matching,
    "flowpp": flowpp,
    "gan": gan,
    "gated_pixelcnn": gated_pixelcnn,
    "glow": glow,
    "gpt": gpt,
    "hvae": hvae,
    "iaf_vae": iaf_vae,
    "igebm": igebm,
    "image_gpt": image_gpt,
    "iwae": iwae,
    "jem": jem,
    "jet": jet,
    "ladder": ladder,
    "linear_gaussian": linear_gaussian,
    "made": made,
    "maf": maf,
    "markov": markov,
    "ncsn": ncsn,
    "nice": nice,
    "nsf": nsf,
    "nvae": nvae,
    "pixelrnn": pixelrnn,
    "pixelcnn": pixelcnn,
    "pixelcnnpp": pixelcnnpp,
    "rbm": rbm,
    "realnvp": realnvp,
    "residual_flow": residual_flow,
    "residual_mlp_flow": residual_mlp_flow,
    "resnet_gan": resnet_gan,
    "score_sde": score_sde,
    "tarflow": tarflow,
    "vae": vae,
    "vdm": vdm,
    "vdvae": vdvae,
    "wavenet": wavenet,
}


# Models whose figures rest on more than 8 or 10 bits of a network, or that have none, and why.
FLOAT32 = {
    **dict.fromkeys(("ffjord", "ffjord_mlp"), "an equation is solved to a tolerance below the rounding of its network"),
    **dict.fromkeys(("residual_flow", "residual_mlp_flow"), "it is inverted by iteration, with bounds on its kernels"),
    **dict.fromkeys(("linear_gaussian", "rbm"), "it has no network"),
}


def build(section: Mapping, spec: Spec) -> Model:
    """Calls the builder that a configuration's `model` section names.

    Its networks have the precision of the context, `networks.precision.network_precision`, or float32. What a diffusion
    model solves an equation in time for, likelihood, `encode` and `decode`, is float32 all the same: the rounding of a
    network is above the solver's tolerance.

    Raises:
      UserError: unknown name, unknown keyword, or a value that the builder refuses; a precision that the model lacks.
    """
    precision = current_precision()
    with network_precision("float32"):
        model = _built(section, spec)
    if precision == "float32":
        return model
    if (name := section["name"]) in FLOAT32:
        raise UserError(f"config.compute.network_precision={precision}: {name} needs float32, because {FLOAT32[name]}")
    narrow = _built(section, spec)
    return _with_exact_equations(narrow, model) if model.diffusion else narrow


def _with_exact_equations(narrow, model):
    diffusion = narrow.diffusion._replace(ode_log_prob=model.diffusion.ode_log_prob)
    log_prob = narrow.log_prob if model.bound == "average" else model.log_prob
    return narrow._replace(diffusion=diffusion, log_prob=log_prob, encode=model.encode, decode=model.decode)


def _built(section, spec):
    kwargs = dict(section)
    name = kwargs.pop("name")
    if name not in MODELS:
        raise UserError(f"config.model.name={name!r}: expected one of {', '.join(MODELS)}")
    known = [p for p in inspect.signature(MODELS[name]).parameters if p != "spec"]
    if unknown := sorted(set(kwargs) - set(known)):
        raise UserError(f"config.model.{unknown[0]}: {name} has no such argument; it has {', '.join(known)}")
    try:
        return MODELS[name](spec, **kwargs)
    except ValueError as error:
        raise UserError(f"config.model ({name}): {error}") from error
