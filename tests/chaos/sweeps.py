"""The small sweep that is hit: its settings, its driver as a process, and what it lost."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.config import load_spec
from orchestrator.records import TrialRecord
from orchestrator.run_events import Event, Journal
from orchestrator.smoke import smoke
from tests.chaos.processes import children, end_all, kill, of_role, title
from tests.chaos.table import LIMIT_S, Injection, Table

DCDCTL = str(Path(sys.executable).with_name("dcdctl"))

PATIENCE_S = 400.0
"""For anything that has to happen, on a machine that others use too."""


@dataclass(frozen=True)
class Size:
    """A small sweep: processes that train a trial, trials with the control, epochs of each."""

    workers: int
    trials: int
    epochs: int


SHORT = Size(workers=1, trials=40, epochs=6)
"""Trials of one to two seconds on an idle machine."""

LONG = Size(workers=1, trials=20, epochs=60)
"""Trials that are under way when a lost host is noticed."""

PAIRS = Size(workers=2, trials=12, epochs=60)
"""Trainings of two processes that last long enough to be hit."""


def write_experiment(folder: Path, size: Size) -> Path:
    """Write a small sweep, all of whose stages are real."""
    values = smoke(load_spec(None, [])).model_dump(mode="json")
    values["name"] = "chaos"
    values["attacks"] = values["attacks"][1:]  # MIRROR with the network and with its scores alone
    values["adaptive_attacks"] = []
    values["sweep"]["trials"] = size.trials - 1
    values["sweep"]["lookahead"] = 16  # a trial that hangs on a lost host holds up few others
    values["training"] |= {"workers": size.workers, "epochs": size.epochs}
    values["compute"]["cpus"] = 2
    values["tracking"]["enabled"] = False
    path = folder / "experiment.yaml"
    path.write_text(json.dumps(values))
    return path


@dataclass
class Expected:
    """An undisturbed run: results by trial, and seconds of trials."""

    hashes: dict[str, str]
    seconds: float


@dataclass
class Moment:
    """When a fault comes: so many records there, and a pause more."""

    records: int
    pause_s: float


def moments(chance: random.Random, count: int, first: int, last: int) -> list[Moment]:
    """Draw moments in work done, in order; no two at the same number of records."""
    drawn = sorted(chance.sample(range(first, last + 1), count))
    return [Moment(records, round(chance.uniform(0.0, 2.0), 2)) for records in drawn]


@dataclass
class Hit:
    """A fault with what is needed to judge it when the sweep has ended."""

    row: Injection
    at: float
    before: dict[Path, tuple[int, bytes]]
    under_way: dict[str, float]
    lost_attempts: int = 0
    pids: set[int] = field(default_factory=set)
    below: list[int] = field(default_factory=list)


@dataclass
class Sweep:
    """One sweep under fire.

    Args:
        name: for the table.
        folder: for its files.
        seed: that its moments are drawn with.
        size: of the sweep.
        storage: where results go; a folder of its own by default.
        settings: more `--set`.
        env: more of the environment.
    """

    name: str
    folder: Path
    seed: int
    size: Size = SHORT
    storage: str = ""
    settings: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config = write_experiment(self.folder, self.size)
        self.storage = self.storage or str(self.folder / "storage")
        # Results are looked at here: in the folder, or in this machine's copy of a bucket.
        self.root = self.folder / "copy" if "://" in self.storage else Path(self.storage)
        self.hits: list[Hit] = []
        self.begun = False
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "said"
        self.scratch: set[str] = set()
        self.working_since = 0.0

    # --- the driver ------------------------------------------------------------------------------

    @property
    def driver(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def start(self) -> None:
        """Start the command; every time but the first with --resume."""
        words = [DCDCTL, "sweep", str(self.config), "--storage", self.storage]
        words += [part for one in self.settings for part in ("--set", one)]
        words += ["--resume"] if self.begun else []
        env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        env |= {"COLUMNS": "200"} | self.env
        if "://" in self.storage:
            env["XDG_CACHE_HOME"] = str(self.root)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A shell that runs tests in the background has its children ignore Ctrl-C.
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )
        self.begun = True

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def wait(self, what: str, holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        """Wait for something while the driver runs."""
        end = time.monotonic() + patience_s
        while not holds():
            assert self.driver.poll() is None, f"ended before {what}: {self.said()}"
            assert time.monotonic() < end, f"no {what}: {self.said()}"
            time.sleep(0.05)

    def reach(self, moment: Moment) -> None:
        """Wait for a moment."""
        if not self.working_since:
            self.wait("a trial", lambda: bool(self.workers_now()))
            self.working_since = time.time()
        self.wait(f"{moment.records} records", lambda: len(self.records()) >= moment.records)
        time.sleep(moment.pause_s)

    def ended(self, below: Sequence[int] = (), patience_s: float = PATIENCE_S) -> int:
        """Wait for the driver's end; return its exit code. What Ray leaves is ended too.

        Args:
            below: processes that it had, where it may be gone already.
            patience_s: how long.
        """
        below = [*below, *children(self.driver.pid)]
        code = self.driver.wait(patience_s)
        end = time.monotonic() + 10
        while any(title(pid).strip() for pid in below) and time.monotonic() < end:
            time.sleep(0.1)
        end_all(below)
        return code

    def close(self) -> None:
        """End whatever is left."""
        if self.process is not None and self.process.poll() is None:
            below = children(self.process.pid)
            kill(self.process.pid)
            self.process.wait(20)
            time.sleep(1)
            end_all(below)
        for scratch in self.scratch:
            shutil.rmtree(scratch, ignore_errors=True)

    # --- what is there ---------------------------------------------------------------------------

    def run(self) -> Path | None:
        return next((p.parent for p in self.root.rglob("runs/*/events.jsonl")), None)

    def records(self) -> dict[Path, tuple[int, bytes]]:
        """Return every record by its path: when it was written, and its bytes."""
        found = {}
        for path in self.root.rglob("runs/*/trials/*/record.json"):
            found[path] = (path.stat().st_mtime_ns, path.read_bytes())
        return found

    def events(self) -> list[Event]:
        run = self.run()
        return [] if run is None else Journal(run).new()

    def under_way(self) -> dict[str, float]:
        """Return the trials that run, and when each began, seconds since the epoch."""
        begun: dict[str, float] = {}
        for event in self.events():
            match event:
                case {"event": "start"}:
                    begun = {}
                case {"event": "begin", "trial_id": str(name), "at": float(at)}:
                    begun[name] = at
                case {"event": "trial", "trial_id": str(name)}:
                    begun.pop(name, None)
        return begun

    def workers_now(self, role: str = "trial") -> list[int]:
        return of_role(self.driver.pid, role)

    def sessions(self) -> Path:
        """Return Ray's folder of this driver."""
        (raylet, *_) = of_role(self.driver.pid, "raylet")
        found = re.search(r"raylet_socket_name=(\S+?)/session_", title(raylet))
        assert found is not None
        self.scratch.add(found[1])
        return Path(found[1])

    # --- faults ----------------------------------------------------------------------------------

    def hit(self, kind: str, happened: str, moment: Moment | str) -> Hit:
        """Note a fault that comes now."""
        if isinstance(moment, Moment):
            text = f"{moment.records} records, +{moment.pause_s:.2f} s"
        else:
            text = moment
        row = Injection(kind, self.name, text, self.seed, happened)
        found = Hit(row, time.time(), self.records(), self.under_way())
        found.pids = set(self.workers_now())
        found.below = children(self.driver.pid)
        self.hits.append(found)
        return found

    def works_again(self, hit: Hit, known: set[int], since: float, role: str = "trial") -> None:
        """Wait until a process of a role runs that was not there, and note the seconds.

        Ray Tune may give a lost trial to a process that is there already, whose own trial has just
        ended: then until all that were under way have their records.
        """

        def recorded() -> bool:
            there = {path.parent.name for path in self.records()}
            return role == "trial" and bool(hit.under_way) and hit.under_way.keys() <= there

        self.wait(
            f"work after {hit.row.kind}",
            lambda: bool(set(self.workers_now(role)) - known) or recorded(),
        )
        hit.row.resume_s = round(time.monotonic() - since, 1)

    def goes_on(self, hit: Hit, since: float) -> None:
        """Wait until a record comes that was not there, and note the seconds."""
        self.wait(
            f"a record after {hit.row.kind}", lambda: bool(self.records().keys() - hit.before)
        )
        hit.row.resume_s = round(time.monotonic() - since, 1)
        # A trial's process goes on to the next trial; one that is gone took an attempt along.
        hit.lost_attempts = len(hit.pids - {p for p in hit.pids if title(p).strip()})

    def strike(self, kind: str, role: str, chance: random.Random, moment: Moment | str) -> Hit:
        """Kill one process of a role; wait for another in its place."""
        self.wait(f"a {role}", lambda: bool(self.workers_now(role)))
        known = self.workers_now(role)
        pid = chance.choice(known)
        hit = self.hit(kind, f"SIGKILL of {title(pid).split()[0][:40]}", moment)
        hit.lost_attempts = int(role == "trial")
        since = time.monotonic()
        kill(pid)
        self.works_again(hit, set(known), since, role)
        return hit

    def over(self, hit: Hit) -> int:
        """Wait for the end of a driver that was hit; return its exit code."""
        hit.under_way = self.under_way()
        end = time.monotonic() + PATIENCE_S
        while self.driver.poll() is None and time.monotonic() < end:
            if any(title(pid).strip() for pid in hit.pids):
                hit.at = time.time()  # it may go on without its trials for a while
            time.sleep(0.05)
        code = self.ended(hit.below)
        hit.under_way |= self.under_way()
        return code

    def resumed(self, hit: Hit, code: int, expected: set[int]) -> None:
        """Start again after the driver's end, and note when a trial runs."""
        assert code in expected, (hit.row.kind, code, self.said())
        hit.row.happened += f"; ended with {code}, resumed"
        # What was recorded though the driver was not told of it is not lost.
        there = {path.parent.name for path in self.records()}
        hit.under_way = {
            name: max(at, self.working_since)  # a trial is handed out before its process is there
            for name, at in hit.under_way.items()
            if name not in there
        }
        hit.lost_attempts = len(hit.under_way)
        since = time.monotonic()
        self.start()
        self.wait(f"a trial after {hit.row.kind}", lambda: bool(self.workers_now()))
        hit.row.resume_s = round(time.monotonic() - since, 1)
        self.working_since = time.time()

    # --- the end ---------------------------------------------------------------------------------

    def judge(self, expected: Expected, table: Table) -> None:
        """Wait for the end, compare with the undisturbed run, and enter the faults."""
        code = self.ended()
        assert code == 0, self.said()
        after = self.records()
        self.enter(expected, table, after)

    def enter(self, expected: Expected, table: Table, after: dict[Path, tuple[int, bytes]]) -> None:
        """Judge every fault by the records at the end."""
        kept = [TrialRecord.model_validate_json(data) for _, data in after.values()]
        hashes = {record.trial_id: record.results_hash() for record in kept}
        cost = {record.trial_id: sum(record.cost_s.values()) for record in kept}
        ends = {e["trial_id"]: float(e["at"]) for e in self.events() if e["event"] == "trial"}
        equal = hashes == expected.hashes
        useful = sum(cost.values())
        for hit in self.hits:
            row = hit.row
            row.records_equal = equal
            row.lost = len(hit.before.keys() - after.keys())
            row.repeated = sum(after.get(path, kept) != kept for path, kept in hit.before.items())
            over = {
                name: ends.get(name, hit.at) - began - cost.get(name, 0.0)
                for name, began in hit.under_way.items()
            }
            for name in sorted(over, key=lambda one: -over[one])[: hit.lost_attempts]:
                row.wasted_s += max(0.0, hit.at - self._attempt_began(name, hit))
            row.wasted_s = round(row.wasted_s, 2)
            row.share = round(row.wasted_s / useful, 4)
        table.add([hit.row for hit in self.hits], useful)
        rows = [hit.row for hit in self.hits]
        assert equal, f"{self.name}: {differences(expected.hashes, hashes)}"
        assert not [row for row in rows if row.lost or row.repeated], rows
        slow = [row for row in rows if row.resume_s is not None and row.resume_s > LIMIT_S]
        assert not slow, slow

    def _attempt_began(self, name: str, hit: Hit) -> float:
        """Return when the attempt began that a fault hit: an earlier fault may have begun it."""
        began = hit.under_way[name]
        earlier = [h.at for h in self.hits if h.lost_attempts and began < h.at < hit.at]
        return max([began, *(at for at in earlier if name in hit.under_way)])


def differences(expected: dict[str, str], found: dict[str, str]) -> str:
    """Say how records differ from the undisturbed run's."""
    missing, more = expected.keys() - found.keys(), found.keys() - expected.keys()
    other = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    return f"missing {sorted(missing)}, more {sorted(more)}, other results {sorted(other)}"
