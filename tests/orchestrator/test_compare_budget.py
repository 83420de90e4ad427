"""One budget over the runs of a comparison: it stops, says so, and goes on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.config import load_spec
from orchestrator.smoke import smoke
from orchestrator.spec import ExperimentSpec
from orchestrator.spending import read_note, run_spent
from orchestrator.store import records_of

pytestmark = [pytest.mark.usefixtures("ray"), pytest.mark.slow]

ROWS = [{"dcd": True}, {"defense": "random-erasing", "strengths": []}]


def settings_in(storage: Path) -> list[str]:
    return [
        "tracking.enabled=false",
        "attacks=[ppa]",
        "adaptive_attacks=[]",
        "evaluation.image_metrics=false",
        "evaluation.second.enabled=false",
        "protect.surrogates=attribute-opposite",
        f"storage={json.dumps(str(storage))}",
        f"sweep.rows={json.dumps(ROWS)}",
    ]


def compare(storage: Path, *more: str) -> Result:
    given = [word for one in settings_in(storage) for word in ("--set", one)]
    return CliRunner().invoke(app, ["compare", "--smoke", *given, *more])


def runs_of(storage: Path) -> dict[int, Path]:
    """Return the folder of each seed's run."""
    found = {}
    for path in sorted(storage.glob("runs/*/spec.json")):
        found[ExperimentSpec.model_validate_json(path.read_bytes()).seed] = path.parent
    return found


def test_one_budget_over_two_runs_stops_and_goes_on(tmp_path: Path) -> None:
    spec = smoke(load_spec(None, settings_in(tmp_path)))
    whole = compare(tmp_path, "--seeds", "0")
    assert whole.exit_code == 0, whole.output
    first = runs_of(tmp_path)[0]
    spent = run_spent(first, spec)
    kept = {path: path.stat().st_mtime_ns for path in first.glob("trials/*/record.json")}
    assert len(kept) == 3

    # What is left after the first run is a part of what the second one needs.
    limit = spent * 1.3
    stopped = compare(tmp_path, "--seeds", "0,1", "--max-hours", f"{limit:.6f}")
    assert stopped.exit_code == 14, stopped.output
    second = runs_of(tmp_path)[1]
    done = len(records_of(second))
    assert done < 3
    said = stopped.stderr
    assert re.search(r"error: run 2 of 2: The budget of [\d.e-]+ core-hours ended the search", said)
    assert f"{3 - done} of 3 trials were not run" in said
    assert "go on with a larger budget and --resume" in said
    assert "has what there is" in said
    note = read_note(second)
    assert note is not None
    assert note.spent_hours >= spent  # the first run's is in it
    assert run_spent(first, spec) + run_spent(second, spec) == pytest.approx(
        note.spent_hours, abs=2e-6
    )

    # The same budget again allows nothing more, and costs nothing more.
    again = compare(tmp_path, "--seeds", "0,1", "--max-hours", f"{limit:.6f}", "--resume")
    assert again.exit_code == 14
    assert len(records_of(second)) in (done, done + 1)

    ended = compare(tmp_path, "--seeds", "0,1", "--max-hours", f"{spent * 100:.6f}", "--resume")
    assert ended.exit_code == 0, ended.output
    assert len(records_of(second)) == 3
    assert read_note(second) is None
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing was run twice
    table = json.loads(next(iter(tmp_path.glob("comparisons/*/table.json"))).read_text())
    assert table["rows"]


def test_a_run_that_comes_later_has_spent_of_the_budget_too(tmp_path: Path) -> None:
    spec = smoke(load_spec(None, settings_in(tmp_path)))
    assert compare(tmp_path, "--seeds", "1").exit_code == 0
    spent = run_spent(runs_of(tmp_path)[1], spec)
    stopped = compare(tmp_path, "--seeds", "0,1", "--max-hours", f"{spent:.6f}")
    assert stopped.exit_code == 14
    assert not records_of(runs_of(tmp_path)[0])
    assert "run 1 of 2" in stopped.stderr
    assert "nothing can be compared yet" in stopped.stderr
