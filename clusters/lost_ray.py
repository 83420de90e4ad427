"""One sentence when Ray's own processes on this machine die under a command."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from tasks.errors import ClusterError

EVERY_S = 0.5


class Process(Protocol):
    """A child of this process."""

    def poll(self) -> int | None:
        """Return the exit status; None while it runs."""

    def kill(self) -> None:
        """End it."""


@contextmanager
def sentence_if_ray_dies() -> Iterator[None]:
    """End this process, with a sentence, as soon as Ray's node process or head has died.

    Ray itself ends a driver without its raylet, 14 to 100 seconds later and with nothing that a
    person can use; nothing can be run in the meantime, and no exception can be raised into a call
    that waits in Ray's own code. Files appear whole, so that no moment is a bad one for it.
    """
    processes = _processes()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            for name, process in processes.items():
                status = process.poll()
                if status is not None and not ended.is_set():
                    _end(said(name, status))

    thread = threading.Thread(target=watch, name="watch-ray", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def said(name: str, status: int) -> str:
    """Return the sentence for a process of Ray that ended with an exit status."""
    how = f"with exit status {status}"
    if status < 0:
        names = {int(one): one.name for one in signal.Signals}  # not all that there are have one
        how = f"by {names.get(-status, f'signal {-status}')}"
        if -status == signal.SIGKILL:
            how += " (as the system does when memory runs out)"
    return (
        f"Ray's own process on this machine ({name}) was ended {how}; what is finished is saved: "
        "run the same command again, a sweep with --resume"
    )


def _started() -> dict[str, list[Process]]:
    """Return what Ray started here, by kind; it has no public way to them."""
    from ray._private import worker

    node = worker._global_node
    if node is None:
        return {}
    return {kind: [one.process for one in some] for kind, some in node.all_processes.items()}


def _processes() -> dict[str, Process]:
    """Return those that a driver cannot be without, by the name that a person is told."""
    from ray._private import ray_constants

    names = {
        ray_constants.PROCESS_TYPE_RAYLET: "raylet",
        ray_constants.PROCESS_TYPE_GCS_SERVER: "GCS",
    }
    return {names[kind]: one for kind, some in _started().items() if kind in names for one in some}


def _end(sentence: str) -> None:
    """Say it and end now, with Ray's other processes."""
    for some in _started().values():
        for process in some:
            with suppress(OSError):
                process.kill()
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress display hides the cursor
    os.write(2, f"{shown}\nerror: {sentence}\n".encode())
    os._exit(ClusterError.exit_code)
