"""Which trials are worth having: the frontier, its knee, and the one to recommend.

Two objectives: clean accuracy up, attack accuracy down. The attack accuracy of a trial is that of
its worst attack, since an adversary would choose that one. A trial that failed has no point here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.records import Rate, TrialRecord
from orchestrator.spec import GoalSpec

_Z = 1.959963984540054
_SLACK = 1e-9  # 1.0 - 0.97 is not 0.03 in binary; a goal that is met exactly is met


class Point(NamedTuple):
    """A trial on the plane of the two objectives; both in [0, 1], NaN where there is no result."""

    clean_accuracy: float
    attack_accuracy: float


class Point3(NamedTuple):
    """A trial with the third objective; NaN where there is no result."""

    clean_accuracy: float
    attack_accuracy: float
    inflation: float


@dataclass(frozen=True)
class Recommendation:
    """The trial to use, or why there is none.

    Attributes:
        trial_id: the recommended trial; None when no trial meets the goals.
        reason: one or two plain sentences, rates in percent.
        nearest: the trial that misses the goals by least, when none meets them.
    """

    trial_id: str | None
    reason: str
    nearest: str | None = None


def point_of(record: TrialRecord) -> Point:
    """Return where a trial lies: overall clean accuracy and its worst attack's accuracy@1."""
    worst = record.worst_attack
    if record.status != "ok" or record.clean_accuracy is None or worst is None or worst.n == 0:
        return Point(math.nan, math.nan)
    return Point(record.clean_accuracy.overall.value, worst.value)


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Return the indices, ascending, of the points that no other point dominates.

    A point dominates another when it is at least as good in both objectives and better in one, so
    equal points stay in together. A point with a NaN neither enters nor dominates.
    """
    front: list[int] = []
    best = Point(math.nan, math.inf)
    for index in _by_accuracy_then_attack(points):
        point = points[index]
        if point.attack_accuracy < best.attack_accuracy:
            best = point
        if point == best:
            front.append(index)
    return sorted(front)


def hypervolume_2d(points: Sequence[Point], reference: Point) -> float:
    """Return the area between the front and `reference`, which is worse than every useful point.

    The indicator of Zitzler and Thiele (1999): larger is better, and a dominated point adds
    nothing. A point that is not better than the reference in both objectives adds nothing either.
    """
    area = 0.0
    ceiling = reference.attack_accuracy
    for index in _by_accuracy_then_attack(points):
        gain = points[index].clean_accuracy - reference.clean_accuracy
        drop = ceiling - points[index].attack_accuracy
        if gain > 0 and drop > 0:
            area += gain * drop
            ceiling = points[index].attack_accuracy
    return area


def hypervolume_3d(points: Sequence[Point3], reference: Point3) -> float:
    """Return the volume between the front and `reference`, with inflation as third objective.

    Exact, by slices: between two inflations the cross-section is the area of all points with the
    lower one or less. As in two objectives, a point with a NaN, or one that is not better than the
    reference in all three, adds nothing.
    """
    whole = sorted(
        (p for p in points if not any(map(math.isnan, p)) and p.inflation < reference.inflation),
        key=lambda p: p.inflation,
    )
    ceiling = Point(reference.clean_accuracy, reference.attack_accuracy)
    volume, slab = 0.0, list[Point]()
    for i, point in enumerate(whole):
        slab.append(Point(point.clean_accuracy, point.attack_accuracy))
        top = whole[i + 1].inflation if i + 1 < len(whole) else reference.inflation
        if top > point.inflation:
            slab = [slab[k] for k in pareto_front(slab)]
            volume += hypervolume_2d(slab, ceiling) * (top - point.inflation)
    return volume


def hypervolume_growth(points: Sequence[Point], reference: Point) -> list[float]:
    """Return the hypervolume after each point, in the order in which they were found."""
    grown: list[float] = []
    front: list[Point] = []
    for point in points:
        front = [*front, point]
        front = [front[k] for k in pareto_front(front)]
        grown.append(hypervolume_2d(front, reference))
    return grown


def knee(points: Sequence[Point]) -> int | None:
    """Return the index of the point where the front bends most, or None where it does not bend.

    The front's point farthest from the straight line between the front's two ends, on the good
    side, with both objectives scaled to the front's extent (Das, Structural Optimization 18, 1999).
    A front of one or two distinct points is a point or a line, and one that bulges to the bad side
    has no best compromise: all three give None. Equally far points: the lower attack accuracy.
    """
    front = sorted(pareto_front(points), key=lambda i: points[i].clean_accuracy)
    if not front:
        return None
    low, high = points[front[0]], points[front[-1]]
    width = high.clean_accuracy - low.clean_accuracy
    height = high.attack_accuracy - low.attack_accuracy
    if width == 0:
        return None
    best, best_gain = None, _SLACK
    for index in front:
        across = (points[index].clean_accuracy - low.clean_accuracy) / width
        up = (points[index].attack_accuracy - low.attack_accuracy) / height
        if across - up > best_gain + _SLACK:
            best, best_gain = index, across - up
    return best


def feasible(
    records: Sequence[TrialRecord], control: TrialRecord, goal: GoalSpec
) -> list[TrialRecord]:
    """Return the DCD trials that meet both goals, by their point estimates."""
    return [r for r in _candidates(records) if max(_excess(r, control, goal)) <= _SLACK]


def ranked(
    records: Sequence[TrialRecord], control: TrialRecord, goal: GoalSpec
) -> list[TrialRecord]:
    """Return the trials that meet both goals, the one to recommend first."""
    return sorted(feasible(records, control, goal), key=_preference)


def is_shown(record: TrialRecord, goal: GoalSpec) -> bool:
    """Say whether the tries show that every attack stays within the goal: its whole interval."""
    return bool(record.attacks) and _upper_bound(record) <= goal.max_attack_accuracy + _SLACK


def tries_needed(share: float) -> int | None:
    """Return how many tries without a success show a rate of at most `share`; None if none can.

    The least n for which the upper end of the 95 % Wilson interval of 0 in n is at most `share`.
    """
    return math.ceil(_Z * _Z * (1 / share - 1) - _SLACK) if share > 0 else None


def recommend(records: Sequence[TrialRecord], goal: GoalSpec) -> Recommendation:
    """Choose one trial: within the accuracy that the goal lets us spend, buy the most privacy.

    The rule: among the trials that meet both goals, the one whose attacks have the lowest upper
    95 % bound of accuracy@1 (the highest over its attacks); then the highest clean accuracy, the
    lowest inflation, the earliest. This is the epsilon-constraint method: accuracy is the
    constraint, privacy the objective. The bound, not the estimate, so that few tries earn no trust.
    """
    control = find_control(records)
    candidates = _candidates(records)
    if control is None or math.isnan(point_of(control).clean_accuracy):
        return Recommendation(
            None, "The control has no result, so nothing tells what a setting costs or gains."
        )
    if not candidates:
        return Recommendation(None, "No trial with a defence has finished.")
    good = feasible(candidates, control, goal)
    if not good:
        nearest = min(candidates, key=lambda r: (max(_excess(r, control, goal)), _preference(r)))
        return Recommendation(None, _shortfall(nearest, control, goal), nearest.trial_id)
    chosen = min(good, key=_preference)
    return Recommendation(chosen.trial_id, _grounds(chosen, good, control, goal))


def find_control(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the trial without a defence, if it is there."""
    # In a comparison rivals do without DCD too; the control is its first trial.
    return next((r for r in records if r.defense == "none" and (r.index == 0 or not r.title)), None)


