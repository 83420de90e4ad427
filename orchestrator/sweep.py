"""The sweep: Ray Tune over the levers of DCD, the undefended control beside it.

A trial is a pure function of its setting, and its record is written last. Resuming needs nothing
of Tune's own state: suggestions are recomputed, and a trial whose record is there is not run again.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console

from clusters.embedded import IN_A_JOB, embedded_ray
from clusters.held_folders import held_folder
from orchestrator.adaptive import measure_adaptive, still_to_measure
from orchestrator.budget import HOUR
from orchestrator.disk_space import require_margin, require_space
from orchestrator.events import EventLog, warnings_to
from orchestrator.find_run import JOB_NOTE
from orchestrator.forgotten import require_whole
from orchestrator.images_stage import images_key
from orchestrator.judges import (
    Judge,
    accuracy_counts,
    is_trained,
    judges_of,
    judges_task,
    protocol_key,
    seconds_of,
    trained_judges,
)
from orchestrator.ledger import set_aside_torn
from orchestrator.open_run import shown_path
from orchestrator.placement import (
    Placement,
    Slots,
    capacity_now,
    enough_capacity,
    like,
    options,
    place,
)
from orchestrator.prior_stage import prepare_prior
from orchestrator.progress import Display, TrialProgress
from orchestrator.provenance import NEEDS, note_needs, note_people, read_needs
from orchestrator.public_weights import with_public_weights
from orchestrator.publisher import publishing
from orchestrator.records import Rate, TrialRecord
from orchestrator.retries import RetryBudget
from orchestrator.search import planned_trials
from orchestrator.selection import Selection, choose, select
from orchestrator.spec import ExperimentSpec
from orchestrator.spending import NOTE, BudgetNote, Spending
from orchestrator.store import Store, records_of, set_aside, write_atomic
from orchestrator.sweep_outcome import SweepOutcome, outcome_of
from orchestrator.trainers import measure_trainers, still_to_train
from orchestrator.trial import World
from orchestrator.trial_queue import TrialQueue
from orchestrator.workload import settings_of
from orchestrator.world_stage import prepare_world
from tasks.errors import BudgetReachedError, FailedTrialsError, UnfinishedRunError
from tasks.spec import fingerprint

if TYPE_CHECKING:
    from orchestrator.background_tracker import BackgroundTracker

log = logging.getLogger(__name__)

Mode = Literal["new", "resume", "fresh"]


def run_sweep(
    spec: ExperimentSpec,
    *,
    mode: Mode = "new",
    console: Console,
    retry_failed: bool = False,
    spent_elsewhere: float = 0.0,
) -> SweepOutcome:
    """Run the experiment from data to report.

    Args:
        spec: the experiment.
        mode: new: refuse to touch an unfinished run. resume: go on with it. fresh: set what is
            there aside, and start over.
        console: for progress.
        retry_failed: with resume, run those trials again that failed.
        spent_elsewhere: core-hours of other runs that share this one's budget.

    Raises:
        BudgetReachedError: after the report was written: the budget ended the search.
        UnfinishedRunError: mode is new, and the run exists and is not finished.
        FailedTrialsError: after the report was written: at least one trial failed.
    """
    started = time.monotonic()
    display = Display(console)
    total = planned_trials(spec) + 1
    store = Store(spec.storage)
    with warnings_to(display.warn), store.locked():
        selection = select(spec)
        run = store.run(run_fingerprint(spec, selection))
        if mode == "resume":
            for name in set_aside(run, failed=retry_failed):
                display.line(f"  set aside, and run again     {name.parent.name}/{name.name}")
            limited = (spec.compute.max_hours, spec.compute.max_cost) != (None, None)
            if not limited and (torn := set_aside_torn(run)) is not None:
                display.line(f"  set aside, its hours unknown {torn.name}")
        changed = _images_changed(spec, selection, run)
        _enter(store, run, mode, total, changed)
        write_atomic(run / "spec.json", spec.model_dump_json(indent=2) + "\n")
        (run / JOB_NOTE).unlink(missing_ok=True)  # from now on it is driven from here
        records = records_of(run)
        before = 0 if changed else len({record.index for record in records})
        require_space(store.root, spec, selection)
        display.events = EventLog(run)
        display.line(_heading(spec, selection, run, before, total))
        tracker = _tracker(spec, store, run)
        if tracker is not None:
            tracker.submit(records)
        note: BudgetNote | None = None
        try:
            if before < total or _unfinished(spec, run):
                with embedded_ray(spec.compute.cpus), display.live():
                    spending = Spending.opened(spec, store, selection, spent_elsewhere)
                    note = _run_trials(spec, store, run, total, display, tracker, spending)
        finally:
            records = records_of(run)
            if tracker is not None:
                tracker.submit(records)
        report = _report(run, display)
        display.events.write("end", trials=len(records))
        if tracker is not None:
            tracker.submit(records)
            tracker.close(deadline_s=120)
    seconds = round(time.monotonic() - started, 1)
    page = tracker.page if tracker else None
    outcome = outcome_of(run, report, resumed=before, seconds=seconds, page=page)
    failed = [record for record in records if record.status == "failed"]
    if note is not None:
        raise BudgetReachedError(
            f"{note.sentence}{f'; {len(failed)} that were run failed' if failed else ''}; the "
            f"report is {report}; go on with a larger budget and --resume"
        )
    if failed:
        raise FailedTrialsError(
            f"{len(failed)} of {len(records)} trials failed, first trial {failed[0].index}: "
            f"{failed[0].error}; the report {report} shows them"
        )
    return outcome


def run_fingerprint(spec: ExperimentSpec, selection: Selection) -> str:
    """Return the run's identity: the settings, and which rows there are."""
    rows = selection.rows
    return fingerprint(
        [spec.run_fingerprint, rows.num_rows, int(np.bitwise_xor.reduce(rows["row_id"].to_numpy()))]
    )


