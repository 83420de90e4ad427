"""Ray Tune as the executor of a trial queue: one reused actor a slot, a trial in one step.

Tune decides where and when a trial runs, not which: the searcher hands out the queue in order, and
waits where the next setting depends on a trial that has not ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher

from orchestrator.bundle import pack, scratch
from orchestrator.halt import TrialStopped, start_halt, stoppable
from orchestrator.placement import Placement, options
from orchestrator.publisher import publish
from orchestrator.records import TrialRecord
from orchestrator.retries import Broken, Lost, RetryBudget
from orchestrator.store import RECORD
from orchestrator.task_meter import DriverMeter, TrialMeter, start_meter
from orchestrator.train_group import StateKeeper
from orchestrator.trial import TrialPlan, fit_here, run_trial
from orchestrator.trial_queue import TrialQueue
from tasks.errors import ClusterError
from tasks.workers import Workers, several_workers

PAUSE_S = 1.0
"""Before a lost trial is handed out again: what broke it may need a moment to be noticed."""

NO_SCORES: dict[str, Any] = {"done": True, "clean_accuracy": -1.0, "attack_accuracy": 2.0}
"""What Tune is told of a trial without a record."""


class SweepTrial(tune.Trainable):  # type: ignore[misc]  # ray ships no types
    """One trial as Tune sees it: a single step that ends it."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        """Fetch what all trials share: once an actor, not once a trial."""
        import torch

        torch.set_num_threads(1)
        self.world = ray.get(shared["world"])
        self.prior = shared["prior"]
        self.spec = shared["spec"]
        self.judges_ref = shared["judges"]
        self.publisher = shared["publisher"]
        self.workers = shared["workers"]
        self.halt = shared["halt"]
        self.spread = None
        if shared["meter"] is not None:
            from orchestrator.attack_tasks import attack_in_tasks

            self.spread = functools.partial(
                attack_in_tasks,
                shared["task"],
                shared["world"],
                ray.put(self.prior),
                len(self.world.attacked),
                holds=shared["holds"],
            )
            self.meter = shared["meter"]
            self.devices = shared["task"]["num_gpus"] or shared["task"]["num_cpus"]
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial into the same process."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial on this node; its files are in the storage when this returns.

        What breaks it is an answer too: Tune would try again whatever is raised, and the driver
        decides by the cause.
        """
        try:
            with stoppable(self.halt):
                return self.run()
        except TrialStopped:
            return NO_SCORES
        except Exception as error:
            return NO_SCORES | {"broken": Broken.of(error).model_dump_json()}

    def run(self) -> dict[str, Any]:
        """Run the trial, and return what Tune is told of it."""
        plan: TrialPlan = self.config["plan"]
        fit = fit_here
        keeper = StateKeeper(self.publisher, Path(self.config["out"]) / "training")
        if several_workers(self.workers):
            from orchestrator.distributed import fit_distributed

            fit = functools.partial(fit_distributed, keeper=keeper)
        attack = None
        if self.spread is not None:
            attack = self.spread(TrialMeter(self.meter, self.config["trial_id"], self.devices))
        with scratch() as folder:
            record = run_trial(
                plan,
                self.world,
                self.prior,
                self._panel,
                fit,
                folder,
                self.config["trial_id"],
                attack,
            )
            publish(self.publisher, Path(self.config["out"]), pack(folder), RECORD)
        if several_workers(self.workers):
            keeper.forget()
        return told(record)

    def _panel(self) -> Any:
        from orchestrator.judges import load_panel

        return load_panel(self.spec, ray.get(self.judges_ref))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing: a trial is one step, and its record is the checkpoint."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Restore nothing."""


def told(record: TrialRecord) -> dict[str, Any]:
    """Return what Tune is told of a trial that ended."""
    worst, clean = record.worst_attack, record.clean_accuracy
    return {
        "done": True,
        "record": record.model_dump_json(),
        "clean_accuracy": clean.overall.value if clean else NO_SCORES["clean_accuracy"],
        "attack_accuracy": worst.value if worst else NO_SCORES["attack_accuracy"],
    }


