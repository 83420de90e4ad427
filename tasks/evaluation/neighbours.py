"""Precision, recall, density and coverage: do fakes lie where reals lie, and reals where fakes do?

Each real image has a sphere that reaches to its k-th nearest other real image, and each fake one
likewise. The released code that most attack papers measure with differs from the definitions in
four ways (classes by position, class 0 read as "no class", density without the number of fakes,
only the nearest neighbour's sphere asked); here the definitions hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.evaluation.distances import squared_distances

Floats = npt.NDArray[np.float64]
NEIGHBOURS = 3


@dataclass(frozen=True)
class Prdc:
    """Four shares of one class.

    Attributes:
        precision: of fakes that lie in any real image's sphere (Kynkäänniemi et al., NeurIPS 2019,
            equation 2).
        recall: of reals that lie in any fake image's sphere (the same).
        density: mean number of real spheres around a fake, over k; may be above 1
            (Naeem et al., ICML 2020, equation 3: sum_j sum_i [f_j in B_i] / (k m)).
        coverage: of reals whose sphere holds at least one fake (the same, equation 4).
        real: images.
        fake: images.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    real: int
    fake: int


def prdc(real: Floats, fake: Floats, k: int = NEIGHBOURS) -> Prdc | None:
    """Return precision, recall, density and coverage of features (n, d) and (m, d).

    Returns:
        None where a set has at most k samples: there is no k-th neighbour.
    """
    n, m = len(real), len(fake)
    if min(n, m) <= k:
        return None
    between = squared_distances(fake, real)  # (m, n)
    in_real = between <= _radii(real, k)[None, :]
    in_fake = between <= _radii(fake, k)[:, None]
    return Prdc(
        precision=float(in_real.any(axis=1).mean()),
        recall=float(in_fake.any(axis=0).mean()),
        density=float(in_real.sum() / (k * m)),
        coverage=float(in_real.any(axis=0).mean()),
        real=n,
        fake=m,
    )


def prdc_by_class(
    real: Mapping[int, Floats], fake: Mapping[int, Floats], k: int = NEIGHBOURS
) -> dict[int, Prdc]:
    """Return `prdc` of each attacked class by its own label; classes that are too small are absent.

    Args:
        real: features of the real images, by label; may hold classes that nobody attacked.
        fake: features of the reconstructions, by label.
        k: neighbours that a sphere reaches to.
    """
    found = {label: prdc(real[label], fake[label], k) for label in fake}
    return {label: one for label, one in found.items() if one is not None}


def _radii(points: Floats, k: int) -> Floats:
    """Return the squared distance of each point to its k-th nearest other, (n,)."""
    squared = squared_distances(points, points)
    np.fill_diagonal(squared, -1.0)  # itself comes first, whatever rounding says
    radii: Floats = np.partition(squared, k, axis=1)[:, k]
    return radii
