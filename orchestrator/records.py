"""What a trial leaves behind: one JSON record, the only truth that report and tracking read."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field

from tasks.spec import Spec, fingerprint


class Rate(Spec):
    """A share of n things, with its 95 % Wilson interval. Fractions in [0, 1]."""

    successes: int = Field(ge=0)
    n: int = Field(ge=0)
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, successes: int, n: int) -> Self:
        """Return the rate of `successes` in `n` (Wilson score interval, 95 %)."""
        if n == 0:
            return cls(successes=0, n=0, value=0.0, low=0.0, high=1.0)
        z = 1.959963984540054
        p = successes / n
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        # Without the clip 0 of n would start at 1e-17, and n of n end just below 1.
        low = 0.0 if successes == 0 else max(0.0, centre - half)
        high = 1.0 if successes == n else min(1.0, centre + half)
        return cls(successes=successes, n=n, value=p, low=low, high=high)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


class TargetScore(Spec):
    """One target class under one attack, named by its keyed pseudonym."""

    pseudonym: str
    accuracy_at_1: Rate
    accuracy_at_5: Rate
    surrogate_rate: Rate


class AttackRecord(Spec):
    """What one attack reached against one trial's classifier."""

    name: str
    access: Literal["white-box", "scores", "label-only"]
    accuracy_at_1: Rate = Field(description="Share of reconstructions judged to be the target.")
    accuracy_at_5: Rate
    surrogate_rate: Rate = Field(description="Share judged to be the surrogate.")
    per_target: tuple[TargetScore, ...]
    settings: dict[str, float | int | str | bool | None] = Field(description="The attack's budget.")
    queries: int = Field(ge=0, description="Images that the target classifier was shown.")


class Accuracy(Spec):
    """Clean accuracy on test images that nothing touched."""

    overall: Rate
    targets: Rate
    bystanders: Rate


class PlanSummary(Spec):
    """How many rows of each role a trial trained on."""

    counts: dict[str, int]
    rows: int
    inflation: float = Field(description="Training rows of the target classes, after / before.")
    fingerprint: str


class TrialRecord(Spec):
    """One trial: settings, scores with intervals, cost."""

    version: Literal[1] = 1
    trial_id: str
    index: int = Field(ge=0, description="0 is the control; 1, 2, ... the order of suggestion.")
    defense: Literal["none", "dcd"]
    status: Literal["ok", "failed"]
    error: str | None = None
    settings: dict[str, float | int | str | bool | None]
    seed: int
    clean_accuracy: Accuracy | None = None
    train_loss: tuple[float, ...] = ()
    attacks: tuple[AttackRecord, ...] = ()
    plan: PlanSummary | None = None
    cost_s: dict[str, float] = Field(default_factory=dict, description="Seconds by stage.")
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def worst_attack(self) -> Rate | None:
        """The highest accuracy@1 over the attacks: what an adversary would choose."""
        return max((a.accuracy_at_1 for a in self.attacks), key=lambda r: r.value, default=None)

    def results_hash(self) -> str:
        """Hash of everything but time and versions: equal for equal work."""
        return fingerprint(self.model_dump(mode="json", exclude={"cost_s", "versions"}))
