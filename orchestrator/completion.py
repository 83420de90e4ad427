"""What the shell offers for RUN, as one types: the runs of the storage. Imports next to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import typer

DEFAULT_STORAGE = ".dcdctl"


def run_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the names of runs, the newest first, each with its experiment's name."""
    return [found for found in _runs(ctx) if found[0].startswith(incomplete)]


def run_or_job_names(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the names of runs, and those of jobs that were sent to a cluster."""
    jobs = [(name, "a job on a cluster") for name in job_names(ctx, incomplete)]
    return [*run_names(ctx, incomplete), *jobs]


def run_folders(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the folders of runs, for commands that take folders."""
    root = _root(ctx) / "runs"
    found = [(str(root / name), experiment) for name, experiment in _runs(ctx)]
    return [one for one in found if one[0].startswith(incomplete)]


def job_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the jobs that were sent to a cluster, the newest first."""
    names = (path.stem for path in (_root(ctx) / "jobs").glob("*.json"))
    return [name for name in sorted(names, reverse=True) if name.startswith(incomplete)]


def _root(ctx: typer.Context) -> Path:
    named = str(ctx.params.get("storage") or DEFAULT_STORAGE)
    return Path(named.removeprefix("file://")).expanduser()


def _runs(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    folders = [p.parent for p in (_root(ctx) / "runs").glob("*/spec.json")]
    for folder in sorted(folders, key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            name = str(json.loads((folder / "spec.json").read_text())["name"])
        except (OSError, ValueError, KeyError):
            name = ""
        yield folder.name, name
