"""Clean accuracy, and whom a reconstruction shows.

The judge is an evaluation classifier of another architecture, trained on clean data with one extra
class for each surrogate, so that a reconstruction is called target, surrogate or other. The
attacked classifier cannot say so: to it target and surrogate are one class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.classifiers import Classifier
from tasks.types import Image8, TargetClass

OTHER, TARGET, SURROGATE = 0, 1, 2
"""Verdicts on a reconstruction."""

_BATCH = 256


def to_unit(images: Image8) -> Tensor:
    """Return stored images (n, h, w, 3) as a float tensor (n, 3, h, w) in [0, 1]."""
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    return tensor.permute(0, 3, 1, 2).to(torch.float32).div_(255)


def from_unit(images: Tensor) -> Image8:
    """Return a tensor (n, 3, h, w) in [0, 1] as stored images (n, h, w, 3), rounded."""
    eight: Image8 = (
        images.clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    )
    return eight


def predict(classifier: Classifier, images: Image8) -> npt.NDArray[np.float32]:
    """Return class probabilities (n, num_classes) of stored images (n, h, w, 3)."""
    parts = [
        classifier.scores(to_unit(images[i : i + _BATCH]).to(classifier.device)).cpu().numpy()
        for i in range(0, len(images), _BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty((0, classifier.num_classes), np.float32)


@dataclass(frozen=True)
class Hits:
    """Right answers on clean test images, of all, of target and of bystander classes."""

    overall: tuple[int, int]
    targets: tuple[int, int]
    bystanders: tuple[int, int]


def clean_hits(
    classifier: Classifier,
    images: Image8,
    labels: npt.NDArray[np.int64],
    targets: Sequence[TargetClass],
) -> Hits:
    """Count right answers (hits, n) on test images (n, h, w, 3)."""
    right = predict(classifier, images).argmax(axis=1) == labels
    protected = np.isin(labels, [int(t.label) for t in targets])
    return Hits(
        overall=(int(right.sum()), len(right)),
        targets=(int(right[protected].sum()), int(protected.sum())),
        bystanders=(int(right[~protected].sum()), int((~protected).sum())),
    )


@dataclass(frozen=True)
class Verdicts:
    """What the evaluation classifier says of each reconstruction.

    Attributes:
        verdict: int8 (targets, n): TARGET, SURROGATE or OTHER.
        in_top5: bool (targets, n): the target class is among the five likeliest.
    """

    verdict: npt.NDArray[np.int8]
    in_top5: npt.NDArray[np.bool_]


def judge(
    evaluator: Classifier, reconstructions: Image8, targets: Sequence[TargetClass]
) -> Verdicts:
    """Say of each reconstruction whom it shows.

    Args:
        evaluator: knows private classes and surrogates, and was never seen by the attack.
        reconstructions: (targets, n, h, w, 3).
        targets: in the order of the first axis.
    """
    count, each = reconstructions.shape[:2]
    scores = predict(evaluator, reconstructions.reshape(-1, *reconstructions.shape[2:]))
    ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5].reshape(count, each, -1)
    wanted = np.array([int(t.label) for t in targets]).reshape(-1, 1)
    first = ranked[:, :, 0]
    lent = np.stack(
        [
            np.isin(of_target, [lender.label for lender in target.lenders])
            for of_target, target in zip(first, targets, strict=True)
        ]
    )
    verdict = np.where(first == wanted, TARGET, np.where(lent, SURROGATE, OTHER))
    return Verdicts(
        verdict=verdict.astype(np.int8), in_top5=(ranked == wanted[:, :, None]).any(axis=2)
    )
