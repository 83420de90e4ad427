"""Settings of DCD: the levers of the paper, section 2, as one recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.spec import Spec

TARGET_SIGMA = 8 / 255
"""Unit range; hard-coded in the official code (datasets/celeba.py). The paper states none."""

SURROGATE_SIGMA = 0.003
"""Unit range; the official code's `eps`."""


class DcdSpec(Spec):
    """The levers. Fractions and sigmas are in [0, 1]; sigma is in units of the pixel range."""

    mislabel_fraction: float = Field(
        0.2, ge=0, le=1, description="Share of a target's own images that get a wrong label."
    )
    curvature_mislabel_fraction: float = Field(
        1.0, ge=0, le=1, description="Share of the noisy target copies that get a wrong label."
    )
    target_sigma: float = Field(
        TARGET_SIGMA, ge=0, le=1, description="Gaussian noise on the target copies."
    )
    surrogate_sigma: float = Field(
        SURROGATE_SIGMA, ge=0, le=1, description="Gaussian noise on the surrogate copies."
    )
    target_copies: int = Field(1, ge=0, description="Noisy copies of each target image.")
    surrogate_copies: int = Field(1, ge=0, description="Noisy copies of each surrogate image.")
    surrogate_count: Literal["match", "all"] | int = Field(
        "match", description="Surrogate images: as many as the target has, all, or a number."
    )


class ProtectSpec(Spec):
    """Who is protected, and who lends the images."""

    targets: int | tuple[str, ...] = Field(
        8, description="How many identities to protect, or their names."
    )
    surrogates: Literal["typical-opposite", "attribute-opposite"] | dict[str, str] = Field(
        "typical-opposite",
        description="attribute-opposite: whose attributes differ most. typical-opposite: the same "
        "among people who look like many in public. Or a mapping from target to surrogate.",
    )
