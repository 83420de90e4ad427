"""`dcdctl prior`: the attacker's generator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from orchestrator.failure import Command

prior_app = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    prior_app.command("train", cls=Command)(prior_train)
    prior_app.command("convert", cls=Command)(prior_convert)
    app.add_typer(
        prior_app, name="prior", help="Make the attacker's generator.", rich_help_panel="One step"
    )


def prior_train(
    out: Out,
    config: Config = None,
    assignments: Assignments = None,
    storage: Storage = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Train the attacker's generator on the public images, and keep it in a file.

    Example:
        dcdctl prior train experiment.yaml --out prior.safetensors
        dcdctl prior train --set prior.kind=gan --set prior.gan.workers=2 --out gan.safetensors
    """
    from orchestrator.prior_commands import train_prior

    spec = load(config, assignments, storage, seed)
    show(train_prior(spec, out, console_for(as_json)), as_json)


def prior_convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="A .pkl of stylegan2-ada-pytorch, or a .pt of stylegan2-pytorch."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A .safetensors file to write.")],
    as_json: Json = False,
) -> None:
    """Turn somebody's StyleGAN2 weights into a prior; code in the file is refused, never run.

    Example:
        dcdctl prior convert ffhq.pkl ffhq.safetensors
    """
    from orchestrator.prior_commands import convert_prior

    show(convert_prior(source, out), as_json)
