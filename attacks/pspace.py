"""MIRROR's P-space: the latents before the mapping's last activation, where they are near normal.

(An et al., NDSS 2022.) A mapping ends in a leaky rectifier, with slope 0.2 in StyleGAN; its inverse
has slope 5. The search is kept inside mean plus minus some standard deviations of every dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


def to_p(w: Tensor, slope: float) -> Tensor:
    """Return P-space latents of w under a mapping that ends with that slope."""
    return functional.leaky_relu(w, 1 / slope)


def to_w(p: Tensor, slope: float) -> Tensor:
    """Return w of P-space latents."""
    return functional.leaky_relu(p, slope)


@dataclass(frozen=True)
class PBox:
    """Bounds of the search in P-space.

    Attributes:
        mean: of every dimension, (w_size,).
        std: population standard deviation, (w_size,).
        sigmas: half the width of the box, in standard deviations.
        slope: of the mapping's last activation.
    """

    mean: Tensor
    std: Tensor
    sigmas: float
    slope: float

    @classmethod
    def of(cls, w: Tensor, sigmas: float, slope: float) -> PBox:
        """Measure the box on presampled latents w, (n, w_size)."""
        p = to_p(w, slope)
        return cls(p.mean(0), p.std(0, correction=0), sigmas, slope)

    def clip(self, p: Tensor) -> Tensor:
        """Return P-space latents inside the box."""
        half = self.sigmas * self.std
        return p.clamp(self.mean - half, self.mean + half)

    def clip_w(self, w: Tensor) -> Tensor:
        """Return w inside the box."""
        return to_w(self.clip(to_p(w, self.slope)), self.slope)
