"""`dcdctl augment` on the built-in faces: one fingerprint everywhere, recipes without pixels."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from augment.encode import Codec
from augment.spec import ProtectSpec
from orchestrator.commands import augment
from orchestrator.planning import plan_summary
from orchestrator.progress import Pace
from orchestrator.spec import ExperimentSpec
from orchestrator.verify import verify
from tasks.datasets.spec import BuiltinData
from tasks.errors import SpecError
from tests.orchestrator.written import public_files

pytestmark = [
    pytest.mark.usefixtures("ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

QUIET = Console(quiet=True)


@pytest.fixture
def spec(tmp_path: Path) -> ExperimentSpec:
    return ExperimentSpec(
        storage=str(tmp_path / "storage"),
        data=BuiltinData(
            identities=4,
            train_images=3,
            test_images=1,
            surrogate_identities=6,
            surrogate_images=3,
            public_identities=2,
            public_images=1,
            image_size=16,
        ),
        protect=ProtectSpec(targets=2, surrogates="attribute-opposite"),
    )


def test_plan_recipes_data_set_and_check_agree_on_the_plan(
    spec: ExperimentSpec, tmp_path: Path
) -> None:
    planned = plan_summary(spec)
    recipes = augment(spec, tmp_path / "out", QUIET, recipes_only=True)
    assert not (Path(spec.storage) / "artifacts" / "images").exists()  # nothing was decoded
    assert not (tmp_path / "out" / "public").exists()
    assert (recipes.shards, recipes.rows) == (0, planned.rows_after)
    written = augment(spec, tmp_path / "out", QUIET, "webdataset", samples_per_shard=7)
    assert written.shards == -(-planned.rows_after // 7)
    checked = verify(tmp_path / "out")
    assert checked.faults == ()
    assert planned.fingerprint == recipes.plan == written.plan == checked.plan
    recipe = pq.read_table(tmp_path / "out" / "private" / "recipe.parquet")
    wanted = {"role", "source_sha256", "label", "sigma", "seed", "row_id"}
    assert wanted <= set(recipe.column_names)


def test_codec_and_format_reach_the_files(spec: ExperimentSpec, tmp_path: Path) -> None:
    augment(spec, tmp_path / "out", QUIET, "imagefolder", codec=str(Codec("jpeg", 80)))
    files = [p for p in (tmp_path / "out" / "public").rglob("*") if p.is_file()]
    assert {p.suffix for p in files} == {".jpg", ".json"}
    with pytest.raises(SpecError, match="--codec 'gif' is not known"):
        augment(spec, tmp_path / "other", QUIET, codec="gif")


@pytest.mark.slow  # two commands with a Ray of their own: what a person does, all real
def test_a_killed_command_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    line: list[str | Path] = [
        Path(sys.executable).with_name("dcdctl"),
        "augment",
        "--format",
        "webdataset",
    ]
    line += ["--samples-per-shard", "60", "--storage", tmp_path / "storage"]
    line += ["-s", "data.image_size=64", "-s", "protect.surrogates=attribute-opposite", "--out"]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    subprocess.run([*line, whole], check=True, capture_output=True)
    (torn / "private").mkdir(parents=True)
    shutil.copy(whole / "private" / "sample.key", torn / "private")
    process = subprocess.Popen([*line, torn], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((torn / "private" / "shards").glob("[0-9]*.parquet"))) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline, "four shards were not written in two minutes"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (torn / "public" / "manifest.json").exists()
    subprocess.run([*line, torn], check=True, capture_output=True)
    assert public_files(torn) == public_files(whole)
    assert verify(torn).faults == ()


def test_pace_counts_from_where_a_run_went_on() -> None:
    seconds = iter([100.0, 110.0, 200.0])
    pace = Pace(lambda: next(seconds))
    assert pace.note(5_000, 10_000) == "5,000 of 10,000"
    assert pace.note(6_000, 10_000) == "6,000 of 10,000, 100 a second, about 40 s left"
    assert pace.note(7_000, 10_000) == "7,000 of 10,000, 20 a second, about 2 min left"
