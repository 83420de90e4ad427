"""The command `dcdctl clean`, in a file that imports nothing heavy."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli_options import Json, Storage, console_for, show


def clean(
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than", metavar="AGE", help="Nothing was written for so long: 30d, 12h, 2w."
        ),
    ],
    storage: Storage = None,
    keep_records: Annotated[
        bool,
        typer.Option(
            "--keep-records", help="Of old runs remove checkpoints, plans and pictures alone."
        ),
    ] = False,
    everything: Annotated[
        bool,
        typer.Option("--all", help="Artefacts too that a run needs which stays; they are remade."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only said.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what is old and needed by nothing: runs, artefacts, jobs, scratch folders.

    A run that goes on is never touched. Without --yes it says what would go, and how large it is.

    Example:
        dcdctl clean --older-than 30d
        dcdctl clean --older-than 30d --keep-records --yes
        dcdctl clean --older-than 2w --storage s3://my-bucket/dcdctl --json
    """
    from orchestrator.clean import clean as run
    from orchestrator.clean import parse_age

    age = parse_age(older_than)
    with console_for(True).status("looking through the storage"):
        outcome = run(
            storage or ".dcdctl", age, everything=everything, keep_records=keep_records, yes=yes
        )
    show(outcome, as_json)
