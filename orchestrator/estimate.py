"""What an experiment will cost: device-hours by stage, wall-clock, money, each with P50 and P90.

Speeds are log-normal, with a middle and a spread that are known no better than the few times that
they were measured: futures are drawn from what is plausible. In each, a machine's own good or bad
day stretches everything alike. Wall-clock is the sweep's own scheduler on a model of the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from orchestrator.attack_tasks import HELD
from orchestrator.budget import HOUR
from orchestrator.calibration import FIRST, RAY, START, Source, Speed
from orchestrator.fleet_model import Fleet, Model
from orchestrator.named_cluster import NamedCluster
from orchestrator.placement import place
from orchestrator.prices import hour_price
from orchestrator.spec import ExperimentSpec
from orchestrator.workload import ATTACK, JUDGES, READER, Piece, Workload
from tasks.spec import Spec
from tasks.workers import most_workers

DRAWS = 400
"""Futures that hours are counted in."""

MODEL_STEPS = 40_000
"""Trials that the model of the cluster lays out in all: fewer futures for larger searches."""

SPREAD, WEIGHT = 0.1, 3
"""Of the logarithm of a speed, before it was measured; weighs as much as so many measurements."""

DAY = 0.1
"""Of the logarithm: how a machine differs from itself between a calibration and a sweep."""

Array = npt.NDArray[np.float64]


class Range(Spec):
    """A figure in half of the futures, and in nine of ten, at most."""

    p50: float
    p90: float

    @classmethod
    def of(cls, values: Array) -> Range:
        """Return both of a sample."""
        low, high = np.quantile(values, (0.5, 0.9))
        return cls(p50=float(f"{low:.5g}"), p90=float(f"{high:.5g}"))


class StageCost(Spec):
    """One stage of the plan."""

    stage: str
    hours: Range | None = Field(description="Device-hours; null where nothing is known.")
    source: Source | None
    samples: int = Field(description="Measurements that it rests on, the fewest of its parts.")


class Cost(Spec):
    """What a search will cost."""

    unit: str = Field(description="core or GPU: what an hour is counted of.")
    device: str | None = Field(description="That the speeds were measured on; null: none were.")
    cluster: str
    nodes: int
    trials_at_once: int
    trials_left: int
    trials_done: int
    stages: tuple[StageCost, ...]
    hours: Range | None = Field(description="Of all stages that are known.")
    wall_s: Range | None = Field(description="From start to report; null where a stage is unknown.")
    trial_hours: Range | None = Field(
        description="Device-hours of one trial; null where a stage is unknown."
    )
    hour_price: float | None = Field(description="Of a device-hour; null where nothing names one.")
    money: Range | None = Field(description="Hours times that price, which --max-cost counts.")
    bill: Range | None = Field(
        description="What the nodes cost while they stand, the head's included; null where the "
        "cluster file names no price."
    )
    unknown: tuple[str, ...] = Field(description="Stages that nothing is known of.")
    notes: tuple[str, ...] = ()


@dataclass
class _Drawn:
    """Seconds a unit in every future, by key; each piece of the workload is a draw of its own."""

    known: Mapping[str, tuple[Speed, Source]]
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.day = np.exp(DAY * self.rng.standard_normal(DRAWS))
        self._middle: dict[str, tuple[Array, Array]] = {}

    def seconds(self, piece: Piece) -> Array | None:
        """Return device-seconds of a piece in every future, (DRAWS,)."""
        if piece.key not in self.known:
            return None
        mean, sigma = self._of(piece.key)
        speed = np.exp(mean + sigma * self.rng.standard_normal(DRAWS))
        found: Array = piece.units * speed * self.day
        return found

    def once(self, key: str, times: int = 1) -> Array:
        """Return seconds of what happens so many times and is no work; 0 where not measured.

        These are waits and imports: some processes find them done, so that they are added up as
        they are, on the mean, with the machine's days.
        """
        if key not in self.known:
            return np.zeros(DRAWS)
        found: Array = times * float(np.mean(self.known[key][0].seconds)) * self.day
        return found

    def _of(self, key: str) -> tuple[Array, Array]:
        if key not in self._middle:
            logs = np.log(np.maximum(1e-12, self.known[key][0].seconds))
            n = len(logs)
            squares = WEIGHT * SPREAD**2 + float(((logs - logs.mean()) ** 2).sum())
            sigma = np.sqrt(squares / self.rng.chisquare(n - 1 + WEIGHT, DRAWS))
            mean = logs.mean() + sigma / np.sqrt(n) * self.rng.standard_normal(DRAWS)
            self._middle[key] = (mean, sigma)
        return self._middle[key]


def estimate(
    spec: ExperimentSpec,
    work: Workload,
    known: Mapping[str, tuple[Speed, Source]],
    cluster: NamedCluster,
    device: str | None,
) -> Cost:
    """Return what is left of a search will cost.

    Args:
        spec: the experiment.
        work: what is left of it.
        known: speeds.
        cluster: where it would run.
        device: that the speeds were measured on.
    """
    drawn = _Drawn(known, np.random.default_rng([len(known), len(work.trials)]))
    workers = most_workers(spec.training.workers)
    wanted = None
    if spec.compute.concurrent_trials:
        wanted = spec.compute.concurrent_trials * workers * spec.compute.gpus_per_trial
    nodes = cluster.nodes(wanted)
    at_once = max(1, len(work.trials))
    if spec.sweep.search == "optuna":
        at_once = min(at_once, spec.sweep.lookahead)
    placed = place(
        cluster.capacity(wanted),
        workers=spec.training.workers,
        trials=at_once,
        limit=spec.compute.concurrent_trials,
        gpus_per_trial=spec.compute.gpus_per_trial,
    )
    share = spec.compute.gpus_per_trial if cluster.gpus else 1.0
    devices = sum(cluster.devices(node) for node in nodes)
    tally = _Tally(known)
    for piece in work.first:
        tally.add(piece, drawn.seconds(piece), 1.0)
    first = tally.seconds()
    for piece in work.judges:
        tally.add(piece, drawn.seconds(piece), share)
    judges = tally.seconds(JUDGES)
    lengths, device_seconds = [], []
    for pieces in work.trials:
        wall, used = np.zeros(DRAWS), np.zeros(DRAWS)
        apart: list[tuple[Piece, Array]] = []
        for piece in pieces:
            took = drawn.seconds(piece)
            held = share if piece.processes == 1 else 1.0
            tally.add(piece, took, held)
            if took is None:
                continue
            used += took * held
            if placed.spread and piece.stage.startswith(ATTACK):
                apart.append((piece, took))
            else:
                wall += took / piece.processes
        if apart:
            own = placed.trial.get("CPU", 0.0) and share
            beside = _beside(apart, devices / share / placed.slots - bool(own))
            tally.more(HELD, beside * own)
            used += beside * own
            wall += beside
        lengths.append(wall)
        device_seconds.append(used)
    crowd = _crowding(tally, judges, placed.judges_first, placed.slots, devices, bool(work.trials))
    processes = min(placed.slots, len(work.trials)) + (1 if work.judges else 0)
    if FIRST in known and processes:
        tally.more(STARTS, drawn.once(FIRST, processes) * share * workers)
    tail = _tail(tally, drawn, work.after, max(1, int(devices / max(share, 1e-9))), devices)
    start = known.get(START)
    walls = None
    if not tally.unknown:
        trials = _makespans(
            spec,
            [one + crowd if i < placed.slots else one for i, one in enumerate(lengths)],
            placed.slots,
            start[0].median if start else Fleet(1).first_s,
        )
        up = drawn.rng.uniform(*cluster.start_s, len(trials))
        if cluster.here:
            up = up + drawn.once(RAY)[: len(trials)]
        some = slice(len(trials))
        middle = np.maximum(trials, judges[some])
        if placed.judges_first:
            middle = trials + judges[some]
        walls = up + first[some] + middle + tail[some]
    price = hour_price(spec.compute, [k.price for k in cluster.kinds if k.price is not None])
    hours = tally.total()
    bill = None
    if walls is not None and (each := [n.hour for n in nodes if n.hour is not None]):
        bill = Range.of(walls / HOUR * sum(each))
    return Cost(
        unit="GPU" if cluster.gpus else "core",
        device=device,
        cluster=cluster.name,
        nodes=len(nodes),
        trials_at_once=placed.slots,
        trials_left=len(work.trials),
        trials_done=work.done,
        stages=tally.stages(),
        hours=None if hours is None else Range.of(hours),
        wall_s=None if walls is None else Range.of(walls),
        trial_hours=Range.of(np.stack(device_seconds[1:] or device_seconds) / HOUR)
        if device_seconds and not tally.unknown
        else None,
        hour_price=price,
        money=None if price is None or hours is None else Range.of(hours * price),
        bill=bill,
        unknown=tuple(tally.unknown),
        notes=cluster.notes,
    )


class _Tally:
    """Device-seconds by stage, in every future."""

    def __init__(self, known: Mapping[str, tuple[Speed, Source]]) -> None:
        self.known = known
        self.sums: dict[str, Array] = {}
        self.pieces: dict[str, list[Piece]] = {}

    def add(self, piece: Piece, seconds: Array | None, share: float) -> None:
        """Count a piece; None is one whose speed nobody knows."""
        self.pieces.setdefault(piece.stage, []).append(piece)
        if seconds is not None:
            self.more(piece.stage, seconds * share)

    def more(self, stage: str, seconds: Array) -> None:
        """Count seconds that belong to no piece."""
        self.sums[stage] = self.sums.get(stage, np.zeros(DRAWS)) + seconds

    def seconds(self, stage: str | None = None) -> Array:
        """Return what a stage has so far, or all of them."""
        if stage is not None:
            return self.sums.get(stage, np.zeros(DRAWS))
        return sum(self.sums.values(), start=np.zeros(DRAWS))

    @property
    def unknown(self) -> list[str]:
        """Stages with a part whose speed nobody knows."""
        return [
            stage
            for stage, pieces in self.pieces.items()
            if any(piece.units and piece.key not in self.known for piece in pieces)
        ]

    def total(self) -> Array | None:
        """Return hours of everything that is known, (DRAWS,)."""
        return self.seconds() / HOUR if self.sums else None

    def stages(self) -> tuple[StageCost, ...]:
        """Return the rows of the plan."""
        unknown = set(self.unknown)
        found = []
        for stage in {**self.pieces, **self.sums}:
            pieces = self.pieces.get(stage, [])
            speeds = [self.known[p.key] for p in pieces if p.key in self.known]
            sources = {source for _, source in speeds}
            source: Source | None = None
            if stage not in unknown and sources:
                source = "calibration" if "calibration" in sources else "finished trials"
            found.append(
                StageCost(
                    stage=stage,
                    hours=None if stage in unknown else Range.of(self.sums[stage] / HOUR),
                    source=source,
                    samples=min((len(speed.seconds) for speed, _ in speeds), default=0),
                )
            )
        return tuple(found)


def _beside(apart: Sequence[tuple[Piece, Array]], free: float) -> Array:
    """Return how long a trial's attacks take as tasks on the devices that are free for it."""
    parts = sum(piece.parts for piece, _ in apart)
    total = np.sum([took for _, took in apart], axis=0)
    longest = np.max([took / piece.parts for piece, took in apart], axis=0)
    found: Array = np.maximum(longest, total / max(1.0, min(free, parts)))
    return found


