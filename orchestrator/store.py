"""The run store: the storage is the truth, and a manifest or record written last says so.

<storage>/
  .lock                          one sweep at a time
  pseudonyms.key                 names of real people never leave the data under any other form
  artifacts/<stage>/<key>/       shared by all runs: images, prior, evaluation classifier
  runs/<fingerprint>/            one experiment: spec.json, trials/<trial_id>/record.json, report.*
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from orchestrator.bucket import SCHEMES
from orchestrator.object_store import ObjectStore, object_store_of, open_object_store
from orchestrator.records import TrialRecord
from orchestrator.storage_copy import set_in_step
from tasks.errors import DiskFullError, StorageLockedError, StoreError

log = logging.getLogger(__name__)

KEY_BYTES = 32
"""Of the key under which people get their pseudonyms."""

_USED: dict[Path, set[str]] = {}
"""By storage: a data set is listed through a store of its own, and a run needs the listing too."""

RECORD, MANIFEST = "record.json", "manifest.json"
"""Of a trial and of any other stage: written last, so that its presence says that all is there."""


class Store:
    """One storage root.

    Args:
        uri: a folder, file:///folder, s3://bucket/prefix or gs://bucket/prefix. Of an object store
            `root` is a copy on this machine, and what is written there goes to the store first.

    Raises:
        StoreError: the URI has another scheme, or the place cannot be made or written.
    """

    def __init__(self, uri: str) -> None:
        parts = urlsplit(uri)
        if parts.scheme in SCHEMES:
            self.remote: ObjectStore | None = open_object_store(uri)
            self.root = self.remote.root
            return
        if parts.scheme not in ("", "file"):
            raise StoreError(
                f"storage {uri!r}: results go to a folder, or to a file://, s3:// or gs:// URI; "
                "give one of those"
            )
        self.root = Path(parts.path if parts.scheme == "file" else uri).expanduser().absolute()
        self.remote = object_store_of(self.root)
        with disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    @property
    def used(self) -> set[str]:
        """The artefacts, as `stage/key`, that this process has asked for in this storage."""
        return _USED.setdefault(self.root, set())

    @property
    def place(self) -> str:
        """Where the results are, for people."""
        return str(self.root) if self.remote is None else self.remote.uri

    def artifact(self, stage: str, key: str) -> Path:
        """Return the folder of a shared artefact; what an object store has of it is fetched."""
        self.used.add(f"{stage}/{key}")
        return self._here(self.root / "artifacts" / stage / key)

    def run(self, fingerprint: str) -> Path:
        """Return the folder of a run; what an object store has of it is fetched."""
        return self._here(self.root / "runs" / fingerprint)

    def receipts(self) -> Path:
        """Return the folder of what was forgotten; what an object store has of it is fetched."""
        return self._here(self.root / "receipts")

    def _here(self, folder: Path) -> Path:
        if self.remote is not None:
            with disk_errors(folder):
                self.remote.pull_once(folder)
        return folder

    def keep_up(self, run: Path) -> None:
        """Have an object store show what lies in a run's folder itself, such as its journal."""
        if self.remote is not None:
            self.remote.push(run, deep=False)

    def set_aside(self, run: Path) -> None:
        """Give a run's folder a name with the time, here and in an object store."""
        aside = run.with_name(f"{run.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        if self.remote is not None:
            self.remote.move(run, aside)
        run.rename(aside)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the storage for one writing process; the lock goes with the process.

        In an object store a lease with a heartbeat holds it against other machines, and what was
        written without its knowledge, as the journal is, is there when the block ends.

        Raises:
            StorageLockedError: another process holds it.
        """
        with self._locked_here():
            if self.remote is None:
                yield
                return
            from orchestrator.lease import leased

            with leased(self.remote):
                self.remote.forget_pulled()
                try:
                    yield
                finally:
                    self.remote.push(self.root)

    @contextmanager
    def _locked_here(self) -> Iterator[None]:
        with disk_errors(self.root):
            file = open(self.root / ".lock", "a+")  # noqa: SIM115 - closed below, after the run
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StorageLockedError(
                    f"the storage {self.place} is in use by {_holder(file)}; wait for it, or give "
                    "--storage another folder"
                ) from error
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield
        finally:
            file.close()

    def pseudonym(self, identity: str, *, public_key: str | None = None) -> str:
        """Return the name under which an identity appears outside the data.

        Args:
            identity: the name in the data set.
            public_key: for people who do not exist; otherwise the storage's secret key is used.
        """
        key = public_key.encode() if public_key is not None else self.key()
        return "id-" + hmac.new(key, identity.encode(), hashlib.sha256).hexdigest()[:8]

    def key(self) -> bytes:
        """Return the secret under which people get their pseudonyms; it is made when missing."""
        path = self.root / "pseudonyms.key"
        if not path.exists():
            kept = None if self.remote is None else self.remote.read(path)
            _make_key(path, kept or secrets.token_bytes(KEY_BYTES))
            if self.remote is not None and kept is None:
                set_in_step(path, self.remote.put(path, path))
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise StoreError(
                f"the key {path} has {len(key)} bytes instead of {KEY_BYTES}: it was damaged; put "
                "it back from a copy, or delete it, and people get other pseudonyms than before"
            )
        return key


def _make_key(path: Path, key: bytes) -> None:
    """Make a key that is there whole or not at all; of two that make one, one wins."""
    with disk_errors(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(partial, path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def records_of(run: Path) -> list[TrialRecord]:
    """Return all trial records of a run by index.

    Raises:
        StoreError: a record cannot be read.
    """
    records = []
    for path in sorted(run.glob(f"trials/*/{RECORD}")):
        try:
            records.append(TrialRecord.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            raise StoreError(
                f"the record {path} cannot be read ({error.error_count()} errors); delete its "
                "folder and resume to run that trial again"
            ) from error
    return sorted(records, key=lambda record: record.index)


def set_aside(run: Path, *, failed: bool = False) -> list[Path]:
    """Rename the records of a run that cannot be read, so that a resumed sweep runs them again.

    Args:
        run: the run's folder.
        failed: rename those of failed trials too.

    Returns:
        The new names, `record.json.torn` or `record.json.failed`.
    """
    found = []
    for path in sorted(run.glob(f"trials/*/{RECORD}")):
        try:
            status: str = TrialRecord.model_validate_json(path.read_bytes()).status
        except ValidationError:
            status = "torn"
        if status == "torn" or (failed and status == "failed"):
            with disk_errors(path):
                found.append(path.rename(path.with_name(f"{RECORD}.{status}")))
    return found


def set_aside_replaced(run: Path, trial_id: str) -> None:
    """Rename the record of a trial in whose place another one stands: `record.json.replaced`."""
    path = run / "trials" / trial_id / RECORD
    with disk_errors(path):
        path.rename(path.with_name(f"{RECORD}.replaced"))


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True) -> None:
    """Write a file whole or not at all.

    Args:
        path: of the file.
        data: its content.
        durable: wait until the disk has it. Without, a file that was just written may be lost with
            the machine's power, though not with the process.

    Raises:
        DiskFullError: no space is left.
        StoreError: the file cannot be written.
    """
    with atomic_file(path, durable=durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name when the block ends well, and else not at all.

    Args:
        path: of the file.
        durable: wait until the disk has it.

    Raises:
        DiskFullError: no space is left.
        StoreError: the file cannot be written.
    """
    with disk_errors(path):
        new = list(takewhile(lambda folder: not folder.exists(), path.parents))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with open(partial, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            remote = object_store_of(path)
            if remote is not None:
                set_in_step(partial, remote.put(path, partial))
            os.replace(partial, path)
            if durable:
                for folder in (path.parent, *(made.parent for made in new)):
                    _sync_folder(folder)
        finally:
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the disk know a name that was given: without it a power cut may lose a whole file."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stage(folder: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run a stage unless its manifest is there; return the manifest.

    Args:
        folder: of the stage's output.
        make: fills the folder and returns the manifest, which is written last.
    """
    manifest = folder / MANIFEST
    if manifest.is_file():
        try:
            found: dict[str, Any] = json.loads(manifest.read_text())
            return found
        except ValueError:
            log.warning("the manifest %s is damaged; what it stands for is made anew", manifest)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        made = make(folder)
        made.setdefault("seconds", round(time.monotonic() - started, 2))
    remote = object_store_of(folder)
    if remote is not None:
        remote.push(folder)
    write_atomic(manifest, json.dumps(made, indent=2) + "\n")
    return made


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk's errors into sentences.

    Raises:
        DiskFullError: no space is left.
        StoreError: the path cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"no space is left for {path}; free some and resume: what was finished is kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise StoreError(
                f"cannot write {path} ({error.strerror}); give --storage a folder that you may "
                "write to"
            ) from error
        raise


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read() or "another process"
