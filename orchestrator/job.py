"""The other end of `--cluster`: runs on the head node, as a job, and prints events alone.

At its end it sends what the records are made of, in lines: a job's output is the one way back that
every cluster has. Names of people stay out of it, and pictures unless the people are drawn ones.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 12_000
"""Characters of a file in one line: the job server cuts lines of more than 20,000."""

FILES = ("evaluation.json", "adaptive.json", "trainers.json")
PICTURES = ("reconstructions.npz", "recipe.parquet")


def main() -> None:
    """Do what `request.json` asks for."""
    from clusters.embedded import IN_A_JOB
    from orchestrator.events import TO_STDOUT, EventLog
    from orchestrator.failure import describe
    from orchestrator.shipping import REQUEST

    os.environ |= {TO_STDOUT: "1", IN_A_JOB: "1"}
    asked = json.loads(Path(REQUEST).read_text())
    log = EventLog()
    try:
        for folder, drawn in _run(asked):
            for name, data in _results(folder, drawn):
                for start in range(0, len(data) or 1, CHUNK):
                    part = {"run": folder.name, "path": name, "data": data[start : start + CHUNK]}
                    log.write("file", **part, last=start + CHUNK >= len(data))
    except KeyboardInterrupt:
        log.write("failed", text="the job was stopped; what is finished is kept", code=130)
        sys.exit(130)
    except Exception as error:
        sentence, code = describe(error)
        log.write("failed", text=sentence, code=code)
        sys.exit(code)
    log.write("done")


def _run(asked: dict[str, Any]) -> Iterator[tuple[Path, bool]]:
    """Run the command; yield its run folders, and whether the people in them are drawn."""
    from rich.console import Console

    from orchestrator.compare import comparing
    from orchestrator.spec import ExperimentSpec
    from orchestrator.sweep import run_sweep
    from tasks.errors import FailedTrialsError

    failed: FailedTrialsError | None = None
    for raw in asked["specs"]:
        spec = ExperimentSpec.model_validate(raw)
        if asked["command"] == "compare":
            spec = comparing(spec, spec.seed)
        try:
            run_sweep(
                spec,
                mode=asked["mode"],
                console=Console(quiet=True),
                retry_failed=asked["retry_failed"],
            )
        except FailedTrialsError as error:
            failed = error
        yield run_folder(spec), spec.data.kind == "builtin"
    if failed is not None:
        raise failed


def run_folder(spec: Any) -> Path:
    """Return where an experiment's run is kept."""
    from orchestrator.stages import select
    from orchestrator.store import Store
    from orchestrator.sweep import run_fingerprint

    return Store(spec.storage).run(run_fingerprint(spec, select(spec)))


def _results(run: Path, drawn: bool) -> Iterator[tuple[str, str]]:
    """Yield the files of a run that go back, in base 64; a trial's record is its last."""
    own = [run / name for name in (*FILES, *(("examples.npz",) if drawn else ()))]
    for trial in sorted((run / "trials").glob("*/record.json")):
        own += [trial.parent / name for name in (PICTURES if drawn else ())] + [trial]
    for path in own:
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            yield path.relative_to(run).as_posix(), data


if __name__ == "__main__":
    main()
