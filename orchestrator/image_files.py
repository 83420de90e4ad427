"""Images of several files seen as one array that no process ever holds.

What `ingest` wrote is mapped, never copied: each worker opens the files itself and reads the rows
that it needs. So a run over many images needs no more memory than a run over few, and nothing but
names and numbers goes through Ray's object store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.block_stream import share
from tasks.draws import IntArray
from tasks.types import Image8

_HASH_ROWS = 1024


@dataclass(frozen=True)
class ImageFiles:
    """Arrays of images, one after the other.

    Attributes:
        parts: each returns an array (n, h, w, 3), without reading it.
        counts: n of each part.
        shape: h, w, 3.
        digest: what stands for all the pixels: equal images have equal digests.
    """

    parts: tuple[Callable[[], npt.NDArray[Any]], ...]
    counts: tuple[int, ...]
    shape: tuple[int, ...]
    digest: str

    @classmethod
    def of(cls, arrays: Sequence[Image8], digest: str | None = None) -> ImageFiles:
        """See arrays as one; Ray must be running for those that are not maps of .npy files.

        Args:
            arrays: of one height and width.
            digest: of all their pixels where it is known; else they are read once to find it.
        """
        return cls(
            tuple(_reader(array) for array in arrays),
            tuple(len(array) for array in arrays),
            arrays[0].shape[1:],
            _digest(arrays) if digest is None else digest,
        )

    def take(self, rows: IntArray) -> Image8:
        """Return the images of rows, (len(rows), h, w, 3)."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        start = 0
        for part, count in zip(self.parts, self.counts, strict=True):
            here = np.flatnonzero((rows >= start) & (rows < start + count))
            if len(here):
                out[here] = part()[rows[here] - start]
            start += count
        return out


def _reader(array: Image8) -> Callable[[], npt.NDArray[Any]]:
    if isinstance(array, np.memmap) and array.filename is not None:
        again = partial(np.load, str(array.filename), mmap_mode="r", allow_pickle=False)
        if again().shape == array.shape:  # else it is a part of its file
            return again
    return share(array)


def _digest(arrays: Sequence[Image8]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        for start in range(0, len(array), _HASH_ROWS):
            digest.update(np.ascontiguousarray(array[start : start + _HASH_ROWS]).data)
    return digest.hexdigest()
