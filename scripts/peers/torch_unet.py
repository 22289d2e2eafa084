"""The peer's contestant for diffusion models of images under PyTorch: diffusers' UNet2DModel and DDPMScheduler.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_unet.py '{"task": "train", "rows": 16, "network": {"side": 32,
"channels": 3, "width": 32, "multipliers": [1, 2, 4], "blocks": 2, "attention": [16], "channels_last": true}}' in our
root, with a task of TASKS; "sample" takes "num_steps" too.
"""

import importlib.metadata
import json
import platform
import sys

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch.nn import functional

from genflow.benchmark.turns import serve, timed

NUM_STEPS = 1000  # of the chain


def unet(side: int, channels: int, width: int, multipliers: list, blocks: int, attention: list) -> UNet2DModel:
    """The network of DDPM: epsilon of a noised image, without dropout."""
    sides = [side // 2**level for level in range(len(multipliers))]
    return UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=[width * multiplier for multiplier in multipliers],
        layers_per_block=blocks,
        down_block_types=["AttnDownBlock2D" if n in attention else "DownBlock2D" for n in sides],
        up_block_types=["AttnUpBlock2D" if n in attention else "UpBlock2D" for n in reversed(sides)],
        attention_head_dim=None,  # one head
        norm_num_groups=min(32, width // 4),
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )


def train(network: UNet2DModel, scheduler: DDPMScheduler, x: torch.Tensor):
    """Algorithm 1: the simple loss at random times, and Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)

    def step():
        noise = torch.randn_like(x)
        times = torch.randint(NUM_STEPS, (len(x),))
        optimizer.zero_grad()
        said = network(scheduler.add_noise(x, noise, times), times).sample
        loss = functional.mse_loss(said, noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def sample(network: UNet2DModel, scheduler: DDPMScheduler, x: torch.Tensor, num_steps: int):
    """Algorithm 2 on every NUM_STEPS / num_steps-th time, as in diffusers' own pipeline."""
    network.eval()
    scheduler.set_timesteps(num_steps)

    @torch.no_grad()
    def step():
        z = torch.randn_like(x)
        for t in scheduler.timesteps:
            z = scheduler.step(network(z, t).sample, t, z).prev_sample
        return z.sum().item()

    return step


TASKS = {"train": train, "sample": sample}


def main(task: str, rows: int, network: dict, **options) -> None:
    """Builds the network, takes one step of the task and serves."""
    torch.manual_seed(0)
    layout = torch.channels_last if network.pop("channels_last") else torch.contiguous_format
    model = unet(**network).to(memory_format=layout)
    images = torch.rand(rows, network["channels"], network["side"], network["side"]) * 2 - 1
    scheduler = DDPMScheduler(NUM_STEPS, variance_type="fixed_large")
    step = TASKS[task](model, scheduler, images.contiguous(memory_format=layout), **options)
    names = ("torch", "diffusers")
    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
        "versions": {name: importlib.metadata.version(name) for name in names}
        | {"python of the peers": platform.python_version()},
        "device": f"torch on {torch.get_num_threads()} CPU threads",
    }
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
