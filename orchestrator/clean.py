"""`dcdctl clean`: remove what is old and what nothing needs, from a storage and from this machine.

Old is what nothing was written to for the given time. An old artefact stays while a run that stays
names it; a run that goes on is never touched; receipts, the key and the data set never are.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from orchestrator.clean_machine import old_copies, old_scratch, remove_tree
from orchestrator.find_run import driver_of
from orchestrator.forgotten import CLEANED, FORGOTTEN, Forgotten
from orchestrator.provenance import NEEDS, read_needs
from orchestrator.storage_files import StorageFiles, open_existing
from tasks.errors import SpecError
from tasks.spec import Spec

Kind = Literal[
    "run", "weights and pictures", "artefact", "unfinished trial", "table", "job", "partial file"
]
DAY = 86_400
_UNITS = {"m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}
WEIGHTS = re.compile(r"trials/[^/]+/(checkpoint/|training/|[^/]+\.npz$|recipe\.parquet$)")


class OldThing(Spec):
    """Something old."""

    kind: str
    name: str = Field(description="Inside the storage, or a path of this machine.")
    files: int
    bytes: int
    days: float = Field(description="Since anything was written to it.")
    kept: str | None = Field(None, description="Why it stays.")


class CleanOutcome(Spec):
    """What was removed, or would be."""

    done: bool = Field(description="false: nothing was changed; --yes does it.")
    storage: str
    removed: tuple[OldThing, ...]
    kept: tuple[OldThing, ...] = Field(description="Old, and needed.")
    bytes: int
    mlflow_runs: int = 0

    def render(self, console: Console) -> None:
        """Print it for people."""
        table = Table(box=None, pad_edge=False)
        for heading in ("kind", "name", "size", "age", ""):
            table.add_column(heading, overflow="fold")
        for thing in (*self.removed, *self.kept):
            size, days = f"{thing.bytes / 1e6:.1f} MB", f"{thing.days:.0f} d"
            table.add_row(thing.kind, thing.name, size, days, thing.kept and f"stays: {thing.kept}")
        if self.removed or self.kept:
            console.print(table)
        verb = "removed" if self.done else "would be removed"
        lines = [f"{self.bytes / 1e6:.1f} MB in {len(self.removed)} things {verb}"]
        lines += [f"{self.mlflow_runs} runs {verb} from MLflow"] if self.mlflow_runs else []
        lines += [] if self.done else ["nothing was changed; add --yes to do it"]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def parse_age(text: str) -> float:
    """Return an age such as 30d, 12h or 2w in seconds.

    Raises:
        SpecError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    if found is None:
        raise SpecError(f"--older-than {text!r} is no age; write 30d, or use m, h, d or w")
    return float(found[1]) * _UNITS[found[2]]


def clean(
    storage: str,
    older_than_s: float,
    *,
    everything: bool = False,
    keep_records: bool = False,
    yes: bool = False,
    now: float | None = None,
) -> CleanOutcome:
    """Remove what is old and not needed.

    Args:
        storage: folder or URI.
        older_than_s: seconds since the last writing.
        everything: artefacts too that a run which stays names: they are made anew when needed.
        keep_records: of old runs remove checkpoints, plans and pictures alone.
        yes: do it; else nothing is changed.
        now: seconds since the epoch.

    Raises:
        StorageLockedError: a run is going on in the storage, and yes was said.
        StoreError: there is no such storage, or something cannot be removed.
    """
    store = open_existing(storage)
    before = (time.time() if now is None else now) - older_than_s
    if not yes:
        return _clean(StorageFiles(store), before, everything, keep_records, yes=False)
    with store.locked():
        return _clean(StorageFiles(store), before, everything, keep_records, yes=True)


def _clean(
    files: StorageFiles, before: float, everything: bool, keep_records: bool, *, yes: bool
) -> CleanOutcome:
    from orchestrator.mlflow_removal import remove_runs, shown_runs

    found = {name: thing for name, thing in _old(files, before, everything, keep_records)}
    here = [*old_scratch(before), *old_copies(before)]
    goes = {name: thing for name, thing in found.items() if thing.kept is None}
    runs = [PurePosixPath(name).name for name, thing in goes.items() if thing.kind == "run"]
    shown = len(shown_runs(files.root, runs))
    if yes:
        for name, thing in goes.items():
            _remove(files, name, thing)
        for place in here:
            remove_tree(place)
        shown = remove_runs(files.root, runs)
    local = [_on_this_machine(kind, place) for kind, place in ((_kind(p), p) for p in here)]
    removed = (*goes.values(), *local)
    return CleanOutcome(
        done=yes,
        storage=files.store.place,
        removed=removed,
        kept=tuple(thing for thing in found.values() if thing.kept is not None),
        bytes=sum(thing.bytes for thing in removed),
        mlflow_runs=shown,
    )


