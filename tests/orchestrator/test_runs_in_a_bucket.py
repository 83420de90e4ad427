"""Runs under s3:// are looked at, reported, compared and tracked from a machine without a copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.object_store import object_store_of
from orchestrator.open_run import open_run, shown_path, split_address
from orchestrator.store import Store
from tests.orchestrator.bucket import KEYS, object_server
from tests.orchestrator.fake_run import TARGETS, fake_spec, write_fake_run

URI = "s3://results/fleet"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with object_server() as url:
        yield url


@pytest.fixture(scope="module")
def names(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Names of two runs in the bucket, of the seeds 0 and 1, put there by another machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
            patch.setenv(name, value)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("writer")))
        store = Store(URI)
        spec = fake_spec(store.root).model_copy(update={"storage": URI})
        with store.locked():
            runs = [
                write_fake_run(store.root, spec=spec.model_copy(update={"seed": seed}))
                for seed in (0, 1)
            ]
            for trial in (trial for run in runs for trial in run.glob("trials/*")):
                (trial / "checkpoint").mkdir()
                (trial / "checkpoint" / "model.safetensors").write_bytes(b"weights")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("reader")))
        yield [run.name for run in runs]


@pytest.fixture
def elsewhere(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a storage."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*args: str) -> Result:
    found = CliRunner(env={"COLUMNS": "160", "NO_COLOR": "1"}).invoke(app, args)
    assert found.exit_code == 0, found.output
    return found


def in_bucket(name: str) -> Callable[[str], bool]:
    """Say whether the bucket itself has a file of a run, whatever a copy here has."""
    remote = object_store_of(open_run(name, URI))
    assert remote is not None
    return lambda path: remote.read(remote.root / "runs" / name / path) is not None


def test_an_address_is_a_storage_and_a_name(tmp_path: Path) -> None:
    assert split_address("s3://b/p/q/runs/3c4a", None) == ("3c4a", "s3://b/p/q")
    assert split_address(str(Path("s3://b/p/runs/3c4a")), "other") == ("3c4a", "s3://b/p")
    assert split_address("3c4a", "s3://b") == ("3c4a", "s3://b")
    assert split_address(".dcdctl/runs/3c4a", None) == (".dcdctl/runs/3c4a", None)
    assert split_address(None, None) == (None, None)
    assert shown_path(tmp_path) == str(tmp_path)


def test_status_trials_and_logs_take_an_address(names: list[str], elsewhere: Path) -> None:
    address = f"{URI}/runs/{names[0]}"
    assert json.loads(command("status", address, "--json").stdout)["fingerprint"] == names[0]
    assert f"dcdctl sweep {address} --resume" in command("status", address).stdout.replace("\n", "")
    rows = command("trials", names[0][:6], "--storage", URI, "--json").stdout.splitlines()
    assert [json.loads(row)["index"] for row in rows] == list(range(7))
    assert "trial   3" in command("logs", address, "--trial", "3").stdout


def test_a_report_of_a_run_there_has_its_pictures_and_goes_there(
    names: list[str], elsewhere: Path
) -> None:
    address = f"{URI}/runs/{names[0]}"
    shown = command("report", address)
    page = Path(shown.stdout.strip())
    assert shown.stderr.strip() == f"also at {address}/report.html"
    html = page.read_text()
    assert html.count("data:image/png") > 3 * TARGETS
    # What it says of itself means the same on every machine, and names no folder of this one.
    told = json.loads(page.with_suffix(".json").read_text())
    assert told["reproduce"] == [f"dcdctl sweep {address} --storage again"]
    assert told["command"].startswith(f"dcdctl augment {address} --set ")
    assert str(page.parents[2]) not in html
    assert all(
        in_bucket(names[0])(path)
        for path in ("report.html", "report.json", "report.png", "figures/frontier.svg")
    )
    assert not list(page.parent.rglob("*.safetensors"))


def test_several_runs_there_become_one_report_and_one_table(
    names: list[str], elsewhere: Path
) -> None:
    shown = command("report", *names, "--storage", URI)
    assert shown.stderr.startswith(f"also at {URI}/reports/")
    compared = command("compare", *names, "--storage", URI, "--json")
    assert json.loads(compared.stdout)["comparison"]["runs"]
    assert compared.stderr.startswith(f"also at {URI}/comparisons/")
    assert not (elsewhere / ".dcdctl").exists()


def test_mlflow_is_filled_from_a_run_there_with_its_checkpoint(
    names: list[str], elsewhere: Path
) -> None:
    from mlflow import MlflowClient

    address = f"{URI}/runs/{names[0]}"
    command("report", address)
    uri = f"sqlite:///{elsewhere}/mlflow.db"
    command("track", address, "--replay", "--uri", uri)
    assert "all 7 trials were there" in command("track", address, "--uri", uri).stdout
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs(["1"], "tags.`dcdctl.role` = 'recommended'")
    kept = client.list_artifacts(found[0].info.run_id, "checkpoint")
    assert [one.path for one in kept] == ["checkpoint/model.safetensors"]


def test_settings_of_a_run_there_are_an_experiment(names: list[str], elsewhere: Path) -> None:
    found = command("validate", f"{URI}/runs/{names[1]}", "--json")
    assert json.loads(found.stdout)["seed"] == 1


def test_a_folder_needs_no_storage(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_fake_run(elsewhere / "own")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert open_run(str(run), URI) == run
