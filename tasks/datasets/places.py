"""Where a data set lies: a folder, a zip, or a prefix of an object store, seen the same way."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from tasks.datasets.sources import (
    container_stamp,
    filesystem,
    member_source,
    object_path,
    open_binary,
    open_zip,
)
from tasks.errors import DataError, MissingDataError


class Place(Protocol):
    """A tree of files. Paths are relative, with /, and quoted: any bytes may stand in a name."""

    name: str

    def files(self) -> Sequence[str]:
        """Return all files, sorted; hidden ones are left out."""

    def source(self, path: str) -> str:
        """Return the source of a file."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""

    def stamp(self) -> str:
        """Return a cheap text that changes when files come or go."""


def open_place(root: str) -> Place:
    """Return the place that a setting names: a folder, a .zip, or an URI such as s3://bucket/key.

    Raises:
        MissingDataError: there is nothing, or it may not be read.
        DataError: a damaged zip.
    """
    scheme = urlsplit(root).scheme
    remote = "://" in root and scheme != "file"
    if root.lower().endswith(".zip"):
        return ZipPlace(root if remote else local_path(root).as_uri(), root)
    if remote:
        return ObjectPlace(root.rstrip("/"))
    path = local_path(root)
    if not path.exists():
        raise MissingDataError(f"data.root {root} does not exist; name the folder of the images")
    if path.is_file():
        raise MissingDataError(f"data.root {root} is a file; name a folder or a .zip")
    return FolderPlace(path)


def local_path(root: str) -> Path:
    """Return a local root as an absolute path."""
    if root.startswith("file:"):
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(root).path)))
    return Path(root).expanduser().absolute()


class FolderPlace:
    """A folder; links are followed, a link to a folder above is not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = os.fspath(root)

    def files(self) -> Sequence[str]:
        """Return all files, sorted; hidden ones are left out."""
        found = (os.path.relpath(path, self.root) for path in self._walk(self.root, frozenset()))
        return sorted(quote(os.fsencode(path.replace(os.sep, "/"))) for path in found)

    def _walk(self, folder: Path, above: frozenset[str]) -> Iterator[str]:
        real = os.path.realpath(folder)
        if real in above:
            return
        for entry in self._scan(folder):
            if entry.is_dir():
                yield from self._walk(Path(entry.path), above | {real})
            else:
                yield entry.path

    def _scan(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise MissingDataError(f"folder {folder} cannot be read: {error.strerror}") from None

    def source(self, path: str) -> str:
        """Return a file URI."""
        return f"{self.root.as_uri()}/{path}"

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        return (self.root / os.fsdecode(unquote_to_bytes(path))).read_bytes()

    def stamp(self) -> str:
        """Hash the modification times of the root and the folders in it, two levels down."""
        digest = hashlib.sha256()
        for folder in (self.root, *sorted(self.root.glob("*/")), *sorted(self.root.glob("*/*/"))):
            digest.update(f"{folder}:{folder.stat().st_mtime_ns}\n".encode("utf-8", "replace"))
        return digest.hexdigest()


class ZipPlace:
    """A zip, read in place."""

    def __init__(self, uri: str, name: str) -> None:
        self.uri, self.name = uri, name
        try:
            self._archive = open_zip(uri, container_stamp(uri))
        except FileNotFoundError:
            raise MissingDataError(f"data.root {name} does not exist; name the zip") from None
        except (OSError, zipfile.BadZipFile):
            raise DataError(
                f"data.root {name} is no zip, or a damaged one; pack it again"
            ) from None

    def files(self) -> Sequence[str]:
        """Return all members, sorted; hidden ones and what a Mac adds are left out."""
        names = (info.filename for info in self._archive.infolist() if not info.is_dir())
        return sorted(
            quote(name)
            for name in names
            if not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
        )

    def source(self, path: str) -> str:
        """Return the source of a member."""
        return member_source("zip", self.uri, unquote_to_bytes(path).decode())

    def read(self, path: str) -> bytes:
        """Return a member's bytes."""
        return self._archive.read(unquote_to_bytes(path).decode())

    def stamp(self) -> str:
        """Hash the table of contents."""
        lines = (f"{i.filename}:{i.file_size}:{i.CRC}\n" for i in self._archive.infolist())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class ObjectPlace:
    """All objects below a prefix."""

    def __init__(self, uri: str) -> None:
        self.uri = self.name = uri
        try:
            self._store = filesystem(urlsplit(uri).scheme, urlsplit(uri).netloc)
        except pa.ArrowInvalid:
            raise MissingDataError(
                f"data.root {uri} has no known kind of store; use s3://, gs:// or a folder"
            ) from None
        self._root = object_path(uri)

    def files(self) -> Sequence[str]:
        """Return all objects, sorted; hidden ones are left out."""
        below = (info.path[len(self._root) + 1 :] for info in self._infos())
        return sorted(
            quote(path) for path in below if not any(p.startswith(".") for p in path.split("/"))
        )

    def _infos(self) -> list[pafs.FileInfo]:
        try:
            found = self._store.get_file_info(pafs.FileSelector(self._root, recursive=True))
        except OSError as error:
            reason = str(error).splitlines()[0][:200]
            raise MissingDataError(f"data.root {self.uri} cannot be listed: {reason}") from None
        return [info for info in found if info.type == pafs.FileType.File]

    def source(self, path: str) -> str:
        """Return the URI of an object."""
        return f"{self.uri}/{path}"

    def read(self, path: str) -> bytes:
        """Return an object's bytes."""
        with open_binary(self.source(path)) as file:
            return bytes(file.read())

    def stamp(self) -> str:
        """Return the name alone: what changed in a store is not known without listing it."""
        return self.uri
