"""`--cluster` of the commands that have it, and `dcdctl attach` and `cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli_options import Json, console_for, show
from orchestrator.cluster_options import Asked, Insecure, There
from orchestrator.completion import job_names
from orchestrator.failure import INTERRUPTED, Command
from tasks.errors import DcdctlError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.cli_options import Outcome
    from orchestrator.job_request import Command as Remote
    from orchestrator.job_request import SentJob
    from orchestrator.progress import Display
    from orchestrator.spec import ExperimentSpec

Job = Annotated[str, typer.Argument(metavar="JOB", help="Its name.", autocompletion=job_names)]
Storage = Annotated[
    str, typer.Option(metavar="URI", help="The storage that the job was submitted from.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=Command, rich_help_panel="On a cluster")(attach)
    app.command(cls=Command, rich_help_panel="On a cluster")(cancel)


def run_there(
    there: There,
    command: Remote,
    specs: Sequence[ExperimentSpec],
    as_json: bool,
    *,
    out: Path | None = None,
    checkpoint: Path | None = None,
    **asked: Any,
) -> None:
    """Run a command on a cluster and show what it returns; with `detach`, return at once.

    Args:
        there: the cluster, and what becomes of it.
        command: what to run.
        specs: the experiments.
        as_json: print JSON on standard output, and progress on standard error.
        out: where the result of augment or train goes.
        checkpoint: folder of the classifier that is attacked.
        asked: the other fields of a `JobRequest`.

    Raises:
        SpecError: photos are in a folder that no node can see.
        StoreError: something is in the way of the result.
        ClusterError: the cluster cannot be used, and is left as it is; or it does not take the
            job: with `down` it is down all the same.
        JobFailedError: the job failed; with `down` the cluster is down all the same.
    """
    from clusters.cluster_file import Existing, read_cluster
    from clusters.lifecycle import bring_down, open_cluster
    from orchestrator.cluster_run import check_data, local_root, new_job_id, submit
    from orchestrator.cluster_storage import check_storage
    from orchestrator.job_request import SentJob
    from orchestrator.progress import Display

    where = there.cluster
    assert where is not None
    if there.down and isinstance(read_cluster(where), Existing):
        raise typer.BadParameter(
            f"--down: {where} stands without dcdctl; take it down where it was started"
        )
    root, display = local_root(specs[0]), Display(console_for(as_json))
    job = SentJob(
        job_id=new_job_id(),
        command=command,
        specs=tuple(specs),
        where=where,
        out=None if out is None else str(out),
        checkpoint=None if checkpoint is None else str(checkpoint),
        **asked,
    )
    storage = check_storage(specs[0].storage)
    for warning in (check_data(specs), storage, _check_out(job, root)):
        if warning is not None:
            display.warn(warning)
    with open_cluster(where, insecure=there.insecure, say=display.line) as handle:
        try:
            submit(handle, job, root, checkpoint)
        except DcdctlError:
            if there.down:  # machines that nobody uses would go on to cost
                bring_down(where, say=display.line)
            raise
        display.line(f"job {job.job_id} on {handle.name}")
        if there.detach:
            display.line(
                f"Come back:  {_come_back(job, root)}\nStop it:    dcdctl cancel {job.job_id}"
            )
            if as_json:
                typer.echo(f'{{"job_id": "{job.job_id}"}}')
            return
        found = _follow(handle, job, root, display)
    # The job is over and what it sent is here: nobody needs the machines, also where it failed.
    if there.down:
        bring_down(where, say=display.line)
    show(_finish(job, found), as_json)


def _check_out(job: SentJob, root: Path) -> str | None:
    """Say before anything runs what becomes of a result.

    Raises:
        StoreError: there is something where it is to go.
    """
    from clusters.cluster_file import Existing, read_cluster
    from orchestrator.job_request import way_back
    from tasks.errors import StoreError

    if job.out is None:
        return None
    out = Path(job.out)
    if job.command == "augment" and out.exists() and (out.is_file() or any(out.iterdir())):
        raise StoreError(f"{out} is there already; give --out a new folder")
    stays = way_back(job.specs[0]) == "stays"
    if stays and isinstance(read_cluster(job.where), Existing):
        return (
            "of real people nothing comes back through the logs of a cluster: the result stays on "
            "its head, and its place is named at the end; give --storage s3://bucket/prefix to "
            "have it here"
        )
    return None


def _follow(handle: Any, job: SentJob, root: Path, display: Display, *, ours: bool = True) -> Any:
    from orchestrator.cluster_follow import fetch_result, follow

    try:
        with display.live():
            found = follow(handle, job, root, display, ours=ours)
            fetch_result(handle, job, found)
            return found
    except KeyboardInterrupt:
        typer.echo(
            f"\nthe job goes on without you; come back with: {_come_back(job, root)}, or stop it "
            f"with: dcdctl cancel {job.job_id}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None


def _finish(job: SentJob, found: Any) -> Outcome:
    from orchestrator.cluster_follow import finish

    return finish(job, found)


def _come_back(job: SentJob, root: Path) -> str:
    return f"dcdctl attach {job.job_id} --storage {root}"


def attach(
    job: Job,
    storage: Storage = ".dcdctl",
    cluster: Asked = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Follow a job on a cluster from its start, and keep its results at its end.

    Example:
        dcdctl attach dcdctl-1125-183001-a1b2
        dcdctl attach dcdctl-1125-183001-a1b2 --cluster aws.yaml
    """
    from clusters.lifecycle import joined
    from orchestrator.cluster_follow import told_job
    from orchestrator.cluster_run import knows_job, sent_job
    from orchestrator.progress import Display
    from orchestrator.store import Store

    root = Store(storage).root
    sent = sent_job(root, job) if cluster is None or knows_job(root, job) else None
    with joined(cluster or (sent.where if sent else ""), insecure=insecure) as handle:
        asked = sent or told_job(handle, job, cluster or "")
        display = Display(console_for(as_json))
        found = _follow(handle, asked, root, display, ours=sent is not None)
    show(_finish(asked, found), as_json)


def cancel(
    job: Job, storage: Storage = ".dcdctl", cluster: Asked = None, insecure: Insecure = False
) -> None:
    """Stop a job on a cluster; what it finished stays, and --resume goes on with it.

    Example:
        dcdctl cancel dcdctl-1125-183001-a1b2
        dcdctl cancel dcdctl-1125-183001-a1b2 --cluster aws.yaml
    """
    from clusters.jobs import Jobs
    from clusters.lifecycle import joined
    from orchestrator.cluster_run import sent_job
    from orchestrator.store import Store

    where = cluster or sent_job(Store(storage).root, job).where
    with joined(where, insecure=insecure) as handle:
        Jobs(handle).stop(job)
    typer.echo(f"{job} was asked to stop")
