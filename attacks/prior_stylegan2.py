"""StyleGAN2's generator behind the prior's protocol (Karras et al., CVPR 2020), to attack with.

It is not trained here: `dcdctl prior convert` fills it from other people's weights. The gains that
training keeps apart from the weights (equalised learning rates) are multiplied into them.
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from attacks.prior import State
from attacks.stylegan2_layers import activate, modulated_conv, pixel_norm, upsample
from tasks.device import Precision, autocast_dtype
from tasks.spec import Spec
from tasks.types import Bounds

SIZES = (32, 64, 128, 256, 512, 1024)


class StyleGan2Shape(Spec):
    """The shape of a StyleGAN2 generator with skip (RGB) architecture."""

    image_size: int = Field(ge=32, le=1024)
    z_size: int = Field(512, ge=1, le=4096)
    mapping: tuple[int, ...] = Field(
        (512,) * 8, min_length=1, max_length=16, description="Outputs of its layers; w is the last."
    )
    channels: tuple[int, ...] = Field(description="At 4 x 4, then after each doubling.")
    clamp: float | None = Field(None, gt=0, description="Bound of activations; null is none.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.image_size not in SIZES:
            raise ValueError(f"image_size={self.image_size} is none of {SIZES}")
        if 4 * 2 ** (len(self.channels) - 1) != self.image_size:
            raise ValueError(f"{len(self.channels)} channels do not make {self.image_size} pixels")
        return self


def stylegan2_channels(image_size: int, base: int = 32768, most: int = 512) -> tuple[int, ...]:
    """Return the channels at 4 x 4 and after each doubling.

    Args:
        image_size: a power of two.
        base: channels times pixels of a side; 32768 is config F, 16384 the smaller `paper256`.
        most: of any block.
    """
    return tuple(min(base // 2**i, most) for i in range(2, image_size.bit_length()))


class StyleGan2Prior(nn.Module):
    """StyleGAN2: mapping and synthesis; one w for all layers, constant noise.

    Args:
        shape: sizes and channels.
    """

    bounds = Bounds(-1.0, 1.0)
    slope = 0.2
    critic = None
    precision: Precision = "auto"
    w_mean: Tensor

    def __init__(self, shape: StyleGan2Shape) -> None:
        super().__init__()
        self.spec = shape
        self.image_size = shape.image_size
        self.z_size, self.w_size = shape.z_size, shape.mapping[-1]
        self.num_layers = len(shape.channels)
        sizes = (shape.z_size, *shape.mapping)
        self.mapping = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.const = nn.Parameter(torch.randn(shape.channels[0], 4, 4))
        self.blocks = nn.ModuleList(
            Block(shape, layer, self.w_size) for layer in range(self.num_layers)
        )
        self.register_buffer("w_mean", torch.zeros(self.w_size))

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Return w (n, w_size) of z (n, z_size), pulled towards `w_mean` below truncation 1."""
        w = pixel_norm(z.float())
        for layer in self.mapping:
            w = activate(layer(w))
        return w if truncation == 1.0 else self.w_mean + truncation * (w - self.w_mean)

    def synthesize(self, w: Tensor) -> Tensor:
        """Return images (n, 3, s, s) in [-1, 1]; bfloat16 inside where the processor has it."""
        return self.finish(self.advance((), w, 0, self.num_layers))

    def advance(self, state: State, w: Tensor, start: int, stop: int) -> State:
        """Run blocks on the state (features, rgb): first 4 x 4, then the doublings."""
        dtype = autocast_dtype(self.precision, w.device)
        for layer in range(start, stop):
            block = self.blocks[layer]
            assert isinstance(block, Block)
            if layer == 0:
                x, rgb = self.const.expand(len(w), -1, -1, -1), None
            else:
                x, rgb = state
            state = block(x if dtype is None else x.to(dtype), rgb, w)
        return state

    def finish(self, state: State) -> Tensor:
        """Return images (n, 3, s, s) in [-1, 1]: brighter than white is white."""
        return state[1].float().clamp(*self.bounds)

    def forward(self, z: Tensor) -> Tensor:
        """Return images of z."""
        return self.synthesize(self.map(z))


class Block(nn.Module):
    """One size: an upsampling layer (not at 4 x 4), a plain one, and its share of the image."""

    def __init__(self, shape: StyleGan2Shape, layer: int, w_size: int) -> None:
        super().__init__()
        outputs, side = shape.channels[layer], 4 * 2**layer
        self.clamp = shape.clamp
        self.conv0 = None
        if layer:
            self.conv0 = StyledLayer(shape, shape.channels[layer - 1], outputs, side, w_size)
        self.conv1 = StyledLayer(shape, outputs, outputs, side, w_size)
        self.style = nn.Linear(w_size, outputs)
        self.weight = nn.Parameter(torch.randn(3, outputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, rgb: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (n, c, side, side) and the image so far (n, 3, side, side)."""
        if self.conv0 is not None:
            x = self.conv0(x, w, up=True)
        x = self.conv1(x, w)
        share = modulated_conv(x, self.weight, self.style(w), demodulate=False)
        share = share + self.bias.to(share.dtype)[:, None, None]
        if self.clamp is not None:
            share = share.clamp(-self.clamp, self.clamp)
        share = share.to(w.dtype)  # half precision would lose the last bits of the sum
        return x, share if rgb is None else upsample(rgb) + share


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky rectifier."""

    noise: Tensor

    def __init__(
        self, shape: StyleGan2Shape, inputs: int, outputs: int, side: int, w_size: int
    ) -> None:
        super().__init__()
        self.clamp = shape.clamp
        self.style = nn.Linear(w_size, inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.zeros(side, side))

    def forward(self, x: Tensor, w: Tensor, *, up: bool = False) -> Tensor:
        """Return features (n, outputs, side, side); the noise is the same for every image."""
        x = modulated_conv(x, self.weight, self.style(w), up=up)
        added = self.noise * self.strength + self.bias[:, None, None]
        return activate(x + added.to(x.dtype), self.clamp)
