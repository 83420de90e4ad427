"""`--cluster`, from this side: follow a job, and make of what came back what a run here returns."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rich.markup import escape

from clusters.jobs import Jobs
from orchestrator.job_mirror import JobMirror, events_of
from orchestrator.job_request import RESULT, SentJob, way_back
from orchestrator.progress import Display
from orchestrator.spec import ExperimentSpec
from tasks.errors import (
    BudgetReachedError,
    ClusterError,
    DcdctlError,
    FailedTrialsError,
)

if TYPE_CHECKING:
    from clusters.handle import ClusterHandle
    from orchestrator.cli_options import Outcome
    from orchestrator.compare import CompareOutcome
    from orchestrator.sweep_outcome import SweepOutcome


class JobFailedError(DcdctlError):
    """A job on a cluster failed; the exit code is its own."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code  # type: ignore[misc]  # of the class elsewhere, of a job here


def told_job(handle: ClusterHandle, job_id: str, where: str) -> SentJob:
    """Return a job that another machine sent, by what it tells: its experiments are not in it.

    Raises:
        ClusterError: the cluster knows no such job, or it is none of dcdctl's.
    """
    for event in events_of(Jobs(handle).follow(job_id)):
        if event["event"] == "job":
            specs = (ExperimentSpec(),)
            return SentJob(job_id=job_id, command=event["command"], specs=specs, where=where)
    raise ClusterError(f"the job {job_id} on {handle.name} told nothing: it is none of dcdctl's")


def follow(
    handle: ClusterHandle, job: SentJob, root: Path, display: Display, *, ours: bool = True
) -> JobMirror:
    """Show a job's progress from its start, and keep what it sends as it comes.

    Args:
        handle: the cluster.
        job: the job.
        root: storage of this machine.
        display: where progress goes.
        ours: its experiments are those that were sent from here; else its own word is taken.

    Raises:
        ClusterError: the cluster stayed out of reach, or the job ended without a word.
    """
    jobs = Jobs(handle)
    mirror = JobMirror(root, job.job_id, handle.name, job if ours else None)
    for event in events_of(jobs.follow(job.job_id)):
        mirror.take(event)
        match event:
            case {"event": "line", "text": str(text)}:
                display.line(escape(text))
            case {"event": "warning", "text": str(text)}:
                display.warn(text)
            case {"event": "stage", "name": str(name), "done": int(done), "total": int(total)}:
                took = event.get("seconds")
                seconds = float(took) if isinstance(took, int | float) else None
                display.stage(name, done, total, str(event.get("note", "")), seconds=seconds)
    if not mirror.ended:
        state, message = jobs.status(job.job_id)
        said = message.strip().splitlines()[-1][:300] if message.strip() else "it said nothing"
        again = " with --resume" if job.command in ("sweep", "compare") else ""
        raise ClusterError(
            f"the job {job.job_id} ended as {state.lower()} before it was done ({said}); run the "
            f"same command again{again}"
        )
    return mirror


def finish(job: SentJob, found: JobMirror) -> Outcome:
    """Return what the command would have returned here, and write what it would have written.

    Raises:
        JobFailedError: the job failed; reports and tables are written all the same.
    """
    if job.command == "sweep":
        return _sweep(job, found)
    if job.command == "compare":
        return _comparison(job, found)
    return _step(job, found)


def _sweep(job: SentJob, found: JobMirror) -> SweepOutcome:
    from orchestrator.report import write_report
    from orchestrator.sweep_outcome import outcome_of

    outcome = None
    for folder in found.folders:
        outcome = outcome_of(
            folder,
            write_report(folder),
            resumed=int(found.values.get("resumed", 0)),
            seconds=float(found.values.get("seconds", 0.0)),
        )
    _raise(job, found)
    if outcome is None:
        raise ClusterError(f"the job {job.job_id} ended, and sent no run")
    return outcome


def _comparison(job: SentJob, found: JobMirror) -> CompareOutcome:
    from orchestrator.compare import Ran, table_of
    from orchestrator.report import write_report

    for folder in found.folders:
        if any(folder.glob("trials/*/record.json")):
            write_report(folder)
    sentence, code = found.error or ("", 0)
    budget, failed = code == BudgetReachedError.exit_code, code == FailedTrialsError.exit_code
    if not (budget or failed):
        _raise(job, found)
    ran = Ran(found.folders, [sentence] if failed else [], sentence if budget else "")
    return table_of(ran, found.root / "comparisons")


def _step(job: SentJob, found: JobMirror) -> Outcome:
    from orchestrator.commands import AttackOutcome, AugmentOutcome, TrainOutcome

    _raise(job, found)
    if found.outcome is None:
        raise ClusterError(f"the job {job.job_id} ended, and sent no outcome")
    if job.command == "attack":
        attacked = AttackOutcome.model_validate_json(found.outcome)
        return attacked.model_copy(update={"checkpoint": job.checkpoint or attacked.checkpoint})
    there: AugmentOutcome | TrainOutcome
    if job.command == "augment":
        there, field = AugmentOutcome.model_validate_json(found.outcome), "out"
    else:
        there, field = TrainOutcome.model_validate_json(found.outcome), "checkpoint"
    return there.model_copy(update={field: job.out}) if found.fetched else there


def fetch_result(handle: ClusterHandle, job: SentJob, found: JobMirror) -> None:
    """Bring the result of augment or train here, while the cluster is up.

    Raises:
        StoreError: the object store does not give it.
        ClusterError: the head does not give it.
    """
    if job.out is None or found.error is not None:
        return
    from clusters.cluster_file import RayFile, read_cluster
    from clusters.fetch import fetch_folder
    from orchestrator.cluster_run import THERE
    from orchestrator.job_steps import result_folder
    from orchestrator.store import Store

    way = way_back(job.specs[0])
    if way == "storage":
        store = Store(job.specs[0].storage)
        folder = result_folder(store.root, job.job_id)
        assert store.remote is not None
        store.remote.pull(folder)
        shutil.copytree(folder / RESULT, job.out, dirs_exist_ok=True)
    elif way == "stays":
        cluster = read_cluster(job.where)
        if not isinstance(cluster, RayFile):
            return
        place = PurePosixPath(result_folder(Path(THERE), job.job_id)) / RESULT
        fetch_folder(cluster, handle.head, place, Path(job.out))
    from orchestrator.forget import note_output

    note_output(Store(str(found.root)), job.specs[0].data.kind, job.command, Path(job.out))
    found.fetched = True


def _raise(job: SentJob, found: JobMirror) -> None:
    if found.error is None:
        return
    sentence, code = found.error
    if code == 3 and any(spec.data.kind == "folder" for spec in job.specs):
        sentence += (
            " (on a cluster, data.root has to be a folder that its nodes see, or an s3:// URI)"
        )
    raise JobFailedError(sentence, code)
