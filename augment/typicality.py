"""How much a person looks like many others, seen from public pictures.

A generator of the public shows an unusual face badly or never. A search for an unusual surrogate
then ends at the target, so a surrogate should look like many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.types import Image8

GRID = 8
"""Pictures are averaged to so many cells a side: light, shape and hair, no details."""

COMPONENTS = 8
"""Principal components of public pictures that are compared."""


def typicality(public: Image8, pool: Image8, identities: Sequence[str]) -> dict[str, float]:
    """Return for each identity of the pool how near it is to the middle of public pictures.

    The measure is the negative squared Mahalanobis distance of an identity's mean picture in the
    first principal components of the public ones: 0 is the middle, lower is less typical.

    Args:
        public: public pictures (n, s, s, 3), s at least 8.
        pool: pictures of the pool (m, s, s, 3).
        identities: whom each picture of the pool shows, m names.
    """
    coarse = _coarse(public)
    mean = coarse.mean(axis=0)
    centred = coarse - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / max(len(coarse), 1))
    variances, axes = variances[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
    kept = variances > 1e-12
    where = (_coarse(pool) - mean) @ axes[:, kept]
    names = np.array(identities, dtype=object)
    found = {}
    for name in sorted(set(identities)):
        middle = where[names == name].mean(axis=0)
        # Rounded: another processor's last digits must not choose another surrogate.
        found[str(name)] = round(-float(np.sum(middle**2 / variances[kept])), 6)
    return found


def _coarse(images: Image8) -> npt.NDArray[np.float64]:
    """Return pictures averaged to GRID x GRID cells, in the unit range, (n, GRID * GRID * 3)."""
    count, size = images.shape[:2]
    cell = size // GRID
    whole = images[:, : cell * GRID, : cell * GRID].reshape(count, GRID, cell, GRID, cell, 3)
    coarse: npt.NDArray[np.float64] = whole.mean(axis=(2, 4)).reshape(count, -1) / 255
    return coarse
