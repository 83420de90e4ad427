"""When enough has been seen of a target: a sequential test of its rate, and an interval for it.

Reconstructions are judged one after another. A target leaves with a verdict as soon as its hits are
clear, and the rest of its budget is not spent. The test is Wald's (Annals of Mathematical
Statistics, 1945); the interval holds whenever one stops, for whatever reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

from tasks.evaluation.intervals import LEVEL

Verdict = Literal["exposed", "protected", "undecided"]

VERDICTS: tuple[Verdict, ...] = ("undecided", "exposed", "protected")


@dataclass(frozen=True)
class SequentialTest:
    """A test between two rates at which a target is hit.

    Attributes:
        protected_rate: at or below it a target counts as protected.
        exposed_rate: at or above it a target counts as exposed; above `protected_rate`.
        error: how often, at the most, a target at one of the two rates may be taken for the other.
    """

    protected_rate: float
    exposed_rate: float
    error: float

    @property
    def bound(self) -> float:
        """Log likelihood ratio at which a verdict falls: log((1 - error) / error)."""
        return math.log((1 - self.error) / self.error)

    def evidence(self, hits: int, n: int) -> float:
        """Return the log likelihood ratio of exposed against protected of `hits` in `n`."""
        low, high = self.protected_rate, self.exposed_rate
        return hits * math.log(high / low) + (n - hits) * math.log((1 - high) / (1 - low))

    def verdict(self, hits: int, n: int) -> Verdict:
        """Return what `hits` in `n` say, whatever the order in which they came."""
        evidence = self.evidence(hits, n)
        if evidence >= self.bound - _ROUNDING:
            return "exposed"
        return "protected" if evidence <= -self.bound + _ROUNDING else "undecided"

    def first_verdict(self, hits: npt.NDArray[np.bool_]) -> tuple[Verdict, int]:
        """Return the first verdict on outcomes (n,) in their order, and how many it took.

        What comes after the first verdict is not looked at; without one, all n are.
        """
        for n in range(1, len(hits) + 1):
            verdict = self.verdict(int(hits[:n].sum()), n)
            if verdict != "undecided":
                return verdict, n
        return "undecided", len(hits)

    def operating_curve(self, rate: float, budget: int) -> dict[Verdict | Literal["used"], float]:
        """Return how often each verdict falls at a true rate, and how many outcomes are used.

        Exact: a sum over all paths of up to `budget` outcomes.
        """
        found: dict[Verdict | Literal["used"], float]
        found = {"exposed": 0.0, "protected": 0.0, "undecided": 0.0, "used": 0.0}
        open_ = {0: 1.0}  # hits so far: probability that no verdict has fallen
        for n in range(1, budget + 1):
            found["used"] += sum(open_.values())
            after: dict[int, float] = {}
            for hits, chance in open_.items():
                after[hits + 1] = after.get(hits + 1, 0.0) + chance * rate
                after[hits] = after.get(hits, 0.0) + chance * (1 - rate)
            open_ = {}
            for hits, chance in after.items():
                verdict = self.verdict(hits, n)
                if verdict == "undecided":
                    open_[hits] = chance
                else:
                    found[verdict] += chance
        found["undecided"] = sum(open_.values())
        return found


_ROUNDING = 1e-9
"""So that a bound that is met exactly counts as met."""


def anytime_interval(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return an interval of a rate that covers it at all n at once, so at any stopping time too.

    The rates p at which the mixture of likelihoods over a uniform prior,
    B(hits + 1, n - hits + 1) / (p^hits (1 - p)^(n - hits)), stays below 1 / (1 - level). At the
    true rate it is a martingale that starts at 1, so that it ever gets there with probability
    1 - level at most (Ville's inequality; Robbins, Annals of Mathematical Statistics, 1970).
    Outcomes must be independent. Wider than Clopper-Pearson, which holds for one n fixed before.
    """
    if n == 0:
        return 0.0, 1.0
    top = -math.log(1 - level) - float(betaln(hits + 1, n - hits + 1))
    middle = hits / n

    def outside(p: float) -> bool:
        likelihood = (hits * math.log(p) if hits else 0.0) + (
            (n - hits) * math.log1p(-p) if n > hits else 0.0
        )
        return -likelihood >= top

    low = 0.0 if hits == 0 else _edge(outside, 0.0, middle)
    high = 1.0 if hits == n else _edge(outside, 1.0, middle)
    return low, high


def _edge(outside: Callable[[float], bool], far: float, near: float) -> float:
    """Return where `outside` begins between `near`, which is inside, and `far`, by bisection."""
    for _ in range(60):
        middle = (far + near) / 2
        if outside(middle):
            far = middle
        else:
            near = middle
    return far  # the outer end: an interval may only be rounded outwards
