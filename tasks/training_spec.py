"""Settings of classifiers and of their training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.spec import Spec


class TrainingSpec(Spec):
    """How a classifier is trained. The defaults fit the built-in identities."""

    architecture: str = Field(
        "small-resnet",
        description="small-resnet, small-vgg, or the name of a torchvision model.",
    )
    width: int = Field(24, ge=4, le=512, description="Channels of the first stage (small nets).")
    epochs: int = Field(20, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(64, ge=2, description="Rows a step, over all workers.")
    learning_rate: float = Field(3e-3, gt=0, description="Peak of the one-cycle schedule.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decoupled weight decay.")
    augment: bool = Field(True, description="Random crop, flip, resolution, light and contrast.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the processor has it in hardware."
    )
    workers: int = Field(1, ge=1, description="Training processes; above 1 through Ray Train.")


class EvaluationSpec(TrainingSpec):
    """The evaluation classifier: another architecture, and it knows the surrogates."""

    architecture: str = Field("small-vgg", description="Must differ from training.architecture.")
    width: int = Field(16, ge=4, le=512, description="Channels of the first stage (small nets).")
    epochs: int = Field(25, ge=1, description="Passes over the training rows.")
