"""The peer's contestant for the Gated PixelCNN under PyTorch: the same network, kernels cropped to what is not masked.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_pixelcnn.py '{"task": "train", "rows": 16, "network": {"side": 28,
"channels": 1, "bins": 2, "width": 32, "blocks": 7, "head": 64, "channels_last": true}}' in our root.
"""

import importlib.metadata
import json
import platform
import sys

import torch
from torch import nn
from torch.nn import functional

from genflow.benchmark.turns import serve, timed


class Conv(nn.Conv2d):
    """A convolution with zeros on chosen sides (left, right, above, below), and a mask on its weights."""

    def __init__(self, features_in: int, features_out: int, size: tuple, sides: tuple = (0, 0, 0, 0), mask=None):
        super().__init__(features_in, features_out, size)
        self.sides = sides
        self.register_buffer("mask", mask)

    def forward(self, x):
        """[B, I, H, W] -> [B, O, H, W]."""
        weight = self.weight if self.mask is None else self.weight * self.mask
        return functional.conv2d(functional.pad(x, self.sides) if any(self.sides) else x, weight, self.bias)


def causal(features_in: int, features_out: int, left: int, strict: bool, channels: int, parts: int = 1) -> Conv:
    """A row of `left` pixels before and the pixel itself, of which a channel's features see the channels before it."""
    ours = (torch.arange(features_out // parts) * channels // (features_out // parts)).repeat(parts)[:, None]
    theirs = (torch.arange(features_in) * channels // features_in)[None]
    mask = torch.ones(features_out, features_in, 1, left + 1)
    mask[:, :, 0, left] = (theirs < ours if strict else theirs <= ours).float()
    is_whole = not strict and channels == 1
    return Conv(features_in, features_out, (1, left + 1), (left, 0, 0, 0), None if is_whole else mask)


class Layer(nn.Module):
    """One layer of both stacks: van den Oord et al. (2016), arXiv:1606.05328, figure 2."""

    def __init__(self, features: int, width: int, channels: int, first: bool):
        super().__init__()
        self.first = first
        size, sides = ((3, 7), (3, 3, 2, 0)) if first else ((2, 3), (1, 1, 1, 0))
        self.vertical = Conv(features, 2 * width, size, sides)
        self.link = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.horizontal = causal(features, 2 * width, 3 if first else 1, first, channels, parts=2)
        self.mix = causal(width, width, 0, False, channels)

    def forward(self, vertical, horizontal):
        """Both stacks, [B, F, H, W] each."""
        above = self.vertical(vertical)
        shifted = functional.pad(above[:, :, :-1], (0, 0, 1, 0))
        out = self.mix(gate(self.horizontal(horizontal) + self.link(shifted)))
        return gate(above), out if self.first else horizontal + out


def gate(h):
    """tanh(f) * sigmoid(g) of the two halves."""
    f, g = h.chunk(2, 1)
    return torch.tanh(f) * torch.sigmoid(g)


class GatedPixelCNN(nn.Module):
    """Logits of every value given those before it."""

    def __init__(self, channels: int, outputs: int, width: int, blocks: int, head: int):
        super().__init__()
        self.first = Layer(channels, width, channels, True)
        self.layers = nn.ModuleList([Layer(width, width, channels, False) for _ in range(blocks)])
        self.head = causal(width, head, 0, False, channels)
        self.output = causal(head, channels * outputs, 0, False, channels)

    def forward(self, x):
        """[B, C, H, W] in [-1, 1] -> [B, C * outputs, H, W]."""
        vertical, horizontal = self.first(x, x)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal)
        return self.output(functional.relu(self.head(functional.relu(horizontal))))


def loss_of(raw, values, bins: int):
    """Nats an image, the mean of the batch."""
    batch, channels, *sides = values.shape
    if bins == 2:
        return functional.binary_cross_entropy_with_logits(raw, values.float(), reduction="sum") / batch
    logits = raw.reshape(batch, channels, bins, *sides).movedim(2, 1)
    return functional.cross_entropy(logits, values, reduction="sum") / batch


def main(task: str, rows: int, network: dict) -> None:
    """Builds the network for images of noise, takes a step and serves."""
    if task != "train":
        raise SystemExit(f"task {task!r}: only train")
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side, channels, bins = (network.pop(name) for name in ("side", "channels", "bins"))
    layout = torch.channels_last if network.pop("channels_last") else torch.contiguous_format
    model = GatedPixelCNN(channels, 1 if bins == 2 else bins, **network).to(device, memory_format=layout)
    values = torch.randint(bins, (rows, channels, side, side), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        x = (values.float() * (2 / (bins - 1)) - 1).contiguous(memory_format=layout)
        loss = loss_of(model(x), values, bins)
        loss.backward()
        optimizer.step()
        return loss.item()

    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "versions": {"torch": importlib.metadata.version("torch"), "python of the peers": platform.python_version()},
        "device": "torch on a GPU" if device == "cuda" else f"torch on {torch.get_num_threads()} CPU threads",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
