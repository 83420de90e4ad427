"""The driver, or what it cannot be without, is lost: the same command with --resume goes on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.chaos.conftest import MakeSweep, Undisturbed
from tests.chaos.processes import kill, of_role
from tests.chaos.sweeps import SHORT, Moment, Sweep, moments
from tests.chaos.table import Table

pytestmark = pytest.mark.chaos

KINDS = (
    "driver killed",
    "journal torn",
    "SIGINT",
    "SIGINT twice",
    "SIGTERM",
    "raylet killed",
    "disk full",
)


@contextmanager
def small_disk(place: Path, megabytes: int = 256) -> Iterator[Path]:
    """Mount a small disk of its own; needs root."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    subprocess.run(words, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Write until nothing more fits."""
    ballast = place / "ballast"
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()
    with suppress(OSError), ballast.open("ab", buffering=0) as rest:
        while True:
            rest.write(bytes(512))
    return ballast


def tear(journal: Path, chance: random.Random) -> int:
    """Cut a journal in the middle of its last line, as a power cut does."""
    data = journal.read_bytes()
    last = len(data) - data.rstrip(b"\n").rfind(b"\n") - 1
    cut = chance.randrange(1, max(2, last))
    os.truncate(journal, len(data) - cut)
    return cut


def break_driver(sweep: Sweep, kind: str, chance: random.Random, moment: Moment) -> None:
    """Do one thing to a driver that ends it, then resume."""
    root, driver, ballast = sweep.driver.pid, sweep.driver, None
    expected = {130}
    if kind in ("driver killed", "journal torn"):
        hit, expected = sweep.hit(kind, "SIGKILL of the driver", moment), {-9}
        kill(root)
    elif kind == "SIGTERM":
        hit = sweep.hit(kind, "SIGTERM of the driver", moment)
        driver.terminate()
    elif kind == "SIGINT":
        hit = sweep.hit(kind, "SIGINT of the driver", moment)
        driver.send_signal(signal.SIGINT)
    elif kind == "SIGINT twice":
        pause = round(chance.uniform(0.05, 1.0), 2)
        hit = sweep.hit(kind, f"SIGINT of the driver, again after {pause} s", moment)
        driver.send_signal(signal.SIGINT)
        time.sleep(pause)
        driver.send_signal(signal.SIGINT)
    elif kind in ("raylet killed", "head process killed"):
        role = "raylet" if kind == "raylet killed" else "gcs"
        (pid,) = of_role(root, role)
        hit, expected = sweep.hit(kind, f"SIGKILL of the {role}", moment), {7}
        kill(pid)
    else:
        hit, expected = (
            sweep.hit(kind, "the disk of the storage is filled", moment),
            {6},
        )
        ballast = fill(Path(sweep.storage).parent)
    code = sweep.over(hit)
    if kind == "journal torn":
        run = sweep.run()
        assert run is not None
        hit.row.happened += f", {tear(run / 'events.jsonl', chance)} bytes off its journal"
    if ballast is not None:
        ballast.unlink()
    sweep.resumed(hit, code, expected)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs root")
def test_drivers_that_end(
    part: int,
    make_sweep: MakeSweep,
    undisturbed: Undisturbed,
    table: Table,
    chance: random.Random,
    tmp_path: Path,
) -> None:
    expected = undisturbed(SHORT)
    kinds = [*KINDS, ("driver killed", "head process killed")[part]]
    chance.shuffle(kinds)
    with small_disk(tmp_path / "disk") as disk:
        sweep = make_sweep(f"ended drivers {part + 1}", storage=str(disk / "storage"))
        try:
            sweep.start()
            for kind, moment in zip(kinds, moments(chance, len(kinds), 1, 35), strict=True):
                sweep.reach(moment)
                break_driver(sweep, kind, chance, moment)
            sweep.judge(expected, table)
        finally:
            sweep.close()
