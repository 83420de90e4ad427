"""`dcdctl doctor`: can this machine run an experiment, and if not, what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import computed_field

from orchestrator.spec import ExperimentSpec
from tasks.errors import DcdctlError
from tasks.spec import Spec

if TYPE_CHECKING:
    from rich.console import Console

Status = Literal["ok", "warn", "fail"]

ROOMS = ("tasks", "augment", "attacks", "clusters", "orchestrator")
HOME = Path(__file__).resolve().parents[1]
"""The folder that holds the rooms."""

GB = 1e9
RAY_DEADLINE_S = 90.0
RAY_PROBE = """
from clusters.embedded import embedded_ray

with embedded_ray(1):
    import ray

    assert ray.get(ray.remote(lambda: "ran").remote(), timeout=60) == "ran"
"""


class Finding(NamedTuple):
    """What one check saw."""

    status: Status
    sentence: str
    advice: str = ""


class Check(Spec):
    """One line of the diagnosis."""

    name: str
    status: Status
    finding: str
    advice: str


class Diagnosis(Spec):
    """All checks, in the order in which they ran."""

    checks: tuple[Check, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)

    def render(self, console: Console) -> None:
        """Print a line for each check, and below it what to do."""
        from rich.table import Table
        from rich.text import Text

        colours = {"ok": "green", "warn": "yellow", "fail": "red"}
        table = Table.grid(padding=(0, 2))
        for check in self.checks:
            text = check.finding + (f"\n-> {check.advice}" if check.advice else "")
            status = Text(check.status, style=colours[check.status])
            table.add_row(status, check.name, Text(text))
        console.print(table, highlight=False)


def examine(spec: ExperimentSpec, *, quick: bool = False) -> Diagnosis:
    """Run all checks; one that breaks has failed.

    Args:
        spec: whose storage and data are looked at.
        quick: leave out Ray, which takes ten seconds.
    """
    return Diagnosis(
        checks=tuple(
            _run(name, check, spec)
            for name, check in CHECKS.items()
            if not (quick and name == "ray")
        )
    )


def _run(name: str, check: Callable[[ExperimentSpec], Finding], spec: ExperimentSpec) -> Check:
    try:
        found = check(spec)
    except DcdctlError as error:
        found = Finding("fail", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a check dies of is its finding
        found = Finding("fail", f"{type(error).__name__}: {error}", "reinstall with ./setup")
    return Check(name=name, status=found.status, finding=found.sentence, advice=found.advice)


def check_python(spec: ExperimentSpec) -> Finding:
    """Python is one that the package says it supports."""
    from packaging.specifiers import SpecifierSet

    wanted = importlib.metadata.metadata("dcdctl")["Requires-Python"]
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("ok", f"Python {version}")
    return Finding(
        "fail", f"Python {version} is not {wanted}", "install a newer Python, run ./setup"
    )


def check_packages(spec: ExperimentSpec) -> Finding:
    """Every dependency is installed, in a version within the bounds of pyproject.toml."""
    from packaging.requirements import Requirement

    wrong, versions = [], {}
    for line in importlib.metadata.requires("dcdctl") or ():
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            versions[need.name] = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(versions[need.name], prereleases=True):
            wrong.append(f"{need.name} {versions[need.name]} is not {need.specifier}")
    if wrong:
        return Finding("fail", "; ".join(wrong), "run ./setup again")
    shown = ", ".join(f"{name} {versions[name]}" for name in ("torch", "ray", "mlflow", "optuna"))
    return Finding("ok", f"{len(versions)} packages within their bounds ({shown})")


def check_rooms(spec: ExperimentSpec) -> Finding:
    """`import tasks` and its neighbours find this project, here and in Ray's workers."""
    for room in ROOMS:
        found = importlib.util.find_spec(room)
        origin = found.origin if found is not None else None
        if origin is None or Path(origin).resolve().parent != HOME / room:
            return Finding(
                "fail",
                f"`import {room}` finds {origin or 'nothing'} instead of {HOME / room}",
                "unset PYTHONPATH, or use an environment of its own: ./setup",
            )
    owners = importlib.metadata.packages_distributions()
    others = {room: sorted(set(owners.get(room, ())) - {"dcdctl"}) for room in ROOMS}
    for room, names in others.items():
        if names:
            return Finding(
                "warn",
                f"the package {names[0]} also installs a top-level `{room}`",
                f"pip uninstall {names[0]}, or use an environment of its own: ./setup",
            )
    here = Path.cwd()
    for room in ROOMS:
        if here != HOME and (
            (here / f"{room}.py").exists() or (here / room / "__init__.py").exists()
        ):
            return Finding(
                "warn",
                f"this directory has a Python module `{room}` that workers may import instead",
                "start dcdctl in another directory",
            )
    return Finding("ok", "the rooms are imported from this project")


