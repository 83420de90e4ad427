"""Bad input, each as the whole command: one sentence, a documented exit code, nothing lost."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.ingest import TWO_NAMES
from orchestrator.store import Store
from tasks.datasets.sources import source_path
from tests.tasks.test_decode import BAD, ODD

pytestmark = pytest.mark.usefixtures("ray")

CLASSES = ("ann", "bob", "cat", "dan", "eve", "fay")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Six people with six images each: three private, two lend theirs, one is public."""
    for label, name in enumerate(CLASSES):
        folder = tmp_path / "faces" / name
        folder.mkdir(parents=True)
        for i in range(6):
            noise = np.random.default_rng(10 * label + i).integers(0, 99, (24, 24, 3), np.uint8)
            Image.fromarray(noise + np.uint8(25 * label)).save(folder / f"{i}.png")
    settings = {
        "storage": str(tmp_path / "store"),
        "data": {
            "kind": "folder",
            "root": str(tmp_path / "faces"),
            "private": list(CLASSES[:3]),
            "surrogates": list(CLASSES[3:5]),
            "public": [CLASSES[5]],
        },
        "protect": {"targets": ["ann"]},
        "tracking": {"enabled": False},
    }
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def fails(config: Path, code: int, *args: str, command: str = "sweep") -> str:
    """Run a command that must fail with this code; return its one sentence."""
    words = [command, str(config), *args]
    found = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, words)
    assert found.exit_code == code, found.output
    assert "Traceback" not in found.output
    last = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert len(last) == 1, found.stderr
    return last[0]


def replace(config: Path, name: str, content: bytes) -> Path:
    path = config.parent / "faces" / "ann" / name
    path.write_bytes(content)
    return path


def test_a_missing_folder(config: Path) -> None:
    shutil.rmtree(config.parent / "faces")
    assert "does not exist; name the folder of the images" in fails(config, 3)


def test_a_missing_class(config: Path) -> None:
    shutil.rmtree(config.parent / "faces" / "bob")
    assert "class 'bob' is not in" in fails(config, 3)


def test_an_empty_class(config: Path) -> None:
    for image in (config.parent / "faces" / "bob").iterdir():
        image.unlink()
    assert "private class 'bob' has 0 images" in fails(config, 3)


def test_a_class_with_one_image(config: Path) -> None:
    for image in sorted((config.parent / "faces" / "bob").iterdir())[1:]:
        image.unlink()
    assert "private class 'bob' has 1 image in" in fails(config, 3)


def test_a_target_that_cannot_be_divided(config: Path) -> None:
    for image in sorted((config.parent / "faces" / "ann").iterdir())[2:]:
        image.unlink()
    assert "target 'ann' has 1 training image;" in fails(config, 3, command="plan")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 200, "not an image"),
        (b"This is a letter.\n", "not an image"),
        (b"", "empty file"),
    ],
    ids=["corrupt", "text", "empty"],
)
def test_an_image_that_is_none(config: Path, content: bytes, reason: str) -> None:
    replace(config, "7.jpg", content)
    said = fails(config, 3)
    assert f"the first is ann/7.jpg ({reason})" in said
    assert "of 19 images" in said
    assert "data.max_quarantine_fraction allows 1.0%" in said


