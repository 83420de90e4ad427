"""Which trial starts next, where, and when none does any more: decisions without Ray and clock.

The same code runs a sweep under Ray (`orchestrator.trial_queue`, with the computer's clock) and a
model of a thousand nodes (`benchmarks/scale.py`, with a simulated one). Time is an argument.

Rules, in this order:
1. A trial starts after all those that its setting depends on; the one with the lowest index first.
2. It starts only if its lease fits into the budget (`orchestrator.budget`). While others run, one
   that does not fit waits, since they may leave room; when nothing runs, the search is over.
3. Of the places that are free it takes the fastest, and of equal ones the emptiest; among the last
   trials a slow one is left idle where a faster one will be done sooner. (Under Ray, which places
   what Tune starts, all nodes count as equally fast.)
4. A lease that is lost (its node died, or was taken away) makes its trial wait again, first.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.budget import Budget, reserve_of

Ready = Callable[[int, set[int]], bool]
"""Says whether a trial can start when a set of trials has ended."""


@dataclass(frozen=True)
class Start:
    """A trial to start now, with the lease that it runs under."""

    index: int
    devices: float
    reserve_s: float | None


@dataclass(frozen=True)
class Place:
    """A node with room.

    Attributes:
        name: of the node.
        free: devices that nobody holds.
        speed: work of a second there, against the reference; 1 where nobody knows.
        total: all its devices; None is those that are free.
    """

    name: str
    free: float
    speed: float = 1.0
    total: float | None = None

    @property
    def slots(self) -> float:
        """All its devices."""
        return self.free if self.total is None else self.total


Next = Start | Literal["wait", "ended", "budget"]


class Schedule:
    """The state of a search: what has ended, what runs, what it cost.

    Args:
        total: trials, the control included.
        ready: says of a trial whether its setting can be known yet. A trial of a higher index must
            not be ready before all those that it depends on have ended.
        devices: cores or GPUs that a trial holds.
        budget: the accounts; None is a search without limit.
        expected_s: 90 % quantile of a trial's length by the plan's estimate, if there is one.
    """

    def __init__(
        self,
        total: int,
        ready: Ready,
        *,
        devices: float = 1.0,
        budget: Budget | None = None,
        expected_s: float | None = None,
    ) -> None:
        self.total = total
        self.ready = ready
        self.devices = devices
        self.budget = budget or Budget()
        self.expected_s = expected_s
        self.ended: set[int] = set()
        self.seconds: list[float] = []
        self._waiting = list(range(total))  # a heap
        self._running: set[int] = set()
        self._over = False

    @property
    def running(self) -> int:
        """Trials that run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Trials that have not started, or have to start again."""
        return len(self._waiting)

    @property
    def over_budget(self) -> bool:
        """Whether the budget ended the search before its last trial."""
        return self._over

    def knows(self, index: int, seconds: float | None = None) -> None:
        """Take a trial that ended before this search began; what it cost is in the budget.

        Args:
            index: of the trial.
            seconds: that one like the next is expected to take; None says nothing of that.
        """
        self._learn(index, seconds)
        self._waiting = [i for i in self._waiting if i != index]
        heapq.heapify(self._waiting)

    def next(self, now_s: float) -> Next:
        """Return the trial to start, "wait", or why there will be none: "ended" or "budget".

        Calling it again without `start` gives the same answer.
        """
        if self._over:
            return "budget" if not self._running else "wait"
        if not self._waiting:
            return "ended"
        index = self._waiting[0]
        if not self.ready(index, self.ended):
            return "wait" if self._running else "ended"  # what it depends on was given up
        reserve = reserve_of(self.seconds, self.expected_s)
        if not self.budget.admits(self.devices, reserve, now_s):
            if self.budget.exhausted(self.devices, reserve, now_s):
                self._over = True
                return "budget"
            return "wait"
        return Start(index, self.devices, reserve)

    def start(self, chosen: Start, now_s: float) -> None:
        """Open the lease of a trial that `next` gave."""
        first = heapq.heappop(self._waiting)
        assert first == chosen.index
        self._running.add(first)
        self.budget.open(str(first), chosen.devices, chosen.reserve_s, now_s)

    def finish(self, index: int, hours: float, seconds: float | None) -> None:
        """Take a trial that ended.

        Args:
            index: of the trial.
            hours: device-hours that it took.
            seconds: that one like it is expected to take; None says nothing of the next one, such
                as the control of trials that train on more.
        """
        self._close(index, hours)
        self._learn(index, seconds)

    def lose(self, index: int, hours: float, *, again: bool = True) -> None:
        """Take a lease that was lost: what it took is spent.

        Args:
            index: of the trial.
            hours: device-hours that it took.
            again: the trial waits for another lease; else it is given up.
        """
        self._close(index, hours)
        if again:
            heapq.heappush(self._waiting, index)

    def must_stop(self, now_s: float) -> bool:
        """Say whether all that runs has to stop: the budget is passed by a whole lease."""
        if self.budget.overdrawn(now_s):
            self._over = True
            return True
        return False

    def _learn(self, index: int, seconds: float | None) -> None:
        self.ended.add(index)
        if seconds is not None:
            bisect.insort(self.seconds, seconds)

    def _close(self, index: int, hours: float) -> None:
        self._running.discard(index)
        self.budget.close(str(index), hours)


def fastest(places: Sequence[Place], devices: float, waiting: int | None = None) -> Place | None:
    """Return where a trial starts, None where it had better wait.

    Among the last trials a slow node is the one that everybody waits for. It is left idle when as
    many faster places as there are trials left are expected to become free, and to be done, sooner.
    Trials are alike as far as anyone knows, so their length falls out of that comparison.

    Args:
        places: all nodes, the full ones too.
        devices: that the trial holds.
        waiting: trials that have not started, this one included; None is more than enough.

    Returns:
        The fastest place with room, of equal ones the emptiest.
    """
    fit = [one for one in places if one.free >= devices]
    best = max(fit, key=lambda one: (one.speed, one.free), default=None)
    if best is None or waiting is None or waiting >= sum(one.slots for one in places):
        return best
    faster = [one for one in places if one.speed > best.speed]
    if not faster:
        return best
    slots = sum(one.slots for one in faster)
    rate = sum(one.slots * one.speed for one in faster)
    later = waiting / rate + slots / rate  # in trial lengths: a place is free, and is done with it
    return best if 1 / best.speed <= later else None
