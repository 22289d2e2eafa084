"""Shows that a killed run loses nothing: kills a run at random moments, resumes it, compares every leaf's digest.

    python scripts/kill_and_resume.py --config=configs/glow_digits.py --kills=3 --json=results/kill_and_resume.json

Runs `main.py` once without interruption and once with `--kills` SIGKILLs, in two fresh folders, and exits with 1 unless
the two final states (parameters, optimizer, average, counters) are the same bits.
"""

import argparse
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from genflow import provenance

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    """Runs both and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/glow_digits.py")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which the run is killed")
    parser.add_argument("--json", type=pathlib.Path, help="write the outcome there")
    arguments, overrides = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = compare(arguments, overrides, pathlib.Path(folder))
    print(json.dumps(outcome, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(outcome, indent=2) + "\n")
    sys.exit(0 if outcome["equal"] else 1)


def compare(arguments, overrides, folder):
    """The outcome: where the run was killed, and whether the final states are equal."""
    whole, killed = folder / "whole", folder / "killed"
    finish(launch(arguments, overrides, whole))
    rng = random.Random(arguments.seed)
    kills = [kill(launch(arguments, overrides, killed), killed, rng) for _ in range(arguments.kills)]
    finish(launch(arguments, overrides, killed))
    one, two = (final_digests(path) for path in (whole, killed))
    return {
        "command": " ".join(["python", "scripts/kill_and_resume.py", *sys.argv[1:]]),
        "kills": kills,
        "equal": one == two,
        "leaves": len(one),
        "params_sha256": [json.loads((path / "record.json").read_text())["params_sha256"] for path in (whole, killed)],
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }


def launch(arguments, overrides, workdir):
    """`python main.py` in a process of its own."""
    flags = [f"--config={arguments.config}", f"--workdir={workdir}", *overrides]
    command = [sys.executable, str(ROOT / "main.py"), *flags]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill(process, workdir, rng):
    """Kills a process a random moment after it has saved something new; says what was saved by then."""
    before = saved(workdir)
    while saved(workdir) == before and process.poll() is None:
        time.sleep(0.01)
    wait = round(rng.uniform(0.0, 1.0), 3)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    steps = saved(workdir)
    return {
        "seconds_after_a_save": wait,
        "status": process.returncode,
        "newest_checkpoint": steps[-1] if steps else None,
    }


def saved(workdir):
    """The steps of the committed checkpoints."""
    return sorted(int(p.name) for p in (workdir / "checkpoints" / "latest").glob("*") if p.name.isdigit())


def finish(process):
    """Waits for a run that must succeed."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"main.py ended with status {process.returncode}:\n{errors}")


def final_digests(workdir):
    """{leaf: dtype, shape and sha256} of the newest checkpoint, as its record has them."""
    newest = max((workdir / "checkpoints" / "latest").glob("[0-9]*"), key=lambda path: int(path.name))
    return json.loads((newest / "record" / "metadata").read_text())["record"]["leaves"]


if __name__ == "__main__":
    main()
