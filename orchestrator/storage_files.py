"""The files of a storage by name, in a folder and in an object store alike: list, read, remove."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from orchestrator.bucket import SCHEMES
from orchestrator.storage_copy import Stamp, files_below
from orchestrator.store import Store, disk_errors, write_atomic
from tasks.errors import StoreError


class StorageFiles:
    """What a storage holds now. Names are paths inside it, such as `runs/3c4a659d6c0e/spec.json`.

    Of an object store the copy on this machine belongs to it: what is removed goes from both.

    Args:
        store: the storage.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.root = store.root

    @cached_property
    def there(self) -> dict[str, Stamp]:
        """Size and time of writing of every file, by name."""
        found = {}
        for path in files_below(self.root):
            with suppress(FileNotFoundError):
                stat = path.stat()
                name = path.relative_to(self.root).as_posix()
                found[name] = Stamp(stat.st_size, int(stat.st_mtime))
        if self.store.remote is not None:
            found |= self.store.remote.objects(self.root)
        return found

    def again(self) -> None:
        """Look at the storage again."""
        self.__dict__.pop("there", None)

    def below(self, folder: str) -> list[str]:
        """Return the names of the files below a folder."""
        return [name for name in self.there if name.startswith(f"{folder}/")]

    def folders(self, parent: str) -> list[str]:
        """Return the folders right below a folder, as paths inside the storage."""
        depth = len(PurePosixPath(parent).parts)
        names = (PurePosixPath(name).parts for name in self.below(parent))
        return sorted({"/".join(parts[: depth + 1]) for parts in names if len(parts) > depth + 1})

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes as the storage has them, None where it is gone."""
        if self.store.remote is not None:
            found = self.store.remote.read(self.root / name)
            if found is not None:
                return found
        try:
            return (self.root / name).read_bytes()
        except OSError:
            return None

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a file, "" where it is gone."""
        if self.store.remote is None:
            try:
                with (self.root / name).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                return ""
        data = self.read(name)
        return "" if data is None else hashlib.sha256(data).hexdigest()

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole, in the object store first.

        Raises:
            StoreError: it cannot be written.
        """
        write_atomic(self.root / name, data)

    def remove(self, name: str) -> None:
        """Remove a file, and the folders that it leaves empty.

        Raises:
            StoreError: it cannot be removed.
        """
        path = self.root / name
        if self.store.remote is not None:
            self.store.remote.delete(path)
        with disk_errors(path):
            path.unlink(missing_ok=True)
        self.there.pop(name, None)
        _prune(path.parent, self.root)


def open_existing(storage: str) -> Store:
    """Return a storage that is there; a mistyped name must not make an empty one.

    Raises:
        StoreError: there is none, or it cannot be reached.
    """
    parts = urlsplit(storage)
    if parts.scheme not in SCHEMES:
        folder = Path(parts.path if parts.scheme == "file" else storage).expanduser()
        if not any((folder / name).exists() for name in ("runs", "artifacts", "audits", "jobs")):
            raise StoreError(
                f"{folder} is no storage of dcdctl: it has no runs and no artifacts; name one with "
                "--storage"
            )
    return Store(storage)


def _prune(folder: Path, root: Path) -> None:
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
