"""A GAN prior with its critic: DCGAN's generator, trained as a Wasserstein GAN.

The prior of GMI (Zhang et al., CVPR 2020). It has no mapping: w is z, and slope 1 makes P-space the
same again. The critic is kept, since GMI adds its opinion to the loss of an attack.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from attacks.prior import State
from tasks.errors import DataError
from tasks.spec import Spec
from tasks.types import UNIT

SIZES = (16, 32, 64, 128)
WIDEST = 8
"""The first block has so many times the last one's channels at the most, as at GMI's 64 pixels."""


class GanShape(Spec):
    """The shape of a generator and its critic."""

    image_size: int = Field(64, ge=16, le=128)
    latent_size: int = Field(100, ge=4, le=512)
    width: int = Field(64, ge=2, le=512, description="Channels before the image.")


class GanPrior(nn.Module):
    """A convolutional generator and a critic, both of images in the unit range.

    Args:
        shape: image size, latent size, width.

    Raises:
        DataError: the image size is not a power of two from 16 to 128.
    """

    bounds = UNIT
    slope = 1.0
    w_mean: Tensor

    def __init__(self, shape: GanShape) -> None:
        super().__init__()
        if shape.image_size not in SIZES:
            raise DataError(
                f"a GAN prior is trained for images of 16, 32, 64 or 128 pixels, not "
                f"{shape.image_size}; set data.image_size, or give a prior in prior.source"
            )
        self.spec = shape
        self.image_size = shape.image_size
        self.z_size = self.w_size = shape.latent_size
        self.generator = Generator(shape)
        self.critic = Critic(shape)
        self.num_layers = len(self.generator.stages)
        self.register_buffer("w_mean", torch.zeros(shape.latent_size))
        self.to(memory_format=torch.channels_last)

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Return w = z, pulled towards `w_mean` below truncation 1."""
        return z if truncation == 1.0 else self.w_mean + truncation * (z - self.w_mean)

    def synthesize(self, w: Tensor) -> Tensor:
        """Return images (n, 3, s, s) in [0, 1]."""
        return self.finish(self.advance((), w, 0, self.num_layers))

    def advance(self, state: State, w: Tensor, start: int, stop: int) -> State:
        """Run layers on the state (features,): first the 4 x 4 block, then the doublings."""
        for layer in range(start, stop):
            state = (self.generator.run(w if layer == 0 else state[0], layer),)
        return state

    def finish(self, state: State) -> Tensor:
        """Return images (n, 3, s, s) in [0, 1]: the last doubling."""
        return self.generator.finish(state[0])

    def forward(self, z: Tensor) -> Tensor:
        """Return images of z."""
        return self.synthesize(self.map(z))


class Generator(nn.Module):
    """z to a 4 x 4 block, then doublings: transposed convolution, batch norm, ReLU."""

    def __init__(self, shape: GanShape) -> None:
        super().__init__()
        widths = _widths(shape)[::-1]
        self.start = nn.Linear(shape.latent_size, 16 * widths[0], bias=False)
        doublings = [
            nn.ConvTranspose2d(a, b, 5, 2, 2, output_padding=1, bias=False)
            for a, b in zip(widths, widths[1:], strict=False)
        ]
        self.stages = nn.ModuleList([nn.Unflatten(1, (widths[0], 4, 4)), *doublings])
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.to_rgb = nn.ConvTranspose2d(widths[-1], 3, 5, 2, 2, output_padding=1)

    def run(self, x: Tensor, layer: int) -> Tensor:
        """Return features after a stage; the first takes z, the others features."""
        features: Tensor = self.stages[layer](self.start(x) if layer == 0 else x)
        return functional.relu(self.norms[layer](features))

    def finish(self, features: Tensor) -> Tensor:
        """Return images (n, 3, s, s) in [0, 1]."""
        return torch.sigmoid(self.to_rgb(features).float())

    def forward(self, z: Tensor) -> Tensor:
        """Return images of z."""
        for layer in range(len(self.stages)):
            z = self.run(z, layer)
        return self.finish(z)


class Critic(nn.Module):
    """How real images look: halvings with instance norm, whose penalty is each image's own."""

    def __init__(self, shape: GanShape) -> None:
        super().__init__()
        widths = _widths(shape)
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, 2, 2), nn.LeakyReLU(0.2)]
        for a, b in zip(widths, widths[1:], strict=False):
            layers += [
                nn.Conv2d(a, b, 5, 2, 2),
                nn.InstanceNorm2d(b, affine=True),
                nn.LeakyReLU(0.2),
            ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, 4)

    def forward(self, images: Tensor) -> Tensor:
        """Return how real images (n, 3, s, s) in [0, 1] look, (n,), higher is more real."""
        opinion: Tensor = self.head(self.body(images))
        return opinion.flatten()


def _widths(shape: GanShape) -> list[int]:
    """Return the channels at half the image size, a quarter, and so on down to 4 x 4."""
    halvings = shape.image_size.bit_length() - 3
    return [shape.width * min(2**i, WIDEST) for i in range(halvings)]
