"""Trainers who store images otherwise before they train: as JPEG, or smaller."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tasks.pipelines.pipeline import Pipeline
from tasks.pipelines.spec import JpegSpec, ResizeSpec


class Jpeg(Pipeline):
    """Stores eight bits, compressed with loss, colours at half the resolution."""

    def __init__(self, spec: JpegSpec) -> None:
        self.quality = spec.quality

    def pixels(self, images: Tensor) -> Tensor:
        """Return what is read back."""
        eight = images.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        found = np.stack([self._read_back(image) for image in eight])
        return torch.from_numpy(found).permute(0, 3, 1, 2).float() / 255

    def _read_back(self, image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=self.quality)
        return np.asarray(Image.open(buffer))


class Resize(Pipeline):
    """Stores a smaller picture; it is enlarged again for the network."""

    def __init__(self, spec: ResizeSpec) -> None:
        self.factor = spec.factor

    def pixels(self, images: Tensor) -> Tensor:
        """Return images of the old size with the detail of the smaller ones."""
        height, width = images.shape[2:]
        small = functional.interpolate(
            images,
            size=(max(1, height // self.factor), max(1, width // self.factor)),
            mode="bicubic",
            antialias=True,
        )
        large = functional.interpolate(small, size=(height, width), mode="bicubic")
        return large.clamp(0, 1)
