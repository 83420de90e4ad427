"""No telemetry, and no pickle from outside: held for all of the code, and seen in a process."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.embedded import DRIVER_ENV

ROOT = Path(__file__).parents[1]
ROOMS = ("orchestrator", "tasks", "augment", "attacks", "clusters")
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
OWN_NOTES = {"orchestrator/tune_search.py": ["calls ray.cloudpickle.load"]}
"""What Ray Tune notes of a lost trial: written and read by one process, in a folder of its own."""
LOADERS = {"torch.load", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "pandas.read_pickle"}


def sources() -> Iterator[Path]:
    for room in ROOMS:
        yield from sorted((ROOT / room).rglob("*.py"))


def reasons(tree: ast.AST) -> Iterator[str]:
    """Yield what could unpickle a file, or run text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in UNPICKLERS)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        unpickles = called.endswith(("pickle.load", "pickle.loads"))
        if called in LOADERS or called in ("eval", "exec") or unpickles:
            yield f"calls {called}"
        if called in ("np.load", "numpy.load"):
            said = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if said.get("allow_pickle") != "False":
                yield "calls np.load without allow_pickle=False"


FILES = [path.relative_to(ROOT).as_posix() for path in sources()]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_is_unpickled(path: str) -> None:
    found = list(reasons(ast.parse((ROOT / path).read_text())))
    assert found == OWN_NOTES.get(path, []), (
        f"{path}: read weights as safetensors, a pickle by attacks.prior_pickle"
    )


def test_the_reasons_are_seen() -> None:
    code = "import pickle\nfrom joblib import load\ntorch.load(x)\nnp.load(y)\neval(z)"
    code += "\nray.cloudpickle.loads(a)"
    assert len(list(reasons(ast.parse(code)))) == 6


def process(code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={key: value for key, value in os.environ.items() if key not in IN_TESTS} | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_TESTS = ("CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST", "DO_NOT_TRACK")
"""Where these are set MLflow sends nothing by itself."""

IMPORTS = (
    "from orchestrator.tracking import MlflowTracker as T; T('sqlite://', 'x', None)._client()",
    "import orchestrator.mlflow_runs",
    "import orchestrator.mlflow_sweep",
)


@pytest.mark.slow
@pytest.mark.parametrize("first", IMPORTS)
def test_mlflows_telemetry_never_starts(first: str) -> None:
    code = (
        f"{first}\nimport mlflow\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(is_telemetry_disabled(), get_telemetry_client())"
    )
    assert process(code, MLFLOW_DISABLE_TELEMETRY="false") == "True None\n"


def test_rays_usage_statistics_are_off() -> None:
    assert DRIVER_ENV["RAY_USAGE_STATS_ENABLED"] == "0"
    for path in [*(ROOT / "clusters").glob("*.yaml"), *(ROOT / "clusters").glob("*.j2")]:
        for line in path.read_text().splitlines():
            if "ray start" in line and not line.lstrip().startswith("#"):
                assert "RAY_USAGE_STATS_ENABLED=0" in path.read_text(), path
