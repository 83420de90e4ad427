"""Search a storage for what a receipt says is gone: `dcdctl forget --verify`."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from pydantic import Field
from rich.console import Console

from orchestrator.deep_search import Search, contents
from orchestrator.forget_edits import is_distinctive
from orchestrator.provenance import PEOPLE, decode
from orchestrator.receipt import RECEIPTS, Receipt, is_of, read_receipt
from orchestrator.storage_files import StorageFiles, open_existing
from tasks.errors import SpecError, StillThereError, StoreError
from tasks.spec import Spec


class StillThere(Spec):
    """Something that should be gone."""

    where: str
    what: str


class VerifyOutcome(Spec):
    """What a search for a receipt's person found."""

    receipt: str
    at: str
    files: int = Field(description="That were searched.")
    removed: int = Field(description="Files whose bytes were looked for by their digests.")
    with_name: bool = Field(description="Whether the name was given, and looked for too.")
    in_running_text: bool = Field(description="false: the name is too short or a number for that.")
    still_there: tuple[StillThere, ...]
    not_reached: tuple[str, ...]

    def render(self, console: Console) -> None:
        """Print it for people."""
        lines = [f"{one.where}: {one.what}" for one in self.still_there]
        how = "digests, pseudonym and name" if self.with_name else "digests and pseudonym"
        lines.append(
            f"{self.files} files searched for the {how} of receipt {self.receipt} of "
            f"{self.at[:10]}: {len(self.still_there) or 'nothing'} found"
        )
        if self.with_name and not self.in_running_text:
            lines.append("the name is short or a number: it was looked for as a value, not in text")
        if not self.with_name:
            lines.append("give the name too (`dcdctl forget - --verify ...`) to look for it")
        lines += ["not reached from here:"] + [f"  - {one}" for one in self.not_reached]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    def require_nothing(self) -> None:
        """Fail where something was found.

        Raises:
            StillThereError: says how much.
        """
        if self.still_there:
            raise StillThereError(
                f"{len(self.still_there)} places still hold something of the person; forget them "
                "again (they may have come back with the data set)"
            )


ALIKE = ("manifest.json", "meta.json", "images.json", "sizes.npy", "quarantine.parquet")
"""Files that say nothing of pictures, and are alike for different ones."""


def verify(storage: str, receipt: Path, name: str | None) -> VerifyOutcome:
    """Search a storage for what a receipt says is gone.

    Args:
        storage: folder or URI.
        receipt: the file, or the id of one in the storage.
        name: of the person; None looks for digests and pseudonym alone.

    Raises:
        SpecError: the receipt is not of this person.
        StoreError: the receipt cannot be read, or was changed.
    """
    files = StorageFiles(open_existing(storage))
    found = _receipt(files, receipt)
    if name is not None and not is_of(found.person, name):
        raise SpecError(f"the receipt {found.id} is not of the person whose name was given")
    return VerifyOutcome(
        receipt=found.id,
        at=found.at,
        files=len(files.there),
        removed=len(found.removed),
        with_name=name is not None,
        in_running_text=name is not None and is_distinctive(name),
        still_there=tuple(search_for(files, found, name)),
        not_reached=found.not_reached,
    )


def _receipt(files: StorageFiles, receipt: Path) -> Receipt:
    if receipt.is_file():
        return read_receipt(receipt.read_bytes(), str(receipt))
    name = f"{RECEIPTS}/{receipt.name.removesuffix('.json')}.json"
    data = files.read(name)
    if data is None:
        there = [PurePosixPath(one).stem for one in files.below(RECEIPTS)]
        raise StoreError(
            f"there is no receipt {str(receipt)!r}; {files.store.place} has "
            f"{', '.join(there) or 'none'}"
        )
    return read_receipt(data, name)


def search_for(files: StorageFiles, receipt: Receipt, name: str | None) -> list[StillThere]:
    """Return what a storage still holds of a person: files, rows, pseudonym, and the name."""
    found = [] if receipt.complete else [StillThere(where=receipt.id, what="was not finished")]
    sizes: dict[int, set[str]] = {}
    for gone in receipt.removed:
        if PurePosixPath(gone.path).name in ALIKE:
            continue
        sizes.setdefault(gone.bytes, set()).add(gone.sha256)
    pseudonym = Search([receipt.person.pseudonym])
    running = Search([name], whole=True) if name is not None and is_distinctive(name) else None
    code = np.uint64(int(receipt.person.code, 16))
    for place, stamp in sorted(files.there.items()):
        path = PurePosixPath(place)
        if path.parts[0] == RECEIPTS:  # they have the pseudonym, so that it can be looked for
            continue
        anew = any(place.startswith(f"{PurePosixPath(page).parent}/") for page in receipt.made_anew)
        if stamp.size and not anew and files.digest(place) in sizes.get(stamp.size, ()):
            found.append(StillThere(where=place, what="a file that was removed"))
        data = files.read(place)
        if data is None:
            continue
        for hit in pseudonym.data(data, place):
            found.append(StillThere(where=hit.where, what="the pseudonym"))
        if path.name == PEOPLE and (codes := decode(data)) is not None and np.isin(code, codes):
            found.append(StillThere(where=place, what="the person's number"))
        if name is None:
            continue
        if running is not None:
            hits = running.data(data, place) | running.data(place.encode(), place, deep=False)
            found += [StillThere(where=hit.where, what="the name") for hit in hits]
        else:
            found += [StillThere(where=one, what="the name") for one in _values(data, place, name)]
    return sorted(set(found), key=lambda one: (one.where, one.what))


def _values(data: bytes, place: str, name: str) -> list[str]:
    """Return where a short name stands alone: as a JSON value or key, or as a line of a column."""
    found = []
    if place.endswith((".json", ".jsonl")):
        for line in [data] if place.endswith(".json") else data.split(b"\n"):
            try:
                if name in set(_strings(json.loads(line))):
                    found.append(place)
            except ValueError:
                continue
    elif place.endswith((".parquet", ".npz", ".npy")):
        for where, part in contents(data, place):
            if where != place and name.encode() in part.split(b"\n"):
                found.append(where)
    return found


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value, *value.split("/")]
    if isinstance(value, dict):
        return [*map(str, value), *(text for one in value.values() for text in _strings(one))]
    return [text for one in value for text in _strings(one)] if isinstance(value, list) else []
