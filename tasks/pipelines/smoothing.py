"""Label smoothing as trainers use it: in the place of plain cross entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.defenses.spec import LabelSmoothingSpec
from tasks.errors import TrainingError
from tasks.pipelines.pipeline import Pipeline
from tasks.pipelines.spec import SmoothingTrainerSpec

if TYPE_CHECKING:
    from tasks.training_spec import TrainingSpec


class Smoothing(Pipeline):
    """Trains with smoothed labels."""

    def __init__(self, spec: SmoothingTrainerSpec) -> None:
        self.alpha = spec.alpha

    def settings(self, training: TrainingSpec) -> TrainingSpec:
        """Return the settings with smoothed labels.

        Raises:
            TrainingError: the settings have a training-time defence already.
        """
        if training.defense.name != "none":
            raise TrainingError(
                f"trainer label-smoothing changes the loss, and so does defence "
                f"{training.defense.name}; leave one of them out"
            )
        return training.model_copy(update={"defense": LabelSmoothingSpec(alpha=self.alpha)})
