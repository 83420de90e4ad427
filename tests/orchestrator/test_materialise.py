"""Writing a protected data set: the right pixels, nothing that tells a decoy, and going on."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from augment.dcd import apply_recipes
from augment.recipes import PLAN_SCHEMA, ROLES
from orchestrator.materialise import SHARD_SCHEMA, materialise
from tasks.errors import StoreError
from tasks.types import ROW_SCHEMA, Image8

SIZE = 8
ROWS = 12

pytestmark = [
    pytest.mark.usefixtures("ray"),
    # Ray warns about defaults of its own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


def row_table() -> pa.Table:
    """Return two private classes of four rows, and a surrogate of four."""
    who = [("ann", 0, "train")] * 4 + [("bob", 1, "train")] * 4 + [("cat", -1, "surrogate")] * 4
    return pa.Table.from_pylist(
        [
            {
                "row_id": 1000 + i,
                "identity": identity,
                "label": label,
                "split": split,
                "source": f"file:///secret/{identity}/{i}.png",
                "attributes": [],
            }
            for i, (identity, label, split) in enumerate(who)
        ],
        schema=ROW_SCHEMA,
    )


def pixel_array() -> Image8:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (ROWS, SIZE, SIZE, 3), dtype=np.uint8)


def plan_table(copies: int = 3) -> pa.Table:
    """Return `copies` recipes of each row, every role and noise among them, decoys last."""
    recipes = [
        {
            "recipe_id": 10_000 + len(ROLES) * i + copy,
            "source_row": i,
            "label": (i // 4 + copy) % 2,
            "role": ROLES[copy + (i >= 8)],
            "sigma": 0.1 * copy,
            "seed": 77 * i + copy,
            "truncate": False,
        }
        for copy in range(copies)
        for i in range(ROWS)
    ]
    return pa.Table.from_pylist(recipes, schema=PLAN_SCHEMA)


def with_key(out: Path, byte: bytes = b"k") -> Path:
    (out / "private").mkdir(parents=True)
    (out / "private" / "sample.key").write_bytes(byte * 32)
    return out


def write(out: Path, **options: Any) -> Any:
    defaults: dict[str, Any] = {"samples_per_shard": 10}
    return materialise(plan_table(), row_table(), pixel_array(), out, **(defaults | options))


def public_files(out: Path) -> dict[str, bytes]:
    public = out / "public"
    return {str(p.relative_to(public)): p.read_bytes() for p in public.rglob("*") if p.is_file()}


def samples_of(out: Path) -> list[dict[str, Any]]:
    parts = sorted((out / "public").glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_every_recipe_is_one_sample_with_its_label_and_rounded_pixels(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int]] = []
    capfd.readouterr()
    result = write(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert capfd.readouterr() == ("", "")
    assert (result.samples, result.shards, result.written) == (36, 4, 4)
    assert seen[-1] == (36, 36)
    assert pq.read_schema(tmp_path / "public" / "part-00000.parquet") == SHARD_SCHEMA
    recipes = {r["sample_id"]: r for r in pq.read_table(result.recipe).to_pylist()}
    samples = samples_of(tmp_path)
    assert len(samples) == len(recipes) == 36
    for sample in samples:
        recipe = recipes[sample["sample_id"]]
        source = pixel_array()[recipe["source_row"]]
        expected = apply_recipes(
            source[None],
            np.array([recipe["sigma"]], np.float32),
            np.array([recipe["seed"]], np.uint64),
        )[0]
        shown = np.asarray(Image.open(io.BytesIO(sample["image"])))
        assert sample["label"] == recipe["label"]
        assert recipe["row_id"] == 1000 + recipe["source_row"]
        assert (sample["height"], sample["width"]) == (SIZE, SIZE)
        assert np.abs(shown / 255 - expected).max() <= 0.5 / 255 + 1e-6  # rounded, not truncated
        if recipe["sigma"] == 0:
            assert np.array_equal(shown, source)


def test_the_files_depend_on_plan_images_and_key_alone(tmp_path: Path) -> None:
    a, b, c = (with_key(tmp_path / n, key) for n, key in (("a", b"k"), ("b", b"k"), ("c", b"x")))
    write(a)
    materialise(plan_table().slice(7), row_table(), pixel_array(), c, samples_per_shard=10)
    rng = np.random.default_rng(1)
    shuffled = plan_table().take(rng.permutation(plan_table().num_rows))
    materialise(shuffled, row_table(), pixel_array(), b, samples_per_shard=10)
    assert public_files(a) == public_files(b)
    assert not {s["sample_id"] for s in samples_of(a)} & {s["sample_id"] for s in samples_of(c)}


def test_the_public_part_does_not_tell_a_decoy(tmp_path: Path) -> None:
    result = write(with_key(tmp_path))
    files = public_files(tmp_path)
    assert sorted(files) == ["manifest.json", *(f"part-{i:05d}.parquet" for i in range(4))]
    private = [*ROLES, "sigma", "recipe", "secret", "cat", "source", "sample.key"]
    for content in files.values():
        assert not [word for word in private if word.encode() in content]
    recipe = pq.read_table(result.recipe)
    order = [s["sample_id"] for s in samples_of(tmp_path)]
    assert order == sorted(order) == recipe["sample_id"].to_pylist()
    assert recipe["recipe_id"].to_pylist() != sorted(recipe["recipe_id"].to_pylist())
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0


def test_ids_differ_between_two_data_sets_of_the_same_seed(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    ids = [{s["sample_id"] for s in samples_of(tmp_path / n)} for n in "ab"]
    assert not ids[0] & ids[1]


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, torn = with_key(tmp_path / "whole"), with_key(tmp_path / "torn")
    write(whole)
    write(torn)
    (torn / "public" / "manifest.json").unlink()
    (torn / "private" / "shards" / "00001.json").unlink()  # written, but not noted
    (torn / "private" / "shards" / "00003.json").unlink()
    (torn / "public" / "part-00003.parquet").unlink()
    (torn / "public" / ".part-00003.parquet.123.partial").write_bytes(b"half")
    kept = (torn / "public" / "part-00000.parquet").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    result = write(torn, on_progress=lambda done, total: seen.append((done, total)))
    assert result.written == 2
    assert seen[0][0] > 20
    assert seen[-1] == (36, 36)
    assert (torn / "public" / "part-00000.parquet").stat().st_mtime_ns == kept
    assert public_files(torn) == public_files(whole)
    assert write(torn).written == 0


def test_imagefolder_has_a_folder_for_each_class(tmp_path: Path) -> None:
    result = write(tmp_path, format_="imagefolder")
    recipes = {r["sample_id"]: r for r in pq.read_table(result.recipe).to_pylist()}
    images = sorted((tmp_path / "public").glob("*/*.png"))
    assert len(images) == 36
    for path in images:
        assert path.parent.name == ("ann", "bob")[recipes[path.stem]["label"]]
    manifest = json.loads((tmp_path / "public" / "manifest.json").read_text())
    assert (manifest["samples"], manifest["classes"]) == (36, ["ann", "bob"])


def test_a_folder_of_another_plan_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path)
    before = public_files(tmp_path)
    with pytest.raises(StoreError, match="holds a data set of another plan.*give --out an empty"):
        materialise(plan_table(2), row_table(), pixel_array(), tmp_path, samples_per_shard=10)
    with pytest.raises(StoreError, match="another format; give --out an empty folder"):
        write(tmp_path, format_="imagefolder")
    assert public_files(tmp_path) == before


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is not empty; give --out a new or an empty folder"):
        write(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_relative_folder_is_meant_from_where_the_caller_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("protected"))
    assert len(samples_of(tmp_path / "protected")) == 36


def test_two_recipes_with_one_id_are_refused(tmp_path: Path) -> None:
    plan = pa.concat_tables([plan_table(1), plan_table(1)])
    with pytest.raises(StoreError, match="two recipes of the plan have the same id; change the"):
        materialise(plan, row_table(), pixel_array(), tmp_path)


def test_an_error_on_a_worker_arrives_as_its_sentence(tmp_path: Path) -> None:
    write(tmp_path, format_="imagefolder")
    shutil.rmtree(tmp_path / "private" / "shards")
    shutil.rmtree(tmp_path / "public" / "ann")
    (tmp_path / "public" / "ann").write_text("a file where a folder must be")
    with pytest.raises(StoreError, match=r"^cannot write .*/public/ann/\w+\.png"):
        write(tmp_path, format_="imagefolder")
