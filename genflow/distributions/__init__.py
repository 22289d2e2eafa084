"""Log-densities, log-masses and samplers as functions; log-probabilities are nats."""

from genflow.distributions.continuous import (
    Base,
    logistic_log_prob,
    normal_kl,
    normal_log_prob,
    soft_clip,
    standard_logistic,
    standard_normal,
    standard_normal_log_prob,
    standard_normal_sample,
)
from genflow.distributions.discrete import (
    Output,
    bernoulli,
    bernoulli_log_prob,
    categorical,
    discretized_logistic_log_prob,
    discretized_logistic_sample,
    logistic_mixture,
    mu_law_decode,
    mu_law_encode,
    rounded_logistic,
    truncate_logits,
)

__all__ = [
    "Base",
    "Output",
    "bernoulli",
    "bernoulli_log_prob",
    "categorical",
    "discretized_logistic_log_prob",
    "discretized_logistic_sample",
    "logistic_log_prob",
    "logistic_mixture",
    "mu_law_decode",
    "mu_law_encode",
    "normal_kl",
    "normal_log_prob",
    "rounded_logistic",
    "soft_clip",
    "standard_logistic",
    "standard_normal",
    "standard_normal_log_prob",
    "standard_normal_sample",
    "truncate_logits",
]
