"""A storage under s3://: the same files for every machine, one writer, and errors as sentences."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import lease, storage_copy
from orchestrator.bundle import Bundle, unpack
from orchestrator.find_run import storage_root
from orchestrator.object_store import ObjectStore, open_object_store
from orchestrator.store import RECORD, Store, records_of, stage, write_atomic
from tasks.errors import StorageLockedError, StoreError
from tests.orchestrator.bucket import KEYS, Proxy, object_server


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with object_server() as url:
        yield url


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """The environment in which s3:// is that server, through a proxy."""
    between = Proxy(server)
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": between.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine-0"))
    yield between
    between.close()


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    return f"s3://results/{zlib.crc32(request.node.name.encode())}"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Go to another machine: one without this one's copy."""
    return lambda number: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine-{number}"))


def fill(store: Store) -> Path:
    run = store.run("abc")
    write_atomic(run / "spec.json", "{}")
    files = {"record.json": b"{}", "recipe.parquet": b"r" * 5000, "checkpoint/meta.json": b"{}"}
    unpack(Bundle(files), run / "trials" / "t0", RECORD)

    def make(out: Path) -> dict[str, object]:
        (out / "images.npy").write_bytes(b"i" * 70_000)
        return {"rows": 3}

    stage(store.artifact("images", "k"), make)
    return run


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_another_machine_finds_all_that_one_has_written(
    proxy: Proxy, uri: str, machine: Callable[[int], None]
) -> None:
    here = Store(uri)
    with here.locked():
        run = fill(here)
        with (run / "events.jsonl").open("a") as file:
            file.write('{"event": "start"}\n')
        own = here.pseudonym("Ada")
    assert (here.root.stat().st_mode & 0o777) == 0o700
    machine(1)
    there = Store(uri)
    assert there.root != here.root
    assert there.pseudonym("Ada") == own
    with there.locked():
        assert there.run("abc").is_dir()
        assert stage(there.artifact("images", "k"), lambda out: {"rows": 9})["rows"] == 3
        assert tree(there.root) == tree(here.root)
        write_atomic(there.run("abc") / "adaptive.json", "[1]")
    machine(0)
    with here.locked():
        assert (here.run("abc") / "adaptive.json").read_text() == "[1]"


def test_to_look_at_runs_no_weights_are_fetched(
    proxy: Proxy, uri: str, machine: Callable[[int], None]
) -> None:
    fill(Store(uri))
    machine(1)
    root = storage_root(uri)
    assert (root / "runs/abc/trials/t0/record.json").is_file()
    assert not (root / "runs/abc/trials/t0/recipe.parquet").exists()
    assert Store(uri).run("abc") == root / "runs" / "abc"
    assert (root / "runs/abc/trials/t0/recipe.parquet").read_bytes() == b"r" * 5000


def test_the_object_store_is_the_truth(proxy: Proxy, uri: str) -> None:
    store = Store(uri)
    run = fill(store)
    assert store.remote is not None
    store.remote.delete(run / "trials" / "t0" / RECORD)
    store.remote.forget_pulled()
    store.run("abc")
    assert not (run / "trials" / "t0" / RECORD).exists()


def test_a_record_is_never_there_before_its_files(proxy: Proxy, uri: str) -> None:
    store = Store(uri)
    proxy.plan = lambda method, number: "denied" if method in ("PUT", "POST") else None
    with pytest.raises(StoreError, match="access is denied"):
        fill(store)
    proxy.plan = lambda method, number: None
    assert not (store.root / "runs/abc/spec.json").exists()
    assert store.remote is not None
    assert not store.remote.objects(store.root)


def test_a_run_that_is_set_aside_moves_there_too(
    proxy: Proxy, uri: str, machine: Callable[[int], None]
) -> None:
    store = Store(uri)
    store.set_aside(fill(store))
    machine(1)
    (aside,) = (storage_root(uri) / "runs").iterdir()
    assert aside.name.startswith("abc.2")
    assert (aside / "trials/t0/record.json").is_file()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("BEAT_S", 0.4), ("LIFETIME_S", 3.0), ("SETTLE_S", 0.5)):
        monkeypatch.setattr(lease, name, value)


def copy_of(uri: str, root: Path) -> ObjectStore:
    root.mkdir(parents=True)
    return ObjectStore(uri, root)


@pytest.mark.usefixtures("quick", "proxy")
def test_one_machine_writes_and_the_other_is_told_who(uri: str, tmp_path: Path) -> None:
    one, two = copy_of(uri, tmp_path / "a"), copy_of(uri, tmp_path / "b")
    with (
        lease.leased(one),
        pytest.raises(StorageLockedError, match=rf"{uri} is in use by process {os.getpid()} on "),
        lease.leased(two),
    ):
        pass
    with lease.leased(two):
        assert lease.read_lease(two) is not None
    assert lease.read_lease(two) is None


