"""A storage in an object store: s3:// or gs:// is the truth, a folder of this machine its copy.

All code works on the copy. A file goes to the object store first and appears in the copy when it is
there, so that a record or manifest in the copy says that the object store has it too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from orchestrator.bucket import CHECK_S, ask_again, endpoint_of_environment, open_bucket
from orchestrator.storage_copy import (
    LAST,
    LEASE,
    MARK,
    OWNER,
    Stamp,
    files_below,
    is_in_step,
    is_mirrored,
    is_stale,
    set_in_step,
)
from tasks.errors import StorageLockedError, StoreError

if TYPE_CHECKING:
    import pyarrow.fs as pafs  # and in functions: to look at a run in a folder needs no Arrow

THREADS, CHUNK = 8, 8 << 20
"""Files that travel at once, and bytes that are read of one at a time."""

T = TypeVar("T")


class ObjectStore:
    """The object store's side of a storage.

    Args:
        uri: s3://bucket/prefix or gs://bucket/prefix.
        root: the copy on this machine.
        endpoint: of s3, where the environment names none.
    """

    def __init__(self, uri: str, root: Path, endpoint: str | None = None) -> None:
        self.uri, self.root = uri, root
        parts = urlsplit(uri)
        self.base = PurePosixPath(unquote(parts.netloc + parts.path))
        self.fs = open_bucket(parts.scheme, parts.netloc, endpoint)
        self._pulled: set[Path] = set()

    def check(self) -> None:
        """Write, list and delete an object.

        Raises:
            StoreError: the bucket does not exist, may not be written, or does not answer.
        """
        probe = self.base / f".probe-{os.getpid()}"

        def ask() -> None:
            with self.fs.open_output_stream(str(probe)) as file:
                file.write(b"dcdctl")
            self.fs.delete_file(str(probe))

        self._retried(ask, CHECK_S)

    def put(self, path: Path, source: Path) -> Stamp:
        """Upload a file as the object of `path`; return its stamp.

        Raises:
            StorageLockedError: another process has taken the storage meanwhile.
            StoreError: the object store refuses, or does not answer for two minutes.
        """
        if path.name in LAST:
            self._check_owner()
        key, size = self._key(path), source.stat().st_size

        def send() -> Stamp:
            with source.open("rb") as file, self.fs.open_output_stream(key) as out:
                shutil.copyfileobj(file, out, CHUNK)
            kept = self.stamp(key)
            if kept is None or kept.size != size:
                there = "nothing" if kept is None else f"{kept.size} bytes"
                raise OSError(f"{there} of {size} bytes arrived")
            return kept

        return self._retried(send)

    def push(self, folder: Path, *, deep: bool = True) -> None:
        """Upload the files of a folder that are not in step, those in LAST as the last ones.

        Args:
            folder: in the copy.
            deep: its subfolders too.
        """
        files = files_below(folder) if deep else (p for p in folder.iterdir() if p.is_file())
        waiting = [p for p in files if is_mirrored(self.root, p) and not is_in_step(p)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._push, (p for p in waiting if p.name not in LAST)))
        for path in waiting:
            if path.name in LAST:
                self._push(path)

    def _push(self, path: Path) -> None:
        with suppress(FileNotFoundError):  # a journal or picture that is being replaced
            before = path.stat()
            kept = self.put(path, path)
            if path.stat().st_mtime_ns == before.st_mtime_ns:
                set_in_step(path, kept)

    def pull(self, folder: Path, wanted: Callable[[str, int], bool] | None = None) -> None:
        """Bring the copy of a folder in step: fetch what differs, drop what is gone there.

        Args:
            folder: in the copy.
            wanted: says by path inside the storage and size whether an object is fetched.
        """
        there = self.objects(folder)
        fetch = [
            name
            for name, stamp in there.items()
            if (wanted is None or wanted(name, stamp.size)) and is_stale(self.root / name, stamp)
        ]
        for path in list(files_below(folder)):
            gone = path.relative_to(self.root).as_posix() not in there
            if gone and is_mirrored(self.root, path) and is_in_step(path):
                path.unlink(missing_ok=True)

        def get(name: str) -> None:
            self._fetch(self.root / name, there[name])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(get, (n for n in fetch if PurePosixPath(n).name not in LAST)))
        for name in fetch:
            if PurePosixPath(name).name in LAST:
                get(name)

    def pull_once(self, folder: Path) -> None:
        """Bring the copy of a folder in step, unless this process has done so already."""
        if folder not in self._pulled:
            self.pull(folder)
            self._pulled.add(folder)

    def forget_pulled(self) -> None:
        """Look again at everything: another process may have written meanwhile."""
        self._pulled.clear()

    def _fetch(self, path: Path, stamp: Stamp) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.pulled")

        def get() -> None:
            with self.fs.open_input_stream(self._key(path)) as file, partial.open("wb") as out:
                shutil.copyfileobj(file, out, CHUNK)
            if partial.stat().st_size != stamp.size:
                raise OSError(f"{partial.stat().st_size} of {stamp.size} bytes came")

        try:
            self._retried(get)
            set_in_step(partial, stamp)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def objects(self, folder: Path) -> dict[str, Stamp]:
        """Return what is below a folder, by path inside the storage."""
        import pyarrow.fs as pafs

        selector = pafs.FileSelector(self._key(folder), recursive=True, allow_not_found=True)
        found = self._retried(lambda: self.fs.get_file_info(selector))
        files = [one for one in found if one.type == pafs.FileType.File]
        names = [str(PurePosixPath(one.path).relative_to(self.base)) for one in files]
        return {
            name: _stamp(one)
            for name, one in zip(names, files, strict=True)
            if is_mirrored(self.root, self.root / name)
        }

    def move(self, folder: Path, to: Path) -> None:
        """Give the objects of a folder another name; the old ones go when the new are there."""
        names = sorted(self.objects(folder))
        for name in names:
            new = to / (self.root / name).relative_to(folder)
            self._retried(
                functools.partial(self.fs.copy_file, self._key(self.root / name), self._key(new))
            )
        for name in sorted(names, key=lambda n: PurePosixPath(n).name not in LAST):
            self.delete(self.root / name)

    def read(self, path: Path) -> bytes | None:
        """Return an object's bytes, None where there is none."""

        def get() -> bytes | None:
            try:
                with self.fs.open_input_stream(self._key(path)) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        return self._retried(get)

    def write(self, path: Path, data: bytes, patience_s: float | None = None) -> None:
        """Write an object that has no file in the copy."""

        def send() -> None:
            with self.fs.open_output_stream(self._key(path)) as out:
                out.write(data)

        self._retried(send, patience_s)

    def delete(self, path: Path) -> None:
        """Delete an object; one that is not there is no error."""

        def gone() -> None:
            with suppress(FileNotFoundError):
                self.fs.delete_file(self._key(path))

        self._retried(gone)

    def stamp(self, key: str) -> Stamp | None:
        """Return an object's stamp, None where there is none."""
        info = self.fs.get_file_info(key)
        import pyarrow.fs as pafs

        return None if info.type == pafs.FileType.NotFound else _stamp(info)

    def _check_owner(self) -> None:
        """Raise StorageLockedError where this storage was taken over by another process."""
        mine = self.root / OWNER
        if not mine.is_file():
            return
        found = self.read(self.root / LEASE)
        holder = {} if found is None else json.loads(found)
        if holder.get("owner") != mine.read_text():
            raise StorageLockedError(
                f"the storage {self.uri} was taken over by {holder.get('who', 'nobody')} while "
                "this run could not reach it; what was finished is kept there, this run stops"
            )

    def _key(self, path: Path) -> str:
        return str(self.base / path.relative_to(self.root).as_posix())

    def _retried(self, ask: Callable[[], T], patience_s: float | None = None) -> T:
        return ask_again(self.uri, ask, patience_s)


