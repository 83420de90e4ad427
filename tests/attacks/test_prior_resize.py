"""A prior of another size than the data: resized, cropped, and seen by its critic as it was."""

from __future__ import annotations

import pytest
import torch

from attacks.prior_gan_training import build_gan
from attacks.prior_resize import ResizedPrior, fit_prior, resize
from attacks.spec import GanSpec
from tasks.errors import DataError

PRIOR = build_gan(32, GanSpec(latent_size=6, width=2), 0).eval().requires_grad_(False)
W = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))


def test_a_prior_of_the_right_size_is_itself() -> None:
    assert fit_prior(PRIOR, 32) is PRIOR
    assert fit_prior(PRIOR, 32, 32) is PRIOR


@pytest.mark.parametrize(("size", "crop"), [(16, None), (64, None), (20, 24), (24, 24)])
def test_images_have_the_datas_size(size: int, crop: int | None) -> None:
    fitted = fit_prior(PRIOR, size, crop)
    assert fitted.image_size == size
    images = fitted.synthesize(fitted.map(W))
    assert images.shape == (2, 3, size, size)
    state = fitted.advance(fitted.advance((), W, 0, 1), W, 1, fitted.num_layers)
    assert torch.equal(fitted.finish(state), images)


def test_a_crop_is_of_the_middle() -> None:
    whole = PRIOR.synthesize(W)
    assert torch.equal(fit_prior(PRIOR, 24, 24).synthesize(W), whole[:, :, 4:28, 4:28])


def test_shrinking_keeps_the_mean() -> None:
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(
        resize(images, 8)[:, :, 2:6, 2:6].mean(), images.mean(), rtol=0.1, atol=0.05
    )


def test_the_critic_is_shown_its_own_size_and_nothing_behind_a_crop() -> None:
    fitted = fit_prior(PRIOR, 16)
    assert isinstance(fitted, ResizedPrior)
    assert fitted.critic is not None
    images = fitted.synthesize(W)
    assert torch.equal(fitted.critic(images), PRIOR.critic(resize(images, 32)))
    assert fit_prior(PRIOR, 16, 24).critic is None


def test_a_crop_that_is_larger_than_the_images_is_an_error() -> None:
    with pytest.raises(DataError, match="prior.crop=40 is more than the 32 pixels"):
        fit_prior(PRIOR, 32, 40)
