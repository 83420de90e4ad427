"""How many trials run at once, and what each asks Ray for: computed from the cluster.

A trial with several training processes holds no core beside them: one that did would wait for its
own processes for ever where they need every core there is.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clusters.embedded import IN_A_JOB
from tasks.errors import ClusterError
from tasks.workers import Workers, several_workers

GROWTH_S = 300.0
"""How long a cluster that grows is given for what one trial needs."""


@dataclass(frozen=True)
class Capacity:
    """What a cluster has.

    Attributes:
        cpus: cores.
        gpus: devices.
    """

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Placement:
    """What runs at once.

    Attributes:
        slots: trials at once.
        trial: what a trial holds while it lasts, as Ray counts it.
        task: what a judge, or an attack apart from its trial, holds.
        judges_first: the judges have to end before a trial starts: both do not fit, or trials that
            wait for them could hold every GPU that a judge needs when it has to be made again.
        spread: a trial's attacks run as tasks of their own, as far as one can tell beforehand: it
            holds no core for them, or there are more cores or GPUs than trials.
        lends: they do where a core or GPU is idle when the trial comes to them: nobody limits it.
    """

    slots: int
    trial: dict[str, float]
    task: dict[str, float]
    judges_first: bool
    spread: bool
    lends: bool = True


def place(
    capacity: Capacity,
    *,
    workers: Workers,
    trials: int,
    limit: int | None = None,
    gpus_per_trial: float = 1.0,
    grows: bool = False,
    setting: str = "training.workers",
) -> Placement:
    """Return how trials share a cluster.

    Args:
        capacity: of the cluster.
        workers: training processes of a trial; each holds a core and, where there are any, a GPU.
            Of a range as many as the cluster has.
        trials: that are still to run, or that may run at once, at least 1.
        limit: slots that a person allows; None fills the cluster.
        gpus_per_trial: of a trial with one process: 0.5 lets two share a GPU.
        grows: the cluster adds nodes for what waits; with a limit, that many trials run at once.
        setting: that says how many processes, for errors.

    Raises:
        ClusterError: one trial asks for more than the whole cluster has.
    """
    whole = gpus_per_trial if gpus_per_trial <= 1 else float(math.ceil(gpus_per_trial))
    share = whole if capacity.gpus else 0.0
    several = several_workers(workers)
    processes = _processes(capacity, workers)
    cpus, gpus = float(processes), (processes if several else share) if capacity.gpus else 0.0
    for wanted, there, what in (
        (cpus, capacity.cpus, "cores"),
        (gpus, capacity.gpus, "GPUs"),
    ):
        if wanted > there and not several:
            raise ClusterError(
                f"compute.gpus_per_trial={gpus_per_trial:g} is more than the cluster's {there:g} "
                f"{what}; set it to at most {there:g}"
            )
        if wanted > there:
            raise ClusterError(
                f"{setting}={processes} needs {wanted:g} {what} at once, and the cluster has "
                f"{there:g}; set {setting} to at most {math.floor(there)}, or use a larger cluster"
            )
    room = math.floor(capacity.cpus / cpus)
    if gpus:
        # Ray gives a part of one device, never parts of two, or whole devices.
        each = math.floor(1 / gpus + 1e-9) * math.floor(capacity.gpus)
        room = min(room, each if gpus <= 1 else math.floor(capacity.gpus / gpus))
    task = {"CPU": 1.0} | ({"GPU": share} if share else {})
    # One byte of memory: Tune places no trial that asks for nothing at all.
    trial = {"CPU": 0.0, "memory": 1.0} if several else dict(task)
    # A cluster that grows does so for what is asked of it: more than fits into it now.
    room = limit if grows and limit else min(room, limit or room)
    slots = max(1, min(room, trials))
    return Placement(
        slots=slots,
        trial=trial,
        task=task,
        judges_first=capacity.cpus < cpus + 1 or bool(gpus),
        spread=several or slots < room and not limit,
        lends=not several and not limit,
    )


LOOK_S = 5.0
"""How often the cluster is counted again."""


class Slots:
    """How many trials run at once, counted again while nodes come and go.

    Args:
        first: as a sweep begins.
        again: counts the cluster, and places anew.
        changed: called with the new number, when there is one.
        clock: seconds; only differences count.
    """

    def __init__(
        self,
        first: Placement,
        again: Callable[[], Placement],
        changed: Callable[[int], None] = lambda slots: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.now = first.slots
        self._again = again
        self._changed = changed
        self._clock = clock
        self._looked = clock()

    def __call__(self) -> int:
        """Return how many trials may run now; at least 1, for nodes may come back."""
        if self._clock() - self._looked >= LOOK_S:
            self._looked = self._clock()
            try:
                found = self._again().slots
            except ClusterError:
                found = 1  # too small for a single trial at the moment
            if found != self.now:
                self.now = found
                self._changed(found)
        return self.now


def _processes(capacity: Capacity, workers: Workers) -> int:
    """Return how many processes train on a cluster: as many of a range as it has room for."""
    if isinstance(workers, int):
        return workers
    room = min(capacity.cpus, capacity.gpus) if capacity.gpus else capacity.cpus
    return max(workers.least, min(workers.most, math.floor(room)))


def check_capacity(workers: Workers, setting: str = "training.workers") -> None:
    """Refuse more processes than the running cluster has room for; Ray would wait for ever.

    Raises:
        ClusterError: it is too small.
    """
    if several_workers(workers):
        place(capacity_now(), workers=workers, trials=1, setting=setting)


def capacity_now() -> Capacity:
    """Return what the running cluster has."""
    import ray

    total = ray.cluster_resources()
    return Capacity(total.get("CPU", 1.0), total.get("GPU", 0.0))


def like(first: Capacity, now: Capacity) -> Capacity:
    """Return what counts of a cluster that has changed: what a trial holds stays as it began."""
    return now if first.gpus else Capacity(now.cpus)


def enough_capacity(workers: Workers, say: Callable[[str], None]) -> Capacity:
    """Return what the cluster has; in a job, once it has enough for one trial.

    A cluster that grows begins with its head alone. After GROWTH_S it is taken as it is.

    Args:
        workers: training processes of a trial.
        say: called once with what is being waited for.
    """
    end, told = time.monotonic() + GROWTH_S, False
    while True:
        found = capacity_now()
        try:
            place(found, workers=workers, trials=1)
            return found
        except ClusterError:
            if not os.environ.get(IN_A_JOB) or time.monotonic() > end:
                return found  # whoever places says what is missing
            if not told:
                told = True
                say(f"  waiting at most {GROWTH_S:.0f} s for more nodes")
            time.sleep(1)


def options(resources: dict[str, float]) -> dict[str, Any]:
    """Return resources as the options of a Ray task."""
    return {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}


def task_options(gpus_per_trial: float) -> dict[str, Any]:
    """Return what a task apart from a trial holds on the running cluster, as Ray takes it."""
    placed = place(capacity_now(), workers=1, trials=1, gpus_per_trial=gpus_per_trial)
    return options(placed.task)
