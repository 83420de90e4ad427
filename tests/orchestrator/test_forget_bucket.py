"""`dcdctl forget` on s3://: from a machine that never saw the storage."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.deep_search import Search
from orchestrator.forget import forget
from orchestrator.forget_search import verify
from orchestrator.store import Store
from tests.orchestrator.bucket import KEYS, object_server
from tests.orchestrator.people_storage import PRIVATE, write_people


def test_a_bucket_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "s3://results/people"
    with object_server() as server:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
        first = Store(uri)
        assert first.remote is not None
        write_people(first.root)
        first.remote.push(first.root)

        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
        outcome = forget(uri, PRIVATE[0], yes=True)
        assert (outcome.done, outcome.still_there) == (True, ())
        assert sum(outcome.removed.values()) > 20
        assert any("on other machines" in one for one in outcome.not_reached)
        second = Store(uri)
        assert second.remote is not None
        objects = second.remote.objects(second.root)
        assert not [name for name in objects if name.endswith("reconstructions.npz")]
        for name in objects:
            data = second.remote.read(second.root / name)
            assert data is not None
            assert not Search([PRIVATE[0]]).data(data, name), name
        receipt = Path(str(outcome.receipt))
        assert verify(uri, Path(receipt.stem), PRIVATE[0]).still_there == ()

        # The first machine's copy follows when it is used again.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
        with first.locked():
            first.remote.pull(first.root)
        assert verify(uri, Path(receipt.stem), PRIVATE[0]).still_there == ()
