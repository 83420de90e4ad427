"""What is said of the attacker who knows of DCD, and which trials he is set on."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.adaptive import (
    AdaptiveTrial,
    _key,
    sentence,
    still_to_measure,
    subjects,
    targets_hit,
)
from orchestrator.config import load_spec
from orchestrator.records import TrialRecord
from orchestrator.spec import ExperimentSpec, SweepSpec
from orchestrator.summary import summarise
from tests.orchestrator.fake_run import GOAL, fake_records

SPEC = ExperimentSpec(sweep=SweepSpec(goal=GOAL))


def measured(record: TrialRecord, order: int = 1) -> AdaptiveTrial:
    """Return a trial whose adaptive attacks reached what its plain ones did."""
    return AdaptiveTrial(
        trial_id=record.trial_id,
        index=record.index,
        key="k",
        attacks=record.attacks[::order],
        failed={},
    )


def test_the_control_and_the_trial_of_the_report_are_attacked() -> None:
    records = fake_records()
    found = summarise(SPEC, records, "runs/r")
    chosen = subjects(SPEC, records[::-1], Path("runs/r"))
    assert [r.trial_id for r in chosen] == [found.control, found.recommended]


def test_without_a_set_of_attacks_nobody_is() -> None:
    spec = load_spec(None, ["adaptive_attacks=[]"])
    assert subjects(spec, fake_records(), Path("runs/r")) == []


def test_what_is_kept_is_not_measured_again_unless_the_set_changes(tmp_path: Path) -> None:
    records = fake_records()
    waiting = still_to_measure(SPEC, records, tmp_path)
    focus = summarise(SPEC, records, str(tmp_path)).recommended
    assert [r.trial_id for r in waiting] == [records[0].trial_id, focus]
    kept = [
        measured(r).model_copy(update={"key": _key(SPEC, r)}).model_dump(mode="json")
        for r in waiting
    ]
    (tmp_path / "adaptive.json").write_text(json.dumps(kept))
    assert still_to_measure(SPEC, records, tmp_path) == []
    fewer = load_spec(None, ["adaptive_attacks=[adaptive-sharp]"])
    assert still_to_measure(fewer, records, tmp_path) == waiting


def test_the_sentence_names_the_best_strategy_and_what_stands_beside_it() -> None:
    records = fake_records()
    trials = [measured(records[0]), measured(records[3])]
    said = sentence(trials, records)
    assert said is not None
    worst = records[3].worst_attack
    assert worst is not None
    assert f"by the best of 3 strategies (ppa), reaches {100 * worst.value:.1f} % [" in said
    assert "on trial 3 (the best plain attack" in said
    assert said.endswith("without a defence the best strategy reaches 85.9 %).")


def test_without_a_defended_trial_there_is_no_sentence() -> None:
    records = fake_records()
    assert sentence([], records) is None
    assert sentence([measured(records[0])], records) is None


def test_targets_count_once_however_often_they_are_hit() -> None:
    record = fake_records()[0]
    hit = targets_hit(record.attacks)
    assert hit is not None
    assert hit == targets_hit((*record.attacks, *record.attacks))
    assert hit.n == 8
    one = targets_hit(record.attacks[:1])
    assert one is not None
    assert 0 < one.successes <= hit.successes
    assert targets_hit(()) is None


def test_the_best_is_the_first_of_equals() -> None:
    trial = measured(fake_records()[6])
    assert trial.best is not None
    assert trial.best.name == "ppa"
    assert measured(fake_records()[6]).model_copy(update={"attacks": ()}).best is None
