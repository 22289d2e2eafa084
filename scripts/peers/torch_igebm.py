"""The peer's contestant for an energy-based model of images under PyTorch: a train step with its Langevin chains.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_igebm.py '{"task": "train", "rows": 16, "network": {"side": 32,
"channels": 3, "bins": 256, "width": 16, "multipliers": [1, 2, 2], "blocks": 1, "steps": 60, "step_size": 10.0, "noise":
0.005, "max_gradient": 0.01, "restarts": 0.05, "buffer": 10000, "regularization": 1.0, "channels_last": true,
"threads": 0}}' in our root.

threads: 0: as many as torch takes.

The kernels are divided by their largest singular values once for all steps of a chain.
"""

import importlib.metadata
import json
import platform
import sys

import torch
from torch.nn.functional import avg_pool2d, conv2d, leaky_relu

from genflow.benchmark.turns import serve, timed


class Energy:
    """A residual network [B, C, H, W] -> [B] with functions of its parameters, so that a chain may take them fixed."""

    def __init__(self, channels: int, width: int, multipliers: list[int], blocks: int):
        self.stages, self.blocks = len(multipliers), blocks
        self.kernels, self.biases = {}, {}
        self._layer("first", (width * multipliers[0], channels, 3, 3))
        before = width * multipliers[0]
        for stage, multiplier in enumerate(multipliers):
            after = width * multiplier
            for block in range(blocks):
                name = f"stage_{stage}_block_{block}"
                self._layer(f"{name}/conv_1", (after, before, 3, 3))
                self._layer(f"{name}/conv_2", (after, after, 3, 3))
                if before != after:
                    self._layer(f"{name}/shortcut", (after, before, 1, 1))
                before = after
        self._layer("last", (1, before))
        self.vectors = {name: torch.randn(len(kernel)) for name, kernel in self.kernels.items()}
        self.normalized(20)

    def _layer(self, name, shape):
        limit = torch.tensor(shape[1:]).prod().item() ** -0.5
        self.kernels[name] = ((2 * torch.rand(shape) - 1) * limit).requires_grad_()
        self.biases[name] = torch.zeros(shape[0], requires_grad=True)

    @property
    def parameters(self):
        """All tensors that are trained."""
        return [*self.kernels.values(), *self.biases.values()]

    def normalized(self, iterations: int = 1):
        """The kernels over their largest singular values, after some power iterations."""
        found = {}
        for name, kernel in self.kernels.items():
            matrix = kernel.flatten(1)
            with torch.no_grad():
                u = self.vectors[name]
                for _ in range(iterations):
                    v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
                    u = torch.nn.functional.normalize(matrix @ v, dim=0)
                self.vectors[name] = u
            found[name] = kernel / (u @ matrix @ v)
        return found

    def __call__(self, kernels, biases, x):
        """Energies of images x."""

        def convolved(name, h):
            return conv2d(h, kernels[name], biases[name], padding="same")

        h = convolved("first", x)
        for stage in range(self.stages):
            for block in range(self.blocks):
                name = f"stage_{stage}_block_{block}"
                r = convolved(f"{name}/conv_1", leaky_relu(h))
                r = convolved(f"{name}/conv_2", leaky_relu(r))
                h = r + (convolved(f"{name}/shortcut", h) if f"{name}/shortcut" in kernels else h)
                if block == 0:
                    h = avg_pool2d(h, 2)
        return (leaky_relu(h).sum((2, 3)) @ kernels["last"].T + biases["last"])[:, 0]


def train(
    energy: Energy,
    data: torch.Tensor,
    bins: int,
    buffer: torch.Tensor,
    steps: int,
    step_size: float,
    noise: float,
    max_gradient: float,
    restarts: float,
    regularization: float,
):
    """Chains from the buffer or from noise, the contrastive loss with squared energies, and Adam."""
    optimizer = torch.optim.Adam(energy.parameters, lr=1e-5)

    def chain(kernels, biases, x):
        for _ in range(steps):
            x.requires_grad_()
            slope = torch.autograd.grad(energy(kernels, biases, x).sum(), x)[0]
            with torch.no_grad():
                x = x - step_size * slope.clamp_(-max_gradient, max_gradient)
                x = x.add_(torch.randn_like(x), alpha=noise).clamp_(0, 1)
        return x.detach()

    def step():
        place = torch.randint(len(buffer), (len(data),))
        start = buffer[place]
        fresh = torch.rand(len(data), 1, 1, 1) < restarts
        start = torch.where(fresh, torch.rand_like(start), start)
        kernels = energy.normalized()
        fixed = [{name: a.detach() for name, a in part.items()} for part in (kernels, energy.biases)]
        samples = chain(*fixed, start)
        buffer[place] = samples
        images = (data + torch.rand_like(data)) / bins
        of_data = energy(kernels, energy.biases, images)
        of_samples = energy(kernels, energy.biases, samples)
        loss = of_data.mean() - of_samples.mean() + regularization * (of_data**2 + of_samples**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main(task: str, rows: int, network: dict) -> None:
    """Builds the network, trains one step and serves."""
    if task != "train":
        raise ValueError(f"task={task!r}: there is train only")
    torch.manual_seed(0)
    torch.set_num_threads(network.pop("threads") or torch.get_num_threads())
    layout = torch.channels_last if network.pop("channels_last") else torch.contiguous_format
    side, channels, bins = (network.pop(name) for name in ("side", "channels", "bins"))
    energy = Energy(channels, *(network.pop(name) for name in ("width", "multipliers", "blocks")))
    data = torch.randint(bins, (rows, channels, side, side)).float().contiguous(memory_format=layout)
    buffer = torch.rand(network.pop("buffer"), channels, side, side).contiguous(memory_format=layout)
    step = train(energy, data, bins, buffer, **network)
    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in energy.parameters),
        "versions": {"torch": importlib.metadata.version("torch"), "python of the peers": platform.python_version()},
        "device": f"torch on {torch.get_num_threads()} CPU threads",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
