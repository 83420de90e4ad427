"""Listing a folder of images: ids, splits, caps, and every way a folder can be wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.datasets import listing
from tasks.datasets.folder import folder_rows
from tasks.datasets.sources import file_stamps, source_path
from tasks.datasets.spec import FolderData
from tasks.errors import DataError, MissingDataError, TargetClassError
from tasks.types import ROW_SCHEMA


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    """Write empty files: listing must never look inside."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / name / f"{index:03d}.jpg").touch()
    return root


def spec_of(root: Path, **changes: Any) -> FolderData:
    fields: dict[str, Any] = {
        "kind": "folder",
        "root": root,
        "private": ("ann", "bob"),
        "surrogates": ("cat",),
        "public": ("dan",),
    }
    return FolderData(**(fields | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "faces", {"ann": 10, "bob": 5, "cat": 7, "dan": 4})


def files(rows: pa.Table, **where: str | int) -> list[str]:
    """Return the sorted paths below the root of the rows that match."""
    kept = [r for r in rows.to_pylist() if all(r[k] == v for k, v in where.items())]
    return sorted("/".join(r["source"].split("/")[-2:]) for r in kept)


def test_rows_have_the_schema_labels_in_the_order_of_the_spec_and_a_stable_order(
    root: Path,
) -> None:
    rows = folder_rows(spec_of(root, private=("bob", "ann")), seed=0)
    assert rows.schema == ROW_SCHEMA
    assert rows.num_rows == 26
    assert {(r["identity"], r["label"]) for r in rows.to_pylist()} == {
        ("bob", 0),
        ("ann", 1),
        ("cat", -1),
        ("dan", -1),
    }
    assert rows.equals(folder_rows(spec_of(root, private=("bob", "ann")), seed=0))
    keys = [(r["split"], r["label"], r["row_id"]) for r in rows.to_pylist()]
    assert keys == sorted(keys)
    assert all(0 <= r["row_id"] < 2**63 and r["attributes"] == [] for r in rows.to_pylist())


@pytest.mark.parametrize(
    ("fraction", "n_test"), [(0.2, 2), (0.25, 2), (0.01, 1), (0.99, 9), (0.5, 5)]
)
def test_each_private_class_gets_exactly_its_share_of_test_rows_and_both_splits_are_filled(
    root: Path, fraction: float, n_test: int
) -> None:
    rows = folder_rows(spec_of(root, test_fraction=fraction), seed=0)
    assert len(files(rows, identity="ann", split="test")) == n_test
    assert len(files(rows, identity="ann", split="train")) == 10 - n_test


def test_another_seed_chooses_other_test_rows(root: Path) -> None:
    chosen = {tuple(files(folder_rows(spec_of(root), s), split="test")) for s in range(5)}
    assert len(chosen) > 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(name=st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), seed=st.integers(0, 100))
def test_a_new_file_moves_at_most_one_row_and_changes_no_id(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int
) -> None:
    root = make_folder(tmp_path_factory.mktemp("faces"), {"ann": 9, "bob": 4, "cat": 3, "dan": 2})
    before = folder_rows(spec_of(root), seed).to_pylist()
    (root / "ann" / f"new-{name}.png").touch()
    after = {r["source"]: r for r in folder_rows(spec_of(root), seed).to_pylist()}
    assert all(after[r["source"]]["row_id"] == r["row_id"] for r in before)
    moved = [r for r in before if after[r["source"]]["split"] != r["split"]]
    assert len(moved) <= 1
    assert all(r["identity"] == "ann" for r in moved)


def test_moving_the_folder_changes_no_id_and_no_split(root: Path) -> None:
    before = folder_rows(spec_of(root), seed=3)
    moved = root.rename(root.parent / "moved here")
    after = folder_rows(spec_of(moved), seed=3)
    assert before.drop_columns("source").equals(after.drop_columns("source"))
    assert all("moved%20here" in uri for uri in after["source"].to_pylist())


def test_subfolders_links_and_upper_case_count_and_hidden_or_other_files_do_not(
    root: Path,
) -> None:
    (root / "ann" / "2019" / "may").mkdir(parents=True)
    (root / "ann" / "2019" / "may" / "x.JPeG").touch()
    (root / "ann" / "linked.png").symlink_to(root / "dan" / "000.jpg")
    (root / "ann" / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "ann" / "2019" / "loop").symlink_to(root / "ann")
    (root / "ann" / ".hidden.jpg").touch()
    (root / "ann" / ".thumbs").mkdir()
    (root / "ann" / ".thumbs" / "y.jpg").touch()
    (root / "ann" / "notes.txt").touch()
    os.mkfifo(root / "ann" / "pipe.jpg")
    names = files(folder_rows(spec_of(root), seed=0), identity="ann")
    added = ["ann/dangling.png", "ann/linked.png", "may/x.JPeG"]
    assert names == sorted([f"ann/{i:03d}.jpg" for i in range(10)] + added)


