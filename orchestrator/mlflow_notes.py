"""The notes that MLflow shows above an experiment and a run: Markdown, short, with the frontier."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.records import Rate
from orchestrator.summary import RunSummary, TrialSummary

BEST = 10
"""Trials that a note lists."""


def sweep_note(summary: RunSummary, run_id: str, figures: bool) -> str:
    """Return the note of a sweep.

    Args:
        summary: of its records.
        run_id: MLflow's, whose artefacts hold the frontier.
        figures: whether they are there.
    """
    lines = [f"**{summary.verdict}**", "", summary.reason, ""]
    if figures:
        lines += [picture(run_id), ""]
    lines += _table(summary)
    if summary.command:
        lines += ["", "Apply the recommended setting:", "", f"    {summary.command}"]
    if figures:
        lines += ["", "The whole report is the artefact `report.html`."]
    return "\n".join(lines)


def experiment_note(summary: RunSummary, experiment_id: str, run_id: str, figures: bool) -> str:
    """Return the note of the experiment: what its runs are, and what the newest sweep found."""
    lines = [
        "Each parent run is a sweep of `dcdctl`, each nested run one of its trials; "
        "`dcdctl.role` names the control and the recommended trial. A view: the records in the "
        "storage are the truth, and `dcdctl track --replay` writes this again.",
        "",
        f"Newest sweep: [{summary.name} {summary.fingerprint}]"
        f"(#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning)",
        "",
        f"**{summary.verdict}**",
    ]
    return "\n".join([*lines, "", picture(run_id)] if figures else lines)


def picture(run_id: str) -> str:
    """Return the frontier as Markdown; MLflow's server gives out a run's artefacts there."""
    where = f"get-artifact?path=note%2Ffrontier.png&run_uuid={run_id}"
    return f"![attack accuracy against clean accuracy of every trial]({where})"


def _table(summary: RunSummary) -> Iterator[str]:
    done = [t for t in summary.trials if t.clean_accuracy and t.worst_attack]
    first = [t for t in done if t.trial_id == summary.control]
    rest = sorted(
        (t for t in done if t.trial_id != summary.control),
        key=lambda t: (t.trial_id != summary.focus, t.rank or len(done), not t.on_front, t.index),
    )
    if not done:
        return
    yield "| trial | clean accuracy | accuracy@1 of the worst attack | standing |"
    yield "|---|---|---|---|"
    for trial in [*first, *rest[:BEST]]:
        name = "control" if trial in first else trial.title or f"trial {trial.index}"
        assert trial.clean_accuracy is not None
        assert trial.worst_attack is not None
        cells = (name, _rate(trial.clean_accuracy.overall), _rate(trial.worst_attack))
        yield f"| {' | '.join(cells)} | {_standing(summary, trial)} |"
    if len(rest) > BEST:
        yield ""
        yield f"and {len(rest) - BEST} more trials."


def _standing(summary: RunSummary, trial: TrialSummary) -> str:
    if trial.trial_id == summary.recommended:
        return "recommended"
    if trial.trial_id == summary.nearest:
        return "nearest to the goals"
    if trial.rank:
        return f"meets both goals, rank {trial.rank}"
    return "on the frontier" if trial.on_front else ""


def _rate(rate: Rate) -> str:
    low, high = 100 * rate.low, 100 * rate.high
    return f"{100 * rate.value:.1f} % ({low:.1f} to {high:.1f}, n={rate.n})"
