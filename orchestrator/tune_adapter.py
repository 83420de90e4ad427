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
from orchestrator.retries import RETRIES
from orchestrator.store import RECORD
from orchestrator.train_group import StateKeeper
from orchestrator.trial import TrialPlan, fit_here, run_trial
from orchestrator.trial_queue import TrialQueue
from tasks.errors import ClusterError, DcdctlError
from tasks.workers import Workers, several_workers


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
        self.attack = None
        if shared["spread"]:
            from orchestrator.attack_tasks import attack_in_tasks

            count = len(self.world.attacked)
            self.attack = attack_in_tasks(
                shared["task"], shared["world"], ray.put(self.prior), count
            )
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial into the same process."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial on this node; its files are in the storage when this returns."""
        try:
            with stoppable(self.halt):
                return self.run()
        except TrialStopped:
            return {"done": True, "clean_accuracy": -1.0, "attack_accuracy": 2.0}

    def run(self) -> dict[str, Any]:
        """Run the trial, and return what Tune is told of it."""
        plan: TrialPlan = self.config["plan"]
        fit = fit_here
        keeper = StateKeeper(self.publisher, Path(self.config["out"]) / "training")
        if several_workers(self.workers):
            from orchestrator.distributed import fit_distributed

            fit = functools.partial(fit_distributed, keeper=keeper)
        with scratch() as folder:
            record = run_trial(
                plan,
                self.world,
                self.prior,
                self._panel,
                fit,
                folder,
                self.config["trial_id"],
                self.attack,
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
        "clean_accuracy": clean.overall.value if clean else -1.0,
        "attack_accuracy": worst.value if worst else 2.0,
    }


class QueueSearcher(Searcher):  # type: ignore[misc]
    """Hands out the trials of a queue in order."""

    def __init__(
        self,
        queue: TrialQueue,
        begun: Callable[[int, str], None],
        finished: Callable[[TrialRecord], None],
    ) -> None:
        super().__init__(metric="attack_accuracy", mode="min")
        self.queue = queue
        self.begun = begun
        self.finished = finished
        self.failures: list[str] = []
        self.given: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher; what is in here lives in this process and in the run store."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next trial's configuration, None to wait."""
        taken = self.queue.take()
        if taken is None:
            return None
        if taken == "empty":
            return str(Searcher.FINISHED)
        plan, identity, out = taken
        self.given[trial_id] = identity
        self.begun(plan.index, identity)
        return {"plan": plan, "trial_id": identity, "out": str(out)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Take the record of a trial that ended."""
        if error or not result or "record" not in result:
            self.queue.lose(self.given[trial_id])
            if error or not self.queue.schedule.over_budget:
                self.failures.append(trial_id)
            return
        record = TrialRecord.model_validate_json(result["record"])
        self.queue.put(record)
        self.finished(record)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the queue is rebuilt from the run store."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class BudgetWatch(tune.Callback):  # type: ignore[misc]
    """Stops what runs when the budget is passed by a whole lease."""

    def __init__(self, queue: TrialQueue, halt: Any) -> None:
        self.queue = queue
        self.halt = halt
        self.stopped = False

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its callbacks; nothing in here is needed afterwards."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the accounts; Tune calls this several times a second."""
        if not self.stopped and self.queue.schedule.must_stop(self.queue.clock()):
            self.stopped = True
            self.halt.stop.remote()


def tune_queue(
    shared: dict[str, Any],
    queue: TrialQueue,
    *,
    placed: Placement,
    workers: Workers,
    scratch: Path,
    begun: Callable[[int, str], None],
    finished: Callable[[TrialRecord], None],
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
        trainable: what a trial is; another one than `SweepTrial` only where the scheduling itself
            is measured.

    Raises:
        ClusterError: a trial's process died, more than once.
    """
    searcher = QueueSearcher(queue, begun, finished)
    halt = start_halt() if queue.schedule.budget.limited else None
    own = {"workers": workers, "spread": placed.spread, "task": options(placed.task), "halt": halt}
    resourced = tune.with_resources(
        tune.with_parameters(trainable, shared=shared | own),
        placed.trial,
    )
    tuner = tune.Tuner(
        resourced,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=len(queue.missing()),
            max_concurrent_trials=placed.slots,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="sweep",
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[] if halt is None else [BudgetWatch(queue, halt)],
        ),
    )
    results = tuner.fit()
    if searcher.failures or (queue.missing() and not queue.schedule.over_budget):
        error = next((e for e in results.errors), None)
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, DcdctlError):
            raise cause
        raise ClusterError(
            f"{len(queue.missing())} trials did not finish; the first error: "
            f"{str(cause).strip().splitlines()[-1] if cause else 'the process of a trial died'}; "
            "resume to run them again"
        )
