"""A run folder as a sweep leaves it, with made-up results: nothing was trained or attacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.records import (
    Accuracy,
    AttackRecord,
    PlanSummary,
    Rate,
    SearchCurve,
    TargetScore,
    TrialRecord,
)
from orchestrator.spec import ExperimentSpec, GoalSpec, SweepSpec
from tasks.types import Image8

GOAL = GoalSpec(max_accuracy_drop=0.03, max_attack_accuracy=0.10)
"""Looser than the default one: the made-up trials are few, and some meet it."""

TARGETS, KEPT, SIZE = 8, 8, 32
ATTACKS = {"ppa": "white-box", "mirror-w": "white-box", "mirror-b": "scores"}

OUTCOMES = (
    # mislabel, curvature, target sigma, surrogate sigma, clean hits of 400, share of hits an attack
    (0.0, 0.0, 0.0, 0.0, 399, (0.86, 0.61, 0.72)),
    (0.14, 0.42, 0.012, 0.0020, 398, (0.27, 0.11, 0.20)),
    (0.21, 0.55, 0.031, 0.0031, 397, (0.09, 0.03, 0.06)),
    (0.33, 0.61, 0.022, 0.0044, 395, (0.03, 0.0, 0.02)),
    (0.48, 0.97, 0.090, 0.0170, None, ()),
    (0.41, 0.88, 0.047, 0.0012, 391, (0.02, 0.0, 0.0)),
    (0.29, 0.95, 0.064, 0.0098, 380, (0.06, 0.02, 0.03)),
)
"""Trial 0 is the control, trial 3 the one to recommend; trial 4 failed."""


def fake_records(trials: int = 6, targets: int = TARGETS) -> list[TrialRecord]:
    """Return a control and up to six DCD trials, the fourth of which failed."""
    return [fake_record(index, targets) for index in range(trials + 1)]


def fake_record(index: int, targets: int = TARGETS) -> TrialRecord:
    """Return one trial of `OUTCOMES`."""
    *levers, clean, shares = OUTCOMES[index]
    names = ("mislabel_fraction", "curvature_mislabel_fraction", "target_sigma", "surrogate_sigma")
    dcd = dict(zip(names, levers, strict=True)) | {
        "target_copies": 1,
        "surrogate_copies": 1,
        "surrogate_count": "match",
    }
    failed = clean is None
    protected = 80 - (400 - clean) // 2 if clean else 0
    return TrialRecord(
        trial_id=f"{index:02d}c0ffee{index:04d}",
        index=index,
        defense="dcd" if index else "none",
        status="failed" if failed else "ok",
        error="the loss of training is not finite in epoch 3; lower training.learning_rate"
        if failed
        else None,
        settings=dcd if index else {},
        seed=0,
        clean_accuracy=Accuracy(
            overall=Rate.of(clean, 400),
            targets=Rate.of(protected, 80),
            bystanders=Rate.of(clean - protected, 320),
        )
        if clean
        else None,
        train_loss=() if failed else tuple(round(2.9 * 0.8**epoch, 4) for epoch in range(20)),
        attacks=tuple(
            _attack(name, share, targets, defended=index > 0)
            for name, share in zip(ATTACKS, shares, strict=False)
        ),
        plan=PlanSummary(
            counts={"clean": 1280, "mislabelled": 64},
            rows=2560,
            inflation=4.0 if index else 1.0,
            fingerprint="abc",
        ),
        cost_s={"plan": 0.2, "train": 31.0 + index}
        | ({} if failed else {"ppa": 24.5, "mirror-w": 16.2, "mirror-b": 21.0, "evaluate": 1.4}),
        versions={"python": "3.11.9", "torch": "2.15.0"},
    )


def _attack(name: str, share: float, targets: int, defended: bool) -> AttackRecord:
    """Spread the hits over the targets, the first ones first."""
    n = targets * KEPT
    hits = round(share * n)
    own = [min(KEPT, max(0, hits - KEPT * i)) for i in range(targets)]
    lent = [round(0.88 * (KEPT - hit)) if defended else 0 for hit in own]
    scores = tuple(
        TargetScore(
            pseudonym=pseudonym(i),
            accuracy_at_1=Rate.of(own[i], KEPT),
            accuracy_at_5=Rate.of(min(KEPT, own[i] + 1), KEPT),
            surrogate_rate=Rate.of(lent[i], KEPT),
        )
        for i in range(targets)
    )
    return AttackRecord(
        name=name,
        access=ATTACKS[name],
        accuracy_at_1=Rate.of(hits, n),
        accuracy_at_5=Rate.of(sum(s.accuracy_at_5.successes for s in scores), n),
        surrogate_rate=Rate.of(sum(lent), n),
        per_target=scores,
        settings={"pool": 4000, "steps": 60, "learning_rate": 0.05},
        queries=61_920,
        curve=SearchCurve.of([3.1 * 0.93**step + share for step in range(60)]),
    )


def pseudonym(target: int) -> str:
    return f"id-{0x3FA1 + 0x1D07 * target:08x}"


def fake_spec(storage: Path) -> ExperimentSpec:
    """Return the experiment of a made-up run."""
    return ExperimentSpec(storage=str(storage), sweep=SweepSpec(goal=GOAL))


def write_fake_run(
    storage: Path,
    records: Sequence[TrialRecord] | None = None,
    spec: ExperimentSpec | None = None,
    pictures: bool = True,
) -> Path:
    """Write a run's folder and return it."""
    spec = spec or fake_spec(storage)
    run = storage / "runs" / spec.run_fingerprint
    run.mkdir(parents=True, exist_ok=True)
    (run / "spec.json").write_text(spec.model_dump_json())
    accuracy = Rate.of(398, 400).model_dump()
    (run / "evaluation.json").write_text(
        f'{{"accuracy": {str(accuracy).replace(chr(39), chr(34))}, "architecture": "small-vgg"}}'
    )
    if pictures:
        np.savez(
            run / "examples.npz",
            target=np.stack([_face(i) for i in range(TARGETS)]),
            surrogate=np.stack([_face(100 + i) for i in range(TARGETS)]),
            pseudonym=np.array([pseudonym(i) for i in range(TARGETS)]),
        )
    for record in fake_records() if records is None else records:
        write_fake_trial(run, record, pictures)
    return run