def check_cores(spec: ExperimentSpec) -> Finding:
    """At least the two cores that the built-in experiment is sized for."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    for quota, period in _cgroup("cpu.max"):
        cores = min(cores, max(1, int(quota) // int(period)))
    if cores >= 2:
        return Finding("ok", f"{cores} cores")
    return Finding("warn", "one core", "expect twice the time of the README")


def check_memory(spec: ExperimentSpec) -> Finding:
    """Room for Ray and a training process."""
    free = _free_memory() / GB
    for (limit,) in _cgroup("memory.max"):
        free = min(free, int(limit) / GB)
    sentence = f"{free:.1f} GB of memory free"
    if free >= 4:
        return Finding("ok", sentence)
    advice = "close other programs, or set compute.concurrent_trials=1"
    return Finding("warn" if free >= 2 else "fail", sentence, advice)


def check_shared_memory(spec: ExperimentSpec) -> Finding:
    """Ray keeps images in /dev/shm; containers give it 64 MB unless told otherwise."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Finding("ok", "no /dev/shm on this system; Ray uses the temporary folder")
    free = shutil.disk_usage(place).free / GB
    if free >= 1:
        return Finding("ok", f"{free:.1f} GB of shared memory free")
    return Finding("warn", f"{free:.2f} GB of shared memory free", "in a container: --shm-size=2g")


def check_disk(spec: ExperimentSpec) -> Finding:
    """Room for results, and for Ray's scratch files."""
    places = {"the storage": _existing(_local(spec.storage)), "Ray": Path(tempfile.gettempdir())}
    free = {name: shutil.disk_usage(place).free / GB for name, place in places.items()}
    name = min(free, key=free.__getitem__)
    sentence = f"{free[name]:.1f} GB of disk free for {name} ({places[name]})"
    if free[name] >= 5:
        return Finding("ok", sentence)
    return Finding("warn" if free[name] >= 1 else "fail", sentence, "free some, or use --storage")


def check_bfloat16(spec: ExperimentSpec) -> Finding:
    """Training is about five times faster where the processor has bfloat16."""
    import torch

    from tasks.device import has_fast_bfloat16

    if torch.cuda.is_available():
        return Finding("ok", f"GPU: {torch.cuda.get_device_name()}")
    if has_fast_bfloat16("cpu"):
        return Finding("ok", "bfloat16 in hardware (CPU)")
    return Finding("warn", "no bfloat16 in hardware", "none needed; training takes longer")


def check_prior(spec: ExperimentSpec) -> Finding:
    """The shipped generator is there, so that the first run need not train one."""
    from attacks.prior_training import shipped_prior_path

    size = spec.data.image_size
    path = shipped_prior_path(size)
    if path is not None and path.is_file():
        return Finding("ok", f"shipped, for built-in faces of {size} pixels")
    return Finding(
        "warn",
        f"none is shipped for {size} pixels, or it is missing",
        "none needed; the first sweep trains one, in minutes",
    )


def check_storage(spec: ExperimentSpec) -> Finding:
    """The storage takes a file."""
    if urlsplit(spec.storage).scheme not in ("", "file"):
        from orchestrator.store import Store

        return Finding("ok", f"{Store(spec.storage).root} can be reached")
    place = _existing(_local(spec.storage))
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"dcdctl")
    except OSError as error:
        return Finding("fail", f"{place} cannot be written: {error.strerror}", "use --storage")
    return Finding("ok", f"{place} can be written")


def check_ray(spec: ExperimentSpec) -> Finding:
    """Ray starts and runs a task; in a process of its own, so that a hang can be ended."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", RAY_PROBE],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, stderr = process.communicate(timeout=RAY_DEADLINE_S)
    except subprocess.TimeoutExpired:
        return Finding("fail", f"Ray ran no task within {RAY_DEADLINE_S:.0f} s", _RAY_ADVICE)
    finally:  # after Ctrl-C too
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode != 0:
        last = (stderr.strip() or f"exit code {process.returncode}").splitlines()[-1]
        return Finding("fail", f"Ray does not start: {last}", _RAY_ADVICE)
    return Finding("ok", f"Ray started and ran a task in {time.monotonic() - started:.0f} s")


_RAY_ADVICE = "look for a firewall on the loopback address, or too little shared memory"

CHECKS: dict[str, Callable[[ExperimentSpec], Finding]] = {
    "python": check_python,
    "packages": check_packages,
    "rooms": check_rooms,
    "cores": check_cores,
    "memory": check_memory,
    "shared memory": check_shared_memory,
    "disk": check_disk,
    "bfloat16": check_bfloat16,
    "prior": check_prior,
    "storage": check_storage,
    "ray": check_ray,
}


def _free_memory() -> float:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) * 1024


def _cgroup(name: str) -> Iterator[list[str]]:
    """Yield a container's limit as words, if there is one."""
    path = Path("/sys/fs/cgroup") / name
    if path.is_file():
        words = path.read_text().split()
        if "max" not in words:
            yield words


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    return Path(parts.path if parts.scheme == "file" else uri).expanduser().absolute()


def _existing(path: Path) -> Path:
    """Return the nearest folder above that exists already."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
