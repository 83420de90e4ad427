"""Evaluation: who is hit, and whom a reconstruction shows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tasks.evaluation import OTHER, SURROGATE, TARGET, clean_hits, from_unit, judge, to_unit
from tasks.types import UNIT, ClassId, IdentityId, Lender, TargetClass


class ByRed:
    """Says the class that the red channel of the first pixel names."""

    bounds = UNIT
    image_size = 4
    num_classes = 9
    device = torch.device("cpu")

    def logits(self, images: Tensor) -> Tensor:
        wanted = (images[:, 0, 0, 0] * 255).round()
        return -(torch.arange(9.0)[None, :] - wanted[:, None]).abs() * 5

    def scores(self, images: Tensor) -> Tensor:
        return self.logits(images).softmax(1)

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.logits(images), images.flatten(1)

    def labels(self, images: Tensor) -> Tensor:
        return self.logits(images).argmax(1)


def pictures(classes: list[int]) -> np.ndarray:
    images = np.zeros((len(classes), 4, 4, 3), np.uint8)
    images[:, 0, 0, 0] = classes
    return images


TARGETS = [
    TargetClass(ClassId(1), IdentityId("a"), (Lender(IdentityId("x"), 7),)),
    TargetClass(ClassId(2), IdentityId("b"), (Lender(IdentityId("y"), 8),)),
]


def test_stored_images_come_back() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    assert np.array_equal(from_unit(to_unit(images)), images)


def test_hits_are_told_apart_by_who_is_protected() -> None:
    said, true = [0, 1, 2, 3, 3], np.array([0, 1, 1, 3, 4])
    hits = clean_hits(ByRed(), pictures(said), true, TARGETS)
    assert hits.overall == (3, 5)
    assert hits.targets == (1, 2)
    assert hits.bystanders == (2, 3)


def test_verdicts_tell_target_surrogate_and_other() -> None:
    shown = np.stack([pictures([1, 7, 8, 3]), pictures([1, 2, 8, 0])])
    found = judge(ByRed(), shown, TARGETS)
    assert found.verdict.tolist() == [
        [TARGET, SURROGATE, OTHER, OTHER],
        [OTHER, TARGET, SURROGATE, OTHER],
    ]
    assert found.in_top5.tolist() == [[True, False, False, True], [True, True, False, True]]
