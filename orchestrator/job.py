"""The other end of `--cluster`: runs on the head node, as a job, and prints events alone.

It sends what the records are made of, in lines: a job's output is the one way back that every
cluster has. Names of people stay out of it, and pictures unless the people are drawn ones.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.events import EventLog
    from orchestrator.job_request import JobRequest
    from orchestrator.spec import ExperimentSpec

FILES = ("evaluation.json", "adaptive.json", "trainers.json", "budget.json")
PICTURES = ("reconstructions.npz", "recipe.parquet")


def main() -> None:
    """Do what `request.json` asks for."""
    from clusters.embedded import IN_A_JOB
    from orchestrator.events import TO_STDOUT, EventLog
    from orchestrator.failure import INTERRUPTED, describe
    from orchestrator.job_request import JobRequest
    from orchestrator.job_steps import run_step
    from orchestrator.nameless import nameless_job
    from orchestrator.shipping import REQUEST

    os.environ |= {TO_STDOUT: "1", IN_A_JOB: "1"}
    asked = JobRequest.model_validate_json(Path(REQUEST).read_bytes())
    log = EventLog()
    log.write("job", job_id=asked.job_id, command=asked.command, runs=len(asked.specs))
    try:
        if asked.command in ("sweep", "compare"):
            _run_sweeps(asked, log)
        else:
            run_step(asked, log)
    except KeyboardInterrupt:
        said = "the job was stopped; what is finished is kept"
        log.write("failed", text=said, code=INTERRUPTED)
        sys.exit(INTERRUPTED)
    except Exception as error:
        sentence, code = describe(error)
        log.write("failed", text=nameless_job(sentence, error, asked.specs), code=code)
        sys.exit(code)
    log.write("done")


def _run_sweeps(asked: JobRequest, log: EventLog) -> None:
    """Run a sweep, or the runs of a comparison one after the other; each sends what it made.

    Raises:
        FailedTrialsError: of a sweep.
        BudgetReachedError: of a sweep, or that of the whole comparison.
    """
    from rich.console import Console

    from orchestrator.compare import comparing, run_each
    from orchestrator.sweep import run_sweep
    from tasks.errors import BudgetReachedError, FailedTrialsError

    console = Console(quiet=True)

    def begins(number: int, spec: ExperimentSpec) -> None:
        run = run_folder(spec)
        shown = shown_spec(spec).model_dump(mode="json")
        log.write("run", run=run.name, number=number, of=len(asked.specs), spec=shown)
        if asked.mode != "fresh":
            for record in sorted(run.glob("trials/*/record.json")):
                log.send(run.name, record, run)

    def ended(spec: ExperimentSpec) -> None:
        _send_results(run_folder(spec), spec.data.kind == "builtin", log)

    if asked.command == "compare":
        specs = [comparing(spec, spec.seed) for spec in asked.specs]
        ran = run_each(specs, console, mode=asked.mode, begins=begins, ended=ended)
        if ran.reached:
            raise BudgetReachedError(ran.reached)
        if ran.failed:
            raise FailedTrialsError(ran.failed[0])
        return
    (spec,) = asked.specs
    begins(0, spec)
    try:
        outcome = run_sweep(spec, mode=asked.mode, console=console, retry_failed=asked.retry_failed)
    except (FailedTrialsError, BudgetReachedError):
        ended(spec)
        raise
    ended(spec)
    log.write("outcome", resumed=outcome.resumed, seconds=outcome.seconds)


def run_folder(spec: ExperimentSpec) -> Path:
    """Return where an experiment's run is kept."""
    from orchestrator.selection import select
    from orchestrator.store import Store
    from orchestrator.sweep import run_fingerprint

    return Store(spec.storage).run(run_fingerprint(spec, select(spec)))


def shown_spec(spec: ExperimentSpec) -> ExperimentSpec:
    """Return what another machine needs to show a run, without data, people and paths."""
    from orchestrator.spec import ExperimentSpec

    dcd = spec.dcd.model_copy(update={"receivers": None, "per_target": {}})
    embedding = spec.evaluation.embedding.model_copy(update={"path": None})
    evaluation = spec.evaluation.model_copy(update={"embedding": embedding})
    keep = ("name", "seed", "training", "attacks", "adaptive_attacks", "sweep", "compute")
    own = {name: getattr(spec, name) for name in keep}
    return ExperimentSpec().model_copy(update=own | {"dcd": dcd, "evaluation": evaluation})


def _send_results(run: Path, drawn: bool, log: EventLog) -> None:
    """Send the files of a run that go back; a trial's record is its last."""
    for name in (*FILES, *(("examples.npz",) if drawn else ())):
        log.send(run.name, run / name, run)
    for record in sorted((run / "trials").glob("*/record.json")):
        for name in PICTURES if drawn else ():
            log.send(run.name, record.parent / name, run)
        log.send(run.name, record, run)


if __name__ == "__main__":
    main()
