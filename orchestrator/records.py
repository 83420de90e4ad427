"""What a trial leaves behind: one JSON record, the only truth that report and tracking read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field

from tasks.defenses.accounting import Guarantee
from tasks.spec import Spec, fingerprint

if TYPE_CHECKING:
    from tasks.evaluation.intervals import Interval


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


class Estimate(Spec):
    """A mean with its 95 % interval, and the rule that made it; an end that is unknown is null."""

    value: float
    low: float | None
    high: float | None
    n: int = Field(ge=0, description="Single outcomes.")
    clusters: int = Field(ge=0, description="Groups that count as one draw: targets, or seeds.")
    method: str = Field(description="Such as cluster-bootstrap.")

    @classmethod
    def of(cls, found: Interval) -> Self:
        """Return an interval as a record keeps it: six digits, the rest is rounding."""
        ends = [_six(end) if math.isfinite(end) else None for end in (found.low, found.high)]
        return cls(
            value=_six(found.value),
            low=ends[0],
            high=ends[1],
            n=found.n,
            clusters=found.clusters,
            method=found.method,
        )

    def __str__(self) -> str:
        low, high = ("?" if end is None else f"{end:.3f}" for end in (self.low, self.high))
        return f"{self.value:.3f} [{low}, {high}] (n={self.n} of {self.clusters}, {self.method})"


def _six(value: float) -> float:
    return float(f"{value:.6g}")


class WorstTarget(Spec):
    """The target that is hit most; the interval allows for its having been chosen for that."""

    pseudonym: str
    value: float
    low: float
    high: float
    n: int
    method: Literal["clopper-pearson, bonferroni"] = "clopper-pearson, bonferroni"


class SecondOpinion(Spec):
    """What a second evaluation classifier, of another architecture and seed, says."""

    architecture: str
    accuracy_at_1: Rate
    surrogate_rate: Rate
    disagreement: Rate = Field(
        description="Share of reconstructions that the two call differently: target, surrogate or "
        "other."
    )
    disagreement_interval: Estimate = Field(description="The same share, over targets.")


class ImageMetrics(Spec):
    """How reconstructions compare with the attacked targets' own training images."""

    features: str = Field(description="Whose features the distances are taken between.")
    dimensions: int
    real: int = Field(description="Training images of the attacked targets.")
    fake: int = Field(description="Reconstructions.")
    knn_distance: Estimate = Field(description="Squared, to the nearest training image.")
    mean_distance: Estimate = Field(description="Squared, mean over the training images.")
    feature_distance: Estimate = Field(description="Squared, to the mean training image.")
    held_out_distance: float | None = Field(
        description="KNN distance of the targets' own test images: what a perfect copy would have."
    )
    fid: float | None = Field(description="null where a set has no more samples than dimensions.")
    kid: float | None
    precision: float | None = Field(description="This and the next three: mean over classes.")
    recall: float | None
    density: float | None
    coverage: float | None
    classes: int = Field(description="Targets with enough images for the four.")


class KnowledgeScore(Spec):
    """How well a student that saw reconstructions alone knows the real images."""

    accuracy: Rate
    chance: float
    trained_on: int


class FleetEstimate(Spec):
    """What a sample of the targets says of all of them."""

    targets: int
    attacked: int
    strata: int
    accuracy_at_1: Estimate = Field(description="Mean over all targets, stratified.")
    exposed: int = Field(description="Attacked targets with at least one reconstruction.")
    exposed_at_most: int = Field(description="Upper 95 % bound for all targets.")


class TargetScore(Spec):
    """One target class under one attack, named by its keyed pseudonym."""

    pseudonym: str
    accuracy_at_1: Rate
    accuracy_at_5: Rate
    surrogate_rate: Rate


