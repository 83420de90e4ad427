"""The rows of a comparison: rivals, DCD, and DCD beside them, each along its own strength."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_serializer

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
    TransferSpec,
    TrapMidSpec,
)
from tasks.serving.spec import MemGuardSpec, OutputDefenseSpec, PurificationSpec, ServingSpec
from tasks.spec import Spec
from tasks.training_spec import TrainingSpec

if TYPE_CHECKING:
    from orchestrator.spec import ExperimentSpec

ALONE: dict[str, Any] = {"steps": ("injection", "curvature"), "target_copies": 0}
"""What one person can do who hands photos over under one name: a surrogate and noise around it.

Wrong labels need the names of others.
"""


class ComparedSpec(Spec):
    """One row of a comparison: a training-time defence, DCD, or both."""

    title: str | None = Field(None, description="Heads the row; null names what is in it.")
    dcd: bool | DcdSpec = Field(
        False,
        description="Train on the data that the experiment's recipe protects; or that recipe with "
        "other settings, such as {steps: [injection, loss]}.",
    )
    defense: DefenseSpec = NoDefense()
    serving: OutputDefenseSpec | None = Field(
        None, description="An output defence of the served model; null is none."
    )
    strengths: tuple[float, ...] | None = Field(
        None,
        description="Values of the defence's main setting, a trial each. null takes its own curve, "
        "unless that setting is given; an empty list takes the settings as they are.",
    )

    @field_serializer("dcd")
    def _changes_alone(self, dcd: bool | DcdSpec) -> bool | dict[str, Any]:
        return dcd if isinstance(dcd, bool) else dcd.model_dump(mode="json", exclude_unset=True)

    @property
    def name(self) -> str:
        """What the row is called."""
        parts = [] if self.dcd is False else ["dcd"]
        parts += [] if self.defense.name == "none" else [self.defense.name]
        parts += [self.serving.name] if self.serving is not None else []
        return self.title or "+".join(parts) or "none"


def private_schedule(training: TrainingSpec) -> dict[str, Any]:
    """Return the schedule of DP-SGD's rows: larger batches, more of them, a much higher rate.

    With that of the other rows noise drowns the gradient. Chosen on seeds that are measured nowhere
    else, at epsilon 8: `benchmarks/dp_sgd.py`.

    Args:
        training: of the experiment, which the other rows have.
    """
    return {
        "accumulate": 4,
        "epochs": 2 * training.epochs,
        "learning_rate": 33 * training.learning_rate,
    }


def default_rows(training: TrainingSpec, *, named: bool = True) -> tuple[ComparedSpec, ...]:
    """Return the rivals, DCD, and DCD beside some of them.

    A trainer who smooths labels or erases squares did not ask the person who uploaded: those rows
    say what DCD is worth then.

    Args:
        training: of the experiment; networks without skip connections have none to lose.
        named: whether the public data name people, whom a network can learn first.
    """
    private = private_schedule(training)
    rivals = [NegLsSpec(), RandomErasingSpec()]
    rivals += [TransferSpec()] if named else []
    rivals += [TrapMidSpec()]
    rivals += [RolssSpec()] if "resnet" in training.architecture else []
    beside = [RandomErasingSpec(), NegLsSpec(), LabelSmoothingSpec()]
    return (
        ComparedSpec(
            title="dp-sgd without noise", defense=DpSgdSpec(noise_multiplier=0, **private)
        ),
        *(ComparedSpec(defense=one) for one in (DpSgdSpec(**private), MidSpec(), BidoSpec())),
        ComparedSpec(
            title="bido with coco", defense=BidoSpec(measure="coco"), strengths=(10, 30, 3)
        ),
        *(ComparedSpec(defense=defense) for defense in rivals),
        *(ComparedSpec(serving=served) for served in (MemGuardSpec(), PurificationSpec())),
        ComparedSpec(dcd=True),
        ComparedSpec(title="dcd by one person", dcd=DcdSpec(**ALONE)),
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


def compared_points(spec: ExperimentSpec) -> list[Point]:
    """Return the trials of a comparison; the first is the control.

    A point that repeats an earlier one is left out: it would be the same trial under two names, and
    of its record only one of them would be left.

    Args:
        spec: the experiment; `sweep.rows` and `sweep.strengths` say what is compared, and each row
            puts its defence in the place of the experiment's own.
    """
    points = _all_points(spec)
    return [point for i, point in enumerate(points) if point.same not in _same(points[:i])]


def repeated_points(spec: ExperimentSpec) -> list[tuple[str, str]]:
    """Return the titles of points that repeat an earlier one, each with that one's."""
    points = _all_points(spec)
    return [
        (point.title, next(one.title for one in points if one.same == point.same))
        for i, point in enumerate(points)
        if point.same in _same(points[:i])
    ]


def _same(points: Sequence[Point]) -> list[object]:
    return [point.same for point in points]


def _all_points(spec: ExperimentSpec) -> list[Point]:
    rows, training = spec.sweep.rows, spec.training
    if rows is None:
        rows = default_rows(training, named=spec.data.names_public)
    plain = training.model_copy(update={"defense": NoDefense()})
    points = [Point("none", "none", None, plain)]
    for row in rows:
        knob = row.defense.knob
        values = row.defense.curve if row.strengths is None else row.strengths
        if row.strengths is None and knob and _is_set(row.defense, knob):
            values = ()
        own = [(row.name, row.defense)] if not values else []
        for value in values[: spec.sweep.strengths]:
            changed = row.defense.model_dump() | {knob: value}
            own.append((f"{row.name} {knob}={value:g}", type(row.defense).model_validate(changed)))
        for title, defense in own:
            settings = training.model_copy(update={"defense": defense})
            serving = ServingSpec() if row.serving is None else ServingSpec(defense=row.serving)
            points.append(Point(row.name, title, _recipe(row.dcd, spec.dcd), settings, serving))
    return points


def _recipe(asked: bool | DcdSpec, dcd: DcdSpec) -> DcdSpec | None:
    """Return the experiment's recipe as a row wants it; None for data as they are."""
    if isinstance(asked, bool):
        return dcd if asked else None
    return dcd.model_copy(update={name: getattr(asked, name) for name in asked.model_fields_set})


def _is_set(defense: AnyDefense, knob: str) -> bool:
    """Say whether a setting was chosen: it differs from its default."""
    return bool(getattr(defense, knob) != type(defense).model_fields[knob].default)
