"""The command `dcdctl trainers`, in a file that imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.completion import run_folders


def trainers(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, its name or a start of that, or its s3:// address.",
            autocompletion=run_folders,
        ),
    ],
    trainer: Annotated[
        list[str] | None,
        typer.Option(
            "--trainer",
            metavar="NAME",
            help="Who trains, such as jpeg or {name: jpeg, quality: 30}; may be repeated. Else the "
            "run's hostile_trainers, or all.",
        ),
    ] = None,
    trial: Annotated[
        int | None,
        typer.Option(min=1, help="Whose data; else the recommended trial's, or the nearest's."),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="Give them the data without a defence too.")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(metavar="URI", help="Where the runs are; else .dcdctl.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on stdout, progress on stderr.")
    ] = False,
) -> None:
    """Give a trial's data to other trainers, and attack what they train.

    What was measured before is kept, so that a stopped command goes on where it was.

    Example:
        dcdctl trainers .dcdctl/runs/3c4a659d6c0e
        dcdctl trainers .dcdctl/runs/3c4a659d6c0e --trainer near-duplicates --trainer mixup
    """
    from rich.console import Console

    from orchestrator.open_run import open_run
    from orchestrator.trainers_command import parse_trainers, run_trainers

    folder = open_run(run, storage, weights=True)
    chosen, console = parse_trainers(trainer or ()), Console(stderr=as_json)
    outcome = run_trainers(folder, chosen, console, control=control, trial=trial)
    if as_json:
        typer.echo(outcome.model_dump_json(indent=2))
    else:
        outcome.render(Console())