def write_fake_trial(run: Path, record: TrialRecord, pictures: bool = True) -> None:
    """Write one trial's folder, its record last."""
    folder = run / "trials" / record.trial_id
    folder.mkdir(parents=True, exist_ok=True)
    plan = pa.table({"row_id": [0, 1], "label": [3, 3], "role": ["clean", "mislabelled"]})
    pq.write_table(plan, folder / "recipe.parquet")
    if pictures and record.attacks:
        np.savez(folder / "reconstructions.npz", **_reconstructions(record))  # type: ignore[arg-type]
    (folder / "record.json").write_text(record.model_dump_json())


def _reconstructions(record: TrialRecord) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for attack in record.attacks:
        verdict = np.zeros((TARGETS, KEPT), np.int8)
        images = np.zeros((TARGETS, KEPT, SIZE, SIZE, 3), np.uint8)
        for i, score in enumerate(attack.per_target[:TARGETS]):
            own = score.accuracy_at_1.successes
            verdict[i, :own] = 1
            verdict[i, own : own + score.surrogate_rate.successes] = 2
            for j in range(KEPT):
                who = (200 + 17 * i + j, i, 100 + i)[verdict[i, j]]
                images[i, j] = _face(who, blur=0.35)
        arrays |= {attack.name: images, f"{attack.name}/verdict": verdict}
    return arrays


def _face(person: int, blur: float = 0.0) -> Image8:
    """Draw something with a head, hair and eyes, in colours that belong to `person`."""
    rng = np.random.default_rng(person)
    skin, hair, back = rng.uniform(90, 240, 3), rng.uniform(10, 140, 3), rng.uniform(120, 230, 3)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    width = rng.uniform(0.5, 0.7)
    layers = [
        ((x / (width + 0.1)) ** 2 + ((y + 0.1) / 0.95) ** 2 < 1, hair),
        ((x / width) ** 2 + ((y - 0.12) / 0.72) ** 2 < 1, skin),
        ((np.abs(x) - 0.25) ** 2 + y**2 < 0.012, np.full(3, 25.0)),
        ((x / 0.2) ** 2 + ((y - 0.5) / 0.05) ** 2 < 1, np.array([150.0, 40, 50])),
    ]
    picture = np.broadcast_to(back, (SIZE, SIZE, 3)).copy()
    for mask, colour in layers:
        picture[mask] = colour
    picture = (1 - blur) * picture + blur * picture.mean() + rng.normal(0, 5, picture.shape)
    face: Image8 = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return face
