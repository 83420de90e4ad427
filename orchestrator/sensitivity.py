"""Which setting moves which objective: rank correlations over the trials of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from orchestrator.records import TrialRecord
from tasks.spec import Spec

OBJECTIVES = ("worst attack", "clean accuracy", "inflation")

LEAST = 6
"""Trials below which a rank correlation says nothing."""


class Effect(Spec):
    """How a setting and an objective go together over the trials."""

    setting: str
    objective: str
    rho: float = Field(description="Spearman's rank correlation, -1 to 1.")
    low: float
    high: float
    n: int = Field(description="Trials.")

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def effects(records: Sequence[TrialRecord]) -> list[Effect]:
    """Return Spearman's rho of each varied numeric setting with each objective.

    With the 95 % interval by Fisher's z and the variance 1.06 / (n - 3) of Fieller, Hartley and
    Pearson (1957); for it a perfect correlation counts as 1 - 1 / n. It says how two things go
    together in the trials that the search happened to try, other settings varying too; it is not
    the effect of changing one alone.
    """
    from scipy.stats import rankdata

    good = [r for r in records if r.defense != "none" and r.status == "ok" and objectives_of(r)]
    found = []
    for setting in varied_settings(good):
        values = np.array([float(r.settings[setting] or 0.0) for r in good])
        ranks = rankdata(values)
        for i, objective in enumerate(OBJECTIVES):
            other = rankdata([(objectives_of(r) or (0.0,) * 3)[i] for r in good])
            if len(good) < LEAST or np.ptp(ranks) == 0 or np.ptp(other) == 0:
                continue
            rho = float(np.clip(np.corrcoef(ranks, other)[0, 1], -1, 1))
            most = 1 - 1 / len(good)
            z = math.atanh(min(max(rho, -most), most))
            half = 1.959964 * math.sqrt(1.06 / (len(good) - 3))
            ends = (math.tanh(z - half), math.tanh(z + half))
            low, high = round(min(ends[0], rho), 4), round(max(ends[1], rho), 4)
            found.append(
                Effect(
                    setting=setting,
                    objective=objective,
                    rho=round(rho, 4),
                    low=low,
                    high=high,
                    n=len(good),
                )
            )
    return found


def varied_settings(records: Sequence[TrialRecord]) -> list[str]:
    """Return the numeric settings that differ between the records."""
    names = dict.fromkeys(name for record in records for name in record.settings)
    found = []
    for name in names:
        values = [record.settings.get(name) for record in records]
        numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if numeric and len(set(values)) > 1:
            found.append(name)
    return found


def objectives_of(record: TrialRecord) -> tuple[float, float, float] | None:
    """Return worst attack, clean accuracy and inflation; None where one is missing."""
    if record.clean_accuracy is None or record.worst_attack is None or record.plan is None:
        return None
    return record.worst_attack.value, record.clean_accuracy.overall.value, record.plan.inflation
