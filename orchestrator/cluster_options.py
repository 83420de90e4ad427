"""The options of commands that can run on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

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
Asked = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="FILE|ADDRESS",
        help="Where JOB is, if another machine sent it.",
    ),
]


@dataclass(frozen=True)
class There:
    """Where a command runs instead of here.

    Attributes:
        cluster: what `--cluster` said, None for here.
        detach: do not wait for the end.
        down: take the cluster down at the end.
        insecure: accept a cluster that asks for no token.
    """

    cluster: str | None
    detach: bool = False
    down: bool = False
    insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse options that say nothing without `--cluster`, or contradict each other."""
        given = {"detach": self.detach, "down": self.down, "insecure-cluster": self.insecure}
        for name, value in given.items():
            if value and self.cluster is None:
                raise typer.BadParameter(f"--{name} goes with --cluster")
        if self.down and self.detach:
            raise typer.BadParameter("--down waits for the end and --detach does not; name one")
