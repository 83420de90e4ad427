"""A tracker at work beside a sweep: on a thread of its own, which the sweep never waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.tracking import Tracker, without_password

log = logging.getLogger(__name__)

WHOLE_EVERY_S = 10.0
"""What is said of the whole sweep looks at all trials: with thousands of them, not at each."""

AGAIN_S = (5.0, 120.0)
"""After a failure the next try comes after the first, then twice as long, up to the second."""


class BackgroundTracker:
    """Keeps a tracker up to date from a thread of its own.

    It holds all records that it was given, so that a sweep hands over only those that are new, and
    an outage is made good by whichever try comes through.

    Args:
        tracker: shows the run.
        run_dir: the run's folder.
        spec: the experiment.
    """

    def __init__(self, tracker: Tracker, run_dir: Path, spec: ExperimentSpec) -> None:
        self._tracker = tracker
        self._run_dir = run_dir
        self._spec = spec
        self._changed = threading.Condition()
        self._records: dict[str, TrialRecord] = {}
        self._given = 0  # counts calls of submit
        self._shown = 0  # the call up to which all is shown
        self._closing = False
        self._warned = False
        self._wait = AGAIN_S[0]
        # A daemon, so that a server that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def submit(self, records: Sequence[TrialRecord]) -> None:
        """Have these records shown soon, beside those of before; never waits and never raises."""
        with self._changed:
            self._records |= {record.trial_id: record for record in records}
            self._given += 1
            self._changed.notify()

    @property
    def page(self) -> str:
        """Where MLflow's pages show the runs, from `#` on."""
        return self._tracker.page

    def close(self, deadline_s: float) -> bool:
        """Wait until all records are shown, at the most until the deadline.

        Args:
            deadline_s: seconds.

        Returns:
            Whether the view is complete. If not, a warning was logged, and the next sync of this
            run makes it so.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(deadline_s)
        if self._thread.is_alive():
            self._warn(f"still not done after {deadline_s:g} s")
        return self._shown == self._given

    def _work(self) -> None:
        """Show what is new: trials at once, the sweep's own numbers now and then and at the end."""
        trials, whole_at, failed = 0, 0.0, False
        while True:
            with self._changed:
                pause = self._pause(trials, whole_at, failed)
                self._changed.wait_for(partial(self._has_work, trials), pause)
                records, given, closing = list(self._records.values()), self._given, self._closing
            if closing and self._shown == given:
                return
            now = time.monotonic()
            whole = closing or now >= whole_at
            if not whole and not failed and trials == given:
                continue
            try:
                self._tracker.sync(self._run_dir, self._spec, records, whole=whole)
            except Exception as error:  # whatever MLflow raises, the sweep is not its business
                self._warn(str(error).partition("\n")[0] or type(error).__name__)
                failed, trials = True, given
                if closing:
                    return
                continue
            failed, trials, self._wait = False, given, AGAIN_S[0]
            if whole:
                whole_at = time.monotonic() + WHOLE_EVERY_S
                with self._changed:
                    self._shown = given

    def _has_work(self, trials: int) -> bool:
        return self._closing or self._given > trials

    def _pause(self, trials: int, whole_at: float, failed: bool) -> float | None:
        """Return how long to wait for something new; None where nothing is left to show."""
        if failed:
            pause, self._wait = self._wait, min(2 * self._wait, AGAIN_S[1])
            return pause
        if self._shown == trials:
            return None
        return max(0.0, whole_at - time.monotonic())

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "MLflow does not show all of this run (%s); nothing is lost: "
                "`dcdctl track %s --replay` shows the rest",
                without_password(reason)[:300],
                self._run_dir,
            )