def test_a_class_in_surrogates_and_public_is_divided_and_no_row_serves_twice(root: Path) -> None:
    rows = folder_rows(spec_of(root, public=("cat", "dan")), seed=0)
    lent, public = (files(rows, identity="cat", split=split) for split in ("surrogate", "public"))
    assert (len(lent), len(public)) == (4, 3)
    assert not set(lent) & set(public)


def test_a_cap_keeps_the_same_images_when_it_is_raised(root: Path) -> None:
    few, more = (
        set(files(folder_rows(spec_of(root, max_images_per_class=n), 0), identity="ann"))
        for n in (3, 6)
    )
    assert (len(few), len(more)) == (3, 6)
    assert few < more


def test_a_file_name_that_is_not_utf8_is_listed(root: Path) -> None:
    (root / "ann" / os.fsdecode(b"caf\xe9.jpg")).touch()
    sources = folder_rows(spec_of(root), seed=0)["source"].to_pylist()
    assert any(source.endswith("/caf%E9.jpg") for source in sources)
    assert all(source_path(source).exists() for source in sources)


def test_stamps_tell_of_a_replaced_file_and_bear_a_missing_one(root: Path) -> None:
    rows = folder_rows(spec_of(root), seed=0)
    before = file_stamps(rows["source"].to_pylist())
    (root / "ann" / "003.jpg").write_bytes(b"other")
    (root / "bob" / "001.jpg").unlink()
    after = file_stamps(rows["source"].to_pylist())
    assert sum(a != b for a, b in zip(after, before, strict=True)) == 2
    assert (-1, -1) in after


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"data\.root .*/none does not exist"):
        folder_rows(spec_of(tmp_path / "none"), seed=0)


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "faces.txt").touch()
    with pytest.raises(MissingDataError, match=r"faces\.txt is a file; name the folder"):
        folder_rows(spec_of(tmp_path / "faces.txt"), seed=0)


def test_a_missing_class_is_named_with_the_nearest_one_there(root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"class 'anne' is not in .*; did you mean 'ann'\?$"):
        folder_rows(spec_of(root, private=("anne", "bob")), seed=0)


def test_where_no_class_is_near_those_there_are_listed(root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"'zzz' .*there are 4: ann, bob, cat, dan$"):
        folder_rows(spec_of(root, private=("zzz", "bob")), seed=0)


def test_a_class_name_cannot_leave_the_folder(root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"class '\.\./faces/ann' is not in"):
        folder_rows(spec_of(root, private=("../faces/ann", "bob")), seed=0)


@pytest.mark.parametrize(("count", "words"), [(0, "0 images"), (1, "1 image")])
def test_a_private_class_that_is_too_small_is_named(tmp_path: Path, count: int, words: str) -> None:
    root = make_folder(tmp_path, {"ann": count, "bob": 5, "cat": 1, "dan": 1})
    with pytest.raises(
        TargetClassError, match=f"'ann' has {words} in .*at least 2 are needed, one to train and"
    ):
        folder_rows(spec_of(root), seed=0)


def test_an_empty_surrogate_class_is_named(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"ann": 2, "bob": 2, "cat": 0, "dan": 1})
    with pytest.raises(DataError, match="'cat' is named in surrogates or public and has 0 images"):
        folder_rows(spec_of(root), seed=0)


def test_one_image_cannot_be_divided(tmp_path: Path) -> None:
    root = make_folder(tmp_path, {"ann": 2, "bob": 2, "cat": 1, "dan": 1})
    with pytest.raises(DataError, match="both surrogates and public and has 1 image; at least 2"):
        folder_rows(spec_of(root, public=("cat", "dan")), seed=0)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError(13, "Permission denied"), "may not be read .permission denied.; grant"),
        (OSError(5, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_a_folder_that_cannot_be_listed_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if path == root / "bob":
            raise error
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(MissingDataError, match=f"/bob {sentence}"):
        folder_rows(spec_of(root), seed=0)


def test_two_paths_with_one_id_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "row_id", lambda path: int(Path(path.decode()).stem))
    with pytest.raises(DataError, match="two images of .* have the same row id"):
        folder_rows(spec_of(root), seed=0)


def test_a_class_named_twice_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="class 'ann' is named twice in private"):
        spec_of(root, private=("ann", "bob", "ann"))


def test_ids_are_spread_over_63_bits(root: Path) -> None:
    ids = folder_rows(spec_of(root), seed=0)["row_id"].to_numpy()
    assert ids.min() >= 0
    assert np.ptp(ids) > 2**60
