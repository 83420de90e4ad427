"""The operations of StyleGAN2's generator (Karras et al., CVPR 2020) in plain PyTorch.

Weights are modulated by scaling what goes in and what comes out, never by making a weight for each
image: the convolution is then one for the whole batch, on the CPU as on a GPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

FILTER = (1.0, 3.0, 3.0, 1.0)
"""Low-pass filter of all resampling, in both directions."""

SLOPE, GAIN = 0.2, math.sqrt(2)
"""Of the leaky rectifiers; the gain keeps the variance."""

EPSILON = 1e-8


def pixel_norm(z: Tensor) -> Tensor:
    """Return latents (n, size) whose mean square is 1."""
    return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + EPSILON)


def activate(x: Tensor, clamp: float | None = None) -> Tensor:
    """Return the leaky rectifier of x with its gain, inside plus minus `clamp`."""
    x = functional.leaky_relu(x, SLOPE) * GAIN
    return x if clamp is None else x.clamp(-clamp, clamp)


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, up: bool = False, demodulate: bool = True
) -> Tensor:
    """Return a convolution whose weights are scaled by the style, and back to unit norm.

    Args:
        x: (n, inputs, h, h).
        weight: (outputs, inputs, k, k), k odd.
        style: of every input channel, (n, inputs).
        up: double the size, and blur.
        demodulate: divide each output channel by the norm of its modulated weights.

    Returns:
        (n, outputs, h, h), or twice as large.
    """
    scaled = x * style.to(x.dtype)[:, :, None, None]
    if up:
        y = blur(functional.conv_transpose2d(scaled, weight.to(x.dtype).transpose(0, 1), stride=2))
    else:
        y = functional.conv2d(scaled, weight.to(x.dtype), padding=weight.shape[2] // 2)
    if not demodulate:
        return y
    power = style.square() @ weight.square().sum((2, 3)).T  # (n, outputs)
    return y * torch.rsqrt(power + EPSILON).to(y.dtype)[:, :, None, None]


def blur(x: Tensor) -> Tensor:
    """Return the low-pass of x (n, c, h, h), four times as strong, one pixel smaller.

    What an upsampling convolution of kernel 3 leaves behind has 2 h + 1 pixels and every other one
    is nothing: hence the gain, and an image of 2 h.
    """
    channels = x.shape[1]
    taps = _filter(x, channels)
    x = functional.conv2d(x, taps[:, :, None, :], padding=(0, 1), groups=channels)
    return functional.conv2d(x, taps[:, :, :, None], padding=(1, 0), groups=channels)


def upsample(images: Tensor) -> Tensor:
    """Return images (n, c, h, h) at twice the size: zeros between the pixels, then the low-pass."""
    channels = images.shape[1]
    taps = _filter(images, channels)
    kernel = taps[:, :, :, None] * taps[:, :, None, :]
    return functional.conv_transpose2d(images, kernel, stride=2, padding=1, groups=channels)


def _filter(x: Tensor, channels: int) -> Tensor:
    """Return the filter with a gain of 2 for each direction, (channels, 1, 4)."""
    taps = x.new_tensor(FILTER) * (2 / sum(FILTER))
    return taps.expand(channels, 1, -1)
