"""The peer's contestant: normflows' multi-scale Glow under PyTorch, on its own interpreter.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/normflows_step.py '{"depth": 8, ..., "channels_last": true}' in our root.

Its coupling networks have neither ActNorm nor a border channel, and its top and split priors are one Gaussian per
channel: a little less work than ours.
"""

import json
import platform
import sys

from genflow.benchmark.turns import serve, timed


def build(levels: int, depth: int, width: int, image: int):
    """The network of normflows' own Glow example, for images of three channels."""
    import normflows as nf

    bases, flows, merges = [], [], []
    for i in range(levels):
        channels, side = 3 * 2 ** (levels + 1 - i), image // 2 ** (levels - i)
        blocks = [nf.flows.GlowBlock(channels, width, split_mode="channel", scale=True) for _ in range(depth)]
        flows.append([*blocks, nf.flows.Squeeze()])
        bases.append(nf.distributions.GlowBase((channels if i == 0 else channels // 2, side, side)))
        if i > 0:
            merges.append(nf.flows.Merge())
    return nf.MultiscaleFlow(bases, flows, merges, class_cond=False)


def train_step(levels: int, depth: int, width: int, image: int, batch: int, channels_last: bool):
    """(step, bytes of parameters): forward, backward and Adam on noise; reading the loss waits for the device."""
    import torch

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = build(levels, depth, width, image).to(device).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    images = torch.randint(0, 256, (batch, 3, image, image), dtype=torch.uint8, device=device)

    def step():
        x = ((images + torch.rand(images.shape, device=device)) / 256 - 0.5).contiguous(memory_format=layout)
        optimizer.zero_grad()
        loss = model.forward_kld(x)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, sum(p.numel() * p.element_size() for p in model.parameters())


def main(sizes: dict) -> None:
    """Takes the first step and serves."""
    import normflows
    import torch

    step, parameter_bytes = train_step(**sizes)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "normflows": normflows.__version__}
    device = "a GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": parameter_bytes,
        "versions": versions,
        "device": f"torch on {device}",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
