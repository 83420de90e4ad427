"""Generative priors: what an attacker knows of faces in general, as a generator with a mapping.

The layout is StyleGAN's: z ~ N(0, I) -> mapping -> w -> image. The mapping's last activation is a
leaky rectifier with slope 0.2, which MIRROR's P-space inverts. The built-in kind, a small decoder,
is here; docs/priors.md lists the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tasks.device import autocast_dtype
from tasks.errors import DataError
from tasks.spec import Spec
from tasks.types import UNIT, Bounds

SLOPE = 0.2


State = tuple[Tensor, ...]
"""What one layer of a generator hands to the next; () before the first."""


class Prior(Protocol):
    """A generator with a mapping latent, trained on public data alone.

    Attributes:
        bounds: range of its images.
        image_size: pixels of a side.
        z_size: of z, which is normal.
        w_size: of w.
        w_mean: mean of w, (w_size,).
        slope: of the mapping's last leaky rectifier; 1 where there is no mapping.
        num_layers: into which `advance` cuts the synthesis.
        critic: how real images (n, 3, s, s) in `bounds` look, (n,), higher is more real; None where
            the generator was trained without one.
    """

    bounds: Bounds
    image_size: int
    z_size: int
    w_size: int
    w_mean: Tensor
    slope: float
    num_layers: int

    @property
    def critic(self) -> Callable[[Tensor], Tensor] | None:
        """How real images look."""

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Return w (n, w_size) of z (n, z_size), pulled towards `w_mean` below truncation 1."""

    def synthesize(self, w: Tensor) -> Tensor:
        """Return images (n, 3, s, s) in `bounds`."""

    def advance(self, state: State, w: Tensor, start: int, stop: int) -> State:
        """Run layers start to stop - 1; all layers, and then `finish`, are `synthesize`."""

    def finish(self, state: State) -> Tensor:
        """Return images (n, 3, s, s) in `bounds` of the last layer's state."""


class DecoderSpec(Spec):
    """The shape of a decoder."""

    image_size: int = Field(32, ge=16, le=256)
    latent_size: int = Field(64, ge=4, le=512)
    channels: tuple[int, ...] = Field(
        (96, 80, 56, 32), min_length=2, description="At 4 x 4, then after each doubling."
    )


class DecoderPrior(nn.Module):
    """A small decoder with a mapping network; images in the unit range.

    As in StyleGAN, w sets the scale and shift of every stage's channels; unlike there it also makes
    the first 4 x 4 block.

    Args:
        spec: its shape; the channels' number of doublings from 4 x 4 gives the image size.

    Raises:
        DataError: the doublings do not give the image size.
    """

    bounds = UNIT
    slope = SLOPE
    critic = None

    def __init__(self, spec: DecoderSpec) -> None:
        super().__init__()
        size = 4 * 2 ** (len(spec.channels) - 1)
        if size != spec.image_size:
            raise DataError(
                f"a decoder of {len(spec.channels)} stages makes images of {size} pixels, not "
                f"{spec.image_size}; a prior can be trained for sizes 16, 32, 64, 128 and 256"
            )
        self.spec = spec
        self.image_size = spec.image_size
        self.z_size = self.w_size = spec.latent_size
        self.num_layers = len(spec.channels)
        width = 2 * spec.latent_size
        self.mapping = nn.Sequential(
            nn.Linear(spec.latent_size, width),
            nn.LeakyReLU(SLOPE),
            nn.Linear(width, spec.latent_size),
        )
        self.start = nn.Linear(spec.latent_size, 16 * spec.channels[0])
        self.stages = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 4, 2, 1)
            for a, b in zip(spec.channels, spec.channels[1:], strict=False)
        )
        self.styles = nn.ModuleList(nn.Linear(spec.latent_size, 2 * b) for b in spec.channels[1:])
        for style in self.styles:  # begin near a plain decoder
            assert isinstance(style, nn.Linear)
            nn.init.zeros_(style.bias)
            style.weight.data *= 0.3
        self.to_rgb = nn.Conv2d(spec.channels[-1], 3, 3, padding=1)
        self.register_buffer("w_mean", torch.zeros(spec.latent_size))
        self.w_mean: Tensor
        self.to(memory_format=torch.channels_last)

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Return w (n, w_size) of z (n, z_size), pulled towards `w_mean` below truncation 1."""
        w = functional.leaky_relu(self.mapping(z), SLOPE)
        return w if truncation == 1.0 else self.w_mean + truncation * (w - self.w_mean)

    def synthesize(self, w: Tensor) -> Tensor:
        """Return images (n, 3, s, s) in [0, 1]; bfloat16 inside where the processor has it."""
        return self.finish(self.advance((), w, 0, self.num_layers))

    def advance(self, state: State, w: Tensor, start: int, stop: int) -> State:
        """Run layers on the state (features,): first the 4 x 4 block, then the doublings."""
        dtype = autocast_dtype("auto", w.device)
        with torch.autocast(w.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            for layer in range(start, stop):
                if layer == 0:
                    x = functional.leaky_relu(self.start(w), SLOPE)
                    x = x.view(len(w), 4, 4, self.spec.channels[0]).permute(0, 3, 1, 2)
                else:
                    x = self.stages[layer - 1](state[0])
                    scale, shift = self.styles[layer - 1](w)[:, :, None, None].chunk(2, dim=1)
                    x = functional.leaky_relu(x * (1 + scale) + shift, SLOPE)
                state = (x,)
        return state

    def finish(self, state: State) -> Tensor:
        """Return images (n, 3, s, s) in [0, 1]."""
        x = state[0]
        dtype = autocast_dtype("auto", x.device)
        with torch.autocast(x.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            x = self.to_rgb(x)
        return torch.sigmoid(x.float())

    def forward(self, z: Tensor) -> Tensor:
        """Return images of z."""
        return self.synthesize(self.map(z))


def decoder_channels(image_size: int) -> tuple[int, ...]:
    """Return channels for an image size: 96 at 4 x 4, less after each doubling.

    Raises:
        DataError: the size is not a power of two from 16 to 256.
    """
    if image_size not in (16, 32, 64, 128, 256):
        raise DataError(
            f"a prior is trained for images of 16, 32, 64, 128 or 256 pixels, not {image_size}; "
            "set data.image_size, or give a prior in prior.source"
        )
    stages = image_size.bit_length() - 3
    return (96, 80, 56, 32, 24, 16, 12)[: stages + 1]
