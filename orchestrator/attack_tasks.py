"""A trial's attacks as tasks of the cluster: one for each attack and group of targets.

The groups are those of an attack in one process, so that what is found is the same to the last bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from orchestrator.bundle import Bundle, pack, scratch, unpacked
from orchestrator.task_meter import TrialMeter
from orchestrator.trial import (
    Attacked,
    Reconstructed,
    World,
    attack_group,
    joined,
    target_groups,
)
from tasks.errors import AttackError

if TYPE_CHECKING:
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from tasks.checkpoint import Checkpoint


HELD = "held beside the attacks"
"""Of a trial's cost: its own device, while its attacks run elsewhere."""


def attack_in_tasks(
    options: dict[str, Any],
    world: Any,
    prior: Any,
    count: int,
    meter: TrialMeter | None = None,
    *,
    holds: bool = False,
) -> Attacked:
    """Return how to attack a checkpoint on whatever cores and GPUs the cluster has free.

    Args:
        options: what each task holds, as Ray takes it.
        world: reference to the shared data.
        prior: reference to the attacker's generator.
        count: targets that are attacked.
        meter: told of each task.
        holds: the trial holds a device of its own meanwhile, which is counted too.
    """

    def attack(
        checkpoint: Checkpoint, attacks: Sequence[AttackSpec]
    ) -> tuple[dict[str, Reconstructed], dict[str, float]]:
        import ray

        # Without a strategy of its own, a task would wait for the core that its trial holds.
        task = ray.remote(**options, max_retries=2, scheduling_strategy="SPREAD")(_group_task)
        with scratch() as folder:
            weights = ray.put(pack(checkpoint.save(folder)))
        given = {
            spec.label: [
                task.remote(spec, g, weights, world, prior, meter) for g in target_groups(count)
            ]
            for spec in attacks
        }
        started = time.perf_counter()
        results, seconds = {}, dict[str, float]()
        for label, parts in given.items():
            found = ray.get(parts)
            broken = next((one for one, _ in found if isinstance(one, AttackError)), None)
            if broken is not None:
                raise broken
            results[label] = joined([one for one, _ in found])
            seconds[label] = round(sum(spent for _, spent in found), 3)
        if holds:
            seconds[HELD] = round(time.perf_counter() - started, 3)
        return results, seconds

    return attack


def _group_task(
    spec: AttackSpec,
    group: slice,
    weights: Bundle,
    world: World,
    prior: Prior,
    meter: TrialMeter | None = None,
) -> tuple[Reconstructed | AttackError, float]:
    """Attack one group of targets, in a Ray worker; a broken attack is an answer, not a retry."""
    import torch

    from tasks.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    counted = nullcontext() if meter is None else meter.metered(f"{spec.label} {group.start}")
    started = time.perf_counter()
    with counted:
        with unpacked(weights) as folder:
            classifier = load_checkpoint(folder).classifier()
        found: Reconstructed | AttackError
        try:
            found = attack_group(spec, classifier, prior, world, group)
        except AttackError as error:
            found = error
    return found, time.perf_counter() - started
