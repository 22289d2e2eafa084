"""Our Inception network and reader of torch files beside pytorch-fid's, with random weights.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_inception.py FOLDER in our root, for an environment with torch,
torchvision and pytorch-fid: writes legacy.pth, zip.pth and expected.npz into FOLDER.
Then: python scripts/peers/torch_inception.py FOLDER, in our own environment: compares.

No published figure is reproduced by this: the weights are random, and the published file is not looked at.
"""

import pathlib
import sys

import numpy as np

TOLERANCE = 1e-4  # of the largest feature, and of the largest logit; two images differ by a hundred times that
SIDES = (32, 299, 320)


def write(folder: pathlib.Path) -> None:
    """Random weights in both formats, and what they make of random images."""
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # built for another torch, its operators do not load; none of them is needed
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from pytorch_fid import inception as peer

    torch.manual_seed(0)
    network = peer._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.running_mean, std=0.1)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(part.weight, 0.8, 1.6)
            torch.nn.init.normal_(part.bias, std=0.1)
    peer.load_state_dict_from_url = lambda *_, **__: network.state_dict()
    extractor = peer.InceptionV3([3]).eval()  # of the same parameters, with its own variations of the network
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "zip.pth")
    torch.save(network.state_dict(), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    found = {}
    with torch.no_grad():
        for side in SIDES:
            coarse = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4), size=(side, side), mode="nearest")
            images = 0.7 * coarse + 0.3 * torch.rand(2, 3, side, side)
            features = extractor(images)[0].flatten(1)
            logits = features @ network.fc.weight.T
            found |= {f"images_{side}": images.numpy().transpose(0, 2, 3, 1)}
            found |= {f"features_{side}": features.numpy(), f"logits_{side}": logits.numpy()}
    np.savez(folder / "expected.npz", **found)


def compare(folder: pathlib.Path) -> bool:
    """Prints the largest differences; whether all are within the tolerance."""
    import jax

    from genflow.analysis.torch_file import read_torch_file
    from genflow.networks.inception import inception, inception_params

    is_close = True
    expected = np.load(folder / "expected.npz")
    for name in ("zip", "legacy"):
        params = inception_params(read_torch_file(folder / f"{name}.pth"))
        for side in SIDES:
            found = jax.jit(inception().apply)(params, expected[f"images_{side}"] * 2 - 1)
            for part, ours in zip(("features", "logits"), found, strict=True):
                theirs = expected[f"{part}_{side}"]
                error = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
                spread = np.abs(theirs[0] - theirs[1]).max() / np.abs(theirs).max()
                shown = f"{error:.1e} of the largest; two images differ by {spread:.1e}"
                print(f"{name:<8}{side:>4} pixels  {part:<10}{shown}")
                is_close &= bool(error < TOLERANCE < spread / 100)
    return is_close


if __name__ == "__main__":
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit(not compare(pathlib.Path(sys.argv[1])))
    write(pathlib.Path(sys.argv[1]))
