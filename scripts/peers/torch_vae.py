"""The peer's contestant for a VAE of perceptrons under PyTorch, of one draw or of several.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_vae.py '{"task": "train", "rows": 100, "network": {"dims": 784,
"latent_dims": 50, "widths": [200, 200], "samples": 1}}' in our root.

tanh, a Gaussian posterior and prior, Bernoulli pixels; with one draw the closed-form KL.
"""

import importlib.metadata
import json
import math
import platform
import sys

import torch
from torch import nn
from torch.nn import functional

from genflow.benchmark.turns import serve, timed


def perceptron(sizes: list[int]) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers = [nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))[:-1]


class VAE(nn.Module):
    """-log p(x) is at most the loss."""

    def __init__(self, dims: int, latent_dims: int, widths: list[int], samples: int):
        super().__init__()
        self.samples = samples
        self.encoder = perceptron([dims, *widths, 2 * latent_dims])
        self.decoder = perceptron([latent_dims, *widths[::-1], dims])

    def forward(self, x):
        """The mean loss of x [B, dims] in {0, 1}, nats."""
        mean, log_std = self.encoder(2 * x - 1).chunk(2, dim=-1)
        log_std = 7 * torch.tanh(log_std / 7)
        noise = torch.randn(self.samples, *mean.shape)
        z = mean + log_std.exp() * noise
        nll = functional.binary_cross_entropy_with_logits(
            self.decoder(z), x.expand(self.samples, -1, -1), reduction="none"
        )
        if self.samples == 1:
            kl = 0.5 * (torch.expm1(2 * log_std) + mean**2) - log_std
            return (nll.sum(-1)[0] + kl.sum(-1)).mean()
        log_ratio = (0.5 * (noise**2 - z**2) + log_std).sum(-1)  # log p(z) - log q(z | x)
        return -(torch.logsumexp(log_ratio - nll.sum(-1), 0) - math.log(self.samples)).mean()


def main(task: str, rows: int, network: dict) -> None:
    """Builds the model, trains one step and serves."""
    if task != "train":
        raise ValueError(f"task={task!r}: there is train only")
    torch.manual_seed(0)
    model = VAE(**network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    x = torch.randint(2, (rows, network["dims"])).float()

    def step():
        optimizer.zero_grad()
        loss = model(x)
        loss.backward()
        optimizer.step()
        return loss.item()

    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "versions": {"torch": importlib.metadata.version("torch"), "python of the peers": platform.python_version()},
        "device": f"torch on {torch.get_num_threads()} CPU threads",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
