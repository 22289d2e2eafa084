"""The peer's contestant for the convolutional hierarchical VAE under PyTorch: the same maps, inference bottom up.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_hvae.py '{"task": "train", "rows": 128, "network": {"side": 28,
"width": 64, "kernels": [5, 3, 3], "strides": [2, 2, 1], "latents": [8, 16, 8], "num_dense": 2, "blocks": 3,
"channels_last": true}}' in our root.

ReLU, weight normalization, Bernoulli pixels of one channel; strides by blocks of pixels, as ours.
"""

import importlib.metadata
import json
import platform
import sys

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from genflow.benchmark.turns import serve, timed


def conv(features_in: int, features_out: int, kernel: int) -> nn.Module:
    """A weight-normalized convolution that keeps the size."""
    return weight_norm(nn.Conv2d(features_in, features_out, kernel, padding=kernel // 2))


class Block(nn.Module):
    """x + conv(relu(conv(relu(x)))), the second to 1 / stride of the size or to stride times it."""

    def __init__(self, width: int, kernel: int, stride: int, is_up: bool):
        super().__init__()
        self.stride, self.is_up = stride, is_up
        small = 2 * -(-(kernel // 2) // stride) + 1
        self.first = conv(width, width, kernel)
        self.second = conv(width if is_up else width * stride**2, width * stride**2 if is_up else width, small)

    def forward(self, x):
        """[B, width, H, W]."""
        y = self.first(functional.relu(x))
        if self.stride == 1:
            return x + self.second(functional.relu(y))
        if self.is_up:
            large = functional.interpolate(x, scale_factor=self.stride)
            return large + functional.pixel_shuffle(self.second(functional.relu(y)), self.stride)
        small = functional.avg_pool2d(x, self.stride)
        return small + self.second(functional.pixel_unshuffle(functional.relu(y), self.stride))


class Stage(nn.Module):
    """A lift of the input, plus what skips it, then residual blocks."""

    def __init__(self, features, side, width, kernel, stride, blocks, is_up, has_skip):
        super().__init__()
        self.side, self.width = side, width
        is_map = features > 0
        self.lift = conv(features, width, kernel) if is_map else weight_norm(nn.Linear(-features, side * side * width))
        self.skip = conv(width, width, 1) if has_skip else None
        strides = [1] * (blocks - 1)
        strides = [stride, *strides] if is_up else [*strides, stride]
        self.blocks = nn.Sequential(*(Block(width, kernel, s, is_up) for s in strides))

    def forward(self, z, skip=None):
        """z [B, C, H, W] or [B, C] -> [B, width, H', W']."""
        y = self.lift(z)
        y = y if y.ndim == 4 else y.view(-1, self.width, self.side, self.side)
        return self.blocks(y if skip is None else y + self.skip(functional.relu(skip)))


class Head(nn.Module):
    """Mean and log-standard deviation of a latent map, or vector."""

    def __init__(self, features: int, width: int, side: int, is_dense: bool):
        super().__init__()
        outputs = 2 * features
        self.layer = weight_norm(nn.Linear(width * side**2, outputs)) if is_dense else conv(width, outputs, 3)
        self.is_dense = is_dense

    def forward(self, h):
        """[B, width, H, W] -> two of the latent's shape."""
        h = functional.relu(h)
        mean, log_std = self.layer(h.flatten(1) if self.is_dense else h).chunk(2, 1)
        return mean, 7 * torch.tanh(log_std / 7)


def log_normal(z, mean, log_std):
    """Nats an example, without the constant."""
    return (-0.5 * ((z - mean) * torch.exp(-log_std)) ** 2 - log_std).flatten(1).sum(1)


class HVAE(nn.Module):
    """q upwards, p downwards with what each stage says skipping its latent."""

    def __init__(self, side, width, kernels, strides, latents, num_dense, blocks):
        super().__init__()
        count, sides = len(latents), [side]
        for stride in strides:
            sides.append(sides[-1] // stride)
        dense = [i >= count - num_dense for i in range(count)]
        sizes = [-n if is_dense else n for n, is_dense in zip(latents, dense, strict=True)]
        common = list(zip(kernels, strides, strict=True))
        self.up = nn.ModuleList(
            Stage(sizes[i - 1] if i else 1, sides[i], width, *common[i], blocks, False, i > 0) for i in range(count)
        )
        self.down = nn.ModuleList(
            Stage(sizes[i], sides[i + 1], width, *common[i], blocks, True, i < count - 1) for i in range(count)
        )
        heads = [(latents[i], width, sides[i + 1], dense[i]) for i in range(count)]
        self.posterior = nn.ModuleList(Head(*head) for head in heads)
        self.prior = nn.ModuleList(Head(*head) for head in heads[:-1])
        self.out = conv(width, 1, 3)

    def forward(self, x):
        """The mean of -ELBO of x [B, 1, H, W] in {0, 1}, nats but for a constant."""
        z, h, log_q = [], None, 0.0
        for i, stage in enumerate(self.up):
            h = stage(z[-1], h) if i else stage(2 * x - 1)
            mean, log_std = self.posterior[i](h)
            z.append(mean + log_std.exp() * torch.randn_like(mean))
            log_q = log_q + log_normal(z[-1], mean, log_std)
        log_p, d = log_normal(z[-1], torch.zeros(()), torch.zeros(())), None
        for i in reversed(range(len(self.down))):
            if d is not None:
                log_p = log_p + log_normal(z[i], *self.prior[i](d))
            d = self.down[i](z[i], d)
        logits = self.out(functional.relu(d))
        nll = functional.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
        return (nll + log_q - log_p).mean()


def main(task: str, rows: int, network: dict) -> None:
    """Builds the model, trains one step and serves."""
    if task != "train":
        raise SystemExit(f"task {task!r}: only train")
    torch.manual_seed(0)
    layout = torch.channels_last if network.pop("channels_last") else torch.contiguous_format
    model = HVAE(**network).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    x = torch.randint(2, (rows, 1, network["side"], network["side"])).float().contiguous(memory_format=layout)

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
