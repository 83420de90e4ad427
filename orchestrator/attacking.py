"""A trial's attacks: all attacked targets, a group of them at once, on this machine.

Where a batch does not fit into memory, the group is attacked again with half as many images at
once, until it fits. Candidates are independent, so that this changes the rounding alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tasks.errors import AttackError
from tasks.types import Image8

if TYPE_CHECKING:
    import torch

    from attacks.attack import AttackResult
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from orchestrator.trial import World
    from tasks.checkpoint import Checkpoint
    from tasks.classifiers import Classifier

GROUP = 32
"""Targets that one attack takes at once. Fixed, since rounding depends on the size of a batch: so
nothing that is found depends on how many nodes there are."""


@dataclass(frozen=True)
class Reconstructed:
    """An attack's answer, as stored images (targets, n, s, s, 3), what it asked, how it got on.

    Attributes:
        images: best first.
        queries: images that the classifier was shown.
        curve: of the search.
        rows_at_once: images that fitted into memory, where the batch did not.
    """

    images: Image8
    queries: int
    curve: tuple[float, ...] = ()
    rows_at_once: int | None = None


Attacked = Callable[
    ["Checkpoint", Sequence["AttackSpec"]], tuple[dict[str, Reconstructed], dict[str, float]]
]
"""Runs attacks on a checkpoint: what each found, and the seconds it took, by its label."""


def target_groups(count: int) -> list[slice]:
    """Return which targets are attacked at once, of `count` in all."""
    return [slice(start, min(start + GROUP, count)) for start in range(0, count, GROUP)]


def attack_here(
    classifier: Classifier, prior: Prior, world: World, attacks: Sequence[AttackSpec]
) -> tuple[dict[str, Reconstructed], dict[str, float]]:
    """Run attacks in this process: what each found, and the seconds it took, by its label."""
    results: dict[str, Reconstructed] = {}
    seconds = {}
    for spec in attacks:
        started = time.perf_counter()
        results |= attack_all(classifier, prior, world, (spec,))
        seconds[spec.label] = round(time.perf_counter() - started, 3)
    return results, seconds


def attack_all(
    classifier: Classifier,
    prior: Prior,
    world: World,
    attacks: Sequence[AttackSpec],
) -> dict[str, Reconstructed]:
    """Run attacks against all attacked targets, each with the access that it declares."""
    groups = target_groups(len(world.attacked))
    return {
        spec.label: joined([attack_group(spec, classifier, prior, world, g) for g in groups])
        for spec in attacks
    }


def attack_group(
    spec: AttackSpec, classifier: Classifier, prior: Prior, world: World, group: slice
) -> Reconstructed:
    """Run an attack against a group of the attacked targets at once.

    Raises:
        AttackError: it broke, or a single image does not fit into memory.
    """
    from attacks.parts import BATCH, at_once
    from attacks.registry import make_attack
    from attacks.sharding import attack_devices, attack_on
    from tasks.draws import Draws
    from tasks.memory import halving

    attack = make_attack(spec, world.knowledge)
    draws = Draws(world.seed, (spec.label,))
    targets = world.attacked[group]

    def attempt(rows: int) -> tuple[AttackResult, int]:
        with at_once(rows):
            return attack_on(attack_devices(), attack, classifier, prior, targets, draws)

    too_large = AttackError(
        f"attack {spec.label} does not fit into memory, not even with one image at once; use "
        "smaller images or a machine with more memory"
    )
    (result, queries), rows = halving(attempt, BATCH, 1, too_large)
    fewer = rows if rows < BATCH else None
    return Reconstructed(stored(result.images), queries, result.curve, fewer)


def joined(parts: Sequence[Reconstructed]) -> Reconstructed:
    """Return the groups' answers as one, in the order of the targets."""
    from attacks.curve import join_curves

    images = np.concatenate([part.images for part in parts])
    curve = join_curves([part.curve for part in parts], [len(part.images) for part in parts])
    fewer = [part.rows_at_once for part in parts if part.rows_at_once is not None]
    queries = sum(part.queries for part in parts)
    return Reconstructed(images, queries, curve, min(fewer, default=None))


def stored(images: torch.Tensor) -> Image8:
    """Return images (targets, n, 3, s, s) in [0, 1] as they are stored, (targets, n, s, s, 3)."""
    from tasks.evaluation import from_unit

    flat = from_unit(images.flatten(0, 1))
    return flat.reshape(*images.shape[:2], *flat.shape[1:])
