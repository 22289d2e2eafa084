"""The peer's contestant for a restricted Boltzmann machine under PyTorch: an epoch of contrastive divergence (CD-1).

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_rbm.py '{"task": "epoch", "rows": 100, "examples": 60000,
"learning_rate": 0.01, "network": {"dims": 784, "hidden": 500, "by_hand": true, "threads": 0}}' in our root.

threads: 0: as many as torch takes.
by_hand: the gradient as statistics of data and reconstructions; otherwise that of the free energies by autograd.
"""

import importlib.metadata
import json
import platform
import sys

import torch
from torch.nn.functional import softplus

from genflow.benchmark.turns import serve, timed


class RBM:
    """p(v, h) proportional to exp(a.v + b.h + v.W h), binary."""

    def __init__(self, dims: int, hidden: int):
        self.kernel, self.visible_bias, self.hidden_bias = (
            (0.01 * torch.randn(dims, hidden)).requires_grad_(),
            torch.zeros(dims, requires_grad=True),
            torch.zeros(hidden, requires_grad=True),
        )
        self.parameters = [self.kernel, self.visible_bias, self.hidden_bias]

    def free_energy(self, v):
        """-log of the sum over h of exp(-E(v, h)) of v [B, D]."""
        return -v @ self.visible_bias - softplus(v @ self.kernel + self.hidden_bias).sum(1)

    @torch.no_grad()
    def reconstruction(self, hidden_mean):
        """v after one sweep of Gibbs sampling from units h with these means."""
        return drawn(torch.sigmoid(drawn(hidden_mean) @ self.kernel.T + self.visible_bias))

    @torch.no_grad()
    def hidden_mean(self, v):
        """E[h | v]."""
        return torch.sigmoid(v @ self.kernel + self.hidden_bias)

    @torch.no_grad()
    def update_by_hand(self, v, learning_rate: float):
        """CD-1 of its statistics."""
        scale = learning_rate / len(v)
        h = self.hidden_mean(v)
        v_model = self.reconstruction(h)
        h_model = self.hidden_mean(v_model)
        self.kernel.addmm_(v.T, h, alpha=scale).addmm_(v_model.T, h_model, alpha=-scale)
        self.visible_bias.add_((v - v_model).sum(0), alpha=scale)
        self.hidden_bias.add_((h - h_model).sum(0), alpha=scale)

    def update_by_autograd(self, v, learning_rate: float):
        """CD-1 as the gradient of the free energies' difference."""
        v_model = self.reconstruction(self.hidden_mean(v))
        loss = self.free_energy(v).mean() - self.free_energy(v_model).mean()
        with torch.no_grad():
            for parameter, slope in zip(self.parameters, torch.autograd.grad(loss, self.parameters), strict=True):
                parameter.sub_(slope, alpha=learning_rate)


def drawn(mean):
    """Units that are 1 with these probabilities; a third of the time of torch.bernoulli."""
    return (torch.rand_like(mean) < mean).float()


def main(task: str, rows: int, examples: int, learning_rate: float, network: dict) -> None:
    """Builds the machine, goes through the data once and serves."""
    if task != "epoch":
        raise ValueError(f"task={task!r}: there is epoch only")
    torch.manual_seed(0)
    torch.set_num_threads(network.pop("threads") or torch.get_num_threads())
    by_hand = network.pop("by_hand")
    model = RBM(**network)
    update = model.update_by_hand if by_hand else model.update_by_autograd
    data = torch.randint(2, (examples, network["dims"]), dtype=torch.uint8)
    order = torch.randperm(examples)[: examples // rows * rows].reshape(-1, rows)

    def epoch():
        for index in order:
            update(data[index].float(), learning_rate)
        return model.kernel.sum().item()

    facts = {
        "first_call": timed(epoch),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters),
        "versions": {"torch": importlib.metadata.version("torch"), "python of the peers": platform.python_version()},
        "device": f"torch on {torch.get_num_threads()} CPU threads",
    }
    serve(facts, epoch)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
