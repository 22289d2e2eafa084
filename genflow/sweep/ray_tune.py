"""Trials on a Ray cluster, scheduled by Ray Tune; what they are and how they end is in the sweep's own study."""

import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from genflow.errors import UserError
from genflow.sweep import driver, trial
from genflow.sweep.local import Job, Process, end
from genflow.sweep.study import Study
from genflow.sweep.trial import Outcome, Plan

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose tables come in spite of verbose=0
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the run folder has the figures
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # the sweep has its own
try:
    import ray
    from ray import tune
except ModuleNotFoundError as error:
    raise UserError(f"--engine=ray needs {error.name}: pip install 'genflow[ray]'") from error

RESOURCES = {"cpu": "CPU", "gpu": "GPU"}  # Tune's names: those of the nodes
TURN = 1.0  # seconds until a trial without news lets Tune have its say


class Trainable(tune.Trainable):
    """A trial: the same command as on one machine. A step lasts until there is news, but no longer than a turn."""

    def setup(self, config: Mapping, plan: Plan, threads: str) -> None:
        """Starts or resumes the run; waits for an earlier process that still has its folder."""
        self._plan, self._number, self._seen, self._sizes = plan, config["number"], 0, {}
        trial.wait_until_free(plan.run_folder(self._number))
        job = Job(self._number, config["command"], plan.cwd, plan.log(self._number))
        self._process = Process(job, {"NPROC": threads} if threads else {})

    def step(self) -> dict:
        """Returns the number of validations so far, whether it has grown, and the exit status of a run that has ended.

        Whatever Tune asks of the actor, such as to stop, waits until then.
        """
        last, before = time.monotonic() + TURN, self._seen
        while (status := self._process.poll()) is None and self._seen == before and time.monotonic() < last:
            time.sleep(driver.POLL)
            if driver.has_grown(self._plan, self._number, self._sizes):
                self._seen = len(trial.curve(self._plan, self._number))
        return {"validations": self._seen, "is_news": self._seen > before, "status": status, "done": status is not None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the run folder holds the checkpoints."""

    def load_checkpoint(self, checkpoint: dict | None) -> None:
        """Nothing: the run resumes by itself."""

    def cleanup(self) -> None:
        """Ends a run that still runs, after a checkpoint."""
        end([self._process])


class Search(tune.search.Searcher):
    """Ray Tune's view of the study: what to run next, and what came of it."""

    def __init__(self, plan: Plan, study: Study, tell: Callable[[int, Outcome], None], signals: Sequence[int] = ()):
        super().__init__(metric="validations", mode="max")
        self._plan, self._study, self._tell, self._signals = plan, study, tell, signals
        self._waiting, self._restarts = study.unfinished(), driver.Restarts(plan)
        self.numbers: dict[str, int] = {}  # of the trials that run, by Ray's name for them
        self.pruned: set[int] = set()
        self.error: UserError | None = None

    def suggest(self, trial_id: str) -> dict | str | None:
        """The next trial; None where only a running one could still come back."""
        while self.error is None:
            number = self._waiting.pop(0) if self._waiting else self._study.ask()
            if number is None:
                return None if self.numbers else self.FINISHED
            if not trial.is_recorded(self._plan, number):
                self.numbers[trial_id] = number
                return {"number": number, "command": driver.make_job(self._plan, self._study, number).command}
            self._settle(number, trial.outcome(self._plan, number, 0))
        return self.FINISHED

    def on_trial_complete(self, trial_id: str, result: Mapping | None = None, error: bool = False) -> None:
        """Notes how a trial ended; one whose node was lost comes again."""
        number = self.numbers.pop(trial_id)
        status = (result or {}).get("status")
        try:
            found = trial.outcome(self._plan, number, trial.LOST if status is None else status, number in self.pruned)
        except UserError as wrong:
            self.error = self.error or wrong
            return
        if found.state == "interrupted" and (self._signals or self._restarts.allow(number)):
            self._waiting.insert(0, number)  # of a sweep that is stopped itself: for the one that goes on
        else:
            self._settle(number, found)

    def _settle(self, number, found):
        try:
            driver.settle(self._study, number, found, self._plan, self._tell)
        except UserError as error:  # Tune would show it as its own failure
            self.error = self.error or error

    def is_behind(self, trial_id: str) -> bool:
        """Whether the pruner ends a trial now."""
        number = self.numbers[trial_id]
        try:
            behind = driver.is_behind(self._plan, self._study, number)
        except UserError as error:
            self.error, behind = self.error or error, False
        if behind:
            self.pruned.add(number)
        return behind

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk."""
        pathlib.Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class Stopper(tune.Stopper):
    """Ends trials that are behind, and everything on a signal or where one was refused."""

    def __init__(self, search: Search, signals: Sequence[int]):
        self._search, self._signals = search, signals

    def __call__(self, trial_id: str, result: Mapping) -> bool:
        return result["status"] is None and result["is_news"] and self._search.is_behind(trial_id)

    def stop_all(self) -> bool:
        return bool(self._signals) or self._search.error is not None


def drive(
    plan: Plan, study: Study, tell: Callable[[int, Outcome], None], address: str, resources: Mapping[str, float]
) -> None:
    """Runs a sweep to its end on a cluster, whose nodes all see the sweep's folder.

    Args:
      address: of an existing cluster, 'auto' for the one of this machine; empty: one of our own, on this machine.
      resources: of each trial: {'cpu': 1, 'gpu': 0}.

    Raises:
      UserError: no such cluster, one that is too small, or a trial was refused.
      driver.Stopped: SIGTERM or SIGINT.
    """
    _connect(address, plan.sweep.workers, resources)
    try:
        check_room(ray.nodes(), resources, grows=bool(address))
        with driver.interruptible() as signals:
            search = Search(plan, study, tell, signals)
            _tuner(search, Stopper(search, signals), plan, resources).fit()
    finally:
        ray.shutdown()
    if search.error:
        raise search.error
    if signals or study.unfinished():
        raise driver.Stopped((signals or [signal.SIGUSR1])[0])  # on the latter Tune ends by itself


def check_room(nodes: Sequence[Mapping], resources: Mapping[str, float], grows: bool) -> None:
    """Tells of a cluster none of whose nodes has the resources of a trial.

    Args:
      nodes: as ray.nodes() gives them.
      grows: the cluster is not our own, and such a node may come.

    Raises:
      UserError: it does not grow.
    """
    wanted = {RESOURCES.get(name, name): amount for name, amount in resources.items()}
    known = [node["Resources"] for node in nodes if node["Alive"]]
    if any(all(has.get(name, 0) >= amount for name, amount in wanted.items()) for has in known):
        return
    told = f"{' '.join(f'--resources={name}={amount}' for name, amount in resources.items())}: no node has these"
    if not grows:
        raise UserError(f"{told}; ask for less, or name a cluster that has them with --ray_address=HOST:PORT")
    print(f"{told}; waiting for one that has", file=sys.stderr, flush=True)


def _tuner(search, stopper, plan, resources):
    threads = "" if resources.get("gpu") else str(max(int(resources.get("cpu", 1)), 1))
    trainable = tune.with_parameters(Trainable, plan=plan, threads=threads)
    return tune.Tuner(
        tune.with_resources(trainable, dict(resources)),
        tune_config=tune.TuneConfig(
            search_alg=search,
            num_samples=-1,
            max_concurrent_trials=plan.sweep.workers,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(plan.folder),
            stop=stopper,
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


def _connect(address, workers, resources):
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            cpus = max(os.cpu_count() or 1, int(workers * resources.get("cpu", 1)))
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        told = str(error).splitlines()[0]
        raise UserError(
            f"--ray_address={address}: {told}; start one with ray start --head, see docs/sweeps.md"
        ) from error