class SearchCurve(Spec):
    """How an attack's search got on: the mean over its candidates, at some of its steps.

    What is averaged is what the attack improves: its loss, MIRROR-B's minus log score of the
    fittest, or BREP-MI's radius.
    """

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float], most: int = 101) -> Self:
        """Return at most so many points, evenly spread, the first and the last among them."""
        count = min(len(values), most)
        steps = tuple(round(i * (len(values) - 1) / max(1, count - 1)) for i in range(count))
        return cls(steps=steps, values=tuple(_six(values[step]) for step in steps))


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
    # Added later; a record that was written before has none of them.
    accuracy_interval: Estimate | None = Field(None, description="accuracy_at_1, over targets.")
    surrogate_interval: Estimate | None = Field(None, description="surrogate_rate, over targets.")
    worst_target: WorstTarget | None = None
    second: SecondOpinion | None = None
    paper_accuracy_at_1: Rate | None = Field(
        None, description="By a judge without surrogate classes, which is the papers' convention."
    )
    image_metrics: ImageMetrics | None = None
    knowledge: KnowledgeScore | None = None
    fleet: FleetEstimate | None = None
    curve: SearchCurve = SearchCurve()


class Accuracy(Spec):
    """Clean accuracy on test images that nothing touched."""

    overall: Rate
    targets: Rate
    bystanders: Rate


class Utility(Spec):
    """Side effects of one trial's defence, all on the classifier that the attacks saw."""

    surrogate_accepts: Rate | None = Field(
        description="Share of the lent people's images that are taken for the target. Under DCD "
        "most of them were trained on."
    )
    held_out_accepts: Rate | None = Field(
        None,
        description="The same on images of the lent people that were never lent: who walks up to "
        "the model. null: all were lent, or the record is older than this count.",
    )
    receivers: Rate | None = Field(
        description="Clean accuracy of the classes that received wrong labels; null: none did."
    )
    membership_auc: float | None = Field(
        description="How well the loss tells a target's training images from its test images; 0.5 "
        "is chance."
    )
    membership_advantage: float | None = Field(
        description="True less false positives at the best threshold, chosen on these images."
    )
    members: int = Field(description="Training images of targets.")
    others: int = Field(description="Test images of targets.")


class PersonScore(Spec):
    """One target class's own test images, and those of who received its wrong labels."""

    pseudonym: str
    accuracy: Rate
    receivers: Rate | None = Field(
        description="Clean accuracy of the classes that got this person's images under their "
        "label; null: none did."
    )


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
    title: str = Field("", description="In a comparison: the defence, and where on its curve.")
    row: str = Field("", description="In a comparison: the defence.")
    training_defense: dict[str, float | int | str | bool | None] = Field(
        default_factory=dict, description="The training-time defence, beside DCD or alone."
    )
    serving: dict[str, float | int | str | bool | None] = Field(
        default_factory=dict,
        description="The output defence; attacks with white-box access never met it.",
    )
    guarantee: Guarantee | None = Field(None, description="Of DP-SGD; no other gives one.")
    utility: Utility | None = None
    clean_accuracy: Accuracy | None = None
    people: tuple[PersonScore, ...] = Field((), description="Of every target class.")
    train_loss: tuple[float, ...] = ()
    attacks: tuple[AttackRecord, ...] = ()
    plan: PlanSummary | None = None
    rows_at_once: dict[str, int] = Field(
        default_factory=dict,
        description="Where a batch did not fit into memory: the rows that did, of training "
        "(`train`) and of attacks by name.",
    )
    cost_s: dict[str, float] = Field(default_factory=dict, description="Seconds by stage.")
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def worst_attack(self) -> Rate | None:
        """The highest accuracy@1 over the attacks: what an adversary would choose."""
        return max((a.accuracy_at_1 for a in self.attacks), key=lambda r: r.value, default=None)

    def results_hash(self) -> str:
        """Hash of everything but time, memory and versions: equal for equal work.

        Curves are left out: they say how an attack got there, and older records have none.
        """
        return fingerprint(
            self.model_dump(
                mode="json",
                exclude={
                    "cost_s": True,
                    "versions": True,
                    "rows_at_once": True,
                    "attacks": {"__all__": {"curve"}},
                },
            )
        )
