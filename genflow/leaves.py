"""Leaves of a state by name: their kinds, their digests, and how they fit a model."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from genflow.errors import UserError
from genflow.workdir import Difference, describe, shorten


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns {'params/flow/w': leaf, ...}, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) < len(leaves):
        raise ValueError("two leaves have the same name: a key contains '/'")
    return named


def digests(leaves: Mapping[str, Any]) -> dict[str, str]:
    """Returns {name: 'float32[3,4] <sha256 of the bytes>'} for arrays on one host or on many."""
    arrays = jax.device_get({name: _whole(leaf) for name, leaf in leaves.items()})
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        hashes = pool.map(_sha256, arrays.values())
        return {name: f"{kind(leaf)} {text}" for (name, leaf), text in zip(arrays.items(), hashes, strict=True)}


def kind(leaf: Any) -> str:
    """Returns dtype and shape, such as 'float32[3,4]'."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def check_fit(origin: str, stored: Mapping[str, str], target: PyTree, hint: Sequence[Difference]) -> None:
    """Compares stored kinds with those of `target`.

    Raises:
      UserError: at most 19 lines, which name the leaves and, from `hint`, the fields of the config that differ.
    """
    wanted = {name: kind(leaf) for name, leaf in named_leaves(target).items()}
    every = sorted({*stored, *wanted})
    pairs = [(name, stored.get(name, "nowhere"), wanted.get(name, "nowhere")) for name in every]
    misfits = [f"{name}: stored {old}, model {new}" for name, old, new in pairs if old != new]
    if misfits:
        details = shorten(misfits, most=10) + describe(hint, most=5)
        title = f"{origin} does not fit the model ({len(misfits)} of {len(every)} leaves differ):"
        remedy = "set the config back to what it was, or choose another --workdir=DIR"
        raise UserError("\n".join([title, *(f"  {line}" for line in details), remedy]))


def sha256_json(value: Any) -> str:
    """Returns the digest of a JSON value, in whatever order its objects were filled."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _whole(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return leaf


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()
