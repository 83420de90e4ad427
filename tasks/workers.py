"""How many processes train one network: a number, or a range within which it may change."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from tasks.spec import Spec


class WorkerRange(Spec):
    """An elastic training: it begins with what the cluster has, and follows it up and down."""

    least: int = Field(1, ge=1, description="Wait for so many.")
    most: int = Field(ge=1, description="Never use more.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least={self.least} is above most={self.most}; swap them")
        return self


Workers = Annotated[int, Field(ge=1)] | WorkerRange
"""Training processes; the global batch, and so the result, is the same whatever their number."""


def least_workers(workers: Workers) -> int:
    """Return the smallest number of processes that a training begins with."""
    return workers if isinstance(workers, int) else workers.least


def most_workers(workers: Workers) -> int:
    """Return the largest number of processes."""
    return workers if isinstance(workers, int) else workers.most


def several_workers(workers: Workers) -> bool:
    """Say whether more than one process may train: it goes through Ray Train then."""
    return most_workers(workers) > 1


def batch_problem(workers: Workers, batch_size: int) -> str | None:
    """Return what is wrong where a batch has too few rows for the processes, else None.

    Batch statistics need two rows of each process. A batch need not be divisible: processes take
    one row more or less, and losses are summed over the rows of the whole batch.
    """
    most = most_workers(workers)
    if most == 1 or batch_size >= 2 * most:
        return None
    return (
        f"batch_size={batch_size} is too small for workers={most}, since each process needs at "
        f"least 2 rows of a batch; use at most {max(1, batch_size // 2)} workers, or "
        f"batch_size={2 * most}"
    )
