"""A storage in an object store: s3:// or gs:// is the truth, a folder of this machine its copy.

All code works on the copy. A file goes to the object store first and appears in the copy when it is
there, so that a record or manifest in the copy says that the object store has it too. A file whose
copy is in step has a modification time of a whole second: the store's own, rounded up.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from tasks.errors import StorageLockedError, StoreError

if TYPE_CHECKING:
    import pyarrow.fs as pafs  # and in functions: to look at a run in a folder needs no Arrow

SCHEMES = ("s3", "gs")
MARK, OWNER, LEASE = ".remote.json", ".owner", ".lease.json"
"""In the copy: whose copy it is, and who writes; in the object store: who writes, with a beat."""

LAST = ("record.json", "manifest.json")
"""Files whose presence says that all others of their folder are there."""

NOT_MIRRORED = ("mlflow.db", "mlartifacts", "outbox")
"""Views of the records, made anew at will."""

CHECK_S, PATIENCE_S = 20.0, 120.0
"""Seconds for which a store that does not answer is asked again: at the start, and during a run."""

CONNECT_S, REQUEST_S, ATTEMPTS = 5.0, 15.0, 2
THREADS, CHUNK = 8, 8 << 20
SMALL = 4 << 20
"""Bytes of a file that is fetched to look at a run."""

T = TypeVar("T")

_FINAL = {
    "NO_SUCH_BUCKET": "the bucket does not exist; create it, or name another in `storage`",
    "ACCESS_DENIED": "access is denied; give these credentials the right to list, read, write and "
    "delete objects under the prefix",
    "INVALID_ACCESS_KEY_ID": "the access key is not known; check AWS_ACCESS_KEY_ID",
    "UNRECOGNIZED_CLIENT": "the access key is not known; check AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
    "EXPIRED_TOKEN": "the session token has expired; get new credentials",
}
"""What Arrow says where asking again cannot help, and what to do."""


@dataclass(frozen=True)
class Stamp:
    """An object's size in bytes, and when it was written: seconds since the epoch."""

    size: int
    seconds: int


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
        self.fs = _filesystem(parts.scheme, parts.netloc, endpoint)
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
        files = _files(folder) if deep else (p for p in folder.iterdir() if p.is_file())
        waiting = [p for p in files if self._mirrored(p) and not _in_step(p)]
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
            if (wanted is None or wanted(name, stamp.size)) and _is_stale(self.root / name, stamp)
        ]
        for path in list(_files(folder)):
            gone = path.relative_to(self.root).as_posix() not in there
            if gone and self._mirrored(path) and _in_step(path):
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
            if self._mirrored(self.root / name)
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

    def write(self, path: Path, data: bytes, patience_s: float = PATIENCE_S) -> None:
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

    def _mirrored(self, path: Path) -> bool:
        names = path.relative_to(self.root).parts
        return not any(name.startswith(".") or name in NOT_MIRRORED for name in names)

    def _key(self, path: Path) -> str:
        return str(self.base / path.relative_to(self.root).as_posix())

    def _retried(self, ask: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
        """Ask until it answers or patience ends; what can never work is not asked again.

        Raises:
            StoreError: says what the object store said, and what to do.
        """
        deadline, wait = time.monotonic() + patience_s, 0.2
        while True:
            try:
                return ask()
            except OSError as error:
                text = str(error)
                advice = next((what for word, what in _FINAL.items() if word in text), None)
                if advice is not None:
                    if "ACCESS_DENIED" in text and not _has_credentials(self.uri):
                        advice = _NO_CREDENTIALS
                    raise StoreError(f"storage {self.uri}: {advice}") from error
                if isinstance(error, FileNotFoundError) or error.errno is not None:
                    raise
                if time.monotonic() + wait > deadline:
                    raise StoreError(
                        f"storage {self.uri} does not answer ({_short(text)}); check the network "
                        "and AWS_ENDPOINT_URL, and resume: what was finished is kept"
                    ) from error
                time.sleep(wait)
                wait = min(2 * wait, 10.0)


_NO_CREDENTIALS = (
    "no credentials were found and access is denied; set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where the machine has a role"
)


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
    endpoint = _endpoint()
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


def small(name: str, size: int) -> bool:
    """Say whether an object is fetched to look at a run: texts and numbers, no weights."""
    return size <= SMALL and PurePosixPath(name).suffix in (".json", ".jsonl", ".html")


def set_in_step(path: Path, stamp: Stamp) -> None:
    """Note that a file of the copy is what the object store has."""
    whole = (stamp.seconds + 1) * 10**9
    os.utime(path, ns=(whole, whole))


def _in_step(path: Path) -> bool:
    return path.stat().st_mtime_ns % 10**9 == 0


def _is_stale(path: Path, stamp: Stamp) -> bool:
    try:
        own = path.stat()
    except OSError:
        return True
    if own.st_mtime_ns % 10**9:  # written here and not uploaded yet: it stays where it is newer
        return own.st_mtime < stamp.seconds
    return own.st_size != stamp.size or own.st_mtime_ns // 10**9 != stamp.seconds + 1


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _stamp(info: pafs.FileInfo) -> Stamp:
    return Stamp(int(info.size), int(info.mtime_ns // 10**9))


def _short(text: str) -> str:
    """Return the part of Arrow's sentence that says what broke."""
    return (text.strip().splitlines() or ["no reason given"])[0].split(" (Request ID")[0][:160]


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _has_credentials(uri: str) -> bool:
    """Say whether any is configured; a machine's role is not looked for, it would take seconds."""
    if urlsplit(uri).scheme != "s3":
        return True
    names = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
    role = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    own = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials"
    return any(os.environ.get(name) for name in (*names, *role)) or Path(own).is_file()


def _filesystem(scheme: str, bucket: str, endpoint: str | None) -> pafs.FileSystem:
    """Return the file system, with short waits: asking again is done here.

    Raises:
        StoreError: no region is set, and the bucket's cannot be found.
    """
    import pyarrow.fs as pafs

    if scheme == "gs":
        emulator = os.environ.get("STORAGE_EMULATOR_HOST")
        options: dict[str, Any] = {}
        if emulator:
            host = urlsplit(emulator if "//" in emulator else f"http://{emulator}")
            options = {"endpoint_override": host.netloc, "scheme": host.scheme, "anonymous": True}
        return pafs.GcsFileSystem(retry_time_limit=timedelta(seconds=CHECK_S), **options)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = _endpoint() or endpoint
    if not region and not endpoint:
        try:
            region = pafs.resolve_s3_region(bucket)
        except OSError as error:
            raise StoreError(
                f"storage s3://{bucket}: the bucket does not exist, or AWS cannot be reached to "
                f"ask for its region ({_short(str(error))}); check its name, or set AWS_REGION"
            ) from error
    return pafs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )
