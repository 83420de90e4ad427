"""Who of a listing is private, who lends, who is public, and which images test.

Every choice of an image is a keyed draw of its row id: a new file changes no other row's id or
draw, and moves at most one row of its own class over a border.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.datasets.spec import FolderData
from tasks.draws import Draws
from tasks.errors import DataError, MissingDataError, TargetClassError
from tasks.suggestions import did_you_mean
from tasks.types import ROW_SCHEMA, Split

ROW_ORDER = [("split", "ascending"), ("label", "ascending"), ("row_id", "ascending")]
"""How a row table is sorted; `row_id` is unique, so the order is total."""

PUBLISHED_SEED, PUBLISHED_SHARE = 42, 0.9
"""The split of PPA and DCD: one shuffle over all private images, so many of them to train on."""

Positions = npt.NDArray[np.int64]


def rows_of(listing: pa.Table, spec: FolderData, seed: int, place: str) -> pa.Table:
    """Turn a listing into a row table.

    Private classes get labels 0, 1, ...; round(test_fraction * n) test rows each, but at least one
    test and one training row, and no group is cut. Surrogate and public rows have label -1; a class
    in both is divided half and half, so that no row serves twice.

    Args:
        listing: a table of LISTING_SCHEMA.
        spec: names or numbers of classes, and shares.
        seed: the experiment's seed.
        place: what the data set is called in errors.

    Returns:
        A table with `ROW_SCHEMA`, sorted by `ROW_ORDER`.

    Raises:
        MissingDataError: a class does not exist, or there are fewer than asked for.
        TargetClassError: a private class has fewer than two images, or none to test or train on.
        DataError: another class has too few images.
    """
    classes = _Classes(listing, place)
    private, surrogates, public = _cast(classes, spec)
    draws = Draws(seed, ("folder",))
    chosen = dict.fromkeys((*private, *surrogates, *public))
    images = {}
    for name in chosen:
        own = classes.images(name)
        most = spec.max_images_per_class or len(own)
        images[name], _ = _divide(listing, own, draws.child("cap"), most)
    published = _published_test(listing, [images[n] for n in private], spec)
    parts: list[pa.Table] = []
    for label, name in enumerate(private):
        test, train = _test_and_train(listing, images[name], published, draws, spec, name, place)
        parts += [
            _rows(listing, test, name, label, "test"),
            _rows(listing, train, name, label, "train"),
        ]
    lending = set(surrogates)
    both = lending & set(public)
    for name in dict.fromkeys((*surrogates, *public)):
        n, shared = len(images[name]), name in both
        if n < 1 + shared:
            use = "both surrogates and public" if shared else "surrogates or public"
            raise DataError(
                f"class {name!r} is named in {use} and has {n} image{'s' * (n != 1)}; "
                f"at least {1 + shared} {'are' if shared else 'is'} needed"
            )
        count = (n + 1) // 2 if shared else n * (name in lending)
        lent, shown = _divide(listing, images[name], draws.child("halves"), count)
        parts += [
            _rows(listing, lent, name, -1, "surrogate"),
            _rows(listing, shown, name, -1, "public"),
        ]
    return pa.concat_tables(parts).sort_by(ROW_ORDER)


def public_rows(listing: pa.Table, most: int | None, seed: int) -> pa.Table:
    """Return images of another data set as public rows, at most so many."""
    everything = np.arange(listing.num_rows)
    kept, _ = _divide(listing, everything, Draws(seed, ("public-from",)), most or len(everything))
    names = listing["identity"].take(pa.array(kept)).to_pylist()
    return _rows(listing, kept, names, -1, "public")


@dataclass(frozen=True)
class _Classes:
    """The identities of a listing, in the order in which it has them."""

    listing: pa.Table
    place: str

    def __post_init__(self) -> None:
        coded = self.listing["identity"].combine_chunks().dictionary_encode()
        codes = coded.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        names = [str(name) for name in coded.dictionary.to_pylist()]
        count = np.bincount(codes, minlength=len(names))
        starts = np.cumsum(count) - count
        groups = {name: order[starts[i] : starts[i] + count[i]] for i, name in enumerate(names)}
        ranks = [names[i] for i in np.argsort(-count, kind="stable")]
        object.__setattr__(self, "_groups", groups)
        object.__setattr__(self, "_ranks", ranks)

    def images(self, name: str) -> Positions:
        """Return where a class's images are in the listing."""
        groups: dict[str, Positions] = self._groups  # type: ignore[attr-defined]
        if name in self._known():
            return groups.get(name, np.empty(0, dtype=np.int64))
        if name not in groups:
            raise MissingDataError(
                f"class {name!r} is not in {self.place}{did_you_mean(name, sorted(groups))}"
            )
        return groups[name]

    def _known(self) -> list[str]:
        """Return the classes that are there though they may hold no image."""
        return list(json.loads((self.listing.schema.metadata or {}).get(b"classes", b"[]")))

    def ranked(self, without: Sequence[str]) -> list[str]:
        """Return the other classes, those with most images first, ties as the listing has them."""
        ranks: list[str] = self._ranks  # type: ignore[attr-defined]
        taken = set(without)
        return [name for name in ranks if name not in taken]


