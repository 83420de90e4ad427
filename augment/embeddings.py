"""Farthest in an embedding, as arrays for `augment.assignment.assign`; and the embedding's file.

A file holds a vector for each identity: Parquet with the columns `identity` and `vector`, or .npy
with a structured array of the fields `identity` and `vector`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from augment.assignment import Positions
from augment.leaves import Vectors, Whole
from tasks.errors import MissingDataError, SurrogateError

LONGEST = 2.0**11
"""Length that the longest vector is scaled to: three times its square stays below 2**24."""

_DIGIT = 1 << 11

_ROWS = 1 << 14  # copied at once


@dataclass(frozen=True)
class Embedding:
    """A vector for each identity.

    Attributes:
        identities: whose vectors they are, n names.
        vectors: (n, d) float32.
    """

    identities: pa.Array
    vectors: Vectors

    def of(self, identities: Sequence[str], what: str) -> Positions:
        """Return the rows of identities.

        Args:
            identities: names.
            what: who they are, for the error.

        Raises:
            SurrogateError: one has no vector, or one that is not finite.
        """
        at = pc.index_in(pa.array(identities, pa.string()), self.identities)
        missing = pc.is_null(at).to_numpy(zero_copy_only=False)
        if missing.any():
            first = identities[int(np.flatnonzero(missing)[0])]
            raise SurrogateError(
                f"the embedding has no vector for {int(missing.sum())} of {len(identities)} "
                f"{what}, such as {first!r}; add them, or choose another protect.surrogates"
            )
        rows: Positions = at.to_numpy(zero_copy_only=False).astype(np.int64)
        for start in range(0, len(rows), _ROWS):
            good = np.isfinite(self.vectors[rows[start : start + _ROWS]]).all(axis=1)
            if not good.all():
                first = identities[start + int(np.flatnonzero(~good)[0])]
                raise SurrogateError(
                    f"the embedding's vector of {first!r} has a value that is not a finite number; "
                    "compute it again"
                )
        return rows


def read_embedding(path: Path) -> Embedding:
    """Read an embedding.

    Raises:
        MissingDataError: the file does not exist.
        SurrogateError: it is not such a file, or names an identity twice.
    """
    if not path.is_file():
        raise MissingDataError(
            f"protect.embedding={str(path)!r} does not exist; name a .parquet or .npy file, or use "
            "pixels"
        )
    try:
        names, vectors = _read_npy(path) if path.suffix == ".npy" else _read_parquet(path)
    except (LookupError, ValueError, TypeError, AttributeError, pa.ArrowException):
        raise SurrogateError(
            f"protect.embedding={str(path)!r} is not an embedding; write Parquet with the columns "
            "identity (text) and vector (lists of one length), or .npy with these two fields"
        ) from None
    counts = pc.value_counts(names)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise SurrogateError(
            f"protect.embedding={str(path)!r} has {twice[0]['values'].as_py()!r} twice; keep one "
            "vector for each identity"
        )
    return Embedding(names, vectors)


def write_embedding(embedding: Embedding, path: Path) -> None:
    """Write a Parquet file that `read_embedding` reads."""
    width = embedding.vectors.shape[1]
    flat = pa.array(embedding.vectors.reshape(-1), pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, width)
    pq.write_table(pa.table({"identity": embedding.identities, "vector": vectors}), path)


def _read_parquet(path: Path) -> tuple[pa.Array, Vectors]:
    table = pq.read_table(path, columns=["identity", "vector"], partitioning=None)
    width = len(table["vector"][0])
    vectors = np.empty((table.num_rows, width), dtype=np.float32)
    row = 0
    for chunk in table["vector"].chunks:  # one by one: a flat copy of all would double the memory
        if chunk.null_count or not np.all(pc.list_value_length(chunk).to_numpy() == width):
            raise ValueError("vectors of several lengths")
        flat = pc.list_flatten(chunk).to_numpy(zero_copy_only=False)
        vectors[row : row + len(chunk)] = flat.reshape(-1, width)
        row += len(chunk)
    return table["identity"].combine_chunks().cast(pa.string()), vectors


def _read_npy(path: Path) -> tuple[pa.Array, Vectors]:
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    names = pa.array(found["identity"].tolist(), pa.string())
    return names, found["vector"].reshape(len(names), -1).astype(np.float32)


def distant_arrays(
    embedding: Embedding, targets: Positions, pool: Positions
) -> tuple[Whole, Whole]:
    """Return wishes and offers whose product grows with the distance, for `assign`.

    Vectors are moved to the middle of the pool, scaled by a power of two and rounded to integers;
    the score is |p|**2 - 2 t @ p, the squared distance but for the target's own square. The square
    of p is stored in two digits, so that everything fits into 16 bits.

    Args:
        embedding: the vectors.
        targets: rows of the targets, in it.
        pool: rows of the pool.
    """
    vectors = embedding.vectors
    middle = np.zeros(vectors.shape[1])
    for part in _parts(pool):
        middle += vectors[part].sum(axis=0, dtype=np.float64)
    middle /= max(len(pool), 1)
    longest = max(
        (
            float(np.sqrt(((vectors[part] - middle) ** 2).sum(axis=1)).max())
            for group in (targets, pool)
            for part in _parts(group)
        ),
        default=0.0,
    )
    scale = 2.0 ** math.floor(math.log2(LONGEST / longest)) if longest else 1.0
    origin = np.rint(middle * scale)

    width = vectors.shape[1]
    wishes = np.ones((len(targets), width + 2), dtype=np.int16)  # 2 * LONGEST at most
    wishes[:, -2] = _DIGIT
    for start, part in zip(range(0, len(targets), _ROWS), _parts(targets), strict=True):
        whole = np.rint(vectors[part] * np.float64(scale)) - origin
        wishes[start : start + _ROWS, :width] = -2 * whole
    offers = np.empty((len(pool), width + 2), dtype=np.int16)
    for start, part in zip(range(0, len(pool), _ROWS), _parts(pool), strict=True):
        whole = np.rint(vectors[part] * np.float64(scale)) - origin
        here = offers[start : start + _ROWS]
        here[:, :width] = whole
        here[:, -2], here[:, -1] = np.divmod((whole**2).sum(axis=1), _DIGIT)
    return wishes, offers


def _parts(rows: Positions) -> list[Positions]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
