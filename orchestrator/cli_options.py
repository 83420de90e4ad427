"""What the commands share: their options, how an experiment is loaded, how a result is shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.spec import ExperimentSpec

Config = Annotated[
    Path | None,
    typer.Argument(
        metavar="CONFIG",
        help="Experiment file, or a run's folder or s3:// address; none is the built-in one.",
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a setting; may be repeated."),
]
Storage = Annotated[
    str | None, typer.Option(metavar="URI", help="Where results are kept: overrides `storage`.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Overrides `seed`.")]
MaxHours = Annotated[
    float | None,
    typer.Option(metavar="HOURS", help="Stop before this many core-hours are spent."),
]
MaxCost = Annotated[
    float | None, typer.Option(metavar="MONEY", help="Stop before this is spent; needs a price.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, progress on stderr.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result is written.")]


class Outcome(Protocol):
    """What a step returns: a model that can draw itself."""

    def model_dump_json(self, *, indent: int) -> str: ...  # noqa: D102

    def render(self, console: Console) -> None: ...  # noqa: D102


def load(
    config: Path | None, assignments: list[str] | None, storage: str | None, seed: int | None
) -> ExperimentSpec:
    """Return the experiment that a command was asked for.

    Raises:
        SpecError: a setting is wrong.
    """
    from json import dumps

    from orchestrator.config import load_spec

    changes = list(assignments or ())
    changes += [f"storage={dumps(storage)}"] if storage is not None else []
    changes += [f"seed={seed}"] if seed is not None else []
    return load_spec(None if config is None else _here(config), changes)


def _here(config: Path) -> Path:
    """Return an experiment file or a run's folder; of a run in an object store, what is fetched."""
    from orchestrator.open_run import open_run, split_address

    in_a_store = split_address(str(config), None)[1] is not None
    return open_run(str(config), None) if in_a_store else config


def limited(
    assignments: list[str] | None, max_hours: float | None, max_cost: float | None
) -> list[str]:
    """Return the changes of settings, with the budget's among them."""
    limits = {"max_hours": max_hours, "max_cost": max_cost}
    named = [f"compute.{name}={limit}" for name, limit in limits.items() if limit is not None]
    return [*(assignments or ()), *named]


def console_for(as_json: bool) -> Console:
    """Return where progress and tables go: standard error where standard output is for JSON."""
    from rich.console import Console

    return Console(stderr=as_json)


def show(outcome: Outcome, as_json: bool) -> None:
    """Print a result, for people or as JSON."""
    if as_json:
        typer.echo(outcome.model_dump_json(indent=2))
    else:
        outcome.render(console_for(as_json))
