"""Settings of attacks and priors. A published setting is a short delta over a default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from tasks.spec import Spec


class PriorSpec(Spec):
    """The attacker's generator, trained on public data alone."""

    source: Literal["auto", "shipped", "train"] | Path = Field(
        "auto",
        description="auto: the shipped one for the built-in faces, else trained once and kept; "
        "shipped; train; or a .safetensors file.",
    )
    steps: int = Field(3500, ge=1, description="Steps of 32 images, when it is trained.")
    kl_weight: float = Field(
        0.3, gt=0, description="Low: sharper faces. High: the latents are nearer to normal."
    )
    latent_size: int = Field(64, ge=4, le=512, description="Size of z and w.")


class PpaSpec(Spec):
    """Plug & Play Attack (Struppek et al., ICML 2022), sections 3.2 to 3.4."""

    name: Literal["ppa"] = "ppa"
    pool: int = Field(8000, ge=1, description="Latents scored for the initial selection.")
    candidates: int = Field(20, ge=1, description="Latents optimised for each target.")
    steps: int = Field(40, ge=1, description="Adam steps.")
    learning_rate: float = Field(0.02, gt=0, description="Adam, betas (0.1, 0.1).")
    keep: int = Field(8, ge=1, description="Reconstructions kept for each target.")
    selection_rounds: int = Field(32, ge=1, description="Random views in the final selection.")
    truncation: float = Field(1.0, gt=0, le=1, description="Of the initial latents.")


class MirrorWSpec(Spec):
    """MIRROR, white box (An et al., NDSS 2022)."""

    name: Literal["mirror-w"] = "mirror-w"
    pool: int = Field(4000, ge=1, description="Presamples: starts, and the P-space statistics.")
    starts: int = Field(8, ge=1, description="Reconstructions for each target, best starts first.")
    steps: int = Field(60, ge=1, description="Adam steps.")
    learning_rate: float = Field(0.2, gt=0, description="Peak of the projector's schedule.")
    clip_sigmas: float = Field(2.0, gt=0, description="P-space box: mean plus minus so many sd.")


class MirrorBSpec(Spec):
    """MIRROR, black box: a genetic search that sees scores only (An et al., NDSS 2022)."""

    name: Literal["mirror-b"] = "mirror-b"
    pool: int = Field(12000, ge=1, description="Presamples: population, P-space statistics.")
    restarts: int = Field(8, ge=1, description="Independent searches: reconstructions a target.")
    population: int = Field(40, ge=4, description="Individuals of one search.")
    generations: int = Field(20, ge=1, description="Generations at the most.")
    mutation_probability: float = Field(0.1, ge=0, le=1, description="Of each gene.")
    mutation_size: float = Field(0.3, gt=0, description="In P-space standard deviations.")
    clip_sigmas: float = Field(2.0, gt=0, description="P-space box: mean plus minus so many sd.")
    stop_confidence: float = Field(
        1.0, gt=0, le=1, description="A search ends at this confidence; 1 never stops early."
    )


AttackSpec = Annotated[PpaSpec | MirrorWSpec | MirrorBSpec, Field(discriminator="name")]