class QueueSearcher(Searcher):  # type: ignore[misc]
    """Hands out the trials of a queue in order, and decides what becomes of those that broke.

    Args:
        queue: the trials.
        retries: how often one may be run again.
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
        begun: Callable[[int, str], None],
        finished: Callable[[TrialRecord], None],
        lost: Callable[[Lost], None],
    ) -> None:
        super().__init__(metric="attack_accuracy", mode="min")
        self.queue = queue
        self.retries = retries
        self.begun = begun
        self.finished = finished
        self.lost = lost
        self.given: dict[str, tuple[int, str]] = {}
        self.given_up: list[Lost] = []
        self.ending: Exception | None = None
        self._pause_until = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; what is in here lives in this process and in the run store."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration, None to wait."""
        running = self.queue.schedule.running
        if self.ending is not None:
            # Once it said that there is no more, Tune never asks again.
            return None if running else str(Searcher.FINISHED)
        if self.queue.clock() < self._pause_until:
            return None
        taken = self.queue.take()
        if taken is None or (taken == "empty" and running):
            return None  # what runs may be lost, and has to be handed out again then
        if taken == "empty":
            return str(Searcher.FINISHED)
        plan, identity, out = taken
        self.given[trial_id] = plan.index, identity
        self.begun(plan.index, identity)
        return {"plan": plan, "trial_id": identity, "out": str(out)}

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

    def broke(self, trial_id: str, broken: Broken) -> None:
        """Take a trial that gave no record."""
        index, identity = self.given[trial_id]
        verdict = self.retries.lost(identity, broken.failure)
        try:
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

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Take a trial whose process died."""
        try:
            error = trial.get_pickled_error()
        except Exception:
            error = None  # it was raised by what is not installed here
        text = (trial.get_error() or "its process died").strip().splitlines()[-1]
        self.searcher.broke(trial.trial_id, Broken.of(error or ClusterError(text)))


def tune_queue(
    shared: dict[str, Any],
    queue: TrialQueue,
    *,
    placed: Placement,
    workers: Workers,
    scratch: Path,
    begun: Callable[[int, str], None],
    finished: Callable[[TrialRecord], None],
    lost: Callable[[Lost], None] = lambda lost: None,
    retries: RetryBudget | None = None,
    trainable: type[SweepTrial] = SweepTrial,
) -> None:
    """Run all missing trials of a queue, or as many as its budget allows.

    Args:
        shared: the experiment, references to world and judges, the prior, and the publisher.
        queue: the trials.
        placed: how many at once, and what each holds.
        workers: training processes of a trial.
        scratch: Tune's own files; nothing in there is needed afterwards.
        begun: called in this process with the index and id of each trial that is handed out.
        finished: called in this process for each record.
        lost: called in this process for each trial that gave no record.
        retries: how often trials may be run again; None is what there is without settings.
        trainable: what a trial is; another one than `SweepTrial` only where the scheduling itself
            is measured.

    Raises:
        StoreError: results cannot be written; nothing was tried again.
        ClusterError: a trial's process died more often than it is run again, or processes died more
            often than the whole sweep allows. All other trials have their record.
    """
    retries = retries or RetryBudget(queue.total)
    searcher = QueueSearcher(queue, retries, begun, finished, lost)
    halt = start_halt() if queue.schedule.budget.limited else None
    meter = start_meter() if placed.spread else None
    queue.meter = None if meter is None else DriverMeter(meter)
    holds = bool(placed.trial.get("CPU"))
    own = {"workers": workers, "task": options(placed.task), "halt": halt}
    own |= {"meter": meter, "holds": holds}
    resourced = tune.with_resources(
        tune.with_parameters(trainable, shared=shared | own),
        placed.trial,
    )
    tuner = tune.Tuner(
        resourced,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # the searcher says when there is no more: some are run again
            max_concurrent_trials=placed.slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
            callbacks=[Watch(searcher, halt)],
        ),
    )
    tuner.fit()
    if searcher.ending is not None:
        raise searcher.ending
    if queue.missing() and not queue.schedule.over_budget:
        given_up = searcher.given_up
        reason = given_up[-1].broken.sentence if given_up else "what they depend on did not finish"
        raise ClusterError(
            f"{len(queue.missing())} trials did not finish ({reason}); resume to run them again"
        )
