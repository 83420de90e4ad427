"""Removal of duplicates, exact and near: of pictures that are one, a keyed draw keeps one.

The trainer does not know which of two labels is right, so labels have no say in who stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tasks.draws import Draws
from tasks.pipelines.pipeline import Pipeline, Rows, Upload
from tasks.pipelines.spec import NearDuplicatesSpec

SIDE = 16  # of the thumbnails
_AT_ONCE = 512


class ExactDuplicates(Pipeline):
    """Keeps one of each group of images that are equal in eight bits, as files would be."""

    def rows(self, upload: Upload) -> Rows:
        """Return one row of each group, sorted."""
        return without_exact(upload.images, upload.draws.child("duplicates"))


class NearDuplicates(Pipeline):
    """Keeps a row if no row kept before looks like it."""

    def __init__(self, spec: NearDuplicatesSpec) -> None:
        self.similarity = spec.similarity

    def rows(self, upload: Upload) -> Rows:
        """Return the rows that stay, sorted."""
        return without_near(upload.images, self.similarity, upload.draws.child("duplicates"))


def without_exact(images: Tensor, draws: Draws) -> Rows:
    """Return the rows of images (n, 3, h, w) in [0, 1] that stay."""
    order = _order(len(images), draws)
    eight = images.mul(255).round().to(torch.uint8).flatten(1).numpy()
    _, first = np.unique(eight[order], axis=0, return_index=True)
    return np.sort(order[first])


def without_near(images: Tensor, similarity: float, draws: Draws) -> Rows:
    """Return the rows of images (n, 3, h, w) that stay, at n^2 / 2 comparisons of thumbnails.

    Args:
        images: in [0, 1].
        similarity: two thumbnails of this correlation or more are one picture.
        draws: of the order in which rows are looked at.
    """
    order = _order(len(images), draws)
    looks = thumbnails(images)[torch.from_numpy(order)]
    gone = np.zeros(len(order), dtype=bool)
    for start in range(0, len(order), _AT_ONCE):
        part = looks[start : start + _AT_ONCE]
        alike = (part @ looks[: start + len(part)].T >= similarity).numpy()
        for i in range(len(part)):
            earlier = alike[i, : start + i]
            gone[start + i] = bool((earlier & ~gone[: start + i]).any())
    return np.sort(order[~gone])


def thumbnails(images: Tensor) -> Tensor:
    """Return small versions (n, 3 * 16 * 16) with mean 0 and length 1."""
    small = functional.adaptive_avg_pool2d(images, SIDE).flatten(1)
    return functional.normalize(small - small.mean(dim=1, keepdim=True), dim=1)


def _order(count: int, draws: Draws) -> Rows:
    return np.argsort(draws.bits(np.arange(count))[:, 0], kind="stable")
