"""Priors: shapes and bounds, truncation, the file format, and what a bad file says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from attacks.prior import SLOPE, DecoderPrior, DecoderSpec, decoder_channels
from attacks.prior_files import load_prior, save_prior
from attacks.prior_training import shipped_prior_path
from tasks.datasets.faces import render_faces
from tasks.errors import DataError


@pytest.fixture
def prior() -> DecoderPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = DecoderPrior(DecoderSpec(image_size=16, latent_size=6, channels=(12, 8, 4)))
    made.w_mean.copy_(torch.linspace(-1, 1, 6))
    return made.eval().requires_grad_(False)


def latents(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_images_have_the_size_and_lie_in_the_bounds(size: int) -> None:
    prior = DecoderPrior(
        DecoderSpec(image_size=size, latent_size=8, channels=decoder_channels(size))
    ).requires_grad_(False)
    w = prior.map(latents(3, prior.z_size))
    images = prior.synthesize(w * 50)
    assert w.shape == (3, prior.w_size)
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.float32
    assert float(images.min()) >= prior.bounds.low
    assert float(images.max()) <= prior.bounds.high


def test_truncation_draws_latents_towards_the_mean(prior: DecoderPrior) -> None:
    z = latents(5, 6)
    full, half, none = (prior.map(z, t) for t in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (full + prior.w_mean) / 2)
    torch.testing.assert_close(none, prior.w_mean.expand(5, -1))


def test_the_p_space_undoes_the_last_activation(prior: DecoderPrior) -> None:
    """MIRROR's P-space is w before the last leaky rectifier: one with slope 1 / 0.2 inverts it."""
    z = latents(5, 6)
    torch.testing.assert_close(
        functional.leaky_relu(prior.map(z), 1 / SLOPE), prior.mapping(z), rtol=1e-5, atol=1e-6
    )


def test_images_have_a_gradient_with_respect_to_w(prior: DecoderPrior) -> None:
    w = prior.map(latents(2, 6)).requires_grad_(True)
    prior.synthesize(w).sum().backward()
    assert w.grad is not None
    assert bool((w.grad != 0).any(dim=1).all())


def test_a_saved_prior_makes_nearly_the_same_images(prior: DecoderPrior, tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    save_prior(prior, path, {"images": "20"})
    loaded = load_prior(path)
    assert loaded.spec == prior.spec
    assert not any(p.requires_grad for p in loaded.parameters())
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32}
    z = latents(4, 6)
    torch.testing.assert_close(loaded(z), prior(z), rtol=0, atol=0.02)  # float16 on disk
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["trained_on"]) == {"images": "20"}


def test_a_decoder_whose_stages_do_not_fit_its_size_is_an_error() -> None:
    with pytest.raises(DataError, match="makes images of 16 pixels, not 32"):
        DecoderPrior(DecoderSpec(image_size=32, channels=(8, 8, 8)))


def test_an_image_size_that_is_no_power_of_two_is_an_error() -> None:
    with pytest.raises(DataError, match="or 256 pixels, not 48"):
        decoder_channels(48)


def test_a_damaged_file_is_an_error(prior: DecoderPrior, tmp_path: Path) -> None:
    path = tmp_path / "prior.safetensors"
    save_prior(prior, path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"prior\.safetensors cannot be read .* make it again"):
        load_prior(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_prior(tmp_path / "none.safetensors")


def test_a_file_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(DataError, match="is not a prior of this program"):
        load_prior(path)


def test_weights_that_do_not_fit_their_description_are_an_error(
    prior: DecoderPrior, tmp_path: Path
) -> None:
    path = tmp_path / "prior.safetensors"
    save_prior(prior, path, {})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    save_file({"weight": torch.zeros(2)}, path, metadata=header)
    with pytest.raises(DataError, match="cannot be read"):
        load_prior(path)


def test_no_prior_is_shipped_for_an_odd_size() -> None:
    assert shipped_prior_path(48) is None


def test_the_shipped_prior_can_show_faces_that_it_has_never_seen() -> None:
    path = shipped_prior_path(32)
    assert path is not None
    assert path.stat().st_size < 800_000
    prior = load_prior(path)
    nobody = torch.arange(8).numpy()
    faces = render_faces(1001, "private", nobody, nobody, 32)
    real = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
    w = prior.w_mean.repeat(8, 1).requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=0.05)
    distances = []
    for _ in range(60):
        loss = (prior.synthesize(w) - real).abs().mean()
        distances.append(float(loss.detach()))
        optimizer.zero_grad()
        (loss * len(faces)).backward()
        optimizer.step()
    assert distances[-1] < 0.05 < 0.1 < distances[0]