CROWDING = "waiting for the judges"
STARTS = "first steps of processes"


def _crowding(
    tally: _Tally, judges: Array, first: bool, slots: int, devices: float, trials: bool
) -> Array:
    """Return how much longer the first trials take because the judges learn beside them.

    Where they do, the judges hold no device: with as many trials as devices, one process more than
    there are devices shares them.
    """
    if first or not trials or not judges.any() or slots < devices:
        return np.zeros(DRAWS)
    longer = judges / devices
    tally.more(JUDGES, longer)
    tally.more(CROWDING, slots * longer)
    return longer


def _tail(
    tally: _Tally, drawn: _Drawn, after: Sequence[Piece], at_once: int, devices: float
) -> Array:
    """Return how long the tasks after the trials take; all devices are counted meanwhile."""
    total, started = np.zeros(DRAWS), False
    stages: dict[str, list[Array]] = {}
    for piece in after:
        took = drawn.seconds(piece)
        tally.add(piece, None if took is None else np.zeros(DRAWS), 1.0)
        if took is not None:
            stages.setdefault(piece.stage, []).append(took)
    for stage, tasks in stages.items():
        ends = np.zeros((DRAWS, min(at_once, len(tasks))))
        if stage != READER and not started:  # new processes; later stages find them there
            ends += drawn.once(START)[:, None]
            started = True
        rows = np.arange(DRAWS)
        for task in tasks:
            ends[rows, ends.argmin(axis=1)] += task
        wall = ends.max(axis=1)
        tally.more(stage, wall * devices)
        total += wall
    return total


def _makespans(spec: ExperimentSpec, lengths: Sequence[Array], slots: int, first_s: float) -> Array:
    """Return how long the trials take in some of the futures, laid out by the sweep's scheduler."""
    if not lengths:
        return np.zeros(DRAWS)
    count = max(3, min(DRAWS, MODEL_STEPS // len(lengths)))
    lookahead = spec.sweep.lookahead if spec.sweep.search == "optuna" else None
    fleet = Fleet(1, slots, first_s=first_s)
    return np.array(
        [
            Model([float(one[i]) for one in lengths], fleet, lookahead=lookahead, seed=i)
            .run()
            .makespan_s
            for i in range(count)
        ]
    )
