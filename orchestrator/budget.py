"""What a search may spend, and what it has spent: the accounts, without a clock of their own.

The unit is the device-hour: an hour of one GPU where a trial holds GPUs, else of one core. Money is
device-hours times one price, the same that `dcdctl report --hour-price` takes.

A trial runs under a lease: a number of devices, and the seconds that it is expected to need. A
lease is opened only if it fits beside everything spent and reserved. Estimates may be too low, so
what runs is watched too: when the accounts are one lease over the limit, everything stops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

HOUR = 3600.0

FEW = 10
"""Lengths below which the longest is taken: a quantile of fewer says no more."""


@dataclass(frozen=True)
class Limits:
    """How much may be spent; None is no limit.

    Attributes:
        hours: device-hours.
        cost: money, in the price's currency.
        hour_price: of a device-hour.
    """

    hours: float | None = None
    cost: float | None = None
    hour_price: float | None = None

    @property
    def device_hours(self) -> float:
        """Device-hours that may be spent under both limits; infinite where there is none."""
        found = [math.inf if self.hours is None else self.hours]
        if self.cost is not None and self.hour_price:
            found.append(self.cost / self.hour_price)
        return min(found)


@dataclass(frozen=True)
class Lease:
    """Devices that one trial holds.

    Attributes:
        devices: cores or GPUs.
        opened_s: when, on the caller's clock.
        reserve_s: seconds that it is expected to need at the most; None is not known, and then it
            reserves all that is left.
    """

    devices: float
    opened_s: float
    reserve_s: float | None

    def spent_hours(self, now_s: float) -> float:
        """Return the device-hours that it took until now; a clock that ran back gives none."""
        return self.devices * max(0.0, now_s - self.opened_s) / HOUR

    @property
    def reserve_hours(self) -> float:
        """Device-hours that are kept for it; 0 where they are not known."""
        return self.devices * (self.reserve_s or 0.0) / HOUR


@dataclass
class Budget:
    """The accounts of one search.

    Attributes:
        limits: what may be spent.
        spent_hours: device-hours of everything that ended, in this sitting and before.
        leases: what runs, by trial.
        beside: device-hours of tasks that run beside a trial's lease and for it, by trial.
        largest_hours: the largest lease that was ever opened; the accounts never pass the limit by
            more.
    """

    limits: Limits = Limits()
    spent_hours: float = 0.0
    leases: dict[str, Lease] = field(default_factory=dict)
    beside: dict[str, float] = field(default_factory=dict)
    largest_hours: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return math.isfinite(self.limits.device_hours)

    def committed_hours(self, now_s: float) -> float:
        """Return what is spent, and what everything that runs has taken or is expected to take."""
        running = (
            max(self.taken_hours(trial, now_s), lease.reserve_hours)
            for trial, lease in self.leases.items()
        )
        return self.spent_hours + sum(running)

    def live_hours(self, now_s: float) -> float:
        """Return what is spent, with what everything that runs has taken until now."""
        return self.spent_hours + sum(self.taken_hours(trial, now_s) for trial in self.leases)

    def taken_hours(self, trial: str, now_s: float) -> float:
        """Return what a trial with a lease has taken until now, with the tasks beside it."""
        return self.leases[trial].spent_hours(now_s) + self.beside.get(trial, 0.0)

    def admits(self, devices: float, reserve_s: float | None, now_s: float) -> bool:
        """Say whether a trial may start beside those that run.

        One whose length nobody knows needs all that is left, so it runs alone.
        """
        if not self.limited:
            return True
        room = self.limits.device_hours - self.committed_hours(now_s)
        if reserve_s is None:
            return not self.leases and room > 0
        if any(lease.reserve_s is None for lease in self.leases.values()):
            return False
        return devices * reserve_s / HOUR <= room + 1e-12

    def exhausted(self, devices: float, reserve_s: float | None, now_s: float) -> bool:
        """Say whether a trial does not fit although nothing runs that might leave room."""
        return not self.leases and not self.admits(devices, reserve_s, now_s)

    def open(self, trial: str, devices: float, reserve_s: float | None, now_s: float) -> Lease:
        """Start counting a trial."""
        lease = Lease(devices, now_s, reserve_s)
        self.leases[trial] = lease
        self.largest_hours = max(self.largest_hours, lease.reserve_hours)
        return lease

    def close(self, trial: str, hours: float) -> None:
        """Stop counting a trial, and add what it took.

        Args:
            trial: one with a lease.
            hours: device-hours, as measured where it ran.
        """
        del self.leases[trial]
        self.beside.pop(trial, None)
        self.spent_hours += max(0.0, hours)

    def overdrawn(self, now_s: float) -> bool:
        """Say whether what runs has to be stopped: the accounts are one lease over the limit."""
        if not self.limited or not self.leases:
            return False
        return self.live_hours(now_s) >= self.limits.device_hours + self.largest_hours


def reserve_of(seconds: Sequence[float], expected_s: float | None = None) -> float | None:
    """Return how long to expect the next trial to take at the most; None is not known.

    Args:
        seconds: of trials of this search that have ended, ascending.
        expected_s: the 90 % quantile of the plan's estimate, which counts until trials have ended.

    Returns:
        The longest of few, the 90 % quantile of more.
    """
    if not seconds:
        return expected_s
    if len(seconds) < FEW:
        longest = seconds[-1]
        return longest if expected_s is None else max(longest, expected_s)
    return quantile(seconds, 0.9)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least a share of all are not above.

    Args:
        values: at least one, ascending.
        share: in (0, 1].
    """
    return values[max(0, math.ceil(share * len(values) - 1e-9) - 1)]


def spoken(hours: float, limits: Limits, unit: str) -> str:
    """Return an amount for people: `1.93 core-hours (0.10 at 0.05 an hour)`."""
    text = f"{hours:.3g} {unit}-hours"
    if limits.hour_price is not None:
        text += f" ({hours * limits.hour_price:.2f} at {limits.hour_price:g} an hour)"
    return text
