"""The listing of a data set, whatever its layout; of an ImageFolder only the named classes.

Names are listed, and no pixel is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from tasks.datasets.layouts import LAYOUTS
from tasks.datasets.listing import IMAGE_SUFFIXES, Listing
from tasks.datasets.places import Place, local_path, open_place
from tasks.datasets.selection import public_rows, rows_of
from tasks.datasets.spec import Crop, CropSpec, FolderData, PublicFrom
from tasks.errors import DataError, DcdctlError, MissingDataError
from tasks.suggestions import did_you_mean


def folder_rows(spec: FolderData, seed: int) -> pa.Table:
    """List a data set and choose from it, as a row table; see `selection.rows_of`.

    Raises:
        MissingDataError: the root, a class or a table does not exist, or may not be read.
        TargetClassError, DataError: as `selection.rows_of`.
    """
    others = None if spec.public_from is None else list_public(spec.public_from)
    return choose_rows(spec, seed, list_folder(spec), others)


def choose_rows(
    spec: FolderData, seed: int, listing: pa.Table, others: pa.Table | None
) -> pa.Table:
    """Choose from listings that were made before.

    Args:
        spec: names or numbers of classes, and shares.
        seed: the experiment's seed.
        listing: of the data set.
        others: of `spec.public_from`.
    """
    rows = rows_of(listing, spec, seed, spec.root)
    if others is not None and spec.public_from is not None:
        rows = pa.concat_tables([rows, public_rows(others, spec.public_from.max_images, seed)])
    return rows


def list_folder(spec: FolderData) -> pa.Table:
    """Return the listing that an experiment needs, a table of LISTING_SCHEMA."""
    named = (spec.private, spec.surrogates, spec.public)
    local = "://" not in spec.root and not spec.root.lower().endswith(".zip")
    if spec.layout == "imagefolder" and local and all(isinstance(n, tuple) for n in named):
        names = [name for group in named if isinstance(group, tuple) for name in group]
        return _named_classes(local_path(spec.root), list(dict.fromkeys(names)))
    return _listed(spec.layout, spec.root, spec.crop)


def list_public(source: PublicFrom) -> pa.Table:
    """Return the listing of another data set that the attacker has."""
    return _listed(source.layout, source.root, source.crop)


def _listed(layout: str, root: str, crop: Crop) -> pa.Table:
    place = open_place(root)
    listing = LAYOUTS[layout](place, isinstance(crop, CropSpec) and crop.box is not None)
    if not listing.num_rows:
        near = _looks_like(place)
        hint = "see docs/data.md" if near is None else f"it looks like layout={near}"
        raise DataError(f"{root} holds no image of layout={layout}; {hint}")
    return listing


def _looks_like(place: Place) -> str | None:
    """Return the first layout that finds an image, the one that takes any folders last."""
    for name in (*(n for n in LAYOUTS if n != "imagefolder"), "imagefolder"):
        with contextlib.suppress(DcdctlError):
            if LAYOUTS[name](place, False).num_rows:
                return name
    return None


def _named_classes(root: Path, names: list[str]) -> pa.Table:
    """List some folders of an ImageFolder: of a million people nobody else's images are touched."""
    folders = _class_folders(root)
    found = Listing(os.fspath(root), names)
    for name in names:
        if name not in folders:
            raise MissingDataError(
                f"class {name!r} is not in {root}{did_you_mean(name, sorted(folders))}"
            )
        for path in sorted(_walk(folders[name], frozenset())):
            relative = quote(os.fsencode(os.path.relpath(path, root).replace(os.sep, "/")))
            found.add(relative, Path(path).as_uri(), name)
    return found.table()


def _class_folders(root: Path) -> dict[str, Path]:
    if not root.exists():
        raise MissingDataError(f"data.root {root} does not exist; name the folder of the images")
    if not root.is_dir():
        raise MissingDataError(
            f"data.root {root} is a file; name the folder that holds one subfolder for each class"
        )
    return {e.name: Path(e.path) for e in _scan(root) if e.is_dir()}


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