def _images_changed(spec: ExperimentSpec, selection: Selection, run: Path) -> bool:
    """Say whether a run was made with other image files, by their sizes and times."""
    path = run / NEEDS
    needs = read_needs(path.read_bytes() if path.is_file() else None) or ()
    known = [name for name in needs if name.startswith("images/private-")]
    key = images_key(spec, selection.split("train", "test"))
    return bool(known) and f"images/private-{key}" not in known


def _enter(store: Store, run: Path, mode: Mode, total: int, changed: bool = False) -> None:
    if mode != "fresh":
        require_whole(run)
    if mode == "fresh" and run.exists():
        store.set_aside(run)  # unread: a torn record is no reason to keep it
    elif mode == "new" and (run / "spec.json").exists() and (done := len(records_of(run))) < total:
        raise UnfinishedRunError(
            f"this experiment has {done} of {total} trials in {shown_path(run)}; add --resume to "
            "go on with them, or --fresh to set them aside and start over"
        )
    elif mode == "new" and changed:
        raise UnfinishedRunError(
            f"image files have other sizes or times than when {shown_path(run)} was made; add "
            "--resume to run its trials again with them, or --fresh to set it aside and start "
            "over; `dcdctl report` shows it as it is (copies keep their times with cp -p)"
        )
    run.mkdir(parents=True, exist_ok=True)


def _unfinished(spec: ExperimentSpec, run: Path) -> bool:
    """Say whether anything that follows the trials is missing."""
    records = records_of(run)
    return bool(
        still_to_measure(spec, records, run)
        or still_to_train(spec, records, run, spec.hostile_trainers)
    )


def _run_trials(
    spec: ExperimentSpec,
    store: Store,
    run: Path,
    total: int,
    display: Display,
    tracker: BackgroundTracker | None,
    spending: Spending,
) -> BudgetNote | None:
    """Make the shared artefacts, then let Tune run every trial that has no record.

    Returns:
        Where the accounts stood when the budget ended it; None where all was run.
    """
    import ray

    (run / NOTE).unlink(missing_ok=True)
    if not spending.left:
        return spending.note(run, total)
    at_once = total if spec.sweep.search != "optuna" else min(total, spec.sweep.lookahead)
    placed_on = functools.partial(
        place,
        workers=spec.training.workers,
        trials=at_once,
        limit=spec.compute.concurrent_trials,
        grows=bool(os.environ.get(IN_A_JOB)),
        gpus_per_trial=spec.compute.gpus_per_trial,
    )
    capacity = enough_capacity(spec.training.workers, display.line)
    placed = placed_on(capacity)
    ledger = spending.ledger
    with ledger.stage("data and prior"):
        selection = choose(spec, store, display.stage)
        world = prepare_world(spec, store, selection, display.stage)
        trainings = [setting.training for setting in settings_of(spec)]
        world = with_public_weights(spec, trainings, store, selection, world, display.stage)
        prior, prior_key = prepare_prior(spec, store, selection, display.stage)
    require_margin(store.root)
    judged_by = fingerprint([protocol_key(spec, world), prior_key])
    note_people(run, store, world.rows)
    _write_examples(run, world)

    judges = judges_of(spec, world, store)
    note_needs(run, store)
    new_judges = [judge for judge in judges if not is_trained(judge)]
    world_ref = ray.put(world)
    with publishing() as publisher:
        # Beside trials they hold no core: made again after a failure, they would wait for the cores
        # of trials that wait for them.
        held = options(placed.task) if placed.judges_first else {"num_cpus": 0}
        make_judges = ray.remote(**held, max_retries=2)(judges_task)
        judges_ref = make_judges.remote(judges, trained_judges(judges), world_ref, publisher)
        if placed.judges_first:
            judges_ref = ray.put(ray.get(judges_ref))  # the driver's: no lost node takes them along

        spending.count(spec, run)
        queue = TrialQueue(
            spec,
            world,
            judged_by,
            run,
            total,
            budget=spending.budget,
            ledger=ledger,
            expected_s=spending.expected_s,
            devices=spending.devices(spec),
        )
        if outdated := queue.set_aside_outdated():
            display.line(f"  set aside, to be made anew   {len(outdated)} trials")
        bar = TrialProgress(display, total, total - len(queue.missing()), placed.slots)
        bar.start()
        slots = Slots(placed, lambda: placed_on(like(capacity, capacity_now())), bar.resize)

        def finished(record: TrialRecord) -> None:
            bar.finish(record)
            store.keep_up(run)
            if tracker is not None:
                tracker.submit([record])  # reading all of them each time would be quadratic

        if queue.missing():
            given = {"world": world_ref, "judges": judges_ref, "publisher": publisher}
            _tune(spec, given | {"prior": prior}, queue, placed, slots, bar, finished)
        ray.get(judges_ref)
    _write_evaluation(run, judges, spec)
    for judge in new_judges:
        ledger.add("judges", seconds_of(judge) / HOUR)
    shared = {"world": world_ref, "prior": prior, "judges": judges_ref}
    records = records_of(run)
    spending.count(spec, run)
    if queue.schedule.over_budget or (_unfinished(spec, run) and not spending.left):
        return spending.note(run, total)
    require_margin(store.root)
    there = capacity_now()
    devices = there.gpus or there.cpus
    # Their tasks fill the cluster, so all of it is counted for as long as they take.
    with ledger.stage("adaptive attacks", devices):
        measure_adaptive(spec, store, selection, run, records, shared, display.stage)
    waiting = still_to_train(spec, records, run, spec.hostile_trainers)
    with ledger.stage("trainers", devices):
        measure_trainers(spec, store, selection, run, waiting, shared, display.stage)
    note_needs(run, store)
    return None


