"""What Ray Tune asks and is told: which trial comes next, and what becomes of one that broke."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.records import TrialRecord
from orchestrator.retries import Broken, Lost, RetryBudget
from orchestrator.trial_lease import BEATS, signs_of
from orchestrator.trial_queue import TrialQueue
from tasks.errors import ClusterError

PAUSE_S = 1.0
"""Before a lost trial is handed out again: what broke it may need a moment to be noticed."""


class QueueSearcher(Searcher):  # type: ignore[misc]
    """Hands out the trials of a queue in order, and decides what becomes of those that broke.

    Args:
        queue: the trials.
        retries: how often one may be run again.
        slots: returns how many may run now.
        publisher: has the leases of the trials.
        begun: called with the index and id of each trial that is handed out.
        finished: called for each record.
        lost: called for each trial that gave no record.

    Attributes:
        given_up: trials that are not run again in this sitting, the last one last.
        ending: why none is handed out any more.
    """

    def __init__(
        self,
        queue: TrialQueue,
        retries: RetryBudget,
        slots: Callable[[], int],
        publisher: Any,
        begun: Callable[[int, str], None],
        finished: Callable[[TrialRecord], None],
        lost: Callable[[Lost], None],
    ) -> None:
        super().__init__(metric="attack_accuracy", mode="min")
        self.queue = queue
        self.retries = retries
        self.slots = slots
        self.publisher = publisher
        self.begun = begun
        self.finished = finished
        self.lost = lost
        self.given: dict[str, tuple[int, str]] = {}
        self.given_up: list[Lost] = []
        self.ending: Exception | None = None
        self._pause_until = 0.0
        self._unreached: list[tuple[float, str, Broken]] = []
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; what is in here lives in this process and in the run store."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration, None to wait."""
        self._settle()
        running = self.queue.schedule.running
        if self.ending is not None:
            # Once it said that there is no more, Tune never asks again.
            return None if running else str(Searcher.FINISHED)
        if self.queue.clock() < self._pause_until or running >= self.slots():
            return None
        taken = self.queue.take()
        if taken is None or (taken == "empty" and running):
            return None  # what runs may be lost, and has to be handed out again then
        if taken == "empty":
            return str(Searcher.FINISHED)
        plan, identity, out = taken
        self.given[trial_id] = plan.index, identity
        self.begun(plan.index, identity)
        lease = f"{identity}-{len(self.given)}"
        return {"plan": plan, "trial_id": identity, "out": str(out), "lease": lease}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the record of a trial that ended."""
        if error:
            return  # `Watch.on_trial_error` comes next and knows what it was
        if result and "record" in result:
            record = TrialRecord.model_validate_json(result["record"])
            try:
                self.queue.put(record)
                self.finished(record)
            except Exception as cause:
                # Out of here Tune would take it for the trial's, and run the trial again.
                self.ending = self.ending or cause
        elif result and "broken" in result:
            self.broke(trial_id, Broken.model_validate_json(result["broken"]))
        elif self.queue.schedule.over_budget:
            self.queue.lose(self.given[trial_id][1])
        else:
            nothing = Broken(failure="trial", kind="", sentence="it ended without a record")
            self.broke(trial_id, nothing)

    def unreached(self, trial_id: str, broken: Broken) -> None:
        """Take a trial whose call Ray gave up; what is to become of it is seen later."""
        self._unreached.append((self.queue.clock(), trial_id, broken))
        self._looked = 0.0
        self._settle()

    def _settle(self) -> None:
        """Look what became of trials that were not reached any more, once a second."""
        now = self.queue.clock()
        if not self._unreached or now - self._looked < 1.0:
            return
        self._looked = now
        waiting, self._unreached = self._unreached, []
        try:
            for since, trial_id, broken in waiting:
                _, identity = self.given[trial_id]
                record = self.queue.published(identity)
                if record is not None:  # its last act, and only the answer was lost
                    self.on_trial_complete(trial_id, {"record": record.model_dump_json()})
                    continue
                signs = signs_of(self.publisher, identity, died=broken.died, waited_s=now - since)
                if signs.gone:
                    self.broke(trial_id, broken)
                else:
                    self._unreached.append((since, trial_id, broken))
        except Exception as cause:  # the publisher is gone, and with it the way to any record
            self.ending = self.ending or cause
            for _, trial_id, _ in waiting:
                with suppress(KeyError):
                    self.queue.lose(self.given[trial_id][1])

    def broke(self, trial_id: str, broken: Broken) -> None:
        """Take a trial that gave no record."""
        index, identity = self.given[trial_id]
        verdict = self.retries.lost(identity, broken.failure)
        try:
            ray.get(self.publisher.revoke.options(concurrency_group=BEATS).remote(identity))
            self.queue.lose(identity, again=verdict == "again")
            lost = Lost(identity, index, broken, verdict)
            if verdict == "again":
                self._pause_until = self.queue.clock() + PAUSE_S
            else:
                self.given_up.append(lost)
            if verdict == "end" and self.ending is None:
                self.ending = (
                    broken.error()
                    if broken.failure == "storage"
                    else ClusterError(f"{self.retries.said} ({broken.sentence})")
                )
            self.lost(lost)
        except Exception as cause:
            self.ending = self.ending or cause

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the queue is rebuilt from the run store."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class Watch(tune.Callback):  # type: ignore[misc]
    """Sees what Tune tells no searcher: what killed a process, and that time passes."""

    def __init__(self, searcher: QueueSearcher, halt: Any) -> None:
        self.searcher = searcher
        self.halt = halt
        self.stopped = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; nothing in here is needed afterwards."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Stop what runs when the budget is passed by a whole lease."""
        queue = self.searcher.queue
        queue.look()
        if self.halt is not None and not self.stopped and queue.schedule.must_stop(queue.clock()):
            self.stopped = True
            self.halt.stop.remote()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep Tune from running a trial of a preempted node again by itself.

        It counts no failure there, so that none is above the limit of 0, and nobody would be told:
        the lost attempt would be in no account, and the next one would have the same lease.
        """
        trial.run_metadata.num_failures = 1

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take a trial whose process died."""
        error = _error_of(trial) or ClusterError("its process died, and Ray does not say why")
        self.searcher.unreached(trial.trial_id, Broken.of(error))


def _error_of(trial: Any) -> BaseException | None:
    """Return what Tune noted of a trial's end.

    Its own `get_pickled_error` looks into the experiment's folder, into which the note comes later.
    """
    try:
        with open(trial.pickled_error_file, "rb") as file:
            found: BaseException = ray.cloudpickle.load(file)  # this process wrote it
            return found
    except Exception:
        return None  # it was raised by what is not installed here, or Tune noted nothing
