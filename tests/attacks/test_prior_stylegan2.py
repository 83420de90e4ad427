"""StyleGAN2 in plain PyTorch: its blocks against values computed one product at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from attacks.prior_convert import convert
from attacks.prior_stylegan2 import SIZES, StyleGan2Prior, StyleGan2Shape, stylegan2_channels
from attacks.pspace import to_p, to_w
from attacks.stylegan2_layers import activate, blur, modulated_conv, pixel_norm, upsample
from tests.attacks.stylegan2_files import (
    random_net,
    slow_image,
    slow_map,
    slow_modconv,
    upfirdn,
    write_nvidia,
)

RNG = np.random.default_rng(0)


def draw(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.standard_normal(shape))


def tiny(size: int, **changes: object) -> StyleGan2Prior:
    shape = {"image_size": size, "z_size": 6, "mapping": (7, 5)} | changes
    shape.setdefault("channels", (4,) * (size.bit_length() - 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = StyleGan2Prior(StyleGan2Shape.model_validate(shape))
        for name, value in prior.state_dict().items():
            if name.endswith(("strength", "noise", "w_mean")):
                value.normal_()
    prior.precision = "float32"
    return prior.eval().requires_grad_(False)


# --- the operations -----------------------------------------------------------------------------


def test_latents_are_scaled_to_a_mean_square_of_one() -> None:
    z = draw(3, 8) * 5
    expected = [[v / np.sqrt(sum(u * u for u in row) / 8 + 1e-8) for v in row] for row in z.numpy()]
    np.testing.assert_allclose(pixel_norm(z), expected)


def test_the_rectifier_has_slope_gain_and_a_bound() -> None:
    x = torch.tensor([-2.0, 0.0, 1.0, 9.0])
    root = 2**0.5
    torch.testing.assert_close(activate(x), torch.tensor([-0.4 * root, 0, root, 9 * root]))
    torch.testing.assert_close(activate(x, 3), torch.tensor([-0.4 * root, 0, root, 3]))


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_modulated_convolution_is_that_of_each_image_by_its_own_weights(
    up: bool, demodulate: bool, kernel: int
) -> None:
    if up and kernel == 1:
        return  # StyleGAN2 upsamples by kernels of 3 alone
    x, weight, style = draw(2, 3, 5, 5), draw(4, 3, kernel, kernel), draw(2, 3)
    found = modulated_conv(x, weight, style, up=up, demodulate=demodulate)
    for image, one, y in zip(x.numpy(), style.numpy(), found.numpy(), strict=True):
        expected = slow_modconv(image, weight.numpy(), one, up=up, demodulate=demodulate)
        np.testing.assert_allclose(y, expected, atol=1e-10)


def test_a_demodulated_convolution_does_not_depend_on_the_size_of_the_style() -> None:
    x, weight, style = draw(2, 3, 5, 5), draw(4, 3, 3, 3), draw(2, 3)
    once, often = (modulated_conv(x, weight, k * style) for k in (1, 40))
    torch.testing.assert_close(once, often)


def test_the_low_pass_and_the_upsampling_are_upfirdn() -> None:
    x = draw(1, 2, 7, 7)
    np.testing.assert_allclose(blur(x)[0], upfirdn(x[0].numpy(), up=1, before=1, after=1, gain=4))
    np.testing.assert_allclose(
        upsample(x)[0], upfirdn(x[0].numpy(), up=2, before=2, after=1, gain=4)
    )


def test_a_flat_image_stays_flat_when_it_is_upsampled() -> None:
    inside = upsample(torch.full((1, 3, 8, 8), 0.7))[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.7))


# --- the generator ------------------------------------------------------------------------------


@pytest.mark.parametrize("clamp", [None, 1.5])
def test_the_whole_generator_is_the_papers(tmp_path: Path, clamp: float | None) -> None:
    net = random_net([6, 5, 4, 3])
    prior = convert(write_nvidia(net, tmp_path / "g.pkl", clamp=clamp)).prior
    prior.precision = "float32"
    z = RNG.standard_normal((2, 6))
    w = prior.map(torch.from_numpy(z).float())
    np.testing.assert_allclose(w, slow_map(net, z), rtol=1e-4, atol=1e-5)
    _, rgb = prior.advance((), w, 0, prior.num_layers)
    bound = np.inf if clamp is None else clamp
    for image, one in zip(rgb.numpy(), w.double().numpy(), strict=True):
        np.testing.assert_allclose(image, slow_image(net, one, bound), rtol=1e-3, atol=1e-4)
    images = prior.finish((rgb, rgb))
    assert torch.equal(images, rgb.clamp(-1, 1))


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_images_in_bounds_and_a_gradient(size: int) -> None:
    prior = tiny(size, channels=(2,) * (size.bit_length() - 2))
    w = prior.map(torch.randn(1, 6, generator=torch.Generator().manual_seed(size)))
    w.requires_grad_(True)
    state = prior.advance((), w, 0, prior.num_layers)
    images = prior.finish(state).detach()
    assert images.shape == (1, 3, size, size)
    assert prior.bounds.low <= float(images.min()) < float(images.max()) <= prior.bounds.high
    state[1].square().mean().backward()
    assert w.grad is not None
    assert bool((w.grad != 0).all())
    assert bool(torch.isfinite(w.grad).all())


def test_the_gradient_is_the_slope_of_the_image() -> None:
    prior = tiny(32).double()
    w = draw(1, 5).requires_grad_(True)
    aim = draw(1, 3, 32, 32)

    def value(latent: torch.Tensor) -> torch.Tensor:
        return (prior.advance((), latent, 0, prior.num_layers)[1] * aim).sum()

    (gradient,) = torch.autograd.grad(value(w), w)
    step = torch.zeros_like(w)
    for i in range(w.shape[1]):
        step.zero_()
        step[0, i] = 1e-7
        slope = (value(w + step) - value(w - step)) / 2e-7
        torch.testing.assert_close(gradient[0, i], slope, rtol=1e-3, atol=1e-3)


def test_layer_by_layer_is_the_same_as_at_once() -> None:
    prior = tiny(32)
    w = prior.map(torch.randn(2, 6))
    state: tuple[torch.Tensor, ...] = ()
    for layer in range(prior.num_layers):
        state = prior.advance(state, w, layer, layer + 1)
        assert state[0].shape[2] == state[1].shape[2] == 4 * 2**layer
    assert torch.equal(prior.finish(state), prior.synthesize(w))


def test_noise_is_the_same_for_every_image_and_has_a_strength() -> None:
    prior = tiny(32)
    w = prior.map(torch.randn(1, 6)).repeat(2, 1)
    first, second = prior.synthesize(w)
    torch.testing.assert_close(first, second)
    for name, value in prior.state_dict().items():
        if name.endswith("strength"):
            value.zero_()
    assert not torch.allclose(prior.synthesize(w)[0], first, atol=0.1)


def test_truncation_draws_latents_towards_the_mean() -> None:
    prior = tiny(32)
    z = torch.randn(5, 6)
    full, half, none = (prior.map(z, t) for t in (1.0, 0.5, 0.0))
    torch.testing.assert_close(half, (full + prior.w_mean) / 2)
    torch.testing.assert_close(none, prior.w_mean.expand(5, -1))


def test_the_p_space_undoes_the_last_rectifier() -> None:
    prior = tiny(32)
    z = torch.randn(5, 6)
    before = prior.mapping[1](activate(prior.mapping[0](pixel_norm(z)))) * 2**0.5
    p = to_p(prior.map(z), prior.slope)
    torch.testing.assert_close(p, before)
    torch.testing.assert_close(to_w(p, prior.slope), prior.map(z))


def test_the_channels_are_those_of_config_f() -> None:
    assert stylegan2_channels(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    assert stylegan2_channels(256, base=16384) == (512, 512, 512, 512, 256, 128, 64)


@pytest.mark.parametrize(
    ("size", "channels"), [(48, (4,) * 4), (2048, (4,) * 10), (64, (4,) * 4), (16, (4,) * 3)]
)
def test_a_shape_that_does_not_fit_its_size_is_an_error(size: int, channels: tuple[int]) -> None:
    with pytest.raises(ValidationError):
        StyleGan2Shape(image_size=size, channels=channels)
