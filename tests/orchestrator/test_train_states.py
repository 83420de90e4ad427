"""Checkpoints of a training: whole under their name or not there, and never a torn one read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import train_states
from orchestrator.bundle import Bundle
from orchestrator.train_states import DIGESTS, forget_states, keep_state, newest_state
from tasks.errors import StoreError


def state(step: int) -> Bundle:
    return Bundle({"model.safetensors": bytes([step]) * 1000, "state.json": b"{}"})


def test_the_newest_is_read_and_the_old_are_removed(tmp_path: Path) -> None:
    assert newest_state(tmp_path / "nothing") is None
    for step in (5, 20, 100):
        keep_state(tmp_path, step, state(step))
    assert newest_state(tmp_path) == (100, state(100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000020", "000000100"]
    keep_state(tmp_path, 100, state(7))
    assert newest_state(tmp_path) == (100, state(7))
    forget_states(tmp_path)
    assert not tmp_path.exists()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"x" + path.read_bytes()[1:])


def lose(folder: Path) -> None:
    (folder / "state.json").unlink()


def lose_digests(folder: Path) -> None:
    (folder / DIGESTS).unlink()


def cut_digests(folder: Path) -> None:
    (folder / DIGESTS).write_text("{")


def add(folder: Path) -> None:
    (folder / "more").write_text("")


@pytest.mark.parametrize("damage", [cut, flip, lose, lose_digests, cut_digests, add])
def test_a_torn_newest_falls_back_to_the_one_before(
    damage: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        keep_state(tmp_path, step, state(step))
    assert callable(damage)
    damage(tmp_path / "000000002")
    assert newest_state(tmp_path) == (1, state(1))
    assert "000000002 is torn" in caplog.text


def test_what_was_not_published_is_not_seen(tmp_path: Path) -> None:
    keep_state(tmp_path, 1, state(1))
    unfinished = tmp_path / ".000000002.partial"
    unfinished.mkdir()
    (unfinished / "model.safetensors").write_bytes(b"half")
    assert newest_state(tmp_path) == (1, state(1))
    keep_state(tmp_path, 2, state(2))
    assert newest_state(tmp_path) == (2, state(2))
    assert not unfinished.exists()


def test_a_disk_that_gives_other_bytes_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(bundle: Bundle, folder: Path, last: str) -> None:
        folder.mkdir()
        (folder / DIGESTS).write_text(json.dumps({}))

    keep_state(tmp_path, 1, state(1))
    monkeypatch.setattr(train_states, "unpack", lying)
    monkeypatch.setattr(train_states, "read_state", lambda folder: None)
    with pytest.raises(StoreError, match="does not read as it was written; check the disk"):
        keep_state(tmp_path, 2, state(2))
    monkeypatch.undo()
    assert newest_state(tmp_path) == (1, state(1))
