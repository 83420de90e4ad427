"""`dcdctl sweep` and `dcdctl compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli_options import (
    Assignments,
    Config,
    Json,
    MaxCost,
    MaxHours,
    Seed,
    Storage,
    console_for,
    limited,
    load,
    show,
)
from orchestrator.cluster_options import Cluster, Detach, Down, Insecure, There
from orchestrator.jobs_cli import run_there


def sweep(
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Run all of it tiny, as a test.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped sweep.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: run failed trials again too.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set an earlier sweep aside, and start over.")
    ] = False,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Search for the setting that protects best, and write the report.

    Example:
        dcdctl sweep
        dcdctl sweep --cluster aws.yaml
        dcdctl sweep experiment.yaml --set sweep.trials=12
        dcdctl sweep --resume
        dcdctl sweep experiment.yaml --max-hours 10
    """
    if resume and fresh:
        raise typer.BadParameter("--resume keeps the earlier trials and --fresh sets them aside")
    if retry_failed and not resume:
        raise typer.BadParameter("--retry-failed goes with --resume")
    there = There(cluster, detach, down, insecure)
    spec = load(config, limited(assignments, max_hours, max_cost), storage, seed)
    if smoke:
        from orchestrator.smoke import smoke as tiny

        spec = tiny(spec)
    mode: Literal["new", "resume", "fresh"] = "resume" if resume else "fresh" if fresh else "new"
    if cluster is not None:
        run_there(there, "sweep", [spec], as_json, mode=mode, retry_failed=retry_failed)
        return
    from orchestrator.sweep import run_sweep

    outcome = run_sweep(spec, mode=mode, console=console_for(as_json), retry_failed=retry_failed)
    show(outcome, as_json)


def _is_run(path: Path, storage: str | None) -> bool:
    """Say whether a word names a finished run and no experiment file."""
    from orchestrator.find_run import runs_of, storage_root
    from orchestrator.open_run import split_address

    if path.exists():
        return (path / "trials").is_dir()
    if split_address(str(path), None)[1] is not None:
        return True
    if path.suffix or path.name != str(path):
        return False
    return any(run.name.startswith(path.name) for run in runs_of(storage_root(storage)))


def compare(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATHS",
            help="Experiment files to run, or finished runs to read (folders, names, s3:// "
            "addresses); none is the built-in experiment.",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Run each experiment with these seeds.")
    ] = None,
    assignments: Assignments = None,
    storage: Storage = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Run all of it tiny, as a test.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a stopped comparison.")
    ] = False,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Train and attack every defence alike, and write the paper's Table 1.

    Folders of finished runs are compared as they are; nothing is run again.

    Example:
        dcdctl compare --seeds 0,1,2
        dcdctl compare a.yaml b.yaml
        dcdctl compare .dcdctl/runs/3c4a659d6c0e .dcdctl/runs/71b22ce0a4d9
        dcdctl compare 3c4a 71b2 --storage s3://bucket/prefix
    """
    there = There(cluster, detach, down, insecure)
    from orchestrator.compare import compare_runs, run_comparison

    named = paths or []
    runs = [path for path in named if _is_run(path, storage)]
    if runs and len(runs) == len(named):
        if seeds or assignments or smoke or resume or max_hours or max_cost:
            raise typer.BadParameter("finished runs are only read; name nothing but --storage")
        from orchestrator.find_run import storage_root
        from orchestrator.open_run import open_runs, publish

        folders = open_runs([str(path) for path in runs], storage)
        out = storage_root(storage) if storage else folders[0].absolute().parents[1]
        outcome = compare_runs(folders, out / "comparisons")
        show(outcome, as_json)
        if address := publish(Path(outcome.table)):
            typer.echo(f"also at {address}", err=True)
        return
    if runs:
        raise typer.BadParameter("name experiment files or folders of runs, not both")
    try:
        numbers = [int(word) for word in seeds.split(",")] if seeds else None
    except ValueError:
        raise typer.BadParameter(f"--seeds {seeds!r} is no list of numbers; write 0,1,2") from None
    chosen: list[Path | None] = [*named] or [None]
    changes = limited(assignments, max_hours, max_cost)
    specs = [load(path, changes, storage, None) for path in chosen]
    if smoke:
        from orchestrator.smoke import smoke as tiny

        specs = [tiny(spec) for spec in specs]
    mode: Literal["new", "resume"] = "resume" if resume else "new"
    if cluster is not None:
        alone = [
            spec.model_copy(update={"seed": number})
            for spec in specs
            for number in numbers or [spec.seed]
        ]
        run_there(there, "compare", alone, as_json, mode=mode)
        return
    show(run_comparison(specs, numbers, console_for(as_json), mode=mode), as_json)
