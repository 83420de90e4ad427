"""How much a person looks like many others, seen from public pictures.

A generator of the public shows an unusual face badly or never. A search for an unusual surrogate
then ends at the target, so a surrogate should look like many.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from augment.embeddings import Embedding
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
    where, variances = _components(public, pool)
    found = {}
    for name, middle in _means(where, identities).items():
        # Rounded: another processor's last digits must not choose another surrogate.
        found[name] = round(-float(np.sum(middle**2 / variances)), 6)
    return found


def pixel_embedding(public: Image8, pictures: Image8, identities: Sequence[str]) -> Embedding:
    """Return each identity's mean picture in those components, each in units of its spread.

    The arguments are those of `typicality`, whose value is the negative square of the length.
    """
    where, variances = _components(public, pictures)
    if not len(variances):  # the public's pictures are all the same: so is everyone
        where, variances = np.zeros((len(pictures), 1)), np.ones(1)
    means = _means(where / np.sqrt(variances), identities)
    vectors = np.array(list(means.values()), dtype=np.float64).reshape(len(means), -1)
    return Embedding(pa.array(list(means), pa.string()), np.round(vectors, 4).astype(np.float32))


def _components(
    public: Image8, pictures: Image8
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return pictures in the public's first components, (m, c), and the public's variances."""
    coarse = _coarse(public)
    mean = coarse.mean(axis=0)
    centred = coarse - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / max(len(coarse), 1))
    variances, axes = variances[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
    kept = variances > 1e-12
    return (_coarse(pictures) - mean) @ axes[:, kept], variances[kept]


def _means(
    where: npt.NDArray[np.float64], identities: Sequence[str]
) -> dict[str, npt.NDArray[np.float64]]:
    names = np.array(identities, dtype=object)
    return {str(name): where[names == name].mean(axis=0) for name in sorted(set(identities))}


def _coarse(images: Image8) -> npt.NDArray[np.float64]:
    """Return pictures averaged to GRID x GRID cells, in the unit range, (n, GRID * GRID * 3)."""
    count, size = images.shape[:2]
    cell = size // GRID
    whole = images[:, : cell * GRID, : cell * GRID].reshape(count, GRID, cell, GRID, cell, 3)
    coarse: npt.NDArray[np.float64] = whole.mean(axis=(2, 4)).reshape(count, -1) / 255
    return coarse
