"""The one interface of trainers: settings, rows, pixels, views, the loss, and where they start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from tasks.draws import Draws

if TYPE_CHECKING:
    from tasks.training_spec import TrainingSpec

Rows = npt.NDArray[np.int64]
LossOf = Callable[[Tensor, Tensor], Tensor]
"""The loss summed over rows, of normalised views (n, 3, h, w) and labels (n,)."""


@dataclass(frozen=True)
class Upload:
    """What a trainer was given, and how they train.

    Attributes:
        images: (n, 3, h, w), float in [0, 1].
        labels: (n,), int64, as given; the trainer does not know which are wrong.
        num_classes: outputs of the classifier.
        training: the settings.
        draws: of this trainer.
    """

    images: Tensor
    labels: Tensor
    num_classes: int
    training: TrainingSpec
    draws: Draws


class Pipeline:
    """Trains on everything as it is; a trainer overrides what they do otherwise."""

    def settings(self, training: TrainingSpec) -> TrainingSpec:
        """Return the settings that this one trains with."""
        return training

    def rows(self, upload: Upload) -> Rows:
        """Return the rows that are trained on; one may stand there more than once."""
        return np.arange(len(upload.labels))

    def pixels(self, images: Tensor) -> Tensor:
        """Return images (n, 3, h, w) in [0, 1] as they are stored before training."""
        return images

    def begin(self, network: nn.Module) -> None:
        """Prepare a fresh network before its first step."""

    def views(self, views: Tensor, rows: Rows, draws: Draws) -> Tensor:
        """Return views (n, 3, h, w) in [0, 1], augmented by draws of the epoch keyed by row."""
        return views

    def loss(self, loss_of: LossOf, views: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        """Return the loss summed over the rows of a batch; `draws` belong to the batch."""
        return loss_of(views, labels)
