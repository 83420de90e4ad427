"""What a sweep's bookkeeping costs: trials that do nothing, ours against bare Ray Tune.

    python benchmarks/tune_overhead.py --trials 1000 --rounds 3

Both sides run so many trials of a reused actor that returns two numbers, two at once on two cores.
Bare Tune draws its settings at random and keeps nothing but its own files. Ours is what a sweep
does around a trial: the queue with its accounts, the suggestion, the trial's identity, its record
packed, handed to the publisher and written, the journal and the line for people. `--search optuna`
takes Optuna's TPE with two objectives on both sides. Sides take turns; the ratio is taken round by
round.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import pstats
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ray import tune

from benchmarks.timing import circumstances, ratios, spread
from clusters.embedded import embedded_ray
from orchestrator.bundle import pack, scratch
from orchestrator.publisher import publish
from orchestrator.records import Accuracy, AttackRecord, Rate, TrialRecord
from orchestrator.store import RECORD, write_atomic
from orchestrator.tune_adapter import SweepTrial, told

TESTED = 200


def scores(mislabel: float, sigma: float) -> tuple[int, int]:
    """Return hits of a clean test and of an attack, out of 200, as the levers make them."""
    return int(TESTED * (0.95 - 0.2 * sigma)), int(TESTED * (0.9 - mislabel))


class NoTrial(SweepTrial):
    """A trial of ours without training, attacks and judges."""

    def setup(self, config: dict[str, Any], shared: dict[str, Any]) -> None:
        """Fetch what is shared, but not torch: its import belongs to what a trial does."""
        self.publisher, self.halt, self.config = shared["publisher"], shared["halt"], config

    def run(self) -> dict[str, Any]:
        """Write the record, and return what Tune is told of it."""
        plan, identity = self.config["plan"], self.config["trial_id"]
        settings = {} if plan.dcd is None else plan.dcd.public()
        clean, hit = scores(
            settings.get("mislabel_fraction", 0.0), settings.get("target_sigma", 0.0)
        )
        rate = Rate.of(hit, TESTED)
        record = TrialRecord(
            trial_id=identity,
            index=plan.index,
            defense="none" if plan.dcd is None else "dcd",
            status="ok",
            settings=settings,
            seed=0,
            clean_accuracy=Accuracy(
                overall=Rate.of(clean, TESTED),
                targets=Rate.of(clean, TESTED),
                bystanders=Rate.of(clean, TESTED),
            ),
            attacks=(
                AttackRecord(
                    name="ppa",
                    access="white-box",
                    accuracy_at_1=rate,
                    accuracy_at_5=rate,
                    surrogate_rate=rate,
                    per_target=(),
                    settings={},
                    queries=0,
                ),
            ),
        )
        with scratch() as folder:
            text = record.model_dump_json(indent=2) + "\n"
            write_atomic(folder / RECORD, text, durable=False)
            publish(self.publisher, Path(self.config["out"]), pack(folder), RECORD)
        return told(record)


class BareTrial(tune.Trainable):  # type: ignore[misc]
    """The same for bare Tune."""

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the settings."""
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial into the same process."""
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Return the scores."""
        clean, hit = scores(self.config["mislabel_fraction"], self.config["target_sigma"])
        return {"done": True, "clean_accuracy": clean / TESTED, "attack_accuracy": hit / TESTED}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Restore nothing."""


def bare(args: argparse.Namespace) -> float:
    """Return the seconds of bare Tune."""
    space = {
        "mislabel_fraction": tune.uniform(0.2, 0.6),
        "curvature_mislabel_fraction": tune.uniform(0.7, 1.0),
        "target_sigma": tune.loguniform(0.01, 0.04),
        "surrogate_sigma": tune.loguniform(0.001, 0.02),
    }
    search = None
    if args.search == "optuna":
        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = OptunaSearch(
            metric=["clean_accuracy", "attack_accuracy"], mode=["max", "min"], seed=0
        )
    folder = tempfile.mkdtemp(prefix="dcd-bare-")
    try:
        started = time.perf_counter()
        tune.Tuner(
            tune.with_resources(BareTrial, {"CPU": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(
                num_samples=args.trials,
                max_concurrent_trials=2,
                reuse_actors=True,
                search_alg=search,
            ),
            run_config=tune.RunConfig(name="bare", storage_path=folder, verbose=0),
        ).fit()
        return time.perf_counter() - started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ours(args: argparse.Namespace) -> float:
    """Return the seconds of a sweep's own way through Tune."""
    import ray
    from rich.console import Console

    from orchestrator.events import EventLog
    from orchestrator.ledger import Ledger
    from orchestrator.placement import capacity_now, place
    from orchestrator.progress import Display, TrialProgress
    from orchestrator.publisher import start_publisher
    from orchestrator.search import planned_trials
    from orchestrator.store import records_of
    from orchestrator.trial_queue import TrialQueue
    from orchestrator.tune_adapter import tune_queue

    spec = spec_of(args)
    folder = Path(tempfile.mkdtemp(prefix="dcd-ours-"))
    try:
        run = folder / "run"
        run.mkdir()
        total = planned_trials(spec) + 1
        display = Display(Console(file=io.StringIO(), width=120))
        display.events = EventLog(run)
        world = world_of(spec)
        given = {
            "world": ray.put(world),
            "judges": ray.put({}),
            "publisher": start_publisher(),
            "prior": None,
            "spec": spec,
        }
        placed = place(capacity_now(), workers=1, trials=total)
        started = time.perf_counter()
        queue = TrialQueue(spec, world, "judges", run, total, ledger=Ledger(run))
        bar = TrialProgress(display, total, 0, placed.slots)
        bar.start()
        tune_queue(
            given,
            queue,
            placed=placed,
            workers=1,
            scratch=folder / "tune",
            begun=bar.begin,
            finished=bar.finish,
            trainable=NoTrial,
        )
        seconds = time.perf_counter() - started
        assert len(records_of(run)) == total
        return seconds
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def spec_of(args: argparse.Namespace) -> Any:
    """Return an experiment of as many trials, the control among them."""
    from orchestrator.spec import ExperimentSpec

    n = args.trials - 1
    sweep: dict[str, Any] = {"search": "optuna", "trials": n}
    if args.search == "grid":
        steps = [round(0.2 + 0.4 * i / n, 6) for i in range(n)]
        fixed = {
            "curvature_mislabel_fraction": [0.8],
            "target_sigma": [0.02],
            "surrogate_sigma": [0.01],
        }
        sweep = {"search": "grid", "space": {"mislabel_fraction": steps} | fixed}
    return ExperimentSpec.model_validate({"sweep": sweep})


