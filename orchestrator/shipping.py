"""What travels to a cluster: dcdctl's own code and one experiment, as a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from orchestrator.spec import ExperimentSpec

ROOMS = ("orchestrator", "tasks", "augment", "attacks", "clusters")
REQUEST = "request.json"
START = "start.sh"

_START = """\
# The Python under which Ray runs is the one that has dcdctl's packages, wherever `python` points:
# an ancestor of this shell is the raylet, whose command line names it.
process=$$
python=
while [ -z "$python" ] && [ "${process:-0}" -gt 1 ]; do
  process=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$process/status")
  python=$(tr '\\0' '\\n' <"/proc/$process/cmdline" |
    sed -n 's/^--python_worker_command=\\([^ ]*\\) .*/\\1/p')
done
exec "${python:-python3}" -m orchestrator.job
"""


def pack_code(folder: Path) -> None:
    """Copy the five rooms as they are installed here; no caches, nothing of the person's.

    Args:
        folder: is filled.
    """
    here = Path(__file__).resolve().parents[1]
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for room in ROOMS:
        shutil.copytree(here / room, folder / room, ignore=ignore)
    (folder / START).write_text(_START)


def pack_request(
    folder: Path,
    command: str,
    specs: list[ExperimentSpec],
    mode: str,
    *,
    retry_failed: bool = False,
) -> None:
    """Write what is to be done; it travels as a file, so that no name is on a command line.

    Args:
        folder: that `pack_code` filled.
        command: sweep or compare.
        specs: the experiments.
        mode: as for a sweep.
        retry_failed: as for a sweep.
    """
    asked = {
        "command": command,
        "specs": [spec.model_dump(mode="json") for spec in specs],
        "mode": mode,
        "retry_failed": retry_failed,
    }
    (folder / REQUEST).write_text(json.dumps(asked))
