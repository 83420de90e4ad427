"""`dcdctl init`, `validate`, `schema` and `doctor`: before the first run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli_options import (
    Assignments,
    Config,
    Json,
    Seed,
    Storage,
    console_for,
    load,
    show,
)


def init(
    path: Annotated[Path, typer.Argument(metavar="PATH")] = Path("experiment.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented experiment file to start from.

    Example:
        dcdctl init experiment.yaml
    """
    from orchestrator.config_template import write_template

    write_template(path, force=force)
    typer.echo(f"{path} is written; read it, change it, then: dcdctl sweep {path}")


def validate(
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all settings as JSON.")] = False,
) -> None:
    """Check an experiment and say what it means.

    Example:
        dcdctl validate experiment.yaml
        dcdctl validate experiment.yaml --set seed=1 --json
    """
    from orchestrator.config import outline

    spec = load(config, assignments, storage, seed)
    lines = outline(spec)
    if as_json:
        typer.echo(spec.model_dump_json(indent=2))
    else:
        typer.echo("\n".join(f"{heading:<11} {phrase}" for heading, phrase in lines.items()))


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="A table to read instead of the JSON Schema.")
    ] = False,
) -> None:
    """Print what an experiment file may hold, as a JSON Schema for editors.

    Example:
        dcdctl schema > experiment.schema.json
    """
    import json

    from orchestrator.config_template import settings_table
    from orchestrator.settings import json_schema

    typer.echo(settings_table() if markdown else json.dumps(json_schema(), indent=2))


def doctor(
    storage: Storage = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not start Ray.")] = False,
    as_json: Json = False,
) -> None:
    """Check that this machine can run an experiment; exit code 1 where it cannot.

    Example:
        dcdctl doctor
        dcdctl doctor --quick --json
    """
    from orchestrator.doctor import examine

    with console_for(as_json).status("looking at this machine"):
        diagnosis = examine(load(None, None, storage, None), quick=quick)
    show(diagnosis, as_json)
    if not diagnosis.healthy:
        raise typer.Exit(1)
