"""How long a sweep's trials will still take, with an interval, from how long the others took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from tasks.spec import Spec

DRAWS = 400
SPREAD, WEIGHT = 0.35, 4
"""Of the logarithm of a trial's seconds, before any has ended; weighs as much as so many trials."""


class TimeLeft(Spec):
    """Seconds until the last trial ends."""

    seconds: float = Field(description="Median.")
    low: float = Field(description="5 % of the futures that were drawn end before.")
    high: float = Field(description="5 % of them end after.")


def time_left(
    taken: Sequence[float], running: Sequence[float], waiting: int, slots: int
) -> TimeLeft | None:
    """Estimate when a number of like trials will have ended.

    Seconds of a trial are log-normal with unknown mean and spread: futures are drawn from what is
    plausible after those that ended, and each is laid out over the slots in order, as the sweep
    does it. Trials that learn to be longer, and machines that come and go, are not in it.

    Args:
        taken: seconds of the trials that have ended.
        running: seconds that those under way have run for.
        waiting: trials that have not begun.
        slots: trials at once.

    Returns:
        None where nothing has ended yet, so that nothing is known.
    """
    if not running and not waiting:
        return TimeLeft(seconds=0.0, low=0.0, high=0.0)
    logs = np.log(np.maximum(1e-3, [t for t in taken if t > 0]))
    if not len(logs):
        return None
    rng = np.random.default_rng([len(logs), len(running), waiting])
    n = len(logs)
    # Scaled inverse chi squared for the variance, then the mean given the variance.
    squares = WEIGHT * SPREAD**2 + float(((logs - logs.mean()) ** 2).sum())
    sigma = np.sqrt(squares / rng.chisquare(n - 1 + WEIGHT, DRAWS))
    mean = logs.mean() + sigma / np.sqrt(n) * rng.standard_normal(DRAWS)
    ends = np.zeros((DRAWS, max(1, slots, len(running))))
    for place, elapsed in enumerate(running):
        ends[:, place] = _rest(elapsed, mean, sigma, rng)
    rows = np.arange(DRAWS)
    for _ in range(waiting):
        # Only `slots` of the places take new work.
        free = ends[:, : max(1, slots)].argmin(axis=1)
        ends[rows, free] += np.exp(mean + sigma * rng.standard_normal(DRAWS))
    low, middle, high = np.quantile(ends.max(axis=1), (0.05, 0.5, 0.95))
    return TimeLeft(seconds=float(middle), low=float(low), high=float(high))


def _rest(
    elapsed: float, mean: np.ndarray, sigma: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw what is left of a trial that has run for `elapsed` seconds, (DRAWS,)."""
    from scipy.stats import norm

    gone = norm.cdf((np.log(max(elapsed, 1e-3)) - mean) / sigma)
    # Conditional on not having ended yet; at the far tail the quantile is not finite.
    share = np.minimum(gone + (1 - gone) * rng.uniform(size=DRAWS), 1 - 1e-9)
    whole = np.exp(mean + sigma * norm.ppf(share))
    rest: np.ndarray = np.maximum(whole - elapsed, 0.02 * elapsed)
    return rest


def trials_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """Return the most trials that ran at the same time, from their begins and ends; 1 for none."""
    edges = sorted(
        # An end comes before a begin at the same moment: the slot was handed on.
        [(begin + 0.05, 1) for begin, _ in spans] + [(end, -1) for _, end in spans]
    )
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return max(1, most)
