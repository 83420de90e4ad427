"""Every layout on files written exactly as published: who is on which image, read from anywhere."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.datasets.decode import UnreadableImage, decode
from tasks.datasets.folder import folder_rows
from tasks.datasets.layouts import LAYOUTS
from tasks.datasets.listing import LISTING_SCHEMA
from tasks.datasets.places import open_place
from tasks.datasets.sources import read_source, take_apart
from tasks.datasets.spec import CropSpec, FolderData
from tasks.errors import DataError, MissingDataError, TargetClassError
from tests.tasks import layout_files
from tests.tasks.layout_files import WRITERS, picture, put


def listed(root: Path | str, layout: str, *, boxes: bool = False) -> pa.Table:
    return LAYOUTS[layout](open_place(str(root)), boxes)


def spec_of(root: Path, layout: str, **changes: Any) -> FolderData:
    fields = {"kind": "folder", "layout": layout, "root": root, "private": 2} | changes
    return FolderData.model_validate({"surrogates": 0, "public": "rest"} | fields)


WHO: dict[str, dict[str, int]] = {
    "imagefolder": {"ann": 3, "bob": 3, "cat": 3, "dan é": 3},
    "celeba": {"2880": 5, "2937": 3, "8692": 2, "17": 2},
    "facescrub": {
        "actors/Adam Ng": 3,
        "actors/Sam Lee": 3,
        "actresses/Sam Lee": 3,
        "actresses/Zoe É": 3,
    },
    "vggface2": {"n000001": 3, "n000002": 3, "n000003": 3, "n000004": 3},
    "ffhq": {"00000": 1, "00001": 1, "00002": 1, "00003": 1},
    "gtsrb": {"00": 13, "14": 14},
    "tsrd": {"00": 5, "05": 5, "57": 5},
    "stanford-dogs": {"n02085620-Chihuahua": 3, "n02116738-African_hunting_dog": 3},
    "parquet": {"p0": 4, "p1": 4, "p2": 4},
    "webdataset": {"0": 4, "1": 4, "2": 4},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everybody_is_listed_and_every_image_can_be_read(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    table = listed(tmp_path, layout)
    assert table.schema.equals(LISTING_SCHEMA)
    assert Counter(table["identity"].to_pylist()) == WHO[layout]
    assert len(set(table["row_id"].to_pylist())) == table.num_rows
    pixels = {decode(read_source(s), 16, "center").tobytes() for s in table["source"].to_pylist()}
    assert len(pixels) == table.num_rows  # no source leads to another's image


@pytest.mark.parametrize("layout", ["imagefolder", "celeba", "gtsrb", "webdataset"])
def test_a_zip_of_it_is_the_same_data_set(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "plain"
    WRITERS[layout](folder)
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
        packed.writestr("__MACOSX/._junk.png", b"")
    if layout == "webdataset":  # a tar inside a zip is not read
        with pytest.raises(DataError, match="is no tar"):
            listed(archive, layout)
        return
    plain, zipped = listed(folder, layout), listed(archive, layout)
    assert zipped.drop_columns("source").equals(plain.drop_columns("source"))
    for a, b in zip(plain["source"].to_pylist(), zipped["source"].to_pylist(), strict=True):
        assert read_source(a) == read_source(b)


@pytest.mark.parametrize("layout", ["celeba", "vggface2", "gtsrb", "tsrd", "stanford-dogs"])
def test_annotated_boxes_come_along_where_they_are_asked_for(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    boxes = [take_apart(s).box for s in listed(tmp_path, layout, boxes=True)["source"].to_pylist()]
    assert all(box is not None for box in boxes)
    expected = {
        "celeba": (60, 70, 40, 50),
        "vggface2": (5, -2, 12, 16),
        "gtsrb": (5, 6, 20, 18),
        "tsrd": (10, 8, 40, 36),
        "stanford-dogs": (4, 9, 20, 30),
    }
    assert expected[layout] in boxes
    plain = listed(tmp_path, layout)["source"].to_pylist()
    assert all(take_apart(source).box is None for source in plain)


def test_celeba_has_attributes_png_for_jpg_and_kaggles_tables(tmp_path: Path) -> None:
    layout_files.celeba(tmp_path / "a")
    layout_files.celeba(tmp_path / "b", kaggle=True)
    original, kaggle = listed(tmp_path / "a", "celeba"), listed(tmp_path / "b", "celeba")
    for table in (original, kaggle):
        rows = table.to_pylist()
        assert rows[0]["attributes"] == []
        assert rows[1]["attributes"] == ["5_o_Clock_Shadow"]
        assert rows[6]["attributes"] == ["5_o_Clock_Shadow", "Blond_Hair"]
        assert rows[4]["source"].endswith("000005.png")
    assert original["row_id"].equals(kaggle["row_id"])  # where the folder lies does not matter


def test_ranks_follow_the_number_of_images_then_the_tables_order(tmp_path: Path) -> None:
    layout_files.celeba(tmp_path)
    rows = folder_rows(spec_of(tmp_path, "celeba", surrogates=1), 0)
    of = {(r["split"], r["label"], r["identity"]) for r in rows.to_pylist()}
    assert {(label, name) for split, label, name in of if split == "train"} == {
        (0, "2880"),
        (1, "2937"),
    }
    assert {name for split, _, name in of if split == "surrogate"} == {"8692"}
    assert {name for split, _, name in of if split == "public"} == {"17"}


def test_more_classes_than_there_are_is_refused(tmp_path: Path) -> None:
    layout_files.celeba(tmp_path)
    with pytest.raises(MissingDataError, match=r"data\.surrogates=3, but .* has 2 classes left"):
        folder_rows(spec_of(tmp_path, "celeba", surrogates=3), 0)


@pytest.mark.parametrize("seed", range(5))
def test_no_track_is_on_both_sides(tmp_path: Path, seed: int) -> None:
    layout_files.gtsrb(tmp_path)
    (tmp_path / "Final_Test" / "Images" / "GT-final_test.csv").unlink()
    for image in (tmp_path / "Final_Test" / "Images").iterdir():
        image.unlink()
    spec = spec_of(tmp_path, "gtsrb", public=[], test_fraction=0.3, public_from={"root": tmp_path})
    layout_files.imagefolder(tmp_path / "public")
    spec = spec.model_copy(
        update={
            "public_from": spec.public_from.model_copy(update={"root": str(tmp_path / "public")})
        }
        if spec.public_from
        else {}
    )
    rows = folder_rows(spec, seed).to_pylist()
    sides: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row["label"] >= 0:
            track = row["source"].rsplit("/", 1)[1].split("_")[0]
            sides.setdefault((row["identity"], track), set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    assert Counter(next(iter(s)) for s in sides.values()) == {"train": 4, "test": 2}


def test_the_published_split_is_the_data_sets_own_where_it_has_one(tmp_path: Path) -> None:
    layout_files.gtsrb(tmp_path / "signs")
    layout_files.ffhq(tmp_path / "ffhq")
    others = {"layout": "ffhq", "root": tmp_path / "ffhq", "crop": {"share": 0.6875}}
    spec = spec_of(tmp_path / "signs", "gtsrb", split="published", public=[], public_from=others)
    rows = folder_rows(spec, 0)
    counts = Counter(rows["split"].to_pylist())
    assert counts == {"train": 24, "test": 3, "public": 4}


def test_the_published_split_of_ppa_is_one_shuffle_of_numpy(tmp_path: Path) -> None:
    layout_files.celeba(tmp_path)
    names = {"private": ["2880", "2937", "8692"], "public": ["17"]}
    rows = folder_rows(spec_of(tmp_path, "celeba", split="published", **names), 0).to_pylist()
    # Worked out apart: the ten private images in the table's order, shuffled with seed 42.
    order = np.array([1, 2, 3, 4, 5, 6, 8, 9, 10, 12])
    shuffled = order.copy()
    np.random.RandomState(42).shuffle(shuffled)
    test = {row["source"].rsplit("/", 1)[1][:6] for row in rows if row["split"] == "test"}
    assert test == {f"{number:06d}" for number in shuffled[9:]}


@pytest.mark.parametrize("how", ["struct", "bytes", "pixels"])
def test_parquet_holds_images_in_three_ways(tmp_path: Path, how: str) -> None:
    layout_files.parquet(tmp_path, how=how)
    table = listed(tmp_path, "parquet")
    found = [decode(read_source(s), 16, "none") for s in table["source"].to_pylist()]
    expected = [decode(picture(10 * (i // 6) + i % 6), 16, "none") for i in range(12)]
    assert np.array_equal(found, expected)


NESTED = pa.list_(pa.list_(pa.list_(pa.uint8())))


def fixed_shape(pixels: npt.NDArray[np.uint8]) -> pa.Array:
    flat = pixels.reshape(len(pixels), -1)
    kind = pa.fixed_shape_tensor(pa.uint8(), pixels.shape[1:])
    return pa.ExtensionArray.from_storage(kind, pa.array(flat.tolist(), kind.storage_type))


def ray_tensors(pixels: npt.NDArray[np.uint8]) -> pa.Array:
    from ray.data.extensions import ArrowTensorArray

    return ArrowTensorArray.from_numpy(pixels)


TENSORS: dict[str, Callable[[npt.NDArray[np.uint8]], pa.Array]] = {
    "arrow": fixed_shape,
    "ray": ray_tensors,
    "channels first": lambda pixels: pa.array(pixels.transpose(0, 3, 1, 2).tolist(), NESTED),
    "one channel": lambda pixels: pa.array(pixels[..., :1].tolist(), NESTED),
    "grey": lambda pixels: pa.array(pixels[..., 0].tolist(), pa.list_(pa.list_(pa.uint8()))),
}


@pytest.mark.parametrize("how", TENSORS)
def test_parquet_holds_tensors(tmp_path: Path, how: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    table = pa.table({"image": TENSORS[how](pixels), "label": list("ababab")})
    pq.write_table(table, tmp_path / "x.parquet")
    if how in ("one channel", "grey"):
        pixels = np.broadcast_to(pixels[..., :1], pixels.shape)
    sources = listed(tmp_path, "parquet")["source"].to_pylist()
    found = [np.asarray(Image.open(io.BytesIO(read_source(source)))) for source in sources]
    assert np.array_equal(found, pixels)


def test_a_parquet_row_of_nobody_is_named(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(0), picture(1)], "label": ["ann", None]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="row 1 of row group 0 has no label"):
        listed(tmp_path, "parquet")


@pytest.mark.parametrize("kind", ["zip", "webdataset", "parquet"])
def test_a_container_that_was_replaced_is_read_anew(tmp_path: Path, kind: str) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, first in ((before, 0), (after, 7)):
        folder.mkdir()
        if kind == "zip":
            with zipfile.ZipFile(folder / "set.zip", "w") as archive:
                archive.writestr("ann/1.png", picture(first))
                archive.writestr("bob/1.png", picture(first + 1))
        elif kind == "parquet":
            table = pa.table({"image": [picture(first), picture(first + 1)], "label": ["a", "b"]})
            pq.write_table(table, folder / "set.parquet")
        else:
            with tarfile.open(folder / "set.tar", "w") as tar:
                for name, data in (("1.png", picture(first)), ("1.cls", b"0")):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    root = before / "set.zip" if kind == "zip" else before
    layout = "imagefolder" if kind == "zip" else kind
    source = listed(root, layout)["source"].to_pylist()[0]
    assert read_source(source) == picture(0)
    for path in after.iterdir():
        path.replace(before / path.name)
        os.utime(before / path.name, (1, 1))
    source = listed(root, layout)["source"].to_pylist()[0]
    assert read_source(source) == picture(7)


def test_webdataset_takes_the_name_from_json_too(tmp_path: Path) -> None:
    layout_files.webdataset(tmp_path, record=True)
    assert set(listed(tmp_path, "webdataset")["identity"].to_pylist()) == {"p0", "p1", "p2"}


def test_crops_take_the_part_that_they_name() -> None:
    data = picture(3, (100, 80))
    whole = decode(data, 80, "center").astype(int)  # rows 10 to 90
    assert np.array_equal(decode(data, 40, CropSpec(pixels=40)), whole[20:60, 20:60])
    assert np.array_equal(decode(data, 40, CropSpec(share=0.5)), whole[20:60, 20:60])
    box = decode(data, 20, CropSpec(box=1), (5, 20, 20, 10))
    assert np.array_equal(box, whole[5:25, 5:25])
    over = decode(data, 20, CropSpec(box=1), (-15, 20, 20, 20))  # moved inside
    assert np.array_equal(over, whole[10:30, 0:20])
    assert np.array_equal(decode(data, 80, CropSpec(box=1)), whole)  # nobody annotated it


BROKEN: dict[str, tuple[str, str, bytes, str]] = {
    "celeba identity": (
        "celeba",
        "identity_CelebA.txt",
        b"000001.jpg 2880\n000002.jpg\n",
        r"identity_CelebA\.txt:2: '000002\.jpg' is not `image identity`",
    ),
    "celeba number": (
        "celeba",
        "identity_CelebA.txt",
        b"000001.jpg Ann\n",
        r"identity_CelebA\.txt:1: 'Ann' is no number",
    ),
    "celeba attributes": (
        "celeba",
        "list_attr_celeba.txt",
        b"1\nMale Young\n000001.jpg 1\n",
        r"list_attr_celeba\.txt:3: 1 values for 2 attributes",
    ),
    "celeba binary": ("celeba", "identity_CelebA.txt", b"\xff\xfe\x00", "is no UTF-8 text"),
    "gtsrb": (
        "gtsrb",
        "Final_Test/Images/GT-final_test.csv",
        b"Filename;Width\n00000.ppm;30\n",
        r"GT-final_test\.csv:2: 2 fields",
    ),
    "tsrd": (
        "tsrd",
        "TsignRecgTrain4170Annotation.txt",
        b"a.png;1;2;\n",
        r"Annotation\.txt:1: 3 fields",
    ),
    "dogs": ("stanford-dogs", "train_list.mat", b"no matlab", "is no list of Stanford Dogs"),
    "parquet": ("parquet", "part-0.parquet", b"PAR1junk", "is no Parquet file"),
    "webdataset": ("webdataset", "faces-0000.tar", b"no tar" * 200, "is no tar"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_table_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    layout, file, content, sentence = BROKEN[name]
    WRITERS[layout](tmp_path)
    put(tmp_path / file, content)
    with pytest.raises(DataError, match=sentence):
        listed(tmp_path, layout)


@pytest.mark.parametrize(
    ("layout", "file", "sentence"),
    [
        ("celeba", "identity_CelebA.txt", "has no identity_CelebA.txt"),
        ("gtsrb", "Final_Test/Images/GT-final_test.csv", "no GT-final_test.csv"),
        ("tsrd", "TsignRecgTrain4170Annotation.txt", None),
    ],
)
def test_a_missing_table_is_named(
    tmp_path: Path, layout: str, file: str, sentence: str | None
) -> None:
    WRITERS[layout](tmp_path)
    (tmp_path / file).unlink()
    if sentence is None:
        assert set(listed(tmp_path, layout)["split"].to_pylist()) == {"test"}
        return
    with pytest.raises(MissingDataError, match=sentence):
        listed(tmp_path, layout)


def test_an_annotation_without_its_image_is_listed_and_is_gone(tmp_path: Path) -> None:
    layout_files.celeba(tmp_path)
    (tmp_path / "img_align_celeba" / "000003.jpg").unlink()
    source = listed(tmp_path, "celeba")["source"].to_pylist()[2]
    with pytest.raises(UnreadableImage, match="^file is gone$"):
        read_source(source)


@pytest.mark.parametrize("layout", ["celeba", "gtsrb", "vggface2", "parquet", "imagefolder"])
def test_the_wrong_layout_is_told_from_the_right_one(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    with pytest.raises(DataError, match=f"holds no image of layout=ffhq; .* layout={layout}$"):
        folder_rows(spec_of(tmp_path, "ffhq"), 0)


def test_an_empty_folder_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image of layout=vggface2; see docs/data\.md"):
        folder_rows(spec_of(tmp_path, "vggface2"), 0)


def test_one_track_cannot_be_divided(tmp_path: Path) -> None:
    layout_files.gtsrb(tmp_path)
    for image in (tmp_path / "Final_Training" / "Images" / "00014").glob("0000[12]_*"):
        image.unlink()
    for image in (tmp_path / "Final_Test" / "Images").iterdir():
        image.unlink()
    spec = spec_of(tmp_path, "gtsrb", public_from={"layout": "gtsrb", "root": tmp_path}, public=[])
    with pytest.raises(TargetClassError, match="'14' has one track only"):
        folder_rows(spec, 0)


def test_a_damaged_zip_and_an_unknown_store_are_named(tmp_path: Path) -> None:
    put(tmp_path / "faces.zip", b"PK no zip")
    with pytest.raises(DataError, match="is no zip, or a damaged one"):
        open_place(str(tmp_path / "faces.zip"))
    with pytest.raises(MissingDataError, match="does not exist; name the zip"):
        open_place(str(tmp_path / "none.zip"))
    with pytest.raises(MissingDataError, match="has no known kind of store"):
        open_place("gopher://bucket/faces")


def test_a_truncated_tar_says_so(tmp_path: Path) -> None:
    layout_files.webdataset(tmp_path)
    source = listed(tmp_path, "webdataset")["source"].to_pylist()[5]
    shard = tmp_path / "faces-0000.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(UnreadableImage, match="^truncated$"):
        read_source(source)
