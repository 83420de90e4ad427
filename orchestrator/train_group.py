"""A group of training processes by Ray Train, which may be lost, replaced, and change in number.

Ray Train starts the processes, wires them, and starts them again when one is lost or when an
elastic range allows for more. Their checkpoints go to the publisher beside the driver: the nodes
share no disk.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.held_folders import held_folder
from orchestrator.bundle import Bundle
from tasks.errors import ClusterError, DcdctlError, TrainingError
from tasks.workers import Workers, least_workers, most_workers

LOST_AFTER_S = 30
"""A process that does not answer the others for so long is lost; torch waits 30 minutes."""

CHECKPOINT_EVERY_S = 20.0
"""At most so much work is lost with a process, and one step or epoch."""

RESIZE_EVERY_S = 60.0
"""An elastic training looks for new room so often; a change starts from a checkpoint."""

MAX_FAILURES = 3
"""Losses of a process before a training is given up. Announced preemptions are free."""


@dataclass(frozen=True)
class StateKeeper:
    """Where the checkpoints of one training are.

    Attributes:
        publisher: the actor beside the driver.
        folder: in the storage, as the driver's node names it.
        every_s: seconds between checkpoints, at least.
    """

    publisher: Any
    folder: Path
    every_s: float = CHECKPOINT_EVERY_S

    def newest(self) -> tuple[int, Bundle] | None:
        """Return the newest whole state with its step."""
        import ray

        found: tuple[int, Bundle] | None = ray.get(self.publisher.newest_state.remote(self.folder))
        return found

    def rows_at_once(self) -> int | None:
        """Return how many rows of a batch fit into memory; None where all did so far."""
        import ray

        found: int | None = ray.get(self.publisher.noted_rows.remote(self.folder))
        return found

    def forget(self) -> None:
        """Remove the states: the training's result is where it belongs."""
        import ray

        ray.get(self.publisher.forget_states.remote(self.folder))


class Member:
    """One process of the group, seen from inside.

    Args:
        keeper: where the states are.
    """

    def __init__(self, keeper: StateKeeper) -> None:
        import torch
        from ray import train

        context = train.get_context()
        self.keeper = keeper
        self.rank = int(context.get_world_rank())
        self.world = int(context.get_world_size())
        self.device = train.torch.get_device()
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        self.rows_at_once: int | None = None
        self._writing: Any = None
        self.started = self._written = -math.inf

    def start(self) -> tuple[int, Bundle] | None:
        """Return the state to go on from, the same for all; waits for all to be ready.

        The wait comes before the first exchange of gradients, which would take a process that is
        late with its data for a lost one.
        """
        import ray
        from ray.train import collective

        handed = None
        if self.rank == 0:
            # A reference: what is handed around this way must be small.
            handed = [
                self.keeper.publisher.newest_state.remote(self.keeper.folder),
                self.keeper.publisher.noted_rows.remote(self.keeper.folder),
            ]
        handed = collective.broadcast_from_rank_zero(handed)
        found: tuple[int, Bundle] | None = ray.get(handed[0])
        self.rows_at_once = ray.get(handed[1])
        self.started = self._written = time.monotonic()
        return found

    def halve(self, rows: int) -> None:
        """Have the group started again with half as many rows at once.

        Args:
            rows: of all processes together, that did not fit into this one's memory.

        Raises:
            ClusterError: always; Ray Train starts the group again.
        """
        import ray

        ray.get(self.keeper.publisher.note_rows.remote(self.keeper.folder, rows // 2))
        raise ClusterError(f"{rows} rows at once do not fit into memory; {rows // 2} may")

    def offer(self, step: int, make: Callable[[], Bundle], *, last: bool = False) -> None:
        """Have a state kept if it is time for it; only the last one is waited for.

        Args:
            step: of the state.
            make: builds it; called where it is written.
            last: write it in any case, and wait until it is published.
        """
        import ray

        if self.rank:
            return
        due = time.monotonic() - self._written >= self.keeper.every_s
        if self._writing is not None:
            if not last and not ray.wait([self._writing], timeout=0)[0]:
                return  # a slow storage gets fewer states, it does not hold up the training
            _get(self._writing)
            self._writing = None
        if due or last:
            self._writing = self.keeper.publisher.keep_state.remote(
                self.keeper.folder, step, make()
            )
            self._written = time.monotonic()
        if last:
            _get(self._writing)


def train_group(
    loop: Callable[[Member, dict[str, Any]], None],
    config: dict[str, Any],
    workers: Workers,
    keeper: StateKeeper,
    steps: int,
    *,
    what: str,
    cores_each: float = 1.0,
) -> tuple[Bundle, dict[str, float]]:
    """Run a training loop in several processes until its last state is kept.

    Args:
        loop: what each process does; it offers states, the one of `steps` as the last.
        config: its settings; data as references of the object store.
        workers: how many processes.
        keeper: where its states go.
        steps: step of the last state.
        what: is trained, for errors.
        cores_each: of a process that has no GPU.

    Returns:
        The last state, and seconds by part as the first process measured them.

    Raises:
        TrainingError: raised by the loop; it is not tried again.
        ClusterError: too many processes were lost.
    """
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    gpus = use_gpus(workers)
    trainer = functools.partial(
        TorchTrainer,
        _process,
        train_loop_config={"loop": loop, "config": config, "keeper": keeper},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=LOST_AFTER_S),
        scaling_config=train.ScalingConfig(
            num_workers=workers
            if isinstance(workers, int)
            else (workers.least, most_workers(workers)),
            elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
            use_gpu=gpus,
            resources_per_worker=None if gpus else {"CPU": cores_each},
        ),
    )
    try:
        with held_folder("train-") as notes:  # Ray Train's own; nobody needs them afterwards
            run_config = train.RunConfig(
                name="train",
                storage_path=str(notes),
                failure_config=train.FailureConfig(max_failures=MAX_FAILURES),
            )
            answer = trainer(run_config=run_config).fit().return_value
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ClusterError(
            f"training {what} over {_count(workers)} processes did not finish ({reason}); the same "
            "command, or --resume, goes on from its last checkpoint"
        ) from error
    if answer and "error" in answer:
        raise TrainingError(answer["error"])
    found = keeper.newest()
    if found is None or found[0] != steps:
        raise ClusterError(
            f"training {what} ended, but its last checkpoint in {keeper.folder} is not whole; the "
            "same command, or --resume, goes on from the one before it"
        )
    return found[1], answer or {}


def _process(config: dict[str, Any]) -> dict[str, Any]:
    """Run the loop in one process of the group."""
    member = Member(config["keeper"])
    try:
        config["loop"](member, config["config"])
    except TrainingError as error:
        # Every process comes to the same loss. Raised, it would be taken for a lost process, and
        # the same training tried again.
        return {"error": str(error)}
    return {"training": time.monotonic() - member.started}


def use_gpus(workers: Workers) -> bool:
    """Say whether the processes get a GPU each: the cluster has enough of them."""
    import ray

    return bool(ray.cluster_resources().get("GPU", 0) >= least_workers(workers))


def _get(reference: Any) -> None:
    """Wait for the publisher, and raise its errors as they were.

    Raises:
        StoreError: the state cannot be written.
    """
    import ray
    from ray.exceptions import RayTaskError

    try:
        ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DcdctlError):
            raise error.cause from None
        raise


def _count(workers: Workers) -> str:
    if isinstance(workers, int):
        return str(workers)
    return f"{workers.least} to {workers.most}"
