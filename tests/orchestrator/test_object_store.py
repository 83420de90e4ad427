"""Data in an object store: moto's server is one, over HTTP on the loopback address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from moto.server import ThreadedMotoServer

from tasks.datasets.decode import UnreadableImage
from tasks.datasets.layouts import LAYOUTS
from tasks.datasets.places import open_place
from tasks.datasets.sources import filesystem, read_source
from tasks.errors import DataError, MissingDataError
from tests.tasks.layout_files import WRITERS

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The environment under which s3:// is that server, with an empty bucket `faces`."""
    variables = KEYS | {"AWS_ENDPOINT_URL": server}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    filesystem.cache_clear()
    bucket = urllib.request.Request(f"{server}/faces", method="PUT")  # noqa: S310  (loopback)
    urllib.request.urlopen(bucket).close()  # noqa: S310
    made = filesystem("s3")
    yield variables
    made.delete_dir_contents("faces")
    filesystem.cache_clear()


def upload(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"faces/set/{path.relative_to(folder).as_posix()}"
            with filesystem("s3").open_output_stream(name) as file:
                file.write(path.read_bytes())


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("layout", ["imagefolder", "celeba", "parquet", "webdataset"])
def test_a_layout_in_a_bucket_is_the_same_data_set(tmp_path: Path, layout: str) -> None:
    WRITERS[layout](tmp_path)
    upload(tmp_path)
    here = LAYOUTS[layout](open_place(str(tmp_path)), False)
    there = LAYOUTS[layout](open_place("s3://faces/set"), False)
    assert there.drop_columns("source").equals(here.drop_columns("source"))
    pairs = zip(here["source"].to_pylist(), there["source"].to_pylist(), strict=True)
    assert all(read_source(a) == read_source(b) for a, b in pairs)


@pytest.mark.usefixtures("store")
def test_what_is_not_there_is_told() -> None:
    with pytest.raises(MissingDataError, match="s3://faces/none cannot be listed"):
        open_place("s3://faces/none").files()
    with pytest.raises(UnreadableImage, match="^file is gone$"):
        read_source("s3://faces/set/none.png")


def test_a_store_that_does_not_answer_is_no_verdict_on_an_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        filesystem.cache_clear()
        with pytest.raises(DataError, match="^cannot reach the object store of s3://faces/x.png"):
            read_source("s3://faces/x.png")
    filesystem.cache_clear()


def test_a_whole_command_on_a_bucket_lists_once(store: dict[str, str], tmp_path: Path) -> None:
    WRITERS["celeba"](tmp_path / "celeba")
    upload(tmp_path / "celeba")
    config = tmp_path / "experiment.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "storage": str(tmp_path / "store"),
                "data": {
                    "kind": "folder",
                    "layout": "celeba",
                    "root": "s3://faces/set",
                    "private": 2,
                    "surrogates": 1,
                    "public": "rest",
                    "crop": {"pixels": 108},
                },
                "protect": {"targets": ["2880"], "surrogates": "attribute-opposite"},
            }
        )
    )

    def run(*words: str) -> None:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dcdctl")), *words],
            env=os.environ | store,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    run("augment", str(config), "--out", str(tmp_path / "out"))
    recipe = pq.read_table(tmp_path / "out" / "private" / "recipe.parquet")
    assert recipe.num_rows == 2 + 4 * 4  # two of the bystander, four times the target's four
    # Listed once: the second command needs no more than the images that it has already.
    filesystem("s3").delete_dir_contents("faces")
    run("plan", str(config))
