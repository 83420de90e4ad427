"""Where a run is, from its folder alone: no Ray, no MLflow, and nothing that the sweep waits for.

So it works from another terminal, from another machine that sees the storage, while the tracking
server is down, and after the sweep's process is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from orchestrator.find_run import Driver, age_in_words, driver_of, last_written
from orchestrator.forgotten import read_forgotten
from orchestrator.open_run import shown_path
from orchestrator.pareto import find_control, recommend
from orchestrator.record_cache import RecordCache
from orchestrator.records import Rate, TrialRecord
from orchestrator.run_events import RunEvents, read_events
from orchestrator.run_spend import Spent, spent_so_far
from orchestrator.search import planned_trials
from orchestrator.spec import ExperimentSpec
from orchestrator.spending import read_note
from orchestrator.time_left import TimeLeft, time_left, trials_at_once
from tasks.errors import StoreError
from tasks.spec import Spec

SILENT_S = 600.0
"""A driver on another machine that wrote nothing for so long, and three trials long, is gone."""

WAITING = "wait for the evaluation classifier"

State = Literal["running", "finished", "stopped", "silent"]


class TrialCounts(Spec):
    """Trials of a run, the control included."""

    total: int
    done: int = Field(description="With a result.")
    failed: int
    running: int
    to_do: int


class RunningTrial(Spec):
    """A trial that has begun and has no record."""

    trial_id: str
    index: int | None
    doing: str
    seconds: float


class StageStatus(Spec):
    """A part of the run."""

    name: str
    state: Literal["done", "running", "to do"]
    note: str = ""


class Best(Spec):
    """The trial that the report would be about if the run ended now."""

    index: int
    title: str
    recommended: bool = Field(description="It meets both goals; else it is the nearest to them.")
    clean_accuracy: Rate
    worst_attack: Rate
    control_accuracy: Rate | None
    control_attack: Rate | None
    reason: str


class FailedTrial(Spec):
    """A trial without a result, and why."""

    index: int
    error: str


class RunStatus(Spec):
    """One run at one moment. Times are seconds; rates are fractions."""

    version: Literal[1] = 1
    run: str
    name: str
    fingerprint: str
    state: State
    says: str = Field(description="The state in a sentence.")
    budget: str | None = Field(description="That the budget ended the search, where it did.")
    forgotten: str | None = Field(None, description="What was removed of it, and why.")
    driver: str | None = Field(description="Process and machine; null where nobody writes.")
    last_written: float = Field(description="Seconds since the epoch.")
    trials: TrialCounts
    running: tuple[RunningTrial, ...]
    stages: tuple[StageStatus, ...]
    best: Best | None
    spend: Spent
    time_left: TimeLeft | None = Field(description="Of the trials; null where nothing is known.")
    slots: int = Field(description="Trials at once.")
    failures: tuple[FailedTrial, ...]
    unreadable: tuple[str, ...] = Field(description="Files of records that cannot be read.")


@dataclass(frozen=True)
class AskedJob:
    """What a cluster says of a run's job: who that is, its state, the rest of the sentence."""

    who: str
    state: State
    says: str


