"""A run that a command line names, with as much of it here as the command reads.

In a folder all of a run is there. Of an object store a command fetches what it needs: `status`
looks at texts and numbers, a report shows pictures too, and what attacks again needs everything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from orchestrator.bucket import SCHEMES
from orchestrator.find_run import find_run, storage_root
from orchestrator.object_store import ObjectStore, object_store_of

IN_A_STORE = re.compile(rf"(?P<storage>(?:{'|'.join(SCHEMES)})://.+?)/runs/(?P<run>[^/]+)/?")
"""The address of a run in an object store: the storage's, then /runs/ and the run's name."""


def split_address(name: str | None, storage: str | None) -> tuple[str | None, str | None]:
    """Return a run's name and its storage; the address of a run in an object store has both.

    Args:
        name: a folder, a run's name or a start of it, or s3://bucket/prefix/runs/NAME.
        storage: as `--storage` names it; an address wins over it.
    """
    found = None if name is None else IN_A_STORE.fullmatch(written_out(name))
    return (found["run"], found["storage"]) if found else (name, storage)


def written_out(path: str | Path) -> str:
    """Return a path as it was typed: of s3://a, a Path keeps s3:/a."""
    return re.sub(rf"^({'|'.join(SCHEMES)}):/+", r"\1://", str(path))


def open_run(name: str | None, storage: str | None, *, weights: bool = False) -> Path:
    """Return the folder of a run, with its pictures.

    Args:
        name: a folder, a run's name or a start of it, or its address in an object store; None is
            the newest run of the storage.
        storage: where the runs are; None is the default one.
        weights: fetch checkpoints and recipes too.

    Raises:
        StoreError: there is no such run, or there are several, or the storage cannot be read.
    """
    own, place = split_address(name, storage)
    # A folder is one without a look at the storage, which may be slow or away.
    here = own is not None and (Path(own) / "spec.json").is_file()
    run = Path(str(own)) if here else find_run(own, storage_root(place))
    remote = object_store_of(run)
    if remote is not None:
        remote.pull(run.absolute(), None if weights else without_weights)
    return run


def open_runs(
    names: Sequence[str] | None, storage: str | None, *, weights: bool = False
) -> list[Path]:
    """Return the folders of several runs; none named is the newest one.

    Raises:
        StoreError: as `open_run`.
    """
    named: Sequence[str | None] = names or [None]
    return [open_run(name, storage, weights=weights) for name in named]


def without_weights(name: str, size: int) -> bool:
    """Say whether an object is fetched for a report: all but weights and tables of recipes."""
    return PurePosixPath(name).suffix not in (".safetensors", ".parquet", ".pt")


def shown_path(folder: Path) -> str:
    """Return a folder of a run as one would type it from here.

    An object store's has its address, which means the same on every machine; another one is short,
    and mostly without a home folder's name.
    """
    folder, here = folder.absolute(), Path.cwd()
    remote = object_store_of(folder)
    if remote is not None:
        return address_of(remote, folder)
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def address_of(remote: ObjectStore, path: Path) -> str:
    """Return the address of a file or folder of an object store's copy."""
    return f"{remote.uri}/{path.absolute().relative_to(remote.root).as_posix()}"


def publish(page: Path) -> str | None:
    """Have an object store show a page and what lies beside it; return its address there.

    None for a page in a folder of this machine.
    """
    remote = object_store_of(page.absolute())
    if remote is None:
        return None
    remote.push(page.absolute().parent, deep=False)
    return address_of(remote, page)
