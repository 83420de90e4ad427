"""`dcdctl forget`: remove what a storage holds of one person, and write a receipt of it."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path, PurePosixPath

from pydantic import Field
from rich.console import Console

from orchestrator.forget_plan import (
    Person,
    Plan,
    person_of,
    plan_forgetting,
)
from orchestrator.forget_search import StillThere, search_for
from orchestrator.forgotten import FORGOTTEN, Forgotten
from orchestrator.receipt import (
    RECEIPTS,
    EditedFile,
    Receipt,
    RemovedFile,
    proof_of,
)
from orchestrator.storage_files import StorageFiles, open_existing
from orchestrator.store import Store, write_atomic
from tasks.errors import StillThereError, StoreError
from tasks.spec import Spec


class ForgetOutcome(Spec):
    """What was removed, or would be."""

    done: bool = Field(description="false: nothing was changed; --yes does it.")
    pseudonym: str
    removed: dict[str, int] = Field(description="Files, by why they go.")
    bytes: int = Field(description="Of the removed files.")
    edited: int
    runs: dict[str, str] = Field(description="Touched runs, and what they lose.")
    mlflow_runs: int
    not_reached: tuple[str, ...]
    receipt: str | None
    still_there: tuple[StillThere, ...] = Field(
        (), description="What a search found afterwards; it should be nothing."
    )

    def render(self, console: Console) -> None:
        """Print it for people."""
        would = "" if self.done else "would be "
        if not (self.removed or self.edited):
            lines = ["the storage holds nothing under this name"]
        else:
            files = sum(self.removed.values())
            lines = [
                f"{files} files ({self.bytes / 1e6:.1f} MB) {would}removed, {self.edited} "
                f"{would}edited; in records the person was {self.pseudonym}"
            ]
            lines += [f"  {count:>6} {why}" for why, count in self.removed.items()]
            lines += [f"  run {run}: loses its {lost}" for run, lost in self.runs.items()]
            if self.mlflow_runs:
                lines.append(f"  {self.mlflow_runs} runs {would}removed from MLflow's database")
        if self.not_reached:
            lines += ["not reached from here:"] + [f"  - {one}" for one in self.not_reached]
        if self.receipt is not None:
            lines.append(f"receipt: {self.receipt}")
        lines += [f"still there: {one.where}: {one.what}" for one in self.still_there]
        if self.done and not self.still_there:
            lines.append("a search of the whole storage found nothing more")
        if not self.done and (self.removed or self.edited):
            lines.append("nothing was changed; add --yes to do it")
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    def require_nothing(self) -> None:
        """Fail where a search found something after all was removed.

        Raises:
            StillThereError: says where first.
        """
        if self.still_there:
            first = self.still_there[0]
            raise StillThereError(
                f"{len(self.still_there)} places still hold something of the person, first "
                f"{first.where} ({first.what}); the receipt has what was removed"
            )


def forget(
    storage: str, name: str, *, yes: bool = False, receipt: Path | None = None
) -> ForgetOutcome:
    """Remove what a storage holds of one person.

    Args:
        storage: folder or URI.
        name: of the person in the data set.
        yes: do it; else nothing is changed, and what would be done is returned.
        receipt: where the receipt is written too.

    Raises:
        StorageLockedError: a run is going on in the storage.
        StoreError: something cannot be read or removed.
    """
    if not name.strip():
        raise StoreError("no name was given; `dcdctl forget -` reads one from standard input")
    store = open_existing(storage)
    if not yes:
        files = StorageFiles(store)
        person = person_of(name, store.pseudonym(name), store.key())
        return _outcome(plan_forgetting(files, person), files, person)
    with store.locked():
        files = StorageFiles(store)
        person = person_of(name, store.pseudonym(name), store.key())
        plan = plan_forgetting(files, person)
        outcome = _outcome(plan, files, person)
        done = _carry_out(plan, files, person)
        if receipt is not None:
            receipt.parent.mkdir(parents=True, exist_ok=True)
            receipt.write_bytes(done.text())
        files.again()
        still = search_for(files, done, name)
    return outcome.model_copy(
        update={
            "done": True,
            "mlflow_runs": done.mlflow_runs,
            "receipt": str(receipt or store.root / RECEIPTS / f"{done.id}.json"),
            "still_there": tuple(still),
        }
    )


def _outcome(plan: Plan, files: StorageFiles, person: Person) -> ForgetOutcome:
    from orchestrator.mlflow_removal import shown_runs

    runs = {PurePosixPath(run).name: lost for run, lost in sorted(plan.runs.items())}
    return ForgetOutcome(
        done=False,
        pseudonym=person.pseudonym,
        removed=dict(Counter(plan.remove.values()).most_common()),
        bytes=sum(files.there[name].size for name in plan.remove if name in files.there),
        edited=len(plan.edit),
        runs=runs,
        mlflow_runs=len(shown_runs(files.root, runs)),
        not_reached=tuple(plan.not_reached),
        receipt=None,
    )


def _carry_out(plan: Plan, files: StorageFiles, person: Person) -> Receipt:
    """Write what will be done, do it, and write that it is done."""
    from orchestrator.mlflow_removal import remove_runs

    stamp = time.gmtime()
    first = Receipt(
        id=f"forget-{time.strftime('%Y%m%d-%H%M%S', stamp)}-{secrets.token_hex(3)}",
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", stamp),
        storage=files.store.place.replace(person.name, person.marker),
        complete=False,
        person=proof_of(person.name, person.pseudonym, person.code),
        removed=tuple(
            RemovedFile(path=name, sha256=files.digest(name), bytes=files.there[name].size, why=why)
            for name, why in sorted(plan.remove.items())
            if name in files.there
        ),
        edited=tuple(
            EditedFile(
                path=name,
                sha256_before=files.digest(name),
                sha256_after=hashlib.sha256(less).hexdigest(),
            )
            for name, less in sorted(plan.edit.items())
        ),
        not_reached=tuple(plan.not_reached),
        dcdctl=version("dcdctl"),
    )
    place = f"{RECEIPTS}/{first.id}.json"
    files.write(place, first.text())
    for run, lost in plan.runs.items():  # before anything is missing
        note = Forgotten(at=first.at, receipt=first.id, lost=lost)
        files.write(f"{run}/{FORGOTTEN}", (note.model_dump_json(indent=2) + "\n").encode())
    # Manifests last: without one, what is left of an artefact is not taken for whole.
    for name in sorted(plan.remove, key=lambda name: name.endswith("manifest.json")):
        files.remove(name)
    for name, less in plan.edit.items():
        files.write(name, less)
    shown = remove_runs(files.root, [PurePosixPath(run).name for run in plan.runs])
    anew = [report for run in plan.runs if (report := _report(files, run))]
    last = first.model_copy(
        update={"complete": True, "mlflow_runs": shown, "made_anew": tuple(anew)}
    )
    files.write(place, last.text())
    return last


def _report(files: StorageFiles, run: str) -> str | None:
    """Write a run's report from what is left; None where nothing can be reported."""
    from orchestrator.report import write_report
    from tasks.errors import DcdctlError

    folder = files.store.run(PurePosixPath(run).name)
    if not any(folder.glob("trials/*/record.json")):
        return None
    try:
        return write_report(folder).relative_to(files.root).as_posix()
    except DcdctlError:
        return None


def note_output(store: Store, data: str, command: str, out: Path) -> None:
    """Remember that a command wrote something outside of the storage, for `forget` to name it.

    Args:
        store: the storage.
        data: kind of the experiment's data; drawn people are nobody.
        command: what wrote it.
        out: the place.
    """
    if data == "builtin":
        return
    place = str(out.absolute())
    key = hashlib.sha256(place.encode()).hexdigest()[:16]
    said = {"command": command, "path": place, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ")}
    write_atomic(store.root / "outputs" / f"{key}.json", json.dumps(said, indent=2) + "\n")
