"""The peers' contestants for flows of vectors under PyTorch: nflows, normflows and zuko on their own interpreter.

Usage: PYTHONPATH=. PEER_PYTHON scripts/peers/torch_flows.py '{"peer": "zuko", "task": "train", "rows": 1000, "flow":
{...}}' in our root; see genflow/benchmark/vectors.py.

Every network has two hidden layers of one width and every spline lies on [-5, 5]. normflows offers no perceptron in
its spline couplings: its networks are an input layer and one residual block, one product more than the others', and
the half that conditions is transformed too.
"""

import importlib.metadata
import json
import platform
import sys

from genflow.benchmark.turns import serve, timed


def nflows_maf(dims: int, depth: int, width: int):
    """Input layer and one feedforward block: two hidden layers."""
    from nflows.transforms import MaskedAffineAutoregressiveTransform, ReversePermutation

    def step():
        return [
            MaskedAffineAutoregressiveTransform(dims, width, num_blocks=1, use_residual_blocks=False),
            ReversePermutation(dims),
        ]

    return _nflows(dims, [part for _ in range(depth) for part in step()])


def nflows_spline(dims: int, depth: int, width: int, bins: int):
    """Couplings of alternating halves with a perceptron."""
    from nflows.nn.nets import MLP
    from nflows.transforms import PiecewiseRationalQuadraticCouplingTransform as Coupling
    from nflows.utils import create_alternating_binary_mask

    class Perceptron(MLP):
        def forward(self, inputs, context=None):
            return super().forward(inputs)

    def network(features_in, features_out):
        return Perceptron([features_in], [features_out], [width, width])

    masks = [create_alternating_binary_mask(dims, even=i % 2 == 0) for i in range(depth)]
    return _nflows(dims, [Coupling(m, network, num_bins=bins, tails="linear", tail_bound=5.0) for m in masks])


def _nflows(dims, transforms):
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow
    from nflows.transforms import CompositeTransform

    flow = Flow(CompositeTransform(transforms), StandardNormal([dims]))
    return flow, flow.log_prob, flow.sample


def normflows_maf(dims: int, depth: int, width: int):
    """Its class turned around: as it stands, its density goes through the dimensions one by one."""
    import normflows as nf

    def step():
        layer = nf.flows.MaskedAffineAutoregressive(dims, width, num_blocks=1, use_residual_blocks=False)
        return [nf.flows.Reverse(layer), nf.flows.Permute(dims, mode="shuffle")]

    return _normflows(dims, [part for _ in range(depth) for part in step()])


def normflows_spline(dims: int, depth: int, width: int, bins: int):
    """Couplings of alternating halves with a residual network."""
    import normflows as nf

    coupling = nf.flows.CoupledRationalQuadraticSpline
    layers = [coupling(dims, 1, width, num_bins=bins, tail_bound=5.0, reverse_mask=i % 2 == 1) for i in range(depth)]
    return _normflows(dims, layers)


def _normflows(dims, layers):
    import normflows as nf

    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(dims, trainable=False), layers)
    return flow, flow.log_prob, flow.sample


def zuko_maf(dims: int, depth: int, width: int):
    """zuko's MAF."""
    import zuko

    return _zuko(zuko.flows.MAF(dims, transforms=depth, hidden_features=(width, width)))


def zuko_spline(dims: int, depth: int, width: int, bins: int):
    """True couplings: zuko's NSF evaluates an autoregressive network twice instead."""
    import torch
    import zuko

    layers = [
        zuko.flows.GeneralCouplingTransform(
            dims,
            mask=torch.arange(dims) % 2 == i % 2,
            univariate=zuko.transforms.MonotonicRQSTransform,
            shapes=[(bins,), (bins,), (bins - 1,)],
            hidden_features=(width, width),
        )
        for i in range(depth)
    ]
    base = zuko.flows.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(dims), torch.ones(dims), buffer=True
    )
    return _zuko(zuko.flows.Flow(layers, base))


def _zuko(flow):
    return flow, lambda x: flow().log_prob(x), lambda num: flow().sample((num,))


FLOWS = {
    ("nflows", "maf"): nflows_maf,
    ("nflows", "spline"): nflows_spline,
    ("normflows", "maf"): normflows_maf,
    ("normflows", "spline"): normflows_spline,
    ("zuko", "maf"): zuko_maf,
    ("zuko", "spline"): zuko_spline,
}


def train(flow, log_prob, sample, x):
    """Forward, backward and Adam; reading the loss waits for the device."""
    import torch

    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-5)

    def step():
        optimizer.zero_grad()
        loss = -log_prob(x).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def density(flow, log_prob, sample, x):
    """The density of every row."""
    return _without_gradient(lambda: log_prob(x).sum().item())


def draw(flow, log_prob, sample, x):
    """As many samples as there are rows."""

    def step():
        out = sample(len(x))
        return (out[0] if isinstance(out, tuple) else out).sum().item()  # normflows gives log-densities too

    return _without_gradient(step)


def _without_gradient(step):
    import torch

    return torch.no_grad()(step)


TASKS = {"train": train, "log_prob": density, "sample": draw}


def main(peer: str, task: str, rows: int, flow: dict) -> None:
    """Builds the flow for rows of noise, runs once and serves."""
    import torch

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {name: size for name, size in flow.items() if name != "kind"}
    module, log_prob, sample = FLOWS[peer, flow["kind"]](**sizes)
    module.to(device)
    step = TASKS[task](module, log_prob, sample, torch.randn(rows, flow["dims"], device=device))
    facts = {
        "first_call": timed(step),
        "temporary_bytes": None,
        "parameter_bytes": sum(p.numel() * p.element_size() for p in module.parameters()),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", peer)},
        "device": "torch on a GPU" if device == "cuda" else f"torch on {torch.get_num_threads()} CPU threads",
    }
    facts["versions"]["python of the peers"] = platform.python_version()
    serve(facts, step)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
