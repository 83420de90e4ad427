"""Small files in exactly the published layouts, oddities included."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat


def picture(number: int, size: tuple[int, int] = (24, 20), format: str = "PNG") -> bytes:
    """Return an encoded image (height, width) that is like no other."""
    pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def put(path: Path, data: bytes | str) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


PEOPLE = (2880, 2937, 8692, 17)
ATTRIBUTES = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Young")


def celeba(root: Path, *, kaggle: bool = False) -> None:
    """Twelve aligned images of four people, 5, 3, 2 and 2 of them; one PNG in place of a JPEG."""
    owners = [0, 1, 0, 2, 0, 1, 3, 0, 2, 1, 3, 0]
    for i in range(12):
        png = i == 4
        name = f"{i + 1:06d}.{'png' if png else 'jpg'}"
        folder = root / "img_align_celeba"
        put(
            (folder / "img_align_celeba" if kaggle else folder) / name,
            picture(i, (218, 178), "PNG" if png else "JPEG"),
        )
    names = [f"{i + 1:06d}.jpg" for i in range(12)]
    put(
        root / "identity_CelebA.txt",
        "".join(f"{n} {PEOPLE[o]}\r\n" for n, o in zip(names, owners, strict=True)),
    )
    values = [["1" if (o >> bit) & 1 else "-1" for bit in range(4)] for o in owners]
    if kaggle:
        lines = [",".join(["image_id", *ATTRIBUTES])]
        lines += [",".join([n, *v]) for n, v in zip(names, values, strict=True)]
        put(root / "list_attr_celeba.csv", "\ufeff" + "\n".join(lines) + "\n")
        return
    lines = ["12", " ".join(ATTRIBUTES) + " "]
    lines += [f"{n} {'  '.join(v)}" for n, v in zip(names, values, strict=True)]
    put(root / "list_attr_celeba.txt", "\n".join(lines) + "\n")
    put(root / "list_eval_partition.txt", "".join(f"{n} {i // 10}\n" for i, n in enumerate(names)))
    boxes = ["12", "image_id x_1 y_1 width height"]
    boxes += [f"{n}    {60 + i}  70  40  50" for i, n in enumerate(names)]
    put(root / "list_bbox_celeba.txt", "\n".join(boxes) + "\n")


def facescrub(root: Path) -> None:
    """Two actors and two actresses, one name in both lists, three images each."""
    number = 0
    for group, names in (("actors", ("Adam Ng", "Sam Lee")), ("actresses", ("Sam Lee", "Zoe É"))):
        for name in names:
            for i in range(3):
                put(
                    root / group / "faces" / name / f"{name}_{i}.jpeg",
                    picture(number, format="JPEG"),
                )
                number += 1
    put(root / "facescrub_actors.txt", "name\timage_id\tface_id\turl\tbbox\tsha256\n")


def vggface2(root: Path) -> None:
    """Three people to train, one to test, with loose boxes."""
    lines = ["NAME_ID,X,Y,W,H"]
    for p, person in enumerate(("n000002", "n000003", "n000004", "n000001")):
        part = "test" if person == "n000001" else "train"
        for i in range(3):
            stem = f"{i + 1:04d}_01"
            put(root / part / person / f"{stem}.jpg", picture(10 * p + i, (40, 30), "JPEG"))
            lines.append(f'"{person}/{stem}",{5 + i},-2,12,16')
    put(root / "bb_landmark" / "loose_bb_train.csv", "\n".join(lines) + "\n")
    put(root / "identity_meta.csv", "Class_ID, Name, Sample_Num, Flag, Gender\n")


def ffhq(root: Path) -> None:
    """Four thumbnails of 128 pixels in a folder of their thousand."""
    for i in range(4):
        put(root / "thumbnails128x128" / "00000" / f"{i:05d}.png", picture(i, (128, 128)))
    put(root / "ffhq-dataset-v2.json", json.dumps({}))


def gtsrb(root: Path) -> None:
    """Two signs with three tracks of four frames each, and three test images."""
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    for sign in (0, 14):
        lines = [head]
        for track in range(3):
            for frame in range(4):
                name = f"{track:05d}_{frame:05d}.ppm"
                folder = root / "Final_Training" / "Images" / f"{sign:05d}"
                put(folder / name, picture(100 * sign + 10 * track + frame, (29, 30), "PPM"))
                lines.append(f"{name};30;29;5;6;25;24;{sign}")
        put(folder / f"GT-{sign:05d}.csv", "\n".join(lines) + "\n")
    put(folder.parent.parent.parent / "Readme-Images.txt", "GTSRB\n")
    tests = [head]
    for i, sign in enumerate((14, 0, 14)):
        put(root / "Final_Test" / "Images" / f"{i:05d}.ppm", picture(9000 + i, (29, 30), "PPM"))
        tests.append(f"{i:05d}.ppm;30;29;5;6;25;24;{sign}")
    put(root / "Final_Test" / "Images" / "GT-final_test.csv", "\r\n".join(tests) + "\r\n")


def tsrd(root: Path) -> None:
    """Three signs in flat folders, with annotations that end in a semicolon."""
    for part, count, folder in (("Train4170", 3, "tsrd-train"), ("Test1994", 2, "TSRD-Test")):
        lines = []
        for sign in (0, 5, 57):
            for i in range(count):
                name = f"{sign:03d}_{i + 1:04d}{'_j' if count == 2 else ''}.png"
                put(root / folder / name, picture(1000 * count + 10 * sign + i, (50, 60)))
                lines.append(f"{name};60;50;10;8;50;44;{sign};")
        put(root / f"TsignRecg{part}Annotation.txt", "\r\n".join(lines) + "\r\n")


def stanford_dogs(root: Path) -> None:
    """Two breeds with three images each, MATLAB's lists, and boxes in XML without an ending."""
    listed: dict[str, list[str]] = {"train": [], "test": []}
    for b, breed in enumerate(("n02085620-Chihuahua", "n02116738-African_hunting_dog")):
        for i in range(3):
            stem = f"{breed[:9]}_{100 + i}"
            put(root / "Images" / breed / f"{stem}.jpg", picture(10 * b + i, (60, 50), "JPEG"))
            put(
                root / "Annotation" / breed / stem,
                "<annotation><object><name>dog</name><bndbox><xmin>4</xmin><ymin>9</ymin>"
                "<xmax>24</xmax><ymax>39</ymax></bndbox></object></annotation>",
            )
            listed["test" if i == 2 else "train"].append(f"{breed}/{stem}.jpg")
    for part, names in listed.items():
        cells = np.array([[name] for name in names], dtype=object)
        labels = np.array([[1], [2]])
        savemat(root / f"{part}_list.mat", {"file_list": cells, "labels": labels})


