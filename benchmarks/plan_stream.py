"""How long does a plan of a whole fleet take, and how much memory, when rows come in batches?

    python benchmarks/plan_stream.py                                   # 10^6 and 10^7 rows
    python benchmarks/plan_stream.py --rows 100000000 --targets 10000
    python benchmarks/plan_stream.py --rows 100000000 --in-memory      # make_plan, to compare

Classes of 100 images, and an outside identity of 100 images for each target. The rows are made
batch by batch as they are asked for, which is timed apart from the planning and its spill files.
Each size runs in a process of its own. The plan is counted and hashed, not kept: at 10^9 rows it is
34 GB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder has an `augment` too: a benchmark

import numpy as np
import pyarrow as pa

from augment.plan import make_plan
from augment.spec import DcdSpec
from augment.stream_plan import stream_plan
from benchmarks.timing import circumstances
from orchestrator.plan_tally import PlanTally
from tasks.types import ClassId, IdentityId, Lender, TargetClass

PER_CLASS = 100
BATCH = 1 << 20


def row_batches(rows: int, targets: int, batch: int = BATCH) -> Iterator[pa.Table]:
    """Yield the rows of `rows / PER_CLASS - targets` classes, shuffled, and of the lenders."""
    classes = rows // PER_CLASS - targets
    # A stride that has no factor in common with the rows visits each once, far from its class.
    total, stride = rows, 2_654_435_761
    while np.gcd(stride, total) != 1:
        stride += 2
    splits = pa.array(["train", "surrogate"])
    names = None
    for start in range(0, total, batch):
        count = min(batch, total - start)
        row = (np.arange(start, start + count, dtype=np.uint64) * np.uint64(stride)) % np.uint64(
            total
        )
        row = row.astype(np.int64)
        person = row // PER_CLASS
        lends = person >= classes
        label = np.where(lends, -1, person).astype(np.int32)
        # Names of bystanders are never looked at: one word for all keeps the generator cheap.
        who = np.where(lends, person - classes + 1, 0)
        names = names or pa.array(["p", *(f"s{i}" for i in range(targets))])
        yield pa.table(
            {
                "row_id": row,
                "identity": names.take(pa.array(who)),
                "label": label,
                "split": splits.take(pa.array(lends.astype(np.int8))),
            }
        )


def fleet(rows: int, targets: int) -> tuple[list[TargetClass], int]:
    """Return the targets, spread over the classes, and the number of classes."""
    classes = rows // PER_CLASS - targets
    step = classes // targets
    return [
        TargetClass(
            ClassId(i * step), IdentityId(f"p{i * step}"), (Lender(IdentityId(f"s{i}"), classes),)
        )
        for i in range(targets)
    ], classes


def measure(rows: int, targets: int, in_memory: bool, scratch: Path | None) -> None:
    """Plan once and print the figures; called in a process of its own."""
    protected, classes = fleet(rows, targets)
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tally = PlanTally(classes, [int(target.label) for target in protected])
    making = 0.0

    def timed() -> Iterator[pa.Table]:
        nonlocal making
        batches = row_batches(rows, targets)
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            making += time.monotonic() - began
            if batch is None:
                return
            yield batch

    started, cpu = time.monotonic(), time.process_time()
    if in_memory:
        whole = pa.concat_tables(timed()).combine_chunks()
        tally.add(make_plan(whole, protected, classes, DcdSpec(), 0))
    else:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            parts = stream_plan(timed(), protected, classes, DcdSpec(), 0, Path(folder))
            for part in parts:
                tally.add(part)
    seconds = time.monotonic() - started - making
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"  {rows:>13,} rows  {targets:>7,} targets  {tally.rows:>13,} recipes  "
        f"{seconds:7.1f} s  {rows / seconds / 1e6:5.2f} M rows/s  peak {peak:5.2f} GiB "
        f"({idle:.2f} before)  rows made in {making:.1f} s  cpu "
        f"{time.process_time() - cpu:.0f} s  plan {tally.fingerprint}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10**6, 10**7])
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--in-memory", action="store_true", help="hold the whole row table")
    parser.add_argument("--scratch", type=Path, help="for the spilled rows; else a temporary one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measure(args.rows[0], args.targets, args.in_memory, args.scratch)
        return
    print(circumstances())
    for rows in args.rows:
        command = [sys.executable, __file__, "--child", "--rows", str(rows)]
        command += ["--targets", str(args.targets)]
        command += ["--in-memory"] if args.in_memory else []
        command += ["--scratch", str(args.scratch)] if args.scratch else []
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
