"""The presets of Table 1 from files to table, on small data in the same layouts.

What is overridden, and nothing else: where the data lie, how many classes and images there are,
32 pixels and small networks, one rival and DCD as rows; and the caps of `--smoke` on all budgets.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from benchmarks.placeholders import write_placeholders
from orchestrator.compare import run_comparison
from orchestrator.config import load_spec
from orchestrator.planning import plan_summary
from orchestrator.smoke import smoke
from tests.tasks.layout_files import put

TABLE1 = Path(__file__).parents[2] / "examples" / "table1"
ROWS = [{"defense": {"name": "mid", "size": 16}, "strengths": [0.01]}, {"dcd": True}]
SMALL = [
    "data.image_size=32",
    "data.private=5",
    "data.surrogates=4",
    "protect.targets=2",
    "training.architecture=small-resnet",
    "training.batch_size=16",
    "evaluation.architecture=small-vgg",
    "evaluation.batch_size=16",
    "evaluation.second.enabled=false",
    "tracking.enabled=false",
    f"sweep.rows={json.dumps(ROWS)}",
]
CLASSES, EACH = 9, 10


def photo(who: int, shot: int, size: int, form: str) -> bytes:
    """Return a picture with two colours of its class, and light and noise of its own."""
    rng, colours = np.random.default_rng([who, shot]), np.random.default_rng(who)
    first, second = colours.integers(30, 226, (2, 3))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    inside = (x / 0.6) ** 2 + (y / 0.8) ** 2 < 1
    pixels = np.where(inside[..., None], first, second) * rng.uniform(0.8, 1.1)
    pixels = pixels + rng.normal(0, 6, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def write_celeba(root: Path) -> None:
    names = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male")
    owners: list[str] = []
    lines = [str(CLASSES * EACH), " ".join(names)]
    for who in range(CLASSES):
        for shot in range(EACH):
            name = f"{len(owners) + 1:06d}.jpg"
            put(root / "img_align_celeba" / name, photo(who, shot, 60, "JPEG"))
            owners.append(f"{name} {who + 1}")
            flags = (who % 3 == 0, who % 3 == 1, who % 3 == 2, who % 2 == 0)
            lines.append(f"{name} {' '.join('1' if flag else '-1' for flag in flags)}")
    put(root / "identity_CelebA.txt", "\n".join(owners) + "\n")
    put(root / "list_attr_celeba.txt", "\n".join(lines) + "\n")


def write_ffhq(root: Path) -> None:
    for i in range(60):
        put(root / "thumbnails128x128" / "00000" / f"{i:05d}.png", photo(100 + i, 0, 128, "PNG"))


def write_vggface2(root: Path) -> None:
    for who in range(CLASSES):
        for shot in range(EACH):
            path = root / "train" / f"n{who + 2:06d}" / f"{shot + 1:04d}_01.jpg"
            put(path, photo(who, shot, 60, "JPEG"))


def write_gtsrb(root: Path) -> None:
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    for sign in range(CLASSES):
        folder, lines = root / "Final_Training" / "Images" / f"{sign:05d}", [head]
        for shot in range(EACH):
            name = f"{shot // 2:05d}_{shot % 2:05d}.ppm"
            put(folder / name, photo(sign, shot, 30, "PPM"))
            lines.append(f"{name};30;30;5;6;25;24;{sign}")
        put(folder / f"GT-{sign:05d}.csv", "\n".join(lines) + "\n")


def write_tsrd(root: Path) -> None:
    lines = []
    for sign in range(20):
        for shot in range(3):
            name = f"{sign:03d}_{shot + 1:04d}.png"
            put(root / "tsrd-train" / name, photo(200 + sign, shot, 50, "PNG"))
            lines.append(f"{name};50;50;4;4;46;46;{sign};")
    put(root / "TsignRecgTrain4170Annotation.txt", "\r\n".join(lines) + "\r\n")


PAIRS = {
    "celeba-ffhq-ppa": (("celeba", write_celeba), ("ffhq", write_ffhq)),
    "gtsrb-tsrd-gmi": (("gtsrb", write_gtsrb), ("tsrd", write_tsrd)),
    "vggface2-ffhq-mirror": (("vggface2", write_vggface2), ("ffhq", write_ffhq)),
}


def test_every_preset_is_run() -> None:
    assert {path.stem for path in TABLE1.glob("*.yaml")} == set(PAIRS)


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", PAIRS)
def test_a_preset_runs_from_files_to_table(name: str, tmp_path: Path) -> None:
    for folder, write in PAIRS[name]:
        write(tmp_path / folder)
    (private, _), (public, _) = PAIRS[name]
    places = [f"data.root={tmp_path / private}", f"data.public_from.root={tmp_path / public}"]
    overrides = [*SMALL, *places, f"storage={tmp_path / 'storage'}"]
    spec = smoke(load_spec(TABLE1 / f"{name}.yaml", overrides))
    outcome = run_comparison([spec], [0], Console(quiet=True))
    rows = {row.title: row for row in outcome.comparison.rows}
    assert list(rows) == ["none", "mid beta=0.01", "dcd"]
    for row in rows.values():
        assert row.failed == 0
        assert [cell.attack for cell in row.cells] == [attack.label for attack in spec.attacks]
        assert all(cell.attack_accuracy.clusters == 2 for cell in row.cells)
    assert rows["dcd"].inflation > 2
    assert (Path(outcome.table).parent / "curves.png").is_file()


@pytest.fixture(scope="module")
def placeholders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table1") / "data"
    write_placeholders(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_the_header_states_what_a_plan_says(name: str, placeholders: Path, tmp_path: Path) -> None:
    """The costs in the presets' headers are those of plan, on data of the published counts."""
    preset = TABLE1 / f"{name}.yaml"
    header = " ".join(line[1:].strip() for line in preset.read_text().splitlines() if "#" in line)
    (private, _), (public, _) = PAIRS[name]
    asked = re.findall(r"--set (\S+?)[,.]? ", header)
    assert "sweep.search=defenses" in asked
    places = [
        f"data.root={placeholders / private}",
        f"data.public_from.root={placeholders / public}",
    ]
    found = plan_summary(load_spec(preset, [*asked, *places, f"storage={tmp_path}"]))
    stated = re.search(r"Cost of one seed: (\d+) to (\d+) (hours|core-minutes)", header)
    assert stated is not None
    low, high = found.core_minutes if stated[3] == "core-minutes" else (found.gpu_hours or (0, 0))
    assert float(stated[1]) == pytest.approx(low, rel=0.015)
    assert float(stated[2]) == pytest.approx(high, rel=0.015)