@pytest.mark.usefixtures("quick", "proxy")
def test_a_dead_holder_is_followed_and_cannot_publish_any_more(uri: str, tmp_path: Path) -> None:
    dead, alive = copy_of(uri, tmp_path / "a"), copy_of(uri, tmp_path / "b")
    old = lease.Lease("gone", "process 1 on lost", f"lost:{dead.root}", 7)
    dead.write(dead.root / storage_copy.LEASE, json.dumps(old.__dict__).encode())
    (dead.root / storage_copy.OWNER).write_text("gone")
    started = time.monotonic()
    with lease.leased(alive):
        assert time.monotonic() - started > 3
        record = dead.root / "record.json"
        record.write_text("{}")
        with pytest.raises(StorageLockedError, match="was taken over by process"):
            dead.put(record, record)


@pytest.mark.usefixtures("quick", "proxy")
def test_of_two_at_once_one_wins(uri: str, tmp_path: Path) -> None:
    won, lost, both = [], [], threading.Barrier(2)

    def come(name: str) -> None:
        store = copy_of(uri, tmp_path / name)
        both.wait()
        try:
            with lease.leased(store):
                won.append(name)
                time.sleep(2)
        except StorageLockedError:
            lost.append(name)

    threads = [threading.Thread(target=come, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), len(lost)) == (1, 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_stumbles_loses_nothing(
    seed: int, proxy: Proxy, uri: str, machine: Callable[[int], None]
) -> None:
    chance = random.Random(seed)
    kinds = ("500", "503", "slow", "truncated", "cut")

    def plan(method: str, number: int) -> str | None:
        return chance.choice(kinds) if chance.random() < 0.15 else None

    proxy.plan = plan
    here = Store(uri)
    with here.locked():
        fill(here)
    machine(1)
    there = Store(uri)
    with there.locked():
        there.run("abc")
        there.artifact("images", "k")
        proxy.plan = lambda method, number: None
        assert tree(there.root) == tree(here.root)
    assert proxy.faults


BAD = {
    "no bucket": ("s3://nowhere-at-all/x", "the bucket does not exist; create it"),
    "secret in the URI": ("s3://AKIA:secret@results/x", "never into the URI"),
    "no name": ("s3:///x", "give s3://bucket/prefix"),
}


@pytest.mark.usefixtures("proxy")
@pytest.mark.parametrize("name", BAD)
def test_a_storage_that_cannot_be_is_one_sentence(name: str) -> None:
    uri, words = BAD[name]
    with pytest.raises(StoreError, match=words) as told:
        Store(uri)
    assert "secret@" not in str(told.value)


def test_a_read_only_bucket_is_one_sentence(proxy: Proxy, uri: str) -> None:
    proxy.plan = lambda method, number: "denied" if method in ("PUT", "POST", "DELETE") else None
    with pytest.raises(StoreError, match="access is denied; give these credentials the right"):
        Store(uri)


def test_no_credentials_is_one_sentence(
    proxy: Proxy, uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    proxy.plan = lambda method, number: "denied"
    with pytest.raises(StoreError, match="no credentials were found and access is denied; set AWS"):
        Store(uri)


def test_a_cluster_is_not_brought_up_for_a_bucket_that_is_not_there(
    proxy: Proxy, uri: str, tmp_path: Path
) -> None:
    """And one that only this machine may not write is the nodes' matter."""
    from orchestrator.cluster_storage import check_storage

    words = ["sweep", "--smoke", "--cluster", "http://127.0.0.1:9", "--storage", "s3://no-such/x"]
    ended = subprocess.run(
        [str(Path(sys.executable).with_name("dcdctl")), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 6, ended.stderr
    assert "storage s3://no-such/x: the bucket does not exist; create it" in ended.stderr
    assert check_storage(uri) is None
    proxy.plan = lambda method, number: "denied" if method in ("PUT", "POST", "DELETE") else None
    said = check_storage(f"{uri}/other")
    assert said is not None
    assert "access is denied" in said
    with pytest.raises(StoreError, match="never into the URI"):
        check_storage("s3://AKIA:secret@results/x")


def test_a_store_that_cannot_be_reached_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{unused.getsockname()[1]}"}
        started = time.monotonic()
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("dcdctl")), "sweep", "--smoke"]
            + ["--storage", "s3://results/x"],
            env=os.environ | KEYS | nowhere | {"XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=200,
        )
    assert ended.returncode == 6
    assert "s3://results/x does not answer" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_sweep_in_a_bucket_is_the_sweep_in_a_folder(server: str, tmp_path: Path) -> None:
    """And a machine that has never seen it finds it finished."""

    def sweep(storage: str, machine: str, *words: str) -> str:
        ended = subprocess.run(
            [str(Path(sys.executable).with_name("dcdctl")), "sweep", "--smoke", *words]
            + ["--storage", storage, "--json", "--set=adaptive_attacks=[]"],
            env=os.environ
            | KEYS
            | {"AWS_ENDPOINT_URL": server, "XDG_CACHE_HOME": str(tmp_path / machine)},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def hashes(told: str) -> list[str]:
        return [record.results_hash() for record in records_of(Path(json.loads(told)["run_dir"]))]

    here = sweep(str(tmp_path / "folder"), "a")
    there = sweep("s3://results/whole", "b")
    assert hashes(there) == hashes(here)
    again = sweep("s3://results/whole", "c", "--resume")
    assert json.loads(again)["resumed"] == 3
    assert hashes(again) == hashes(here)


def test_the_same_uri_has_one_copy(proxy: Proxy, uri: str) -> None:
    assert open_object_store(uri).root == open_object_store(f"{uri}/").root
