"""The whole path, tiny and real: data, plan, Ray Tune, attacks, judge, MLflow, report."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from orchestrator.adaptive import read_adaptive
from orchestrator.config import load_spec
from orchestrator.landscape import Landscape, landscape
from orchestrator.ledger import read_spend
from orchestrator.records import TrialRecord
from orchestrator.report import write_report
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec
from orchestrator.spending import run_spent
from orchestrator.store import records_of
from orchestrator.summary import summarise
from orchestrator.sweep import run_sweep
from orchestrator.sweep_outcome import SweepOutcome
from tasks.errors import BudgetReachedError, FailedTrialsError, StoreError, UnfinishedRunError

QUIET = Console(quiet=True)

pytestmark = pytest.mark.usefixtures("ray")


def spec_in(storage: Path, *overrides: str, adaptive: bool = False) -> ExperimentSpec:
    given = [f"storage={json.dumps(str(storage))}", "tracking.enabled=false"]
    if not adaptive:
        given.append("adaptive_attacks=[]")
    return load_spec_again(smoke(load_spec(None, given)), overrides)


def load_spec_again(spec: ExperimentSpec, overrides: tuple[str, ...]) -> ExperimentSpec:
    values = spec.model_dump()
    for override in overrides:
        path, value = override.split("=", 1)
        *parents, key = path.split(".")
        place = values
        for name in parents:
            place = place[name]
        place[key] = json.loads(value)
    return ExperimentSpec.model_validate(values)


def hashes(records: tuple[TrialRecord, ...] | list[TrialRecord]) -> list[str]:
    return [record.results_hash() for record in records]


def publishers() -> dict[str, str]:
    """Return the state of every actor that writes results, by its id."""
    from ray._private.state import actors

    return {n: a["State"] for n, a in actors().items() if a["ActorClassName"] == "Publisher"}


@pytest.fixture(scope="module")
def others(ray: None) -> set[str]:
    """Actors that other tests have left in the same Ray."""
    return set(publishers())


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, others: set[str]
) -> tuple[ExperimentSpec, SweepOutcome]:
    spec = spec_in(tmp_path_factory.mktemp("sweep"), "tracking.enabled=true", adaptive=True)
    return spec, run_sweep(spec, console=QUIET)


Swept = tuple[ExperimentSpec, SweepOutcome]


def test_a_sweep_leaves_a_control_and_trials_with_all_their_numbers(swept: Swept) -> None:
    spec, outcome = swept
    assert [r.index for r in outcome.records] == [0, 1, 2]
    assert [r.defense for r in outcome.records] == ["none", "dcd", "dcd"]
    for record in outcome.records:
        assert record.status == "ok"
        assert [a.name for a in record.attacks] == [a.name for a in spec.attacks]
        assert all(a.accuracy_at_1.n == 4 for a in record.attacks)  # two targets, two kept
        assert all(a.queries > 0 for a in record.attacks)
        assert record.clean_accuracy is not None
        assert record.clean_accuracy.overall.n == 8 * 4
        assert record.plan is not None
        assert len(record.train_loss) == spec.training.epochs
    control, first = outcome.records[:2]
    assert control.plan is not None
    assert first.plan is not None
    assert control.plan.counts["clean"] == control.plan.rows == 8 * 12
    assert first.plan.inflation == 4.0
    assert first.settings["mislabel_fraction"] == 0.2


def test_an_attacker_who_knows_of_dcd_is_reported_beside_the_plain_ones(swept: Swept) -> None:
    spec, outcome = swept
    run = Path(outcome.run_dir)
    measured = read_adaptive(run)
    focus = summarise(spec, outcome.records, str(run)).focus
    assert [trial.trial_id for trial in measured] == [outcome.records[0].trial_id, focus]
    for trial in measured:
        assert [a.name for a in trial.attacks] == ["adaptive-modes", "adaptive-reject"]
        assert all(a.accuracy_at_1.n == 4 and a.queries > 0 for a in trial.attacks)
        assert trial.targets_hit is not None
        assert trial.targets_hit.n == 2
        assert not trial.failed
    assert outcome.adaptive is not None
    assert "knows of DCD, by the best of 2 strategies" in outcome.adaptive
    page = Path(outcome.report).read_text()
    assert "adaptive: not the first mode" in page
    assert outcome.adaptive in page


def test_a_resumed_run_measures_the_adaptive_attacks_that_are_missing_and_nothing_else(
    swept: Swept, tmp_path: Path
) -> None:
    first, outcome = swept
    storage = tmp_path / "copy"
    shutil.copytree(first.storage, storage)
    spec = first.model_copy(update={"storage": str(storage)})
    run = storage / "runs" / Path(outcome.run_dir).name
    before = read_adaptive(run)
    times = {p: p.stat().st_mtime_ns for p in run.glob("trials/*/record.json")}
    (run / "adaptive.json").unlink()
    assert "Not measured in this run" in write_report(run).read_text()
    again = run_sweep(spec, mode="resume", console=QUIET)
    assert again.resumed == 3
    assert {p: p.stat().st_mtime_ns for p in run.glob("trials/*/record.json")} == times
    assert read_adaptive(run) == before
    (run / "adaptive.json").write_text("[{")
    with pytest.raises(StoreError, match=r"adaptive\.json cannot be read: .* delete it"):
        run_sweep(spec, mode="resume", console=QUIET)


def test_every_attack_is_judged_twice_and_measured_over_targets(swept: Swept) -> None:
    for record in swept[1].records:
        for attack in record.attacks:
            assert attack.accuracy_interval is not None
            assert attack.accuracy_interval.clusters == 2
            assert attack.second is not None
            assert attack.second.architecture == "small-mixer"
            assert attack.second.disagreement.n == 4
            assert attack.image_metrics is not None
            assert attack.image_metrics.real == 2 * 12
            assert attack.image_metrics.dimensions == 8 * 8  # of the small VGG at width 8
            assert attack.paper_accuracy_at_1 is None
    run = Path(swept[1].run_dir)
    assert "second judge" in (run / "report.html").read_text()
    assert set(json.loads((run / "evaluation.json").read_text())["others"]) == {"second"}


def test_landscape_compares_a_trial_with_the_control(swept: Swept, tmp_path: Path) -> None:
    shutil.copytree(swept[0].storage, tmp_path / "copy")  # as if the storage had been moved
    run = tmp_path / "copy" / "runs" / Path(swept[1].run_dir).name
    found = landscape(run, QUIET, trial=2, images=3, probes=2)
    assert (found.trial, found.targets, found.images) == (2, 2, 3)
    for model in (found.control, found.defended):
        assert set(model) == {"target", "target_trained", "surrogate"}
        assert all(around.loss.n == 6 for around in model.values())
        assert all(around.along[0] == pytest.approx(around.loss.value, rel=1e-5)
                   for around in model.values())  # fmt: skip
    assert found.control["target"].loss != found.defended["target"].loss
    assert "the levers" in found.verdict.lower()
    assert (run / "landscape.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (run / "landscape.svg").read_bytes()
    assert Landscape.model_validate_json((run / "landscape.json").read_text()) == found
    again = landscape(run, QUIET, trial=2, images=3, probes=2)
    assert again.model_dump() == found.model_dump()
    with pytest.raises(StoreError, match="holds no finished trial 9"):
        landscape(run, QUIET, trial=9)


@pytest.mark.usefixtures("swept")
def test_its_actors_end_with_it(others: set[str]) -> None:
    def own() -> set[str]:
        return {state for name, state in publishers().items() if name not in others}

    assert own()
    until = time.monotonic() + 30
    while own() != {"DEAD"} and time.monotonic() < until:  # Ray kills without waiting
        time.sleep(0.2)
    assert own() == {"DEAD"}


def test_it_writes_report_recipes_pictures_and_checkpoints(swept: Swept) -> None:
    run = Path(swept[1].run_dir)
    assert Path(swept[1].report) == run / "report.html"
    for name in ("report.png", "report.json", "spec.json", "examples.npz", "evaluation.json"):
        assert (run / name).is_file(), name
    for record in swept[1].records:
        folder = run / "trials" / record.trial_id
        for name in (
            "record.json",
            "recipe.parquet",
            "reconstructions.npz",
            "checkpoint/meta.json",
        ):
            assert (folder / name).is_file(), name
    assert len(swept[1].next_commands) == 2


def test_every_protected_person_is_measured_alone(swept: Swept) -> None:
    """Their own test images are those of all targets together."""
    for record in swept[1].records:
        assert record.clean_accuracy is not None
        whole = record.clean_accuracy.targets
        assert sum(person.accuracy.n for person in record.people) == whole.n
        assert sum(person.accuracy.successes for person in record.people) == whole.successes
        assert any(p.receivers for p in record.people) == (record.defense == "dcd")


def test_mlflow_has_the_parent_and_every_trial(swept: Swept) -> None:
    from mlflow import MlflowClient

    spec, outcome = swept
    client = MlflowClient(f"sqlite:///{spec.storage}/mlflow.db")
    experiment = client.get_experiment_by_name("dcdctl")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 1 + len(outcome.records)
    parents = {run.data.tags.get("mlflow.parentRunId") for run in runs}
    assert len(parents - {None}) == 1
    assert all(run.info.status == "FINISHED" for run in runs)


def test_a_finished_sweep_is_not_run_again(swept: Swept) -> None:
    spec, outcome = swept
    again = run_sweep(spec, console=QUIET)
    assert again.resumed == 3
    assert again.records == outcome.records


def test_more_trials_go_on_and_repeat_nothing(swept: Swept, tmp_path: Path) -> None:
    spec, outcome = swept
    shutil.copytree(spec.storage, tmp_path / "copy")
    more = load_spec_again(
        spec, (f'storage="{tmp_path / "copy"}"', "sweep.trials=3", "tracking.enabled=false")
    )
    with pytest.raises(UnfinishedRunError, match="has 3 of 4 trials .*; add --resume"):
        run_sweep(more, console=QUIET)
    longer = run_sweep(more, mode="resume", console=QUIET)
    assert longer.resumed == 3
    assert longer.records[:3] == outcome.records
    assert len(longer.records) == 4


def test_a_lost_trial_comes_back_as_it_was(swept: Swept, tmp_path: Path) -> None:
    spec, outcome = swept
    shutil.copytree(spec.storage, tmp_path / "copy")
    spec = load_spec_again(spec, (f'storage="{tmp_path / "copy"}"', "tracking.enabled=false"))
    run = tmp_path / "copy" / "runs" / Path(outcome.run_dir).name
    shutil.rmtree(run / "trials" / outcome.records[1].trial_id)
    again = run_sweep(spec, mode="resume", console=QUIET)
    assert hashes(again.records) == hashes(outcome.records)


def test_fresh_sets_the_old_run_aside(swept: Swept, tmp_path: Path) -> None:
    spec, outcome = swept
    shutil.copytree(spec.storage, tmp_path / "copy")
    spec = load_spec_again(
        spec,
        (f'storage="{tmp_path / "copy"}"', "tracking.enabled=false", "sweep.trials=1"),
    )
    again = run_sweep(spec, mode="fresh", console=QUIET)
    assert again.resumed == 0
    assert hashes(again.records) == hashes(outcome.records[:2])
    folders = list((tmp_path / "copy" / "runs").iterdir())
    assert len(folders) == 2
    assert sorted(len(records_of(folder)) for folder in folders) == [2, 3]


def people_in(folder: Path) -> Path:
    """Write pictures of seven people, each of a colour of its own."""
    for person in range(7):
        place = folder / f"p{person}"
        place.mkdir(parents=True)
        for shot in range(8):
            pixels = np.random.default_rng([person, shot]).integers(0, 60, (32, 32, 3))
            pixels[..., person % 3] += 25 * person
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{shot}.png")
    return folder


def test_images_that_changed_are_not_mixed_with_those_before(tmp_path: Path) -> None:
    photos = people_in(tmp_path / "photos")
    people = "private: [p0, p1, p2], surrogates: [p3, p4], public: [p5, p6]"
    data = f"data={{kind: folder, root: {json.dumps(str(photos))}, {people}, image_size: 32}}"
    given = ["tracking.enabled=false", "adaptive_attacks=[]", "attacks=[ppa]", "protect.targets=1"]
    given += [f"storage={json.dumps(str(tmp_path / 'results'))}", "prior.source=train", data]
    spec = load_spec_again(smoke(load_spec(None, given)), ("sweep.trials=1",))
    first = run_sweep(spec, console=QUIET)
    run = Path(first.run_dir)
    Image.new("RGB", (32, 32), "white").save(photos / "p0" / "0.png")
    with pytest.raises(UnfinishedRunError, match="other sizes or times .*; add --resume"):
        run_sweep(spec, console=QUIET)
    assert records_of(run) == list(first.records)
    spent = run_spent(run, spec)

    second = run_sweep(spec, mode="resume", console=QUIET)
    assert Path(second.run_dir) == run
    assert second.resumed == 0
    old, new = ([r.trial_id for r in one.records] for one in (first, second))
    assert [record.index for record in records_of(run)] == [0, 1]
    assert not {*old} & {*new}
    for trial_id in old:
        assert (run / "trials" / trial_id / "record.json.replaced").is_file()
    assert read_spend(run).stages["replaced trials"] > 0
    assert run_spent(run, spec) > spent
    assert run_sweep(spec, console=QUIET).records == second.records


def test_a_trial_that_breaks_is_visible_and_stays_failed(tmp_path: Path) -> None:
    spec = spec_in(
        tmp_path, "training.learning_rate=1e30", 'training.precision="float32"', "sweep.trials=1"
    )
    with pytest.raises(
        FailedTrialsError, match="2 of 2 trials failed, first trial 0: the training"
    ):
        run_sweep(spec, console=QUIET)
    run = next((tmp_path / "runs").iterdir())
    records = records_of(run)
    assert [r.status for r in records] == ["failed", "failed"]
    assert "training loss is nan" in str(records[0].error)
    assert (run / "report.html").is_file()
    with pytest.raises(FailedTrialsError):
        run_sweep(spec, mode="resume", console=QUIET)
    assert records_of(run) == records


def command(storage: Path, *more: str) -> list[str]:
    # Trials of some seconds, so that a signal finds one under way.
    longer = ["training.epochs=40", "sweep.trials=3", "tracking.enabled=false"]
    sets = [part for one in longer for part in ("--set", one)]
    dcdctl = str(Path(sys.executable).with_name("dcdctl"))
    return [dcdctl, "sweep", *sets, "--storage", str(storage), *more]


def wait_for_records(storage: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while len(list(storage.glob("runs/*/trials/*/record.json"))) < count:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, "no trial ended in time"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=str)
def test_a_killed_sweep_goes_on_with_nothing_lost_or_repeated(
    how: signal.Signals, tmp_path: Path
) -> None:
    config = tmp_path / "experiment.yaml"
    tiny = smoke(load_spec(None, []))
    values = tiny.model_dump(mode="json")
    config.write_text(json.dumps(values))
    env = os.environ | {"COLUMNS": "200"}

    whole = tmp_path / "whole"
    subprocess.run(command(whole, str(config)), check=True, env=env, capture_output=True)
    broken = tmp_path / "broken"
    process = subprocess.Popen(
        command(broken, str(config)),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_records(broken, 1, process)
    time.sleep(1)
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == (-9 if how is signal.SIGKILL else 130)
    if how is not signal.SIGKILL:
        assert "--resume" in said
        assert "Traceback" not in said
    before = {p: p.read_bytes() for p in broken.glob("runs/*/trials/*/record.json")}
    assert 1 <= len(before) < 4
    subprocess.run(
        command(broken, str(config), "--resume"), check=True, env=env, capture_output=True
    )
    assert all(path.read_bytes() == data for path, data in before.items())

    def found(storage: Path) -> list[str]:
        return hashes(records_of(next((storage / "runs").iterdir())))

    assert found(broken) == found(whole)


def test_a_budget_stops_before_the_trial_that_would_pass_it_and_is_resumed(
    swept: Swept, tmp_path: Path
) -> None:
    spec, outcome = swept
    storage = tmp_path / "copy"
    shutil.copytree(spec.storage, storage)
    run = storage / "runs" / Path(outcome.run_dir).name
    shutil.rmtree(run / "trials" / outcome.records[2].trial_id)
    (run / "adaptive.json").unlink()
    spent = run_spent(run, spec)
    changes = (f'storage="{storage}"', "tracking.enabled=false", "adaptive_attacks=[]")
    length = sum(outcome.records[1].cost_s.values()) / 3600
    tight = load_spec_again(spec, (*changes, f"compute.max_hours={spent + length / 2}"))
    with pytest.raises(BudgetReachedError, match=r"The budget of .* and 1 of 3 trials were not"):
        run_sweep(tight, mode="resume", console=QUIET)
    assert len(records_of(run)) == 2
    assert "The search is not complete" in (run / "report.html").read_text()
    enough = load_spec_again(spec, (*changes, f"compute.max_hours={spent + 20 * length}"))
    again = run_sweep(enough, mode="resume", console=QUIET)
    assert hashes(again.records) == hashes(outcome.records)
    assert "The search is not complete" not in (run / "report.html").read_text()


def test_what_runs_is_stopped_when_the_budget_is_passed_by_a_lease(tmp_path: Path) -> None:
    """Nothing is known of lengths, so the first lease is all that is left."""
    spec = spec_in(tmp_path, "compute.max_hours=0.004")
    prepared = spec_in(tmp_path, "sweep.trials=1", "training.epochs=1")
    run_sweep(prepared, console=QUIET)  # data, prior and judges are there then
    slow = load_spec_again(spec, ("training.epochs=2000",))
    began = time.monotonic()
    with pytest.raises(BudgetReachedError, match=r"of 3 trials were not run"):
        run_sweep(slow, console=QUIET)
    assert time.monotonic() - began < 120
    runs = [p for p in (tmp_path / "runs").iterdir() if (p / "budget.json").exists()]
    assert len(runs) == 1
    assert records_of(runs[0]) == []
    assert read_spend(runs[0]).lost > 0
