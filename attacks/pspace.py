"""MIRROR's P-space: the latents before the mapping's last activation, where they are near normal.

(An et al., NDSS 2022.) The mapping ends in a leaky rectifier with slope 0.2; its inverse has slope
5. The search is kept inside mean plus minus some standard deviations of every dimension there.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


def to_p(w: Tensor) -> Tensor:
    """Return P-space latents of w."""
    return functional.leaky_relu(w, 5.0)


def to_w(p: Tensor) -> Tensor:
    """Return w of P-space latents."""
    return functional.leaky_relu(p, 0.2)


@dataclass(frozen=True)
class PBox:
    """Bounds of the search in P-space.

    Attributes:
        mean: of every dimension, (w_size,).
        std: population standard deviation, (w_size,).
        sigmas: half the width of the box, in standard deviations.
    """

    mean: Tensor
    std: Tensor
    sigmas: float

    @classmethod
    def of(cls, w: Tensor, sigmas: float) -> PBox:
        """Measure the box on presampled latents w, (n, w_size)."""
        p = to_p(w)
        return cls(p.mean(0), p.std(0, correction=0), sigmas)

    def clip(self, p: Tensor) -> Tensor:
        """Return P-space latents inside the box."""
        half = self.sigmas * self.std
        return p.clamp(self.mean - half, self.mean + half)
