"""Many plans, each in a process of its own: a compiler that fails or takes too long does not end the others."""

import ast
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from genflow import cli
from genflow import workdir as folders
from genflow.errors import UserError
from genflow.plan import page


def slice_of(path: pathlib.Path) -> str:
    """The topology that an experiment's docstring names after 'Slice:'.

    Raises:
      UserError: it names none.
    """
    found = cli.entry(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "", "Slice")
    if not found:
        raise UserError(f"{path} has no line 'Slice: TOPOLOGY' in its docstring: give --topology")
    return found


def plan_all(root: pathlib.Path, names: list[str], topology: str, cpu_minutes: float, quick: bool) -> None:
    """Plans experiments one after the other and writes record and page after each; what is there already is kept.

    Args:
      root: of the checkout.
      names: as --config takes them.
      topology: of all; '': each on its own slice.
      cpu_minutes: that one plan may take, tracing and compiling.
      quick: as of `preflight.plan`; a plan that was made with more trouble stays.
    """
    there = {path.stem for path in cli.config_files()}  # a config that is gone takes its row along
    for number, name in enumerate(names, 1):
        config, where = cli.load_config(name), topology or slice_of(cli.find_config(name)[0])
        wanted = {"name": config.name, "config_hash": folders.config_hash(config), "slice": where}
        known = page.read(root).get(config.name, {})
        if wanted.items() <= known.items() and (quick or not known.get("quick")) and not _again(known, cpu_minutes):
            continue
        plan = wanted | _planned(root, name, where, cpu_minutes, quick)
        if "failed" in plan and "failed" not in known and wanted.items() <= known.items():
            print(f"{config.name} on {where}: {plan['failed']}; the quick plan stays", flush=True)
            continue
        page.write_record(root, {k: v for k, v in page.read(root).items() if k in there} | {config.name: plan})
        page.write_page(root)
        outcome = plan.get("failed") or f"{plan['compile_seconds']:.0f} s to compile"
        print(f"{number} of {len(names)}: {config.name} on {where}: {outcome}", flush=True)


def _again(known, cpu_minutes):
    """Whether a plan that failed had less time than there is now."""
    return "failed" in known and known.get("cpu_minutes", 0.0) < cpu_minutes


def _planned(root, name, where, cpu_minutes, quick) -> dict:
    """The plan that a process writes, or {'failed': why}."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "plan.json"
        flags = [
            f"--config={name}",
            f"--topology={where}",
            f"--cpu_minutes={cpu_minutes}",
            f"--json={file}",
            *["--quick"] * quick,
        ]
        command = [sys.executable, str(root / "scripts" / "plan.py"), *flags]
        plainly = os.environ | {"JAX_TRACEBACK_FILTERING": "off"}  # the error is then the last line
        done = subprocess.run(command, cwd=root, env=plainly, capture_output=True, text=True)
        if done.returncode == 0:
            return json.loads(file.read_text("utf-8"))
        return {"failed": _reason(done, cpu_minutes), "cpu_minutes": cpu_minutes}


def _reason(done, cpu_minutes):
    if done.returncode == -signal.SIGXCPU:
        return f"more than {cpu_minutes:g} minutes of a CPU"
    if done.returncode == -signal.SIGKILL:
        return "the compiler was killed: out of this machine's memory"
    lines = [line for line in done.stderr.strip().splitlines() if line] or [f"status {done.returncode}"]
    return " ".join(lines[-1].split())[:200]