class StatusReader:
    """Reads one run again and again, each record only once.

    Args:
        run: the run's folder.
        hour_price: of a core or GPU for an hour; None is the experiment's, if it has one.
        ask: what the cluster says where a job drives the run; None reads the storage alone.
    """

    def __init__(
        self,
        run: Path,
        hour_price: float | None = None,
        ask: Callable[[], AskedJob] | None = None,
    ) -> None:
        self.run = run
        self.hour_price = hour_price
        self._ask = ask
        self._records = RecordCache(run)

    def read(self, now: float | None = None) -> RunStatus:
        """Return where the run is.

        Raises:
            StoreError: the folder holds no run that can be read.
        """
        now = time.time() if now is None else now
        spec = read_spec(self.run)
        records = self._records.read()
        events = read_events(self.run)
        total = max(planned_trials(spec) + 1, len(records))
        driver, written = driver_of(self.run), last_written(self.run)
        silent_for = now - written
        state = _state(self.run, records, total, driver, silent_for)
        says = _sentence(self.run, state, driver, silent_for)
        where = str(self.run)
        if self._ask is not None:
            asked = self._ask()
            where = asked.who  # the folder is a copy that goes with this process
            driver, state = Driver(True, asked.who), asked.state
            says = f"{state}: {asked.who}{asked.says}"
        running = _running(self.run, records, events, now) if state == "running" else []
        ok = [record for record in records if record.status == "ok"]
        counts = TrialCounts(
            total=total,
            done=len(ok),
            failed=len(records) - len(ok),
            running=len(running),
            to_do=max(0, total - len(records) - len(running)),
        )
        slots = self._slots(spec, records, running, events)
        left = None
        if state == "running":
            left = time_left(
                [_busy(record) for record in ok], [t.seconds for t in running], counts.to_do, slots
            )
        return RunStatus(
            run=where,
            name=spec.name,
            fingerprint=self.run.name,
            state=state,
            forgotten=None if (lost := read_forgotten(self.run)) is None else lost.sentence,
            says=says,
            budget=note.sentence if (note := read_note(self.run)) and state != "running" else None,
            driver=driver.who if driver and state == "running" else None,
            last_written=written,
            trials=counts,
            running=tuple(running),
            stages=tuple(_stages(self.run, spec, counts, events, state)),
            best=best_of(spec, records),
            spend=spent_so_far(
                self.run, spec, records, [t.seconds for t in running], self.hour_price
            ),
            time_left=left,
            slots=slots,
            failures=tuple(
                FailedTrial(index=r.index, error=r.error or "no reason is known")
                for r in records
                if r.status == "failed"
            ),
            unreadable=tuple(str(path) for path in self._records.unreadable),
        )

    def _slots(
        self,
        spec: ExperimentSpec,
        records: Sequence[TrialRecord],
        running: Sequence[RunningTrial],
        events: RunEvents,
    ) -> int:
        if events.slots:
            return events.slots
        if spec.compute.concurrent_trials:
            return min(spec.compute.concurrent_trials, spec.sweep.lookahead)
        ended = self._records.ended
        spans = [
            (ended[r.trial_id] - sum(r.cost_s.values()), ended[r.trial_id])
            for r in records
            if r.trial_id in ended
        ]
        return min(max(len(running), trials_at_once(spans)), max(1, spec.sweep.lookahead))


