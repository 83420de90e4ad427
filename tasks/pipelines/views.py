"""Trainers with one random augmentation each, instead of the common ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tasks.batches import crop_views
from tasks.draws import Draws
from tasks.pipelines.pipeline import Pipeline, Rows
from tasks.pipelines.spec import CropTrainerSpec, JitterSpec

if TYPE_CHECKING:
    from tasks.training_spec import TrainingSpec

_GREY = (0.299, 0.587, 0.114)


class Plain(Pipeline):
    """Shows every image as it is."""

    def settings(self, training: TrainingSpec) -> TrainingSpec:
        """Return the settings without the common augmentation."""
        return training.model_copy(update={"augment": False})


class RandomCrop(Plain):
    """Square crops of a random size and place."""

    def __init__(self, spec: CropTrainerSpec) -> None:
        self.least = spec.least_area

    def views(self, views: Tensor, rows: Rows, draws: Draws) -> Tensor:
        """Return crops at the old size."""
        u = torch.from_numpy(draws.child("crop").uniform(rows, 3)).float()
        side = torch.sqrt(self.least + (1 - self.least) * u[:, 0])
        return crop_views(
            views, side, (2 * u[:, 1] - 1) * (1 - side), (2 * u[:, 2] - 1) * (1 - side)
        )


class Flip(Plain):
    """Mirrors half of the views."""

    def views(self, views: Tensor, rows: Rows, draws: Draws) -> Tensor:
        """Return the views, some from right to left."""
        mirrored = torch.from_numpy(draws.child("flip").uniform(rows)[:, 0] < 0.5)
        return torch.where(mirrored.view(-1, 1, 1, 1), views.flip(3), views)


class Jitter(Plain):
    """Changes brightness, contrast and saturation."""

    def __init__(self, spec: JitterSpec) -> None:
        self.strength = spec.strength

    def views(self, views: Tensor, rows: Rows, draws: Draws) -> Tensor:
        """Return the views in another light."""
        u = torch.from_numpy(draws.child("jitter").uniform(rows, 3)).float()
        light, contrast, colour = (1 + self.strength * (2 * u - 1)).view(-1, 3, 1, 1, 1).unbind(1)
        views = (views * light).clamp(0, 1)
        grey = (views * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        mean = grey.mean(dim=(2, 3), keepdim=True)
        views = ((views - mean) * contrast + mean).clamp(0, 1)
        grey = (views * torch.tensor(_GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        return ((views - grey) * colour + grey).clamp(0, 1)
