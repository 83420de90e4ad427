"""GAN priors: the protocol, the critic, and training that resumes and says when it breaks."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attacks.prior_files import load_prior, save_prior
from attacks.prior_gan import GanPrior, GanShape
from attacks.prior_gan_training import GanState, build_gan, gradient_penalty, train_gan
from attacks.spec import GanSpec
from tasks.errors import DataError, TrainingError
from tasks.types import Image8

SPEC = GanSpec(steps=40, latent_size=4, width=4, batch_size=16, critic_steps=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def images() -> Image8:
    """Flat pictures of every red, and of no green or blue."""
    found = np.zeros((64, 16, 16, 3), np.uint8)
    found[..., 0] = np.linspace(120, 255, 64, dtype=np.uint8)[:, None, None]
    return found


def latents(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_images_have_the_size_and_lie_in_the_bounds(size: int) -> None:
    prior = build_gan(size, GanSpec(latent_size=6, width=2), 0).eval().requires_grad_(False)
    z = latents(3, prior.z_size)
    images = prior.synthesize(prior.map(z) * 20)
    assert images.shape == (3, 3, size, size)
    assert float(images.min()) >= prior.bounds.low
    assert float(images.max()) <= prior.bounds.high
    assert prior.critic(images).shape == (3,)


def test_without_a_mapping_w_is_z_and_truncation_shrinks_it() -> None:
    prior = GanPrior(GanShape(image_size=16, latent_size=6, width=2))
    z = latents(5, 6)
    assert torch.equal(prior.map(z), z)
    torch.testing.assert_close(prior.map(z, 0.5), z / 2)


def test_the_layers_one_by_one_are_the_synthesis() -> None:
    prior = build_gan(32, GanSpec(latent_size=6, width=2), 0).eval().requires_grad_(False)
    w = latents(2, 6)
    state = prior.advance(prior.advance((), w, 0, 1), w, 1, prior.num_layers)
    assert torch.equal(prior.finish(state), prior.synthesize(w))


def test_an_image_size_that_no_gan_has_is_an_error() -> None:
    with pytest.raises(DataError, match="16, 32, 64 or 128 pixels, not 48"):
        build_gan(48, SPEC, 0)


def test_the_penalty_is_that_of_the_gradients_norm() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 * x.flatten(1).sum(1)

    real, fake = torch.rand(3, 3, 4, 4), torch.rand(3, 3, 4, 4)
    penalty = gradient_penalty(Sum(), real, fake, torch.rand(3, 1))
    torch.testing.assert_close(penalty, torch.full((3,), (0.5 * 48**0.5 - 1) ** 2))


def test_training_moves_fakes_towards_the_images(images: Image8) -> None:
    reported: dict[int, float] = {}
    untrained = build_gan(16, SPEC, 0).eval().requires_grad_(False)
    prior = train_gan(images, SPEC, 0, lambda step, steps, value: reported.update({step: value}))
    assert list(reported) == [20, 40]
    z = latents(64, 4)
    wanted = torch.tensor([images[..., 0].mean() / 255, 0.0, 0.0])

    def gap(of: GanPrior) -> float:
        return float((of(z).mean((0, 2, 3)) - wanted).abs().max())

    assert gap(prior) < 0.5 * gap(untrained)
    assert not any(p.requires_grad for p in prior.parameters())
    assert not prior.training


def test_the_seed_decides_the_weights(images: Image8) -> None:
    spec = SPEC.model_copy(update={"steps": 2})
    torch.manual_seed(1)
    one = train_gan(images, spec, 5).state_dict()
    torch.manual_seed(2)  # the global generator has no say
    two = train_gan(images, spec, 5).state_dict()
    other = train_gan(images, spec, 6).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_training_goes_on_where_it_stopped(images: Image8) -> None:
    states: list[GanState] = []
    whole = train_gan(images, SPEC, 0, on_state=lambda s: states.append(copy.deepcopy(s)))
    assert [state.step for state in states] == [20, 40]
    resumed = train_gan(images, SPEC, 0, start=states[0])
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_saved_gan_keeps_its_critic(tmp_path: Path) -> None:
    prior = build_gan(16, SPEC, 0).eval().requires_grad_(False)
    save_prior(prior, tmp_path / "gan.safetensors", {})
    loaded = load_prior(tmp_path / "gan.safetensors")
    assert isinstance(loaded, GanPrior)
    images = loaded(latents(3, 4))
    assert torch.equal(images, prior(latents(3, 4)))
    assert torch.equal(loaded.critic(images), prior.critic(images))


def test_a_loss_that_is_not_finite_is_an_error(images: Image8) -> None:
    spec = SPEC.model_copy(update={"learning_rate": 1e30, "steps": 20})
    with pytest.raises(TrainingError, match=r"loss is (nan|-?inf) at step 20 of 20; lower"):
        train_gan(images, spec, 0)


def test_a_batch_that_is_too_small_for_its_processes_is_an_error(images: Image8) -> None:
    spec = SPEC.model_copy(update={"batch_size": 3})
    with pytest.raises(TrainingError, match="batch_size=3 for 2 processes; each needs at least 2"):
        train_gan(images, spec, 0, world=2)
