"""A folder's files as one value: what travels between machines, which share no disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clusters.held_folders import held_folder
from orchestrator.store import write_atomic


@dataclass(frozen=True)
class Bundle:
    """Files by their path inside the folder, such as `checkpoint/meta.json`."""

    files: dict[str, bytes]


def pack(folder: Path, *parts: str) -> Bundle:
    """Read a folder, or only the named files and subfolders of it.

    Args:
        folder: where.
        parts: paths inside; none takes everything.
    """
    tops = [folder / part for part in parts] or [folder]
    found = [p for top in tops for p in ([top] if top.is_file() else sorted(top.rglob("*")))]
    files = [path for path in found if path.is_file()]
    return Bundle({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def unpack(bundle: Bundle, folder: Path, last: str) -> None:
    """Write the files, each whole or not at all; `last` says by being there that all others are.

    Raises:
        DiskFullError: no space is left.
        StoreError: the folder cannot be written.
    """
    for name in sorted(bundle.files, key=lambda name: (name == last, name)):
        write_atomic(folder / name, bundle.files[name])


@contextmanager
def unpacked(bundle: Bundle) -> Iterator[Path]:
    """Have the files in a folder of this machine for as long as the block runs."""
    with scratch() as folder:
        unpack(bundle, folder, "")
        yield folder


@contextmanager
def scratch() -> Iterator[Path]:
    """Have an empty folder of this machine for as long as the block runs."""
    with held_folder("scratch-") as folder:
        empty = folder / "files"
        empty.mkdir()
        yield empty
