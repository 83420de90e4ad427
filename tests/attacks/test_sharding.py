"""Targets dealt over devices are found as together; here both devices are the CPU."""

from __future__ import annotations

import pytest
import torch

from attacks.prior_gan_training import build_gan
from attacks.prior_resize import fit_prior
from attacks.registry import make_attack
from attacks.sharding import attack_devices, attack_on, prior_on
from attacks.spec import GanSpec, PpaSpec
from tasks.classifiers import ScoresOnly, TorchClassifier
from tasks.draws import Draws
from tasks.errors import NonFiniteLossError
from tests.attacks.toy import SEARCH, SIZE, SPECS, ToyWorld

CPU = torch.device("cpu")


@pytest.fixture
def toy() -> ToyWorld:
    return ToyWorld.make()


@pytest.mark.parametrize("name", list(SPECS))
@pytest.mark.parametrize("places", [2, 5])
def test_targets_are_found_as_without_sharding(name: str, places: int, toy: ToyWorld) -> None:
    classifier = TorchClassifier(toy.module, 4, SIZE)
    attack = make_attack(SPECS[name], toy.knowledge())
    alone, asked = attack_on([CPU], attack, classifier, toy.prior, toy.targets, Draws(0))
    dealt, more = attack_on([CPU] * places, attack, classifier, toy.prior, toy.targets, Draws(0))
    if name == "adaptive-modes":  # rounding may move a candidate into another cluster
        assert toy.hit_rate(dealt) == pytest.approx(toy.hit_rate(alone), abs=0.12)
    else:
        torch.testing.assert_close(dealt.images, alone.images, rtol=0, atol=1e-4)
        torch.testing.assert_close(dealt.confidence, alone.confidence, rtol=0, atol=1e-4)
    assert more >= asked
    assert torch.equal(alone.images, toy.run(name).images)


def test_what_breaks_in_a_shard_is_the_same_error(toy: ToyWorld) -> None:
    attack = make_attack(PpaSpec(**SEARCH))
    for parameter in toy.module.parameters():
        parameter.data.fill_(torch.nan)
    classifier = TorchClassifier(toy.module, 4, SIZE)
    with pytest.raises(NonFiniteLossError):
        attack_on([CPU, CPU], attack, classifier, toy.prior, toy.targets, Draws(0))


def test_the_classifier_and_the_prior_are_left_where_they_were(toy: ToyWorld) -> None:
    classifier = TorchClassifier(toy.module, 4, SIZE)
    before = {k: v.clone() for k, v in toy.module.state_dict().items()}
    attack = make_attack(PpaSpec(**SEARCH))
    attack_on([CPU, CPU], attack, classifier, toy.prior, toy.targets, Draws(0))
    assert classifier.module is toy.module
    assert all(torch.equal(v, before[k]) for k, v in toy.module.state_dict().items())


def test_a_classifier_that_is_not_a_network_of_ours_is_asked_as_it_is(toy: ToyWorld) -> None:
    wrapped = ScoresOnly(TorchClassifier(toy.module, 4, SIZE))
    attack = make_attack(SPECS["mirror-b"])
    _, asked = attack_on([CPU, CPU], attack, wrapped, toy.prior, toy.targets, Draws(0))
    assert asked == wrapped.queries


@pytest.mark.parametrize("size", [16, 32])
def test_a_prior_that_resizes_can_be_moved(size: int) -> None:
    prior = build_gan(16, GanSpec(latent_size=4, width=2), 0).eval().requires_grad_(False)
    fitted = fit_prior(prior, size)
    moved = prior_on(fitted, torch.device("meta"))
    assert moved.map(torch.zeros(1, 4, device="meta")).device.type == "meta"
    assert moved.w_mean.device.type == "meta"
    assert prior.w_mean.device.type == "cpu"


def test_without_a_gpu_there_is_one_place() -> None:
    assert attack_devices() == (CPU,) or attack_devices()[0].type == "cuda"
