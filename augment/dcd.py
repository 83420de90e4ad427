"""Recipes applied to pixels: the only file of DCD that touches an image.

The same noise serves Ray Data, the training loader, `dcdctl augment` and `dcdctl protect`. It is
added in float at the resolution of the stored image and clipped; files of 8 bits get the nearest
level. The released code goes back through 8 bits by truncation, which darkens by half a grey level
and leaves little of a sigma of 0.003: that is done only where a recipe asks for it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from augment.noise import draw_codes, level_table, whole_table
from tasks.types import Image8


def apply_recipes(
    images: Image8,
    sigma: npt.NDArray[np.float32],
    seed: npt.NDArray[np.uint64],
    truncate: npt.NDArray[np.bool_] | None = None,
    native: npt.NDArray[np.uint32] | None = None,
) -> npt.NDArray[np.float32]:
    """Apply one recipe to each image.

    Args:
        images: source pixels already gathered, (n, h, w, 3), 0 to 255.
        sigma: standard deviation of the noise in the unit range, (n,); 0 leaves the image as it is.
        seed: of each row's noise, (n,); the noise depends on it alone, not on the batch.
        truncate: which noisy rows go back to 256 levels by truncation, (n,); None is none.
        native: packed size at which each row's noise is drawn before it is shrunk, (n,); 0 and None
            are the size of the images.

    Returns:
        float32 (n, h, w, 3) in [0, 1].
    """
    out = images.astype(np.float32)
    noise = np.empty(out.shape[1:], np.float32)
    for row in np.flatnonzero(sigma > 0):
        down = truncate is not None and bool(truncate[row])
        size = 0 if native is None else int(native[row])
        shrunk = _shrunk_noise(size, float(sigma[row]), int(seed[row]), down, noise.shape)
        if shrunk is None:
            _look_up(level_table(float(sigma[row])), int(seed[row]), noise)
        out[row] += noise if shrunk is None else shrunk
        np.clip(out[row], 0, 255, out=out[row])
        if down and shrunk is None:
            np.floor(out[row], out=out[row])
    out /= np.float32(255)
    return out


def apply_recipes_8bit(
    images: Image8,
    sigma: npt.NDArray[np.float32],
    seed: npt.NDArray[np.uint64],
    truncate: npt.NDArray[np.bool_] | None = None,
    native: npt.NDArray[np.uint32] | None = None,
) -> Image8:
    """Return what `apply_recipes` would, at the nearest of 256 levels: uint8 (n, h, w, 3).

    No float image is made. That the result is the same to the last bit follows from how the table
    of the noise is made; see `augment.noise`.
    """
    out: Image8 = images.copy()
    noise = np.empty(out.shape[1:], np.int16)
    for row in np.flatnonzero(sigma > 0):
        down = truncate is not None and bool(truncate[row])
        size = 0 if native is None else int(native[row])
        shrunk = _shrunk_noise(size, float(sigma[row]), int(seed[row]), down, noise.shape)
        if shrunk is None:
            _look_up(whole_table(float(sigma[row]), down), int(seed[row]), noise)
        else:
            noise[:] = np.rint(shrunk)
        noise += out[row]
        np.clip(noise, 0, 255, out=noise)
        out[row] = noise
    return out


def noisy_image(image: Image8, sigma: float, seed: int) -> Image8:
    """Return one image (h, w, 3) with the noise of its recipe, rounded to the nearest level."""
    noisy: Image8 = apply_recipes_8bit(
        image[None], np.array([sigma], np.float32), np.array([seed], dtype=np.uint64)
    )[0]
    return noisy


def pack_size(height: int, width: int) -> int:
    """Return a size as one number, as plans keep it."""
    return height << 16 | width


def _shrunk_noise(
    packed: int, sigma: float, seed: int, down: bool, shape: tuple[int, ...]
) -> npt.NDArray[np.float32] | None:
    """Return noise of the file's size, shrunk as the image was, in levels; None where not asked.

    Shrinking is linear: the image and its noise may be shrunk apart. What that leaves out is where
    the noise would have been clipped in the file.

    Raises:
        ValueError: the size is not known, since nobody has looked at the image.
    """
    if packed == 0:
        return None
    if packed == 1:
        raise ValueError("noise at the file's size needs images that have been looked at")
    size = (packed >> 16, packed & 0xFFFF)
    if size == shape[:2]:
        return None
    table = whole_table(sigma, True).astype(np.float32) if down else level_table(sigma)
    noise = np.empty((*size, shape[2]), np.float32)
    _look_up(table, seed, noise)
    target = (shape[1], shape[0])
    channels = [
        np.asarray(Image.fromarray(noise[..., c]).resize(target, Image.Resampling.BICUBIC))
        for c in range(shape[2])
    ]
    return np.stack(channels, axis=-1)


def _look_up(table: npt.NDArray[np.generic], seed: int, out: npt.NDArray[np.generic]) -> None:
    codes = draw_codes(seed, out.size)
    # No code is out of range; "wrap" spares the copy that a check would need.
    table.take(codes, out=out.reshape(-1), mode="wrap")
