"""Intervals for rates whose parts are not independent: over reconstructions, targets and seeds.

The reconstructions of one target share a model, a class and a prior; when one succeeds, the others
tend to. An interval that counts each of them as a draw of its own (Wilson) is then too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, stdtrit

from tasks.draws import Draws

Floats = npt.NDArray[np.floating[Any]]

Method = Literal[
    "cluster-bootstrap",
    "clopper-pearson over targets",
    "finite-population bound over targets",
    "student over seeds",
]

ROUNDS = 2000
LEVEL = 0.95
_AT_ONCE = 1 << 21  # outcomes drawn at a time: a fleet times 2000 rounds does not fit in memory
_NORMAL = 1.959963984540054  # quantile of LEVEL, both sides


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval, and by which rule.

    Attributes:
        value: the mean.
        low: lower end.
        high: upper end.
        n: single outcomes.
        clusters: groups of outcomes that were resampled together.
        method: how the ends were found.
    """

    value: float
    low: float
    high: float
    n: int
    clusters: int
    method: Method


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact two-sided interval of a rate (Clopper and Pearson, Biometrika 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return low, high


def cluster_rate(hits: npt.NDArray[np.bool_], draws: Draws) -> Interval:
    """Return the rate of hits (targets, n) with an interval that respects the targets.

    Two-stage bootstrap: targets are resampled, and reconstructions within each. Where all outcomes
    are equal the sample says nothing of how alike a target's outcomes are; then a target counts as
    one outcome (Clopper-Pearson over targets), the widest that the correlation can make it.
    """
    targets, n = len(hits), hits.size
    rate = float(hits.mean())
    if rate in (0.0, 1.0):
        low, high = clopper_pearson(round(rate * targets), targets)
        return Interval(rate, low, high, n, targets, "clopper-pearson over targets")
    found = cluster_mean(hits.astype(np.float64), draws)
    low, high = max(0.0, found.low), min(1.0, found.high)
    return Interval(rate, low, high, n, targets, found.method)


def cluster_mean(values: Floats, draws: Draws, rounds: int = ROUNDS) -> Interval:
    """Return the mean of values (clusters, n) with a two-stage bootstrap interval.

    The percentile ends of a bootstrap over few clusters are too near: it divides by k where the
    variance wants k - 1, and its quantiles are normal where Student's are due. Both ends are moved
    out from the mean by sqrt(k / (k - 1)) * t / z. One cluster has no interval: its ends are
    infinite.
    """
    clusters = len(values)
    mean = float(values.mean())
    if clusters < 2:
        return Interval(mean, -np.inf, np.inf, values.size, clusters, "cluster-bootstrap")
    means = resampled_means(values, draws, rounds)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    stretch = float(
        np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 + LEVEL) / 2) / _NORMAL
    )
    return Interval(
        mean,
        mean - stretch * (mean - float(low)),
        mean + stretch * (float(high) - mean),
        values.size,
        clusters,
        "cluster-bootstrap",
    )


def resampled_means(values: Floats, draws: Draws, rounds: int = ROUNDS) -> Floats:
    """Return the means (rounds,) of resamples of values (clusters, n): clusters, then within them.

    Round i draws the same numbers whatever the values are: two measures of the same things that are
    resampled by the same `draws` stay paired.
    """
    clusters, each = values.shape
    at_once = max(1, _AT_ONCE // values.size)
    means = np.empty(rounds)
    for start in range(0, rounds, at_once):
        ids = np.arange(start, min(start + at_once, rounds))
        which = draws.child("clusters").integers(ids, 0, clusters, clusters)  # (rounds, clusters)
        within = draws.child("within").integers(ids, 0, each, clusters * each)
        picked = values[which[:, :, None], within.reshape(len(ids), clusters, each)]
        means[ids] = picked.mean(axis=(1, 2))
    return means


@dataclass(frozen=True)
class Worst:
    """The target that is hit most, with an interval that knows it was chosen for that.

    Attributes:
        target: its index.
        value: its rate.
        low: lower end for the highest true rate of all targets.
        high: upper end of the same.
        n: reconstructions of the target.
    """

    target: int
    value: float
    low: float
    high: float
    n: int


def worst_target(hits: npt.NDArray[np.bool_]) -> Worst:
    """Return the worst of the targets, hits (targets, n).

    Each target has its own Clopper-Pearson interval at level 1 - 0.05 / targets (Bonferroni), so
    that all hold at once with 95 %; the highest true rate then lies between the highest of the
    lower ends and the highest of the upper ends, whichever target it belongs to.
    """
    targets, each = hits.shape
    counts = hits.sum(axis=1)
    ends = [clopper_pearson(int(count), each, 1 - (1 - LEVEL) / targets) for count in counts]
    at = int(counts.argmax())
    return Worst(
        at,
        float(counts[at] / each),
        max(low for low, _ in ends),
        max(high for _, high in ends),
        each,
    )


def over_seeds(rates: Floats) -> Interval:
    """Return the mean of one rate a seed, (seeds,), with Student's interval, cut to [0, 1].

    Seeds are what a repetition of the experiment draws anew: model, targets, surrogates, noise.
    One seed has no interval: it is [0, 1].
    """
    count, mean = len(rates), float(np.mean(rates))
    half = np.inf
    if count > 1:
        quantile = float(stdtrit(count - 1, (1 + LEVEL) / 2))
        half = quantile * float(np.std(rates, ddof=1)) / np.sqrt(count)
    low, high = max(0.0, mean - half), min(1.0, mean + half)
    return Interval(mean, low, high, count, count, "student over seeds")
