"""`augment`, `train` and `attack` as jobs on a cluster: run there, and sent or stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.job_request import OUTCOME, RESULT, JobRequest, way_back
from orchestrator.shipping import CHECKPOINT
from tasks.errors import DataError

if TYPE_CHECKING:
    from orchestrator.events import EventLog

MOST = 256 << 20
"""Bytes of a result that come back through a job's output."""


def result_folder(root: Path, job_id: str) -> Path:
    """Return where in a storage lies what a job made."""
    return root / "results" / job_id


def run_step(asked: JobRequest, log: EventLog) -> None:
    """Run a step, and have its outcome and its result on their way back.

    Raises:
        DataError: the result is too large for a job's output; it stays in the storage.
    """
    from orchestrator.events import warnings_to
    from orchestrator.store import Store

    (spec,) = asked.specs
    root = Store(spec.storage).root
    folder = result_folder(root, asked.job_id)
    folder.mkdir(parents=True, exist_ok=True)
    with warnings_to(lambda text: log.write("warning", text=text)):
        outcome = _outcome(asked, folder / RESULT)
    (folder / OUTCOME).write_text(outcome.model_dump_json())
    log.send("", folder / OUTCOME, folder)
    result = [path for path in sorted((folder / RESULT).rglob("*")) if path.is_file()]
    match way_back(spec):
        case "storage":
            _keep(root, folder)
        case "output":
            size = sum(path.stat().st_size for path in result)
            if size > MOST:
                raise DataError(
                    f"the result has {size >> 20} MiB, and at most {MOST >> 20} MiB come back "
                    f"through a job's output; it is in {folder} on the head; fetch it from there, "
                    "or give --storage s3://bucket/prefix"
                )
            for path in result:
                log.send("", path, folder)


def _outcome(asked: JobRequest, out: Path) -> Any:
    from rich.console import Console

    from orchestrator import commands

    (spec,), step, console = asked.specs, asked.step, Console(quiet=True)
    if asked.command == "augment":
        return commands.augment(
            spec,
            out,
            console,
            step.form,
            codec=step.codec,
            samples_per_shard=step.samples_per_shard,
            recipes_only=step.recipes_only,
        )
    if asked.command == "train":
        return commands.train(spec, step.defense, out, console)
    return commands.attack(spec, Path(CHECKPOINT).absolute(), console, step.screen)


def _keep(root: Path, folder: Path) -> None:
    """Have an object store take what a step wrote."""
    from orchestrator.object_store import object_store_of

    remote = object_store_of(root)
    if remote is not None:
        remote.push(folder)
