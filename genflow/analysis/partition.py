"""What estimates of the partition function say of an energy-based model's likelihood."""

import math
from collections.abc import Mapping

from genflow.core import Model
from genflow.evaluate import Score


def diagnostics(model: Model, state, test: Score, in_unit=lambda nats: nats) -> Mapping[str, tuple[float, float]]:
    """{name: (value, standard error)}: log Z by each estimator, nats, and the test score that it leads to.

    Args:
      state: normalized.
      test: the score by the first estimator.
      in_unit: nats to the unit of the score.
    """
    estimates = model.energy_based.log_partition(state)
    known = {name: (float(value), float(error)) for name, (value, error) in estimates.items()}
    (first, _), *others = known.values()
    lines = {f"log Z by {name} (nats)": pair for name, pair in known.items()}
    for name, (value, error) in known.items() if others else ():
        lines[f"test score by {name}"] = (
            test.value + in_unit(value - first),
            math.hypot(test.standard_error, in_unit(error)),
        )
    return lines
