"""What suites of parts have in common: each part is measured in its turn, and all figures end in one dictionary."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from genflow.benchmark import core_suite
from genflow.errors import UserError


def run_parts(sizes: NamedTuple, parts: Sequence[str], measured: Callable, peer_python: str) -> dict:
    """Measures the parts that `sizes.parts` names, in the order of `parts`; returns all figures.

    Args:
      measured: (sizes, part, peer_python) -> rows, whose table it prints.

    Raises:
      UserError: a part that does not exist.
    """
    if unknown := set(sizes.parts) - set(parts):
        raise UserError(f"parts {', '.join(sorted(unknown))}: expected some of {', '.join(parts)}")
    result = {"hardware": core_suite.machine(), "load_before": os.getloadavg(), "sizes": sizes._asdict()}
    print(f"{result['hardware']}, load {result['load_before'][0]:.1f}")
    for name in parts:
        result[name] = measured(sizes, name, peer_python) if name in sizes.parts else []
    rows = [row for name in parts for row in result[name]]
    result["versions"] = {name: version for row in rows for name, version in row["versions"].items()}
    result["load_after"] = os.getloadavg()
    print("\n" + ", ".join(f"{name} {version}" for name, version in result["versions"].items()))
    print(f"load at the end {result['load_after'][0]:.1f}: wall times of a busy machine are upper bounds")
    return result
