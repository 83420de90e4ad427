"""`--cluster`, from this side: send the experiment, show its progress, keep what comes back."""

from __future__ import annotations

import base64
import json
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from rich.markup import escape

from clusters.embedded import WORKER_ENV
from clusters.jobs import ENDED, Jobs
from orchestrator.events import PREFIX
from orchestrator.progress import Display
from orchestrator.shipping import START, pack_code, pack_request
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, write_atomic
from tasks.errors import ClusterError, DcdctlError, SpecError, StoreError
from tasks.spec import Spec

if TYPE_CHECKING:
    from clusters.handle import ClusterHandle

Command = Literal["sweep", "compare"]

_RUN = re.compile(r"[0-9a-f]{12}")
"""A run's name is its fingerprint; a path in its place could lead anywhere on this machine."""

THERE = "~/.dcdctl"
"""Storage on the head node of an experiment whose storage is a folder here."""


class SentJob(Spec):
    """A job that was submitted from this storage; kept as `<storage>/jobs/<job_id>.json`."""

    job_id: str
    where: str
    command: Command
    specs: tuple[ExperimentSpec, ...]


@dataclass
class Followed:
    """What came back of a job.

    Attributes:
        folders: of its runs, here.
        error: the job's sentence and exit code, where it failed.
    """

    folders: list[Path] = field(default_factory=list)
    error: tuple[str, int] | None = None


