"""Settings of the opposite: which attributes a surrogate should not share with its target."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from tasks.spec import Spec

PRESETS: dict[str, dict[str, Any]] = {
    # The released code's rule for CelebA: other gender and other hair, else other gender, else any.
    "celeba": {
        "weights": "none",
        "rarity": 0.0,
        "steps": [["Male", "Black_Hair|Brown_Hair -> Blond_Hair"], ["Male"]],
    },
}
"""Rules by name: short deltas over the defaults."""

MAX_STEPS, MAX_CONTRASTS = 6, 6
"""Their scores are powers of two that float32 must hold beside the weights."""


class Contrast(NamedTuple):
    """The surrogate has one of its attributes exactly if the target has one of the other ones.

    Attributes:
        target: attributes of the target.
        surrogate: attributes of the surrogate.
        turned: the surrogate has one exactly if the target has none.
    """

    target: tuple[str, ...]
    surrogate: tuple[str, ...]
    turned: bool

    @classmethod
    def parse(cls, text: str) -> Contrast:
        """Read "Male" (they must differ in it) or "A|B -> C" (the target's on the left).

        Raises:
            ValueError: it is something else.
        """
        left, arrow, right = text.partition("->")
        sides = [
            tuple(name.strip() for name in side.split("|"))
            for side in (left, right if arrow else left)
        ]
        if not all(name for side in sides for name in side):
            raise ValueError(
                f"{text!r} is no contrast; write an attribute, such as Male, or "
                "Black_Hair|Brown_Hair -> Blond_Hair"
            )
        return cls(sides[0], sides[1], turned=not arrow)


Weight = Annotated[float, Field(gt=0, le=1000)]


class OppositeSpec(Spec):
    """What counts as opposite in attributes; for typical-opposite and attribute-opposite."""

    preset: Literal["celeba"] | None = Field(
        None,
        description="Rule to start from; settings beside it win. celeba: the released code's, "
        "other gender and other hair, else other gender, else anyone.",
    )
    weights: Literal["balanced", "none"] | dict[str, Weight] = Field(
        "balanced",
        description="balanced: every attribute, by how evenly it divides the pool. none: only the "
        "steps count. Or a mapping from the attributes to use to their weights.",
    )
    rarity: float = Field(
        0.5,
        ge=0,
        le=100,
        description="What a bit of rarity costs: an attribute that one in four has is 2 bits.",
    )
    steps: tuple[tuple[str, ...], ...] = Field(
        (),
        max_length=MAX_STEPS,
        description="Contrasts that come before all weights, and what to fall back on, in order: "
        '[[Male, "Black_Hair|Brown_Hair -> Blond_Hair"], [Male]]. A name alone must differ; an '
        "arrow means that the surrogate has the right side exactly if the target has the left.",
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_preset(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return PRESETS.get(str(given.get("preset")), {}) | given
        return given

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        for step in self.steps:
            if not 1 <= len(step) <= MAX_CONTRASTS:
                raise ValueError(f"a step has {len(step)} contrasts; use 1 to {MAX_CONTRASTS}")
            for text in step:
                Contrast.parse(text)
        if isinstance(self.weights, dict) and not self.weights:
            raise ValueError("weights is an empty mapping; name attributes, or use none")
        return self

    @property
    def contrasts(self) -> tuple[tuple[Contrast, ...], ...]:
        """The steps, read."""
        return tuple(tuple(Contrast.parse(text) for text in step) for step in self.steps)
