"""How long a fleet's assignment takes, what memory, and how far from the farthest it stays.

    OMP_NUM_THREADS=1 python benchmarks/assignment.py --targets 1000000

Every policy runs in a process of its own, from a row table (and an embedding in memory) to the list
of target classes; making the data is not timed. `core-s` is processor time, which a busy machine
lengthens less than `s`. `gain` is what the policy's own score gained over a random assignment, as a
share of what it would gain if everyone could have the best of the pool; on a sample of targets.
Distances are those of the embedding: achieved, farthest, random.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pyarrow as pa

from augment import assignment
from augment.assignment import Seats
from augment.embeddings import Embedding, distant_arrays
from augment.opposites import attribute_flags, opposite_arrays
from augment.surrogate import assign_surrogates
from augment.surrogate_spec import OppositeSpec
from tasks.types import ROW_SCHEMA, IdentityId

SHARES = {
    "Male": 0.42,
    "Black_Hair": 0.24,
    "Brown_Hair": 0.2,
    "Blond_Hair": 0.15,
    "Eyeglasses": 0.07,
    "Young": 0.77,
    "No_Beard": 0.83,
    "Bald": 0.02,
    "Bangs": 0.15,
    "Wavy_Hair": 0.32,
    "Pale_Skin": 0.04,
    "Chubby": 0.06,
}
"""Made up, of the size that such attributes have in CelebA."""

SPREAD_OF_GROUPS, GROUPS = 1.0, 200
"""An embedding is not one ball: people come in groups, as far apart as people of one group are."""

POLICIES = {
    "attribute-opposite": ("attribute-opposite", OppositeSpec(), Seats()),
    "celeba": ("attribute-opposite", OppositeSpec(preset="celeba"), Seats()),
    "embedding-distant": ("embedding-distant", OppositeSpec(), Seats()),
    "embedding, shared by 4": ("embedding-distant", OppositeSpec(), Seats(1, 4)),
    "embedding, 2 each, shared by 4": ("embedding-distant", OppositeSpec(), Seats(2, 4)),
}


def names_of(kind: str, count: int) -> list[str]:
    return [f"{kind}{i:07}" for i in range(count)]


def make_rows(targets: int, pool: int, seed: int) -> pa.Table:
    """Return one row for each identity, with independent attributes."""
    rng = np.random.default_rng(seed)
    count = targets + pool
    has = np.stack([rng.random(count) < share for share in SHARES.values()], axis=1)
    which = np.nonzero(has)[1].astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int32)
    words = pa.array(list(SHARES)).take(pa.array(which))
    identity = pa.concat_arrays([pa.array(names_of(*x)) for x in (("t", targets), ("p", pool))])
    split = pa.array(["train", "surrogate"]).take(pa.array(np.arange(count) >= targets, pa.int8()))
    label = np.where(np.arange(count) < targets, np.arange(count), -1)
    columns = [
        pa.array(np.arange(count)),
        identity,
        pa.array(label, pa.int32()),
        split,
        pa.array([""]).take(pa.array(np.zeros(count, np.int8))),
        pa.ListArray.from_arrays(pa.array(offsets), words),
    ]
    arrays = [column.cast(f.type) for column, f in zip(columns, ROW_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=ROW_SCHEMA)


def make_embedding(rows: pa.Table, width: int, seed: int) -> Embedding:
    """Return unit vectors around a few hundred middles."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((GROUPS, width), dtype=np.float32)
    vectors = np.empty((rows.num_rows, width), dtype=np.float32)
    for start in range(0, len(vectors), 1 << 16):
        part = vectors[start : start + (1 << 16)]
        part[:] = SPREAD_OF_GROUPS * rng.standard_normal(part.shape, dtype=np.float32)
        part += middles[rng.integers(0, GROUPS, len(part))]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return Embedding(rows["identity"].combine_chunks(), vectors)


def measure(
    policy: str, targets: int, pool: int, width: int, sample: int, probes: int
) -> Sequence[object]:
    """Assign once; return the table's row."""
    assignment.PROBES = probes
    name, rule, seats = POLICIES[policy]
    rows = make_rows(targets, pool, 1)
    embedding = make_embedding(rows, width, 2) if name == "embedding-distant" else None
    wanted = [IdentityId(one) for one in names_of("t", targets)]
    before = peak_gb()
    started, worked = time.perf_counter(), time.process_time()
    found = assign_surrogates(
        rows,
        wanted,
        name,
        targets,
        0,
        seats=seats,
        opposite=rule,
        embedding=embedding,
    )
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    peak = peak_gb()
    first = np.array([int(one.surrogates[0].identity[1:]) for one in found])
    load = np.bincount(
        [int(who.identity[1:]) for one in found for who in one.surrogates], minlength=pool
    )
    served = sum(len(one.surrogates) == seats.per_target for one in found)
    assert served == targets
    assert load.max() <= seats.per_surrogate
    del found

    rng = np.random.default_rng(3)
    seen = rng.choice(targets, min(sample, targets), replace=False)
    if embedding is not None:
        offered = np.arange(targets, targets + pool)
        thin, small = distant_arrays(embedding, seen, offered)
        wishes, offers = thin.astype(np.float32), small.astype(np.float32)
        base = (wishes[:, :-2].astype(np.float64) ** 2).sum(axis=1) / 4  # the target's own square
    else:
        flags, names = attribute_flags(rows, [*(wanted[i] for i in seen), *names_of("p", pool)])
        wishes, offers = opposite_arrays(flags[: len(seen)], flags[len(seen) :], names, rule)
        base = np.zeros(len(seen), np.float32)
    got = np.einsum("ij,ij->i", wishes, offers[first[seen]]) + base
    anyone = np.einsum("ij,ij->i", wishes, offers[rng.permutation(pool)[: len(seen)]]) + base
    best = base + np.concatenate([(wish[None] @ offers.T).max(axis=1) for wish in wishes])
    gain = (got.mean() - anyone.mean()) / (best.mean() - anyone.mean())
    distances = ["-"] * 3
    if embedding is not None:
        # In the embedding's own unit: its longest vectors have length 1 before they are centred.
        where = embedding.vectors
        far = np.linalg.norm(where[seen] - where[targets + first[seen]], axis=1).mean()
        unit = far / np.sqrt(got).mean()
        distances = [f"{np.sqrt(x).mean() * unit:.3f}" for x in (got, best, anyone)]
    return (
        f"{targets:,}",
        policy,
        f"{seconds:.0f}",
        f"{worked:.0f}",
        f"{peak:.2f} ({before:.2f})",
        *distances,
        f"{gain:.3f}",
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--pool", type=int, help="identities of the pool (default: as many)")
    parser.add_argument("--width", type=int, default=64, help="numbers of an embedding's vector")
    parser.add_argument("--policy", choices=POLICIES, action="append", help="default: all")
    parser.add_argument(
        "--probes", type=int, default=assignment.PROBES, help="a large number looks at everyone"
    )
    parser.add_argument("--sample", type=int, default=1000, help="targets that gain is taken on")
    given = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        print("note: OMP_NUM_THREADS is not 1; more than one core may be in use", file=sys.stderr)
    print("| n | policy | s | core-s | peak GB (of data) | distance | farthest | random | gain |")
    print("|---|---|---|---|---|---|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for policy in given.policy or POLICIES:
        with context.Pool(1) as one:
            pool = given.pool or given.targets
            job = (policy, given.targets, pool, given.width, given.sample, given.probes)
            row = one.apply(measure, job)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
