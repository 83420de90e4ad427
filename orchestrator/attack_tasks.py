"""A trial's attacks as tasks of the cluster: by attack, by group of targets, by candidates.

Groups and batches are those of an attack in one process, so that what is found is the same to the
last bit, whoever computes it. Whether a batch goes elsewhere is decided when it is about to be
computed, by the cores that are idle then: nodes may come and go meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from orchestrator.attacking import Attacked, Reconstructed, attack_group, joined, target_groups
from orchestrator.bundle import Bundle, pack, scratch, unpacked
from orchestrator.task_meter import TrialMeter
from tasks.errors import AttackError

if TYPE_CHECKING:
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from orchestrator.trial import World
    from tasks.checkpoint import Checkpoint
    from tasks.classifiers import Classifier

WORTH_S = 0.3
"""Seconds of a batch below which sending it away takes longer than computing it here."""


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
                task.remote(spec, group, weights, world, prior, options, meter)
                for group in target_groups(count)
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


def idle_cores() -> int:
    """Return how many cores of the cluster nobody holds, as far as this node has heard."""
    import ray

    return int(ray.available_resources().get("CPU", 0))


def is_room(options: dict[str, Any]) -> bool:
    """Say whether a task would start now, beside the trial that asks.

    A trial that waits gives its core back, but not its GPU: its tasks need another one.
    """
    import ray

    idle = ray.available_resources()
    gpus = options.get("num_gpus", 0)
    return bool(idle.get("CPU", 0) >= 1 and idle.get("GPU", 0) >= gpus)


class IdleCores:
    """Who computes an attack's batches: this process, and idle cores of the cluster.

    Args:
        options: what a helper holds, as Ray takes it.
        worth_s: seconds that a batch has to take to be sent away.
        meter: told of each helper.
        name: of the attack's group, for the meter.

    Attributes:
        seconds: that helpers took.
    """

    def __init__(
        self,
        options: dict[str, Any],
        worth_s: float = WORTH_S,
        meter: TrialMeter | None = None,
        name: str = "",
    ) -> None:
        self.options = options
        self.worth_s = worth_s
        self.meter = meter
        self.name = name
        self.seconds = 0.0
        self._calls = 0

    def __call__(
        self,
        work: Callable[[Any, Any, Any], Any],
        classifier: Any,
        shared: Any,
        parts: Sequence[Any],
    ) -> list[Any]:
        """Return `work(classifier, shared, part)` of each part."""
        import ray

        started = time.perf_counter()
        found = [work(classifier, shared, parts[0])]
        rest = list(parts[1:])
        helpers = min(idle_cores(), len(rest) - 1)
        if time.perf_counter() - started < self.worth_s or helpers < 1:
            return found + [work(classifier, shared, part) for part in rest]
        shares = _shares(rest, helpers + 1)
        helper = ray.remote(**self.options, max_retries=2, scheduling_strategy="SPREAD")
        common = ray.put((classifier, shared))
        self._calls += 1
        given = [
            helper(_batches_task).remote(
                work, common, share, self.meter, f"{self.name} {self._calls}.{number}"
            )
            for number, share in enumerate(shares[1:])
        ]
        found += [work(classifier, shared, part) for part in shares[0]]
        # Waiting gives this task's own core back, so that the helpers never wait for it.
        answers = ray.get(given)
        self.seconds += sum(spent for _, _, spent in answers)
        for answer, asked, _ in answers:
            if isinstance(answer, Exception):
                raise answer
            classifier.queries += asked
            found += answer
        return found


def _shares(parts: list[Any], count: int) -> list[list[Any]]:
    """Return the parts in order, dealt as evenly as they go."""
    ends = [len(parts) * i // count for i in range(count + 1)]
    return [parts[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def _batches_task(
    work: Callable[[Any, Any, Any], Any],
    common: tuple[Classifier, Any],
    parts: list[Any],
    meter: TrialMeter | None,
    name: str,
) -> tuple[list[Any] | Exception, int, float]:
    """Compute batches of another process's attack; what breaks them is an answer, not a retry."""
    import torch

    from tasks.memory import is_out_of_memory

    torch.set_num_threads(1)
    classifier: Any = common[0]
    before = classifier.queries
    started = time.perf_counter()
    answer: list[Any] | Exception
    with nullcontext() if meter is None else meter.metered(name):
        try:
            answer = [work(classifier, common[1], part) for part in parts]
        except Exception as error:
            if not isinstance(error, AttackError) and not is_out_of_memory(error):
                raise
            answer = error.with_traceback(None)
    return answer, classifier.queries - before, time.perf_counter() - started


def _group_task(
    spec: AttackSpec,
    group: slice,
    weights: Bundle,
    world: World,
    prior: Prior,
    options: dict[str, Any],
    meter: TrialMeter | None = None,
) -> tuple[Reconstructed | AttackError, float]:
    """Attack one group of targets, in a Ray worker; a broken attack is an answer, not a retry."""
    import torch

    from attacks.parts import spread_by
    from attacks.sharding import attack_devices
    from tasks.checkpoint import load_checkpoint

    torch.set_num_threads(1)
    name = f"{spec.label} {group.start}"
    helpers = IdleCores(options, meter=meter, name=name)
    # GPUs share a group by its targets; the batches of one stay on it.
    helped = attack_devices() == (torch.device("cpu"),)
    found: Reconstructed | AttackError
    started = time.perf_counter()
    with nullcontext() if meter is None else meter.metered(name):
        with unpacked(weights) as folder:
            classifier = load_checkpoint(folder).classifier()
        try:
            with spread_by(helpers if helped else None):
                found = attack_group(spec, classifier, prior, world, group)
        except AttackError as error:
            found = error
    return found, time.perf_counter() - started + helpers.seconds
