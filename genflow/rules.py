"""What a rule of config.sharding.rules may say of a parameter's dimensions. No JAX here: a mistake is told at once."""

from collections.abc import Sequence

AXES = ("data", "model")  # of the mesh
LARGEST = "largest"  # a rule's word for: cut the largest dimension that the parameter axis divides


def axes_fault(axes: Sequence[str]) -> str:
    """What is wrong with the words of a rule, one for each of the last dimensions; '' if nothing."""
    if tuple(axes) == (LARGEST,):
        return ""
    words = [word for word in axes if word]
    if unknown := [word for word in words if word not in AXES]:
        hint = ", or ('largest',) alone" * (unknown[0] == LARGEST)
        return f"no mesh axis {unknown[0]!r}; the axes are {', '.join(AXES)}{hint}"
    twice = [word for word in words if words.count(word) > 1]
    return f"the mesh axis {twice[0]!r} is named twice; it cuts one dimension" if twice else ""
