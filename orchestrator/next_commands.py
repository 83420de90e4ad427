"""What is worth typing after a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.open_run import shown_path
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.summary import summarise


def next_commands(
    spec: ExperimentSpec, run: Path, records: Sequence[TrialRecord], page: str | None
) -> list[str]:
    """Return the two commands worth typing next: apply what was found, and look closer.

    Args:
        spec: the experiment.
        run: folder of its run.
        records: of the run.
        page: where MLflow's pages list it, from `#` on; None where nothing is tracked.
    """
    from orchestrator.tracking import ui_command

    named = shown_path(run)
    more = f"dcdctl sweep {named} --resume --set sweep.trials={len(records) + 5}"
    apply = summarise(spec, records, named).command or more
    return [apply, f"dcdctl plan {named}" if page is None else ui_command(spec, page)]
