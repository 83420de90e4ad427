"""Settings of the training-time defences; a classifier's training has exactly one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tasks.defenses.presets import expand
from tasks.spec import Spec


class Strength(Spec):
    """What all defences have: a preset to start from, and one setting that makes them stronger."""

    preset: str | None = Field(
        None, description="Published settings to start from; settings beside it win."
    )

    knob: ClassVar[str] = ""
    """The setting that a curve walks along."""
    curve: ClassVar[tuple[float, ...]] = ()
    """Its values for a comparison, the default one first.

    They reach to where accuracy is lost, where there is such a point: `benchmarks/strengths.py`.
    """
    one_process: ClassVar[str] = ""
    """Why several training processes are refused; "" where they are not."""

    def flat(self) -> dict[str, float | int | str | bool | None]:
        """Return the settings for records; folder names stay out."""
        found = self.model_dump(mode="json", exclude={"weights"})
        return {k: "+".join(v) if isinstance(v, list) else v for k, v in found.items()}


class NoDefense(Strength):
    """Plain training."""

    name: Literal["none"] = "none"


class DpSgdSpec(Strength):
    """DP-SGD (Abadi et al., CCS 2016) by Opacus; the only one with a guarantee, for one image."""

    name: Literal["dp-sgd"] = "dp-sgd"
    epsilon: float | None = Field(
        8.0, gt=0, description="Privacy that may be spent on one training image; sets the noise."
    )
    noise_multiplier: float | None = Field(
        None, ge=0, description="The noise itself, instead of epsilon; 0 is the control of DP-SGD."
    )
    delta: float = Field(
        1e-5, gt=0, lt=1, description="Chance that the guarantee fails; below one over the rows."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Each image's gradient is clipped to this.")
    optimiser: Literal["adam", "sgd"] = Field("adam", description="What the noisy gradients drive.")
    learning_rate: float | None = Field(None, gt=0, description="null takes training's.")
    batch_size: int | None = Field(
        None,
        ge=1,
        description="Expected rows of a batch, Poisson-sampled; null takes training's.",
    )
    accumulate: int = Field(
        1, ge=1, description="Batches that a step adds up; all rows at the most are one step's."
    )
    epochs: int | None = Field(None, ge=1, description="null takes training's.")

    knob = "epsilon"
    curve = (8.0, 32.0, 128.0, 2.0)
    one_process = "its noise and its accountant belong to one process"

    @model_validator(mode="before")
    @classmethod
    def _noise_instead_of_epsilon(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("noise_multiplier") is not None:
            return {"epsilon": None} | given
        return given

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError("dp-sgd needs exactly one of epsilon and noise_multiplier")
        return self


class MidSpec(Strength):
    """MID (Wang et al., AAAI 2021): a variational bottleneck before the last layer."""

    name: Literal["mid"] = "mid"
    beta: float = Field(0.003, ge=0, description="Weight of the bottleneck's information.")
    size: int = Field(1024, ge=1, description="Dimensions of the bottleneck.")
    noise_at_test: bool = Field(
        False, description="Draw from the bottleneck at test too, as released; else take its mean."
    )

    knob = "beta"
    curve = (0.003, 0.03, 0.1, 0.01, 0.3)


class BidoSpec(Strength):
    """BiDO (Peng et al., KDD 2022): hidden layers depend less on images and more on labels."""

    one_process = "its dependences are measured within the rows of one process"

    name: Literal["bido"] = "bido"
    measure: Literal["hsic", "coco"] = Field("hsic", description="How dependence is measured.")
    input_weight: float = Field(0.05, ge=0, description="Of hidden layers and images, pushed down.")
    label_weight: float = Field(0.5, ge=0, description="Of hidden layers and labels, pushed up.")
    scale: float = Field(1.0, ge=0, description="Multiplies both weights.")
    sigma: float = Field(5.0, gt=0, description="Width of the Gaussian kernel.")
    layers: tuple[str, ...] | None = Field(
        None, description="Modules of the network; null takes the ends of its stages."
    )

    knob = "scale"
    curve = (1.0, 3.0, 10.0, 30.0, 0.3)


class NegLsSpec(Strength):
    """Negative label smoothing (Struppek et al., ICLR 2024), off at first and then grown."""

    name: Literal["neg-ls"] = "neg-ls"
    alpha: float = Field(-0.05, lt=0, description="Share of the loss on all classes; negative.")
    start: float = Field(0.5, ge=0, le=1, description="Share of the epochs without it.")
    full: float = Field(0.75, ge=0, le=1, description="Share of the epochs after which it is full.")

    knob = "alpha"
    curve = (-0.05, -0.15, -0.3, -1.0, -2.0)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.start > self.full:
            raise ValueError(f"start={self.start:g} is after full={self.full:g}")
        return self


class LabelSmoothingSpec(Strength):
    """Label smoothing as trainers use it: no defence, it raises leakage (Struppek et al.)."""

    name: Literal["label-smoothing"] = "label-smoothing"
    alpha: float = Field(0.1, gt=0, lt=1, description="Share of the loss on all classes.")

    knob = "alpha"
    curve = (0.1, 0.3)


class RandomErasingSpec(Strength):
    """MIDRE (TMLR 2025): a square of every training image is erased."""

    name: Literal["random-erasing"] = "random-erasing"
    probability: float = Field(1.0, ge=0, le=1, description="Share of the views that lose one.")
    least_area: float = Field(0.1, ge=0, le=1, description="Of the square, at least.")
    most_area: float = Field(0.4, gt=0, le=1, description="Of the square, at most.")

    knob = "most_area"
    curve = (0.4, 0.8, 0.6, 0.2)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.least_area > self.most_area:
            raise ValueError(
                f"least_area={self.least_area:g} is above most_area={self.most_area:g}"
            )
        return self


class TransferSpec(Strength):
    """TL-DMI (Ho et al., CVPR 2024): first layers learnt elsewhere and frozen."""

    name: Literal["transfer"] = "transfer"
    weights: Path | None = Field(
        None,
        description="Checkpoint folder of the same architecture, trained on public data; null "
        "learns the public people first, which the public data must name.",
    )
    frozen: int = Field(1, ge=1, description="Stages that are frozen, from the first on.")

    knob = "frozen"
    curve = (1, 2)


class TrapMidSpec(Strength):
    """Trap-MID (NeurIPS 2024): a faint learnt trigger of each class leads attacks astray."""

    name: Literal["trap-mid"] = "trap-mid"
    weight: float = Field(0.2, ge=0, le=1, description="Share of the loss on triggered images.")
    blend: float = Field(0.02, gt=0, le=1, description="Opacity of a trigger.")
    step: float = Field(0.01, gt=0, description="Of a trigger's pixels, in the unit range.")
    naturalness: float = Field(
        1.0, ge=0, description="Weight of a discriminator that tells triggered images, on triggers."
    )

    knob = "weight"
    curve = (0.2, 0.5, 0.1, 0.03, 0.01)
    one_process = "its triggers are learnt in one process"


class RolssSpec(Strength):
    """RoLSS (Koh et al., ECCV 2024): the last stages lose their skip connections."""

    name: Literal["rolss"] = "rolss"
    stages: int = Field(1, ge=1, description="Last stages without skip connections.")

    knob = "stages"
    curve = (1, 2)


AnyDefense = (
    NoDefense
    | DpSgdSpec
    | MidSpec
    | BidoSpec
    | NegLsSpec
    | LabelSmoothingSpec
    | RandomErasingSpec
    | TransferSpec
    | TrapMidSpec
    | RolssSpec
)

DefenseSpec = Annotated[Annotated[AnyDefense, Field(discriminator="name")], BeforeValidator(expand)]
"""A defence as a file gives it: a section, a bare name, or a preset's name."""
