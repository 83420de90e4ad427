"""Training a prior: it learns, it is deterministic, and it says when the loss breaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attacks import prior_training
from attacks.prior_training import train_prior
from attacks.spec import PriorSpec
from tasks.datasets.faces import render_faces
from tasks.errors import DataError, TrainingError
from tasks.types import Image8

SPEC = PriorSpec(steps=80, latent_size=8)


@pytest.fixture(scope="module")
def faces() -> Image8:
    return render_faces(3, "public", np.arange(64), np.zeros(64, int), 16)


def test_the_loss_falls_and_the_latents_change_the_picture(faces: Image8) -> None:
    losses: dict[int, float] = {}

    def note(step: int, steps: int, loss: float) -> None:
        assert steps == SPEC.steps
        losses[step] = loss

    prior = train_prior(faces, SPEC, 0, note)
    assert list(losses)[-1] == SPEC.steps
    assert losses[80] < 0.9 * losses[20]
    images = prior(torch.randn(16, 8, generator=torch.Generator().manual_seed(0)))
    assert float(images.std(dim=0).mean()) > 0.01
    assert not any(p.requires_grad for p in prior.parameters())
    assert float(prior.w_mean.abs().max()) > 0


def test_the_seed_decides_the_weights(faces: Image8) -> None:
    spec = PriorSpec(steps=3, latent_size=8)
    torch.manual_seed(1)
    one = train_prior(faces, spec, 5).state_dict()
    torch.manual_seed(2)  # the global generator has no say
    two = train_prior(faces, spec, 5).state_dict()
    other = train_prior(faces, spec, 6).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["start.weight"], other["start.weight"])


def test_training_leaves_the_global_generator_alone(faces: Image8) -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    train_prior(faces, PriorSpec(steps=1, latent_size=8), 0)
    assert torch.equal(torch.rand(3), expected)


def test_an_image_size_without_a_decoder_is_an_error() -> None:
    images = np.zeros((4, 20, 20, 3), np.uint8)
    with pytest.raises(DataError, match="not 20"):
        train_prior(images, SPEC, 0)


def test_a_loss_that_is_not_finite_is_an_error(
    faces: Image8, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior_training, "LEARNING_RATE", 1e12)
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+ of 80"):
        train_prior(faces, SPEC, 0, lambda step, steps, loss: None)
