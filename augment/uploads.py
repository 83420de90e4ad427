"""What a platform does to an upload, and how much of DCD's noise is left after it."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from augment.dcd import noisy_image
from tasks.errors import SpecError
from tasks.types import Image8

SIGMAS = (0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2)
"""Tried in this order when too little of the noise survives."""

ENOUGH = 0.25
"""Share of the noise's amplitude that must survive.

JPEG stores colour at half the resolution, so that even at quality 95 less than half of noise that
is independent in red, green and blue comes through.
"""


@dataclass(frozen=True)
class UploadPath:
    """What happens to an image on its way.

    Attributes:
        jpeg: quality it is stored with, 1 to 100; None keeps it lossless.
        resize: longest side in pixels that it is shrunk to; None keeps its size.
    """

    jpeg: int | None = None
    resize: int | None = None

    @classmethod
    def parse(cls, text: str) -> UploadPath:
        """Read `jpeg:75`, `resize:1024`, or both with a comma between them.

        Raises:
            SpecError: it is something else, or a number is out of range.
        """
        found: dict[str, int] = {}
        limits = {"jpeg": (1, 100), "resize": (16, 16384)}
        for part in text.split(","):
            name, _, number = part.strip().partition(":")
            low, high = limits.get(name, (1, 0))
            if not number.isdigit() or not low <= int(number) <= high or name in found:
                raise SpecError(
                    f"--uploads-as {text!r} is not understood at {part.strip()!r}; write jpeg:75 "
                    "(1 to 100), resize:1024 (16 to 16384), or both with a comma between them"
                )
            found[name] = int(number)
        return cls(**found)

    def send(self, image: Image8) -> Image8:
        """Return an image (h, w, 3) as it arrives."""
        sent = Image.fromarray(image)
        if self.resize is not None and max(sent.size) > self.resize:
            scale = self.resize / max(sent.size)
            size = (max(1, round(sent.width * scale)), max(1, round(sent.height * scale)))
            sent = sent.resize(size, Image.Resampling.LANCZOS)
        if self.jpeg is not None:
            file = io.BytesIO()
            sent.save(file, "JPEG", quality=self.jpeg)
            sent = Image.open(file).convert("RGB")
        return np.asarray(sent, dtype=np.uint8)


def surviving_share(image: Image8, sigma: float, seed: int, path: UploadPath) -> float:
    """Return how much of the noise's amplitude arrives: 1 is all of it, 0 none.

    The noise that arrives is projected on the noise that was sent, both at the size that arrives,
    so that a compressor's own artefacts do not count as noise that survived.

    Args:
        image: (h, w, 3).
        sigma: of the noise, in the unit range.
        seed: of the noise.
        path: what happens on the way.
    """
    noisy = noisy_image(image, sigma, seed)
    arrived = path.send(noisy).astype(np.float64) - path.send(image)
    sent = noisy.astype(np.float64) - image
    before = float(np.sqrt(np.mean(sent**2)))
    if before == 0:
        return 0.0
    if arrived.shape == sent.shape:
        return float(np.sum(arrived * sent) / np.sum(sent**2))
    # Shrinking averages noise away; there is no pixel to compare with, so amplitudes are compared.
    return float(np.sqrt(np.mean(arrived**2))) / before


def surviving_sigma(image: Image8, seed: int, path: UploadPath) -> float | None:
    """Return the least of `SIGMAS` of which enough arrives, None where none does."""
    for sigma in SIGMAS:
        if surviving_share(image, sigma, seed, path) >= ENOUGH:
            return sigma
    return None
