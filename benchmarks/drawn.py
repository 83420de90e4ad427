"""The built-in people of a seed, for benchmarks that train on them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch

from augment.plan import make_plan
from augment.spec import DcdSpec
from benchmarks.timing import circumstances
from clusters.embedded import embedded_ray
from orchestrator.config import load_spec
from orchestrator.selection import select
from orchestrator.store import Store
from orchestrator.trial import World, accuracy_of, fit_here
from orchestrator.world_stage import prepare_world
from tasks.training_spec import TrainingSpec


def drawn_world(seed: int) -> World:
    """Return what trials share, in memory alone."""
    with tempfile.TemporaryDirectory() as folder:
        spec = load_spec(None, [f"storage={folder}", f"seed={seed}"])
        store = Store(spec.storage)
        with store.locked(), embedded_ray(2):
            world = prepare_world(spec, store, select(spec), lambda *_: None)
        return replace(world, images=world.images.copy())


def print_known(
    seeds: Sequence[int], defenses: Mapping[str, dict[str, Any]], processes: int
) -> None:
    """Print how many test images each defence's network knows.

    Args:
        seeds: of the people.
        defenses: settings of `training.defense` by what the table calls them.
        processes: trainings at once.
    """
    print(circumstances())
    print("| seed | defence | known | s |\n|---|---|---|---|")
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for seed in seeds:
            world = drawn_world(seed)
            asked = [pool.submit(known, world, defense) for defense in defenses.values()]
            for said, one in zip(defenses, asked, strict=True):
                rate, seconds = one.result()
                print(f"| {seed} | {said} | {rate} | {seconds:.0f} |", flush=True)


def known(world: World, defense: dict[str, Any]) -> tuple[str, float]:
    """Train without DCD; return how many test images are known, and seconds of one core."""
    torch.set_num_threads(1)
    started = time.process_time()
    settings = load_spec(None, []).training.model_dump() | {"defense": defense}
    training = TrainingSpec.model_validate(settings)
    plan = make_plan(world.rows, (), world.num_classes, DcdSpec(), world.seed)
    checkpoint = fit_here(world.images, plan, world.num_classes, training, world.seed)
    seconds = time.process_time() - started
    return str(accuracy_of(checkpoint.classifier(), world).overall), seconds
