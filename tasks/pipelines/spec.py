"""Settings of the trainers; each is what one person does with an upload, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tasks.spec import Spec


class PlainSpec(Spec):
    """No augmentation at all: what crop, flip and jitter are compared with."""

    name: Literal["plain"] = "plain"


class CropTrainerSpec(Spec):
    """Random crops, and no other augmentation."""

    name: Literal["crop"] = "crop"
    least_area: float = Field(0.5, gt=0, le=1, description="Of a crop, at least.")


class FlipSpec(Spec):
    """Half of the views mirrored, and no other augmentation."""

    name: Literal["flip"] = "flip"


class JitterSpec(Spec):
    """Random brightness, contrast and saturation, and no other augmentation."""

    name: Literal["jitter"] = "jitter"
    strength: float = Field(0.4, gt=0, lt=1, description="Factors are 1 plus or minus at most so.")


class JpegSpec(Spec):
    """Images are stored as JPEG before they are trained on."""

    name: Literal["jpeg"] = "jpeg"
    quality: int = Field(75, ge=1, le=95, description="As Pillow counts it.")


class ResizeSpec(Spec):
    """Images are stored smaller before they are trained on."""

    name: Literal["resize"] = "resize"
    factor: int = Field(2, ge=2, le=8, description="Sides are divided by this.")


class MixUpSpec(Spec):
    """MixUp (Zhang et al., ICLR 2018): mixed images with mixed losses."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0, description="Of the Beta distribution of the share.")


class SmoothingTrainerSpec(Spec):
    """Ordinary label smoothing, which raises leakage."""

    name: Literal["label-smoothing"] = "label-smoothing"
    alpha: float = Field(0.1, gt=0, lt=1, description="Share of the loss on all classes.")


class ClassBalanceSpec(Spec):
    """Every class is seen equally often: the inflated one less, the others more."""

    name: Literal["class-balance"] = "class-balance"


class ExactDuplicatesSpec(Spec):
    """Of equal images one stays, whatever their labels."""

    name: Literal["exact-duplicates"] = "exact-duplicates"


class NearDuplicatesSpec(Spec):
    """Of images that look the same one stays, whatever their labels."""

    name: Literal["near-duplicates"] = "near-duplicates"
    similarity: float = Field(
        0.995, gt=0, lt=1, description="Correlation of 16 x 16 thumbnails from which two are one."
    )


class ConfidentSpec(Spec):
    """Confident learning (Northcutt et al., JAIR 2021): rows that look mislabelled are removed."""

    name: Literal["confident-learning"] = "confident-learning"
    folds: int = Field(3, ge=2, le=20, description="Of the cross-validation.")
    epochs_share: float = Field(
        0.5, gt=0, le=1, description="Epochs of a fold's network, of those of the training."
    )


class FineTuneSpec(Spec):
    """A network that learnt other people goes on with the upload; nothing is frozen."""

    name: Literal["fine-tune"] = "fine-tune"
    learning_rate_share: float = Field(0.3, gt=0, le=1, description="Of training.learning_rate.")


AnyTrainer = (
    PlainSpec
    | CropTrainerSpec
    | FlipSpec
    | JitterSpec
    | JpegSpec
    | ResizeSpec
    | MixUpSpec
    | SmoothingTrainerSpec
    | ClassBalanceSpec
    | ExactDuplicatesSpec
    | NearDuplicatesSpec
    | ConfidentSpec
    | FineTuneSpec
)


def _expand(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


TrainerSpec = Annotated[
    Annotated[AnyTrainer, Field(discriminator="name")], BeforeValidator(_expand)
]
"""A trainer as a file gives it: a section, or a bare name."""
