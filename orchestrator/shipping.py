"""What travels to a cluster: dcdctl's own code, and what is to be done, in folders of their own.

Ray keeps a package by the hash of what is in it: code that the cluster has is not sent again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestrator.job_request import JobRequest

ROOMS = ("orchestrator", "tasks", "augment", "attacks", "clusters")
REQUEST = "request.json"
CHECKPOINT = "checkpoint"
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


def pack_code(folder: Path) -> list[Path]:
    """Copy the five rooms as they are installed here; no caches, nothing of the person's.

    Args:
        folder: is filled.

    Returns:
        The packages, one of each room.
    """
    here = Path(__file__).resolve().parents[1]
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    for room in ROOMS:
        shutil.copytree(here / room, folder / room, ignore=ignore)
    return [folder / room for room in ROOMS]


def pack_request(folder: Path, request: JobRequest, checkpoint: Path | None = None) -> None:
    """Write what is to be done, and how it starts.

    Args:
        folder: is filled; the job runs in its copy.
        request: what is to be done.
        checkpoint: folder of the classifier that is attacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / START).write_text(_START)
    (folder / REQUEST).write_text(request.model_dump_json())
    if checkpoint is not None:
        shutil.copytree(checkpoint, folder / CHECKPOINT, ignore=shutil.ignore_patterns(".*"))
