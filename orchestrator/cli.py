"""The command line: load the experiment, call one function, print what it returns.

Nothing but typer is imported before a command runs, so that help answers at once. The commands
are in files by topic, `*_cli.py`; here they are put together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from orchestrator.audit_cli import audit
from orchestrator.clean_cli import clean
from orchestrator.cluster_cli import register as register_cluster
from orchestrator.data_cli import augment, plan, protect
from orchestrator.failure import Command
from orchestrator.forget_cli import forget
from orchestrator.jobs_cli import register as register_jobs
from orchestrator.model_cli import attack, landscape, train
from orchestrator.prior_cli import register as register_prior
from orchestrator.report_command import report
from orchestrator.run_cli import compare, sweep
from orchestrator.setup_cli import doctor, init, schema, validate
from orchestrator.trainers_cli import trainers
from orchestrator.views_cli import register as register_views

app = typer.Typer(
    name="dcdctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run `dcdctl`."""
    app(prog_name="dcdctl")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"dcdctl {version('dcdctl')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Protect identities against model inversion by changing the data, and measure it.

    `dcdctl sweep` runs the built-in experiment and writes a report.
    """


def _add(panel: str, *commands: Callable[..., None]) -> None:
    for command in commands:
        app.command(cls=Command, rich_help_panel=panel)(command)


_add("The main job", sweep, compare, report)
_add("One step", landscape, trainers)
_add("The main job", protect)
_add("One step", plan, augment, train, attack)
_add("The main job", audit)
register_views(app)
register_jobs(app)
register_cluster(app)
register_prior(app)
_add("Tidy up", forget, clean)
_add("Set up", init, validate, schema, doctor)
