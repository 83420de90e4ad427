"""A fleet in a model: the sweep's own scheduler under a simulated clock, event by event.

`orchestrator.schedule` and `orchestrator.budget` decide here what they decide under Ray: which
trial starts next, where, and when the search is over. The rest is a model: nodes come up after a
while, differ in speed, are taken away and replaced; a trial that was on one is lost, and that is
noticed some time later. `dcdctl plan` takes its wall-clock from here, `benchmarks/scale.py` runs a
thousand nodes, and `benchmarks/scale_real.py` holds the model against the real thing.

The lower bound is that of a scheduler who knows the future: no search ends before the nodes that
were up have had time for all the work, nor before its longest chain of trials that wait for each
other has been done at the highest speed after the first node came up.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from orchestrator.budget import HOUR, Budget, Limits
from orchestrator.schedule import Place, Schedule, Start, fastest
from orchestrator.search import STARTUP, known_enough
from orchestrator.spec import SweepSpec


@dataclass(frozen=True)
class Fleet:
    """What the nodes are like.

    Attributes:
        nodes: how many there are at a time.
        slots: trials that a node runs at once.
        speeds: the nodes' speeds in turn; 1 does a second of work in a second.
        start_s: a node comes up after a time between these.
        preempt_s: mean time that a node stays; infinite for ever. Another takes its place.
        lost: share of trials that are lost although their node stays, such as by a broken link.
        notice_s: until a lost trial is known to be lost.
        first_s: from being sent to a slot until work starts, the first time: a process starts.
        next_s: the same later on.
        decide_s: the driver's own time for a decision; it takes one after another.
    """

    nodes: int
    slots: int = 1
    speeds: tuple[float, ...] = (1.0,)
    start_s: tuple[float, float] = (0.0, 0.0)
    preempt_s: float = math.inf
    lost: float = 0.0
    notice_s: float = 60.0
    first_s: float = 4.0
    next_s: float = 0.1
    decide_s: float = 0.01


@dataclass
class Outcome:
    """What a simulated search did.

    Attributes:
        makespan_s: until the last trial ended, or the budget stopped it.
        ended: trials.
        lost: leases.
        spent_hours: of devices, lost leases included.
        largest_hours: the largest lease.
        bound_s: the lower bound; meaningful if all trials ended.
        work_s, chain_s: the two that it is the greater of.
        starts: (time, trial, node), in order.
    """

    makespan_s: float
    ended: int
    lost: int
    spent_hours: float
    largest_hours: float
    bound_s: float
    work_s: float
    chain_s: float
    starts: list[tuple[float, int, str]] = field(repr=False)

    @property
    def ratio(self) -> float:
        """How many times the lower bound it took."""
        return self.makespan_s / self.bound_s


@dataclass
class _Node:
    """One machine: what it runs, since when, and how many of its slots have a process already."""

    name: str
    speed: float
    slots: int
    up_at: float
    down_at: float
    running: dict[int, float] = field(default_factory=dict)
    processes: int = 0

    @property
    def free(self) -> int:
        return self.slots - len(self.running)


class Model:
    """A search on a fleet, event by event.

    Args:
        lengths: seconds of work of each trial at speed 1.
        fleet: the nodes.
        lookahead: as `sweep.lookahead` under `search: optuna`; None is trials that wait for none.
        limit_hours: the budget in device-hours.
        expected_s: what the plan expects of a trial.
        at_once: trials at once, at most; None fills the fleet.
        seed: of start-up times, preemptions and losses.
    """

    def __init__(
        self,
        lengths: Sequence[float],
        fleet: Fleet,
        *,
        lookahead: int | None = None,
        limit_hours: float | None = None,
        expected_s: float | None = None,
        at_once: int | None = None,
        seed: int = 0,
    ) -> None:
        self.lengths, self.fleet, self.lookahead = lengths, fleet, lookahead
        self.at_once = at_once or math.inf
        self.budget = Budget(Limits(hours=limit_hours))
        sweep = SweepSpec(lookahead=lookahead or 1)
        self.schedule = Schedule(
            len(lengths),
            lambda i, ended: lookahead is None or i == 0 or known_enough(i, sweep, ended),
            budget=self.budget,
            expected_s=expected_s,
        )
        self.rng = np.random.default_rng(seed)
        self.now = self.decided = self.last = 0.0
        self.lost = 0
        self._next_look = 0.0
        self.starts: list[tuple[float, int, str]] = []
        self.up: dict[str, _Node] = {}
        self.ever: list[_Node] = []
        self._events: list[tuple[float, int, str, _Node, int]] = []
        self._order = itertools.count()
        for _ in range(fleet.nodes):
            self._bring_up()

    def run(self) -> Outcome:
        """Run the search to its end."""
        while self._events:
            self.now, _, kind, node, trial = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(node, trial)
            if self.schedule.must_stop(self.now):
                self._stop_all()
                break
            self._dispatch()
            if not self.schedule.running and self.schedule.next(self.now) in ("ended", "budget"):
                break
            self._watch_budget(node)
        work, chain = self._work_bound(), self._chain_bound()
        return Outcome(
            makespan_s=self.last,
            ended=len(self.schedule.ended),
            lost=self.lost,
            spent_hours=self.budget.spent_hours,
            largest_hours=self.budget.largest_hours,
            bound_s=max(work, chain),
            work_s=work,
            chain_s=chain,
            starts=self.starts,
        )

    # --- events ---------------------------------------------------------------------------------

    def _came_up(self, node: _Node, _: int) -> None:
        self.up[node.name] = node

    def _went_down(self, node: _Node, _: int) -> None:
        del self.up[node.name]
        for trial in node.running:  # it holds its lease until somebody notices
            self._push(self.now + self.fleet.notice_s, "noticed", node, trial)
        self._bring_up()

    def _ended(self, node: _Node, trial: int) -> None:
        if node.down_at <= self.now:
            return  # what it would have said nobody hears
        began = node.running.pop(trial)
        self.schedule.finish(trial, (self.now - began) / HOUR, self.now - began)
        self.last = self.now

    def _noticed(self, node: _Node, trial: int) -> None:
        if trial not in node.running:
            return
        self.schedule.lose(trial, (self.now - node.running.pop(trial)) / HOUR)
        self.lost += 1
        self.last = self.now

    def _look(self, node: _Node, _: int) -> None:
        """Wake up; the budget is looked at after every event."""

    def _push(self, at: float, kind: str, node: _Node, trial: int = -1) -> None:
        heapq.heappush(self._events, (at, next(self._order), kind, node, trial))

    def _bring_up(self) -> None:
        number, fleet = len(self.ever), self.fleet
        up_at = self.now + self.rng.uniform(*fleet.start_s)
        stays = math.inf
        if math.isfinite(fleet.preempt_s):
            stays = self.rng.exponential(fleet.preempt_s)
        speed = fleet.speeds[number % len(fleet.speeds)]
        node = _Node(f"node-{number}", speed, fleet.slots, up_at, up_at + stays)
        self.ever.append(node)
        self._push(up_at, "came_up", node)
        if math.isfinite(stays):
            self._push(node.down_at, "went_down", node)

    def _dispatch(self) -> None:
        while self.schedule.running < self.at_once:
            if not any(node.free for node in self.up.values()):
                return
            chosen = self.schedule.next(self.now)
            if not isinstance(chosen, Start):
                return
            # Full nodes matter to the choice among the last trials only.
            last = self.schedule.waiting < self.fleet.slots * len(self.up)
            nodes = [n for n in self.up.values() if last or n.free]
            places = [Place(n.name, n.free, n.speed, n.slots) for n in nodes]
            where = fastest(places, chosen.devices, self.schedule.waiting if last else None)
            if where is None:
                return
            self.decided = max(self.decided, self.now) + self.fleet.decide_s
            self.schedule.start(chosen, self.now)
            self._work(self.up[where.name], chosen.index)

    def _work(self, node: _Node, trial: int) -> None:
        fleet = self.fleet
        overhead = fleet.next_s
        if len(node.running) >= node.processes:
            overhead = fleet.first_s
            node.processes += 1
        node.running[trial] = self.now
        self.starts.append((self.now, trial, node.name))
        end = self.decided + overhead + self.lengths[trial] / node.speed
        if self.rng.random() < fleet.lost:
            self._push(end + fleet.notice_s, "noticed", node, trial)
        else:
            self._push(end, "ended", node, trial)

    def _watch_budget(self, node: _Node) -> None:
        if self.budget.limited and self.schedule.running:
            left = self.budget.limits.device_hours + self.budget.largest_hours
            left -= self.budget.live_hours(self.now)
            at = self.now + left * HOUR / self.schedule.running + 1e-3
            if not self.now < self._next_look <= at:
                self._next_look = at
                self._push(at, "look", node)

    def _stop_all(self) -> None:
        self.last = self.now
        for node in self.ever:
            for trial, began in node.running.items():
                self.schedule.lose(trial, (self.now - began) / HOUR)
            node.running.clear()

    # --- the lower bound ------------------------------------------------------------------------

    def _work_bound(self) -> float:
        """Return when the nodes that were up have had time for all the work."""
        changes = [(n.up_at, n.speed * n.slots) for n in self.ever]
        changes += [(n.down_at, -n.speed * n.slots) for n in self.ever if n.down_at < math.inf]
        left, rate, then = float(np.sum(self.lengths)), 0.0, 0.0
        for at, change in sorted(changes):
            done = rate * (at - then)
            if done >= left:
                break
            left, rate, then = left - done, rate + change, at
        return then + left / rate if rate > 0 else math.inf

    def _chain_bound(self) -> float:
        """Return when the longest chain of trials that wait for each other can have ended."""
        first, speed = min(n.up_at for n in self.ever), max(n.speed for n in self.ever)
        lengths = [length / speed for length in self.lengths]
        if self.lookahead is None:
            return first + max(lengths)
        ends: list[float] = []
        before: list[float] = []  # when all of the trials 1 to i can have ended
        for i, length in enumerate(lengths):
            last = i - self.lookahead
            waits = before[last] if i > STARTUP and last > 0 else 0.0
            ends.append(waits + length)
            before.append(max(before[-1], ends[-1]) if i else 0.0)
        return first + max(ends)
