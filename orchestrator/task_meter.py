"""What tasks beside a trial have taken so far: attacks that run apart from their trial.

A record adds up its tasks when its trial ends. Until then, and of tasks that were lost and run
again by Ray, only this meter knows: an actor beside the driver that is told of begins and ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class TaskMeter:
    """Device-seconds of tasks, by trial.

    Args:
        clock: seconds; only differences count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._open: dict[str, dict[str, tuple[float, float]]] = {}
        self._ended: dict[str, float] = {}

    def began(self, trial: str, task: str, devices: float) -> None:
        """Take note of a task; one that began before was lost, and took the time until now."""
        self.ended(trial, task)
        self._open.setdefault(trial, {})[task] = (devices, self.clock())

    def ended(self, trial: str, task: str) -> None:
        """Take note of its end."""
        found = self._open.get(trial, {}).pop(task, None)
        if found is not None:
            devices, since = found
            took = devices * max(0.0, self.clock() - since)
            self._ended[trial] = self._ended.get(trial, 0.0) + took

    def spent(self) -> dict[str, float]:
        """Return device-seconds of every trial, of tasks under way until now."""
        now, found = self.clock(), dict(self._ended)
        for trial, tasks in self._open.items():
            running = sum(devices * max(0.0, now - since) for devices, since in tasks.values())
            found[trial] = found.get(trial, 0.0) + running
        return found

    def forget(self, trial: str) -> None:
        """Forget a trial that is accounted for; what it left open has ended with it."""
        self._open.pop(trial, None)
        self._ended.pop(trial, None)


@dataclass(frozen=True)
class TrialMeter:
    """The meter, as the tasks of one trial use it."""

    actor: Any
    trial: str
    devices: float

    @contextmanager
    def metered(self, task: str) -> Iterator[None]:
        """Count what happens inside.

        Args:
            task: its name; another attempt has the same.
        """
        import ray

        ray.get(self.actor.began.remote(self.trial, task, self.devices))
        try:
            yield
        finally:
            ray.get(self.actor.ended.remote(self.trial, task))


@dataclass(frozen=True)
class DriverMeter:
    """The meter, as the driver reads it."""

    actor: Any

    def spent(self) -> dict[str, float]:
        """Return device-seconds by trial."""
        import ray

        found: dict[str, float] = ray.get(self.actor.spent.remote())
        return found

    def forget(self, trial: str) -> None:
        """Forget a trial that is accounted for."""
        self.actor.forget.remote(trial)


def start_meter() -> Any:
    """Start the actor on this node; it holds no core, and ends with the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(TaskMeter).remote()