def _tune(
    spec: ExperimentSpec,
    shared: dict[str, Any],
    queue: TrialQueue,
    placed: Placement,
    slots: Slots,
    bar: TrialProgress,
    finished: Callable[[TrialRecord], None],
) -> None:
    """Run the queue through Ray Tune."""
    from orchestrator.tune_adapter import tune_queue

    compute = spec.compute
    with held_folder("tune-") as scratch:
        tune_queue(
            shared | {"spec": spec},
            queue,
            placed=placed,
            slots=slots,
            workers=spec.training.workers,
            scratch=scratch,
            begun=bar.begin,
            finished=finished,
            lost=bar.lose,
            retries=RetryBudget(queue.total, compute.trial_retries, compute.sweep_retries),
        )


def _write_examples(run: Path, world: World) -> None:
    """Keep one picture of each target and of its surrogate for the report's grid."""
    identities = world.rows["identity"].to_numpy(zero_copy_only=False)
    train, lent = world.mask("train"), world.mask("surrogate")

    def first(name: str, mask: np.ndarray) -> np.ndarray:
        return np.asarray(world.images[np.flatnonzero(mask & (identities == name))[0]])

    if not world.targets:
        return
    np.savez(
        run / "examples.npz",
        target=np.stack([first(t.identity, train) for t in world.attacked]),
        surrogate=np.stack([first(t.surrogates[0].identity, lent) for t in world.attacked]),
        pseudonym=np.array(world.attacked_pseudonyms),
    )


def _write_evaluation(run: Path, judges: Sequence[Judge], spec: ExperimentSpec) -> None:
    import json

    own = {judge.role: Rate.of(*accuracy_counts(judge.folder)).model_dump() for judge in judges}
    text = {
        "accuracy": own.pop("first"),
        "architecture": spec.evaluation.architecture,
        "seed": spec.seed,
        "others": own,
    }
    write_atomic(run / "evaluation.json", json.dumps(text, indent=2) + "\n")


def _tracker(spec: ExperimentSpec, store: Store, run: Path) -> BackgroundTracker | None:
    if not spec.tracking.enabled:
        return None
    from orchestrator.background_tracker import BackgroundTracker
    from orchestrator.tracking import make_tracker

    return BackgroundTracker(make_tracker(spec, store.root), run, spec)


def _report(run: Path, display: Display) -> Path:
    from orchestrator.report import write_report

    report = write_report(run)
    display.line(f"  report                       {report}")
    return report


def _heading(spec: ExperimentSpec, selection: Selection, run: Path, before: int, total: int) -> str:
    attacks = ", ".join(attack.label for attack in spec.attacks)
    kept = f", {before} of them done" if before else ""
    what = "" if spec.sweep.search == "defenses" else "DCD "
    return (
        f"[bold]{spec.name}[/bold]  {selection.num_classes} identities, "
        f"{len(selection.targets)} protected, seed {spec.seed}\n"
        f"  control and {total - 1} {what}trials{kept}; attacks: {attacks}\n"
        f"  {shown_path(run)}"
    )
