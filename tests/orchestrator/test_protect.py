"""`dcdctl protect`: one person's photos in, files to hand over and a private receipt out."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from augment.uploads import UploadPath, surviving_share
from orchestrator.cli import app
from tasks.datasets.faces import render_faces
from tasks.errors import SpecError

COUNT = 6


def run(*args: str) -> Result:
    env = {"COLUMNS": "100", "NO_COLOR": "1"}
    return CliRunner(env=env).invoke(app, ["protect", *args], prog_name="dcdctl")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of a drawn person, as a phone would write them: JPEG, with a place and a turn."""
    folder = tmp_path / "photos"
    folder.mkdir()
    faces = render_faces(5, "private", np.full(COUNT, 3), np.arange(COUNT), 64)
    for i, face in enumerate(faces):
        exif = Image.Exif()
        exif[0x0112] = 6  # taken with the camera on its side
        exif[0x010F] = "SecretCamera"
        exif.get_ifd(0x8825)[1] = "N"
        tall = np.concatenate([face, face[:32]])
        Image.fromarray(tall).save(folder / f"IMG_{i}.jpg", quality=95, exif=exif)
    return folder


def receipt(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "receipt.json").read_text())
    return found


def test_photos_become_files_to_hand_over(photos: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in photos.iterdir()}
    out = tmp_path / "out"
    result = run(str(photos), "--out", str(out), "--seed", "1")
    assert result.exit_code == 0, result.output
    assert {p: p.read_bytes() for p in photos.iterdir()} == before
    kept = receipt(out)
    # No other names: the photos as they are, the surrogate's, and the noise around those.
    assert Counter(f["role"] for f in kept["files"]) == {
        "clean": COUNT,
        "surrogate": COUNT,
        "surrogate_noise": COUNT,
    }
    with (out / "upload" / "labels.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert {row["label"] for row in listed} == {"me"}
    files = {str(p.relative_to(out / "upload")) for p in out.glob("upload/*/*.png")}
    assert files == {row["file"] for row in listed}
    assert "What this does, and does not" in result.output
    assert "--other-labels" in result.output


def test_nothing_of_the_camera_and_no_role_is_handed_over(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(str(photos), "--out", str(out)).exit_code == 0
    times = set()
    for path in out.glob("upload/*/*.png"):
        data = path.read_bytes()
        assert b"SecretCamera" not in data
        with Image.open(io.BytesIO(data)) as image:
            assert not image.getexif()
            assert set(image.info) == set()
        times.add(path.stat().st_mtime_ns)
    assert len(times) == 1
    text = "".join(str(p.relative_to(out)) for p in out.glob("upload/**/*"))
    assert "surrogate" not in text
    assert "IMG_" not in text
    assert (out / "receipt.json").stat().st_mode & 0o077 == 0


def test_photos_are_turned_upright(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(str(photos), "--out", str(out))
    own = [f["file"] for f in receipt(out)["files"] if f["role"] == "clean"]
    with Image.open(out / own[0]) as image:
        assert image.size == (96, 64)  # stored 64 wide and 96 high, taken sideways


def test_the_receipt_holds_what_each_file_is(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(str(photos), "--out", str(out), "--other-labels", "ann,bob", "--mislabel-fraction", "0.5")
    kept = receipt(out)
    for entry in kept["files"]:
        data = (out / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        if entry["role"] in ("clean", "mislabelled", "target_noise"):
            source = (photos / entry["source"]).read_bytes()
            assert hashlib.sha256(source).hexdigest() == entry["source_sha256"]
    wrong = [f for f in kept["files"] if f["role"] == "mislabelled"]
    assert len(wrong) == COUNT // 2
    assert {f["label"] for f in wrong} == {"ann", "bob"}
    assert all(Path(f["file"]).parent.name == f["label"] for f in kept["files"])
    assert "deleted" in kept["undo"]


def test_the_same_seed_gives_the_same_pixels_and_other_names(photos: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        run(str(photos), "--out", str(tmp_path / name), "--seed", "9")
        files = receipt(tmp_path / name)["files"]
        found.append((sorted(f["sha256"] for f in files), {f["file"] for f in files}))
    assert found[0][0] == found[1][0]
    assert not found[0][1] & found[1][1]
    run(str(photos), "--out", str(tmp_path / "three"))
    assert receipt(tmp_path / "three")["seed"] != 9


def test_a_zip_gives_what_the_folder_gives(photos: Path, tmp_path: Path) -> None:
    packed = tmp_path / "photos.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(photos.iterdir()):
            archive.write(path, f"album/{path.name}")
        archive.writestr("album/../../evil.jpg", b"not an image")
    run(str(photos), "--out", str(tmp_path / "a"), "--seed", "2")
    result = run(str(packed), "--out", str(tmp_path / "b"), "--seed", "2")
    assert "set aside: 1 (not an image)" in result.output
    hashes = [sorted(f["sha256"] for f in receipt(tmp_path / n)["files"]) for n in "ab"]
    assert hashes[0] == hashes[1]
    assert not list(tmp_path.glob("**/evil*"))


def test_lent_photos_come_from_a_folder(photos: Path, tmp_path: Path) -> None:
    lent = tmp_path / "dora"
    lent.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (10 * i, 200, 30)).save(lent / f"{i}.png")
    out = tmp_path / "out"
    assert run(str(photos), "--out", str(out), "--surrogates", str(lent)).exit_code == 0
    assert {f["source"] for f in receipt(out)["files"] if f["role"] == "surrogate"} == {
        "0.png",
        "1.png",
        "2.png",
    }


def test_the_drawn_face_is_the_opposite(photos: Path, tmp_path: Path) -> None:
    for like, other in (("feminine,dark_hair", "masculine"), ("masculine", "feminine")):
        out = tmp_path / other
        result = run(str(photos), "--out", str(out), "--like", like, "--seed", "4", "--json")
        assert other in json.loads(result.stdout)["surrogate"]


def test_the_upload_path_is_tried(photos: Path, tmp_path: Path) -> None:
    weak = run(str(photos), "--out", str(tmp_path / "a"), "--uploads-as", "jpeg:60")
    assert "warning: only" in weak.output
    assert "--surrogate-sigma" in weak.output
    sigma = weak.output.split("--surrogate-sigma ")[1].split()[0]
    words = ["--uploads-as", "jpeg:60", "--surrogate-sigma", sigma]
    strong = run(str(photos), "--out", str(tmp_path / "b"), *words)
    assert "warning" not in strong.output


def test_a_lossless_path_keeps_all_noise_and_a_shrinking_one_little() -> None:
    image = render_faces(0, "private", np.array([1]), np.array([0]), 128)[0]
    assert surviving_share(image, 0.02, 1, UploadPath()) == pytest.approx(1)
    assert surviving_share(image, 0.02, 1, UploadPath(resize=32)) < 0.5
    low, high = (surviving_share(image, 0.02, 1, UploadPath(jpeg=q)) for q in (30, 95))
    assert low < high


@pytest.mark.parametrize(
    "text", ["jpg:75", "jpeg", "jpeg:0", "jpeg:101", "resize:2", "jpeg:1,jpeg:2"]
)
def test_an_upload_path_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match="--uploads-as .* is not understood"):
        UploadPath.parse(text)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["nowhere"], 3, "nowhere does not exist; name a folder, a zip or a photo"),
        (["empty"], 3, "holds no image"),
        (["one.jpg"], 3, "1 photo of one.jpg can be used; at least 2 are needed"),
        (["broken.zip"], 3, "broken.zip is not a zip, or a damaged one"),
        (["photos", "--label", "../x"], 2, "label '../x' cannot be a folder's name"),
        (["photos", "--other-labels", "me"], 2, "label 'me' is given twice"),
        (["photos", "--like", "femine"], 2, "did you mean 'feminine'?"),
        (["photos", "--uploads-as", "gif"], 2, "is not understood at 'gif'"),
        (["photos", "--surrogates", "empty"], 3, "holds no image"),
        (["photos", "--out", "photos/new"], 2, "photos/new is inside photos"),
        (["photos", "--out", "full"], 6, "full exists and is not empty; name a new folder"),
        (["photos", "--other-labels", "a", "--mislabel-fraction", "1"], 3, "leaves none"),
    ],
)
def test_bad_input_is_one_sentence(
    args: list[str], code: int, says: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/x").write_text("")
    Path("broken.zip").write_bytes(b"PK nothing")
    Path("one.jpg").write_bytes((photos / "IMG_0.jpg").read_bytes())
    result = run(*args, *([] if "--out" in args else ["--out", "out"]))
    assert result.exit_code == code, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert not Path("out").exists()


def test_a_copy_is_not_counted_twice(photos: Path, tmp_path: Path) -> None:
    (photos / "again.jpg").write_bytes((photos / "IMG_0.jpg").read_bytes())
    result = run(str(photos), "--out", str(tmp_path / "out"))
    assert "set aside: 1 (a copy of another photo)" in result.output


def test_neither_torch_nor_ray_is_imported(photos: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from orchestrator.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'torch', 'ray', 'mlflow', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    line = [sys.executable, "-c", program, "protect", str(photos), "--out", str(tmp_path / "out")]
    subprocess.run(line, check=True, capture_output=True, timeout=60)
