"""The command `dcdctl forget`, in a file that imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli_options import Json, Storage, console_for, show


def forget(
    identity: Annotated[
        str | None,
        typer.Argument(
            metavar="IDENTITY",
            help="The person's name in the data set; - reads it from standard input, so that it "
            "stands in no process list and no shell history.",
        ),
    ] = None,
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; else it is only said.")] = False,
    receipt: Annotated[
        Path | None, typer.Option(help="Write the receipt to this file too.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="RECEIPT",
            help="Remove nothing: search the storage for what a receipt says is gone.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove what a storage holds of one person, and write a receipt; without --yes only say what.

    Pictures, checkpoints that learnt from them and what attacks drew go; records lose the person's
    rows. The data set itself is yours to edit. Exit code 15: a search still finds something.

    Example:
        dcdctl forget -
        dcdctl forget - --yes --storage s3://my-bucket/dcdctl
        dcdctl forget - --verify forget-20261125-210000-1a2b3c
    """
    import sys

    if identity == "-":
        if sys.stdin.isatty():
            typer.echo("The person's name in the data set:", err=True)
        identity = sys.stdin.readline().rstrip("\n")
    if identity is None and verify is None:
        raise typer.BadParameter("name the person, or - to read the name from standard input")
    if verify is not None:
        if yes or receipt is not None:
            raise typer.BadParameter("--verify only searches; name no --yes and no --receipt")
        from orchestrator.forget_search import verify as search

        found = search(storage or ".dcdctl", verify, identity)
        show(found, as_json)
        found.require_nothing()
        return
    from orchestrator.forget import forget as run

    assert identity is not None
    with console_for(True).status("looking through the storage"):
        outcome = run(storage or ".dcdctl", identity, yes=yes, receipt=receipt)
    show(outcome, as_json)
    outcome.require_nothing()
