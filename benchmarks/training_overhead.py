"""What Ray Train costs: our trainer against torchrun on the same loop and data, start-up apart.

    python benchmarks/training_overhead.py --rounds 6

Both sides run `tasks.training.fit` in two processes on one thread each, with the same model,
batches and draws. Seconds are those of the first process, from the moment when all are ready to the
end of the last epoch. Ours keeps checkpoints as it does in use (written, verified, published, the
last one waited for); torchrun's keeps none. Sides take turns; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import pyarrow as pa

from augment.plan import make_plan
from augment.spec import DcdSpec
from benchmarks.timing import circumstances, ratios, spread
from tasks.training_spec import TrainingSpec
from tasks.types import Image8

WORKERS = 2


def data(rows: int, size: int) -> tuple[Image8, pa.Table]:
    """Return random images of eight people, one protected, and their plan."""
    from tests.augment.test_plan import row_table, target

    table = row_table(8, rows // 8)
    shape = (table.num_rows, size, size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return images, make_plan(table, [target(0)], 8, DcdSpec(), 0)


def seconds_of_torchrun(args: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "seconds"
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            + [f"--nproc-per-node={WORKERS}", __file__, "--inside", str(answer)]
            + [f"--{key}={getattr(args, key)}" for key in ("rows", "size", "epochs", "width")],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return float(answer.read_text())


def inside_torchrun(args: argparse.Namespace) -> None:
    """Be one of torchrun's processes: what anybody would write around the same loop."""
    import torch
    from torch import distributed, nn

    from orchestrator.trial import training_rows
    from tasks.batchnorm import globalise_batchnorm
    from tasks.classifiers import build_model
    from tasks.draws import Draws
    from tasks.training import fit

    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    spec, draws = spec_of(args), Draws(0, ("train",))
    model = globalise_batchnorm(build_model(spec, 8, draws)).to(memory_format=torch.channels_last)
    views, labels = training_rows(*data(args.rows, args.size))
    distributed.barrier()
    started = time.perf_counter()
    model = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
    fit(model, views, labels, spec, draws, rank=rank, world=world)
    if rank == 0:
        Path(args.inside).write_text(str(time.perf_counter() - started))
    distributed.destroy_process_group()


def seconds_of_ours(args: argparse.Namespace, images: Image8, plan: pa.Table) -> float:
    import ray

    from orchestrator.distributed import train_loop
    from orchestrator.publisher import start_publisher
    from orchestrator.train_group import StateKeeper, train_group

    with tempfile.TemporaryDirectory() as folder:
        config = {
            "images": ray.put(images),
            "recipe": ray.put(plan),
            "num_classes": 8,
            "spec": spec_of(args).model_dump(mode="json"),
            "seed": 0,
        }
        keeper = StateKeeper(start_publisher(), Path(folder) / "states")
        _, seconds = train_group(
            train_loop, config, WORKERS, keeper, args.epochs, what="the benchmark"
        )
        return seconds["training"]


def spec_of(args: argparse.Namespace) -> TrainingSpec:
    return TrainingSpec(width=args.width, epochs=args.epochs, precision="float32")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="At least 2.")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--width", type=int, default=24)
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        inside_torchrun(args)
        return

    from clusters.embedded import embedded_ray

    print(circumstances())
    found: dict[str, list[float]] = {"torchrun": [], "ours": []}
    images, plan = data(args.rows, args.size)
    with embedded_ray(WORKERS):
        sides = {
            "torchrun": lambda: seconds_of_torchrun(args),
            "ours": lambda: seconds_of_ours(args, images, plan),
        }
        for turn in range(args.rounds):
            for name in sorted(sides, reverse=turn % 2 == 0):
                found[name].append(sides[name]())
                print(f"round {turn}  {name:8}  {found[name][-1]:.2f} s", flush=True)
    print(circumstances())
    both = ratios(found["ours"], found["torchrun"])
    print(f"torchrun {spread(found['torchrun'])} s, ours {spread(found['ours'])} s")
    print(f"ours over torchrun {spread(both, '.3f')}, n = {len(both)}")
    print(json.dumps({"ratio": statistics.median(both), "rounds": both}))


if __name__ == "__main__":
    main()
