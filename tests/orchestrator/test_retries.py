"""What is run again, what is a failed record, and what ends a sweep."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time

import pytest
from PIL import UnidentifiedImageError
from ray.exceptions import ActorDiedError, RayTaskError

from orchestrator.retries import classify, sentence
from tasks.errors import ClusterError, DiskFullError, NonFiniteLossError, TrainingError


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (TrainingError("the loss is nan"), "trial"),
        (NonFiniteLossError("nan"), "trial"),
        (ZeroDivisionError("a bug"), "trial"),
        (FileNotFoundError("a setting names no file"), "trial"),
        (DiskFullError("full"), "storage"),
        (OSError(errno.ENOSPC, "full"), "storage"),
        (PermissionError(errno.EACCES, "not yours"), "storage"),
        (UnidentifiedImageError("not a picture"), "trial"),
        (ClusterError("a worker died"), "machines"),
        (ConnectionResetError("gone"), "machines"),
        (TimeoutError("slow"), "machines"),
        (ActorDiedError(), "machines"),
        (RayTaskError("f", "trace", ZeroDivisionError("x")), "trial"),
        (RayTaskError("f", "trace", DiskFullError("x")), "storage"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whose_fault_it_is(error: BaseException, failure: str) -> None:
    assert classify(error) == failure


def test_a_bug_has_its_name_in_the_record() -> None:
    assert sentence(ZeroDivisionError("a bug\nmore")) == "unexpected ZeroDivisionError: a bug"
    assert sentence(TrainingError("the loss is nan")) == "the loss is nan"


SLOW_TO_END = """
import time, typer
from orchestrator.failure import Command
app = typer.Typer()

@app.command(cls=Command)
def sweep() -> None:
    try:
        print("begun", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(SECONDS)

app()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=str)
@pytest.mark.parametrize("times", [1, 2])
def test_one_signal_ends_in_order_and_two_at_once(how: signal.Signals, times: int) -> None:
    code = SLOW_TO_END.replace("SECONDS", "0" if times == 1 else "60")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(how)
    assert process.stdout.readline() == "ending\n"
    started = time.monotonic()
    if times == 2:
        process.send_signal(how)
    _, said = process.communicate(timeout=50)
    assert process.returncode == 130
    assert ("ended at once" if times == 2 else "interrupted") in said
    assert time.monotonic() - started < 50
