"""The rows of a comparison: rivals, DCD, and DCD beside them, each along its own strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from augment.spec import DcdSpec
from tasks.defenses.spec import (
    AnyDefense,
    BidoSpec,
    DefenseSpec,
    DpSgdSpec,
    LabelSmoothingSpec,
    MidSpec,
    NegLsSpec,
    NoDefense,
    RandomErasingSpec,
    RolssSpec,
    TrapMidSpec,
)
from tasks.serving.spec import OutputDefenseSpec, ServingSpec
from tasks.spec import Spec
from tasks.training_spec import TrainingSpec


class ComparedSpec(Spec):
    """One row of a comparison: a training-time defence, DCD, or both."""

    title: str | None = Field(None, description="Heads the row; null names what is in it.")
    dcd: bool = Field(False, description="Train on the data that the experiment's recipe protects.")
    defense: DefenseSpec = NoDefense()
    serving: OutputDefenseSpec | None = Field(
        None, description="An output defence of the served model; null is none."
    )
    strengths: tuple[float, ...] | None = Field(
        None,
        description="Values of the defence's main setting, a trial each. null takes its own curve, "
        "unless that setting is given; an empty list takes the settings as they are.",
    )

    @property
    def name(self) -> str:
        """What the row is called."""
        parts = ["dcd"] * self.dcd + [self.defense.name] * (self.defense.name != "none")
        parts += [self.serving.name] if self.serving is not None else []
        return self.title or "+".join(parts) or "none"


def default_rows(training: TrainingSpec) -> tuple[ComparedSpec, ...]:
    """Return the rivals that need nothing but the private data, DCD, and DCD beside some.

    A trainer who smooths labels or erases squares did not ask the person who uploaded: those rows
    say what DCD is worth then.
    """
    rivals = [DpSgdSpec(), MidSpec(), BidoSpec(), NegLsSpec(), RandomErasingSpec(), TrapMidSpec()]
    residual = [RolssSpec()] if "resnet" in training.architecture else []
    beside = [RandomErasingSpec(), NegLsSpec(), LabelSmoothingSpec()]
    return (
        ComparedSpec(title="dp-sgd without noise", defense=DpSgdSpec(noise_multiplier=0.0)),
        *(ComparedSpec(defense=defense) for defense in [*rivals, *residual]),
        ComparedSpec(dcd=True),
        *(ComparedSpec(dcd=True, defense=defense, strengths=()) for defense in beside),
    )


@dataclass(frozen=True)
class Point:
    """One trial of a comparison.

    Attributes:
        row: which row it belongs to.
        title: the row, and where on its curve.
        dcd: the recipe; None trains on the data as it is.
        training: with the defence.
        serving: how the trained model answers.
    """

    row: str
    title: str
    dcd: DcdSpec | None
    training: TrainingSpec
    serving: ServingSpec = ServingSpec()

    @property
    def same(self) -> object:
        """What makes the trial, names apart."""
        return self.dcd, self.training, self.serving


def compared_points(
    rows: Sequence[ComparedSpec] | None, limit: int, dcd: DcdSpec, training: TrainingSpec
) -> list[Point]:
    """Return the trials of a comparison; the first is the control.

    A point that repeats an earlier one is left out: it would be the same trial under two names, and
    of its record only one of them would be left.

    Args:
        rows: None takes the default ones.
        limit: points of each curve, at the most.
        dcd: the experiment's recipe.
        training: the experiment's; each row puts its defence in the place of that.
    """
    points = _all_points(rows, limit, dcd, training)
    return [point for i, point in enumerate(points) if point.same not in _same(points[:i])]


def repeated_points(
    rows: Sequence[ComparedSpec] | None, limit: int, dcd: DcdSpec, training: TrainingSpec
) -> list[tuple[str, str]]:
    """Return the titles of points that repeat an earlier one, each with that one's."""
    points = _all_points(rows, limit, dcd, training)
    return [
        (point.title, next(one.title for one in points if one.same == point.same))
        for i, point in enumerate(points)
        if point.same in _same(points[:i])
    ]


def _same(points: Sequence[Point]) -> list[object]:
    return [point.same for point in points]


def _all_points(
    rows: Sequence[ComparedSpec] | None, limit: int, dcd: DcdSpec, training: TrainingSpec
) -> list[Point]:
    plain = training.model_copy(update={"defense": NoDefense()})
    points = [Point("none", "none", None, plain)]
    for row in default_rows(training) if rows is None else rows:
        knob = row.defense.knob
        values = row.defense.curve if row.strengths is None else row.strengths
        if row.strengths is None and knob and _is_set(row.defense, knob):
            values = ()
        own = [(row.name, row.defense)] if not values else []
        for value in values[:limit]:
            changed = row.defense.model_dump() | {knob: value}
            own.append((f"{row.name} {knob}={value:g}", type(row.defense).model_validate(changed)))
        for title, defense in own:
            settings = training.model_copy(update={"defense": defense})
            serving = ServingSpec() if row.serving is None else ServingSpec(defense=row.serving)
            points.append(Point(row.name, title, dcd if row.dcd else None, settings, serving))
    return points


def _is_set(defense: AnyDefense, knob: str) -> bool:
    """Say whether a setting was chosen: it differs from its default."""
    return bool(getattr(defense, knob) != type(defense).model_fields[knob].default)
