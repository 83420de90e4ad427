"""A stratified sample of a large fleet's targets, and what it says of those that were not attacked.

Which targets are drawn depends on the seed and on each target's own name: adding a target to one
stratum changes no other stratum's order. Every stratum is represented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tasks.draws import Draws
from tasks.errors import SpecError
from tasks.evaluation.intervals import Interval, Method, clopper_pearson, cluster_mean

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
ALPHA = 0.05


@dataclass(frozen=True)
class TargetSample:
    """Which targets are attacked.

    Attributes:
        chosen: positions among all targets, ascending.
        stratum: of each chosen one, an index into `sizes`.
        sizes: targets of each stratum, in the whole fleet.
    """

    chosen: tuple[int, ...]
    stratum: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def drawn(self) -> tuple[int, ...]:
        """Targets drawn from each stratum."""
        return tuple(self.stratum.count(h) for h in range(len(self.sizes)))


def sample_targets(
    strata: Sequence[str], labels: Sequence[int], count: int, draws: Draws
) -> TargetSample:
    """Draw targets, from each stratum at least one and otherwise in proportion to its size.

    Args:
        strata: of each target.
        labels: of each target: what its draw is keyed by.
        count: targets to draw; all of them where there are no more.
        draws: of the sample.

    Raises:
        SpecError: there are more strata than targets to draw.
    """
    names = sorted(set(strata))
    sizes = [strata.count(name) for name in names]
    if count < len(names):
        raise SpecError(
            f"evaluation.sample_targets={count} cannot represent {len(names)} strata of "
            f"evaluation.sample_by; draw at least {len(names)}, or use sample_by=nothing"
        )
    drawn = allocate(sizes, min(count, len(strata)))
    rank = draws.bits(np.asarray(labels, dtype=np.int64))[:, 0]
    chosen: list[tuple[int, int]] = []
    for h, name in enumerate(names):
        members = [i for i, one in enumerate(strata) if one == name]
        members.sort(key=lambda i: int(rank[i]))
        chosen += [(i, h) for i in members[: drawn[h]]]
    chosen.sort()
    return TargetSample(tuple(i for i, _ in chosen), tuple(h for _, h in chosen), tuple(sizes))


def allocate(sizes: Sequence[int], count: int) -> list[int]:
    """Return how many to draw of each stratum: at least 1, at most all, the rest in proportion."""
    drawn = [1] * len(sizes)
    total = sum(sizes)
    for _ in range(count - len(sizes)):  # each to the stratum that is furthest below its share
        lag = [
            count * size / total - have if have < size else -np.inf
            for size, have in zip(sizes, drawn, strict=True)
        ]
        drawn[int(np.argmax(lag))] += 1
    return drawn


def estimate_all(rates: Floats, sample: TargetSample, draws: Draws) -> Interval:
    """Return the mean rate of all targets, estimated from those of the sample.

    sum_h (N_h / N) mean_h: each stratum's mean counts by its size. The interval is a bootstrap of
    targets within strata; strata of which one target was drawn are pooled, since one says nothing
    of the spread. No correction for a finite fleet is made, which errs on the wide side. Where all
    rates are 0, or all are 1, nothing can be resampled: then the bound of `exposed_bound` holds,
    since a target that is not exposed has rate 0.

    Args:
        rates: of each chosen target, (n,).
        sample: who was drawn.
        draws: of the bootstrap.
    """
    sizes, drawn = np.array(sample.sizes), np.array(sample.drawn)
    stratum = np.array(sample.stratum)
    weight = (sizes / drawn / sizes.sum())[stratum]  # of each chosen target; they sum to 1
    value = float((weight * rates).sum())
    if (rates == rates[0]).all() and rates[0] in (0.0, 1.0):
        rest = exposed_bound(np.zeros(len(rates), dtype=np.bool_), sample) / float(sizes.sum())
        low, high = (0.0, rest) if rates[0] == 0 else (1 - rest, 1.0)
        method: Method = "finite-population bound over targets"
        return Interval(value, low, high, len(rates), len(rates), method)
    groups = [np.flatnonzero(stratum == h) for h in range(len(sizes)) if drawn[h] > 1]
    single = np.flatnonzero(drawn[stratum] == 1)
    groups += [single] if len(single) else []
    low = high = 0.0
    for h, members in enumerate(groups):
        # A stratum's part of the sum is a mean of weighted rates, times its number of targets.
        part = (weight * rates)[members][:, None] * len(members)
        found = cluster_mean(part, draws.child(h))
        low, high = low + (found.value - found.low) ** 2, high + (found.high - found.value) ** 2
    return Interval(
        value,
        max(0.0, value - float(np.sqrt(low))),
        min(1.0, value + float(np.sqrt(high))),
        len(rates),
        len(rates),
        "cluster-bootstrap",
    )


def exposed_bound(exposed: npt.NDArray[np.bool_], sample: TargetSample) -> int:
    """Return an upper 95 % bound on how many targets of the whole fleet are exposed.

    The bound is the greatest total K that the sample does not reject: with T the number of exposed
    targets in the sample, the largest probability of so small a T, over all ways to spread K over
    the strata, is above 5 %.

    - One stratum: T is hypergeometric, and the bound is exact (0 of n of N included).
    - T = 0: the probability is a product over strata, maximised over all ways by max-plus sums.
    - Otherwise: T is a sum of independent Bernoulli variables (Vatutin and Mikhailov, 1982), so
      that a binomial with the same mean bounds its lower tail (Hoeffding, 1956), and
      Clopper-Pearson's one-sided bound of the mean, at the largest weight of a stratum, holds.

    Args:
        exposed: of each chosen target, (n,).
        sample: who was drawn.
    """
    sizes, drawn, hit = np.array(sample.sizes), np.array(sample.drawn), int(exposed.sum())
    fleet, n = int(sizes.sum()), int(drawn.sum())
    most = fleet - (n - hit)  # the ones that were seen to be safe are safe
    if len(sizes) == 1:
        tails = [_lower_tail(hit, fleet, k, n) for k in range(hit, most + 1)]
        kept = [hit + i for i, tail in enumerate(tails) if tail > ALPHA]
        return max(kept, default=hit)
    if hit == 0:
        best = np.zeros(1)
        for size, draws in zip(sizes, drawn, strict=True):
            best = _max_plus(best, _log_none(int(size), int(draws)))
        return int(np.flatnonzero(best > np.log(ALPHA)).max())
    rate = clopper_pearson(hit, n, 1 - 2 * ALPHA)[1]
    weight = float((sizes / fleet / (drawn / n)).max())
    return max(hit, min(most, int(np.floor(fleet * rate * weight + 1e-9))))


def _log_none(size: int, drawn: int) -> Floats:
    """Return log P(none of k exposed among `drawn` of `size`) for k = 0, ..., size - drawn."""
    k = np.arange(size - drawn + 1)
    found: Floats = (
        gammaln(size - k + 1)
        - gammaln(size - k - drawn + 1)
        - gammaln(size + 1)
        + gammaln(size - drawn + 1)
    )
    return found


def _max_plus(a: Floats, b: Floats) -> Floats:
    """Return c_k = max over i + j = k of a_i + b_j, both concave: the larger step comes first."""
    steps = np.sort(np.concatenate([np.diff(a), np.diff(b)]))[::-1]
    return np.concatenate([[a[0] + b[0]], a[0] + b[0] + np.cumsum(steps)])


def _lower_tail(hit: int, fleet: int, exposed: int, drawn: int) -> float:
    """Return P(T <= hit) for T hypergeometric: `exposed` of `fleet`, `drawn` of them seen."""
    t = np.arange(max(0, drawn - (fleet - exposed)), min(hit, exposed, drawn) + 1)
    if not len(t):
        return 0.0
    return float(np.exp(_log_choose(exposed, t) + _log_choose(fleet - exposed, drawn - t)
                        - _log_choose(fleet, np.array(drawn))).sum())  # fmt: skip


def _log_choose(n: int, k: Ints) -> Floats:
    found: Floats = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found