def _cast(
    classes: _Classes, spec: FolderData
) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Return private, lending and public classes: those named, or the next ones by rank."""
    wanted = {"private": spec.private, "surrogates": spec.surrogates, "public": spec.public}
    found: dict[str, Sequence[str]] = {
        part: names for part, names in wanted.items() if isinstance(names, tuple)
    }
    for part, names in wanted.items():
        if isinstance(names, tuple):
            continue
        free = classes.ranked([name for others in found.values() for name in others])
        if names == "rest":
            found[part] = free
            continue
        if names > len(free):
            raise MissingDataError(
                f"data.{part}={names}, but {classes.place} has {len(free)} classes left; ask for "
                "fewer"
            )
        found[part] = free[:names]
    return found["private"], found["surrogates"], found["public"]


def _published_test(
    listing: pa.Table, private: Sequence[Positions], spec: FolderData
) -> npt.NDArray[np.bool_] | None:
    """Mark the test images of the published split: the data set's own, else that of PPA and DCD."""
    if spec.split != "published":
        return None
    split = listing["split"].to_numpy(zero_copy_only=False)
    if np.any(split == "test"):
        return np.asarray(split == "test")
    everyone = np.sort(np.concatenate(private))
    shuffled = everyone.copy()
    np.random.RandomState(PUBLISHED_SEED).shuffle(shuffled)
    test = np.zeros(listing.num_rows, dtype=bool)
    test[shuffled[int(PUBLISHED_SHARE * len(shuffled)) :]] = True
    return test


def _test_and_train(
    listing: pa.Table,
    own: Positions,
    published: npt.NDArray[np.bool_] | None,
    draws: Draws,
    spec: FolderData,
    name: str,
    place: str,
) -> tuple[Positions, Positions]:
    n = len(own)
    if n < 2:
        raise TargetClassError(
            f"private class {name!r} has {n} image{'s' * (n != 1)} in {place}; "
            "at least 2 are needed, one to train and one to test"
        )
    if published is not None:
        test, train = own[published[own]], own[~published[own]]
        if not len(train):
            raise TargetClassError(
                f"private class {name!r} has no training image in the published split; use "
                "data.split=drawn, or leave it out"
            )
        return test, train
    wanted = min(max(round(spec.test_fraction * n), 1), n - 1)
    groups = listing["group"].take(pa.array(own)).to_numpy(zero_copy_only=False)
    if np.all(groups == ""):
        return _divide(listing, own, draws.child("test"), wanted)
    return _divide_groups(own, groups, draws.child("test"), wanted, name)


def _divide(
    listing: pa.Table, own: Positions, draws: Draws, count: int
) -> tuple[Positions, Positions]:
    """Return the `count` images with the lowest draw, and the others."""
    ids = listing["row_id"].take(pa.array(own)).to_numpy()
    order = np.lexsort((ids, draws.bits(ids)[:, 0]))
    return own[order[:count]], own[order[count:]]


def _divide_groups(
    own: Positions, groups: npt.NDArray[np.object_], draws: Draws, count: int, name: str
) -> tuple[Positions, Positions]:
    """Return whole groups of about `count` images, and the other groups."""
    names, member, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise TargetClassError(
            f"private class {name!r} has one track only, which cannot be divided into training and "
            "test; leave it out"
        )
    order = sorted(range(len(names)), key=lambda i: draws.child(str(names[i])).key)
    before = np.concatenate([[0], np.cumsum(sizes[order])])
    taken = int(np.clip(np.argmin(np.abs(before - count)), 1, len(names) - 1))
    test = np.isin(member, order[:taken])
    return own[test], own[~test]


def _rows(
    listing: pa.Table, positions: Positions, identity: str | list[str], label: int, split: Split
) -> pa.Table:
    n = len(positions)
    chosen = listing.take(pa.array(positions, pa.int64()))
    columns = {
        "row_id": chosen["row_id"],
        "identity": [identity] * n if isinstance(identity, str) else identity,
        "label": np.full(n, label, np.int32),
        "split": [split] * n,
        "source": chosen["source"],
        "attributes": chosen["attributes"],
    }
    arrays = [
        values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values, kind)
        for values, kind in zip(columns.values(), ROW_SCHEMA.types, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)