def open_object_store(uri: str) -> ObjectStore:
    """Return the object store of a URI, checked, with its copy in this user's cache folder.

    Raises:
        StoreError: the URI is wrong, or the bucket cannot be used.
    """
    parts = urlsplit(uri)
    if not parts.netloc or "@" in parts.netloc:
        raise StoreError(
            f"storage {parts.scheme}://{parts.netloc.rpartition('@')[2]}: give s3://bucket/prefix; "
            "credentials belong into the environment, never into the URI"
        )
    endpoint = endpoint_of_environment()
    key = hashlib.sha256(f"{uri.rstrip('/')}|{endpoint}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser()
    root = cache.absolute() / "dcdctl" / "storages" / key
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o700)
    (root / MARK).write_text(json.dumps({"uri": uri.rstrip("/"), "endpoint": endpoint}))
    found = _of_root(root)
    found.check()
    return found


def object_store_of(path: Path) -> ObjectStore | None:
    """Return the object store that a path's storage is a copy of; None for any other path."""
    for folder in (path, *path.parents):
        if (folder / MARK).is_file():
            return _of_root(folder)
    return None


@functools.cache
def _of_root(root: Path) -> ObjectStore:
    said: dict[str, Any] = json.loads((root / MARK).read_text())
    return ObjectStore(said["uri"], root, said["endpoint"])


def _stamp(info: pafs.FileInfo) -> Stamp:
    return Stamp(int(info.size), int(info.mtime_ns // 10**9))
