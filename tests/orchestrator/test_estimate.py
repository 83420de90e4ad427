"""What a plan says of hours, wall-clock and money: from speeds that are made up, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.spec import PpaSpec
from augment.spec import DcdSpec, ProtectSpec
from orchestrator.calibration import (
    FIRST,
    RAY,
    START,
    Calibration,
    Source,
    Speed,
    finished_speeds,
    keep,
    read,
    speeds_for,
    versions,
)
from orchestrator.calibration_task import shortened
from orchestrator.estimate import Cost, estimate
from orchestrator.named_cluster import NamedCluster, NodeKind, named_cluster
from orchestrator.planning import plan_summary
from orchestrator.prices import LABEL
from orchestrator.spec import ComputeSpec, ExperimentSpec, SweepSpec
from orchestrator.store import Store
from orchestrator.workload import (
    ADAPTIVE,
    Counts,
    Piece,
    Workload,
    attack_images,
    settings_of,
    train_key,
    workload,
)
from tasks.datasets.spec import BuiltinData
from tasks.device import device_name
from tasks.errors import SpecError
from tests.orchestrator.fake_run import fake_records, write_fake_run

ATTACK = PpaSpec(pool=300, candidates=4, steps=10, keep=2, selection_rounds=4)
SPEC = ExperimentSpec(
    attacks=(ATTACK,), adaptive_attacks=(), sweep=SweepSpec(trials=5, lookahead=4)
)
ADAPTED = ExperimentSpec(attacks=(ATTACK,))
COUNTS = Counts(targets=2, attacked=2, decode=100, judge_rows=80)
HERE = NamedCluster("here", (NodeKind("here", 2, 0, 1, 1),), here=True)


def steady(work: Workload, seconds: float = 0.01) -> dict[str, tuple[Speed, Source]]:
    """Return a speed without spread for every piece: as if each had been measured 200 times."""
    pieces = [*work.first, *work.judges, *work.after, *(p for trial in work.trials for p in trial)]
    return {
        p.key: (Speed(stage=p.stage, unit=p.unit, seconds=(seconds,) * 200), "calibration")
        for p in pieces
    }


def cost(spec: ExperimentSpec = SPEC, cluster: NamedCluster = HERE) -> Cost:
    work = workload(spec, COUNTS, lambda dcd: 64 if dcd is None else 100)
    return estimate(spec, work, steady(work), cluster, "x")


def test_stages_add_up_and_unlikely_futures_cost_more() -> None:
    found = cost()
    assert found.hours is not None
    assert found.unknown == ()
    by_stage = {row.stage: row.hours for row in found.stages}
    epochs = SPEC.training.epochs
    training = by_stage["training"]
    assert training is not None
    assert training.p50 == pytest.approx(0.01 * epochs * (64 + 5 * 100) / 3600, rel=0.05)
    attack = by_stage["attack ppa"]
    assert attack is not None
    assert attack.p50 == pytest.approx(6 * 0.01 * attack_images(ATTACK, 2) / 3600, rel=0.05)
    total = sum(hours.p50 for hours in by_stage.values() if hours is not None)
    assert found.hours.p50 == pytest.approx(total, rel=0.05)
    for row in [*by_stage.values(), found.hours, found.wall_s]:
        assert row is not None
        assert row.p90 > row.p50


def test_what_a_process_does_once_is_counted_for_each() -> None:
    work = workload(SPEC, COUNTS, lambda dcd: 64)
    known = steady(work, 1e-7)
    once: dict[str, tuple[Speed, Source]] = {
        key: (Speed(stage="start", unit="trial", seconds=(seconds,) * 200), "calibration")
        for key, seconds in ((FIRST, 4.0), (START, 6.0), (RAY, 5.0))
    }
    before = estimate(SPEC, work, known, HERE, "x")
    after = estimate(SPEC, work, known | once, HERE, "x")
    found = {row.stage: row.hours for row in after.stages}["first steps of processes"]
    assert found is not None
    assert found.p50 == pytest.approx(3 * 4.0 / 3600, rel=0.05)  # two slots, and the judges
    assert before.hours is not None
    assert after.hours is not None
    assert after.hours.p50 - before.hours.p50 == pytest.approx(found.p50, rel=0.1)
    assert after.wall_s is not None
    assert after.wall_s.p50 == pytest.approx(5.0 + 6.0, rel=0.1)  # Ray, and a process's start


def test_a_process_that_found_everything_warm_spoils_no_forecast() -> None:
    work = workload(SPEC, COUNTS, lambda dcd: 64)
    first = Speed(stage="start", unit="trial", seconds=(0.0, 4.0, 4.0))
    found = estimate(SPEC, work, steady(work) | {FIRST: (first, "calibration")}, HERE, "x")
    hours = {row.stage: row.hours for row in found.stages}["first steps of processes"]
    assert hours is not None
    assert hours.p50 < hours.p90 < 2 * hours.p50


def test_tasks_after_the_trials_wait_for_new_processes() -> None:
    adaptive = ADAPTED.model_copy(update={"sweep": SPEC.sweep})
    work = workload(adaptive, COUNTS, lambda dcd: 64)
    known = steady(work, 1e-7)
    start = Speed(stage="start", unit="trial", seconds=(6.0,) * 200)

    def of(known: dict[str, tuple[Speed, Source]]) -> float:
        rows = estimate(adaptive, work, known, HERE, "x").stages
        hours = {row.stage: row.hours for row in rows}[ADAPTIVE]
        assert hours is not None
        return hours.p50

    assert of(known | {START: (start, "calibration")}) - of(known) == pytest.approx(
        2 * 6 / 3600, rel=0.1
    )


def test_a_stage_without_a_speed_is_not_guessed() -> None:
    work = workload(SPEC, COUNTS, lambda dcd: 64)
    known = steady(work)
    del known[train_key(SPEC, SPEC.training)]
    found = estimate(SPEC, work, known, HERE, "x")
    assert found.unknown == ("training",)
    assert found.wall_s is None
    assert found.hours is not None  # of what is known
    nothing = estimate(SPEC, work, {}, HERE, None)
    assert nothing.hours is None
    assert all(row.hours is None for row in nothing.stages)


def test_what_is_made_or_done_already_costs_nothing_more() -> None:
    whole = workload(SPEC, COUNTS, lambda dcd: 64)
    left = workload(
        SPEC,
        COUNTS,
        lambda dcd: 64,
        ready=frozenset({"data", "judges"}),
        done=frozenset({0, 1, 2}),
    )
    assert (len(whole.trials), len(left.trials), left.done) == (6, 3, 3)
    assert not left.first
    assert not left.judges
    assert len(whole.judges) == 2


def test_two_slots_take_half_as_long_as_one() -> None:
    one = cost(cluster=NamedCluster("one", (NodeKind("n", 1, 0, 1, 1),)))
    two = cost(cluster=NamedCluster("two", (NodeKind("n", 1, 0, 2, 2),)))
    assert one.wall_s is not None
    assert two.wall_s is not None
    assert (one.trials_at_once, two.trials_at_once) == (1, 2)
    assert 1.5 < one.wall_s.p50 / two.wall_s.p50 < 2.1


def test_money_is_hours_times_a_price_and_the_bill_is_nodes_times_the_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "aws.yaml"
    kinds = {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "labels": {LABEL: "0.1"}},
        "cpu": {
            "resources": {"CPU": 8},
            "node_config": {},
            "labels": {LABEL: "0.4"},
            "min_workers": 2,
            "max_workers": 5,
        },
    }
    file = {
        "cluster_name": "x",
        "provider": {"type": "aws", "region": "eu-central-1"},
        "auth": {"ssh_user": "ubuntu"},
        "head_node_type": "head",
        "available_node_types": kinds,
    }
    path.write_text(yaml.safe_dump(file))
    cluster = named_cluster(str(path))
    found = cost(cluster=cluster)
    assert (found.nodes, found.hour_price) == (3, 0.05)
    assert found.money is not None
    assert found.hours is not None
    assert found.bill is not None
    assert found.wall_s is not None
    assert found.money.p50 == pytest.approx(found.hours.p50 * 0.05, rel=1e-3)
    assert found.bill.p90 == pytest.approx(found.wall_s.p90 / 3600 * (0.1 + 2 * 0.4), rel=0.02)
    assert found.wall_s.p50 > 60  # machines have to come up
    grown = SPEC.model_copy(update={"compute": ComputeSpec(concurrent_trials=40)})
    assert cost(grown, cluster).nodes == 6
    with pytest.raises(SpecError, match="names an address, and a plan needs to know the nodes"):
        named_cluster("http://127.0.0.1:8265")


def test_a_processor_s_speed_says_nothing_of_a_gpu(tmp_path: Path) -> None:
    spec = small(tmp_path)
    keep(Store(spec.storage), calibration())
    found = plan_summary(spec, cluster="aws.yaml").cost
    assert found is not None
    assert (found.unit, found.device, found.hours) == ("GPU", None, None)


def small(folder: Path) -> ExperimentSpec:
    data = BuiltinData(
        identities=4,
        train_images=3,
        test_images=1,
        surrogate_identities=6,
        surrogate_images=3,
        public_identities=2,
        public_images=1,
        image_size=32,
    )
    protect = ProtectSpec(targets=2, surrogates="attribute-opposite")
    return SPEC.model_copy(
        update={"storage": str(folder / "storage"), "data": data, "protect": protect}
    )


def calibration(**changes: object) -> Calibration:
    made = Calibration(
        device=device_name(),
        unit="core",
        at_once=2,
        versions=versions(),
        made="2026-01-01 00:00",
        took_s=1,
        speeds={"k": Speed(stage="training", unit="row", seconds=(1.0, 2.0, 4.0))},
    )
    return made.model_copy(update=changes)


def test_a_calibration_is_kept_by_device_and_by_version(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    keep(store, calibration())
    more = {"l": Speed(stage="data", unit="image", seconds=(1.0,))}
    keep(store, calibration(speeds=more))
    found = read(store, device_name())
    assert found is not None
    assert set(found.speeds) == {"k", "l"}  # another experiment's stay
    assert read(store, "another") is None
    keep(store, calibration(device="old", versions={"dcdctl": "0", "torch": "1"}))
    assert read(store, "old") is None


def test_trials_that_ended_tell_more_than_a_calibration(tmp_path: Path) -> None:
    records = [
        record.model_copy(update={"versions": versions() | {"device": "x"}})
        for record in fake_records()
    ]
    spec = ExperimentSpec()
    write_fake_run(tmp_path, records, spec, pictures=False)
    store = Store(str(tmp_path))
    key = train_key(spec, spec.training)
    speed = Speed(stage="training", unit="row", seconds=(9.0,))
    known = speeds_for(store, "x", calibration(speeds={key: speed, "k": speed}))
    assert known[key][1] == "finished trials"
    assert len(known[key][0].seconds) == 6  # of seven: one failed
    assert known[key][0].seconds[0] == pytest.approx(31.0 / (2560 * spec.training.epochs))
    assert known["k"] == (speed, "calibration")
    assert finished_speeds(store, "another device") == {}


@settings(deadline=None)
@given(share=st.floats(0.001, 1), pool=st.integers(1, 9000), steps=st.integers(1, 300))
def test_a_shortened_attack_is_a_valid_one_with_batches_as_large(
    share: float, pool: int, steps: int
) -> None:
    attack = PpaSpec(pool=pool, steps=steps, rungs=tuple(range(1, steps))[:2])
    short = shortened(attack, share)
    assert isinstance(short, PpaSpec)
    assert (short.candidates, short.keep) == (attack.candidates, attack.keep)
    # One that loses rungs keeps more candidates to its end, and may show more of them.
    assert len(short.rungs) < len(attack.rungs) or attack_images(short, 3) <= attack_images(
        attack, 3
    )
    assert all(rung < short.steps for rung in short.rungs)


def test_a_comparison_has_a_setting_for_each_of_its_points() -> None:
    spec = SPEC.model_copy(update={"sweep": SweepSpec(search="defenses", strengths=1)})
    found = settings_of(spec)
    assert found[0].dcd is None
    assert any(one.training.defense.name == "dp-sgd" for one in found)
    assert any(one.dcd == DcdSpec() for one in found)


def test_pieces_that_share_processes_take_less_time_and_as_many_hours() -> None:
    def work(processes: int) -> Workload:
        return Workload((), (), ((Piece("training", "k", 1e6, "row", processes),),), ())

    speed = Speed(stage="training", unit="row", seconds=(0.001,) * 100)
    costs = [estimate(SPEC, work(n), {"k": (speed, "calibration")}, HERE, "x") for n in (1, 2)]
    alone, shared = costs
    assert alone.wall_s is not None
    assert shared.wall_s is not None
    assert alone.wall_s.p50 / shared.wall_s.p50 == pytest.approx(2, rel=0.1)
    assert alone.hours == shared.hours
