"""Settings of DCD: the levers of the paper, section 2, as one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from augment.surrogate_spec import OppositeSpec
from tasks.spec import Spec

TARGET_SIGMA = 8 / 255
"""Unit range; hard-coded in the official code (datasets/celeba.py). The paper states none."""

SURROGATE_SIGMA = 0.003
"""Unit range; the official code's `eps`."""

Step = Literal["injection", "loss", "curvature"]

Count = Literal["match", "all"] | Annotated[int, Field(ge=0)]

_MISLABEL = "Share of a target's own images that get a wrong label."
_CURVATURE = "Share of the noisy target copies that get a wrong label."
_TARGET_SIGMA = "Gaussian noise on the target copies."
_SURROGATE_SIGMA = "Gaussian noise on the surrogate copies."
_TARGET_COPIES = "Noisy copies of each target image."
_SURROGATE_COPIES = "Noisy copies of each surrogate image."
_SURROGATE_COUNT = "Surrogate images: as many as the target has, all, or a number."

PRESETS: dict[str, dict[str, Any]] = {
    # The released code's CelebA settings with the paper's counts.
    "published": {},
    # The released code itself, with its order, floors and five repeated pictures.
    "official": {"mode": "official", "noise_resolution": "native"},
    # Half the upload: no noisy copies, more mislabels.
    "twofold": {"mislabel_fraction": 0.4, "target_copies": 0, "surrogate_copies": 0},
}
"""Recipes by name: short deltas over the defaults."""


class LeverChanges(Spec):
    """Levers of one target that differ from the others'; what is null stays as it is."""

    mislabel_fraction: float | None = Field(None, ge=0, le=1, description=_MISLABEL)
    curvature_mislabel_fraction: float | None = Field(None, ge=0, le=1, description=_CURVATURE)
    target_sigma: float | None = Field(None, ge=0, le=1, description=_TARGET_SIGMA)
    surrogate_sigma: float | None = Field(None, ge=0, le=1, description=_SURROGATE_SIGMA)
    target_copies: int | None = Field(None, ge=0, description=_TARGET_COPIES)
    surrogate_copies: int | None = Field(None, ge=0, description=_SURROGATE_COPIES)
    surrogate_count: Count | None = Field(None, description=_SURROGATE_COUNT)


class DcdSpec(Spec):
    """The levers. Fractions and sigmas are in [0, 1]; sigma is in units of the pixel range."""

    preset: Literal["published", "official", "twofold"] | None = Field(
        None,
        description="Recipe to start from; settings beside it win. published: the defaults. "
        "twofold: 0.4 mislabels and no noisy copies, half the data. official: see mode.",
    )
    mode: Literal["paper", "official"] = Field(
        "paper",
        description="paper: as published, every step on the clean rows. official: the released "
        "code's CelebA recipe with its order, floors, five repeated pictures and truncation.",
    )
    steps: tuple[Step, ...] = Field(
        ("injection", "loss", "curvature"),
        description="Steps that are applied; leave one out to see what it does.",
    )
    mislabel_fraction: float = Field(0.2, ge=0, le=1, description=_MISLABEL)
    curvature_mislabel_fraction: float = Field(1.0, ge=0, le=1, description=_CURVATURE)
    target_sigma: float = Field(TARGET_SIGMA, ge=0, le=1, description=_TARGET_SIGMA)
    surrogate_sigma: float = Field(SURROGATE_SIGMA, ge=0, le=1, description=_SURROGATE_SIGMA)
    target_copies: int = Field(1, ge=0, description=_TARGET_COPIES)
    surrogate_copies: int = Field(1, ge=0, description=_SURROGATE_COPIES)
    surrogate_count: Count = Field("match", description=_SURROGATE_COUNT)
    noise_resolution: Literal["network", "native"] = Field(
        "network",
        description="Noise is drawn at the size that the images have here, or at that of the file "
        "and shrunk with it, which weakens it.",
    )
    distinct_surrogates: int | None = Field(
        None,
        ge=1,
        description="Different images taken of a surrogate before they repeat; null takes all.",
    )
    decoy_count: Count = Field("match", description="Images of each decoy; see protect.decoys.")
    wrong_labels: Literal["dealt", "drawn"] = Field(
        "dealt",
        description="dealt: without replacement, so that no class gets many more. drawn: each on "
        "its own, as in the released code.",
    )
    receivers: tuple[str, ...] | None = Field(
        None, description="Classes that wrong labels name; null is all that are not protected."
    )
    max_received_fraction: float | None = Field(
        None,
        gt=0,
        description="A class receives at most this many wrongly labelled images for each training "
        "image of its own, from all targets together; null sets no limit.",
    )
    max_inflation: float | None = Field(
        None,
        ge=1,
        description="A target's rows after, for each before, at most; what is added is thinned "
        "evenly to fit. null sets no limit; the published recipe makes 4.",
    )
    per_target: dict[str, LeverChanges] = Field(
        {}, description="Levers of single targets, by name."
    )

    @model_validator(mode="before")
    @classmethod
    def _start_from_the_preset(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return PRESETS.get(str(given.get("preset")), {}) | given
        return given

    @model_validator(mode="after")
    def _receivers_are_named(self) -> Self:
        if self.receivers is not None and not self.receivers:
            raise ValueError("receivers is an empty list; name classes, or use null")
        return self

    def of_target(self, identity: str) -> DcdSpec:
        """Return the levers of one target."""
        own = self.per_target.get(identity)
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))

    def public(self) -> dict[str, float | int | str | bool | None]:
        """Return the settings without anybody's name, flat: for records and reports."""
        found = self.model_dump(exclude={"steps", "receivers", "per_target"})
        return found | {
            "steps": "+".join(self.steps),
            "receivers": None if self.receivers is None else len(self.receivers),
            "per_target": len(self.per_target),
        }


