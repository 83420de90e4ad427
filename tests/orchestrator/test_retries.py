"""What is run again, what is a failed record, and what ends a sweep."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time

import pytest
from PIL import UnidentifiedImageError
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from orchestrator.retries import Broken, RetryBudget, classify, sentence
from tasks.errors import (
    ClusterError,
    DiskFullError,
    NonFiniteLossError,
    StoreError,
    TargetClassError,
    TrainingError,
)


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
        (UnidentifiedImageError("not a picture"), "data"),
        (ClusterError("a worker died"), "machines"),
        (ConnectionResetError("gone"), "machines"),
        (TimeoutError("slow"), "machines"),
        (ActorDiedError(), "machines"),
        (RayActorError(preempted=True), "preempted"),
        (TargetClassError("two images"), "data"),
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


def test_what_is_run_again_is_counted_for_each_trial_and_for_all() -> None:
    budget = RetryBudget(100, each=2)
    assert budget.in_all == 25
    assert RetryBudget(3).in_all == 10
    assert [budget.lost("a", "machines") for _ in range(3)] == ["again", "again", "give up"]
    assert [budget.lost("a", "preempted") for _ in range(50)] == ["again"] * 50
    assert (budget.spent, budget.free) == (2, 50)
    assert [budget.lost(str(i), "machines") for i in range(23)] == ["again"] * 23
    assert budget.lost("b", "machines") == "end"
    assert budget.lost("c", "trial") == budget.lost("d", "data") == "give up"
    assert budget.lost("e", "storage") == "end"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (DiskFullError("no space"), DiskFullError, "^no space$"),
        (OSError(errno.ENOSPC, "full"), DiskFullError, "full"),
        (PermissionError(errno.EACCES, "not yours"), StoreError, "not yours"),
        (RayTaskError("f", "trace", DiskFullError("x")), DiskFullError, "^x$"),
        (ZeroDivisionError("bug"), ClusterError, "unexpected ZeroDivisionError: bug"),
        (ActorDiedError(), ClusterError, "^its process died$"),
    ],
    ids=lambda value: getattr(value, "__name__", str(type(value).__name__)),
)
def test_the_driver_gets_the_error_of_another_process(
    error: BaseException, kind: type[Exception], words: str
) -> None:
    told = Broken.model_validate_json(Broken.of(error).model_dump_json())
    with pytest.raises(kind, match=words) as raised:
        raise told.error()
    assert type(raised.value) is kind


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
