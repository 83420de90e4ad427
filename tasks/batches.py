"""Batches of one epoch: order and augmentation as functions of (seed, epoch, row).

Every training process computes the same global batch and takes its share of it, so that one process
or many see the same samples under the same augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tasks.draws import Draws

COARSE = ((2, 0.25), (4, 0.15))
"""(factor, share): how many of the views are taken at a resolution lower by that factor."""


def epoch_batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    draws: Draws,
    *,
    augment: bool,
    rank: int = 0,
    world: int = 1,
    change: Callable[[Tensor, np.ndarray, Draws], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Yield this process's share of each global batch of one epoch.

    Args:
        images: training images (n, 3, h, w), float in [0, 1].
        labels: (n,), int64.
        batch_size: rows of a global batch; an incomplete last one is left out, unless it is the
            only one. The order changes with every epoch, so no row is left out for good.
        draws: of this epoch.
        augment: random crop, flip, resolution, brightness and contrast.
        rank: this process.
        world: number of processes.
        change: what a defence does to views of some rows, after the augmentation.

    Yields:
        Images, labels, and the number of rows in the whole global batch.
    """
    order = np.argsort(draws.child("order").bits(np.arange(len(labels)))[:, 0], kind="stable")
    for start in range(0, batches_an_epoch(len(order), batch_size) * batch_size, batch_size):
        batch = order[start : start + batch_size]
        mine = batch[rank::world]
        rows = torch.from_numpy(mine)
        views = images[rows]
        if augment:
            views = augment_views(views, draws.child("view").uniform(mine, 7))
        if change is not None:
            views = change(views, mine, draws)
        yield views, labels[rows], len(batch)


def batches_an_epoch(rows: int, batch_size: int) -> int:
    """Return the number of global batches."""
    return max(1, rows // batch_size)


def augment_views(images: Tensor, uniform: np.ndarray) -> Tensor:
    """Return random views: crop of 85 to 100 % of the area, flip, brightness and contrast of 20 %.

    Some are taken at half or a quarter of the resolution, so that a face is known by its shapes and
    not by single pixels.

    Args:
        images: (n, 3, h, w) in [0, 1].
        uniform: seven draws in [0, 1) for each image, (n, 7).
    """
    u = torch.from_numpy(uniform).float()
    side = torch.sqrt(0.85 + 0.15 * u[:, 0])
    flip = torch.where(u[:, 1] < 0.5, -1.0, 1.0)
    views = crop_views(
        images, side, (2 * u[:, 2] - 1) * (1 - side), (2 * u[:, 3] - 1) * (1 - side), flip
    )
    coarse = 0.0
    for factor, share in COARSE:
        chosen = (u[:, 6] >= coarse) & (u[:, 6] < coarse + share)
        coarse += share
        if bool(chosen.any()):
            views[chosen] = coarsen(views[chosen], factor)
    brightness = (0.8 + 0.4 * u[:, 4]).view(-1, 1, 1, 1)
    contrast = (0.8 + 0.4 * u[:, 5]).view(-1, 1, 1, 1)
    views = views * brightness
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    return ((views - mean) * contrast + mean).clamp_(0, 1)


def coarsen(images: Tensor, factor: int) -> Tensor:
    """Return images (n, 3, h, w) averaged over blocks of factor x factor, at their old size."""
    small = functional.avg_pool2d(images, factor)
    return functional.interpolate(
        small, size=images.shape[2:], mode="bilinear", align_corners=False
    )


def crop_views(
    images: Tensor, side: Tensor, shift_x: Tensor, shift_y: Tensor, flip: Tensor | None = None
) -> Tensor:
    """Return square crops, resized back to the full size; differentiable in the images.

    Args:
        images: (n, 3, h, w).
        side: side of the crop, 1 is the whole image, (n,).
        shift_x: centre of the crop, -1 to 1 from left to right, (n,).
        shift_y: from top to bottom, (n,).
        flip: -1 mirrors an image, 1 does not, (n,).
    """
    theta = torch.zeros(len(images), 2, 3)
    theta[:, 0, 0] = side if flip is None else side * flip
    theta[:, 1, 1] = side
    theta[:, 0, 2] = shift_x
    theta[:, 1, 2] = shift_y
    grid = functional.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    return functional.grid_sample(
        images, grid.to(images.dtype), padding_mode="reflection", align_corners=False
    )
