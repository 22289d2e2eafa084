"""The peer's contestant for the GPT under PyTorch: the same decoder with torch's own layers and fused attention.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_gpt.py '{"task": "train", "rows": 12, "network": {"bins": 65,
"length": 64, "width": 128, "layers": 4, "heads": 4}}' in our root.

Learned positions, pre-norm blocks without biases for queries, keys and values, GELU by tanh, weights tied, no dropout.
"""

import importlib.metadata
import json
import platform
import sys

import torch
from torch import nn
from torch.nn import functional

from genflow.benchmark.turns import serve, timed


class Block(nn.Module):
    """h + attention(norm(h)), then h + perceptron(norm(h))."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.projection = nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, h):
        """One block on h [batch, length, width]."""
        batch, length, width = h.shape
        parts = self.attention(self.attention_norm(h)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*parts, is_causal=True)
        h = h + self.projection(attended.transpose(1, 2).reshape(batch, length, width))
        return h + self.perceptron(self.perceptron_norm(h))


class Decoder(nn.Module):
    """Logits of every token given those before it; `bins` stands for what is before the first."""

    def __init__(self, bins: int, length: int, width: int, layers: int, heads: int):
        super().__init__()
        self.bins = bins
        self.embedding, self.position = nn.Embedding(bins + 1, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, x):
        """[batch, length] -> [batch, length, bins]."""
        before = functional.pad(x[:, :-1], (1, 0), value=self.bins)
        h = self.embedding(before) + self.position.weight
        return self.norm(self.blocks(h)) @ self.embedding.weight[: self.bins].T


def train(decoder: Decoder, x):
    """Forward, backward and Adam; reading the loss waits for the device."""
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        loss = functional.cross_entropy(decoder(x).flatten(0, 1), x.flatten())
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def sample(decoder: Decoder, x):
    """As many sequences as there are rows, one token after another, the whole network for each."""

    @torch.no_grad()
    def step():
        drawn = torch.zeros_like(x)
        for i in range(x.shape[1]):
            logits = decoder(drawn)[:, i]
            drawn[:, i] = torch.multinomial(logits.softmax(-1), 1)[:, 0]
        return drawn.sum().item()

    return step


TASKS = {"train": train, "sample": sample}


def main(task: str, rows: int, network: dict) -> None:
    """Builds the decoder for rows of random tokens, runs once and serves."""
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    decoder = Decoder(**network).to(device)
    x = torch.randint(network["bins"], (rows, network["length"]), device=device)
    step = TASKS[task](decoder, x)
    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in decoder.parameters()),
        "versions": {"torch": importlib.metadata.version("torch"), "python of the peers": platform.python_version()},
        "device": "torch on a GPU" if device == "cuda" else f"torch on {torch.get_num_threads()} CPU threads",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
