"""`dcdctl train`, `attack` and `landscape`: one classifier, and what is found in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli_options import (
    Assignments,
    Config,
    Json,
    Out,
    Seed,
    Storage,
    console_for,
    load,
    show,
)
from orchestrator.cluster_options import Cluster, Detach, Down, Insecure, There
from orchestrator.completion import run_folders
from orchestrator.jobs_cli import run_there


def train(
    out: Out,
    config: Config = None,
    defense: Annotated[
        Literal["none", "dcd"], typer.Option(help="none trains the control.")
    ] = "dcd",
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Train the target classifier on the protected images, or on the plain ones.

    Example:
        dcdctl train experiment.yaml --defense none --out control
        dcdctl train experiment.yaml --out protected --cluster aws.yaml
    """
    there = There(cluster, detach, down, insecure)
    spec = load(config, assignments, storage, seed)
    if cluster is not None:
        from orchestrator.job_request import StepOptions

        step = StepOptions(defense=defense)
        run_there(there, "train", [spec], as_json, out=out, step=step)
        return
    from orchestrator.commands import train as run

    show(run(spec, defense, out, console_for(as_json)), as_json)


def attack(
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", "-c", help="What `dcdctl train` wrote.")
    ],
    config: Config = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Stop at clear verdicts, for a part of the budget.")
    ] = False,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    cluster: Cluster = None,
    detach: Detach = False,
    down: Down = False,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Attack a trained classifier and judge the reconstructions.

    Example:
        dcdctl attack experiment.yaml --checkpoint control
        dcdctl attack experiment.yaml --checkpoint control --screen
        dcdctl attack experiment.yaml --checkpoint control --cluster aws.yaml
    """
    there = There(cluster, detach, down, insecure)
    spec = load(config, assignments, storage, seed)
    if cluster is not None:
        from orchestrator.forgotten import require_whole
        from orchestrator.job_request import StepOptions
        from tasks.checkpoint import load_checkpoint

        require_whole(checkpoint.absolute())
        load_checkpoint(checkpoint)  # what is damaged is not worth a way to a cluster
        step = StepOptions(screen=screen)
        run_there(there, "attack", [spec], as_json, checkpoint=checkpoint, step=step)
        return
    from orchestrator.commands import attack as run

    show(run(spec, checkpoint, console_for(as_json), screen), as_json)


def landscape(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's folder, its name or a start of that, or its s3:// address.",
            autocompletion=run_folders,
        ),
    ],
    trial: Annotated[
        int | None,
        typer.Option(min=1, help="Which trial; else the recommended one, or the nearest."),
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="Of each target and kind.")] = 8,
    probes: Annotated[int, typer.Option(min=1, help="Of the trace, for each image.")] = 8,
    storage: Annotated[
        str | None, typer.Option(metavar="URI", help="Where the runs are; else .dcdctl.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure loss and curvature around targets and surrogates: did the levers work as meant?

    Example:
        dcdctl landscape .dcdctl/runs/3c4a659d6c0e
    """
    from orchestrator.landscape import landscape as measure
    from orchestrator.open_run import open_run

    folder = open_run(run, storage, weights=True)
    show(measure(folder, console_for(as_json), trial=trial, images=images, probes=probes), as_json)
