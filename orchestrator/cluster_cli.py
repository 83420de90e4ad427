"""`--cluster` of the main commands, and `dcdctl cluster`, `attach` and `cancel`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.completion import job_names
from orchestrator.failure import INTERRUPTED, Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from orchestrator.cluster_run import Command as Remote
    from orchestrator.cluster_run import SentJob
    from orchestrator.spec import ExperimentSpec

Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ADDRESS",
        help="Run it there: a cluster file such as aws.yaml, or the address of a dashboard.",
    ),
]
Detach = Annotated[bool, typer.Option("--detach", help="With --cluster: do not wait for the end.")]
Down = Annotated[bool, typer.Option("--down", help="With --cluster: take it down at the end.")]
Insecure = Annotated[
    bool, typer.Option("--insecure-cluster", help="Accept a cluster that asks for no token.")
]
Storage = Annotated[
    str, typer.Option(metavar="URI", help="The storage that the job was submitted from.")
]
Where = Annotated[str, typer.Argument(metavar="FILE", help="A cluster file.")]

cluster_app = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(cls=Command, rich_help_panel="On a cluster")(attach)
    app.command(cls=Command, rich_help_panel="On a cluster")(cancel)
    cluster_app.command(cls=Command)(up)
    cluster_app.command(cls=Command)(down)
    cluster_app.command(cls=Command)(status)
    cluster_app.command(cls=Command)(render)
    app.add_typer(
        cluster_app,
        name="cluster",
        help="Bring a cluster up, take it down.",
        rich_help_panel="On a cluster",
    )


def run_there(
    where: str,
    command: Remote,
    specs: Sequence[ExperimentSpec],
    mode: str,
    console: Console,
    *,
    detach: bool,
    take_down: bool,
    insecure: bool,
    retry_failed: bool = False,
) -> list[Path]:
    """Run a command on a cluster, and return the reports; with `detach`, return at once.

    Raises:
        SpecError: photos are in a folder that no node can see.
        ClusterError: the cluster cannot be used; it is left as it is.
        JobFailedError: the job failed; with `take_down` the cluster is down all the same.
    """
    from clusters.cluster_file import Existing, read_cluster
    from clusters.lifecycle import bring_down, open_cluster
    from orchestrator.cluster_run import JobFailedError, check_data, local_root, submit
    from orchestrator.progress import Display

    if take_down and detach:
        raise typer.BadParameter("--down waits for the end and --detach does not; name one")
    if take_down and isinstance(read_cluster(where), Existing):
        raise typer.BadParameter(
            f"--down: {where} stands without dcdctl; take it down where it was started"
        )
    root = local_root(specs[0])
    display = Display(console)
    if (warning := check_data(specs)) is not None:
        display.line(warning)
    failed: JobFailedError | None = None
    reports: list[Path] = []
    with open_cluster(where, insecure=insecure, say=display.line) as handle:
        job = submit(handle, where, command, specs, mode, root, retry_failed=retry_failed)
        display.line(f"job {job.job_id} on {handle.name}")
        if detach:
            display.line(
                f"Come back:  {_come_back(job, root)}\nStop it:    dcdctl cancel {job.job_id}"
            )
            return []
        try:
            reports = _follow(handle, job, root, display)
        except JobFailedError as error:
            failed = error  # the job is over and its results are here: nobody needs the machines
    if take_down:
        bring_down(where, say=display.line)
    if failed is not None:
        raise failed
    return reports


def refuse_alone(cluster: str | None, **options: bool) -> None:
    """Refuse options that say nothing without `--cluster`, so that none is passed over in silence.

    Raises:
        BadParameter: one is given, and no cluster.
    """
    for name, given in options.items():
        if given and cluster is None:
            raise typer.BadParameter(f"--{name.replace('_', '-')} goes with --cluster")


def _follow(handle: Any, job: SentJob, root: Path, display: Any) -> list[Path]:
    from orchestrator.cluster_run import finish, follow

    try:
        with display.live():
            found = follow(handle, job, root, display)
    except KeyboardInterrupt:
        typer.echo(
            f"\nthe job goes on without you; come back with: {_come_back(job, root)}, or stop it "
            f"with: dcdctl cancel {job.job_id}",
            err=True,
        )
        raise typer.Exit(INTERRUPTED) from None
    return finish(job, found)


def _come_back(job: SentJob, root: Path) -> str:
    return f"dcdctl attach {job.job_id} --storage {root}"


def attach(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its name.", autocompletion=job_names)],
    storage: Storage = ".dcdctl",
    insecure: Insecure = False,
) -> None:
    """Follow a job on a cluster from its start, and keep its results at its end.

    Example:
        dcdctl attach dcdctl-1125-183001-a1b2
    """
    from clusters.lifecycle import joined
    from orchestrator.cluster_run import sent_job
    from orchestrator.progress import Display
    from orchestrator.store import Store

    root = Store(storage).root
    sent = sent_job(root, job)
    display = Display(_console())
    with joined(sent.where, insecure=insecure) as handle:
        for report in _follow(handle, sent, root, display):
            typer.echo(f"Report: {report}")


def cancel(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its name.", autocompletion=job_names)],
    storage: Storage = ".dcdctl",
    insecure: Insecure = False,
) -> None:
    """Stop a job on a cluster; what it finished stays, and --resume goes on with it.

    Example:
        dcdctl cancel dcdctl-1125-183001-a1b2
    """
    from clusters.jobs import Jobs
    from clusters.lifecycle import joined
    from orchestrator.cluster_run import sent_job
    from orchestrator.store import Store

    sent = sent_job(Store(storage).root, job)
    with joined(sent.where, insecure=insecure) as handle:
        Jobs(handle).stop(job)
    typer.echo(f"{job} was asked to stop")


def up(
    file: Where,
    deadline: Annotated[float, typer.Option(min=1, help="Seconds until it has to be up.")] = 900.0,
) -> None:
    """Bring a cluster up, and check that it answers.

    Example:
        dcdctl cluster up aws.yaml
    """
    from clusters.lifecycle import open_cluster

    with open_cluster(file, deadline_s=deadline, say=typer.echo) as handle:
        typer.echo(f"{handle.name} is up, its head is {handle.head}")


def down(file: Where) -> None:
    """Take a cluster down, workers included.

    Example:
        dcdctl cluster down aws.yaml
    """
    from clusters.lifecycle import bring_down

    bring_down(file, say=typer.echo)
    typer.echo("it is down")


def status(file: Where, insecure: Insecure = False) -> None:
    """Show the nodes and jobs of a cluster that is up.

    Example:
        dcdctl cluster status aws.yaml
    """
    from clusters.lifecycle import cluster_status

    found = cluster_status(file, insecure=insecure)
    typer.echo("\n".join(found))


def render(
    file: Where,
    check: Annotated[
        bool, typer.Option("--check", help="Hold it against the security list instead.")
    ] = False,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="KEY=VALUE", help="Fill in slurm.sh.j2."),
    ] = None,
) -> None:
    """Print the cluster file that would be used: yours, or the one of this name that is shipped.

    With --check: say what of the security list it does not meet, and which lines are still an
    example's; exit code 7 where there is any.

    Example:
        dcdctl cluster render aws.yaml > aws.yaml
        dcdctl cluster render --check aws.yaml
        dcdctl cluster render slurm.sh.j2 --set nodes=4 --set gpus=1 > sweep.sh
    """
    from clusters.cluster_file import find_file
    from clusters.security import check_file, unfilled
    from tasks.errors import ClusterError

    path = find_file(file)
    text = path.read_text()
    if path.suffix == ".j2":
        if check:
            raise typer.BadParameter("--check is for YAML; Slurm's script is checked by reading it")
        typer.echo(_filled_in(text, values or []), nl=False)
        return
    if values:
        raise typer.BadParameter("--set fills in slurm.sh.j2; edit a YAML file")
    if not check:
        typer.echo(text, nl=False)
        return
    open_points = check_file(path)
    for line in [*open_points, *(f"to fill in, {line}" for line in unfilled(text))]:
        typer.echo(line)
    if open_points:
        raise ClusterError(f"{path} does not meet {len(open_points)} points of the security list")
    typer.echo(f"{path} meets the security list")


SLURM = {"name": "dcdctl", "nodes": "2", "cpus": "8", "gpus": "0", "hours": "12"} | {
    "experiment": "experiment.yaml",
    "storage": "dcdctl-results",
}
"""What slurm.sh.j2 leaves open, and what it is unless told otherwise."""


def _filled_in(template: str, values: list[str]) -> str:
    import shlex

    from jinja2 import Environment, StrictUndefined

    given = dict(SLURM)
    for one in values:
        key, found, value = one.partition("=")
        if not found or key not in SLURM:
            raise typer.BadParameter(f"--set {one}: it takes {', '.join(SLURM)}, as KEY=VALUE")
        if key in ("nodes", "cpus", "gpus", "hours") and not value.isdigit():
            raise typer.BadParameter(f"--set {one}: {key} is a whole number")
        given[key] = shlex.quote(value)
    given["gpus"] = "" if given["gpus"] == "0" else given["gpus"]
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701
    return environment.from_string(template).render(given)


def _console() -> Console:
    from rich.console import Console

    return Console()
