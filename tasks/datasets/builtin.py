"""The built-in data set: procedural faces as a row table, and the pixels of its rows.

Three populations that share nobody: private identities (the classes), a pool of surrogates, and
public identities (the attacker's). A source reads `builtin:<population>/<identity>/<image>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.datasets.face_shots import IMAGE_BITS
from tasks.datasets.faces import face_attributes, render_faces
from tasks.datasets.spec import BuiltinData
from tasks.errors import DataError
from tasks.types import ROW_SCHEMA, Image8, Split

POPULATIONS = ("private", "surrogate", "public")

PUBLIC_SEED = 0
"""The attacker's faces do not depend on the experiment's seed, so that one prior serves all."""

TEST_FIRST = 1_000_000
"""Number of an identity's first test image: more training images make no test image another."""

BUILTIN = "builtin:"
"""How the source of every drawn face begins."""

_SOURCE = re.compile(r"builtin:(private|surrogate|public)/(\d{1,9})/(\d{1,7})")
_POPULATION_BIT = 56  # row_id: population, 32 bits of identity, 24 bits of image


def builtin_rows(spec: BuiltinData, seed: int) -> pa.Table:
    """List the built-in faces as a row table: train, test, surrogate, public, by identity.

    Args:
        spec: how many identities and images.
        seed: the experiment's seed; decides the private and the surrogate faces.

    Returns:
        A table with `ROW_SCHEMA`. Larger counts add rows and change none: not its row_id, its
        label, its split or its pixels.

    Raises:
        DataError: more images of an identity are asked for than can be numbered.
    """
    tables = [
        _rows(seed, "private", "train", spec.identities, spec.train_images),
        _rows(seed, "private", "test", spec.identities, spec.test_images),
        _rows(seed, "surrogate", "surrogate", spec.surrogate_identities, spec.surrogate_images),
        _rows(seed, "public", "public", spec.public_identities, spec.public_images),
    ]
    return pa.concat_tables(tables)


def builtin_batches(spec: BuiltinData, lenders: Sequence[str], size: int) -> Iterator[pa.Table]:
    """List the private rows and those of some surrogates in batches; no more than one is held.

    Args:
        spec: how many identities and images.
        lenders: names of surrogates.
        size: rows of a batch.

    Yields:
        Tables of row_id, identity, label and split: the test rows, the training rows, then the
        lent ones, each by label and number, which is how a plan has them.
    """
    private = np.arange(spec.identities)
    lent = np.array(sorted(int(name.rpartition("-")[2]) for name in lenders), dtype=np.int64)
    yield from _batches("private", "test", private, spec.test_images, size)
    yield from _batches("private", "train", private, spec.train_images, size)
    yield from _batches("surrogate", "surrogate", lent, spec.surrogate_images, size)


def _batches(
    population: str, split: Split, people: npt.NDArray[np.int64], images: int, size: int
) -> Iterator[pa.Table]:
    code = POPULATIONS.index(population) << _POPULATION_BIT
    shots = TEST_FIRST if split == "test" else 0
    for start in range(0, len(people) * images, size):
        number = np.arange(start, min(start + size, len(people) * images))
        place = number // images
        first = int(place[0])
        here = people[first : int(place[-1]) + 1]
        names = pa.array([f"{population}-{i:05}" for i in here.tolist()])
        who = people[place]
        label = who if population == "private" else np.full(len(who), -1)
        yield pa.table(
            {
                "row_id": code + (who << IMAGE_BITS) + shots + number % images,
                "identity": names.take(pa.array(place - first)),
                "label": pa.array(label, pa.int32()),
                "split": pa.array([split]).take(pa.array(np.zeros(len(who), np.int8))),
            }
        )


def surrogate_rows(identities: int, images: int, seed: int) -> pa.Table:
    """List drawn faces as a pool of surrogates, for data of another kind; nobody real lends then.

    They are the same as those of the built-in data set with this seed.
    """
    return _rows(seed, "surrogate", "surrogate", identities, images)


def held_out_rows(names: Sequence[str], images: int, seed: int) -> pa.Table:
    """List images of surrogates that are never lent; the pool has others of the same people.

    Args:
        names: of the identities, such as surrogate-00012.
        images: of each.
        seed: the experiment's.
    """
    last = max((int(name.rpartition("-")[2]) for name in names), default=-1)
    every = _rows(seed, "surrogate", "held-out", last + 1, images)
    wanted = np.isin(every["identity"].to_numpy(zero_copy_only=False), list(names))
    return every.filter(pa.array(wanted))


def render_rows(sources: Sequence[str], seed: int, size: int) -> Image8:
    """Render the images of rows, in any order.

    Args:
        sources: `source` of each row, n of them.
        seed: the experiment's seed, as given to `builtin_rows`.
        size: height and width in pixels.

    Returns:
        (n, size, size, 3) uint8.

    Raises:
        DataError: a source is not one of the built-in data set.
    """
    parsed = [_SOURCE.fullmatch(source) for source in sources]
    numbers = np.zeros((len(sources), 2), np.int64)
    populations = np.empty(len(sources), object)
    for i, match in enumerate(parsed):
        if match is None:
            raise DataError(
                f"{sources[i]!r} is no built-in face; "
                "a source reads builtin:<private|surrogate|public>/<identity>/<image>"
            )
        populations[i], numbers[i] = match[1], (int(match[2]), int(match[3]))
    faces: Image8 = np.empty((len(sources), size, size, 3), np.uint8)
    for population in POPULATIONS:
        here = populations == population
        identities, images = numbers[here].T
        keyed = _population_seed(population, seed)
        faces[here] = render_faces(keyed, population, identities, images, size)
    return faces


def _rows(seed: int, population: str, split: Split, identities: int, images: int) -> pa.Table:
    if images > TEST_FIRST:
        raise DataError(
            f"{images} {split} images of an identity are more than the built-in faces can number; "
            f"use at most {TEST_FIRST}"
        )
    people = np.arange(identities)
    labels = people if population == "private" else np.full(identities, -1)
    shots = np.arange(images) + (TEST_FIRST if split in ("test", "held-out") else 0)
    names = [f"{population}-{i:05}" for i in people]
    attributes = face_attributes(_population_seed(population, seed), population, people)
    who: npt.NDArray[np.int64] = np.repeat(people, images)
    which = np.tile(shots, identities)
    code = POPULATIONS.index(population) << _POPULATION_BIT
    columns = [
        code + (who << IMAGE_BITS) + which,
        np.repeat(np.array(names), images),
        np.repeat(labels, images),
        np.full(len(who), split),
        [
            f"builtin:{population}/{i}/{j}"
            for i, j in zip(who.tolist(), which.tolist(), strict=True)
        ],
        [attributes[i] for i in who.tolist()],
    ]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)]
    return pa.table(arrays, schema=ROW_SCHEMA)


def _population_seed(population: str, seed: int) -> int:
    return PUBLIC_SEED if population == "public" else seed
