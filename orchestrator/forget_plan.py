"""Where a storage holds one person, and what is to be done about each file.

What was computed from pictures and cannot be taken apart (decoded images under a key that says
which, classifiers and generators that learnt from the person, what attacks drew from these) goes
whole; it is made anew from data without the person when it is needed. What is a list of single
things (records, settings, audits) loses the person's rows and their name, and stays.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from orchestrator.forget_edits import names_people, without_person
from orchestrator.forgotten import DRAWN, FORGOTTEN, LEARNT
from orchestrator.provenance import NEEDS, PEOPLE, decode, encode, person_code, read_needs
from orchestrator.receipt import RECEIPTS
from orchestrator.storage_files import StorageFiles

KEPT_OF_A_RUN = frozenset(
    {"spec.json", "evaluation.json", "adaptive.json", "trainers.json", "events.jsonl"}
    | {"spend.json", "budget.json", PEOPLE, NEEDS, FORGOTTEN}
)
"""Lists, counts and settings; with the records all that stays of a run that learnt a person."""

PICTURES = ("reconstructions.npz", "examples.npz", "report.html", "report.png", "landscape.png")


@dataclass(frozen=True)
class Person:
    """Who is to be forgotten.

    Attributes:
        name: in the data set.
        pseudonym: in the storage.
        code: the number that `people.npy` has for them.
    """

    name: str
    pseudonym: str
    code: int

    @property
    def marker(self) -> str:
        """What stands in place of the name."""
        return f"forgotten-{self.pseudonym.removeprefix('id-')}"


@dataclass
class Plan:
    """What is to be done.

    Attributes:
        remove: files to remove, and why.
        edit: files to replace, and their new content.
        runs: touched runs, and what they lost.
        not_reached: what cannot be removed from here, a sentence each.
        said: how many artefacts, runs and so on are touched, for people.
    """

    remove: dict[str, str] = field(default_factory=dict)
    edit: dict[str, bytes] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    not_reached: list[str] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether the storage holds the person at all."""
        return bool(self.remove or self.edit)


def plan_forgetting(files: StorageFiles, person: Person) -> Plan:
    """Return what has to go; nothing is changed."""
    plan = Plan()
    held, unknown = _artefacts(files, person)
    touched = {folder: _touched(files, folder, person, held) for folder in files.folders("runs")}
    texts = dict(_texts(files, person))
    if not (held or any(touched.values()) or texts):
        return plan
    for folder in held:
        _take(plan, files.below(folder), "made from pictures of the person")
    for folder in unknown:
        _take(plan, files.below(folder), "nothing says who is in it; it is made anew")
    for folder, lost in touched.items():
        if lost is not None:
            plan.runs[folder] = lost
            _take_from_run(plan, files, folder, lost)
    _take_views(plan, files)
    _edit_texts(plan, files, texts)
    _edit_people(plan, files, person)
    plan.not_reached += _not_reached(files, person, plan)
    return plan


def _take(plan: Plan, names: list[str], why: str) -> None:
    for name in names:
        plan.remove.setdefault(name, why)


def _artefacts(files: StorageFiles, person: Person) -> tuple[list[str], list[str]]:
    """Return the artefacts that hold a person, and those of which nobody knows whom they hold."""
    held, unknown = [], []
    for stage in files.folders("artifacts"):
        for folder in files.folders(stage):
            there = _holds(files, folder, person)
            if there:
                held.append(folder)
            elif there is None:
                unknown.append(folder)
    return held, unknown


def _holds(files: StorageFiles, folder: str, person: Person) -> bool | None:
    """Say whether pictures of a person went into an artefact; None where nothing says so."""
    for table in ("rows.parquet", "listing.parquet"):
        if f"{folder}/{table}" in files.there:
            return _lists(files.read(f"{folder}/{table}"), person.name) or _lists(
                files.read(f"{folder}/quarantine.parquet"), person.name
            )
    codes = _codes(files, folder)
    return None if codes is None else bool(np.isin(np.uint64(person.code), codes))


