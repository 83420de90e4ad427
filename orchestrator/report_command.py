"""`dcdctl report`: what its options are; the work is in `orchestrator.report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.completion import run_folders


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="Folders of runs, their names or a start of those, or s3:// addresses; none is "
            "the newest run.",
            autocompletion=run_folders,
        ),
    ] = None,
    show_people: Annotated[
        bool, typer.Option("--show-people", help="Put pictures of real people on the page.")
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that may be lost: overrides sweep.goal."),
    ] = None,
    max_attack: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Attack accuracy that is accepted: overrides sweep.goal."),
    ] = None,
    hour_price: Annotated[
        float | None,
        typer.Option(min=0, help="Of one core or GPU, for money; else compute.hour_price."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the report; else the run, or beside the runs."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URI", help="Where the runs are; else .dcdctl.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it too, by an installed Chromium.")] = (
        False
    ),
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print the schema of report.json, and stop.")
    ] = False,
) -> None:
    """Write the report of a run again, or of several runs together, from their records.

    Example:
        dcdctl report .dcdctl/runs/3c4a659d6c0e
        dcdctl report .dcdctl/runs/3c4a659d6c0e --max-drop 0.02 --max-attack 0.01 --pdf
        dcdctl report .dcdctl/runs/3c4a659d6c0e .dcdctl/runs/71b22ce0a4d9 --out together
        dcdctl report 3c4a --storage s3://bucket/prefix
    """
    if json_schema:
        from orchestrator.report_data import schema_text

        typer.echo(schema_text(), nl=False)
        return
    from orchestrator.open_run import open_runs, publish
    from orchestrator.report import write_report

    page = write_report(
        *open_runs(runs, storage),
        show_people=show_people,
        max_drop=max_drop,
        max_attack=max_attack,
        hour_price=hour_price,
        out=out,
    )
    typer.echo(page)
    if pdf:
        from orchestrator.report_pdf import write_pdf

        typer.echo(write_pdf(page))
    if address := publish(page):
        typer.echo(f"also at {address}", err=True)
