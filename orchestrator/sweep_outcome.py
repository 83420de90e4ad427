"""What a sweep returns, read from its folder: the same for one here and for one on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.console import Console

from orchestrator.adaptive import read_adaptive, sentence
from orchestrator.finished_run import load_run
from orchestrator.open_run import shown_path
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.summary import summarise
from tasks.spec import Spec


class SweepOutcome(Spec):
    """What a sweep leaves behind."""

    run_dir: str
    report: str
    records: tuple[TrialRecord, ...]
    resumed: int = Field(ge=0, description="Trials that were there already.")
    seconds: float
    verdict: str
    adaptive: str | None = Field(description="What an attacker who knows of DCD reaches.")
    next_commands: tuple[str, ...]

    def render(self, console: Console) -> None:
        """Print it for people."""
        found = [text for text in (self.verdict, self.adaptive) if text]
        lines = ["", *found, "", f"Report: {self.report}", "Next:"]
        lines += [f"  {command}" for command in self.next_commands]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def outcome_of(
    run: Path, report: Path, *, resumed: int, seconds: float, page: str | None = None
) -> SweepOutcome:
    """Return what a sweep left in its folder.

    Args:
        run: the folder.
        report: that was written.
        resumed: trials that were there before.
        seconds: that it took.
        page: where MLflow's pages list the run, from `#` on; None where that is not known.
    """
    found = load_run(run)
    records = found.records
    return SweepOutcome(
        run_dir=str(run),
        report=str(report),
        records=tuple(records),
        resumed=resumed,
        seconds=seconds,
        verdict=summarise(found.spec, records, shown_path(run)).verdict,
        adaptive=sentence(read_adaptive(run), records),
        next_commands=tuple(_next_commands(found.spec, shown_path(run), records, page)),
    )


def _next_commands(
    spec: ExperimentSpec, run: str, records: Sequence[TrialRecord], page: str | None
) -> list[str]:
    """Return the two commands worth typing next: apply what was found, and look closer."""
    from orchestrator.tracking import runs_page, ui_command

    found = summarise(spec, records, run)
    apply = found.command or f"dcdctl sweep {run} --resume --set sweep.trials={len(records) + 5}"
    if not spec.tracking.enabled:
        return [apply, f"dcdctl plan {run}"]
    return [apply, ui_command(spec, page or runs_page(None))]
