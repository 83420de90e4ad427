"""What every attack promises, on a toy world: one line of SPECS is all that a new one costs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from attacks.parts import at_once, spread_by
from attacks.registry import make_attack
from tasks.classifiers import LabelsOnly, ScoresOnly, TorchClassifier
from tasks.draws import Draws
from tasks.errors import AccessError, NonFiniteLossError
from tests.attacks.toy import SIZE, SPECS, ToyWorld

pytestmark = pytest.mark.parametrize("name", list(SPECS))


@pytest.fixture
def toy() -> ToyWorld:
    return ToyWorld.make()


LOOKS_ELSEWHERE = {"adaptive-reject", "adaptive-level"}
"""They leave the surest answer on purpose; tests/attacks/test_adaptive.py says what they find."""


RANKS_ITSELF = {f"adaptive-{name}" for name in ("modes", "sharp", "level", "attribute")}
"""Their order is not the confidence's."""


def test_it_finds_the_targets_of_an_unprotected_model(name: str, toy: ToyWorld) -> None:
    if name in LOOKS_ELSEWHERE:
        return
    assert toy.hit_rate(toy.run(name)) >= 0.75  # chance is 0.25


def test_results_have_shape_and_bounds_and_come_best_first(name: str, toy: ToyWorld) -> None:
    result = toy.run(name)
    kept = result.confidence.shape[1]
    assert kept == 3 if name != "adaptive-views" else 1 <= kept <= 3  # fewer candidates, by views
    assert result.images.shape == (3, kept, 3, SIZE, SIZE)
    assert result.latents.shape == (3, kept, 6)
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    assert float(result.confidence.min()) >= 0
    assert float(result.confidence.max()) <= 1 + 1e-6
    if name not in RANKS_ITSELF:
        assert torch.all(result.confidence.diff(dim=1) <= 1e-6)
    assert not result.images.requires_grad


def test_its_curve_tells_how_the_search_got_on(name: str, toy: ToyWorld) -> None:
    curve = toy.run(name).curve
    assert len(curve) > 1
    assert all(math.isfinite(value) for value in curve)
    if name in LOOKS_ELSEWHERE:
        return
    better = curve[-1] - curve[0] if name.startswith("brep-mi") else curve[0] - curve[-1]
    assert better > 0


def test_the_same_seed_gives_the_same_images_and_another_does_not(name: str, toy: ToyWorld) -> None:
    first, again, other = (toy.run(name, seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert first.curve == again.curve
    assert not torch.equal(first.images, other.images)


def test_a_target_does_not_depend_on_who_is_attacked_beside_it(name: str, toy: ToyWorld) -> None:
    together = toy.run(name)
    alone = toy.run(name, targets=[toy.targets[1]])
    assert torch.allclose(together.images[1], alone.images[0], atol=1e-5)


def test_the_batch_size_changes_nothing(name: str, toy: ToyWorld) -> None:
    whole = toy.run(name)
    with at_once(5):
        assert torch.allclose(whole.images, toy.run(name).images, atol=1e-5)


def test_batches_that_others_compute_give_the_same_bits(name: str, toy: ToyWorld) -> None:
    """As it is over a cluster: they have copies, and give back no more than their answer."""
    bundles = []

    def elsewhere(work: Any, classifier: Any, shared: Any, parts: Sequence[Any]) -> list[Any]:
        found = []
        for some in (parts[0::2], parts[1::2]):
            theirs, common, own = copy.deepcopy((classifier, shared, list(some)))
            before = theirs.queries
            found.append([work(theirs, common, part) for part in own])
            classifier.queries += theirs.queries - before
            bundles.append(len(own))
        return [found[i % 2][i // 2] for i in range(len(parts))]

    with at_once(5):
        access, other = toy.access(name), toy.access(name)
        attack = make_attack(SPECS[name], toy.knowledge())
        here = attack.run(access, toy.prior, toy.targets, Draws(0))
        with spread_by(elsewhere):
            there = attack.run(other, toy.prior, toy.targets, Draws(0))
    assert bundles
    assert torch.equal(here.images, there.images)
    assert torch.equal(here.confidence, there.confidence)
    assert here.curve == there.curve
    assert access.queries == other.queries


def test_the_model_is_left_as_it_was(name: str, toy: ToyWorld) -> None:
    before = toy.module.head.weight.clone()
    toy.run(name)
    assert torch.equal(toy.module.head.weight, before)
    assert toy.module.head.weight.grad is None


def test_loss_that_is_not_finite_is_one_sentence(name: str, toy: ToyWorld) -> None:
    toy.module.broken = True
    if toy.access(name).__class__ is LabelsOnly:
        toy.prior.mix = toy.prior.mix * float("nan")  # labels hide the classifier's loss
    with pytest.raises(NonFiniteLossError, match=f"attack {name}: the .*"):
        toy.run(name)


def test_the_bill_is_what_was_shown(name: str, toy: ToyWorld) -> None:
    access = toy.access(name)
    attack = make_attack(SPECS[name], toy.knowledge())
    attack.run(access, toy.prior, toy.targets, Draws(0))
    billed = attack.images(3)
    if name in EXACT:
        assert access.queries == billed
    assert 0 < access.queries <= billed


EXACT = {"ppa", "ppa-rungs", "mirror-w", "mirror-b", "gmi", "if-gmi"}


def test_access_is_what_it_declares(name: str, toy: ToyWorld) -> None:
    """An attack under its own wrapper runs; one step less and it is refused."""
    stricter = {"white-box": ScoresOnly, "scores": LabelsOnly}
    attack = make_attack(SPECS[name], toy.knowledge())
    if attack.access == "label-only":
        return
    less = stricter[attack.access](TorchClassifier(toy.module, 4, SIZE))
    with pytest.raises(AccessError, match="it may use"):
        attack.run(less, toy.prior, toy.targets, Draws(0))
