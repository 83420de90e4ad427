"""How long the purifier must learn where few images are held out.

    python benchmarks/purification.py --seeds 1001 1002

The built-in people of each seed, undefended, with the defaults of `serving.defense=purification`
but for the number of steps. Test images: how many are known before and after it, and how many keep
their label. These seeds are none of docs/results.md: the number of steps was chosen on them.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from augment.plan import make_plan
from augment.spec import DcdSpec
from benchmarks.drawn import drawn_world
from benchmarks.timing import circumstances
from orchestrator.config import load_spec
from orchestrator.records import Rate
from orchestrator.serving import fit_served
from orchestrator.trial import fit_here
from tasks.evaluation import predict
from tasks.serving import purification
from tasks.serving.spec import PurificationSpec, ServingSpec

STEPS = (120, 500, 1000, 2000, 4000)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1001, 1002])
    args = parser.parse_args()
    print(circumstances())
    print("| seed | steps | known before | known after | label kept |\n|---|---|---|---|---|")
    for seed in args.seeds:
        world = drawn_world(seed)
        test = world.mask("test")
        images, labels = world.images[test], world.rows["label"].to_numpy()[test]
        plan = make_plan(world.rows, (), world.num_classes, DcdSpec(), seed)
        training = load_spec(None, []).training
        serving = ServingSpec(defense=PurificationSpec(epochs=1))
        network = None
        for steps in STEPS:
            # The network is the same for all: it is fitted once, and given back afterwards.
            keep = fit_here if network is None else lambda *_, kept=network: kept
            with patch.object(purification, "LEAST_STEPS", steps):
                served = fit_served(
                    keep, world.images, plan, world.num_classes, training, seed, serving
                )
            network = replace(served, output=None)
            before = predict(network.classifier(), images).argmax(axis=1)
            after = predict(served.classifier(), images).argmax(axis=1)
            rates = [
                Rate.of(int(same.sum()), len(labels))
                for same in (before == labels, after == labels, before == after)
            ]
            print(f"| {seed} | {steps} | " + " | ".join(map(str, rates)) + " |", flush=True)


if __name__ == "__main__":
    main()