def read_spec(run: Path) -> ExperimentSpec:
    """Return a run's experiment.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    path = run / "spec.json"
    try:
        return ExperimentSpec.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(
            f"{run} holds no run: there is no spec.json in it; name a folder of <storage>/runs"
        ) from error
    except (OSError, ValidationError) as error:
        raise StoreError(
            f"{path} cannot be read: it was damaged, or written by another version of dcdctl"
        ) from error


def best_of(spec: ExperimentSpec, records: Sequence[TrialRecord]) -> Best | None:
    """Return the trial to use by what is known so far; None before the control and one more."""
    choice = recommend(records, spec.sweep.goal)
    wanted = choice.trial_id or choice.nearest
    record = next((r for r in records if r.trial_id == wanted), None)
    if record is None or record.clean_accuracy is None or record.worst_attack is None:
        return None
    control = find_control(records)
    return Best(
        index=record.index,
        title=record.title,
        recommended=choice.trial_id is not None,
        clean_accuracy=record.clean_accuracy.overall,
        worst_attack=record.worst_attack,
        control_accuracy=control.clean_accuracy.overall
        if control and control.clean_accuracy
        else None,
        control_attack=control.worst_attack if control else None,
        reason=choice.reason,
    )


def _state(
    run: Path,
    records: Sequence[TrialRecord],
    total: int,
    driver: Driver | None,
    silent_for: float,
) -> State:
    if driver is not None and driver.alive:
        return "running"
    longest = max((sum(r.cost_s.values()) for r in records), default=0.0)
    if len(records) >= total and (run / "report.json").is_file():
        return "finished"
    if driver is not None and driver.alive is None:
        return "silent" if silent_for > max(SILENT_S, 3 * longest) else "running"
    return "stopped"


def _sentence(run: Path, state: State, driver: Driver | None, silent_for: float) -> str:
    ago = age_in_words(silent_for)
    if state == "running" and driver is not None:
        seen = "" if driver.alive or driver.who.startswith("job ") else ", on another machine"
        return f"running: {driver.who}{seen}, wrote last {ago}"
    if state == "finished":
        return f"finished {ago}"
    again = f"go on with: dcdctl sweep {shown_path(run)} --resume"
    if read_forgotten(run) is not None:
        again = "it cannot go on, since parts of it are gone"
    if state == "silent" and driver is not None and driver.who.startswith("job "):
        job = driver.who.split()[1]
        return f"silent: {driver.who} was heard last {ago}; ask it with: dcdctl status {job}"
    if state == "silent" and driver is not None:
        return f"silent: {driver.who} wrote last {ago}; if it is gone, {again}"
    if driver is not None:
        return f"stopped: its driver, {driver.who}, is gone since it wrote last {ago}; {again}"
    return f"stopped: nobody drives it, written last {ago}; {again}"


def _running(
    run: Path, records: Sequence[TrialRecord], events: RunEvents, now: float
) -> list[RunningTrial]:
    """Return the trials that have begun: by the events, else by folders without a record.

    A folder that was there before the driver started is left over from one that was killed.
    """
    ended = {record.trial_id for record in records}
    found = {
        begun.trial_id: RunningTrial(
            trial_id=begun.trial_id,
            index=begun.index,
            doing=_doing(run / "trials" / begun.trial_id),
            seconds=max(0.0, now - begun.at),
        )
        for begun in events.begun
        if begun.trial_id not in ended
    }
    if events.begun:
        return list(found.values())
    entered = (run / "spec.json").stat().st_mtime
    for folder in run.glob("trials/*"):
        recipe = folder / "recipe.parquet"
        if folder.name in ended or (folder / "record.json").exists() or not recipe.is_file():
            continue
        begun_at = recipe.stat().st_mtime
        if begun_at >= entered:
            found[folder.name] = RunningTrial(
                trial_id=folder.name,
                index=None,
                doing=_doing(folder),
                seconds=max(0.0, now - begun_at),
            )
    return sorted(found.values(), key=lambda trial: -trial.seconds)


def _doing(folder: Path) -> str:
    """Return what a trial does, by the files that it has written."""
    if (folder / "reconstructions.npz").is_file():
        return "writing"
    if (folder / "checkpoint" / "meta.json").is_file():
        return "attacking"
    # A trial on another node hands its files over at its end.
    return "training" if (folder / "recipe.parquet").is_file() else "under way"


def _stages(
    run: Path, spec: ExperimentSpec, counts: TrialCounts, events: RunEvents, state: State
) -> list[StageStatus]:
    """Return what comes before, during and after the trials."""
    ended = counts.done + counts.failed
    found = []
    for stage in events.stages:
        done = stage.done >= stage.total
        note = f"{stage.total:,}" if done else f"{stage.done:,} of {stage.total:,}"
        if stage.name not in ("trials", "adaptive attacks"):
            found.append(
                StageStatus(
                    name=stage.name,
                    state="done" if done else "running" if state == "running" else "to do",
                    note=note,
                )
            )
    if not found:
        ready = (run / "examples.npz").is_file() or ended or counts.running
        found.append(
            StageStatus(
                name="data and prior",
                state="done" if ready else "running" if state == "running" else "to do",
            )
        )
    trials: Literal["done", "running", "to do"] = (
        "done" if ended >= counts.total else "running" if counts.running else "to do"
    )
    found.append(StageStatus(name="trials", state=trials, note=f"{ended} of {counts.total}"))
    # Its file is written after the trials, but no trial has a result without it.
    judged = (run / "evaluation.json").is_file() or counts.done > 0
    later: list[tuple[str, bool]] = [("evaluation classifier", judged)]
    if spec.adaptive_attacks:
        later.append(("adaptive attacks", (run / "adaptive.json").is_file()))
    later.append(("report", state == "finished"))
    # What follows the trials runs in this order, and only once all of them have ended.
    open_ = trials == "done" and state == "running"
    for name, there in later:
        if there:
            found.append(StageStatus(name=name, state="done"))
            continue
        early = name == "evaluation classifier" and state == "running"
        found.append(StageStatus(name=name, state="running" if open_ or early else "to do"))
        open_ = False
    return found


def _busy(record: TrialRecord) -> float:
    """Return a trial's seconds without the wait for the judges, which only the first have."""
    return sum(seconds for stage, seconds in record.cost_s.items() if stage != WAITING)
