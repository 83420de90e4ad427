"""`dcdctl plan --check`: real bytes are flipped in what was really written, in every format."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from augment.encode import Codec
from augment.recipes import ROLES
from orchestrator.cli import app
from orchestrator.plan_tally import plan_digest
from orchestrator.shards import SHARD_SCHEMA
from orchestrator.verify import CheckOutcome, verify
from tasks.errors import AlteredDataError, MissingDataError, StoreError
from tests.orchestrator.written import SAMPLES, plan_table, with_key, write

FORMATS: dict[str, dict[str, Any]] = {
    "parquet": {},
    "parquet-png": {"codec": Codec("png")},
    "imagefolder": {"format_": "imagefolder"},
    "webdataset": {"format_": "webdataset"},
    "webdataset-jpeg": {"format_": "webdataset", "codec": Codec("jpeg")},
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")


@pytest.fixture(scope="module")
def written(ray: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one whole data set of each format."""
    places = {name: tmp_path_factory.mktemp(name) for name in FORMATS}
    for name, options in FORMATS.items():
        write(with_key(places[name]), **options)
    return places


@pytest.fixture(params=FORMATS)
def data(request: pytest.FixtureRequest, written: dict[str, Path], tmp_path: Path) -> Path:
    """Return a copy of a whole data set, to be spoilt."""
    return Path(shutil.copytree(written[request.param], tmp_path / "data"))


@pytest.fixture
def parquet(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["parquet"], tmp_path / "data"))


