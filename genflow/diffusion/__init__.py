"""The mathematics of diffusion: paths from data to noise, predictions, bounds, the probability-flow equation."""
