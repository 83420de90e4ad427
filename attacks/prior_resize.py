"""A prior whose images have another size than the data's, shown at the data's size.

The one place where that happens: every attack, the classifier and the judge see images of one size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attacks.prior import Prior, State
from tasks.errors import DataError


def fit_prior(prior: Prior, image_size: int, crop: int | None = None) -> Prior:
    """Return a prior whose images have the wanted size: itself, or one that resizes.

    Args:
        prior: the generator.
        image_size: of the data.
        crop: pixels of the middle that are kept before resizing; None keeps all.

    Raises:
        DataError: the crop is larger than the images.
    """
    if crop is not None and crop > prior.image_size:
        raise DataError(
            f"prior.crop={crop} is more than the {prior.image_size} pixels of the generator's "
            "images; use less, or null"
        )
    kept = crop or prior.image_size
    if kept == prior.image_size == image_size:
        return prior
    return ResizedPrior(prior, image_size, kept)


class ResizedPrior:
    """A prior behind a central crop and an antialiased resize; latents and layers are its own.

    Args:
        prior: the generator.
        image_size: of the resized images.
        crop: pixels of the middle that are kept.
    """

    def __init__(self, prior: Prior, image_size: int, crop: int) -> None:
        self.prior = prior
        self.image_size = image_size
        self.crop = crop
        self.bounds = prior.bounds
        self.z_size, self.w_size = prior.z_size, prior.w_size
        self.w_mean = prior.w_mean
        self.slope = prior.slope
        self.num_layers = prior.num_layers

    def to(self, device: torch.device) -> ResizedPrior:
        """Return it on a device; the generator is moved in place."""
        mover: Any = self.prior
        return ResizedPrior(mover.to(device), self.image_size, self.crop)

    @property
    def critic(self) -> Callable[[Tensor], Tensor] | None:
        """The generator's critic, who is shown images at the size that it knows.

        There is none behind a crop: what was cut off cannot be shown to it.
        """
        inner, size = self.prior.critic, self.prior.image_size
        if inner is None or self.crop != size:
            return None
        return lambda images: inner(resize(images, size))

    def map(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Return w (n, w_size) of z (n, z_size)."""
        return self.prior.map(z, truncation)

    def synthesize(self, w: Tensor) -> Tensor:
        """Return resized images (n, 3, s, s) in `bounds`."""
        return self.finish(self.advance((), w, 0, self.num_layers))

    def advance(self, state: State, w: Tensor, start: int, stop: int) -> State:
        """Run layers of the generator."""
        return self.prior.advance(state, w, start, stop)

    def finish(self, state: State) -> Tensor:
        """Return resized images (n, 3, s, s) in `bounds`."""
        images = self.prior.finish(state)
        edge = (self.prior.image_size - self.crop) // 2
        return resize(
            images[:, :, edge : edge + self.crop, edge : edge + self.crop], self.image_size
        )


def resize(images: Tensor, size: int) -> Tensor:
    """Return images (n, 3, s, s) at another size: bilinear, antialiased when they shrink."""
    if images.shape[2] == size:
        return images
    return functional.interpolate(
        images, (size, size), mode="bilinear", align_corners=False, antialias=True
    ).to(torch.float32)
