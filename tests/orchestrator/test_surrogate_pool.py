"""Where surrogates come from, as whole commands on a tiny folder of images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.config import load_spec
from orchestrator.redaction import public_settings
from orchestrator.selection import choose, pooled_rows, select
from orchestrator.store import Store
from tasks.datasets.builtin import render_rows

CLASSES = {"ann": 60, "bob": 200, "cat": 130, "dan": 20, "eve": 240, "fay": 120, "gus": 125}
SIZE = 24


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Seven people, each of one shade of grey and a little light."""
    rng = np.random.default_rng(0)
    for name, shade in CLASSES.items():
        (tmp_path / "faces" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.clip(rng.normal(shade, 9, (40, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces" / name / f"{i}.png")
    settings: dict[str, Any] = {
        "storage": str(tmp_path / "store"),
        "data": {
            "kind": "folder",
            "root": str(tmp_path / "faces"),
            "private": ["ann", "bob", "cat"],
            "surrogates": ["dan", "eve"],
            "public": ["fay", "gus"],
            "image_size": SIZE,
        },
        "protect": {"targets": ["ann", "bob"]},
        "tracking": {"enabled": False},
        "compute": {"cpus": 1},
    }
    path = tmp_path / "faces.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(*words: str | Path) -> str:
    found = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [*map(str, words)])
    assert found.exit_code == 0, found.output
    return found.stdout


def fails(code: int, *words: str | Path) -> str:
    found = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, [*map(str, words)])
    assert found.exit_code == code, found.output
    assert "Traceback" not in found.output
    return found.output


DRAWN = [
    "protect.surrogate_pool=builtin",
    "protect.pool_identities=7",
    "protect.pool_images=5",
    "data.surrogates=[]",
]


@pytest.mark.usefixtures("ray")
def test_drawn_faces_lend_their_images_to_a_folder(config: Path, tmp_path: Path) -> None:
    changes = [word for change in DRAWN for word in ("--set", change)]
    planned = json.loads(run("plan", config, "--json", *changes))
    assert planned["counts"]["surrogate"] > 0
    run("augment", config, "--out", tmp_path / "out", "--codec", "png", *changes)
    recipe = pq.read_table(tmp_path / "out" / "private" / "recipe.parquet").to_pandas()
    shards = (tmp_path / "out" / "public").glob("part-*.parquet")
    images = pa.concat_tables([pq.read_table(shard) for shard in shards]).to_pandas()
    both = recipe.merge(images, on="sample_id", suffixes=("", "_out"))
    assert len(both) == len(recipe) == len(images)

    rows = pooled_rows(load_spec(config, DRAWN)).to_pandas().set_index("row_id")
    lent = both[both.role == "surrogate"]
    assert len(lent) == planned["counts"]["surrogate"]
    for row_id, png in zip(lent.row_id, lent.image, strict=True):
        source = rows.loc[row_id].source
        assert source.startswith("builtin:surrogate/")
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        assert np.array_equal(pixels, render_rows([source], 0, SIZE)[0])
    clean = both[both.role == "clean"]
    assert all(rows.loc[row_id].source.startswith("file:") for row_id in clean.row_id)


def test_held_out_identities_lend_and_are_no_class(config: Path) -> None:
    spec = load_spec(
        config,
        [
            "data.private=[ann, bob, cat, dan, eve]",
            "data.surrogates=[]",
            "protect.surrogate_pool=held-out",
            "protect.pool_identities=2",
        ],
    )
    selection = select(spec)
    assert selection.num_classes == 3
    lent = {who.identity for target in selection.targets for who in target.lenders}
    assert len(lent) == 2
    assert lent < {"cat", "dan", "eve"}
    private = selection.split("train", "test").to_pandas()
    assert not lent & set(private.identity)


@pytest.mark.usefixtures("ray")
def test_pixels_choose_whoever_looks_most_different(config: Path) -> None:
    spec = load_spec(config, ["protect.surrogates=embedding-distant"])
    store = Store(spec.storage)
    selection = choose(spec, store, lambda *_: None)
    by = {target.identity: target.surrogates[0].identity for target in selection.targets}
    assert by == {"ann": "eve", "bob": "dan"}  # dark gets light, and light gets dark
    again = choose(spec, store, lambda *_: pytest.fail("the pictures were read again"))
    assert again.targets == selection.targets


def test_an_embedding_file_and_a_list_decide(config: Path, tmp_path: Path) -> None:
    vectors = {"ann": [0.0], "bob": [1.0], "dan": [5.0], "eve": [-5.0]}
    table = pa.table({"identity": list(vectors), "vector": list(vectors.values())})
    pq.write_table(table, tmp_path / "e.parquet")
    (tmp_path / "l.csv").write_text("target,surrogate\nann,eve\nbob,eve\n")
    changes = ["protect.surrogates=embedding-distant", f"protect.embedding={tmp_path}/e.parquet"]
    spec = load_spec(config, changes)
    targets = select(spec).targets
    assert [one.surrogates[0].identity for one in targets] == ["dan", "eve"]
    assert str(tmp_path) not in json.dumps(public_settings(spec)["protect"])
    listed = load_spec(
        config, ["protect.surrogates=listed", f"protect.surrogate_list={tmp_path}/l.csv"]
    )
    assert [one.surrogates[0].identity for one in select(listed).targets] == ["eve", "eve"]
    assert str(tmp_path) not in json.dumps(public_settings(listed)["protect"])


def test_surrogates_are_shared_up_to_the_cap(config: Path) -> None:
    many = ["data.surrogates=[dan]", "protect.max_targets_per_surrogate=2"]
    targets = select(load_spec(config, many)).targets
    assert [one.surrogates[0].identity for one in targets] == ["dan", "dan"]
    two = ["protect.surrogates_per_target=1", "protect.decoys=1", many[1]]
    for one in select(load_spec(config, two)).targets:
        assert len(one.surrogates) == len(one.decoys) == 1
        assert {who.identity for who in one.lenders} == {"dan", "eve"}


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        (["data.surrogates=[]"], 2, "data.surrogates is an empty list; name classes that may"),
        (["data.surrogates=[dan]"], 3, "2 targets but only 1 surrogate identities; protect"),
        (["protect.decoys=1"], 3, "2 targets, 2 for each, but only 2 surrogate identities;"),
        (["protect.surrogates=listed"], 2, "surrogates=listed and surrogate_list=FILE go together"),
        (
            ["protect.surrogates=listed", "protect.surrogate_list=nowhere.csv"],
            3,
            "protect.surrogate_list='nowhere.csv' does not exist; name a .csv or .parquet file",
        ),
        (
            ["protect.surrogates=embedding-distant", "protect.embedding=nowhere.npy"],
            3,
            "protect.embedding='nowhere.npy' does not exist; name a .parquet or .npy file",
        ),
        (["protect.surrogates=embedding"], 2, "did you mean 'embedding-distant'?"),
        (
            ["protect.surrogates=attribute-opposite", "protect.opposite.preset=celeba"],
            3,
            "uses the attribute 'Male', but the data carries no attributes; use",
        ),
        (["protect.opposite.preset=celebA"], 2, "did you mean 'celeba'?"),
        (["protect.opposite.steps=[[A -> ]]"], 2, "is no contrast; write an attribute"),
        (["protect.max_targets_per_surrogate=0"], 2, "is 0 and must be a whole number at least 1"),
        (
            ["protect.surrogate_pool=held-out", "protect.targets=1"],
            3,
            "pool_identities=100 cannot be held out of 3 private identities",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(
    config: Path, changes: list[str], code: int, sentence: str
) -> None:
    words = [word for change in changes for word in ("--set", change)]
    said = fails(code, "plan", config, *words)
    assert sentence in said
