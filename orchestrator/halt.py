"""Stopping trials in the middle: when the budget is passed by a whole lease, nothing may go on.

A trial is one long call in another process. It waits for this signal on a thread of its own, which
then raises `TrialStopped` in the thread that computes.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LOOK_S = 1.0


class TrialStopped(BaseException):
    """The trial was told to stop; not an `Exception`, so that nobody takes it for a failure."""


class Halt:
    """The signal; lives in a Ray actor beside the driver."""

    def __init__(self) -> None:
        import asyncio

        self._raised = asyncio.Event()

    async def wait(self) -> None:
        """Return when trials have to stop."""
        await self._raised.wait()

    async def stop(self) -> None:
        """Stop all trials that listen."""
        self._raised.set()


def start_halt() -> Any:
    """Start the actor; it holds no core, and ends with the driver."""
    import ray

    return ray.remote(num_cpus=0, max_concurrency=10_000)(Halt).remote()


@contextmanager
def interrupted_by(listen: Callable[[threading.Event], bool]) -> Iterator[None]:
    """Raise `TrialStopped` in this thread when a listener says so.

    Args:
        listen: runs on a thread of its own, with an event that is set when what happens inside has
            ended; returns whether it has to stop before.

    Raises:
        TrialStopped: the listener said so.
    """
    computing, done, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def listener() -> None:
        if not listen(done):
            return
        with lock:
            if not done.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(computing), ctypes.py_object(TrialStopped)
                )

    threading.Thread(target=listener, daemon=True).start()
    try:
        yield
    finally:
        with lock:
            done.set()


@contextmanager
def stoppable(halt: Any) -> Iterator[None]:
    """Let the signal end what happens inside.

    Args:
        halt: what `start_halt` returned; None never stops.

    Raises:
        TrialStopped: the signal came.
    """
    if halt is None:
        yield
        return
    import ray

    def listen(done: threading.Event) -> bool:
        signal = halt.wait.remote()
        while not done.is_set():
            if ray.wait([signal], timeout=LOOK_S)[0]:
                return True
        return False

    with interrupted_by(listen):
        yield
