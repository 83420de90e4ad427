"""What a run of the suite found, as JSON and as docs/reliability.md shows it.

CHAOS_TABLE=chaos.json pytest -m chaos
python -m tests.chaos.table chaos.json
"""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

LIMIT_S = 60.0
"""Within which there is work again."""


@dataclass
class Injection:
    """One fault.

    Attributes:
        kind: of the fault.
        sweep: that it hit.
        moment: in work done.
        seed: that the moment was drawn with.
        happened: what was done, and what the sweep did.
        records_equal: those of an undisturbed run; None until the sweep has ended.
        lost: records that were there and are not any more.
        repeated: records that were written again.
        wasted_s: seconds of trials that were thrown away.
        share: of all trial-seconds of this sweep.
        resume_s: until a trial ran again; from the start of --resume where the driver had ended.
    """

    kind: str
    sweep: str
    moment: str
    seed: int
    happened: str
    records_equal: bool | None = None
    lost: int = 0
    repeated: int = 0
    wasted_s: float = 0.0
    share: float = 0.0
    resume_s: float | None = None


@dataclass
class Table:
    """All faults of one run of the suite.

    Its parts may be run one after the other: what the file has of other sweeps under the same seed
    stays in it.
    """

    path: Path | None
    seed: int
    started: float = field(default_factory=time.monotonic)
    rows: list[Injection] = field(default_factory=list)
    trial_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = 0.0
        if self.path is None or not self.path.is_file():
            return
        found = json.loads(self.path.read_text())
        if found["seed"] == self.seed:
            self.before = found["seconds"]
            self.rows = [Injection(**one) for one in found["injections"]]
            self.trial_seconds = found["trial_seconds"]

    def add(self, rows: list[Injection], trial_seconds: float) -> None:
        """Add a sweep's faults, and what its trials took."""
        name = rows[0].sweep
        self.rows = [row for row in self.rows if row.sweep != name] + rows
        self.trial_seconds[name] = round(trial_seconds, 1)
        if self.path is None:
            return
        found = {
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{platform.system()} {platform.machine()}, {len(_cores())} cores",
            "seed": self.seed,
            "seconds": round(self.before + time.monotonic() - self.started),
            "trial_seconds": self.trial_seconds,
            "injections": [asdict(row) for row in self.rows],
        }
        self.path.write_text(json.dumps(found, indent=1) + "\n")


def _cores() -> set[int]:
    import os

    return os.sched_getaffinity(0)


def render(found: dict[str, Any]) -> str:
    """Return a run as Markdown: its figures, and a row for each kind."""
    rows = [Injection(**one) for one in found["injections"]]
    kinds = list(dict.fromkeys(row.kind for row in rows))
    wasted = sum(row.wasted_s for row in rows)
    useful = sum(found["trial_seconds"].values())
    resumes = [row.resume_s for row in rows if row.resume_s is not None]
    equal = sum(row.records_equal is True for row in rows)
    lines = [
        f"{len(rows)} injections in {len({row.sweep for row in rows})} sweeps, seed "
        f"{found['seed']}, {found['machine']}, {found['date']}, {found['seconds'] / 60:.0f} "
        "minutes.",
        f"Records equal to those of an undisturbed run after {equal} of {len(rows)}; "
        f"{sum(row.lost for row in rows)} lost, {sum(row.repeated for row in rows)} repeated.",
        f"Thrown away: {100 * mean(row.share for row in rows):.1f} % of a sweep's trial-seconds "
        f"for each injection on the mean, {100 * max(row.share for row in rows):.1f} % for the "
        f"worst; {wasted:.0f} s of {useful + wasted:.0f} s "
        f"({100 * wasted / (useful + wasted):.1f} %) with all of them in these sweeps.",
        f"Work again after {median(resumes):.0f} s (median), {max(resumes):.0f} s (worst).",
        "",
        "| injected | times | records equal | lost | repeated | thrown away, mean (worst) "
        "| work again, median (worst) |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        own = [row for row in rows if row.kind == kind]
        took = [row.resume_s for row in own if row.resume_s is not None]
        again = f"{median(took):.0f} s ({max(took):.0f} s)" if took else "-"
        shares = [100 * row.share for row in own]
        lines.append(
            f"| {kind} | {len(own)} | {sum(row.records_equal is True for row in own)} "
            f"| {sum(row.lost for row in own)} | {sum(row.repeated for row in own)} "
            f"| {mean(shares):.1f} % ({max(shares):.1f} %) | {again} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(render(json.loads(Path(sys.argv[1]).read_text())))
