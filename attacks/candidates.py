"""Candidates of many targets in one batch: their keys, their random views, their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from attacks.attack import to_bounds
from attacks.parts import slices
from attacks.prior import Prior
from tasks.batches import crop_views
from tasks.draws import FloatArray, IntArray
from tasks.types import TargetClass


def candidate_ids(targets: Sequence[TargetClass], count: int) -> IntArray:
    """Return a key for each candidate, of its target and rank alone, (targets * count,)."""
    labels = np.array([int(t.label) for t in targets], dtype=np.int64)
    ids: IntArray = (labels[:, None] * (1 << 20) + np.arange(count)[None, :]).reshape(-1)
    return ids


def random_views(
    images: Tensor, uniform: FloatArray, area: tuple[float, float], *, flip: bool
) -> Tensor:
    """Return random square crops, resized back.

    Args:
        images: (n, 3, s, s).
        uniform: four draws in [0, 1) for each image, (n, 4).
        area: smallest and largest share of the image.
        flip: mirror half of them.
    """
    u = torch.from_numpy(uniform).to(images.device, torch.float32)
    side = torch.sqrt(area[0] + (area[1] - area[0]) * u[:, 0])
    mirrored = torch.where(u[:, 3] < 0.5, -1.0, 1.0) if flip else None
    return crop_views(
        images, side, (2 * u[:, 1] - 1) * (1 - side), (2 * u[:, 2] - 1) * (1 - side), mirrored
    )


def turned_views(images: Tensor, uniform: FloatArray) -> Tensor:
    """Return views as AlignMI averages over: crop, mirror, turn.

    Area 0.8 to 1, aspect ratio 0.9 to 1.1, mirrored or not, turned by up to 5 degrees (AlignMI,
    NeurIPS 2025, transformation-averaged alignment).

    Args:
        images: (n, 3, s, s).
        uniform: six draws in [0, 1) for each image, (n, 6).
    """
    u = torch.from_numpy(uniform).to(images.device, torch.float32)
    side, ratio = torch.sqrt(0.8 + 0.2 * u[:, 0]), torch.sqrt(0.9 + 0.2 * u[:, 1])
    width, height = (side * ratio).clamp_max(1.0), (side / ratio).clamp_max(1.0)
    mirrored = torch.where(u[:, 4] < 0.5, -1.0, 1.0)
    angle = torch.deg2rad(10 * u[:, 5] - 5)
    theta = torch.stack(
        [
            torch.stack([width * mirrored * angle.cos(), -height * angle.sin()], dim=1),
            torch.stack([width * mirrored * angle.sin(), height * angle.cos()], dim=1),
        ],
        dim=1,
    )
    shift = torch.stack([(2 * u[:, 2] - 1) * (1 - width), (2 * u[:, 3] - 1) * (1 - height)], dim=1)
    grid = functional.affine_grid(
        torch.cat([theta, shift[:, :, None]], dim=2), list(images.shape), align_corners=False
    )
    return functional.grid_sample(
        images, grid.to(images.dtype), padding_mode="reflection", align_corners=False
    )


def best_first(values: Tensor, groups: int, keep: int) -> tuple[Tensor, Tensor]:
    """Return the highest values of each group and their rows in the flat input.

    Args:
        values: (groups * n,).
        groups: targets.
        keep: of each.

    Returns:
        Values (groups, keep), highest first, and rows (groups, keep); fewer than `keep` where a
        group has fewer.
    """
    of_group = values.view(groups, -1)
    top = of_group.sort(dim=1, descending=True, stable=True)
    keep = min(keep, of_group.shape[1])
    rows = (
        top.indices[:, :keep]
        + of_group.shape[1] * torch.arange(groups, device=values.device)[:, None]
    )
    return top.values[:, :keep], rows


@torch.no_grad()
def synthesize_all(prior: Prior, latents: Tensor) -> Tensor:
    """Return images (targets, n, 3, s, s) in the unit range of latents (targets, n, w_size)."""
    flat = latents.flatten(0, 1)
    images = torch.cat(
        [to_bounds(prior.synthesize(flat[part]), prior.bounds) for part in slices(len(flat))]
    )
    return images.clamp_(0, 1).view(*latents.shape[:2], *images.shape[1:])
