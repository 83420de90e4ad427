"""`dcdctl cluster render`: what would be used, and what is missing in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clusters.cluster_file import SHIPPED
from orchestrator.cli import app

RUN = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


def test_a_shipped_file_is_printed_as_it_is() -> None:
    found = RUN.invoke(app, ["cluster", "render", "aws.yaml"])
    assert found.exit_code == 0
    assert found.stdout == (SHIPPED / "aws.yaml").read_text()


def test_the_check_names_what_is_still_an_example() -> None:
    found = RUN.invoke(app, ["cluster", "render", "--check", "aws.yaml"])
    assert found.exit_code == 0
    assert "to fill in, line" in found.stdout
    assert "meets the security list" in found.stdout


def test_a_file_that_is_not_secure_has_an_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("address: http://10.0.0.1:8265\n")
    found = RUN.invoke(app, ["cluster", "render", "--check", str(path)])
    assert found.exit_code == 7
    assert "travels readable" in found.stdout


def test_slurms_script_is_a_script(tmp_path: Path) -> None:
    words = [
        "cluster",
        "render",
        "slurm.sh.j2",
        "--set",
        "nodes=4",
        "--set",
        "experiment=my a.yaml",
    ]
    found = RUN.invoke(app, words)
    assert found.exit_code == 0
    assert "#SBATCH --nodes=4" in found.stdout
    assert "'my a.yaml'" in found.stdout
    assert "--gpus-per-node" not in found.stdout
    script = tmp_path / "sweep.sh"
    script.write_text(found.stdout)
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.parametrize("value", ["nods=4", "nodes", "nodes=four"])
def test_what_slurms_script_does_not_know_is_refused(value: str) -> None:
    assert RUN.invoke(app, ["cluster", "render", "slurm.sh.j2", "--set", value]).exit_code == 2


def test_the_whole_check_names_each_point_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = RUN.invoke(app, ["cluster", "check", "onprem.yaml"])
    assert found.exit_code == 7
    assert "line 13 still has the example's 198.51.100.10; put your own in" in found.stdout
    assert "auth.ssh_private_key='~/.ssh/id_ed25519'" in found.stdout
    path = tmp_path / "c.yaml"
    path.write_text("address: http://127.0.0.1:8265\n")
    assert RUN.invoke(app, ["cluster", "check", str(path)]).exit_code == 2