def imagefolder(root: Path) -> None:
    """Four people with three images each."""
    for p, person in enumerate(("ann", "bob", "cat", "dan é")):
        for i in range(3):
            put(root / person / f"{i}.png", picture(10 * p + i))
    put(root / "ann" / "notes.txt", "no image")


def parquet(root: Path, *, how: str = "struct") -> None:
    """Two files with images of three people: a struct, bytes, or pixels."""
    for part in range(2):
        who = [f"p{i % 3}" for i in range(6)]
        pictures = [picture(10 * part + i) for i in range(6)]
        if how == "struct":
            images: pa.Array = pa.array([{"bytes": data, "path": None} for data in pictures])
        elif how == "bytes":
            images = pa.array(pictures)
        else:
            pixels = [np.asarray(Image.open(io.BytesIO(d))).tolist() for d in pictures]
            images = pa.array(pixels, pa.list_(pa.list_(pa.list_(pa.uint8()))))
        root.mkdir(parents=True, exist_ok=True)
        table = pa.table({"image": images, "label": who})
        pq.write_table(table, root / f"part-{part}.parquet", row_group_size=4)


def webdataset(root: Path, *, record: bool = False) -> None:
    """Two shards with images of three people, named by .cls or .json."""
    for shard in range(2):
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / f"faces-{shard:04d}.tar", "w") as tar:
            for i in range(6):
                label = json.dumps({"identity": f"p{i % 3}"}) if record else str(i % 3)
                parts = (
                    ("png", picture(10 * shard + i)),
                    ("json" if record else "cls", label.encode()),
                )
                for ending, data in parts:
                    member = tarfile.TarInfo(f"s{i:03d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


WRITERS: dict[str, Callable[[Path], None]] = {
    "imagefolder": imagefolder,
    "celeba": celeba,
    "facescrub": facescrub,
    "vggface2": vggface2,
    "ffhq": ffhq,
    "gtsrb": gtsrb,
    "tsrd": tsrd,
    "stanford-dogs": stanford_dogs,
    "parquet": parquet,
    "webdataset": webdataset,
}
