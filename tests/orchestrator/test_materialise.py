"""Writing a protected data set: the right pixels, nothing that tells a decoy, and going on."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from augment.dcd import apply_recipes
from augment.encode import Codec
from augment.recipes import ROLES
from orchestrator.block_stream import Batch
from orchestrator.image_files import ImageFiles
from orchestrator.materialise import Materialised, materialise, recipe_of, write_recipes
from orchestrator.shards import SHARD_SCHEMA, Format
from orchestrator.verify import verify
from tasks.errors import SpecError, StoreError
from tasks.types import Image8
from tests.orchestrator.written import (
    SIZE,
    pixel_array,
    plan_table,
    public_files,
    row_table,
    with_key,
    write,
)

ROOT = Path(__file__).parents[2]
FORMATS: tuple[Format, ...] = get_args(Format)

pytestmark = [
    pytest.mark.usefixtures("ray"),
    # Ray warns about defaults of its own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]


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
            np.array([recipe["truncate"]]),
        )[0]
        shown = np.frombuffer(sample["image"], np.uint8).reshape(SIZE, SIZE, 3)
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


def names_in(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.getnames()


@pytest.mark.parametrize("form", FORMATS)
def test_the_public_part_does_not_tell_a_decoy(tmp_path: Path, form: Format) -> None:
    result = write(with_key(tmp_path), format_=form)
    files = public_files(tmp_path)
    recipe = pq.read_table(result.recipe)
    ids = recipe["sample_id"].to_pylist()
    assert ids == sorted(ids)
    assert recipe["recipe_id"].to_pylist() != sorted(recipe["recipe_id"].to_pylist())
    private = [*ROLES, "sigma", "recipe", "secret", "cat", "source", "sample.key"]
    for name, content in files.items():
        assert not [word for word in private if word.encode() in content or word in name]
    manifest = json.loads(files.pop("manifest.json"))
    keys = {"samples", "image_size", "format", "codec", "classes", "shards"}
    assert set(manifest) == keys
    # Names, and the order of the samples in a file, are those of the ids: hashes under the key.
    if form == "imagefolder":
        assert sorted(Path(name).stem for name in files) == ids
        assert {Path(name).parent.name for name in files} == {"ann", "bob"}
    elif form == "webdataset":
        members = [member for name in sorted(files) for member in names_in(files[name])]
        assert members == [f"{id_}.{end}" for id_ in ids for end in ("png", "cls")]
    else:
        assert [s["sample_id"] for s in samples_of(tmp_path)] == ids
    times = {p.stat().st_mtime_ns for p in (tmp_path / "public").rglob("*")}
    modes = {p.stat().st_mode for p in (tmp_path / "public").rglob("*") if p.is_file()}
    assert len(times) == len(modes) == 1
    assert (tmp_path / "private").stat().st_mode & 0o077 == 0
    assert result.recipe.stat().st_mode & 0o077 == 0


def test_all_that_is_stored_beside_an_image_is_of_one_size(tmp_path: Path) -> None:
    """In a tar, and in bare pixels, nothing but the image differs from sample to sample."""
    write(tmp_path / "tar", format_="webdataset")
    for path in (tmp_path / "tar" / "public").glob("*.tar"):
        with tarfile.open(path) as tar:
            headers = {
                (m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, m.type, len(m.name), m.size)
                for m in tar
                if m.name.endswith(".cls")
            }
            owners = {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime, m.type) for m in tar}
        assert headers == {(0o644, 0, 0, "", "", 0, tarfile.REGTYPE, 20, 1)}
        assert len(owners) == 1
    write(tmp_path / "raw")
    samples = samples_of(tmp_path / "raw")
    assert {len(sample["image"]) for sample in samples} == {SIZE * SIZE * 3}
    assert {len(sample["sample_id"]) for sample in samples} == {16}


def test_every_format_holds_the_same_images_and_labels(tmp_path: Path) -> None:
    for form in FORMATS:
        write(with_key(tmp_path / form), format_=form)
    expected = {s["sample_id"]: (s["label"], s["image"]) for s in samples_of(tmp_path / "parquet")}
    in_folder, in_tar = {}, {}
    for path in (tmp_path / "imagefolder" / "public").glob("*/*.png"):
        label = ("ann", "bob").index(path.parent.name)
        in_folder[path.stem] = (label, np.asarray(Image.open(path)).tobytes())
    for path in (tmp_path / "webdataset" / "public").glob("*.tar"):
        with tarfile.open(path) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        for name, content in files.items():
            key, _, ending = name.partition(".")
            if ending == "png":
                pixels = np.asarray(Image.open(io.BytesIO(content))).tobytes()
                in_tar[key] = (int(files[f"{key}.cls"]), pixels)
    assert in_folder == in_tar == expected


def test_the_recipe_has_the_hashes_of_source_and_image(tmp_path: Path) -> None:
    result = write(tmp_path)
    samples = {sample["sample_id"]: sample for sample in samples_of(tmp_path)}
    for recipe in pq.read_table(result.recipe).to_pylist():
        source = pixel_array()[recipe["source_row"]].tobytes()
        image = samples[recipe["sample_id"]]["image"]
        assert recipe["source_sha256"] == hashlib.sha256(source).digest()
        assert recipe["image_sha256"] == hashlib.sha256(image).digest()
    assert recipe_of(pq.read_table(result.recipe)).equals(plan_table())


def test_a_codec_is_used_and_named(tmp_path: Path) -> None:
    write(tmp_path, codec=Codec("webp-lossless"))
    assert pq.read_schema(tmp_path / "public" / "part-00000.parquet").metadata[b"codec"] == (
        b"webp-lossless"
    )
    with Image.open(io.BytesIO(samples_of(tmp_path)[0]["image"])) as image:
        assert image.format == "WEBP"


def test_bare_pixels_are_refused_where_a_file_must_say_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="raw has no file format of its own in webdataset; use png"):
        write(tmp_path, format_="webdataset", codec=Codec("raw"))
    assert not list(tmp_path.iterdir())


def test_mapped_images_are_read_by_the_workers_and_never_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pixel_array()
    np.save(tmp_path / "a.npy", pixels[:5])
    np.save(tmp_path / "b.npy", pixels[5:])
    write(with_key(tmp_path / "whole"))

    def refuse(array: Image8) -> None:
        raise AssertionError("images went into the object store")

    monkeypatch.setattr("orchestrator.image_files.share", refuse)
    parts = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ab"]
    out = with_key(tmp_path / "mapped")
    materialise(plan_table(), row_table(), ImageFiles.of(parts), out, samples_per_shard=10)
    assert public_files(out) == public_files(tmp_path / "whole")


def test_a_part_of_a_mapped_file_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    pixels = pixel_array()
    np.save(tmp_path / "a.npy", pixels)
    half = np.load(tmp_path / "a.npy", mmap_mode="r")[6:]
    files = ImageFiles.of([half])
    assert np.array_equal(files.take(np.array([0, 5, 2])), pixels[[6, 11, 8]])


def test_recipes_alone_are_written_without_pixels_and_can_be_gone_on_from(tmp_path: Path) -> None:
    path = write_recipes(plan_table(), row_table(), tmp_path)
    recipe = pq.read_table(path)
    assert recipe_of(recipe).equals(plan_table())
    assert recipe["row_id"].to_pylist() == [1000 + i for i in recipe["source_row"].to_pylist()]
    assert [p.name for p in tmp_path.iterdir()] == ["private"]
    ids = recipe["sample_id"].to_pylist()
    write(tmp_path)
    assert [sample["sample_id"] for sample in samples_of(tmp_path)] == ids
    write_recipes(plan_table(), row_table(), tmp_path)  # nothing is lost by saying it again
    assert verify(tmp_path).faults == ()
    with pytest.raises(StoreError, match="holds a data set of another plan"):
        write_recipes(plan_table(2), row_table(), tmp_path)


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
    (torn / "private" / "shards" / "00001.parquet").unlink()  # written, but not noted
    (torn / "private" / "shards" / "00003.parquet").unlink()
    (torn / "public" / "part-00003.parquet").unlink()
    (torn / "public" / ".part-00003.parquet.123.partial").write_bytes(b"half")
    kept = (torn / "public" / "part-00000.parquet").stat().st_ino
    seen: list[tuple[int, int]] = []
    result = write(torn, on_progress=lambda done, total: seen.append((done, total)))
    assert result.written == 2
    assert seen[0] == (20, 36)  # what was there already
    assert seen[-1] == (36, 36)
    assert (torn / "public" / "part-00000.parquet").stat().st_ino == kept
    assert public_files(torn) == public_files(whole)
    assert write(torn).written == 0


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_that_is_really_killed_goes_on_where_it_was(tmp_path: Path, form: Format) -> None:
    """SIGKILL to a process in the middle of writing, as soon as two shards are complete."""
    whole, torn = with_key(tmp_path / "whole"), with_key(tmp_path / "torn")
    write_all(form, whole)
    driver = "import sys; from tests.orchestrator.test_materialise import write_all as w; " + (
        "from pathlib import Path; w(sys.argv[1], Path(sys.argv[2]), wait_s=0.02)"
    )
    process = subprocess.Popen([sys.executable, "-c", driver, form, str(torn)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(list((torn / "private" / "shards").glob("[0-9]*.parquet"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline, "no shard was written in a minute"
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (torn / "public" / "manifest.json").exists()
    complete = len(list((torn / "private" / "shards").glob("[0-9]*.parquet")))
    first = min(p for p in (torn / "public").rglob("*") if p.is_file() and p.name[0] != ".")
    kept = first.stat().st_ino
    result = write_all(form, torn)
    assert 0 < result.written <= 36 - complete
    assert first.stat().st_ino == kept
    assert public_files(torn) == public_files(whole)
    assert verify(torn).faults == ()


def write_all(form: str, out: Path, wait_s: float = 0) -> Materialised:
    """Write the small data set, one sample a shard, without Ray: `map_blocks` is tested elsewhere.

    Args:
        form: a format.
        out: the folder.
        wait_s: between shards, so that a killer has time.
    """

    def in_turn(
        blocks: Sequence[pa.Table], function: Callable[[pa.Table], Batch]
    ) -> Iterator[Batch]:
        for block in blocks:
            time.sleep(wait_s)
            yield function(block)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.materialise.map_blocks", in_turn)
        files = ImageFiles((pixel_array,), (12,), (SIZE, SIZE, 3), "digest")
        return materialise(
            plan_table(), row_table(), files, out, format_=cast(Format, form), samples_per_shard=1
        )


def test_a_shard_that_was_noted_and_then_damaged_is_written_again(tmp_path: Path) -> None:
    write(with_key(tmp_path))
    before = public_files(tmp_path)
    shard = tmp_path / "public" / "part-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert write(tmp_path).written == 1
    (tmp_path / "public" / "part-00001.parquet").unlink()
    assert write(tmp_path).written == 1
    assert public_files(tmp_path) == before


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
