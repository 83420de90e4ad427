"""Which settings mean which trainer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tasks.pipelines.balance import ClassBalance
from tasks.pipelines.confident import ConfidentLearning
from tasks.pipelines.duplicates import ExactDuplicates, NearDuplicates
from tasks.pipelines.fine_tune import FineTune
from tasks.pipelines.mixup import MixUp
from tasks.pipelines.pipeline import Pipeline
from tasks.pipelines.smoothing import Smoothing
from tasks.pipelines.spec import (
    AnyTrainer,
    ConfidentSpec,
    CropTrainerSpec,
    FineTuneSpec,
    JitterSpec,
    JpegSpec,
    MixUpSpec,
    NearDuplicatesSpec,
    ResizeSpec,
    SmoothingTrainerSpec,
)
from tasks.pipelines.stored import Jpeg, Resize
from tasks.pipelines.views import Flip, Jitter, Plain, RandomCrop

SIMPLE: dict[str, type[Pipeline]] = {
    "plain": Plain,
    "flip": Flip,
    "class-balance": ClassBalance,
    "exact-duplicates": ExactDuplicates,
}
"""Trainers without settings."""


def make_trainer(spec: AnyTrainer, pretrained: Mapping[str, Tensor] | None = None) -> Pipeline:
    """Return a trainer.

    Args:
        spec: the settings.
        pretrained: state of a network that learnt other people, for fine-tuning.
    """
    if isinstance(spec, CropTrainerSpec):
        return RandomCrop(spec)
    if isinstance(spec, JitterSpec):
        return Jitter(spec)
    if isinstance(spec, JpegSpec):
        return Jpeg(spec)
    if isinstance(spec, ResizeSpec):
        return Resize(spec)
    if isinstance(spec, MixUpSpec):
        return MixUp(spec)
    if isinstance(spec, SmoothingTrainerSpec):
        return Smoothing(spec)
    if isinstance(spec, NearDuplicatesSpec):
        return NearDuplicates(spec)
    if isinstance(spec, ConfidentSpec):
        return ConfidentLearning(spec)
    if isinstance(spec, FineTuneSpec):
        return FineTune(spec, pretrained)
    return SIMPLE[spec.name]()
