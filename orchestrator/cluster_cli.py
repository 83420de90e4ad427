"""`dcdctl cluster`: bring one up, look at it, take it down, and what its file should hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cluster_options import Insecure
from orchestrator.failure import Command

if TYPE_CHECKING:
    from rich.console import Console

Where = Annotated[str, typer.Argument(metavar="FILE", help="A cluster file.")]

cluster_app = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
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
