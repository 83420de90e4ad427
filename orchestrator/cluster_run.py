"""`--cluster`, from this side: what is sent to a cluster, and what this storage remembers of it."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel

from clusters.embedded import WORKER_ENV
from clusters.jobs import Jobs
from orchestrator.job_request import JobRequest, SentJob, is_remote
from orchestrator.shipping import START, pack_code, pack_request
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, write_atomic
from tasks.errors import SpecError, StoreError

if TYPE_CHECKING:
    from clusters.handle import ClusterHandle

THERE = "~/.dcdctl"
"""Storage on the head node of an experiment whose storage is a folder here."""


def new_job_id() -> str:
    """Return the name of a job: the time, and what tells it from others of the same second."""
    return f"dcdctl-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def submit(handle: ClusterHandle, job: SentJob, root: Path, checkpoint: Path | None = None) -> None:
    """Send code and experiments to a cluster, and have it begin.

    Args:
        handle: the cluster.
        job: what is to be done.
        root: storage of this machine that remembers the job.
        checkpoint: folder of the classifier that is attacked.

    Raises:
        ClusterError: the cluster does not take it.
    """
    there = {"specs": tuple(_there(spec) for spec in job.specs)}
    own = {name: getattr(job, name) for name in JobRequest.model_fields}
    with tempfile.TemporaryDirectory(prefix="dcd-ship-") as scratch:
        modules = pack_code(Path(scratch) / "code")
        folder = Path(scratch) / "job"
        pack_request(folder, JobRequest(**own | there), checkpoint)
        write_atomic(root / "jobs" / f"{job.job_id}.json", job.model_dump_json(indent=2) + "\n")
        env = {**WORKER_ENV, "RAY_USAGE_STATS_ENABLED": "0"}
        Jobs(handle).submit(f"sh {START}", folder, modules, env, job.job_id)


def _there(spec: ExperimentSpec) -> ExperimentSpec:
    """Return an experiment as it runs on the cluster: a folder of this machine is none there."""
    if is_remote(spec.storage):
        return spec
    return spec.model_copy(update={"storage": THERE})


def check_data(specs: Sequence[ExperimentSpec]) -> str | None:
    """Say what the nodes have to see before an experiment is sent to them.

    Photos and named files do not travel with the code. The sentences name no path: people's names
    are in them.

    Returns:
        A sentence for the person where a folder or file is named, which the nodes may or may not
        see.

    Raises:
        SpecError: one is named relative to this machine's working folder, which no node has.
    """
    said = None
    for spec in specs:
        for key, place in _named_places(spec).items():
            if urlsplit(place).scheme not in ("", "file"):
                continue
            uri = ", or an s3:// URI" if key.startswith("data.") else ""
            if not place.startswith(("/", "~", "file:")):
                raise SpecError(
                    f"{key} is relative to a folder of this machine, and photos and files are not "
                    "sent to a cluster; name the absolute path under which its nodes see it" + uri
                )
            said = said or (
                f"{key} is a path of this machine, and photos and files are not sent: name one "
                f"under which the cluster's nodes see the same{uri}"
            )
    return said


def _named_places(spec: ExperimentSpec) -> dict[str, str]:
    """Return the folders and files that an experiment's settings name, by setting."""
    found: dict[str, str] = {}
    if spec.data.kind == "folder":
        found["data.root"] = spec.data.root
        if spec.data.public_from is not None:
            found["data.public_from.root"] = spec.data.public_from.root
    if spec.evaluation.embedding.path is not None:
        found["evaluation.embedding.path"] = spec.evaluation.embedding.path
    return found | dict(_paths(spec, ""))


def _paths(value: object, key: str) -> Iterator[tuple[str, str]]:
    """Yield every path in some settings, with the setting's name."""
    if isinstance(value, Path):
        yield key, str(value)
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name), f"{key}.{name}" if key else name)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _paths(one, f"{key}.{number}")


def local_root(spec: ExperimentSpec) -> Path:
    """Return the folder of this machine that results come back to."""
    return Store(".dcdctl" if is_remote(spec.storage) else spec.storage).root


def sent_job(root: Path, job_id: str) -> SentJob:
    """Return a job that was submitted from a storage.

    Raises:
        StoreError: the storage knows no such job.
    """
    path = root / "jobs" / f"{job_id}.json"
    if not knows_job(root, job_id):
        known = sorted(p.stem for p in path.parent.glob("*.json"))
        raise StoreError(
            f"the storage {root} knows no job {job_id!r}; it has {', '.join(known) or 'none'}; "
            "of a job that another machine sent, name its cluster with --cluster"
        )
    return SentJob.model_validate_json(path.read_bytes())


def knows_job(root: Path, job_id: str) -> bool:
    """Say whether a job was submitted from a storage."""
    return (root / "jobs" / f"{job_id}.json").is_file()
