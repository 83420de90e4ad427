"""Other trainers on a real run: measured, reported, resumed; a sentence where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markupsafe import escape
from rich.console import Console
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config import load_spec
from orchestrator.records import TrialRecord
from orchestrator.report import write_report
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec
from orchestrator.summary import summarise
from orchestrator.sweep import run_sweep
from orchestrator.sweep_outcome import SweepOutcome
from orchestrator.trainers import (
    FILE,
    TrainedBy,
    read_trainers,
    still_to_train,
    trainer_key,
    worst_trainer,
)
from orchestrator.trainers_command import all_trainers, parse_trainers, run_trainers
from orchestrator.trainers_section import sentence
from tasks.errors import SpecError, StoreError
from tasks.pipelines.spec import JpegSpec, MixUpSpec
from tests.orchestrator.fake_run import fake_records, write_fake_run

QUIET = Console(quiet=True)
LISTED = ["exact-duplicates", "fine-tune"]


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, ray: None
) -> tuple[ExperimentSpec, SweepOutcome]:
    storage = json.dumps(str(tmp_path_factory.mktemp("trainers")))
    given = [f"storage={storage}", "tracking.enabled=false", "adaptive_attacks=[]"]
    given += ["attacks=[ppa]", f"hostile_trainers={json.dumps(LISTED)}", "sweep.trials=1"]
    spec = smoke(load_spec(None, given))
    return spec, run_sweep(spec, console=QUIET)


Swept = tuple[ExperimentSpec, SweepOutcome]


def test_the_listed_trainers_follow_the_sweep_and_are_in_the_report(swept: Swept) -> None:
    spec, outcome = swept
    run = Path(outcome.run_dir)
    found = read_trainers(run)
    assert [one.trainer for one in found] == LISTED
    assert {one.trial_id for one in found} == {summarise(spec, outcome.records, str(run)).focus}
    for one in found:
        assert one.error is None
        assert one.worst is not None
        assert one.worst.accuracy_at_1.n == 4
        assert one.clean_accuracy is not None
        assert one.clean_accuracy.overall.n == 8 * 4
    first = found[0].rows
    assert first["surrogate"] == (24, 24)
    assert sum(used for _, used in first.values()) <= sum(given for given, _ in first.values())
    page = Path(outcome.report).read_text()
    assert "In the hands of other trainers" in page
    said = sentence(found, outcome.records)
    assert said is not None
    assert str(escape(said)) in page


def test_the_command_measures_what_is_missing_and_the_control_where_asked(swept: Swept) -> None:
    run = Path(swept[1].run_dir)
    before = {one.key: one for one in read_trainers(run)}
    outcome = run_trainers(run, parse_trainers(["class-balance"]), QUIET, control=True)
    assert [(one.index, one.trainer) for one in outcome.measured] == [
        (0, "class-balance"),
        (1, "class-balance"),
        *((1, name) for name in LISTED),
    ]
    after = {one.key: one for one in outcome.measured}
    assert all(after[key] == one for key, one in before.items())
    again = run_trainers(run, parse_trainers(["class-balance"]), QUIET, control=True)
    assert again.measured == outcome.measured
    found = CliRunner().invoke(app, ["trainers", str(run), "--trainer", "fine-tune", "--json"])
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["measured"]) == 4


def test_a_trial_whose_files_were_cleaned_away_is_named_before_anything_starts(
    swept: Swept,
) -> None:
    run = Path(swept[1].run_dir)
    plan = next(run.glob(f"trials/{read_trainers(run)[-1].trial_id}/recipe.parquet"))
    kept = plan.rename(plan.with_suffix(".kept"))
    try:
        assert run_trainers(run, parse_trainers(["class-balance"]), QUIET).measured
        with pytest.raises(StoreError, match=r"trial 1 has no recipe\.parquet any more"):
            run_trainers(run, parse_trainers(["jpeg"]), QUIET)
    finally:
        kept.rename(plan)


def test_a_list_of_trainers_is_no_part_of_a_runs_identity() -> None:
    other = load_spec(None, ["hostile_trainers=[jpeg, {name: mixup, alpha: 1}]"])
    assert other.run_fingerprint == ExperimentSpec().run_fingerprint
    assert other.hostile_trainers == (JpegSpec(), MixUpSpec(alpha=1))


def test_without_a_defended_trial_nothing_is_given_away(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, fake_records()[:1], pictures=False)
    with pytest.raises(StoreError, match="holds no finished trial with a defence"):
        run_trainers(run, (), QUIET)
    with pytest.raises(StoreError, match="holds no finished trial with a defence"):
        run_trainers(run, (), QUIET, trial=1)
    (run / FILE).write_text("[{]")
    with pytest.raises(StoreError, match="delete it, and run `dcdctl trainers` again"):
        read_trainers(run)


def measured(record: TrialRecord, trainer: str, error: str | None = None) -> TrainedBy:
    spec = parse_trainers([trainer])[0]
    return TrainedBy(
        trial_id=record.trial_id,
        index=record.index,
        key=trainer_key(record.trial_id, spec),
        trainer=trainer,
        settings={},
        error=error,
        clean_accuracy=record.clean_accuracy,
        attacks=() if error else record.attacks,
        rows={"clean": (10, 9)},
    )


def test_the_worst_is_named_and_errors_are_tried_again_and_shown(tmp_path: Path) -> None:
    records, spec = fake_records(), ExperimentSpec()
    run = write_fake_run(tmp_path, records, pictures=False)
    focus = next(r for r in records if r.trial_id == summarise(spec, records, str(run)).focus)
    leaking = measured(focus, "mixup").model_copy(update={"attacks": records[1].attacks})
    broken = measured(focus, "fine-tune", "no <people>")
    found = [measured(focus, "jpeg"), leaking, broken]
    (run / FILE).write_text(json.dumps([one.model_dump(mode="json") for one in found]))
    assert worst_trainer(found, focus.index) == leaking
    assert worst_trainer(found, 0) is None
    said = sentence(found, records)
    assert said is not None
    assert said.startswith(
        f"Of 2 other trainers, trial {focus.index}'s data leak most under mixup: "
    )
    page = write_report(run).read_text()
    assert str(escape(said)) in page
    assert "not measured: no &lt;people&gt;" in page
    trainers = parse_trainers(["jpeg", "mixup", "fine-tune", "flip"])
    waiting = still_to_train(spec, records, run, trainers)
    assert [trainer.name for _, trainer in waiting] == ["fine-tune", "flip"]


def test_any_finished_trial_can_be_given_away_and_no_other(tmp_path: Path) -> None:
    spec, records = ExperimentSpec(), fake_records()
    run = write_fake_run(tmp_path, records, pictures=False)
    for trial in (1, 2):
        waiting = still_to_train(spec, records, run, parse_trainers(["flip"]), trial=trial)
        assert [record.index for record, _ in waiting] == [trial]
    failed = next(record.index for record in records if record.status == "failed")
    for trial in (failed, 99):
        with pytest.raises(SpecError, match=f"--trial {trial}: .* no finished trial"):
            run_trainers(run, (), QUIET, trial=trial)


def test_words_that_name_no_trainer_are_refused() -> None:
    assert len(all_trainers()) == 13
    assert parse_trainers(["{name: jpeg, quality: 30}"]) == (JpegSpec(quality=30),)
    with pytest.raises(SpecError, match="trainer 'mixap' is unknown; did you mean 'mixup'"):
        parse_trainers(["mixap"])
    with pytest.raises(SpecError, match=r"quality: Input should be less than or equal to 95"):
        parse_trainers(["{name: jpeg, quality: 300}"])