def _candidates(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [r for r in records if r.defense != "none" and not math.isnan(point_of(r)[0])]


def _by_accuracy_then_attack(points: Sequence[Point]) -> list[int]:
    finite = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    return sorted(finite, key=lambda i: (-points[i].clean_accuracy, points[i].attack_accuracy))


def _excess(record: TrialRecord, control: TrialRecord, goal: GoalSpec) -> tuple[float, float]:
    """By how much attack accuracy, and the fall of clean accuracy, are above their goals."""
    here, there = point_of(record), point_of(control)
    drop = there.clean_accuracy - here.clean_accuracy
    return here.attack_accuracy - goal.max_attack_accuracy, drop - goal.max_accuracy_drop


def _upper_bound(record: TrialRecord) -> float:
    return max(attack.accuracy_at_1.high for attack in record.attacks)


def _preference(record: TrialRecord) -> tuple[float, float, float, int]:
    inflation = record.plan.inflation if record.plan else 1.0
    return _upper_bound(record), -point_of(record).clean_accuracy, inflation, record.index


def _drop_in_words(record: TrialRecord, control: TrialRecord) -> str:
    drop = 100 * (point_of(control).clean_accuracy - point_of(record).clean_accuracy)
    return f"{drop:.1f} points" if drop > 0 else "no point"


def _grounds(
    chosen: TrialRecord, good: Sequence[TrialRecord], control: TrialRecord, goal: GoalSpec
) -> str:
    if len(good) == 1:
        lead = f"Trial {chosen.index} is the only one that meets both goals"
    else:
        lead = (
            f"Of {len(good)} trials that meet both goals, trial {chosen.index} has the lowest "
            "upper bound on its strongest attack"
        )
    point = point_of(chosen)
    return (
        f"{lead}: {100 * point.attack_accuracy:.1f} % of its reconstructions show the target, at "
        f"most {100 * _upper_bound(chosen):.1f} % by the 95 % interval (goal: "
        f"{100 * goal.max_attack_accuracy:g} %). It costs {_drop_in_words(chosen, control)} of "
        f"clean accuracy (goal: at most {100 * goal.max_accuracy_drop:g}).{_doubt(chosen, goal)}"
    )


def _shortfall(record: TrialRecord, control: TrialRecord, goal: GoalSpec) -> str:
    attack, drop = _excess(record, control, goal)
    misses = []
    if attack > _SLACK:
        misses.append(
            f"its worst attack reaches {100 * point_of(record).attack_accuracy:.1f} %, "
            f"{100 * attack:.1f} points above the goal of {100 * goal.max_attack_accuracy:g} %"
        )
    if drop > _SLACK:
        misses.append(
            f"it costs {_drop_in_words(record, control)} of clean accuracy, "
            f"{100 * drop:.1f} more than the goal of {100 * goal.max_accuracy_drop:g} points"
        )
    return (
        f"No trial meets both goals. Trial {record.index} comes nearest: {' and '.join(misses)}. "
        f"Search more trials, or other ranges of the levers.{_doubt(record, goal)}"
    )


def _doubt(record: TrialRecord, goal: GoalSpec) -> str:
    """Say what the tries cannot show, however they end; nothing where they are enough."""
    needed, tries = (
        tries_needed(goal.max_attack_accuracy),
        min(a.accuracy_at_1.n for a in record.attacks),
    )
    if is_shown(record, goal) or needed is None or tries >= needed:
        return ""
    return (
        f" {tries} tries an attack are too few to show at most "
        f"{100 * goal.max_attack_accuracy:g} %: even without one success the 95 % interval would "
        f"reach {100 * Rate.of(0, tries).high:.1f} %, and {needed} tries without one are needed."
    )
