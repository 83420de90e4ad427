"""Candidates of many targets in one batch: their keys, their random views, their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attacks.attack import to_bounds
from attacks.pool import BATCH
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


@torch.no_grad()
def synthesize_all(prior: Prior, latents: Tensor) -> Tensor:
    """Return images (targets, n, 3, s, s) in the unit range of latents (targets, n, w_size)."""
    flat = latents.flatten(0, 1)
    images = torch.cat(
        [
            to_bounds(prior.synthesize(flat[i : i + BATCH]), prior.bounds)
            for i in range(0, len(flat), BATCH)
        ]
    )
    return images.clamp_(0, 1).view(*latents.shape[:2], *images.shape[1:])
