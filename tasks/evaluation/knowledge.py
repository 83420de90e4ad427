"""What a student learns from reconstructions alone: the knowledge-extraction score.

The higher its accuracy on real private images, the more of what tells the people apart is in the
reconstructions (Struppek et al., "Be Careful What You Smooth For", ICLR 2024, evaluation metrics).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from tasks.classifiers import TorchClassifier, build_model
from tasks.draws import Draws
from tasks.evaluation.judge import predict, to_unit
from tasks.training import fit
from tasks.training_spec import TrainingSpec
from tasks.types import Image8

STUDENT = TrainingSpec(architecture="small-resnet", width=16, epochs=30, batch_size=32)
"""A small net: reconstructions are few. Published scores use a ResNet-50; do not compare."""


@dataclass(frozen=True)
class Knowledge:
    """Right answers of the student on real images.

    Attributes:
        hits: right answers.
        n: real images.
        chance: what guessing gives, 1 / classes.
        trained_on: reconstructions.
    """

    hits: int
    n: int
    chance: float
    trained_on: int


def knowledge_extraction(
    reconstructions: Image8,
    images: Image8,
    positions: npt.NDArray[np.int64],
    draws: Draws,
    spec: TrainingSpec = STUDENT,
) -> Knowledge | None:
    """Train a student on reconstructions, and test it on real images of the same classes.

    Args:
        reconstructions: (targets, n, h, w, 3).
        images: real images of those targets, (m, h, w, 3).
        positions: which target each shows, as a position on the first axis of `reconstructions`.
        draws: initial weights, order and augmentation.
        spec: of the student.

    Returns:
        None where there are fewer than two targets: there is nothing to tell apart.
    """
    targets, each = reconstructions.shape[:2]
    if targets < 2 or not len(images):
        return None
    model = build_model(spec, targets, draws)
    views = to_unit(reconstructions.reshape(-1, *reconstructions.shape[2:]))
    fit(model, views, torch.arange(targets).repeat_interleave(each), spec, draws)
    student = TorchClassifier(model, targets, images.shape[1])
    hits = int((predict(student, images).argmax(axis=1) == positions).sum())
    return Knowledge(hits, len(images), 1 / targets, targets * each)
