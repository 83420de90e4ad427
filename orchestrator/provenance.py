"""Whose pictures went into a folder of the storage, and which artefacts a run was made with.

`people.npy` beside an artefact or in a run holds a keyed number for each real person, so that one
person can be asked for by who has the storage's key, and nobody be listed. `needs.json` of a run
names the artefacts it used. `dcdctl forget` and `dcdctl clean` decide by these two.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import Store, write_atomic
from tasks.datasets.builtin import BUILTIN

PEOPLE, NEEDS = "people.npy", "needs.json"

Codes = npt.NDArray[np.uint64]


def person_code(key: bytes, identity: str) -> int:
    """Return the number of a person, 64 bits; whoever lacks the key learns nothing from it."""
    digest = hmac.new(key, b"person:" + identity.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big")


def note_people(folder: Path, store: Store, rows: pa.Table) -> None:
    """Write whose pictures go into a folder, unless it says so already.

    Args:
        folder: of an artefact or a run, in the storage.
        store: whose key numbers people.
        rows: a row table; drawn faces are nobody's.
    """
    if (folder / PEOPLE).is_file():
        return
    real = pc.invert(pc.starts_with(rows["source"], BUILTIN))
    write_atomic(folder / PEOPLE, encode(codes_of(store.key(), _unique(rows.filter(real)))))


def _unique(rows: pa.Table) -> list[str]:
    return [str(name) for name in rows["identity"].unique().to_pylist()]


def codes_of(key: bytes, identities: Iterable[str]) -> Codes:
    """Return the numbers of people, sorted, uint64 (n,)."""
    return np.unique(np.array([person_code(key, name) for name in identities], dtype=np.uint64))


def encode(codes: Codes) -> bytes:
    """Return the content of `people.npy`."""
    out = io.BytesIO()
    np.save(out, codes, allow_pickle=False)
    return out.getvalue()


def decode(data: bytes) -> Codes | None:
    """Return the numbers in a `people.npy`, None where it cannot be read."""
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    return found if found.dtype == np.uint64 and found.ndim == 1 else None


def note_needs(run: Path, store: Store) -> None:
    """Write which artefacts a run has used so far, those of earlier sessions among them."""
    before = read_needs((run / NEEDS).read_bytes() if (run / NEEDS).is_file() else None) or ()
    used = sorted({*before, *store.used})
    if tuple(used) != tuple(before):
        write_atomic(run / NEEDS, json.dumps(used, indent=1) + "\n")


def read_needs(data: bytes | None) -> tuple[str, ...] | None:
    """Return the artefacts, as `stage/key`, that a `needs.json` names; None where nothing does."""
    if data is None:
        return None
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None
