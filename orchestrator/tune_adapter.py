"""Ray Tune as the executor of a trial queue: one reused actor a slot, a trial in one step.

Tune decides where and when a trial runs, not which: the searcher hands out the queue in order, and
waits where the next setting depends on a trial that has not ended.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from orchestrator.attacking import Reconstructed, attack_here
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
from orchestrator.trial_lease import held
from orchestrator.trial_queue import TrialQueue
from orchestrator.tune_search import QueueSearcher, Watch
from tasks.errors import ClusterError
from tasks.workers import Workers, several_workers

if TYPE_CHECKING:
    from attacks.spec import AttackSpec
    from tasks.checkpoint import Checkpoint

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
        self.lends, self.task, self.meter = shared["lends"], shared["task"], shared["meter"]
        self.world_ref = shared["world"]
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
            with (
                stoppable(self.halt),
                held(self.publisher, self.config["trial_id"], self.config["lease"]),
            ):
                return self.run()
        except TrialStopped:
            return NO_SCORES
        except Exception as error:
            return NO_SCORES | {"broken": Broken.of(error).model_dump_json()}

    def run(self) -> dict[str, Any]:
        """Run the trial, and return what Tune is told of it."""
        plan: TrialPlan = self.config["plan"]
        fit = functools.partial(fit_here, public=self.world.public)
        keeper = StateKeeper(self.publisher, Path(self.config["out"]) / "training")
        if several_workers(self.workers):
            from orchestrator.distributed import fit_distributed

            fit = functools.partial(fit_distributed, keeper=keeper, public=self.world.public)
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
            lease = self.config["trial_id"], self.config["lease"]
            publish(self.publisher, Path(self.config["out"]), pack(folder), RECORD, lease)
        if several_workers(self.workers):
            keeper.forget()
        return told(record)

    def attack(
        self, checkpoint: Checkpoint, attacks: Sequence[AttackSpec]
    ) -> tuple[dict[str, Reconstructed], dict[str, float]]:
        """Attack in tasks where there is room for one now, as for the last trials, else here."""
        from orchestrator.attack_tasks import attack_in_tasks, is_room

        several = several_workers(self.workers)
        if several or (self.lends and is_room(self.task)):
            devices = self.task["num_gpus"] or self.task["num_cpus"]
            spread = attack_in_tasks(
                self.task,
                self.world_ref,
                self._prior_ref,
                len(self.world.attacked),
                TrialMeter(self.meter, self.config["trial_id"], devices),
                holds=not several,
            )
            return spread(checkpoint, attacks)
        return attack_here(checkpoint.classifier(), self.prior, self.world, attacks)

    @functools.cached_property
    def _prior_ref(self) -> Any:
        return ray.put(self.prior)

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


def _keep_secrets_here() -> None:
    """Have Tune leave the storage's keys out of the trials' runtime environment.

    Ray writes that into its logs, and onto command lines, which everybody on the machine may read.
    Trials need no key: the driver alone touches the storage, and here they inherit what is set.
    """
    from ray.tune.execution import class_cache

    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
        [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]
    )


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
    slots: Callable[[], int] | None = None,
    trainable: type[SweepTrial] = SweepTrial,
) -> None:
    """Run all missing trials of a queue, or as many as its budget allows.

    Args:
        shared: the experiment, references to world and judges, the prior, and the publisher.
        queue: the trials.
        placed: what each trial holds, and how many run at once to begin with.
        workers: training processes of a trial.
        scratch: Tune's own files; nothing in there is needed afterwards.
        begun: called in this process with the index and id of each trial that is handed out.
        finished: called in this process for each record.
        lost: called in this process for each trial that gave no record.
        retries: how often trials may be run again; None is what there is without settings.
        slots: returns how many trials may run at once now; None is always what `placed` says.
        trainable: what a trial is; another one than `SweepTrial` only where the scheduling itself
            is measured.

    Raises:
        StoreError: results cannot be written; nothing was tried again.
        ClusterError: a trial's process died more often than it is run again, or processes died more
            often than the whole sweep allows. All other trials have their record.
    """
    retries = retries or RetryBudget(queue.total)
    searcher = QueueSearcher(
        queue, retries, slots or (lambda: placed.slots), shared["publisher"], begun, finished, lost
    )
    halt = start_halt() if queue.schedule.budget.limited else None
    meter = start_meter() if several_workers(workers) or placed.lends else None
    queue.meter = None if meter is None else DriverMeter(meter)
    own = {"workers": workers, "task": options(placed.task), "halt": halt}
    own |= {"lends": placed.lends, "meter": meter}
    _keep_secrets_here()
    resourced = tune.with_resources(
        tune.with_parameters(trainable, shared=shared | own),
        placed.trial,
    )
    tuner = tune.Tuner(
        resourced,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,  # the searcher says when there is no more: some are run again
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
    try:
        tuner.fit()
    finally:
        queue.meter = None
        for actor in (halt, meter):  # Tune remembers what it was given until the driver ends
            if actor is not None:
                ray.kill(actor)
    if searcher.ending is not None:
        raise searcher.ending
    if queue.missing() and not queue.schedule.over_budget:
        given_up = searcher.given_up
        reason = given_up[-1].broken.sentence if given_up else "what they depend on did not finish"
        raise ClusterError(
            f"{len(queue.missing())} trials did not finish ({reason}); resume to run them again"
        )
