"""Rates with their intervals, and records that survive a round trip."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.records import Estimate, Rate, SearchCurve, TrialRecord
from tasks.evaluation.intervals import Interval
from tests.orchestrator.fake_run import fake_record, fake_records

counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_the_interval_holds_the_estimate_and_stays_within_zero_and_one(
    count: tuple[int, int],
) -> None:
    rate = Rate.of(*count)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert (rate.low == 0) == (rate.successes == 0)
    assert (rate.high == 1) == (rate.successes == rate.n)


@given(counts)
def test_the_ends_of_the_interval_solve_wilsons_equation(count: tuple[int, int]) -> None:
    """At an end q of the interval, the estimate is 1.96 standard errors of q away."""
    rate = Rate.of(*count)
    for end in {rate.low, rate.high} - {0.0, 1.0}:
        distance = abs(rate.value - end) / math.sqrt(end * (1 - end) / rate.n)
        assert distance == pytest.approx(1.959963984540054, rel=1e-6)


def test_no_success_in_n_bounds_the_rate_at_about_four_over_n() -> None:
    assert Rate.of(0, 64).high == pytest.approx(0.0566, abs=1e-4)


def test_nothing_tried_says_nothing() -> None:
    assert (Rate.of(0, 0).low, Rate.of(0, 0).high) == (0, 1)


@pytest.mark.parametrize("record", fake_records(), ids=lambda r: f"trial {r.index}")
def test_a_record_survives_a_round_trip(record: TrialRecord) -> None:
    assert TrialRecord.model_validate_json(record.model_dump_json()) == record


def test_a_record_of_another_version_or_with_an_unknown_key_is_refused() -> None:
    content = fake_record(1).model_dump()
    for change in ({"version": 2}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            TrialRecord.model_validate(content | change)


def test_a_record_from_before_the_intervals_over_targets_still_reads() -> None:
    content = fake_record(1).model_dump(mode="json")
    later = ("accuracy_interval", "surrogate_interval", "worst_target", "second")
    for attack in content["attacks"]:
        for name in (*later, "paper_accuracy_at_1", "image_metrics", "knowledge", "fleet"):
            assert attack.pop(name) is None
    assert TrialRecord.model_validate(content) == fake_record(1)


def test_an_estimate_with_an_unknown_end_survives_a_round_trip() -> None:
    unknown = Interval(0.5, -math.inf, math.inf, 3, 1, "cluster-bootstrap")
    found = Estimate.of(unknown)
    assert (found.low, found.high) == (None, None)
    assert Estimate.model_validate_json(found.model_dump_json()) == found
    assert str(found) == "0.500 [?, ?] (n=3 of 1, cluster-bootstrap)"


def test_the_worst_attack_is_the_one_that_recovers_most() -> None:
    worst = fake_record(0).worst_attack
    assert worst is not None
    assert worst.successes == 55
    assert fake_record(4).worst_attack is None


def test_a_curve_keeps_its_ends_and_few_points() -> None:
    long = SearchCurve.of([1 / (1 + step) for step in range(1000)])
    assert len(long.steps) == 101
    assert (long.steps[0], long.steps[-1]) == (0, 999)
    assert (long.values[0], long.values[-1]) == (1, 0.001)
    assert SearchCurve.of([3.0, 2.0]) == SearchCurve(steps=(0, 1), values=(3.0, 2.0))
    assert SearchCurve.of([3.0]) == SearchCurve(steps=(0,), values=(3.0,))
    assert SearchCurve.of([]) == SearchCurve()


def test_the_results_hash_sees_results_and_not_time() -> None:
    record = fake_record(2)
    slower = record.model_copy(update={"cost_s": {"train": 999.0}, "versions": {}})
    assert slower.results_hash() == record.results_hash()
    assert record.results_hash() != record.model_copy(update={"seed": 1}).results_hash()
