"""Settings of classifiers and of their training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.defenses.spec import DefenseSpec, NoDefense
from tasks.spec import Spec
from tasks.workers import Workers, batch_problem, several_workers


class NetworkSpec(Spec):
    """A network, and how it is trained."""

    architecture: str = Field(
        "small-resnet",
        description="small-resnet, small-vgg, small-mixer, or the name of a torchvision model.",
    )
    width: int = Field(24, ge=4, le=512, description="Channels of the first stage (small nets).")
    epochs: int = Field(20, ge=1, description="Passes over the training rows.")
    batch_size: int = Field(64, ge=2, description="Rows a step, over all workers.")
    learning_rate: float = Field(3e-3, gt=0, description="Peak of the one-cycle schedule.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decoupled weight decay.")
    augment: bool = Field(True, description="Random crop, flip, resolution, light and contrast.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="auto: bfloat16 where the processor has it in hardware. float16 scales the "
        "loss, for GPUs without bfloat16.",
    )
    workers: Workers = Field(
        1,
        description="Training processes; above 1 through Ray Train. A section with least and most "
        "lets the number follow the cluster. The result is the same.",
    )


class TrainingSpec(NetworkSpec):
    """How a classifier is trained. The defaults fit the built-in identities."""

    defense: DefenseSpec = NoDefense()

    @property
    def passes(self) -> int:
        """Passes over the training rows: the defence's own, where it has them."""
        own: int | None = getattr(self.defense, "epochs", None)
        return own or self.epochs

    def with_passes(self, passes: int) -> TrainingSpec:
        """Return the same training with so many passes."""
        changes: dict[str, object] = {"epochs": passes}
        if hasattr(self.defense, "epochs"):
            changes["defense"] = self.defense.model_copy(update={"epochs": None})
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _defense_allows_workers(self) -> Self:
        if several_workers(self.workers) and self.defense.one_process:
            several = self.workers if isinstance(self.workers, int) else "a range"
            raise ValueError(
                f"defense={self.defense.name} and workers={several} do not go together, since "
                f"{self.defense.one_process}; set training.workers=1"
            )
        if problem := batch_problem(self.workers, self.batch_size):
            raise ValueError(problem)
        return self


class SecondJudgeSpec(NetworkSpec):
    """A second evaluation classifier, to see how far a verdict depends on the first."""

    enabled: bool = Field(True, description="Train it, and report where the two disagree.")
    architecture: str = Field(
        "small-mixer", description="Must differ from the first's and from training.architecture."
    )
    width: int = Field(24, ge=4, le=512, description="Channels of the first stage (small nets).")
    epochs: int = Field(20, ge=1, description="Passes over the training rows.")


class EmbeddingSpec(Spec):
    """A face-embedding network of your own, for distances and image-set metrics."""

    path: str | None = Field(
        None, description="safetensors weights; null takes the evaluation classifier's features."
    )
    architecture: str = Field("resnet50", description="Name of the torchvision model.")
    image_size: int = Field(112, ge=16, le=1024, description="Pixels of a side that it expects.")
    layer: Literal["output", "penultimate"] = Field(
        "output", description="What is the embedding: its output, or what its last layer is given."
    )


class EvaluationSpec(NetworkSpec):
    """The evaluation classifier: another architecture, and it knows the surrogates."""

    architecture: str = Field("small-vgg", description="Must differ from training.architecture.")
    width: int = Field(16, ge=4, le=512, description="Channels of the first stage (small nets).")
    epochs: int = Field(25, ge=1, description="Passes over the training rows.")
    paper_convention: bool = Field(
        False,
        description="Also judge by a classifier without surrogate classes, as the papers do.",
    )
    image_metrics: bool = Field(
        True, description="Distances to the target's images, FID, KID, precision, recall, coverage."
    )
    knowledge: bool = Field(
        False, description="Train a student on the reconstructions alone, and test it; costs time."
    )
    sample_targets: int | None = Field(
        None, ge=1, description="Attack so many targets, and estimate for all; null attacks all."
    )
    sample_by: Literal["attributes", "train-images", "nothing"] = Field(
        "attributes", description="Strata of the sample; each is represented."
    )
    second: SecondJudgeSpec = SecondJudgeSpec()
    embedding: EmbeddingSpec = EmbeddingSpec()

    def judge(self) -> TrainingSpec:
        """Return what trains the first judge, and nothing else."""
        return _training_part(self)

    def second_judge(self) -> TrainingSpec:
        """Return what trains the second judge, and nothing else."""
        return _training_part(self.second)


def _training_part(spec: NetworkSpec) -> TrainingSpec:
    return TrainingSpec(**{name: getattr(spec, name) for name in NetworkSpec.model_fields})
