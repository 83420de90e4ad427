"""The one process that writes results: beside the driver, where the storage is.

Trials and judges run on any node of a cluster and hand their files over through Ray's object store;
a trial counts as done when this has acknowledged it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.bundle import Bundle, unpack
from orchestrator.train_states import (
    forget_states,
    keep_state,
    newest_state,
    note_rows,
    noted_rows,
)


class Publisher:
    """Writes bundles into the storage; lives in a Ray actor on the driver's node."""

    def publish(self, folder: Path, bundle: Bundle, last: str) -> None:
        """Write a bundle's files, `last` as the last of them.

        Raises:
            DiskFullError: no space is left.
            StoreError: the folder cannot be written.
        """
        unpack(bundle, folder, last)

    def keep_state(self, folder: Path, step: int, state: Bundle) -> None:
        """Write a checkpoint of a training; see `train_states`."""
        keep_state(folder, step, state)

    def newest_state(self, folder: Path) -> tuple[int, Bundle] | None:
        """Return the newest whole checkpoint of a training with its step."""
        return newest_state(folder)

    def note_rows(self, folder: Path, rows: int) -> None:
        """Keep how many rows of a training's batch fit into memory."""
        note_rows(folder, rows)

    def noted_rows(self, folder: Path) -> int | None:
        """Return how many rows of a training's batch fit; None where all did so far."""
        return noted_rows(folder)

    def forget_states(self, folder: Path) -> None:
        """Remove the checkpoints of a training that has ended."""
        forget_states(folder)


def start_publisher() -> Any:
    """Start the actor on this node; it holds no core, and ends with the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3, scheduling_strategy=here)
    return actor(Publisher).remote()


def publish(publisher: Any, folder: Path, bundle: Bundle, last: str) -> None:
    """Have a bundle written, and wait until it is.

    Args:
        publisher: what `start_publisher` returned.
        folder: in the storage, as the driver's node names it.
        bundle: the files.
        last: the one whose presence says that all are there.

    Raises:
        DiskFullError: no space is left.
        StoreError: the folder cannot be written.
    """
    import ray
    from ray.exceptions import RayTaskError

    from tasks.errors import DcdctlError

    try:
        ray.get(publisher.publish.remote(folder, bundle, last))
    except RayTaskError as error:
        if isinstance(error.cause, DcdctlError):
            raise error.cause from None
        raise
