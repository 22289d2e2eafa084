"""Baselines: the simplest densities, fitted in closed form, as models that the same ruler scores."""

import math

import jax.numpy as jnp
import numpy as np

from genflow.core import Model, Spec, sum_event
from genflow.dequantize import dequantizer

MAX_GAUSSIAN_DIMS = 4096  # a full covariance of more dimensions takes minutes and gigabytes


def uniform_bins(spec: Spec) -> Model:
    """P(x) = bins^-dims: log2(bins) bits/dim exactly."""

    def log_prob(params, state, key, batch):
        return jnp.full(batch["x"].shape[0], -spec.dims * math.log(spec.bins))

    return _fixed(log_prob, "exact")


def independent_pixels(spec: Spec, x: np.ndarray) -> Model:
    """P(x) = prod_i P_i(x_i) with add-one smoothed histograms: each pixel's cross-entropy, nothing between pixels."""
    flat = x.reshape(len(x), -1)
    counts = np.stack([np.bincount(column, minlength=spec.bins) for column in flat.T]) + 1.0
    log_mass = jnp.asarray(np.log(counts / counts.sum(1, keepdims=True)), jnp.float32)

    def log_prob(params, state, key, batch):
        index = batch["x"].reshape(-1, spec.dims).astype(jnp.int32)
        return sum_event(log_mass[jnp.arange(spec.dims), index])

    return _fixed(log_prob, "exact")


def independent_characters(spec: Spec, x: np.ndarray) -> Model:
    """P(x) = prod_i P(x_i) with one add-one smoothed histogram for every place: the order-0 model of a text."""
    counts = np.bincount(x.ravel(), minlength=spec.bins) + 1.0
    log_mass = jnp.asarray(np.log(counts / counts.sum()), jnp.float32)

    def log_prob(params, state, key, batch):
        return sum_event(log_mass[batch["x"].astype(jnp.int32)])

    return _fixed(log_prob, "exact")


def previous_value(spec: Spec, x: np.ndarray) -> Model:
    """P(x) = P(x_1) prod_i P(x_i | x_(i-1)), one add-one smoothed table for all places: the order-1 model of sound."""
    before = np.pad(x.astype(np.int64)[:, :-1], ((0, 0), (1, 0)), constant_values=spec.bins)
    counts = np.bincount((before * spec.bins + x).ravel(), minlength=(spec.bins + 1) * spec.bins) + 1.0
    counts = counts.reshape(-1, spec.bins)
    log_mass = jnp.asarray(np.log(counts / counts.sum(1, keepdims=True)), jnp.float32)

    def log_prob(params, state, key, batch):
        x = batch["x"].astype(jnp.int32)
        return sum_event(log_mass[jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=spec.bins), x])

    return _fixed(log_prob, "exact")


def gaussian(spec: Spec, x: np.ndarray) -> Model:
    """Full-covariance Gaussian of the dequantized data, log p = log N(y; mean, cov) + log_weight.

    Discrete data get the covariance of uniform noise (1 / 12 of a bin squared) on the diagonal, as the density of
    x + u has it; continuous data the sample covariance.
    """
    noise = dequantizer(spec)
    y = np.asarray(noise.forward({}, jnp.asarray(x))[0], np.float64).reshape(len(x), -1)
    diagonal = 0.0 if spec.bins is None else 1.0 / (12.0 * spec.bins**2)
    covariance = np.atleast_2d(np.cov(y, rowvar=False)) + diagonal * np.eye(spec.dims)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    log_normalizer = float(np.log(np.diag(whiten)).sum()) - 0.5 * spec.dims * math.log(2 * math.pi)
    mean, whiten = jnp.asarray(y.mean(0), jnp.float32), jnp.asarray(whiten, jnp.float32)

    def log_prob(params, state, key, batch):
        y, log_weight = noise.forward({}, batch["x"], None, key)
        white = (y.reshape(-1, spec.dims) - mean) @ whiten.T
        return log_normalizer - 0.5 * sum_event(white**2) + log_weight

    return _fixed(log_prob, "exact" if spec.bins is None else "lower")


def _fixed(log_prob, bound):
    return Model(lambda key, batch: ({}, {}), {}, None, log_prob, bound)


def baselines(spec: Spec, x: np.ndarray) -> dict[str, Model]:
    """The baselines that apply to a data set, fitted on its training part x [N, *event]."""
    if spec.kind == "text":
        return {"uniform": uniform_bins(spec), "independent characters": independent_characters(spec, x)}
    if spec.kind == "sound":
        return {"uniform": uniform_bins(spec), "each sample given the last": previous_value(spec, x)}
    models = {}
    if spec.bins is not None:
        models["uniform"] = uniform_bins(spec)
        models["independent pixels"] = independent_pixels(spec, x)
    if spec.dims <= MAX_GAUSSIAN_DIMS:
        models["full-covariance Gaussian"] = gaussian(spec, x)
    return models
