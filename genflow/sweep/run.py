"""A sweep from its file to its table: check, folder, engine, results."""

import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from genflow import cli
from genflow import workdir as folders
from genflow.errors import UserError
from genflow.sweep import driver, local, results, slurm
from genflow.sweep.results import number
from genflow.sweep.space import base_config, load_sweep
from genflow.sweep.study import SWEEP_FILE, Study, check_folder
from genflow.sweep.trial import Outcome, Plan, last_words, make_plan

ENGINES = ("local", "ray", "slurm")


class Place(NamedTuple):
    """Where trials run.

    Attributes:
      engine: one of ENGINES.
      devices: of the local engine, see `local.environments`.
      ray_address: of a cluster; empty: a local one.
      resources: of a trial on Ray, {'cpu': 1, 'gpu': 0}.
      cluster: of submitit: 'slurm', or 'local' and 'debug' without a queue.
      slurm: options of submitit's executor, such as {'timeout_min': 60}.
    """

    engine: str = "local"
    devices: str = "auto"
    ray_address: str = ""
    resources: Mapping[str, float] = {"cpu": 1}
    cluster: str = "slurm"
    slurm: Mapping[str, object] = {}


HERE = Place()  # the local engine, all devices


def run_sweep(file: str, workdir: str = "", workers: int = 0, place: Place = HERE) -> dict:
    """Runs a sweep, or goes on with it; returns what results.json holds.

    Args:
      workdir: the sweep's folder; empty: runs/sweeps/NAME.
      workers: trials at a time; 0: as the file says.

    Raises:
      UserError: before any trial, for bad input; later where one was refused.
      driver.Stopped: SIGTERM or SIGINT.
    """
    plan = plan_of(file, workdir, workers)
    drive = _engine(plan, place)  # refuses what it cannot do before the folder is taken
    with _locked(plan):
        if not plan.sweep.trainer and not (plan.folder / SWEEP_FILE).exists():
            _probe(file)
        check_folder(plan)
        study = Study(plan)
        _tell_start(plan, study)
        try:
            drive(study, teller(plan, study))
        finally:
            found = results.write(plan, study)
        print(results.lines(plan, found, results.draw(plan, found)))
        return found


def report_sweep(file: str, workdir: str = "") -> dict:
    """Prints the table of a sweep, which may still run, and draws its picture; returns what results.json holds.

    Raises:
      UserError: there is no such sweep yet.
    """
    plan = plan_of(file, workdir, 0)
    if not (plan.folder / SWEEP_FILE).exists():
        raise UserError(f"{plan.folder}: no sweep there (no {SWEEP_FILE}); leave --report out to run it")
    found = results.collect(plan, Study(plan, reads_only=True))
    print(results.lines(plan, found, results.draw(plan, found)))
    return found


def check_sweep(file: str) -> str:
    """Builds data and model in this process, whose devices need not be those of a trial; returns a line about them.

    Raises:
      UserError: whatever would stop a trial at its start, or leave it without a validation figure.
    """
    _, sweep = load_sweep(file)
    from genflow.evaluate import unit
    from genflow.experiment import parts

    config = base_config(sweep)
    spec, _, evaluation, model, _ = parts(config)
    num = evaluation["validation"].num
    if model.log_prob is None:
        raise UserError(f"{sweep.config}: {config.model.name} has no likelihood, so no validation figure")
    if not num:
        raise UserError(f"{sweep.config}: no validation part; set overrides['data.validation'], such as 0.1")
    return f"{sweep.num_trials} trials of {sweep.config}, by {unit(spec)} on {num:,} validation examples"


def plan_of(file: str, workdir: str, workers: int) -> Plan:
    """The plan that a command line means."""
    name, sweep = load_sweep(file)
    folder = pathlib.Path(os.path.expanduser(workdir)) if workdir else pathlib.Path("runs", "sweeps", name)
    return make_plan(name, sweep._replace(workers=workers or sweep.workers), folder)


def teller(plan: Plan, study: Study):
    """What prints a line for each trial that ends, and brings the results up to date."""

    def tell(index: int, found: Outcome) -> None:
        params = study.trials()[index]["params"]
        told = " ".join(f"{name}={number(params[field])}" for field, name in _names(plan).items() if field in params)
        value = number(found.value) or found.detail
        print(f"trial {index:03}  {found.state:<9} {value:<8}  {told}", flush=True)
        results.write(plan, study)

    return tell


def _names(plan):
    return results.short_names(list(plan.sweep.space))


def _engine(plan, place):
    """drive(study, tell) of the place."""
    if place.engine == "ray":
        from genflow.sweep import ray_tune  # optional, and slow to import

        return lambda study, tell: ray_tune.drive(plan, study, tell, place.ray_address, place.resources)
    if place.engine == "slurm":
        executor = slurm.make_executor(plan, place.cluster, place.slurm)
        return lambda study, tell: driver.drive(plan, study, slurm.Array(plan, study, executor), tell)
    slots = local.Slots(local.environments(plan.sweep.workers, place.devices))
    return lambda study, tell: driver.drive(plan, study, slots, tell)


def _locked(plan):
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write in {plan.folder}: {error}; choose another folder with --workdir=DIR") from error
    return folders.lock(plan.folder)


def _probe(file):
    """`check_sweep` in a process of its own: JAX would keep an accelerator's memory from the trials."""
    command = [sys.executable, str(cli.ROOT / "scripts" / "sweep.py"), file, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(last_words(done.stderr) or f"the check ended with exit status {done.returncode}")
    print(done.stdout.strip().splitlines()[-1])


def _tell_start(plan, study):
    if known := study.num_trials():
        left = len(study.unfinished())
        print(f"going on with {plan.folder}: {known - left} trials have ended, {left} are resumed", flush=True)


def options(words: list[str], flag: str) -> dict[str, object]:
    """['gpus=1', 'partition=a'] as {'gpus': 1, 'partition': 'a'}.

    Raises:
      UserError: a word without '='.
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UserError(f"{flag}={word}: expected NAME=VALUE")
        found[name] = _typed(value)
    return found


def amounts(words: list[str], flag: str) -> dict[str, float]:
    """['cpu=2', 'gpu=0.5'] as {'cpu': 2, 'gpu': 0.5}.

    Raises:
      UserError: a word that is not NAME=NUMBER.
    """
    found = options(words, flag)
    for name, value in found.items():
        if isinstance(value, str) or not 0 <= value < math.inf:
            raise UserError(f"{flag}={name}={value}: expected a number, such as {flag}={name}=1")
    return found


def _typed(value):
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value
