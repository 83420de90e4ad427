"""What every attack promises, on a toy world: one line of SPECS is all that a new one costs."""

from __future__ import annotations

import pytest
import torch

from attacks import pool
from attacks.registry import ATTACKS
from tasks.errors import NonFiniteLossError
from tests.attacks.toy import SIZE, ToyWorld

pytestmark = pytest.mark.parametrize("name", list(ATTACKS))


@pytest.fixture
def toy() -> ToyWorld:
    return ToyWorld.make()


def test_it_finds_the_targets_of_an_unprotected_model(name: str, toy: ToyWorld) -> None:
    assert toy.hit_rate(toy.run(name)) >= 0.75  # chance is 0.25


def test_results_have_shape_and_bounds_and_come_best_first(name: str, toy: ToyWorld) -> None:
    result = toy.run(name)
    assert result.images.shape == (3, 3, 3, SIZE, SIZE)
    assert result.latents.shape == (3, 3, 6)
    assert result.confidence.shape == (3, 3)
    assert float(result.images.min()) >= 0
    assert float(result.images.max()) <= 1
    assert float(result.confidence.min()) >= 0
    assert float(result.confidence.max()) <= 1 + 1e-6
    assert torch.all(result.confidence.diff(dim=1) <= 1e-6)
    assert not result.images.requires_grad


def test_the_same_seed_gives_the_same_images_and_another_does_not(name: str, toy: ToyWorld) -> None:
    first, again, other = (toy.run(name, seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_a_target_does_not_depend_on_who_is_attacked_beside_it(name: str, toy: ToyWorld) -> None:
    together = toy.run(name)
    alone = toy.run(name, targets=[toy.targets[1]])
    assert torch.allclose(together.images[1], alone.images[0], atol=1e-5)


def test_the_batch_size_changes_nothing(
    name: str, toy: ToyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = toy.run(name)
    for module in ("pool", "ppa", "mirror_w", "mirror_b", "candidates"):
        monkeypatch.setattr(f"attacks.{module}.BATCH", 5)
    assert torch.allclose(whole.images, toy.run(name).images, atol=1e-5)
    assert pool.BATCH == 5


def test_the_model_is_left_as_it_was(name: str, toy: ToyWorld) -> None:
    before = toy.module.colours.clone()
    toy.run(name)
    assert torch.equal(toy.module.colours, before)
    assert toy.module.colours.grad is None


def test_loss_that_is_not_finite_is_one_sentence(name: str, toy: ToyWorld) -> None:
    toy.module.broken = True
    with pytest.raises(NonFiniteLossError, match=f"attack {name}: the .* of class"):
        toy.run(name)


def test_queries_are_counted(name: str, toy: ToyWorld) -> None:
    from attacks.registry import make_attack
    from tasks.draws import Draws
    from tests.attacks.toy import SPECS

    access = toy.access(name)
    make_attack(SPECS[name]).run(access, toy.prior, toy.targets, Draws(0))
    expected = {
        "ppa": 2 * 64 + 12 * 12 + 4 * 12,  # pool and mirror image, steps, selection
        "mirror-w": 64 + 9 * 16,
        "mirror-b": 64 + 9 * (8 + 10 * 7),
    }
    assert access.queries == expected[name]