class JobFailedError(DcdctlError):
    """A job on a cluster failed; the exit code is its own."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # type: ignore[misc]  # of the class elsewhere, of a job here


def submit(
    handle: ClusterHandle,
    where: str,
    command: Command,
    specs: Sequence[ExperimentSpec],
    mode: str,
    root: Path,
    *,
    retry_failed: bool = False,
) -> SentJob:
    """Send code and experiments to a cluster, and have it begin.

    Args:
        handle: the cluster.
        where: what `--cluster` said, for coming back.
        command: what to run.
        specs: the experiments.
        mode: as for a sweep.
        root: storage of this machine that remembers the job.
        retry_failed: as for a sweep.

    Raises:
        ClusterError: the cluster does not take it.
    """
    job = SentJob(
        job_id=f"dcdctl-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}",
        where=where,
        command=command,
        specs=tuple(specs),
    )
    with tempfile.TemporaryDirectory(prefix="dcd-ship-") as scratch:
        folder = Path(scratch)
        pack_code(folder)
        pack_request(
            folder, command, [_there(spec) for spec in specs], mode, retry_failed=retry_failed
        )
        write_atomic(root / "jobs" / f"{job.job_id}.json", job.model_dump_json(indent=2) + "\n")
        env = {**WORKER_ENV, "RAY_USAGE_STATS_ENABLED": "0"}
        Jobs(handle).submit(f"sh {START}", folder, env, job.job_id)
    return job


def _there(spec: ExperimentSpec) -> ExperimentSpec:
    """Return an experiment as it runs on the cluster: a folder of this machine is none there."""
    if urlsplit(spec.storage).scheme not in ("", "file"):
        return spec
    return spec.model_copy(update={"storage": THERE})


def check_data(specs: Sequence[ExperimentSpec]) -> str | None:
    """Say what the nodes have to see before an experiment is sent to them.

    Photos do not travel with the code. The sentences name no path: people's names are in them.

    Returns:
        A sentence for the person where data is a folder, which the nodes may or may not see.

    Raises:
        SpecError: a folder is named relative to this machine's working folder, which no node has.
    """
    said = None
    for spec in specs:
        if spec.data.kind != "folder":
            continue
        roots = {"data.root": spec.data.root}
        if spec.data.public_from is not None:
            roots["data.public_from.root"] = spec.data.public_from.root
        for key, root in roots.items():
            if urlsplit(root).scheme not in ("", "file"):
                continue
            if not root.startswith(("/", "~", "file:")):
                raise SpecError(
                    f"{key} is relative to a folder of this machine, and photos are not sent to a "
                    "cluster; name the absolute path under which its nodes see them, or an s3:// "
                    "URI"
                )
            said = said or (
                f"{key} is a folder, and photos are not sent: the cluster's nodes have to see them "
                "under the same path, else name an s3:// URI"
            )
    return said


def local_root(spec: ExperimentSpec) -> Path:
    """Return the folder of this machine that results come back to."""
    remote = urlsplit(spec.storage).scheme not in ("", "file")
    return Store(".dcdctl" if remote else spec.storage).root


def sent_job(root: Path, job_id: str) -> SentJob:
    """Return a job that was submitted from a storage.

    Raises:
        StoreError: the storage knows no such job.
    """
    path = root / "jobs" / f"{job_id}.json"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.json"))
        raise StoreError(
            f"the storage {root} knows no job {job_id!r}; it has {', '.join(known) or 'none'}"
        )
    return SentJob.model_validate_json(path.read_bytes())


def follow(handle: ClusterHandle, job: SentJob, root: Path, display: Display) -> Followed:
    """Show a job's progress from its start, and keep its results when it has ended.

    Args:
        handle: the cluster.
        job: the job.
        root: storage of this machine.
        display: where progress goes.

    Raises:
        ClusterError: the cluster stayed out of reach, or the job ended without a word.
        JobFailedError: the job failed; what it sent is kept.
    """
    jobs, found, ended = Jobs(handle), Followed(), False
    parts: dict[tuple[str, str], list[str]] = {}
    for event in events_of(jobs.follow(job.job_id)):
        match event:
            case {"event": "line", "text": str(text)}:
                display.line(escape(text))
            case {"event": "stage", "name": str(name), "done": int(done), "total": int(total)}:
                display.stage(name, done, total, str(event.get("note", "")))
            case {"event": "file", "run": str(run), "path": str(path), "data": str(data)}:
                if not _RUN.fullmatch(run):
                    raise ClusterError(
                        f"the job sent a file for a run {run[:80]!r}, which is no run's name; "
                        "nothing was written"
                    )
                parts.setdefault((run, path), []).append(data)
                if event.get("last"):
                    _keep(root / "runs" / run, path, "".join(parts.pop((run, path))))
                    if root / "runs" / run not in found.folders:
                        found.folders.append(root / "runs" / run)
            case {"event": "failed", "text": str(text), "code": int(code)}:
                found.error, ended = (text, code), True
            case {"event": "done"}:
                ended = True
    if not ended:
        state, message = jobs.status(job.job_id)
        said = message.strip().splitlines()[-1][:300] if message.strip() else "it said nothing"
        raise ClusterError(
            f"the job {job.job_id} ended as {state.lower()} before it was done ({said}); run the "
            "same command with --resume"
        )
    return found


def finish(job: SentJob, found: Followed) -> list[Path]:
    """Write the reports of what came back.

    Returns:
        The reports.

    Raises:
        JobFailedError: the job failed; the reports are written all the same.
    """
    from orchestrator.report import write_report

    reports = []
    for folder, spec in zip(found.folders, job.specs, strict=False):
        own = spec.model_copy(update={"storage": str(folder.parents[1])})
        if job.command == "compare":
            from orchestrator.compare import comparing

            own = comparing(own, own.seed)
        write_atomic(folder / "spec.json", own.model_dump_json(indent=2) + "\n")
        reports.append(write_report(folder))
    if found.error is not None:
        sentence, code = found.error
        if code == 3 and any(spec.data.kind == "folder" for spec in job.specs):
            sentence += (
                " (on a cluster, data.root has to be a folder that its nodes see, or an s3:// URI)"
            )
        raise JobFailedError(sentence, code)
    return reports


def has_ended(handle: ClusterHandle, job_id: str) -> bool:
    """Say whether a job is over."""
    return Jobs(handle).status(job_id)[0] in ENDED


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Yield the events among a job's lines; what Ray and libraries print is passed over."""
    for line in lines:
        if line.startswith(PREFIX):
            try:
                event = json.loads(line.removeprefix(PREFIX))
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def _keep(run: Path, path: str, data: str) -> None:
    place = (run / path).resolve()
    if not place.is_relative_to(run.resolve()):
        raise ClusterError(
            f"the job sent a file for {path!r}, outside its run; nothing was written"
        )
    write_atomic(place, base64.b64decode(data))
