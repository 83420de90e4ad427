"""Settings of post-hoc output defences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tasks.spec import Spec


class OutputSpec(Spec):
    """What all output defences have."""

    def flat(self) -> dict[str, float | int | str | bool | None]:
        """Return the settings for records."""
        return self.model_dump(mode="json")


class RawSpec(OutputSpec):
    """Scores as the network gives them."""

    name: Literal["none"] = "none"


class Referenced(OutputSpec):
    """Output defences that are fitted on images which the classifier did not learn."""

    held_out: float = Field(
        0.1,
        gt=0,
        le=0.5,
        description="Share of the source images that the classifier is not trained on, and that "
        "the output defence is fitted on.",
    )
    epochs: int = Field(60, ge=1, description="Passes over the scores that it is fitted on.")


class MemGuardSpec(Referenced):
    """MemGuard (Jia et al., CCS 2019): noise on scores that never changes the label."""

    name: Literal["memguard"] = "memguard"
    epsilon: float = Field(
        1.0, ge=0, le=2, description="Expected sum of absolute changes of an answer, at most."
    )
    steps: int = Field(30, ge=1, description="Of the search for the noise, for each weight.")
    step: float = Field(0.1, gt=0, description="Length of one, in logits.")


class PurificationSpec(Referenced):
    """Prediction purification (Yang et al., 2020): scores pass through an autoencoder."""

    name: Literal["purification"] = "purification"
    epochs: int = Field(
        60, ge=1, description="Passes over the scores that it is fitted on; 2,000 steps at least."
    )
    code: int = Field(8, ge=1, description="Dimensions of the narrowest layer.")
    label_weight: float = Field(
        0.1, ge=0, description="Weight of the cross entropy to the label before."
    )


AnyOutput = RawSpec | MemGuardSpec | PurificationSpec


def _expand(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


OutputDefenseSpec = Annotated[
    Annotated[AnyOutput, Field(discriminator="name")], BeforeValidator(_expand)
]


class ServingSpec(Spec):
    """How a trained model answers; only those who see answers alone meet it."""

    defense: OutputDefenseSpec = RawSpec()
