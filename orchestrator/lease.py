"""Who writes into a storage that several machines can reach: a small object with a heartbeat.

No clock is compared with another machine's: a lease is dead when its beat has not changed while we
watched it for its lifetime. Between a write and its reading back the lease settles, so that of two
that come at once one sees the other.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from orchestrator.object_store import ObjectStore
from orchestrator.storage_copy import LEASE, OWNER
from tasks.errors import StorageLockedError, StoreError

BEAT_S, LIFETIME_S, SETTLE_S = 5.0, 30.0, 1.0
"""Seconds between heartbeats, without one until a lease is dead, and until a race is over."""


@dataclass(frozen=True)
class Lease:
    """Who holds a storage.

    Attributes:
        owner: a name that nobody else has.
        who: for people.
        copy: machine and folder of the holder's copy of the storage.
        beat: counts up while the holder lives.
    """

    owner: str
    who: str
    copy: str
    beat: int = 0


@contextmanager
def leased(store: ObjectStore) -> Iterator[None]:
    """Hold a storage; the caller has the lock of the copy on this machine already.

    Raises:
        StorageLockedError: another process holds it.
        StoreError: the object store cannot be used.
    """
    host = socket.gethostname()
    mine = Lease(
        owner=secrets.token_hex(8),
        who=f"process {os.getpid()} on {host}",
        copy=f"{host}:{store.root}",
    )
    _take(store, mine)
    own_file, stop = store.root / OWNER, threading.Event()
    own_file.write_text(mine.owner)
    beats = threading.Thread(target=_beat, args=(store, mine, stop), daemon=True)
    beats.start()
    try:
        yield
    finally:
        stop.set()
        beats.join()
        own_file.unlink(missing_ok=True)
        found = read_lease(store)
        if found is not None and found.owner == mine.owner:
            store.delete(store.root / LEASE)


def read_lease(store: ObjectStore) -> Lease | None:
    """Return who holds a storage, None where nobody does or the object says nothing."""
    data = store.read(store.root / LEASE)
    try:
        return None if data is None else Lease(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _take(store: ObjectStore, mine: Lease) -> None:
    """Become the holder.

    Raises:
        StorageLockedError: another process lives, or came at the same time and won.
    """
    there = read_lease(store)
    # Our own copy's lock is ours: whoever held the lease from this copy is gone.
    if there is not None and there.copy != mine.copy:
        _watch(store, there)
    _write(store, mine)
    time.sleep(SETTLE_S)
    found = read_lease(store)
    if found is None or found.owner != mine.owner:
        raise _held(store, found)


def _watch(store: ObjectStore, there: Lease) -> None:
    """Return when a lease has not beaten for its lifetime, or is gone.

    Raises:
        StorageLockedError: its holder lives.
    """
    deadline = time.monotonic() + LIFETIME_S
    while time.monotonic() < deadline:
        time.sleep(BEAT_S / 5)
        now = read_lease(store)
        if now is None:
            return
        if now != there:
            raise _held(store, now)


def _beat(store: ObjectStore, mine: Lease, stop: threading.Event) -> None:
    """Count up until told to stop, or until the lease is another's: then publishing refuses."""
    count = 0
    while not stop.wait(BEAT_S):
        count += 1
        try:
            found = read_lease(store)
            if found is not None and found.owner != mine.owner:
                return
            _write(store, replace(mine, beat=count))
        except (StoreError, OSError):
            continue  # not reached for long, it is another's when it answers again


def _write(store: ObjectStore, lease: Lease) -> None:
    store.write(store.root / LEASE, json.dumps(asdict(lease)).encode())


def _held(store: ObjectStore, lease: Lease | None) -> StorageLockedError:
    who = "another process" if lease is None else lease.who
    return StorageLockedError(
        f"the storage {store.uri} is in use by {who}; wait for it, or give --storage another prefix"
    )
