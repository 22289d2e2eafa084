"""Several hosts, as several processes on this one: each reads its rows, all stop together, none is lost silently."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from conftest import ENVIRONMENT

from genflow import cli, hosts, train
from genflow.checkpoint import restore
from genflow.experiment import assemble, initializer
from genflow.metrics import read_rows
from genflow.supervisor import JOIN_SECONDS, apart

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = "configs/realnvp_toy.py:debug"
OVERRIDES = {
    "train.num_steps": "120",
    "train.steps_per_call": "10",
    "train.log_every": "40",
    "train.ema_decay": "0.9",
    "eval.every": "60",
    "checkpoint.every": "20",
    "data.batch_size": "8",
}
SHARDED = {"sharding.model": "2", "sharding.rules": "(('.', ('largest',)),)"}
HEARTBEAT = 10  # seconds
ENDED = (1, 128 + signal.SIGABRT)  # by an exception that tells of the other process, or by JAX


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def environment(**more):
    """One device for each process; unset variables would be the pytest process's own."""
    flags = ENVIRONMENT["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    return os.environ | ENVIRONMENT | {"XLA_FLAGS": flags, "GENFLOW_FAILPOINT": ""} | more


def as_flags(port, rank):
    """Who is who, said on the command line."""
    return [f"--coordinator=localhost:{port}", "--num_processes=2", f"--process_id={rank}"], {}


def as_slurm(port, rank):
    """Who is who, found in what SLURM tells a task of a step."""
    told = {"SLURM_JOB_ID": port, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": 2}
    told |= {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    return ["--coordinator=auto"], {name: str(value) for name, value in told.items()}


def run_both(workdir, told, failpoint="", seed=0):
    """`python main.py` in two processes at once; the failpoint and the seed are the second one's. (status, stderr)."""
    port = free_port()
    processes = []
    for rank in range(2):
        flags, variables = told(port, rank)
        fields = [f"--config.{name}={value}" for name, value in (OVERRIDES | SHARDED).items()]
        command = [sys.executable, str(ROOT / "main.py"), f"--config={CONFIG}", f"--workdir={workdir}", *fields, *flags]
        command += [f"--config.seed={seed if rank else 0}"]
        variables |= {"GENFLOW_FAILPOINT": failpoint if rank else ""}
        processes.append(
            subprocess.Popen(
                [*command, f"--heartbeat={HEARTBEAT}"],
                env=environment(**variables),
                cwd=workdir.parent,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    last = processes[1].communicate(timeout=180)[1]  # the one that something happens to
    first = processes[0].communicate(timeout=HEARTBEAT + 60)[1]
    return [(process.returncode, text) for process, text in zip(processes, (first, last), strict=True)]


def last_state(workdir, config):
    """The leaves of the last state of a run, in the memory of this process."""
    _, target = initializer(assemble(config))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(restore(workdir / "checkpoints", target)[0])]


@pytest.mark.parametrize(("seconds", "views"), [(30, ["new", "new"]), (0, ["new", ""])])
def test_a_file_system_that_lags_is_waited_for(monkeypatch, seconds, views):
    looks = iter(["", "", "new"])
    monkeypatch.setattr(hosts, "LAG_SECONDS", seconds)
    monkeypatch.setattr(hosts.time, "sleep", lambda _: None)
    monkeypatch.setattr(hosts, "every", lambda mine: ["new", mine])
    assert hosts.seen(lambda: next(looks)) == views


def test_two_processes_are_killed_and_stopped_and_end_where_one_does(tmp_path):
    run = tmp_path / "run"
    (survivor, survivor_errors), (killed, _) = run_both(run, as_flags, "train/step@50:kill9")
    assert killed == 128 + signal.SIGKILL
    assert survivor in ENDED
    assert f"has not been heard of for --heartbeat={HEARTBEAT} s" in survivor_errors
    assert "the same command on every host to resume" in survivor_errors

    (survivor, survivor_errors), (failed, failed_errors) = run_both(run, as_flags, "train/step@60:raise")
    assert "RuntimeError: failpoint train/step at step 60" in failed_errors
    assert failed == 1
    assert survivor in ENDED
    assert "the same command on every host to resume" in survivor_errors

    stopped = run_both(run, as_slurm, "train/step@60:term")
    for status, errors in stopped:
        assert status == 128 + signal.SIGTERM, errors
        assert "resuming" in errors
        assert "run the same command to resume" in errors
    assert len({re.search(r"saved step (\d+)", errors)[1] for _, errors in stopped}) == 1

    for status, errors in run_both(run, as_flags):
        assert status == 0, errors
    assert [row["step"] for row in read_rows(run) if row["split"] == "train"] == [40, 80, 120]

    alone = cli.load_config(CONFIG, OVERRIDES)
    reference = train.train(alone, str(tmp_path / "alone"))
    np.testing.assert_allclose(json.loads((run / "record.json").read_text())["value"], reference["value"], rtol=1e-5)
    for a, b in zip(last_state(run, alone), last_state(tmp_path / "alone", alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_hosts_that_were_told_different_things_do_not_train_together(tmp_path):
    for status, errors in run_both(tmp_path / "run", as_flags, seed=1):
        assert status == 2
        assert "process 1 has another configuration than process 0: run the same command" in errors
    assert not (tmp_path / "run").exists()


TOGETHER = """
    import faulthandler, json, pathlib, sys, time
    import jax
    import numpy as np
    from genflow import checkpoint, hosts, sharding

    faulthandler.dump_traceback_later(90, exit=True)  # processes that wait for each other do so for ever
    rank, folder = int(sys.argv[2]), pathlib.Path(sys.argv[3])
    hosts.join(sys.argv[1], 2, rank, 10)
    mesh, told = sharding.make_mesh(-1, 2), {}

    held = sharding.local_rows(mesh, 8)
    whole = np.arange(24.0).reshape(8, 3)
    read = sharding.put_rows(mesh, whole[held], 8)
    stacked = sharding.put_rows(mesh, np.stack([whole[held], -whole[held]]), 8, axis=1)
    np.testing.assert_array_equal(hosts.to_host(read), whole)
    np.testing.assert_array_equal(hosts.to_host(stacked), np.stack([whole, -whole]))
    told["rows"] = held.tolist()

    told["every"] = hosts.every(["é" * 1500 * rank, None])

    (folder / str(rank)).mkdir()
    if rank == 0:
        (folder / "0" / checkpoint.ROLLBACKS).write_text('{"rollbacks": 2, "step": 40}')
    with checkpoint.open_checkpoints(folder / str(rank), 1) as checkpoints:
        told["rollbacks"] = checkpoints.rollbacks()

    hosts.LAG_SECONDS = 1
    for name in ("shared", f"of {rank} alone"):
        (folder / name).mkdir(exist_ok=True)
        with hosts.output_folder(folder / name):
            try:
                told[name.split()[0]] = hosts.check_shared(folder / name)
            except hosts.UserError as error:
                told[name.split()[0]] = str(error)

    def late(value, every=hosts.every):  # what the second process does after an agreement, it does much later
        values = every(value)
        time.sleep(0.5 * rank)
        return values

    hosts.every = late
    with checkpoint.open_checkpoints(folder / "checkpoints", 3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, {"w": jax.device_put(np.full(8, step, np.int32), sharding.replicated(mesh))}, {})
        checkpoints.wait()
        target = {"w": jax.ShapeDtypeStruct((8,), np.int32, sharding=sharding.replicated(mesh))}
        try:
            seen = folder / ("nowhere" if rank else "checkpoints")
            checkpoint.restore(seen, target, set_aside=lambda path, problem: told.update(aside=str(path)))
        except hosts.UserError as error:
            told["unseen"] = str(error)
        if rank == 0:
            (folder / "checkpoints" / "latest" / "3" / "record" / "metadata").write_text("{")
        told["restored"] = np.asarray(checkpoints.restore(target)[0]["w"]).tolist()
        told["steps"] = checkpoints.steps()
    print(json.dumps(told), flush=True)
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What two processes that run the lines above have told, and the folder that they share."""
    folder = tmp_path_factory.mktemp("together")
    command = [sys.executable, "-c", textwrap.dedent(TOGETHER), f"localhost:{free_port()}"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), folder], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return [json.loads(lines.splitlines()[-1]) for lines, _ in outputs], folder


def test_each_process_reads_the_rows_of_its_own_devices(together):
    assert [told["rows"] for told in together[0]] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_each_process_knows_what_every_one_holds(together):
    assert [told["every"] for told in together[0]] == [[["", None], ["é" * 1500, None]]] * 2


def test_each_process_takes_the_noise_of_as_many_rollbacks_as_the_first_knows_of(together):
    assert [told["rollbacks"] for told in together[0]] == [[2, 40]] * 2


def test_a_run_folder_that_a_process_does_not_see_is_told(together):
    told, folder = together
    assert [one["shared"] for one in told] == [None, None]
    for rank, one in enumerate(told):
        own = folder / f"of {rank} alone"
        assert one["of"] == (
            f"process 1 does not see the run folder of process 0: --workdir={own} must be a folder that all hosts share"
        )


def test_a_checkpoint_that_a_process_does_not_see_is_no_damage(together):
    for one in together[0]:
        assert re.search("process 1 does not see .*latest/3, which process 0 sees", one["unseen"])
        assert "aside" not in one


def test_a_damaged_checkpoint_is_set_aside_by_one_process_and_passed_over_by_both(together):
    told, folder = together
    assert [(one["restored"], one["steps"]) for one in told] == [([2] * 8, [1, 2])] * 2
    assert [path.name for path in (folder / "checkpoints" / "quarantine").iterdir()] == ["latest-3"]


def supervised(tmp_path, work):
    """A supervisor whose child makes a file and then runs some lines."""
    code = f"""
        import os, signal, sys, time
        from genflow.supervisor import supervised

        def told(number, frame):
            print("passed on", number, file=sys.stderr, flush=True)

        def work(joined):
            signal.signal(signal.SIGTERM, told)
            open({str(tmp_path / "child")!r}, "w").close()
            {work}

        supervised(work, "apart", "lost")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    whole_lines = os.environ | {"PYTHONUNBUFFERED": ""}  # parent and child write into one pipe
    return subprocess.Popen(command, env=whole_lines, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def wait_for_child(tmp_path):
    """Returns once the child's work has begun."""
    deadline = time.monotonic() + 60
    while not (tmp_path / "child").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("work", "status", "message"),
    [
        ("sys.exit(3)", 3, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, ""),
        ("os.kill(os.getpid(), signal.SIGABRT)", 128 + signal.SIGABRT, "error: apart\n"),
        ("joined(); os.kill(os.getpid(), signal.SIGABRT)", 128 + signal.SIGABRT, "error: lost\n"),
        ("joined(); raise ValueError", 1, "error: lost\n"),
    ],
)
def test_a_supervisor_ends_as_its_child_and_speaks_for_one_that_was_aborted(tmp_path, work, status, message):
    process = supervised(tmp_path, work)
    errors = process.communicate(timeout=60)[1]
    assert errors.endswith(message)
    assert errors.count("error: ") == bool(message)
    assert process.returncode == status


def test_processes_that_do_not_come_together_are_told_where_and_what_to_look_at():
    told = apart("there:1234", 2, 1)
    assert re.search(f"process 1 did not join the others at there:1234, .* within {JOIN_SECONDS} s\ndo all 2 ", told)
    assert re.search("this process .* that --coordinator=auto finds, .*\ndo all processes", apart("auto", 1, 0))


def test_a_supervisor_passes_a_signal_on_once_and_then_ends_the_child(tmp_path):
    process = supervised(tmp_path, "time.sleep(60)")
    wait_for_child(tmp_path)
    process.send_signal(signal.SIGINT)
    lines = {process.stderr.readline() for _ in range(2)}  # of parent and child, in any order
    assert lines == {"stopping after this call; a second signal ends at once\n", f"passed on {int(signal.SIGTERM)}\n"}
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL


def test_a_child_does_not_outlive_its_supervisor(tmp_path):
    process = supervised(tmp_path, "time.sleep(600)")
    wait_for_child(tmp_path)
    process.kill()
    process.communicate(timeout=60)  # the child holds the other end of the pipe: this returns when both have ended
    assert process.returncode == -signal.SIGKILL
