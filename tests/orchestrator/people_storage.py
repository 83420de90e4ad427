"""A storage with real-looking people in it, as a sweep on a folder leaves it; nothing was run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.forget import note_output
from orchestrator.provenance import NEEDS, note_people
from orchestrator.records import TrialRecord
from orchestrator.report import write_report
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from tasks.types import ROW_SCHEMA
from tests.orchestrator.fake_run import KEPT, SIZE, TARGETS, fake_records, write_fake_run

PRIVATE = [f"Ottilie Pellworm {i}" for i in range(TARGETS)]
LENT = [f"Benedikt Schnurr {i}" for i in range(TARGETS)]
PUBLIC = ["Quirin Adelgais", "Roswitha Emberg"]


def rows_of(names: list[str], split: str) -> pa.Table:
    columns = [
        list(range(len(names))),
        names,
        list(range(len(names))) if split == "train" else [-1] * len(names),
        [split] * len(names),
        [f"file:///photos/{name.replace(' ', '%20')}/0.png" for name in names],
        [[] for _ in names],
    ]
    arrays = [pa.array(c, type=f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)


def experiment(root: Path) -> ExperimentSpec:
    return ExperimentSpec.model_validate(
        {
            "storage": str(root),
            "data": {
                "kind": "folder",
                "root": "/photos",
                "private": PRIVATE,
                "surrogates": LENT,
                "public": PUBLIC,
            },
            "protect": {"targets": PRIVATE, "surrogates": dict(zip(PRIVATE, LENT, strict=True))},
        }
    )


def write_people(root: Path) -> Path:
    """Write artefacts, a run, a job, an audit and a comparison; return the run's folder."""
    store, spec = Store(str(root)), experiment(root)
    parts = {"private": rows_of(PRIVATE, "train"), "lent": rows_of(LENT, "surrogate")}
    for name, rows in (parts | {"public": rows_of(PUBLIC, "public")}).items():
        _artefact(store, f"images/{name}-1", rows, None)
    everybody = pa.concat_tables([*parts.values(), rows_of(PUBLIC, "public")])
    _artefact(store, "listing/1", everybody, None, "listing.parquet")
    world = pa.concat_tables(list(parts.values()))
    _artefact(store, "evaluator/1", None, world)
    _artefact(store, "prior/1", None, rows_of(PUBLIC, "public"))
    _artefact(store, "evaluator/2", None, rows_of(["Somebody Else"], "train"))
    names = {str(name): store.pseudonym(name) for name in PRIVATE}
    records = [_under(record, list(names.values())) for record in fake_records()]
    run = write_fake_run(root, records, spec)
    with np.load(run / "examples.npz") as examples:
        pictures = {key: examples[key] for key in ("target", "surrogate")}
    np.savez(run / "examples.npz", pseudonym=np.array([*names.values()]), **pictures)
    note_people(run, store, world)
    needs = ["evaluator/1", "images/lent-1", "images/private-1", "images/public-1", "prior/1"]
    (run / NEEDS).write_text(json.dumps(needs))
    for record in records:
        _weights(run / "trials" / record.trial_id / "checkpoint", record.index)
    line = {"event": "line", "at": 1.0, "text": f"class {PRIVATE[0]} is small"}
    (run / "events.jsonl").write_text(json.dumps(line) + "\n")
    write_report(run)
    job = {"job_id": "dcdctl-1", "where": "onprem.yaml", "command": "sweep"}
    _json(root / "jobs" / "dcdctl-1.json", job | {"specs": [spec.model_dump(mode="json")]})
    _json(root / "comparisons" / "1" / "table.json", {"runs": [run.name], "rows": []})
    audit = root / "audits" / "1"
    rows_said = [{"pseudonym": p, "verdict": "undecided"} for p in names.values()]
    _json(audit / "audit.json", {"format": "dcdctl-audit/1", "identities": rows_said})
    who = {p: {"class": i, "name": n} for i, (n, p) in enumerate(names.items())}
    _json(audit / "private" / "identities.json", who)
    np.savez(audit / "reconstructions.npz", pseudonym=np.array([*names.values()]))
    note_output(store, "folder", "train", root.parent / "handed-out")
    return run


def _under(record: TrialRecord, pseudonyms: list[str]) -> TrialRecord:
    text = record.model_dump_json()
    for i, new in enumerate(pseudonyms):
        text = text.replace(f"id-{0x3FA1 + 0x1D07 * i:08x}", new)
    return TrialRecord.model_validate_json(text)


def _artefact(
    store: Store,
    name: str,
    rows: pa.Table | None,
    people: pa.Table | None,
    table: str = "rows.parquet",
) -> None:
    folder = store.artifact(*name.split("/"))
    folder.mkdir(parents=True)
    if rows is not None:
        pq.write_table(rows, folder / table)
        pixels = np.random.default_rng(list(name.encode())).integers(
            0, 255, (rows.num_rows, SIZE, SIZE)
        )
        np.save(folder / "images.npy", pixels)
    if people is not None:
        note_people(folder, store, people)
        _weights(folder, people.num_rows + KEPT)
    _json(folder / "manifest.json", {"rows": 1})


def _weights(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).bytes(4000)
    (folder / "model.safetensors").write_bytes(data)
    _json(folder / "meta.json", {"seed": seed})


def _json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