def _codes(files: StorageFiles, folder: str) -> Any:
    data = files.read(f"{folder}/{PEOPLE}") if f"{folder}/{PEOPLE}" in files.there else None
    return None if data is None else decode(data)


def _lists(data: bytes | None, name: str) -> bool:
    """Say whether a table has rows of a person; one that cannot be read may have."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if data is None:
        return False
    try:
        table = pq.read_table(io.BytesIO(data), columns=["identity"], partitioning=None)
    except (pa.ArrowException, OSError):
        return True
    return bool(pc.any(pc.equal(table["identity"], name)).as_py())


def _touched(files: StorageFiles, run: str, person: Person, held: list[str]) -> str | None:
    """Say what of a run holds a person: its classifiers, or only what attacks drew; None: nothing.

    The public's pictures teach generators alone; private and lent ones teach classifiers.
    """
    spec = _json(files, f"{run}/spec.json")
    if not isinstance(spec, dict) or _part(spec, "data").get("kind") == "builtin":
        return None
    codes, needs = _codes(files, run), read_needs(files.read(f"{run}/{NEEDS}"))
    if codes is not None and np.isin(np.uint64(person.code), codes):
        return LEARNT
    if codes is None and _may_have_learnt(files, run, spec, person, held):
        return LEARNT
    taught = [f"artifacts/{need}" for need in needs or () if not need.startswith("images/")]
    if any(folder in held for folder in taught if _is_taught(folder)):
        return DRAWN
    if needs is None and any(_is_taught(folder) for folder in held):
        return DRAWN
    return None


def _is_taught(folder: str) -> bool:
    return PurePosixPath(folder).parts[1] in ("prior", "prior-unfinished", "reader", "pretrained")


def _may_have_learnt(
    files: StorageFiles, run: str, spec: dict[str, Any], person: Person, held: list[str]
) -> bool:
    """Say whether a run that does not say whom it learnt may have learnt a person."""
    if not any(name.startswith(f"{run}/trials/") for name in files.there):
        return False
    data = _part(spec, "data")
    groups = [data.get("private"), data.get("surrogates")]
    if all(isinstance(group, list) for group in groups):
        return any(person.name in group for group in groups if group)
    return any(folder.startswith("artifacts/images/") for folder in held)


def _texts(files: StorageFiles, person: Person) -> Iterator[tuple[str, bytes]]:
    """Yield the texts that say something of a person: name, and content without them."""
    for name in files.there:
        path = PurePosixPath(name)
        if path.suffix not in (".json", ".jsonl") or path.parts[0] == RECEIPTS:
            continue
        if path.name.startswith(".") or path.parts[0] == "mlartifacts":
            continue
        data = files.read(name)
        if data is None or not names_people(data, (person.name, person.pseudonym)):
            continue
        less = without_person(data, person.name, person.marker, (person.pseudonym,))
        if path.name == "identities.json":
            less = _without_entry(less, person)
        if less != data:
            yield name, less


def _without_entry(data: bytes, person: Person) -> bytes:
    try:
        listed = json.loads(data)
    except ValueError:
        return data
    if not isinstance(listed, dict):
        return data
    kept = {k: v for k, v in listed.items() if k != person.pseudonym}
    return (json.dumps(kept, indent=2) + "\n").encode()


def _take_from_run(plan: Plan, files: StorageFiles, run: str, lost: str) -> None:
    for name in files.below(run):
        inside = name.removeprefix(f"{run}/")
        if lost == LEARNT:
            keep = inside in KEPT_OF_A_RUN or inside.endswith("/record.json")
        else:
            keep = PurePosixPath(inside).name not in PICTURES and not inside.startswith("figures/")
        if not keep:
            plan.remove.setdefault(name, f"a run's {lost}")


def _take_views(plan: Plan, files: StorageFiles) -> None:
    """Remove the reports and tables that touched runs are in: they are written anew at will."""
    names = {PurePosixPath(run).name for run in plan.runs}
    for parent, table in (("reports", "report.json"), ("comparisons", "table.json")):
        for folder in files.folders(parent):
            found = _json(files, f"{folder}/{table}")
            said = set(found.get("runs") or ()) if isinstance(found, dict) else names
            if names & said:
                _take(plan, files.below(folder), "made of runs that held the person")


def _edit_texts(plan: Plan, files: StorageFiles, texts: dict[str, bytes]) -> None:
    for name, less in texts.items():
        if name in plan.remove:
            continue
        plan.edit[name] = less
        folder = PurePosixPath(name).parent
        if name.startswith("audits/"):
            # One array holds everybody's pictures, and the model that they are from knows them all.
            root = folder if PurePosixPath(name).name == "audit.json" else folder.parent
            pictures = f"{root}/reconstructions.npz"
            if pictures in files.there:
                plan.remove[pictures] = "an audit's reconstructions"


def _edit_people(plan: Plan, files: StorageFiles, person: Person) -> None:
    for name in files.there:
        if PurePosixPath(name).name != PEOPLE or name in plan.remove:
            continue
        codes = decode(files.read(name) or b"")
        if codes is not None and np.isin(np.uint64(person.code), codes):
            plan.edit[name] = encode(codes[codes != np.uint64(person.code)])


def _not_reached(files: StorageFiles, person: Person, plan: Plan) -> list[str]:
    """Return what may hold the person outside the storage; names stay out of the sentences."""
    said = [
        "the data set itself, and copies of it: remove the person's pictures there, else the next "
        "run is refused",
        "whatever was copied out of the storage: reports, checkpoints and data sets that were "
        "handed over, and backups",
    ]
    if files.store.remote is not None:
        said += [
            "copies of this storage on other machines (`~/.cache/dcdctl/storages`): remove them",
            "earlier versions of the objects, if the bucket keeps versions",
        ]
    for run in sorted(plan.runs):
        spec = _json(files, f"{run}/spec.json")
        spec = spec if isinstance(spec, dict) else {}
        uri = _part(spec, "tracking").get("uri")
        if uri and _part(spec, "tracking").get("enabled", True):
            from orchestrator.tracking import without_password

            said.append(
                f"MLflow at {_nameless(without_password(str(uri)), person)}: delete there the runs "
                f"with the tag dcdctl.run = '{PurePosixPath(run).name}', and have it collect what "
                "is deleted (`mlflow gc`)"
            )
        for key in ("surrogate_list", "embedding"):
            if _part(spec, "protect").get(key) not in (None, "pixels"):
                said.append(f"the file of protect.{key}: take the person's line out")
        if urlsplit(str(_part(spec, "prior").get("source"))).path.endswith(".safetensors"):
            said.append("the file of prior.source: if it was made from the person's pictures")
    for name in sorted(files.below("jobs")):
        job = _json(files, name)
        if isinstance(job, dict) and name in plan.edit:
            said.append(
                f"the cluster {_nameless(str(job.get('where')), person)}, which ran job "
                f"{PurePosixPath(name).stem}: its own storage and logs"
            )
    for name in sorted(files.below("outputs")):
        found = _json(files, name)
        if isinstance(found, dict) and found.get("path"):
            said.append(
                f"what `dcdctl {found.get('command')}` wrote to "
                f"{_nameless(str(found['path']), person)}: remove it if the person is in it"
            )
    return list(dict.fromkeys(said))


def _nameless(text: str, person: Person) -> str:
    return text.replace(person.name, person.marker)


def _json(files: StorageFiles, name: str) -> Any:
    data = files.read(name) if name in files.there else None
    try:
        return None if data is None else json.loads(data)
    except ValueError:
        return None


def _part(spec: dict[str, Any], name: str) -> dict[str, Any]:
    found = spec.get(name)
    return found if isinstance(found, dict) else {}


def person_of(name: str, pseudonym: str, key: bytes) -> Person:
    """Return a person of a storage."""
    return Person(name, pseudonym, person_code(key, name))
