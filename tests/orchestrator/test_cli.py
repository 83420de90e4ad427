"""The command line: what it hands to the functions below it, prints, and exits with."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from rich.console import Console
from typer.testing import CliRunner, Result

from orchestrator.cli import app
from orchestrator.failure import describe
from orchestrator.spec import ExperimentSpec
from orchestrator.sweep_outcome import SweepOutcome
from tasks import errors

DOCS = Path(__file__).parents[2] / "docs"
DCDCTL = Path(sys.executable).with_name("dcdctl")
COMMANDS = ["sweep", "protect", "report", "plan", "augment", "train", "attack", "prior train"] + [
    *("audit", "prior convert", "landscape", "trainers", "status", "logs", "trials", "track"),
    *("forget", "clean", "init", "validate", "schema", "doctor"),
]
ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.DcdctlError)
]


def run(*args: str) -> Result:
    return CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"}).invoke(app, args, prog_name="dcdctl")


class Outcome(BaseModel):
    """What every fake step returns."""

    run_dir: str = "runs/1"

    def render(self, console: Console) -> None:
        console.print("drawn")


SWEPT = SweepOutcome(
    run_dir="runs/1",
    report="runs/1/report.html",
    records=(),
    resumed=0,
    seconds=1.0,
    verdict="It holds.",
    adaptive="Not against everyone.",
    next_commands=("dcdctl report runs/1",),
)


class Fake:
    """Stands for the functions that commands call, and keeps what it was called with."""

    def __init__(self) -> None:
        self.calls: list[SimpleNamespace] = []
        self.error: BaseException | None = None

    def function(self, name: str) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(SimpleNamespace(name=name, args=args, **kwargs))
            for console in (*args, *kwargs.values()):
                if isinstance(console, Console):
                    console.print("progress")
            if self.error is not None:
                raise self.error
            if name == "write_report":
                return Path("runs/1/report.html")
            return SWEPT if name == "run_sweep" else Outcome()

        return called


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    functions = {
        "orchestrator.sweep": ["run_sweep"],
        "orchestrator.report": ["write_report"],
        "orchestrator.landscape": ["landscape"],
        "orchestrator.planning": ["plan_summary"],
        "orchestrator.commands": ["augment", "train", "attack"],
        "orchestrator.prior_commands": ["train_prior", "convert_prior"],
    }
    for name, members in functions.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member, fake.function(member))
        monkeypatch.setitem(sys.modules, name, module)
    return fake


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_and_an_example(command: str) -> None:
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert re.search(rf"Example:\s+dcdctl {command}", result.stdout)


def test_help_lists_every_command() -> None:
    text = run("--help").stdout
    assert all(command.split()[0] in text for command in COMMANDS)


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys; sys.argv = ['dcdctl', '--help']\n"
        "from orchestrator.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('\\n', *sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    loaded = set(output.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & {"torch", "ray", "mlflow", "pyarrow", "pandas", "numpy", "pydantic", "yaml"}


def test_help_is_quick() -> None:
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([DCDCTL, "--help"], check=True, capture_output=True)
        durations.append(time.perf_counter() - started)
    assert min(durations) < 2.0  # 0.3 s on an idle machine; the promise is 0.5 s


def test_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, "dcdctl 0.1.0\n")


# --- what the commands hand over ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "mode"), [([], "new"), (["--resume"], "resume"), (["--fresh"], "fresh")]
)
def test_sweep_names_the_report_and_what_to_type_next(
    fake: Fake, flags: list[str], mode: str
) -> None:
    result = run("sweep", *flags)
    assert result.exit_code == 0
    assert fake.calls[0].mode == mode
    assert fake.calls[0].args == (ExperimentSpec(),)
    assert result.stdout.endswith(
        "\nIt holds.\nNot against everyone.\n\n"
        "Report: runs/1/report.html\nNext:\n  dcdctl report runs/1\n"
    )


def test_settings_come_from_the_file_then_set_then_the_short_options(
    fake: Fake, tmp_path: Path
) -> None:
    path = tmp_path / "faces.yaml"
    path.write_text("seed: 1\nname: mine\n")
    storage = "a: 'b'"
    run("sweep", str(path), "-s", "seed=2", "--set", "dcd.target_sigma=.1", "--seed", "3")
    run("sweep", str(path), "--storage", storage)
    first, second = (call.args[0] for call in fake.calls)
    assert (first.name, first.seed, first.dcd.target_sigma) == ("mine", 3, 0.1)
    assert (second.seed, second.storage) == (1, storage)


def test_smoke_makes_the_sweep_small(fake: Fake) -> None:
    run("sweep", "--smoke")
    assert fake.calls[0].args[0].name == "builtin-faces-smoke"


STEPS: dict[str, tuple[str, list[Any]]] = {
    "plan": ("plan_summary", []),
    "augment --out o": ("augment", [Path("o")]),
    "augment --out o --format imagefolder": ("augment", [Path("o")]),
    "train --out o": ("train", ["dcd", Path("o")]),
    "train --defense none --out o": ("train", ["none", Path("o")]),
    "attack --checkpoint c": ("attack", [Path("c")]),
    "prior train -o p": ("train_prior", [Path("p")]),
}


@pytest.mark.parametrize("line", STEPS)
def test_a_step_calls_one_function_and_draws_its_outcome(fake: Fake, line: str) -> None:
    result = run(*line.split())
    function, arguments = STEPS[line]
    (call,) = fake.calls
    assert call.name == function
    assert list(call.args[: 1 + len(arguments)]) == [ExperimentSpec(), *arguments]
    assert ("imagefolder" in call.args) == ("imagefolder" in line)
    assert result.stdout.endswith("drawn\n")


def test_augment_hands_over_how_the_images_are_written(fake: Fake) -> None:
    run("augment", "--out", "o", "--format", "webdataset", "--codec", "jpeg:90")
    run("augment", "--out", "o", "--recipes-only", "--samples-per-shard", "9")
    first, second = fake.calls
    assert "webdataset" in first.args
    assert (first.codec, first.samples_per_shard, first.recipes_only) == ("jpeg:90", None, False)
    assert (second.codec, second.samples_per_shard, second.recipes_only) == (None, 9, True)


@pytest.mark.parametrize("line", ["sweep", *STEPS])
def test_json_has_stdout_to_itself(fake: Fake, line: str) -> None:
    result = run(*line.split(), "--json")
    assert json.loads(result.stdout)["run_dir"] == "runs/1"
    assert "progress" in result.stderr


@pytest.fixture
def a_run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "3c4a"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    return folder


def test_report_takes_a_run_by_its_folder_or_a_start_of_its_name(fake: Fake, a_run: Path) -> None:
    assert run("report", str(a_run)).exit_code == 0
    named = run("report", "3c", "--storage", str(a_run.parents[1]), "--show-people")
    assert named.exit_code == 0
    assert run("report", "--storage", str(a_run.parents[1])).exit_code == 0
    assert [(call.args, call.show_people) for call in fake.calls] == [
        ((a_run,), False),
        ((a_run,), True),
        ((a_run,), False),
    ]
    assert run("report", "nothing").exit_code == 6


def test_landscape_takes_a_run(fake: Fake, a_run: Path) -> None:
    drawn = run("landscape", str(a_run), "--trial", "2", "--probes", "3")
    assert drawn.stdout.endswith("drawn\n")
    assert json.loads(run("landscape", str(a_run), "--json").stdout)["run_dir"] == "runs/1"
    first, second = fake.calls
    assert (first.args[0], first.trial, first.images, first.probes) == (a_run, 2, 8, 3)
    assert second.trial is None


def test_init_validate_and_schema_work_together(tmp_path: Path) -> None:
    path = str(tmp_path / "experiment.yaml")
    assert f"dcdctl sweep {path}" in run("init", path).stdout
    assert run("init", path).exit_code == 2
    assert run("init", path, "--force").exit_code == 0
    text = run("validate", path, "--seed", "4").stdout
    assert re.search(r"^experiment +builtin-faces, seed 4, fingerprint [0-9a-f]{12}$", text, re.M)
    assert ExperimentSpec.model_validate_json(run("validate", path, "--json").stdout)
    assert json.loads(run("schema").stdout)["properties"]["seed"]["minimum"] == 0
    assert run("schema", "--markdown").stdout.startswith("### At the top")


# --- how they end -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_of_ours_is_one_line_and_its_exit_code(
    fake: Fake, kind: type[errors.DcdctlError]
) -> None:
    fake.error = kind("the thing is 3; make it 2")
    result = run("sweep")
    assert result.exit_code == kind.exit_code
    assert result.stderr.startswith("error: the thing is 3; make it 2")
    assert result.stderr.count("\n") == 1


def test_a_setting_that_is_wrong_exits_with_2() -> None:
    result = run("validate", "--set", "sed=1")
    assert result.exit_code == 2
    assert result.stderr == "error: --set sed=1: unknown key 'sed'; did you mean 'seed'?\n"


def test_a_missing_file_exits_with_3(tmp_path: Path) -> None:
    assert run("validate", str(tmp_path / "none.yaml")).exit_code == 3


@pytest.mark.parametrize(
    "line", ["sweep --resume --fresh", "sweep --nothing", "nothing", "train", "sweep --seed -1"]
)
def test_a_usage_error_exits_with_2(fake: Fake, line: str) -> None:
    assert run(*line.split()).exit_code == 2
    assert fake.calls == []


def test_ctrl_c_in_a_sweep_says_how_to_go_on(fake: Fake) -> None:
    fake.error = KeyboardInterrupt()
    result = run("sweep", "--fresh", "-s", "sweep.space.target_sigma=[.1, .2]")
    assert result.exit_code == 130
    assert result.stderr.strip() == (
        "interrupted; what is finished is saved, go on with: "
        "dcdctl sweep -s 'sweep.space.target_sigma=[.1, .2]' --resume"
    )


def test_ctrl_c_elsewhere(fake: Fake) -> None:
    fake.error = KeyboardInterrupt()
    result = run("train", "--out", "o")
    assert result.exit_code == 130
    assert result.stderr.strip().startswith("interrupted; the same command starts again")


def test_a_full_disk_exits_as_a_store_error(fake: Fake) -> None:
    fake.error = RuntimeError("writing failed")
    fake.error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "runs/1/x")
    result = run("sweep")
    assert result.exit_code == errors.DiskFullError.exit_code
    assert result.stderr == "error: no space is left for runs/1/x; free some and run again\n"


def test_an_error_that_ray_wrapped_is_ours_again() -> None:
    class Wrapped(errors.AttackError):
        """As Ray makes it: of both classes, its text a traceback, the error itself in `cause`."""

        def __init__(self) -> None:
            super().__init__("ray::trial()\n  File ...")
            self.cause = errors.AttackError("the loss of ppa is nan; lower its learning rate")

    assert describe(Wrapped()) == ("the loss of ppa is nan; lower its learning rate", 5)


def test_an_unexpected_error_is_one_line_that_points_to_debug(fake: Fake) -> None:
    fake.error = ValueError("first\nsecond")
    result = run("sweep")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: unexpected ValueError: first; run again with --debug for the traceback\n"
    )


@pytest.mark.parametrize("line", ["--debug sweep", "sweep --debug"])
def test_debug_shows_the_traceback_wherever_it_stands(fake: Fake, line: str) -> None:
    fake.error = errors.StoreError("no")
    result = run(*line.split())
    assert result.exit_code == errors.StoreError.exit_code
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("error: no\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen([DCDCTL, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert stderr == b""


def test_the_exit_codes_of_the_docs_are_those_of_the_errors() -> None:
    table = re.findall(r"^\| (\d+) \| (?:`(\w+)` )?\|", (DOCS / "exit-codes.md").read_text(), re.M)
    documented = {name: int(code) for code, name in table if name}
    branches = {
        kind.__name__: kind.exit_code for kind in ERRORS if "exit_code" in vars(kind)
    }  # the leaves inherit theirs
    assert documented == branches
    assert {int(code) for code, name in table if not name} == {0, 130}
