"""Samplers: how draws are made from a network, apart from what the network is."""

from genflow.samplers.autoregressive import METHODS, Drawn, draw_sites

__all__ = ["METHODS", "Drawn", "draw_sites"]
