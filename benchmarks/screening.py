"""Screening against the full budget: generator calls, and whether the verdicts agree.

    dcdctl train --defense none --out control --storage bench
    python benchmarks/screening.py control bench/artifacts/evaluator/* --seed 0

The protected people of the built-in world are attacked. The full budget runs all blocks of the
attack as it is; screening stops at clear verdicts, with a smaller pool and successive rejection. A
verdict of the full budget is what is likelier of its hits: exposed or protected. Agreement is the
share of targets with the same verdict; an undecided one agrees with nobody.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this folder has a `screening` too: this file

import torch
from torch import Tensor

from attacks.prior import Prior
from attacks.prior_files import load_prior
from attacks.prior_training import shipped_prior_path
from attacks.spec import AttackSpec, MirrorBSpec, MirrorWSpec, PpaSpec
from benchmarks.timing import circumstances
from orchestrator.records import Rate
from orchestrator.screening import ScreenRecord, screen
from orchestrator.selection import choose
from orchestrator.spec import ExperimentSpec
from orchestrator.store import Store
from orchestrator.trial import World
from orchestrator.world_stage import prepare_world
from tasks.checkpoint import load_checkpoint
from tasks.evaluation.sequential import SequentialTest

ATTACKS: tuple[AttackSpec, ...] = (PpaSpec(), MirrorWSpec(), MirrorBSpec())


class Counted:
    """A prior that counts the images that it is asked for."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.images = prior, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def synthesize(self, w: Tensor) -> Tensor:
        """Return images, counted."""
        self.images += len(w)
        made: Tensor = self.prior.synthesize(w)
        return made


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="the attacked classifier")
    parser.add_argument("judge", type=Path, help="the evaluation classifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", default=".dcdctl", help="where the data are kept")
    parser.add_argument("--targets", type=int, default=8)
    parser.add_argument("--attacks", nargs="*", default=[attack.name for attack in ATTACKS])
    given = parser.parse_args()
    print(f"{circumstances()}, {torch.get_num_threads()} threads")
    spec = ExperimentSpec.model_validate(
        {"seed": given.seed, "storage": given.storage, "protect": {"targets": given.targets}}
    )
    classifier, judge = (load_checkpoint(p).classifier() for p in (given.checkpoint, given.judge))
    path = shipped_prior_path(classifier.image_size)
    assert path is not None, "no prior is shipped for images of that size"
    world = _world(spec)
    rules = spec.screening
    test = SequentialTest(rules.protected_rate, rules.exposed_rate, rules.error)
    print("| attack | generator calls, full | screened | ratio | seconds | verdicts agree |")
    print("|---|---|---|---|---|---|")
    for attack in ATTACKS:
        if attack.name not in given.attacks:
            continue
        found: list[tuple[ScreenRecord, int, float]] = []
        for whole in (True, False):
            prior, started = Counted(load_prior(path)), time.perf_counter()
            generator: Prior = prior
            record = screen(attack, classifier, generator, world, judge, rules, whole=whole)
            found.append((record, prior.images, time.perf_counter() - started))
        (full, calls, seconds), (light, fewer, less) = found
        likelier = [
            "exposed" if test.evidence(t.hits, t.n) > 0 else "protected" for t in full.targets
        ]
        same = sum(t.verdict == v for t, v in zip(light.targets, likelier, strict=True))
        agree = Rate.of(same, len(likelier))
        exposed = likelier.count("exposed")
        print(
            f"| {attack.name} | {calls:,} | {fewer:,} | {calls / fewer:.1f} | "
            f"{seconds:.0f} / {less:.0f} | {agree}; full: {exposed} exposed; screened: "
            f"{light.count('exposed')} exposed, {light.count('undecided')} undecided |"
        )


def _world(spec: ExperimentSpec) -> World:
    from clusters.embedded import embedded_ray

    store = Store(spec.storage)
    with store.locked(), embedded_ray(2):
        selection = choose(spec, store, lambda *_: None)
        return prepare_world(spec, store, selection, lambda *_: None)


if __name__ == "__main__":
    main()
