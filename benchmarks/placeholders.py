"""Files of the paper's data sets with their published counts and nothing in them, to plan on.

    python benchmarks/placeholders.py FOLDER
    cd FOLDER && dcdctl plan PRESET --set sweep.search=defenses

Every image is a link to one grey pixel, so that 200,000 of them take no room. Equal images have no
distances: the presets that choose surrogates by them need
`--set protect.surrogates=attribute-opposite`. This is where the costs in the headers of
`examples/table1` come from.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from PIL import Image

CELEBA = ((1000, 30), (4000, 24))
"""Identities and images of each: the private ones, and those that lenders are chosen from."""

HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")

GTSRB = (
    *(210, 2220, 2250, 1410, 1980, 1860, 420, 1440, 1410, 1470, 2010, 1320, 2100, 2160, 780),
    *(630, 420, 1110, 1200, 210, 360, 330, 390, 510, 270, 1500, 600, 240, 540, 270, 450, 780),
    *(240, 689, 420, 1200, 390, 210, 2070, 300, 360, 240, 240),
)
"""Training images of each sign (Stallkamp et al. 2012): 39,209."""

TSRD, TSRD_SIGNS = 4170, 58
VGGFACE2 = (300, 100)
FFHQ = 20_000


class Links:
    """Makes files that share their content.

    Args:
        folder: where one file of each kind is kept.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {kind: folder / f"pixel.{kind}" for kind in ("jpg", "png", "ppm")}
        self._used: dict[str, int] = {}
        for path in self._files.values():
            Image.new("RGB", (1, 1), (128, 128, 128)).save(path)

    def put(self, path: Path) -> None:
        """Make a file of the kind that its name says."""
        kind = path.suffix[1:]
        if self._used.get(kind, 0) >= 30_000:  # a file has no more than 65,000 names on ext4
            content = self._files[kind].read_bytes()
            self._files[kind].unlink()
            self._files[kind].write_bytes(content)
            self._used[kind] = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self._files[kind], path)
        self._used[kind] = self._used.get(kind, 0) + 1


def celeba(root: Path, links: Links) -> None:
    """Write images, identities, and hair and sex of each identity."""
    owners: list[str] = []
    flags: list[str] = []
    who = 0
    for people, each in CELEBA:
        for _ in range(people):
            who += 1
            traits = [hair == who % 3 for hair in range(3)] + [who % 2 == 0]
            signs = " ".join("1" if trait else "-1" for trait in traits)
            for _ in range(each):
                name = f"{len(owners) + 1:06d}.jpg"
                links.put(root / "img_align_celeba" / name)
                owners.append(f"{name} {who}")
                flags.append(f"{name} {signs}")
    head = [str(len(owners)), " ".join((*HAIR, "Male"))]
    (root / "identity_CelebA.txt").write_text("\n".join(owners) + "\n")
    (root / "list_attr_celeba.txt").write_text("\n".join([*head, *flags]) + "\n")


def gtsrb(root: Path, links: Links) -> None:
    """Write the training part: tracks of thirty frames, and a table a sign."""
    for sign, count in enumerate(GTSRB):
        folder = root / "Final_Training" / "Images" / f"{sign:05d}"
        lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
        for shot in range(count):
            name = f"{shot // 30:05d}_{shot % 30:05d}.ppm"
            links.put(folder / name)
            lines.append(f"{name};30;30;5;6;25;24;{sign}")
        (folder / f"GT-{sign:05d}.csv").write_text("\n".join(lines) + "\n")


def tsrd(root: Path, links: Links) -> None:
    """Write the training part and its table."""
    lines: list[str] = []
    for i in range(TSRD):
        sign = i % TSRD_SIGNS
        name = f"{sign:03d}_{i // TSRD_SIGNS + 1:04d}.png"
        links.put(root / "tsrd-train" / name)
        lines.append(f"{name};50;50;4;4;46;46;{sign};")
    (root / "TsignRecgTrain4170Annotation.txt").write_text("\r\n".join(lines) + "\r\n")


def vggface2(root: Path, links: Links) -> None:
    """Write the training part."""
    people, each = VGGFACE2
    for who in range(people):
        for shot in range(each):
            links.put(root / "train" / f"n{who + 2:06d}" / f"{shot + 1:04d}_01.jpg")


def ffhq(root: Path, links: Links) -> None:
    """Write the thumbnails."""
    for i in range(FFHQ):
        links.put(root / "thumbnails128x128" / f"{i // 1000 * 1000:05d}" / f"{i:05d}.png")


def write_placeholders(folder: Path) -> None:
    """Write all five into a new folder."""
    folder.mkdir(parents=True)
    links = Links(folder / "content")
    for write in (celeba, gtsrb, tsrd, vggface2, ffhq):
        write(folder / write.__name__, links)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_placeholders(parser.parse_args().folder)
