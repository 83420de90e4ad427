"""What an attacker knows of a target beside the label: attributes, and how to read them in a face.

The reader learns on public images with public labels. It never sees a private image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tasks.batches import augment_views
from tasks.classifiers import SmallResNet, TorchClassifier, normalise, seeded
from tasks.device import autocast_dtype, default_device
from tasks.draws import Draws
from tasks.types import Image8

BATCH, LEARNING_RATE = 64, 3e-3


@dataclass(frozen=True)
class Knowledge:
    """Attributes of targets, and a reader of attributes.

    Attributes:
        reader: a logit for each attribute.
        attributes: of each target by label: 1 has it, 0 has it not, (attributes,).
    """

    reader: TorchClassifier
    attributes: Mapping[int, Tensor]

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the log likelihood of each target's attributes in an image, (n,).

        Args:
            images: (n, 3, s, s) in the unit range.
            labels: of the targets, (n,).
        """
        wanted = torch.stack([self.attributes[int(label)] for label in labels.tolist()])
        logits = self.reader.logits(images.to(self.reader.device))
        loss = functional.binary_cross_entropy_with_logits(
            logits, wanted.to(logits), reduction="none"
        )
        return -loss.sum(dim=1).to(images.device)


def chosen_attributes(names: Sequence[str], words: Sequence[str]) -> list[int]:
    """Return the positions of attributes whose names hold one of the words, in any case."""
    lower = [word.lower() for word in words]
    return [i for i, name in enumerate(names) if any(word in name.lower() for word in lower)]


def train_reader(
    images: Image8,
    has: npt.NDArray[np.bool_],
    steps: int,
    draws: Draws,
) -> SmallResNet:
    """Return a network that reads attributes, trained on public images.

    Args:
        images: (n, s, s, 3).
        has: which attribute each image's person has, (n, attributes).
        steps: of AdamW with a cosine schedule, `BATCH` images each.
        draws: of weights, rows and views.
    """
    device = default_device()
    with seeded(draws.child("init")):
        network = SmallResNet(has.shape[1])
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    dtype = autocast_dtype("auto", device)
    for step in range(steps):
        rows = draws.child("rows", step).integers(np.arange(BATCH), 0, len(images))[:, 0]
        views = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float().div_(255)
        views = augment_views(views, draws.child("view", step).uniform(np.arange(BATCH), 7))
        wanted = torch.from_numpy(has[rows]).float().to(device)
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            inputs = normalise(views.to(device)).contiguous(memory_format=torch.channels_last)
            logits = network(inputs)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()
