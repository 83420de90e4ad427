"""The notebook of the examples: kept with its outputs, and they still come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.notebook import NOTEBOOK, execute, machine_paths, outputs, read_notebook


def test_it_is_kept_with_its_outputs_and_they_name_no_folder_of_a_machine() -> None:
    notebook = read_notebook()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = [kind for kind, _ in outputs(notebook)]
    assert {"text/html", "text/markdown", "image/png", "stdout"} <= set(kinds)
    assert "stderr" not in kinds
    for _, text in outputs(notebook):
        assert machine_paths(text) == []
    assert str(Path.home()) not in NOTEBOOK.read_text()
    assert NOTEBOOK.stat().st_size < 300_000


def test_a_path_of_a_machine_is_found() -> None:
    assert machine_paths("see /home/ann/runs and /tmp/x.json") == ["/home/ann/runs", "/tmp/x.json"]
    assert machine_paths("https://example.org/home, small/runs/3c4a, </var>") == []


@pytest.mark.slow
def test_it_runs_from_clean_and_says_the_same(tmp_path: Path) -> None:
    kept = outputs(read_notebook())
    notebook = read_notebook()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    found = outputs(execute(notebook, tmp_path))
    assert [kind for kind, _ in found] == [kind for kind, _ in kept]
    assert all(machine_paths(text) == [] for _, text in found)
    # What is read from kept records is the same to the letter; sizes of files are left out.
    told = ("text/markdown", "text/html")
    assert [text for kind, text in found if kind in told] == [
        text for kind, text in kept if kind in told
    ]
