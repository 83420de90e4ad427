"""Cannot reach is not failed: who may publish a trial, and when it may be begun again."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.bundle import Bundle
from orchestrator.publisher import Publisher
from orchestrator.trial_lease import LEASE_S, PATIENCE_S, Leases, Signs
from tasks.errors import ClusterError


def leases(now: list[float]) -> Leases:
    return Leases(lambda: now[0])


def test_a_lease_is_one_attempts_until_it_is_taken_away() -> None:
    now = [0.0]
    held = leases(now)
    assert held.quiet("t") is None
    assert held.beat("t", "first", "node-a")
    now[0] = 3.0
    assert held.quiet("t") == ("node-a", 3.0)
    assert not held.beat("t", "second", "node-b")  # not taken from a living one by asking
    assert held.beat("t", "first", "node-a")
    assert held.quiet("t") == ("node-a", 0.0)
    held.revoke("t")
    assert held.quiet("t") is None
    assert not held.holds("t", "first")
    assert not held.beat("t", "first", "node-a")
    assert held.beat("t", "second", "node-b")
    assert held.holds("t", "second")
    assert held.beat("other", "first of another", "node-a")


def test_what_a_lost_attempt_hands_over_is_refused(tmp_path: Path) -> None:
    publisher = Publisher()
    publisher.beat("t", "first", "node-a")
    publisher.revoke("t")
    late = Bundle({"record.json": b"late"})
    with pytest.raises(ClusterError, match="trial t is published by another attempt"):
        publisher.publish(tmp_path, late, "record.json", ("t", "first"))
    assert list(tmp_path.iterdir()) == []
    publisher.beat("t", "second", "node-b")
    publisher.publish(tmp_path, Bundle({"record.json": b"own"}), "record.json", ("t", "second"))
    with pytest.raises(ClusterError, match="another attempt"):
        publisher.publish(tmp_path, late, "record.json", ("t", "first"))
    assert (tmp_path / "record.json").read_bytes() == b"own"


@pytest.mark.parametrize(
    ("signs", "gone"),
    [
        (Signs(node_lives=None, died=True, quiet_s=None, waited_s=0.0), True),  # never began
        (Signs(node_lives=True, died=True, quiet_s=0.1, waited_s=0.0), True),  # its node says so
        (Signs(node_lives=True, died=False, quiet_s=0.1, waited_s=30.0), False),
        (Signs(node_lives=True, died=False, quiet_s=60.0, waited_s=60.0), False),
        (Signs(node_lives=False, died=True, quiet_s=0.1, waited_s=0.0), False),  # it still beats
        (Signs(node_lives=False, died=True, quiet_s=LEASE_S, waited_s=0.0), True),
        (Signs(node_lives=None, died=True, quiet_s=LEASE_S, waited_s=0.0), True),
        (Signs(node_lives=True, died=False, quiet_s=0.1, waited_s=PATIENCE_S), True),
    ],
)
def test_a_trial_begins_again_when_all_signs_agree(signs: Signs, gone: bool) -> None:
    assert signs.gone is gone
