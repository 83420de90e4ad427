"""Ray's own command line, with a deadline, and the line of its output that says most."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress

from tasks.errors import ClusterError


def run_ray(*words: str, deadline_s: float) -> subprocess.CompletedProcess[str]:
    """Run Ray's own command; its output is for `reason`. Nothing of it runs on afterwards.

    Raises:
        ClusterError: it was not done in time.
        KeyboardInterrupt: Ctrl-C; the command was ended.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", *words]
    env = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,  # so that it ends with its ssh and rsync, and they with it
    )
    said = ""
    try:
        said, _ = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        _end(process)
        said = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        raise ClusterError(
            f"`{shlex.join(['ray', *words])}` was not done in {deadline_s:.0f} s; it last said: "
            f"{reason(said)}"
        ) from error
    except BaseException:
        _end(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, said)


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def reason(output: str) -> str:
    """Return the line of an output that says most: the last error, else the last line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
    plain = re.sub(r"(?m)^\d{4}-\S+ \S+\s+[A-Z]+ \w+\.py:\d+ -- ", "", plain)
    lines = [line.strip() for line in plain.splitlines() if line.strip(" !\t")]
    # What Ray ran is no answer, though its options speak of failure.
    lines = [line for line in lines if not line.startswith("Full command is")]
    errors = [line for line in lines if re.search(r"error|denied|refused|fail", line, re.I)]
    return (errors or lines or ["it said nothing"])[-1][:300]
