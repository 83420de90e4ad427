"""Rows of a folder of images: root/<class>/**/<image>, one class a person (ImageFolder layout).

Names are listed, and no pixel is read. A row's id is a hash of its path below the root, and every
choice (test rows, cap, halves) is a keyed draw of that id: a new file changes no other row's id or
draw, and moves at most one row of its own class over a border.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.datasets.spec import FolderData
from tasks.draws import Draws
from tasks.errors import DataError, MissingDataError, TargetClassError
from tasks.suggestions import did_you_mean
from tasks.types import ROW_SCHEMA, Split

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
    # Not read, but told of: a folder of a telephone's photos must not look empty.
    + (".heic", ".heif")
)

ROW_ORDER = [("split", "ascending"), ("label", "ascending"), ("row_id", "ascending")]
"""How a row table is sorted; `row_id` is unique, so the order is total."""


def folder_rows(spec: FolderData, seed: int) -> pa.Table:
    """List a folder of images as a row table.

    Private classes get labels 0, 1, ... in the order of `spec.private`, and
    round(test_fraction * n) test rows each, but at least one test and one training row. Surrogate
    and public rows have label -1; a class named in both is divided half and half, so that no row
    serves twice.

    Args:
        spec: root, classes and shares.
        seed: the experiment's seed.

    Returns:
        A table with `ROW_SCHEMA`, sorted by `ROW_ORDER`; `identity` is the class folder's name,
        `source` a file URI, `attributes` are empty.

    Raises:
        MissingDataError: the root or a class does not exist, or may not be read.
        TargetClassError: a private class has fewer than two images.
        DataError: another class has too few images, or two paths share a row id.
    """
    root = spec.root.expanduser().absolute()
    folders = _class_folders(root)
    draws = Draws(seed, ("folder",))
    classes: dict[str, _Class] = {}
    for name in dict.fromkeys((*spec.private, *spec.surrogates, *spec.public)):
        if name not in folders:
            near = did_you_mean(name, sorted(folders))
            raise MissingDataError(f"class {name!r} is not in {root}{near}")
        images = _list_images(folders[name], root)
        most = spec.max_images_per_class or len(images.ids)
        classes[name], _ = images.divide(draws.child("cap"), most)
    tables: list[pa.Table] = []
    for label, name in enumerate(spec.private):
        n = len(classes[name].ids)
        if n < 2:
            raise TargetClassError(
                f"private class {name!r} has {n} image{'s' * (n != 1)} in {root}; "
                "at least 2 are needed, one to train and one to test"
            )
        n_test = min(max(round(spec.test_fraction * n), 1), n - 1)
        test, train = classes[name].divide(draws.child("test"), n_test)
        tables += [test.rows(name, label, "test"), train.rows(name, label, "train")]
    for name in dict.fromkeys((*spec.surrogates, *spec.public)):
        tables += _outside_rows(classes[name], name, spec, draws.child("halves"))
    rows = pa.concat_tables(tables).sort_by(ROW_ORDER)
    if len(rows["row_id"].unique()) != rows.num_rows:
        raise DataError(f"two images below {root} have the same row id; rename one of them")
    return rows


def source_path(source: str) -> Path:
    """Return the file that a row's `source` names. File names need not be UTF-8."""
    return Path(os.fsdecode(unquote_to_bytes(urlsplit(source).path)))


def file_stamps(rows: pa.Table) -> list[tuple[int, int]]:
    """Return (bytes, modification time in ns) of each row's file, (-1, -1) where it is gone.

    Cheap to compare: they tell that a file was replaced, without reading it.
    """
    stamps = []
    for source in rows["source"].to_pylist():
        try:
            found = source_path(source).stat()
        except OSError:
            stamps.append((-1, -1))
        else:
            stamps.append((found.st_size, found.st_mtime_ns))
    return stamps


@dataclass(frozen=True)
class _Class:
    """Images of one class: ids of shape (n,), and where they are."""

    ids: npt.NDArray[np.int64]
    sources: npt.NDArray[np.object_]

    def divide(self, draws: Draws, count: int) -> tuple[_Class, _Class]:
        """Return the `count` images with the lowest draw, and the others."""
        order = np.lexsort((self.ids, draws.bits(self.ids)[:, 0]))
        low, high = order[:count], order[count:]
        return (
            _Class(self.ids[low], self.sources[low]),
            _Class(self.ids[high], self.sources[high]),
        )

    def rows(self, identity: str, label: int, split: Split) -> pa.Table:
        n = len(self.ids)
        columns = [self.ids, [identity] * n, [label] * n, [split] * n, self.sources, [[]] * n]
        arrays = [pa.array(c, type=f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)]
        return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)


def _outside_rows(images: _Class, name: str, spec: FolderData, draws: Draws) -> list[pa.Table]:
    n = len(images.ids)
    shared = name in spec.surrogates and name in spec.public
    if n < 1 + shared:
        use = "both surrogates and public" if shared else "surrogates or public"
        raise DataError(
            f"class {name!r} is named in {use} and has {n} image{'s' * (n != 1)}; "
            f"at least {1 + shared} {'are' if shared else 'is'} needed"
        )
    surrogate, public = images.divide(
        draws, (n + 1) // 2 if shared else n * (name in spec.surrogates)
    )
    return [surrogate.rows(name, -1, "surrogate"), public.rows(name, -1, "public")]


def _class_folders(root: Path) -> dict[str, Path]:
    if not root.exists():
        raise MissingDataError(f"data.root {root} does not exist; name the folder of the classes")
    if not root.is_dir():
        raise MissingDataError(
            f"data.root {root} is a file; name the folder that holds one subfolder for each class"
        )
    return {e.name: Path(e.path) for e in _scan(root) if e.is_dir()}


def _list_images(folder: Path, root: Path) -> _Class:
    paths = sorted(_walk(folder, frozenset()))
    ids = np.array([_row_id(os.path.relpath(path, root)) for path in paths], dtype=np.int64)
    return _Class(ids, np.array([Path(path).as_uri() for path in paths], dtype=np.object_))


def _row_id(relative: str) -> int:
    """Hash a path below the root to 63 bits: by chance, two of 10^8 files meet once in 2 000 sets.

    One path has one name on every system: `/` as separator, and bytes that are not UTF-8 kept.
    """
    name = os.fsencode(relative.replace(os.sep, "/"))
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


def _walk(folder: Path, above: frozenset[str]) -> Iterator[str]:
    """Yield the image files below a folder; links are followed, a link to a folder above is not."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _scan(folder):
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {real})
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and (
            # A dangling link is listed, to be quarantined and counted; a pipe or socket is not.
            entry.is_file() or not os.path.exists(entry.path)
        ):
            yield entry.path


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except PermissionError:
        raise MissingDataError(
            f"folder {folder} may not be read (permission denied); "
            "grant this user the right to list it"
        ) from None
    except OSError as error:
        raise MissingDataError(f"folder {folder} cannot be read: {error.strerror}") from None
