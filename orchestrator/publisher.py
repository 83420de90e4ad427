"""The one process that writes results: beside the driver, where the storage is.

Trials and judges run on any node of a cluster and hand their files over through Ray's object store;
a trial counts as done when this has acknowledged it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from orchestrator.trial_lease import BEATS, Leases
from tasks.errors import ClusterError, DcdctlError


class Publisher(Leases):
    """Writes bundles into the storage; lives in a Ray actor on the driver's node.

    It has the leases of the trials too, for it is the one that they are good for.
    """

    def publish(
        self, folder: Path, bundle: Bundle, last: str, lease: tuple[str, str] | None = None
    ) -> None:
        """Write a bundle's files, `last` as the last of them.

        Args:
            folder: where.
            bundle: the files.
            last: of them.
            lease: the trial and the token of the attempt that hands it over.

        Raises:
            ClusterError: the lease is another attempt's.
            DiskFullError: no space is left.
            StoreError: the folder cannot be written.
        """
        if lease is not None and not self.holds(*lease):
            raise ClusterError(f"trial {lease[0]} is published by another attempt, not by this one")
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
    actor = ray.remote(
        num_cpus=0,
        max_restarts=3,
        max_task_retries=3,
        scheduling_strategy=here,
        concurrency_groups={BEATS: 1},  # a heartbeat never waits for the disk
    )
    return actor(Publisher).remote()


@contextmanager
def publishing() -> Iterator[Any]:
    """Have a publisher for as long as it is needed.

    What Ray Tune remembers of a sweep would keep the actor until the driver ends, and a comparison
    runs many sweeps in one driver.
    """
    import ray

    publisher = start_publisher()
    try:
        yield publisher
    finally:
        ray.kill(publisher)


def publish(
    publisher: Any,
    folder: Path,
    bundle: Bundle,
    last: str,
    lease: tuple[str, str] | None = None,
) -> None:
    """Have a bundle written, and wait until it is.

    Args:
        publisher: what `start_publisher` returned.
        folder: in the storage, as the driver's node names it.
        bundle: the files.
        last: the one whose presence says that all are there.
        lease: of a trial: its id, and the token of this attempt.

    Raises:
        ClusterError: another attempt has the lease.
        DiskFullError: no space is left.
        StoreError: the folder cannot be written.
    """
    import ray
    from ray.exceptions import RayTaskError

    try:
        ray.get(publisher.publish.remote(folder, bundle, last, lease))
    except RayTaskError as error:
        if isinstance(error.cause, DcdctlError):
            raise error.cause from None
        raise
