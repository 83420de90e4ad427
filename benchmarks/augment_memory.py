"""How much memory do `dcdctl augment` and its plan take, as the data grow?

    python benchmarks/augment_memory.py                          # images: 10,000 against 100,000
    python benchmarks/augment_memory.py --plan-rows 10000000     # the plan alone

Memory is the sum over the command's process and all its descendants (Ray's servers and workers) of
the anonymous and shared pages, each shared page counted once (Pss_Anon + Pss_Shmem of
/proc/PID/smaps_rollup), sampled ten times a second. Pages of mapped files are left out: the kernel
takes them back whenever it needs them.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # this folder has an `augment` too: a benchmark

import numpy as np
import pyarrow as pa

from augment.plan import make_plan
from augment.spec import DcdSpec
from benchmarks.timing import circumstances
from tasks.types import ROW_SCHEMA, ClassId, IdentityId, Lender, TargetClass

PER_CLASS = 100
ROWS_AT_ONCE = 4096


def row_table(rows: int) -> pa.Table:
    """Return private classes of 100 images, and a lent identity for one class in ten."""
    private = rows * 10 // 11
    lent = rows - private
    number = np.concatenate([np.arange(private), np.arange(lent)]) // PER_CLASS
    names = pa.array(np.char.add("p", np.arange(private // PER_CLASS + 1).astype(str)))
    others = pa.array(np.char.add("s", np.arange(lent // PER_CLASS + 1).astype(str)))
    own = pa.array(number[:private]), pa.array(number[private:])
    identities = pa.concat_arrays([names.take(own[0]), others.take(own[1])])
    labels = np.where(np.arange(rows) < private, number, -1).astype(np.int32)
    splits = pa.concat_arrays(
        [pa.repeat(pa.scalar("train"), private), pa.repeat(pa.scalar("surrogate"), lent)]
    )
    empty = pa.ListArray.from_arrays(np.zeros(rows + 1, np.int32), pa.array([], pa.string()))
    columns = [np.arange(rows), identities, labels, splits, pa.repeat(pa.scalar(""), rows), empty]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, ROW_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)


def targets(rows: pa.Table) -> tuple[list[TargetClass], int]:
    """Return one target for each whole lent identity, and the number of classes."""
    classes = int(rows["label"].to_numpy().max()) + 1
    count = max(1, rows.num_rows // 11 // PER_CLASS)
    return [
        TargetClass(ClassId(i), IdentityId(f"p{i}"), (Lender(IdentityId(f"s{i}"), classes + i),))
        for i in range(count)
    ], classes


def plan(count: int) -> None:
    rows = row_table(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    protected, classes = targets(rows)
    started = time.monotonic()
    made = make_plan(rows, protected, classes, DcdSpec(), 0)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"plan of {count:,} rows, {len(protected):,} targets: {made.num_rows:,} recipes in "
        f"{seconds:.1f} s, peak {peak / 2**20:.2f} GiB in all ({before / 2**20:.2f} before it)"
    )


def write_images(path: Path, count: int, size: int) -> None:
    """Write images.npy without holding it."""
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3))
    rng = np.random.default_rng(0)
    some = rng.integers(0, 256, (ROWS_AT_ONCE, size, size, 3), dtype=np.uint8)
    for start in range(0, count, ROWS_AT_ONCE):
        images[start : start + ROWS_AT_ONCE] = some[: count - start]


def run(folder: Path, count: int, form: str) -> None:
    """Write a data set over `count` images; called in a process of its own."""
    from clusters.embedded import embedded_ray
    from orchestrator.image_files import ImageFiles
    from orchestrator.materialise import materialise

    rows = row_table(count)
    protected, classes = targets(rows)
    made = make_plan(rows, protected, classes, DcdSpec(), 0)
    images = ImageFiles.of([np.load(folder / "images.npy", mmap_mode="r")], "benchmark")
    with embedded_ray(2):
        started = time.monotonic()
        materialise(made, rows, images, folder / "out", format_=form)  # type: ignore[arg-type]
        seconds = time.monotonic() - started
    print(f"  {count:,} images -> {made.num_rows:,} samples in {seconds:.0f} s", flush=True)


def peak_of(command: list[str]) -> float:
    """Run a command; return the peak of its processes' memory in MiB."""
    process = subprocess.Popen(command)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_pages_kib(pid) for pid in _family(process.pid)))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak / 1024


def _family(root: int) -> list[int]:
    parent = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parent[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, of in parent.items() if of == pid]
    return found


def _pages_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    wanted = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(wanted))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--plan-rows", type=int, help="measure the plan of so many rows instead")
    parser.add_argument("--work", type=Path, help="where the images are; else a temporary folder")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run(args.work, args.child, args.format)
        return
    print(circumstances())
    if args.plan_rows:
        plan(args.plan_rows)
        return
    peaks = []
    for count in args.images:
        with tempfile.TemporaryDirectory(dir=args.work) as temporary:
            write_images(Path(temporary) / "images.npy", count, args.size)
            command = [sys.executable, __file__, "--child", str(count), "--work", temporary]
            peaks.append(peak_of([*command, "--format", args.format]))
        print(f"  peak {peaks[-1]:.0f} MiB at {args.size} pixels, {args.format}")
    print(f"  the last is {peaks[-1] / peaks[0]:.2f} times the first")


if __name__ == "__main__":
    main()