class ProtectSpec(Spec):
    """Who is protected, and who lends the images."""

    targets: int | tuple[str, ...] = Field(
        8, description="How many identities to protect, or their names."
    )
    surrogates: (
        Literal["typical-opposite", "attribute-opposite", "embedding-distant", "listed"]
        | dict[str, str | tuple[str, ...]]
    ) = Field(
        "typical-opposite",
        description="attribute-opposite: whose attributes differ most. typical-opposite: the same "
        "among people who look like many in public. embedding-distant: farthest in an embedding. "
        "listed: see surrogate_list. Or a mapping from target to surrogate.",
    )
    opposite: OppositeSpec = OppositeSpec()
    embedding: Literal["pixels"] | Path = Field(
        "pixels",
        description="For embedding-distant: pixels (light and colours in coarse squares), or a "
        ".parquet or .npy file of identity and vector.",
    )
    surrogate_list: Path | None = Field(
        None, description="For listed: a .csv or .parquet file of target and surrogate."
    )
    surrogate_pool: Literal["data", "held-out", "builtin"] = Field(
        "data",
        description="Who lends. data: those whom the data names. held-out: private identities "
        "that the model then does not learn. builtin: drawn faces, nobody real.",
    )
    pool_identities: int = Field(
        100, ge=1, description="Identities that are held out, or drawn beside a folder."
    )
    pool_images: int = Field(
        40, ge=1, le=1_000_000, description="Images of each face that is drawn beside a folder."
    )
    max_targets_per_surrogate: int = Field(
        1, ge=1, description="Targets that may share a surrogate; a list by hand may share freely."
    )
    surrogates_per_target: int = Field(
        1, ge=1, description="Surrogates of each target; they share the surrogate images evenly."
    )
    decoys: int = Field(
        0,
        ge=0,
        description="Further outside identities under each target's label, mislabelled like the "
        "target itself, so that its mislabels do not give it away.",
    )

    surrogate_held_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of each lending identity's images that is never lent, to count how "
        "often it is taken for the target; of drawn faces there are more images anyway.",
    )

    @model_validator(mode="after")
    def _list_is_named(self) -> Self:
        if (self.surrogates == "listed") != (self.surrogate_list is not None):
            raise ValueError("surrogates=listed and surrogate_list=FILE go together; give both")
        return self
