"""Attacks in too little memory, and on idle cores of a cluster: the same is found."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from attacks.parts import at_once, spread_by
from attacks.registry import make_attack
from orchestrator import attack_tasks
from orchestrator.attack_tasks import IdleCores, is_room
from orchestrator.attacking import attack_all, attack_group, joined, target_groups
from orchestrator.trial import World
from tasks.classifiers import TorchClassifier
from tasks.draws import Draws
from tasks.errors import AttackError
from tests.attacks.toy import SIZE, SPECS, ColourPrior, ToyWorld


class ShortOfMemory(ColourPrior):
    """A prior for which torch gets no memory beyond some images at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def synthesize(self, w: Tensor) -> Tensor:
        if len(w) > self.most:
            torch.empty(1 << 50)
        return super().synthesize(w)


def toy_world(toy: ToyWorld) -> World:
    targets = tuple(toy.targets)
    images = np.zeros((0, SIZE, SIZE, 3), dtype=np.uint8)
    names = tuple(f"t{i}" for i in range(len(targets)))
    return World(pa.table({}), images, targets, names, 4, 0, "digest", knowledge=toy.knowledge())


def classifier_of(toy: ToyWorld) -> TorchClassifier:
    return TorchClassifier(toy.module, 4, SIZE)


@pytest.mark.parametrize("name", ["ppa", "mirror-w", "mirror-b", "gmi"])
def test_an_attack_that_does_not_fit_takes_fewer_images_at_once(name: str) -> None:
    toy = ToyWorld.make()
    world, classifier, group = toy_world(toy), classifier_of(toy), slice(0, 3)
    whole = attack_group(SPECS[name], classifier, toy.prior, world, group)
    short = attack_group(SPECS[name], classifier, ShortOfMemory(5), world, group)
    assert (whole.rows_at_once, short.rows_at_once) == (None, 4)
    assert whole.queries == short.queries
    near = np.abs(whole.images.astype(int) - short.images.astype(int))
    assert near.max() <= 1  # of 255: another batch rounds otherwise
    assert joined([whole, short]).rows_at_once == 4


def test_an_attack_that_never_fits_is_a_failed_trial_and_not_a_lost_machine() -> None:
    toy = ToyWorld.make()
    with pytest.raises(AttackError, match="attack ppa does not fit into memory, not even with one"):
        attack_all(classifier_of(toy), ShortOfMemory(0), toy_world(toy), (SPECS["ppa"],))


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", ["ppa", "mirror-b"])
def test_idle_cores_of_a_cluster_find_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = ToyWorld.make()
    attack = make_attack(SPECS[name], toy.knowledge())
    asked = list[int]()

    def idle(real: Callable[[], int] = attack_tasks.idle_cores) -> int:
        asked.append(real())
        return asked[-1]

    monkeypatch.setattr(attack_tasks, "idle_cores", idle)
    with at_once(5):
        here, there = toy.access(name), toy.access(name)
        expected = attack.run(here, toy.prior, toy.targets, Draws(0))
        with spread_by(IdleCores({"num_cpus": 1}, worth_s=0.0)):
            found = attack.run(there, toy.prior, toy.targets, Draws(0))
    assert max(asked) >= 1
    assert torch.equal(expected.images, found.images)
    assert torch.equal(expected.confidence, found.confidence)
    assert expected.curve == found.curve
    assert here.queries == there.queries


@pytest.mark.usefixtures("ray")
def test_what_breaks_on_another_core_breaks_the_attack_as_it_would_here() -> None:
    toy = ToyWorld.make()
    toy.module.broken = True
    spread = IdleCores({"num_cpus": 1}, worth_s=0.0)
    group = (SPECS["ppa"], classifier_of(toy), toy.prior, toy_world(toy), slice(0, 3))
    with spread_by(spread), pytest.raises(AttackError, match="the loss of class"):
        attack_group(*group)
    toy.module.broken = False
    short = (SPECS["ppa"], classifier_of(toy), ShortOfMemory(5), toy_world(toy), slice(0, 3))
    with spread_by(spread):
        assert attack_group(*short).rows_at_once == 4


@pytest.mark.usefixtures("ray")
def test_room_is_what_is_idle_now() -> None:
    import ray

    deadline = time.monotonic() + 20
    while not is_room({"num_cpus": 1}) and time.monotonic() < deadline:
        time.sleep(0.1)  # until what the test before held is known to be free
    assert is_room({"num_cpus": 1, "num_gpus": 0})
    assert not is_room({"num_cpus": 1, "num_gpus": 1})

    def within() -> bool:
        deadline = time.monotonic() + 20
        while is_room({"num_cpus": 1}) and time.monotonic() < deadline:
            time.sleep(0.1)  # until this node has told the others what it holds
        return is_room({"num_cpus": 1})

    assert ray.get(ray.remote(num_cpus=2)(within).remote()) is False


def test_groups_do_not_depend_on_the_cluster() -> None:
    assert target_groups(70) == [slice(0, 32), slice(32, 64), slice(64, 70)]
