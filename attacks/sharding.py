"""Where an attack runs: its targets dealt over the GPUs of this machine, or all on the CPU.

What is found for a target does not depend on who is attacked beside it, so dealing targets changes
no result but for the rounding of another device. Each device scores its own pool.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import torch

from attacks.attack import Attack, AttackResult
from attacks.curve import join_curves
from attacks.prior import Prior
from tasks.classifiers import ACCESS, Classifier, TorchClassifier
from tasks.draws import Draws
from tasks.types import TargetClass


def attack_devices() -> tuple[torch.device, ...]:
    """Return every GPU that this process may use, else the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return tuple(torch.device("cuda", i) for i in range(count)) or (torch.device("cpu"),)


def attack_on(
    places: Sequence[torch.device],
    attack: Attack,
    classifier: Classifier,
    prior: Prior,
    targets: Sequence[TargetClass],
    draws: Draws,
) -> tuple[AttackResult, int]:
    """Run an attack with the access that it declares; its targets are dealt over `places`.

    Args:
        places: one device or more. A classifier that is not a network of ours stays where it is.
        attack: the attack.
        classifier: the attacked one; it is copied where it is not on the only place.
        prior: the attacker's generator, copied likewise.
        targets: the classes.
        draws: of the attack.

    Returns:
        What was found, on the CPU, and how many images the classifier was shown; a pool counts once
        for each device that scores it.
    """
    access = ACCESS[attack.access]
    if not isinstance(classifier, TorchClassifier) or list(places) == [torch.device("cpu")]:
        seen = access(classifier)
        return attack.run(seen, prior, targets, draws), seen.queries
    if getattr(getattr(attack, "spec", None), "students", ()):
        places = places[:1]  # students are taught under the one global generator
    shards = [part for part in np.array_split(np.arange(len(targets)), len(places)) if len(part)]

    def run(place: torch.device, shard: np.ndarray) -> tuple[AttackResult, int]:
        seen = access(_copied(classifier, place))
        own = [targets[i] for i in shard]
        return attack.run(seen, prior_on(prior, place), own, draws), seen.queries

    contexts = [copy_context() for _ in shards]  # how many rows at once, of whoever calls
    with ThreadPoolExecutor(len(shards)) as pool:
        found = list(pool.map(lambda context, *of: context.run(run, *of), contexts, places, shards))
    images, latents, confidence = (
        torch.cat([getattr(result, name).cpu() for result, _ in found])
        for name in ("images", "latents", "confidence")
    )
    curve = join_curves([result.curve for result, _ in found], [len(part) for part in shards])
    return AttackResult(images, latents, confidence, curve), sum(queries for _, queries in found)


def prior_on(prior: Prior, place: torch.device) -> Prior:
    """Return a copy of the generator on a device; one that cannot be moved is only copied."""
    twin = copy.deepcopy(prior)
    move = getattr(twin, "to", None)
    moved: Prior = twin if move is None else move(place)
    return moved


def _copied(classifier: TorchClassifier, place: torch.device) -> TorchClassifier:
    module = copy.deepcopy(classifier.module).to(place)
    if place.type == "cuda":
        module = module.to(memory_format=torch.channels_last)
    twin = copy.copy(classifier)
    twin.module, twin.device = module, place
    if classifier.output is not None:
        twin.output = copy.deepcopy(classifier.output).to(place)
    return twin