def test_a_truncated_image(config: Path) -> None:
    whole = (config.parent / "faces" / "ann" / "0.png").read_bytes()
    replace(config, "0.png", whole[: len(whole) // 2])
    assert "the first is ann/0.png (truncated)" in fails(config, 3)


def test_what_cannot_be_read_is_set_aside_and_the_run_goes_on(config: Path) -> None:
    replace(config, "7.jpg", b"This is a letter.\n")
    out = config.parent / "out"
    words = ["augment", str(config), "--out", str(out), "--set", "data.max_quarantine_fraction=0.2"]
    found = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, words)
    assert found.exit_code == 0, found.output
    assert re.search(r"set aside, not an image +1 ", found.output), found.output


@pytest.mark.parametrize("value", ["1.5", "-0.1", "much"])
def test_a_fraction_out_of_range(config: Path, value: str) -> None:
    said = fails(config, 2, "--set", f"dcd.mislabel_fraction={value}")
    assert "dcd.mislabel_fraction" in said
    assert value in said


def test_an_unknown_key(config: Path) -> None:
    config.write_text(config.read_text() + "sed: 3\n")
    said = fails(config, 2)
    assert f"{config}:" in said
    assert "seed" in said


def test_more_targets_than_surrogates(config: Path) -> None:
    said = fails(config, 3, "--set", "protect.targets=3")
    assert "3 targets but only 2 surrogate identities; protect fewer" in said


def test_a_surrogate_that_is_a_target(config: Path) -> None:
    said = fails(config, 3, "--set", "protect.surrogates={ann: ann}")
    assert "gives 'ann' the surrogate 'ann', which is a private class" in said


def augmented(config: Path) -> dict[str, str]:
    """Run `augment` on the files as they are; return what was set aside, by file name."""
    words = ["augment", str(config), "--out", str(config.parent / "out")]
    words += ["--set", "data.max_quarantine_fraction=1"]
    found = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "Traceback" not in found.output
    aside: dict[str, str] = {}
    for path in (config.parent / "store" / "artifacts" / "images").glob("*/quarantine.parquet"):
        for row in pq.read_table(path).to_pylist():
            aside[source_path(row["source"]).name] = row["reason"]
    for reason in set(aside.values()):
        assert f"set aside, {reason}" in found.output
    return aside


def test_every_bad_file_at_once_is_set_aside_and_the_others_go_on(config: Path) -> None:
    expected = {}
    for number, (data, reason) in enumerate(BAD.values()):
        replace(config, name := f"bad-{number}.jpg", data)
        expected[name] = reason
    for number, (data, _) in enumerate(ODD.values()):  # odd ones are used
        replace(config, f"odd-{number}.jpg", data)
    aside = {name: why for name, why in augmented(config).items() if name.startswith("bad")}
    assert aside == expected
    assert len(BAD) + len(ODD) >= 60


def test_a_picture_under_two_names_is_nobodys(config: Path) -> None:
    faces = config.parent / "faces"
    shutil.copy(faces / "bob" / "0.png", faces / "ann" / "copied.png")
    shutil.copy(faces / "cat" / "0.png", faces / "cat" / "again.png")  # hers both times
    assert augmented(config) == {"0.png": TWO_NAMES, "copied.png": TWO_NAMES}


def test_a_second_sweep_on_the_same_storage(config: Path) -> None:
    program = (
        "import sys, time\n"
        "from orchestrator.store import Store\n"
        "with Store(sys.argv[1]).locked():\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    storage = config.parent / "store"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(storage)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        assert f"in use by process {holder.pid} on" in fails(config, 6)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system that holds the images and not a checkpoint."""
    place = tmp_path / "store"
    place.mkdir()
    size = "size=200k"
    line = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(place)]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_too_small_is_said_before_anything_runs(
    config: Path, small_disk: Path
) -> None:
    said = fails(config, 6, "--smoke")
    assert "has 0 MiB free, and this run needs about" in said
    assert not list(small_disk.glob("artifacts/images/*"))


def test_a_full_disk_in_the_middle_of_a_sweep(
    config: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.disk_space.MARGIN", 0)
    assert "no space is left" in fails(config, 6, "--smoke")
    made = [path.parent.parent.name for path in small_disk.glob("artifacts/*/*/images.json")]
    assert made, "the disk was full before anything was made"
    # With space again the same command ends, and what was made before stays.
    before = {p: p.stat().st_mtime_ns for p in small_disk.glob("artifacts/images/*/images.npy")}
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    words = ["sweep", str(config), "--smoke", "--resume"]
    found = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, words)
    assert found.exit_code == 0, found.output
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert Store(str(small_disk)).root == small_disk
