"""`dcdctl status`, `logs`, `trials` and `track`: what a run's folder says, and who shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cluster_options import Insecure
from orchestrator.completion import run_names, run_or_job_names
from orchestrator.failure import Command

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import RenderableType

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="A run's folder, its name or a start of that, or its s3:// address; none is the "
        "newest one.",
        autocompletion=run_names,
    ),
]
RunOrJob = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN|JOB",
        help="A run's folder, or its name or a start of that; none is the newest one. A job "
        "(dcdctl-...) is asked of its cluster.",
        autocompletion=run_or_job_names,
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|ADDRESS",
        help="Ask this cluster for JOB, else for its newest; for jobs that another machine sent.",
    ),
]
Storage = Annotated[
    str | None, typer.Option(metavar="URI", help="Where the runs are; else .dcdctl.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Every = Annotated[float, typer.Option("--every", min=0.2, help="Seconds between two looks.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (status, logs, trials, track):
        app.command(cls=Command, rich_help_panel="Look at runs")(command)


def status(
    run: RunOrJob = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and draw it again until the run ends.")
    ] = False,
    every: Every = 2.0,
    hour_price: Annotated[
        float | None, typer.Option(min=0, help="Of one core for an hour: adds money to the spend.")
    ] = None,
    storage: Storage = None,
    cluster: Cluster = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Show where a run is: trials, best so far, spend, time left; and without RUN, all runs.

    It reads the storage alone, so it works from any terminal or machine that sees it. A job on a
    cluster, or --cluster, asks the cluster instead.

    Example:
        dcdctl status
        dcdctl status 3c4a --watch
        dcdctl status .dcdctl/runs/3c4a659d6c0e --json
        dcdctl status dcdctl-1125-183001-a1b2 --watch
        dcdctl status --cluster aws.yaml
    """
    if _of_a_job(run, cluster):
        from orchestrator.find_run import storage_root
        from orchestrator.remote_status import show_status, watched

        with watched(run, storage_root(storage), cluster, insecure=insecure) as job:
            show_status(job, every if watch else None, hour_price, as_json=as_json)
        return
    from rich.console import Console, Group

    from orchestrator import status_page
    from orchestrator.find_run import find_run, runs_of, storage_root
    from orchestrator.open_run import split_address
    from orchestrator.run_status import StatusReader

    run, storage = split_address(run, storage)
    root = storage_root(storage)
    reader = StatusReader(find_run(run, root), hour_price)
    if as_json:
        if not watch:
            typer.echo(reader.read().model_dump_json(indent=2))
            return
        _json_lines(reader, every)
        return

    def draw() -> tuple[RenderableType, bool]:
        found = reader.read()
        parts: list[RenderableType] = [status_page.status_screen(found)]
        if run is None:
            others: list[Path] = runs_of(root)
            if len(others) > 1:
                parts += ["", status_page.runs_table(others[:20], hour_price)]
        return Group(*parts), found.state == "running"

    console = Console(highlight=False)
    if watch:
        status_page.watch(console, draw, every)
    else:
        console.print(draw()[0])


def _json_lines(reader: object, every: float) -> None:
    """Print one JSON object a line until the run ends."""
    import time

    from orchestrator.run_status import StatusReader

    assert isinstance(reader, StatusReader)
    while True:
        found = reader.read()
        typer.echo(found.model_dump_json())
        if found.state != "running":
            return
        time.sleep(every)


def _of_a_job(run: str | None, cluster: str | None) -> bool:
    if cluster is not None:
        return True
    return run is not None and run.startswith("dcdctl-")


def logs(
    run: RunOrJob = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and print what comes until the run ends.")
    ] = False,
    trial: Annotated[
        int | None, typer.Option(min=0, help="All that is known of one trial; 0 is the control.")
    ] = None,
    every: Every = 1.0,
    storage: Storage = None,
    cluster: Cluster = None,
    insecure: Insecure = False,
) -> None:
    """Print what happened in a run: stages, trials as they ended, warnings, errors.

    Example:
        dcdctl logs
        dcdctl logs 3c4a --follow
        dcdctl logs 3c4a --trial 4
        dcdctl logs dcdctl-1125-183001-a1b2 --follow
    """
    if _of_a_job(run, cluster):
        from orchestrator.find_run import storage_root
        from orchestrator.remote_status import show_logs, watched

        with watched(run, storage_root(storage), cluster, insecure=insecure) as job:
            show_logs(job, every if follow else None, trial)
        return
    from rich.console import Console

    from orchestrator import run_log
    from orchestrator.find_run import find_run, storage_root
    from orchestrator.open_run import split_address

    run, storage = split_address(run, storage)
    log = run_log.RunLog(find_run(run, storage_root(storage)), trial)
    console = Console(highlight=False, soft_wrap=True)
    lines: Iterable[str] = run_log.follow(log, every) if follow else log.new()
    printed = False
    for line in lines:
        console.print(line)
        printed = True
    if not printed:
        what = "this trial" if trial is not None else "this run"
        typer.echo(f"nothing is known of {what} yet; add --follow to wait for it", err=True)


def trials(
    run: Run = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    storage: Storage = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line on stdout.")
    ] = False,
) -> None:
    """List the trials of a run: setting, accuracy and attacks with intervals, cost, error.

    Example:
        dcdctl trials
        dcdctl trials 3c4a --json | jq 'select(.meets_goals) | .settings'
    """
    from rich.console import Console

    from orchestrator.find_run import find_run, storage_root
    from orchestrator.open_run import split_address
    from orchestrator.record_cache import RecordCache
    from orchestrator.run_status import read_spec
    from orchestrator.trial_table import trial_rows, trials_table

    run, storage = split_address(run, storage)
    folder = find_run(run, storage_root(storage))
    cache = RecordCache(folder)
    rows = trial_rows(folder.name, read_spec(folder), cache.read())
    rows = [row for row in rows if row.status == "failed" or not failed]
    for path in cache.unreadable:
        typer.echo(f"the record {path} cannot be read and is left out", err=True)
    if as_json:
        for row in rows:
            typer.echo(row.model_dump_json())
    elif rows:
        Console(highlight=False).print(trials_table(rows))
    else:
        typer.echo("no trial has failed" if failed else "no trial has ended yet", err=True)


def track(
    run: Run = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Write to MLflow what it does not have.")
    ] = False,
    every_run: Annotated[bool, typer.Option("--all", help="All runs of the storage.")] = False,
    uri: Annotated[
        str | None, typer.Option(help="Of another MLflow than the run's experiment names.")
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Say what MLflow lacks of a run, and with --replay fill it in from the records.

    Example:
        dcdctl track --replay
        dcdctl track --replay --all --uri http://127.0.0.1:5000
    """
    from rich.console import Console

    from orchestrator.find_run import is_aside, runs_of, storage_root
    from orchestrator.open_run import open_run, open_runs
    from orchestrator.track_command import track as look

    if run is not None and every_run:
        raise typer.BadParameter("--all takes every run of the storage; name none beside it")
    if every_run:
        names = [str(one) for one in runs_of(storage_root(storage)) if not is_aside(one)]
        named = open_runs(names, storage, weights=replay)
    else:
        named = [open_run(run, storage, weights=replay)]
    found = look(named, replay=replay, uri=uri, console=Console(stderr=True))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        found.render(Console())
