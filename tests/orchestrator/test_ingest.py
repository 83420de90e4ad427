"""Ingest on a real Ray: the right pixels at the right rows, quarantine, and torn results."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.ingest import ingest, load_images
from tasks.datasets.builtin import builtin_rows, render_rows
from tasks.datasets.folder import folder_rows
from tasks.datasets.spec import BuiltinData, FolderData
from tasks.errors import DataError, DiskFullError, QuarantineError, StoreError, TargetClassError
from tasks.types import ROW_SCHEMA

SIZE = 16

pytestmark = [
    pytest.mark.usefixtures("ray"),
    # Ray warns about defaults of its own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images that tell which file they are: one grey level for each."""
    root = tmp_path / "Real Name's faces"
    level = 0
    for name, count in (("ann", 9), ("bob", 6), ("cat", 5), ("dan", 4)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            level += 5
            Image.new("RGB", (24, 20), (level, level, level)).save(root / name / f"{index}.png")
    return root


def spec_of(root: Path, **changes: Any) -> FolderData:
    fields: dict[str, Any] = {
        "kind": "folder",
        "root": root,
        "private": ("ann", "bob"),
        "surrogates": ("cat",),
        "public": ("dan",),
        "image_size": SIZE,
    }
    return FolderData(**(fields | changes))


def spoil(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(b"no image")


def level_of(source: str) -> int:
    with Image.open(
        source.removeprefix("file://").replace("%20", " ").replace("%27", "'")
    ) as image:
        return int(image.convert("L").getpixel((0, 0)))  # type: ignore[arg-type]


def test_row_i_is_image_i_whatever_the_number_of_blocks_and_the_order_of_the_rows(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(root)
    rows = folder_rows(spec, seed=0)
    capfd.readouterr()
    seen: list[tuple[int, int]] = []
    one = ingest(
        rows, spec, 0, tmp_path / "one", on_progress=lambda done, total: seen.append((done, total))
    )
    shuffled = rows.take(np.random.default_rng(0).permutation(rows.num_rows))
    four = ingest(shuffled, spec, 0, tmp_path / "four", rows_per_block=6)
    assert capfd.readouterr() == ("", "")  # quiet
    assert seen == [(24, 24)]
    assert one.rows == 24
    assert one.manifest == four.manifest
    assert one.manifest["splits"] == {"public": 4, "surrogate": 5, "test": 3, "train": 12}
    for name in ("images.npy", "rows.parquet", "sizes.npy", "quarantine.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "four" / name).read_bytes()

    loaded, images = load_images(tmp_path / "four")
    assert loaded.equals(rows)
    assert loaded.schema == ROW_SCHEMA
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert images.shape == (24, SIZE, SIZE, 3)
    assert images[:, 0, 0, 0].tolist() == [level_of(s) for s in loaded["source"].to_pylist()]
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [
        "images.json",
        "images.npy",
        "quarantine.parquet",
        "rows.parquet",
        "sizes.npy",
    ]


def test_built_in_faces_are_rendered_the_same_in_any_blocks(tmp_path: Path) -> None:
    spec = BuiltinData(
        identities=2,
        train_images=3,
        test_images=1,
        surrogate_identities=2,
        surrogate_images=2,
        public_identities=2,
        public_images=2,
    )
    rows = builtin_rows(spec, 0)
    one = ingest(rows, spec, 0, tmp_path / "one")
    four = ingest(rows, spec, 0, tmp_path / "four", rows_per_block=4)
    assert one.manifest == four.manifest
    loaded, images = load_images(tmp_path / "one")
    expected = render_rows(loaded["source"].to_pylist(), 0, spec.image_size)
    assert np.array_equal(images, expected)
    assert ingest(rows, spec, 1, tmp_path / "other").manifest["digest"] != one.manifest["digest"]


def test_bad_images_are_dropped_counted_and_listed(root: Path, tmp_path: Path) -> None:
    spoil(root, "ann/3.png", "cat/1.png")
    (root / "dan" / "0.png").write_bytes(b"")
    (root / "dan" / "1.png").unlink()
    (root / "dan" / "1.png").symlink_to(root / "nowhere.png")
    spec = spec_of(root, max_quarantine_fraction=0.5)
    rows = folder_rows(spec, seed=0)
    result = ingest(rows, spec, 0, tmp_path / "out", rows_per_block=5)
    assert result.rows == 20
    assert result.quarantined == {"empty file": 1, "file is gone": 1, "not an image": 2}
    listed = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert {(r["identity"], r["reason"]) for r in listed} == {
        ("ann", "not an image"),
        ("cat", "not an image"),
        ("dan", "empty file"),
        ("dan", "file is gone"),
    }
    loaded, images = load_images(tmp_path / "out")
    kept = [r for r in rows.to_pylist() if r["row_id"] not in {b["row_id"] for b in listed}]
    assert loaded.to_pylist() == kept
    assert images[:, 0, 0, 0].tolist() == [level_of(r["source"]) for r in kept]


def test_the_digest_follows_pixels_and_not_the_place(root: Path, tmp_path: Path) -> None:
    def digest(root: Path) -> str:
        spec = spec_of(root)
        return str(ingest(folder_rows(spec, 0), spec, 0, tmp_path / "out").manifest["digest"])

    before = digest(root)
    moved = root.rename(tmp_path / "elsewhere")
    assert digest(moved) == before
    Image.new("RGB", (24, 20), (1, 2, 3)).save(moved / "dan" / "0.png")
    assert digest(moved) != before


def test_too_many_bad_images_stop_the_run_with_an_example(root: Path, tmp_path: Path) -> None:
    spoil(root, "ann/3.png", "cat/1.png")
    spec = spec_of(root)
    with pytest.raises(
        QuarantineError,
        match=r"2 of 24 images \(8\.3%\) cannot be used, and data\.max_quarantine_fraction allows "
        r"1\.0%; the first is (ann/3|cat/1)\.png \(not an image\), all are listed in "
        r".*quarantine\.parquet; repair or remove them, or raise the limit$",
    ):
        ingest(folder_rows(spec, 0), spec, 0, tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "quarantine.parquet").num_rows == 2
    with pytest.raises(StoreError, match=r"missing or unfinished \(images\.json is not there\)"):
        load_images(tmp_path / "out")


@pytest.mark.parametrize(("split", "use"), [("train", "train on"), ("test", "test on")])
def test_a_private_class_that_loses_all_of_a_split_is_named(
    root: Path, tmp_path: Path, split: str, use: str
) -> None:
    spec = spec_of(root, max_quarantine_fraction=1)
    rows = folder_rows(spec, 0)
    for row in rows.to_pylist():
        if row["identity"] == "bob" and row["split"] == split:
            spoil(root, "bob/" + row["source"].split("/")[-1])
    with pytest.raises(
        TargetClassError, match=f"private class 'bob' has no readable image left to {use}; all are"
    ):
        ingest(rows, spec, 0, tmp_path / "out")


def test_a_pool_that_loses_all_its_images_is_named(root: Path, tmp_path: Path) -> None:
    spoil(root, *(f"cat/{i}.png" for i in range(5)))
    spec = spec_of(root, max_quarantine_fraction=1)
    with pytest.raises(DataError, match=r"no surrogate image can be used; all are listed in"):
        ingest(folder_rows(spec, 0), spec, 0, tmp_path / "out")


def test_a_part_of_the_rows_may_come_alone_and_lose_an_image(root: Path, tmp_path: Path) -> None:
    spoil(root, "cat/1.png")
    spec = spec_of(root, max_quarantine_fraction=0.5)
    lent = folder_rows(spec, 0).filter(pc.field("split") == "surrogate")
    assert ingest(lent, spec, 0, tmp_path / "out").rows == 4


def test_a_full_disk_is_one_sentence_before_any_pixel_is_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    spec = spec_of(root)
    with pytest.raises(DiskFullError, match=r"no space is left for .*/out; free some"):
        ingest(folder_rows(spec, 0), spec, 0, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def ingested(root: Path, tmp_path: Path) -> Path:
    spec = spec_of(root)
    ingest(folder_rows(spec, 0), spec, 0, tmp_path / "out")
    return tmp_path / "out"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing or unfinished .*delete the folder"):
        load_images(tmp_path / "none")


def test_a_torn_array_is_found(ingested: Path) -> None:
    with open(ingested / "images.npy", "r+b") as file:
        file.truncate(1000)
    with pytest.raises(StoreError, match=r"images\.npy has 1000 bytes, not \d+; delete the folder"):
        load_images(ingested)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"bytes": {"rows.parquet": "x"}}'])
def test_a_damaged_manifest_is_found(ingested: Path, text: str) -> None:
    (ingested / "images.json").write_text(text)
    with pytest.raises(StoreError, match="damaged|has .* bytes, not x"):
        load_images(ingested)


def test_rows_of_another_data_set_are_found(ingested: Path) -> None:
    pq.write_table(pa.table({"row_id": [1]}), ingested / "rows.parquet")
    manifest = json.loads((ingested / "images.json").read_text())
    manifest["bytes"]["rows.parquet"] = (ingested / "rows.parquet").stat().st_size
    (ingested / "images.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="rows and the images in .* do not belong together"):
        load_images(ingested)
