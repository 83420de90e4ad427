"""`dcdctl report --pdf` where no browser is, and where one does not print."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from tests.orchestrator.fake_run import fake_records, write_fake_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_fake_run(tmp_path, fake_records(2), pictures=False)


def report(run: Path, path: Path) -> tuple[int, str]:
    found = CliRunner(env={"PATH": str(path), "COLUMNS": "300", "NO_COLOR": "1"}).invoke(
        app, ["report", str(run), "--pdf"]
    )
    return found.exit_code, found.output


def test_without_a_browser_the_report_is_there_and_the_sentence_says_what_to_do(
    run: Path, tmp_path: Path
) -> None:
    code, said = report(run, tmp_path / "nothing")
    assert code == 6
    assert "none of chromium" in said
    assert "is installed; install one, or print the page" in said
    assert (run / "report.html").is_file()


def test_a_browser_that_prints_nothing_is_said(run: Path, tmp_path: Path) -> None:
    browser = tmp_path / "bin" / "chromium"
    browser.parent.mkdir()
    browser.write_text("#!/bin/sh\necho 'cannot open display' >&2\nexit 1\n")
    browser.chmod(0o755)
    code, said = report(run, browser.parent)
    assert code == 6
    assert "wrote none (cannot open display)" in said