def _kind(place: Path) -> str:
    return "scratch folder" if place.name.startswith("dcd-") else "copy of a storage"


def _on_this_machine(kind: str, place: Path) -> OldThing:
    stats = [path.stat() for path in place.rglob("*") if path.is_file()]
    last = max((stat.st_mtime for stat in stats), default=time.time())
    return OldThing(
        kind=kind,
        name=str(place),
        files=len(stats),
        bytes=sum(stat.st_size for stat in stats),
        days=round((time.time() - last) / DAY, 1),
    )


def _old(
    files: StorageFiles, before: float, everything: bool, keep_records: bool
) -> Iterator[tuple[str, OldThing]]:
    """Yield everything old, by its place in the storage."""
    staying: list[str] = []
    for run in files.folders("runs"):
        young = _last(files, files.below(run)) >= before
        driver = driver_of(files.root / run)
        running = driver is not None and driver.alive is not False
        if young or running or keep_records:
            staying.append(run)
        if young or running:
            if running and not young:
                yield run, _thing(files, "run", run, files.below(run), "it is running")
            if not running:
                yield from _unfinished(files, run, before)
        elif not keep_records:
            yield run, _thing(files, "run", run, files.below(run))
        elif weights := _weights(files, run):
            yield run, _thing(files, "weights and pictures", run, weights)
    yield from _old_artefacts(files, staying, before, everything)
    for kind, parent in (
        ("table", "comparisons"),
        ("table", "reports"),
        ("audit", "audits"),
        ("result of a job", "results"),
    ):
        for folder in files.folders(parent):
            if _last(files, files.below(folder)) < before:
                yield folder, _thing(files, kind, folder, files.below(folder))
    for name in files.below("jobs"):
        if files.there[name].seconds < before:
            yield name, _thing(files, "job", name, [name])
    for name, stamp in files.there.items():
        part = PurePosixPath(name).name
        half = part.startswith(".") and part.endswith((".partial", ".pulled"))
        if half and stamp.seconds < before:
            yield name, _thing(files, "partial file", name, [name])


def _old_artefacts(
    files: StorageFiles, staying: list[str], before: float, everything: bool
) -> Iterator[tuple[str, OldThing]]:
    needs = {run: read_needs(files.read(f"{run}/{NEEDS}")) for run in staying}
    named = {f"artifacts/{one}": run for run, found in needs.items() for one in found or ()}
    silent = next((run for run, found in needs.items() if found is None), None)
    for stage in files.folders("artifacts"):
        for folder in files.folders(stage):
            below = files.below(folder)
            if _last(files, below) >= before:
                continue
            kept = None
            if not everything and folder in named:
                kept = f"run {PurePosixPath(named[folder]).name} needs it"
            elif not everything and silent is not None:
                kept = f"run {PurePosixPath(silent).name} does not say what it needs"
            yield folder, _thing(files, "artefact", folder, below, kept)


def _unfinished(files: StorageFiles, run: str, before: float) -> Iterator[tuple[str, OldThing]]:
    """Yield old folders of trials that have no record: a resumed sweep runs those again."""
    for trial in files.folders(f"{run}/trials"):
        below = files.below(trial)
        if f"{trial}/record.json" not in files.there and _last(files, below) < before:
            yield trial, _thing(files, "unfinished trial", trial, below)


def _weights(files: StorageFiles, run: str) -> list[str]:
    return [
        name
        for name in files.below(run)
        if WEIGHTS.match(name.removeprefix(f"{run}/")) or name == f"{run}/examples.npz"
    ]


def _remove(files: StorageFiles, name: str, thing: OldThing) -> None:
    names = [name] if name in files.there else files.below(name)
    if thing.kind == "weights and pictures":
        names = _weights(files, name)
        if f"{name}/{FORGOTTEN}" not in files.there:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            note = Forgotten(at=at, receipt="", lost=CLEANED)
            files.write(f"{name}/{FORGOTTEN}", (note.model_dump_json(indent=2) + "\n").encode())
    # What says that the rest is there goes first: half of a folder is never taken for whole.
    first = ("manifest.json", "record.json", "spec.json")
    for one in sorted(names, key=lambda path: PurePosixPath(path).name not in first):
        files.remove(one)


def _thing(
    files: StorageFiles, kind: str, name: str, below: list[str], kept: str | None = None
) -> OldThing:
    return OldThing(
        kind=kind,
        name=name,
        files=len(below),
        bytes=sum(files.there[one].size for one in below),
        days=round((time.time() - _last(files, below)) / DAY, 1),
        kept=kept,
    )


def _last(files: StorageFiles, names: list[str]) -> float:
    return max((files.there[name].seconds for name in names), default=0)