def recipes(data: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(data / "private" / "recipe.parquet").to_pylist()
    return found


def shards(data: Path) -> list[Path]:
    return sorted(p for p in (data / "public").rglob("*") if p.is_file() and p.suffix != ".json")


def stored_image(data: Path, sample_id: str) -> tuple[Path, bytes]:
    """Return the file in which a sample's image lies, and the image's bytes."""
    for path in shards(data):
        if path.stem == sample_id:
            return path, path.read_bytes()
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.name.startswith(sample_id) and not member.name.endswith("cls"):
                        return path, tar.extractfile(member).read()  # type: ignore[union-attr]
        if path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                if row["sample_id"] == sample_id:
                    return path, row["image"]
    raise AssertionError(sample_id)


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def kinds(outcome: CheckOutcome) -> list[tuple[str, str | None]]:
    return [(fault.kind, fault.sample_id) for fault in outcome.faults]


def test_what_was_written_is_whole(data: Path) -> None:
    outcome = verify(data)
    assert outcome.faults == ()
    assert outcome.samples == SAMPLES
    assert outcome.plan == plan_digest(plan_table())
    outcome.require_whole()


def test_one_flipped_byte_of_an_image_names_its_sample(data: Path) -> None:
    for recipe in recipes(data)[::7]:
        path, image = stored_image(data, recipe["sample_id"])
        offset = path.read_bytes().index(image) + len(image) // 2
        flip(path, offset)
        outcome = verify(data)
        assert kinds(outcome) == [("image differs", recipe["sample_id"])]
        assert outcome.faults[0].role == recipe["role"]
        flip(path, offset)
    assert verify(data).faults == ()


def test_any_flipped_byte_of_a_shard_is_found(data: Path) -> None:
    """Also between the images: in headers, padding and footers."""
    path = shards(data)[0]
    size = path.stat().st_size
    for offset in sorted({*range(0, size, size // 24 or 1), size - 1}):
        flip(path, offset)
        assert verify(data).faults, offset
        flip(path, offset)
    assert verify(data).faults == ()


def test_one_flipped_label_names_its_sample(data: Path) -> None:
    recipe = recipes(data)[5]
    path, image = stored_image(data, recipe["sample_id"])
    other = 1 - recipe["label"]
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        labels = [
            other if id_ == recipe["sample_id"] else label
            for id_, label in zip(
                table["sample_id"].to_pylist(), table["label"].to_pylist(), strict=True
            )
        ]
        spoilt = table.set_column(1, SHARD_SCHEMA.field("label"), pa.array(labels, pa.int32()))
        pq.write_table(spoilt, path)
    elif path.suffix == ".tar":
        start = path.read_bytes().index(f"{recipe['sample_id']}.cls".encode()) + 512
        flip(path, start)  # the digits 0 and 1 differ by one bit
    else:
        there = data / "public" / ("ann", "bob")[other] / path.name
        path.rename(there)
    assert kinds(verify(data)) == [("label differs", recipe["sample_id"])]


def test_a_removed_sample_is_named(data: Path) -> None:
    recipe = recipes(data)[3]
    edit(data, recipe["sample_id"], lambda entry: [])
    found = kinds(verify(data))
    assert ("missing sample", recipe["sample_id"]) in found
    assert {kind for kind, _ in found} <= {"missing sample", "shard differs"}
    assert len(found) <= 2


def test_an_added_sample_is_named(data: Path) -> None:
    recipe = recipes(data)[3]
    edit(data, recipe["sample_id"], lambda entry: [entry, "0123456789abcdef"])
    (kind, sample_id), *rest = kinds(verify(data))
    assert not rest
    if (data / "public" / "ann").exists():
        assert (kind, sample_id) == ("unknown file", None)
    else:
        assert (kind, sample_id) == ("unknown sample", "0123456789abcdef")


def test_a_repeated_sample_is_named(data: Path) -> None:
    id_ = recipes(data)[3]["sample_id"]
    if (data / "public" / "ann").exists():
        path, _ = stored_image(data, id_)
        shutil.copy(path, path.with_suffix(".bmp"))
    else:
        edit(data, id_, lambda entry: [entry, entry])
    assert kinds(verify(data)) == [("repeated sample", id_)]


def edit(data: Path, sample_id: str, change: Any) -> None:
    """Write the file of a sample again, with other entries in its place.

    Args:
        data: the data set.
        sample_id: whose entry is changed.
        change: from the sample's id to the ids that shall stand there.
    """
    path, _ = stored_image(data, sample_id)
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        changed = [
            row | {"sample_id": id_}
            for row in rows
            for id_ in (change(sample_id) if row["sample_id"] == sample_id else [row["sample_id"]])
        ]
        pq.write_table(pa.Table.from_pylist(changed, schema=SHARD_SCHEMA), path)
    elif path.suffix == ".tar":
        with tarfile.open(path) as tar:
            members = [(m, tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
        spoilt = path.with_suffix(".new")
        with tarfile.open(spoilt, "w", format=tarfile.USTAR_FORMAT) as tar:
            for at in range(0, len(members), 2):
                key = members[at][0].name.partition(".")[0]
                for id_ in change(sample_id) if key == sample_id else [key]:
                    for member, content in members[at : at + 2]:
                        changed_member = tarfile.TarInfo(f"{id_}.{member.name.partition('.')[2]}")
                        changed_member.size = len(content)
                        tar.addfile(changed_member, io.BytesIO(content))
        spoilt.rename(path)
    else:
        content = path.read_bytes()
        path.unlink()
        for id_ in change(sample_id):
            (path.parent / f"{id_}{path.suffix}").write_bytes(content)


def test_a_file_more_or_less_is_named(data: Path) -> None:
    gone = shards(data)[0]
    (data / "public" / "notes.txt").write_text("hello")
    expected = {("unknown file", None)}
    if gone.parent.name == "public":
        gone.unlink()
        expected |= {("missing file", None)}
    outcome = verify(data)
    assert expected <= set(kinds(outcome))
    assert "public/notes.txt" in [fault.file for fault in outcome.faults]


def test_a_changed_recipe_manifest_or_seal_is_found(parquet: Path) -> None:
    recipe = parquet / "private" / "recipe.parquet"
    manifest = parquet / "public" / "manifest.json"
    for path, kind in ((recipe, "recipe differs"), (manifest, "manifest differs")):
        for offset in (5, path.stat().st_size // 2, path.stat().st_size - 6):
            flip(path, offset)
            assert (kind, None) in kinds(verify(parquet))
            flip(path, offset)
        path.rename(path.with_suffix(".away"))
        assert ("missing file", None) in kinds(verify(parquet))
        path.with_suffix(".away").rename(path)
    table = pq.read_table(recipe)
    roles = ["clean"] * table.num_rows
    at = table.schema.get_field_index("role")
    pq.write_table(table.set_column(at, "role", pa.array(roles)), recipe)
    assert kinds(verify(parquet)) == [("recipe differs", None)]
    (parquet / "private" / "seal.json").write_text("{}")
    with pytest.raises(StoreError, match="is damaged; without it nothing can be checked"):
        verify(parquet)


def test_a_folder_that_is_not_finished_or_not_ours(parquet: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="name a folder that `dcdctl augment` wrote"):
        verify(tmp_path / "none")
    (parquet / "private" / "seal.json").unlink()
    with pytest.raises(StoreError, match="is not finished.*run the same `dcdctl augment` again"):
        verify(parquet)


def run(*args: str) -> Any:
    return CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, args, prog_name="dcdctl")


def test_the_command_says_which_sample_and_never_which_role(parquet: Path) -> None:
    whole = run("plan", "--check", str(parquet))
    assert whole.exit_code == 0
    assert whole.stdout.startswith("36 samples in 4 shards are what the recipe says\nplan ")
    recipe = recipes(parquet)[20]
    path, image = stored_image(parquet, recipe["sample_id"])
    flip(path, path.read_bytes().index(image))
    spoilt = run("plan", "--check", str(parquet))
    assert spoilt.exit_code == AlteredDataError.exit_code == 9
    assert spoilt.stdout.splitlines() == [
        "image differs: 1",
        f"  image differs: {recipe['sample_id']} in public/{path.name}",
    ]
    assert spoilt.stderr.startswith("error: 1 thing in ")
    assert not [role for role in ROLES if role in spoilt.stdout + spoilt.stderr]
    for_machines = run("plan", "--check", str(parquet), "--json")
    assert for_machines.exit_code == 9
    assert json.loads(for_machines.stdout)["faults"][0]["role"] == recipe["role"]


def test_check_takes_no_settings(parquet: Path) -> None:
    assert run("plan", "--check", str(parquet), "--seed", "1").exit_code == 2


def test_a_name_from_outside_is_safe_for_a_terminal(parquet: Path) -> None:
    (parquet / "public" / "\x1b[2J[red]").write_text("")
    stdout = run("plan", "--check", str(parquet)).stdout
    assert "unknown file: public/\\x1b[2J[red]" in stdout
