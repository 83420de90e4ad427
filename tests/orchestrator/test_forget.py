"""`dcdctl forget`: everything of one person goes, everything of the others stays, provably."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.deep_search import Search
from orchestrator.finished_run import load_run
from orchestrator.forget import forget
from orchestrator.forget_edits import without_person
from orchestrator.forget_search import verify
from orchestrator.forgotten import DRAWN, LEARNT, require_whole
from orchestrator.provenance import PEOPLE, decode
from orchestrator.receipt import refuse_forgotten
from orchestrator.report import write_report
from orchestrator.run_status import StatusReader
from orchestrator.store import Store, records_of
from orchestrator.sweep import _enter
from tasks.errors import ForgottenError, ForgottenPersonError, SpecError, StoreError
from tests.orchestrator.people_storage import LENT, PRIVATE, PUBLIC, write_people


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "store"
    write_people(root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "store")
    return tmp_path / "store"


def run_of(root: Path) -> Path:
    return next(path.parent for path in root.glob("runs/*/spec.json"))


def command(*args: str, stdin: str | None = None) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
    return runner.invoke(app, args, prog_name="dcdctl", input=stdin)


def listing(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_without_yes_nothing_changes(root: Path) -> None:
    before = listing(root)
    outcome = forget(str(root), PRIVATE[0])
    assert listing(root) == before
    assert not outcome.done
    assert outcome.runs == {run_of(root).name: LEARNT}
    said = command("forget", "-", "--storage", str(root), stdin=f"{PRIVATE[0]}\n")
    assert said.exit_code == 0
    assert "nothing was changed; add --yes" in said.stdout
    assert PRIVATE[0] not in said.output


def test_a_private_person_goes_and_the_others_stay(root: Path) -> None:
    others = [record.attacks for record in records_of(run_of(root))]
    outcome = forget(str(root), PRIVATE[0], yes=True)
    assert outcome.done
    assert outcome.still_there == ()
    assert not Search([PRIVATE[0]]).folder(root)
    run = run_of(root)
    assert not list(run.glob("trials/*/checkpoint"))
    assert not list(run.glob("**/*.npz"))
    there = sorted(p.name for p in (root / "artifacts").glob("*/*"))
    assert there == ["1", "2", "lent-1", "public-1"]  # the prior, and somebody else's judge
    assert (root / "artifacts" / "evaluator" / "2" / "model.safetensors").is_file()
    assert not (root / "comparisons" / "1").exists()
    kept = [record.attacks for record in records_of(run)]
    assert [len(a.per_target) for attacks in kept for a in attacks] == [
        len(a.per_target) - 1 for attacks in others for a in attacks
    ]
    assert kept[0][0].accuracy_at_1 == others[0][0].accuracy_at_1
    assert (run / "report.html").is_file()
    spec = json.loads((run / "spec.json").read_text())
    assert spec["data"]["private"][1:] == PRIVATE[1:]
    assert spec["data"]["private"][0] == f"forgotten-{outcome.pseudonym[3:]}"
    audit = json.loads((root / "audits" / "1" / "audit.json").read_text())
    assert len(audit["identities"]) == len(PRIVATE) - 1
    who = (root / "audits" / "1" / "private" / "identities.json").read_text()
    assert PRIVATE[1] in who
    assert len(json.loads(who)) == len(PRIVATE) - 1


def test_somebody_who_lent_pictures_goes_with_the_classifiers(root: Path) -> None:
    outcome = forget(str(root), LENT[3], yes=True)
    assert (outcome.still_there, outcome.runs) == ((), {run_of(root).name: LEARNT})
    assert not Search([LENT[3]]).folder(root)
    assert len(records_of(run_of(root))[0].attacks[0].per_target) == len(PRIVATE)


def test_of_the_public_the_generator_and_what_it_drew_go(root: Path) -> None:
    outcome = forget(str(root), PUBLIC[1], yes=True)
    assert (outcome.still_there, outcome.runs) == ((), {run_of(root).name: DRAWN})
    assert not (root / "artifacts" / "prior").exists()
    run = run_of(root)
    assert not list(run.glob("trials/*/reconstructions.npz"))
    assert list(run.glob("trials/*/checkpoint/model.safetensors"))
    require_whole(run / "trials" / "x" / "checkpoint")  # a classifier never saw the public


def test_the_receipt_names_nobody_and_proves_it_later(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "receipt.json"
    outcome = forget(str(root), PRIVATE[2], yes=True, receipt=copy)
    assert not Search([PRIVATE[2]]).path(copy)
    receipt = json.loads(copy.read_text())
    weights = [f for f in receipt["removed"] if f["path"].endswith("model.safetensors")]
    assert len(weights) == 8
    assert all(len(f["sha256"]) == 64 and f["bytes"] == 4000 for f in weights)
    assert any("handed-out" in one for one in receipt["not_reached"])
    assert any("onprem.yaml" in one for one in receipt["not_reached"])
    found = command("forget", "-", "--storage", str(root), "--verify", str(copy), stdin=PRIVATE[2])
    assert found.exit_code == 0, found.output
    assert "nothing found" in found.stdout
    assert outcome.receipt == str(copy)
    with pytest.raises(SpecError, match="not of the person"):
        verify(str(root), copy, PRIVATE[3])
    altered = copy.read_text().replace('"complete": true', '"complete": false')
    copy.write_text(altered)
    with pytest.raises(StoreError, match="its seal differs"):
        verify(str(root), copy, None)


def test_what_comes_back_is_found(root: Path, tmp_path: Path) -> None:
    weights = next(run_of(root).glob("trials/*/checkpoint/model.safetensors")).read_bytes()
    receipt = Path(str(forget(str(root), PRIVATE[2], yes=True).receipt))
    (root / "elsewhere.bin").write_bytes(weights)
    np.savez_compressed(root / "packed.npz", names=np.array(["x", PRIVATE[2]]))
    found = {(one.where, one.what) for one in verify(str(root), receipt, PRIVATE[2]).still_there}
    assert ("elsewhere.bin", "a file that was removed") in found
    assert any(where.startswith("packed.npz!") and what == "the name" for where, what in found)
    result = command("forget", "--storage", str(root), "--verify", receipt.stem)
    assert result.exit_code == 15
    assert "elsewhere.bin: a file that was removed" in result.stdout


def test_a_touched_run_says_in_one_sentence_what_is_gone(root: Path) -> None:
    forget(str(root), PRIVATE[0], yes=True)
    run = run_of(root)
    sentence = r"a person in this run was forgotten on \d{4}-\d\d-\d\d: its checkpoints, plans and"
    for mode in ("new", "resume"):
        with pytest.raises(ForgottenError, match=sentence):
            _enter(Store(str(root)), run, mode, 7)
    for asked in (["landscape", str(run)], ["trainers", str(run)]):
        said = command(*asked)
        assert said.exit_code == 6, said.output
        assert "was forgotten on" in said.stderr
        assert "Traceback" not in said.output
    status = command("status", run.name, "--storage", str(root))
    assert status.exit_code == 0
    assert "a person in this run was forgotten on" in " ".join(status.stdout.split())
    assert StatusReader(run).read().forgotten is not None
    page = write_report(run).read_text()
    assert "Parts of this are gone." in page
    data = json.loads((run / "report.json").read_text())
    assert "was forgotten on" in data["forgotten"]
    for asked in (["logs", run.name], ["trials", run.name]):
        assert command(*asked, "--storage", str(root)).exit_code == 0
    _enter(Store(str(root)), run, "fresh", 7)
    load_run(next(root.glob("runs/*.20*")))


def test_who_was_forgotten_does_not_come_back_with_the_data(root: Path) -> None:
    store = Store(str(root))
    refuse_forgotten(store.receipts(), store.key, PRIVATE)
    forget(str(root), PRIVATE[1], yes=True)
    with pytest.raises(ForgottenPersonError, match="told to forget on") as raised:
        refuse_forgotten(store.receipts(), store.key, PRIVATE)
    assert PRIVATE[1] not in str(raised.value)
    refuse_forgotten(store.receipts(), store.key, [*PRIVATE[2:], *LENT])


def test_twice_and_nobody(root: Path) -> None:
    forget(str(root), PRIVATE[0], yes=True)
    again = forget(str(root), PRIVATE[0], yes=True)
    assert (again.removed, again.edited, again.still_there) == ({}, 0, ())
    nobody = forget(str(root), "Nobody At All")
    assert (nobody.removed, nobody.edited, nobody.runs) == ({}, 0, {})
    assert command("forget").exit_code == 2
    assert command("forget", "-", "--storage", str(root), stdin="\n").exit_code == 6


def test_two_people_one_after_the_other(root: Path) -> None:
    for name in (PRIVATE[0], LENT[1], PUBLIC[0]):
        assert forget(str(root), name, yes=True).still_there == ()
    left = decode((run_of(root) / PEOPLE).read_bytes())
    assert left is not None
    assert len(left) == len(PRIVATE) + len(LENT) - 2


def test_a_run_that_does_not_say_whom_it_learnt_is_judged_by_its_settings(root: Path) -> None:
    for path in [*root.glob("runs/*/people.npy"), *root.glob("runs/*/needs.json")]:
        path.unlink()
    assert forget(str(root), PRIVATE[4]).runs == {run_of(root).name: LEARNT}
    assert forget(str(root), PUBLIC[0]).runs == {run_of(root).name: DRAWN}


@pytest.mark.parametrize(
    ("value", "less"),
    [
        ({"a": "Ann"}, {"a": "*"}),
        ({"Ann": 1}, {"*": 1}),
        ({"a": "Anna"}, {"a": "Anna"}),
        ({"a": "x/Ann/1.png"}, {"a": "x/*/1.png"}),
        ({"a": "of Ann"}, {"a": "of Ann"}),  # too short to be looked for in running text
        ([{"pseudonym": "id-1"}, {"pseudonym": "id-2"}], [{"pseudonym": "id-2"}]),
        ({"worst": {"pseudonym": "id-1"}}, {"worst": None}),
        ({"id-1": 3, "b": 4}, {"b": 4}),
    ],
)
def test_names_and_rows_are_taken_out(value: Any, less: Any) -> None:
    found = without_person(json.dumps(value).encode(), "Ann", "*", ["id-1"])
    assert json.loads(found) == less


@pytest.mark.slow  # MLflow alone takes ten seconds
def test_mlflow_forgets_too(root: Path) -> None:
    from rich.console import Console

    from orchestrator.mlflow_removal import shown_runs
    from orchestrator.track_command import track

    run, quiet = run_of(root), Console(quiet=True)
    track([run], replay=True, uri=None, console=quiet)
    assert len(shown_runs(root, [run.name])) == 8
    before = list((root / "mlartifacts").glob("*"))
    outcome = forget(str(root), PRIVATE[0], yes=True)
    assert (outcome.mlflow_runs, outcome.still_there) == (8, ())
    assert before
    assert not list((root / "mlartifacts").glob("*"))
    assert outcome.pseudonym.encode() not in (root / "mlflow.db").read_bytes()
    again = track([run], replay=True, uri=None, console=quiet)
    assert again.runs[0].missing == 7
