"""Random erasing as a defence (MIDRE, TMLR 2025): no view shows a whole face."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.defenses.defense import Defense
from tasks.defenses.spec import RandomErasingSpec
from tasks.draws import Draws

FILL = (0.485, 0.456, 0.406)
"""ImageNet's mean colour in the unit range, as published."""


class RandomErasing(Defense):
    """Erases a square of each view, keyed by epoch and row."""

    def __init__(self, spec: RandomErasingSpec) -> None:
        self.spec = spec

    def views(self, views: Tensor, rows: npt.NDArray[np.int64], draws: Draws) -> Tensor:
        """Return the views with a square of the mean colour in each."""
        return erase(views, draws.child("erase").uniform(rows, 4), self.spec)


def erase(views: Tensor, uniform: npt.NDArray[np.float64], spec: RandomErasingSpec) -> Tensor:
    """Return views with a square erased.

    Args:
        views: (n, 3, h, w) in [0, 1].
        uniform: whether, area, and place of each square in [0, 1), (n, 4).
        spec: chance and sizes.
    """
    height, width = views.shape[2:]
    area = spec.least_area + (spec.most_area - spec.least_area) * uniform[:, 1]
    side = np.minimum(np.rint(np.sqrt(area * height * width)), min(height, width))
    side *= uniform[:, 0] < spec.probability
    top = np.floor(uniform[:, 2] * (height - side + 1))
    left = np.floor(uniform[:, 3] * (width - side + 1))
    y, x = np.arange(height)[None], np.arange(width)[None]
    rows = (y >= top[:, None]) & (y < (top + side)[:, None])
    columns = (x >= left[:, None]) & (x < (left + side)[:, None])
    inside = torch.from_numpy(rows[:, :, None] & columns[:, None, :])[:, None]
    fill = torch.tensor(FILL, dtype=views.dtype).view(1, 3, 1, 1)
    return torch.where(inside.to(views.device), fill.to(views.device), views)
