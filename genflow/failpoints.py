"""Faults on demand, so that tests can prove what the code promises; without GENFLOW_FAILPOINT nothing happens.

`GENFLOW_FAILPOINT='name@step:action'` fires where the code says `failpoint(name, step)`; without `@step` it fires
at every step. Actions: kill9 (SIGKILL to this process), term (SIGTERM), raise (RuntimeError), enospc (OSError: no
space left).
"""

import errno
import os
import re
import signal

VARIABLE = "GENFLOW_FAILPOINT"


def failpoint(name: str, step: int | None = None) -> None:
    """Acts if the environment asks for a fault here."""
    text = os.environ.get(VARIABLE)
    if not text:
        return
    wanted_name, wanted_step, action = _parse(text)
    if name == wanted_name and wanted_step in (None, step):
        _act(action, f"failpoint {name}" if step is None else f"failpoint {name} at step {step}")


def _parse(text: str) -> tuple[str, int | None, str]:
    match = re.fullmatch(r"([^@:]+)(?:@(\d+))?:(kill9|term|raise|enospc)", text)
    if match is None:
        raise ValueError(
            f"{VARIABLE}={text!r}: write NAME@STEP:ACTION or NAME:ACTION, one of kill9, term, raise, enospc"
        )
    name, step, action = match.groups()
    return name, None if step is None else int(step), action


def _act(action: str, where: str) -> None:
    if action == "kill9":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if action == "raise":
        raise RuntimeError(where)
    if action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), where)