def world_of(spec: Any) -> Any:
    """Return the smallest data: no trial looks at it."""
    import numpy as np

    from orchestrator.trial import World
    from tests.augment.test_plan import row_table, target

    rows = row_table(4, 2)
    images = np.zeros((rows.num_rows, 8, 8, 3), dtype=np.uint8)
    return World(rows, images, (target(0),), ("p",), 4, spec.seed, "digest")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3, help="At least 2.")
    parser.add_argument("--search", choices=["grid", "optuna"], default="grid")
    parser.add_argument("--profile", choices=["bare", "ours"], help="Profile one round of it.")
    args = parser.parse_args()
    print(circumstances())
    found: dict[str, list[float]] = {"bare": [], "ours": []}
    with embedded_ray(2):
        sides = {"bare": bare, "ours": ours}
        if args.profile:
            profile = cProfile.Profile()
            profile.runcall(sides[args.profile], args)
            pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
            return
        for turn in range(args.rounds):
            for name in sorted(sides, reverse=turn % 2 == 1):
                found[name].append(sides[name](args))
                print(f"round {turn}  {name:5}  {found[name][-1]:.1f} s", flush=True)
    print(circumstances())
    both = ratios(found["ours"], found["bare"])
    print(f"bare {spread(found['bare'])} s, ours {spread(found['ours'])} s")
    print(f"ours over bare {spread(both, '.3f')}, n = {len(both)}")
    print(json.dumps({"ratio": statistics.median(both), "rounds": both}))


if __name__ == "__main__":
    main()
