"""Speeds that were measured: by a calibration on a device, or in trials that have ended.

A calibration is kept in the storage, one file a device, under the versions that it was made with.
Trials tell more than a calibration, since they ran in full, so where there are any they are taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store, records_of, write_atomic
from orchestrator.workload import (
    Setting,
    Unit,
    attack_images,
    attack_key,
    rest_key,
    settings_of,
    train_key,
)
from tasks.errors import DcdctlError
from tasks.spec import Spec, fingerprint
from tasks.workers import most_workers

FILE = "measured.json"

START = "start of a process"
"""Key of the seconds until a process on a slot works as fast as later."""

FIRST = "first steps of a process"
"""Key of that part of them in which it computes, and holds a device."""

RAY = "start of Ray"
"""Key of the seconds until Ray runs on this machine."""

Source = Literal["finished trials", "calibration"]


class Speed(Spec):
    """Seconds of one unit, measured several times."""

    stage: str
    unit: Unit
    seconds: tuple[float, ...] = Field(description="Of a unit on one device; one each time.")

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


class Calibration(Spec):
    """What one calibration measured."""

    version: Literal[1] = 1
    device: str
    unit: Literal["core", "GPU"]
    at_once: int = Field(description="Processes that were measured beside each other.")
    versions: dict[str, str]
    made: str = Field(description="When, in UTC.")
    took_s: float
    speeds: dict[str, Speed] = Field(description="By what they depend on.")


def versions() -> dict[str, str]:
    """Return the versions that a speed depends on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("dcdctl", "torch")}


def keep(store: Store, made: Calibration) -> Path:
    """Write a calibration; what an earlier one of the same device has beside it stays."""
    before = read(store, made.device)
    if before is not None:
        made = made.model_copy(update={"speeds": before.speeds | made.speeds})
    path = _folder(store, made.device) / FILE
    write_atomic(path, made.model_dump_json(indent=1) + "\n")
    return path


def read(store: Store, device: str) -> Calibration | None:
    """Return the calibration of a device; None where there is none of these versions."""
    path = _folder(store, device) / FILE
    try:
        found = Calibration.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None  # it is measured again at will
    return found if found.versions == versions() else None


def all_of(store: Store, unit: Literal["core", "GPU"]) -> list[Calibration]:
    """Return the calibrations in a storage of one kind of device, the newest first."""
    found = []
    for path in (store.root / "artifacts" / "calibration").glob(f"*/{FILE}"):
        try:
            one = Calibration.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        if one.unit == unit and one.versions == versions():
            found.append(one)
    return sorted(found, key=lambda one: one.made, reverse=True)


def _folder(store: Store, device: str) -> Path:
    return store.artifact("calibration", fingerprint([device]))


def finished_speeds(store: Store, device: str) -> dict[str, Speed]:
    """Return the speeds of all trials in a storage that ended well on a kind of device."""
    found: dict[str, list[tuple[str, Unit, float]]] = {}
    for path in sorted(store.root.glob("runs/*/spec.json")):
        try:
            spec = ExperimentSpec.model_validate_json(path.read_bytes())
            records = records_of(path.parent)
            settings = settings_of(spec)
        except (OSError, ValidationError, DcdctlError):
            continue  # another command says what is wrong with it
        for record in records:
            if record.status == "ok" and _same(record, device) and record.index < len(settings):
                for key, *sample in _samples(spec, record, settings[record.index]):
                    found.setdefault(key, []).append(tuple(sample))  # type: ignore[arg-type]
    return {
        key: Speed(stage=many[0][0], unit=many[0][1], seconds=tuple(s for *_, s in many))
        for key, many in found.items()
    }


def _same(record: TrialRecord, device: str) -> bool:
    return record.versions.get("device") == device and all(
        record.versions.get(name) == wanted for name, wanted in versions().items()
    )


def _samples(
    spec: ExperimentSpec, record: TrialRecord, setting: Setting
) -> Iterable[tuple[str, str, Unit, float]]:
    """Yield key, stage, unit and seconds of each piece of a trial."""
    cost, workers = record.cost_s, most_workers(spec.training.workers)
    if record.plan is not None and "train" in cost:
        rows = record.plan.rows * setting.training.passes
        yield train_key(spec, setting.training), "training", "row", cost["train"] * workers / rows
    for attack in spec.attacks:
        done = next((one for one in record.attacks if one.name == attack.label), None)
        if done is not None and attack.label in cost:
            images = attack_images(attack, len(done.per_target))
            key = attack_key(spec, attack, setting)
            yield key, f"attack {attack.label}", "image", cost[attack.label] / images
    rest = sum(cost.get(name, 0.0) for name in ("plan", "accuracy", "evaluate"))
    yield rest_key(spec, setting), "rest", "trial", rest


def speeds_for(
    store: Store, device: str, made: Calibration | None
) -> dict[str, tuple[Speed, Source]]:
    """Return every speed that is known of a device, with where it is from."""
    known: dict[str, tuple[Speed, Source]] = {}
    calibrated: Mapping[str, Speed] = made.speeds if made is not None else {}
    known |= {key: (speed, "calibration") for key, speed in calibrated.items()}
    known |= {k: (v, "finished trials") for k, v in finished_speeds(store, device).items()}
    return known
