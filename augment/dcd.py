"""Recipes applied to pixels: the only file of DCD that touches an image.

The same function serves Ray Data, the training loader and `dcdctl augment`. Noise is added in float
at the resolution of the stored image and clipped; nothing is rounded here. The released code goes
back through 8 bits by truncation, which darkens by half a grey level and leaves little of a sigma
of 0.003: that is done only where a recipe asks for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tasks.types import Image8


def apply_recipes(
    images: Image8,
    sigma: npt.NDArray[np.float32],
    seed: npt.NDArray[np.uint64],
    truncate: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float32]:
    """Apply one recipe to each image.

    Args:
        images: source pixels already gathered, (n, h, w, 3), 0 to 255.
        sigma: standard deviation of the noise in the unit range, (n,); 0 leaves the image as it is.
        seed: of each row's noise, (n,); the noise depends on it alone, not on the batch.
        truncate: which noisy rows go back to 256 levels by truncation, (n,); None is none.

    Returns:
        float32 (n, h, w, 3) in [0, 1].
    """
    out = images.astype(np.float32) / np.float32(255)
    for row in np.flatnonzero(sigma > 0):
        generator = np.random.Generator(np.random.SFC64(int(seed[row])))
        noise = generator.standard_normal(out.shape[1:], dtype=np.float32)
        noise *= sigma[row]
        out[row] += noise
        np.clip(out[row], 0, 1, out=out[row])
    if truncate is not None and (rows := np.flatnonzero(truncate & (sigma > 0))).size:
        out[rows] = np.floor(out[rows] * 255) / np.float32(255)
    return out


def noisy_image(image: Image8, sigma: float, seed: int) -> Image8:
    """Return one image (h, w, 3) with the noise of its recipe, rounded to the nearest level."""
    pixels = apply_recipes(
        image[None], np.array([sigma], np.float32), np.array([seed], dtype=np.uint64)
    )[0]
    rounded: Image8 = np.rint(pixels * 255).astype(np.uint8)
    return rounded
