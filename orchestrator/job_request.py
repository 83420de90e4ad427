"""What a job on a cluster is asked to do, as both of its ends know it."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field

from orchestrator.spec import ExperimentSpec
from tasks.spec import Spec

Command = Literal["sweep", "compare", "augment", "train", "attack"]
WayBack = Literal["storage", "output", "stays"]

OUTCOME = "outcome.json"
"""File of a job's output that holds what the command returns."""

RESULT = "result"
"""Folder of a job's output that holds what the command writes."""


class StepOptions(Spec):
    """Options of single steps, as the command line has them."""

    form: Literal["parquet", "imagefolder", "webdataset"] = "parquet"
    codec: str | None = None
    samples_per_shard: int | None = Field(None, ge=1)
    recipes_only: bool = False
    defense: Literal["none", "dcd"] = "dcd"
    screen: bool = False


class JobRequest(Spec):
    """What is to be done; it travels as a file, so that no name is on a command line."""

    job_id: str
    command: Command
    specs: tuple[ExperimentSpec, ...] = Field(min_length=1)
    mode: Literal["new", "resume", "fresh"] = "new"
    retry_failed: bool = False
    step: StepOptions = StepOptions()


class SentJob(JobRequest):
    """A job that was submitted from this storage; kept as `<storage>/jobs/<job_id>.json`."""

    where: str = Field(description="What --cluster said.")
    out: str | None = Field(None, description="Where the result of augment or train goes, here.")
    checkpoint: str | None = Field(None, description="The classifier that is attacked, here.")


def is_remote(storage: str) -> bool:
    """Say whether a storage is an object store, which this machine sees too."""
    return urlsplit(storage).scheme not in ("", "file")


def way_back(spec: ExperimentSpec) -> WayBack:
    """Return how a data set or classifier comes back.

    A job's output is kept in the logs of the cluster, so that nothing of real people goes that way.
    """
    if is_remote(spec.storage):
        return "storage"
    return "output" if spec.data.kind == "builtin" else "stays"
