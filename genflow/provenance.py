"""Where a figure comes from: versions, hardware, revision."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
WRITTEN = (":!results", ":!docs", ":!*.md")  # what figures are written to
PACKAGES = ("genflow", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_collections", "blackjax")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure depends on; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """'2-core x86_64 CPU' or '1x NVIDIA H200'."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        return f"{len(os.sched_getaffinity(0))}-core {platform.machine()} CPU" + _fake(len(devices))
    return f"{len(devices)}x {devices[0].device_kind}"


def _fake(num_devices):
    return f" as {num_devices} devices" if num_devices > 1 else ""


def git_revision(root: pathlib.Path = ROOT) -> str:
    """The commit of the source tree, with '+changes' where files that compute differ from it; '' outside a checkout."""
    try:
        revision = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *WRITTEN)
        return revision + "+changes" * bool(changes)
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(root, *arguments):
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
