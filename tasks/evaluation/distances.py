"""How near reconstructions come to the target's own training images, in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Distances:
    """Squared distances of each reconstruction, (n,), to the target's own real images.

    Attributes:
        nearest: to the nearest of them: "KNN distance" (GMI; Zhang et al., CVPR 2020, 4.2).
        mean: mean over all of them.
        centre: to the mean of their features: "feature distance" (GMI, as above).
    """

    nearest: Floats
    mean: Floats
    centre: Floats


def distances(fake: Floats, real: Floats) -> Distances:
    """Return how far reconstructions are from the real images of one class.

    nearest_i = min_j |f_i - r_j|^2, mean_i = mean_j |f_i - r_j|^2, centre_i = |f_i - mean_j r_j|^2.

    Args:
        fake: features of the reconstructions, (n, d).
        real: features of the class's own training images, (m, d), m at least 1.
    """
    squared = squared_distances(fake, real)
    return Distances(
        squared.min(axis=1),
        squared.mean(axis=1),
        np.square(fake - real.mean(axis=0)).sum(axis=1),
    )


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Return |a_i - b_j|^2 of features (n, d) and (m, d), as (n, m), never below zero."""
    centre = b.mean(axis=0)  # moving both near the origin keeps the cancellation small
    a, b = a - centre, b - centre
    cross = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)[None, :]
    found: Floats = np.maximum(cross, 0.0)
    return found
