"""Budgets: the accounts never pass their limit by more than one lease, and nothing is forgotten."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.budget import HOUR, Budget, Lease, Limits, quantile, reserve_of
from orchestrator.ledger import SPEND, Ledger, device_hours, read_spend, spent_hours
from orchestrator.prices import LABEL, file_prices, hour_price, limits_of, node_price
from orchestrator.report import write_report
from orchestrator.report_data import ReportData
from orchestrator.schedule import Place, Schedule, Start, fastest
from orchestrator.spec import ComputeSpec, ExperimentSpec
from orchestrator.spending import Spending, read_note, run_spent
from orchestrator.store import records_of
from tasks.errors import SpecError, StoreError
from tests.orchestrator.fake_run import fake_records, write_fake_run

LENGTHS = st.lists(st.floats(1.0, 1000.0), min_size=1, max_size=40)


def simulate(
    lengths: list[float],
    slots: int,
    limit_hours: float,
    *,
    expected_s: float | None = None,
    spent_before: float = 0.0,
    lost: Callable[[int], bool] = lambda attempt: False,
) -> tuple[Schedule, list[int], float]:
    """Run a schedule on `slots` equal devices; return it, the order of starts, and the time."""
    budget = Budget(Limits(hours=limit_hours), spent_before)
    schedule = Schedule(len(lengths), lambda i, ended: True, budget=budget, expected_s=expected_s)
    now = 0.0
    started: list[int] = []
    running: dict[int, tuple[float, float]] = {}
    attempt = 0
    while True:
        while len(running) < slots and isinstance(chosen := schedule.next(now), Start):
            schedule.start(chosen, now)
            started.append(chosen.index)
            running[chosen.index] = (now + lengths[chosen.index], now)
        if not running:
            return schedule, started, now
        index, (end, began) = min(running.items(), key=lambda item: item[1])
        edge = limit_hours + budget.largest_hours - budget.live_hours(now)
        # The watch acts at the moment at which the accounts are one lease over.
        at = now + max(0.0, edge) * HOUR / len(running)
        if at < end:
            now = at + 1e-9
            assert schedule.must_stop(now)
            for i, (_, start) in list(running.items()):
                schedule.lose(i, (now - start) / HOUR)
            return schedule, started, now
        now = end
        del running[index]
        attempt += 1
        if lost(attempt):
            schedule.lose(index, (now - began) / HOUR)
        else:
            schedule.finish(index, (now - began) / HOUR, now - began)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 8), st.floats(0.001, 3.0), st.none() | st.floats(1.0, 1000.0))
def test_a_budget_is_never_passed_by_more_than_one_lease(
    lengths: list[float], slots: int, limit: float, expected: float | None
) -> None:
    schedule, _, _ = simulate(lengths, slots, limit, expected_s=expected)
    budget = schedule.budget
    assert budget.spent_hours <= limit + budget.largest_hours + 1e-6
    assert not budget.leases
    if len(schedule.ended) < len(lengths):
        assert schedule.over_budget


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 8), st.floats(0.001, 3.0))
def test_where_lengths_are_known_a_budget_is_not_passed_at_all(
    lengths: list[float], slots: int, limit: float
) -> None:
    schedule, _, _ = simulate(lengths, slots, limit, expected_s=max(lengths))
    # ...as long as few have ended: later the 90 % quantile counts, and one in ten is longer.
    if len(lengths) <= 10:
        assert schedule.budget.spent_hours <= limit + 1e-6


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 8), st.integers(0, 2**16))
def test_without_a_limit_every_trial_ends_once_whatever_is_lost(
    lengths: list[float], slots: int, seed: int
) -> None:
    lost = {1 + (seed >> (4 * k)) % 16 for k in range(4)}
    schedule, started, _ = simulate(lengths, slots, math.inf, lost=lost.__contains__)
    assert schedule.ended == set(range(len(lengths)))
    assert sorted(set(started)) == list(range(len(lengths)))
    assert schedule.next(0.0) == "ended"


@given(LENGTHS, st.floats(0.001, 3.0), st.integers(1, 8))
def test_a_resumed_search_counts_what_was_spent_before(
    lengths: list[float], limit: float, slots: int
) -> None:
    _, started, _ = simulate(lengths, slots, limit, spent_before=limit)
    assert started == []


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=50))
def test_the_reserve_is_the_longest_of_few_and_a_quantile_of_many(seconds: list[float]) -> None:
    seconds.sort()
    reserve = reserve_of(seconds)
    assert reserve is not None
    if len(seconds) < 10:
        assert reserve == seconds[-1]
    else:
        assert sum(s <= reserve for s in seconds) >= 0.9 * len(seconds)
        assert sum(s < reserve for s in seconds) < 0.9 * len(seconds)
    assert quantile(seconds, 1.0) == seconds[-1]
    assert quantile(seconds, 0.01) == seconds[0]


def test_a_trial_of_unknown_length_runs_alone() -> None:
    schedule = Schedule(3, lambda i, ended: True, budget=Budget(Limits(hours=1)))
    first = schedule.next(0)
    assert first == Start(0, 1.0, None)
    schedule.start(first, 0)
    assert schedule.next(1) == "wait"
    schedule.finish(0, 60 / HOUR, None)  # the control says nothing of the others
    second = schedule.next(60)
    assert second == Start(1, 1.0, None)
    schedule.start(second, 60)
    schedule.finish(1, 120 / HOUR, 120)
    assert schedule.next(180) == Start(2, 1.0, 120)


def test_a_trial_that_waits_for_one_that_never_comes_ends_the_search() -> None:
    schedule = Schedule(2, lambda i, ended: i == 0 or 0 in ended)
    first = schedule.next(0)
    assert isinstance(first, Start)
    schedule.start(first, 0)
    assert schedule.next(0) == "wait"
    schedule.lose(0, 0.1, again=False)
    assert schedule.next(0) == "ended"


def test_a_clock_that_runs_back_takes_nothing_off() -> None:
    assert Lease(1, 100, None).spent_hours(50) == 0
    budget = Budget(spent_hours=1)
    budget.open("a", 1, None, 0)
    budget.close("a", -3)
    assert budget.spent_hours == 1


def test_the_fastest_place_with_room_is_taken_and_of_equal_ones_the_emptiest() -> None:
    places = [Place("slow", 8, 0.5), Place("full", 0.5, 4), Place("a", 2), Place("b", 3)]
    assert fastest(places, 1) == places[3]
    assert fastest(places, 9) is None


# --- money --------------------------------------------------------------------------------------


def test_money_is_hours_times_one_price_and_the_tighter_limit_counts() -> None:
    assert Limits(hours=10, cost=1, hour_price=0.5).device_hours == 2
    assert Limits(hours=1, cost=1, hour_price=0.5).device_hours == 1
    assert Limits().device_hours == math.inf


def test_a_limit_on_money_needs_a_price() -> None:
    with pytest.raises(SpecError, match=r"compute.max_cost=3 needs a price: set compute.hour_pri"):
        limits_of(ComputeSpec(max_cost=3))
    assert limits_of(ComputeSpec(max_cost=3, hour_price=2)).device_hours == 1.5


def test_a_cluster_file_names_its_prices_by_labels_that_ray_knows(tmp_path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    kinds = {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "labels": {LABEL: "0.1"}},
        "gpu": {"resources": {"CPU": 8, "GPU": 2}, "node_config": {}, "labels": {LABEL: "3.0"}},
        "cpu": {"resources": {"CPU": 8}, "node_config": {}, "labels": {LABEL: "0.4"}},
        "free": {"resources": {"CPU": 8}, "node_config": {}},
    }
    config = {
        "cluster_name": "x",
        "max_workers": 3,
        "provider": {"type": "aws", "region": "eu-central-1"},
        "auth": {"ssh_user": "ubuntu"},
        "available_node_types": kinds,
        "head_node_type": "head",
    }
    validate_config(prepare_config(dict(config)))
    path = tmp_path / "aws.yaml"
    path.write_text(yaml.safe_dump(config))
    prices = file_prices(path)
    assert {p.name: p.device_hour for p in prices} == {"gpu": 1.5, "cpu": 0.05}
    assert hour_price(ComputeSpec(), prices) == 1.5
    assert hour_price(ComputeSpec(hour_price=9), prices) == 9
    assert hour_price(ComputeSpec()) is None


def test_a_price_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"of node 'gpu' is 'cheap' and must be a price such as"):
        node_price("gpu", {LABEL: "cheap"}, {"CPU": 1})
    path = tmp_path / "x.yaml"
    path.write_text("[1]")
    with pytest.raises(SpecError, match=r"x.yaml is no cluster file"):
        file_prices(path)


# --- the ledger ---------------------------------------------------------------------------------


def test_a_run_has_spent_its_trials_what_was_lost_and_what_all_share(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path, pictures=False)
    trials = sum(sum(r.cost_s.values()) for r in fake_records()) / HOUR
    assert run_spent(run, ExperimentSpec()) == pytest.approx(trials)
    now = [1000.0]
    ledger = Ledger(run, lambda: now[0])
    ledger.opened("a", 2, 90)
    ledger.closed("a", 0.25)
    ledger.add("judges", 0.5)
    with ledger.stage("data", 4):
        pass
    assert run_spent(run, ExperimentSpec()) == pytest.approx(trials + 0.75, abs=1e-3)


@given(st.none() | st.floats(0, 1e4), st.floats(-1e4, 1e5), st.booleans())
def test_a_lease_found_open_is_charged_what_it_can_have_taken(
    tmp_path_factory: pytest.TempPathFactory, reserve: float | None, later: float, ended: bool
) -> None:
    run = write_fake_run(tmp_path_factory.mktemp("run"), fake_records(0), pictures=False)
    trial = records_of(run)[0].trial_id if ended else "gone"
    Ledger(run, lambda: 1e6).opened(trial, 3, reserve)
    spend = Ledger(run, lambda: 1e6 + later).spend
    took = max(0.0, later) if reserve is None else min(max(0.0, later), reserve)
    assert spend.lost == pytest.approx(0 if ended else 3 * took / HOUR)
    assert spend.open == {}


def test_training_on_several_processes_holds_them_all() -> None:
    record = fake_records(0)[0].model_copy(update={"cost_s": {"train": 3600.0, "ppa": 1800.0}})
    assert device_hours(record) == 1.5
    assert device_hours(record, workers=4) == 4.5
    assert spent_hours([record], read_spend(Path("nowhere")), 4) == 4.5


def test_a_damaged_ledger_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / SPEND).write_text('{"lost": ')
    with pytest.raises(StoreError, match=r"spend.json cannot be read \(1 errors\); delete it"):
        Ledger(tmp_path)


@pytest.mark.usefixtures("ray")
def test_the_report_says_that_the_budget_ended_the_search(tmp_path: Path) -> None:
    spec = ExperimentSpec(
        storage=str(tmp_path), compute=ComputeSpec(max_hours=0.2, max_cost=1, hour_price=2)
    )
    run = write_fake_run(tmp_path, fake_records(3), spec)
    spending = Spending.of(spec, run)
    assert spending.left
    spending.note(run, 7)
    note = read_note(run)
    assert note is not None
    assert note.limit_hours == 0.2
    assert note.sentence.startswith(
        "The budget of 0.2 core-hours and 1 at 2 an hour ended the search: 0.106 core-hours (0.21 "
        "at 2 an hour) were spent, and 3 of 7 trials were not run"
    )
    page = write_report(run).read_text()
    assert "The search is not complete.</strong> The budget of 0.2 core-hours" in page
    data = ReportData.model_validate_json((run / "report.json").read_bytes())
    assert data.budget == note.sentence + "."
    assert data.hour_price == 2
    (run / "budget.json").write_text(json.dumps({"sentence": 1}))
    assert read_note(run) is None
