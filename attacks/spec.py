"""Settings of attacks and priors. A published setting is a short delta over a default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attacks.presets import PRESETS
from tasks.spec import Spec
from tasks.suggestions import did_you_mean
from tasks.workers import Workers, batch_problem


class GanSpec(Spec):
    """Training of a GAN prior, as in GMI (Zhang et al., CVPR 2020)."""

    steps: int = Field(3000, ge=1, description="Steps of the generator.")
    latent_size: int = Field(100, ge=4, le=512, description="Size of z.")
    width: int = Field(64, ge=2, le=512, description="Channels before the image.")
    batch_size: int = Field(64, ge=2, description="Images a step, over all workers.")
    critic_steps: int = Field(5, ge=1, description="Steps of the critic for each of the generator.")
    gradient_penalty: float = Field(10.0, ge=0, description="Its weight in the critic's loss.")
    learning_rate: float = Field(2e-4, gt=0, description="Adam, betas (0.5, 0.999).")
    workers: Workers = Field(
        1,
        description="Training processes, or a section with least and most; above 1, or with a GPU, "
        "through Ray Train.",
    )

    @model_validator(mode="after")
    def _batch_is_large_enough(self) -> Self:
        if problem := batch_problem(self.workers, self.batch_size):
            raise ValueError(problem)
        return self


class PriorSpec(Spec):
    """The attacker's generator, trained on public data alone."""

    source: Literal["auto", "shipped", "train"] | Path = Field(
        "auto",
        description="auto: the shipped one for the built-in faces, else trained once and kept; "
        "shipped; train; or a .safetensors file of any kind.",
    )
    kind: Literal["decoder", "gan"] = Field(
        "decoder",
        description="What is trained. decoder: of an autoencoder, by the next three settings. gan: "
        "with its critic, by prior.gan.",
    )
    steps: int = Field(3500, ge=1, description="Steps of 32 images, when it is trained.")
    kl_weight: float = Field(
        0.3, gt=0, description="Low: sharper faces. High: the latents are nearer to normal."
    )
    latent_size: int = Field(64, ge=4, le=512, description="Size of z and w.")
    crop: int | None = Field(
        None,
        ge=1,
        description="Pixels of the middle of the generator's images that are kept before they are "
        "resized to the data's size; PPA keeps 800 of FFHQ's 1024. null keeps all.",
    )
    gan: GanSpec = GanSpec()


class _AttackSpec(Spec):
    """What every attack's settings begin with."""

    name: str
    preset: str | None = Field(
        None, description="A published setting to start from, such as ppa/celeba-ffhq."
    )
    title: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        description="Name in the results, so that an attack may run twice with other settings.",
    )

    @model_validator(mode="after")
    def _preset_is_one_of_this_attack(self) -> Self:
        if self.preset is not None:
            known = [name for name, one in PRESETS.items() if one.settings["name"] == self.name]
            if self.preset not in known:
                near = did_you_mean(self.preset, known)
                raise ValueError(f"preset {self.preset!r} is none of {self.name}{near}")
        return self

    @property
    def label(self) -> str:
        """The attack's name in results."""
        return self.title or self.name


class WhiteBoxSpec(_AttackSpec):
    """What every attack with gradients may set."""

    loss: Literal["poincare", "cross-entropy", "max-margin", "logit"] = Field(
        "cross-entropy",
        description="poincare: PPA. max-margin: PLG-MI. logit: LOMMA, the target's raw logit.",
    )
    views: int = Field(
        0,
        ge=0,
        description="Random views (crop, mirror, turn) over which each gradient is averaged, as "
        "AlignMI does; 0 shows the image as the attack has it.",
    )
    feature_weight: float = Field(
        0.0,
        ge=0,
        description="LOMMA: weight of the squared gap between penultimate features and their mean "
        "over the public.",
    )
    students: tuple[str, ...] = Field(
        (),
        description="LOMMA: networks distilled from the classifier on the prior's images, whose "
        "losses are averaged with its own.",
    )
    student_steps: int = Field(600, ge=1, description="SGD steps of each student, 64 images each.")


class GmiSpec(WhiteBoxSpec):
    """Generative Model Inversion (Zhang et al., CVPR 2020): momentum in z, a critic's judgement."""

    name: Literal["gmi"] = "gmi"
    restarts: int = Field(8, ge=1, description="Reconstructions of each target: one a start.")
    steps: int = Field(300, ge=1, description="Steps of momentum, or of Adam.")
    learning_rate: float = Field(0.02, gt=0, description="Of the momentum, or of Adam.")
    optimiser: Literal["momentum", "adam"] = Field(
        "momentum", description="momentum: Nesterov's, 0.9, as GMI. adam: as PLG-MI."
    )
    identity_weight: float = Field(
        100.0, gt=0, description="Of the identity loss against the critic's, where there is one."
    )
    averaged_over: int = Field(
        60,
        ge=1,
        description="The released loss is a mean over so many candidates, which scales the step; "
        "here a candidate's step does not depend on the batch.",
    )
    clip: float = Field(1.0, gt=0, description="z stays in [-clip, clip].")


class SearchSpec(WhiteBoxSpec):
    """What PPA and the attacks that build on its search may set."""

    loss: Literal["poincare", "cross-entropy", "max-margin", "logit"] = Field(
        "poincare", description="poincare: PPA's own. The others are other attacks'."
    )
    pool: int = Field(8000, ge=1, description="Latents scored for the initial selection.")
    candidates: int = Field(20, ge=1, description="Latents optimised for each target.")
    steps: int = Field(40, ge=1, description="Adam steps.")
    learning_rate: float = Field(0.02, gt=0, description="Adam, betas (0.1, 0.1).")
    keep: int = Field(8, ge=1, description="Reconstructions kept for each target.")
    selection_rounds: int = Field(32, ge=1, description="Random views in the final selection.")
    truncation: float = Field(1.0, gt=0, le=1, description="Of the initial latents.")


class PpaSpec(SearchSpec):
    """Plug & Play Attack (Struppek et al., ICML 2022), sections 3.2 to 3.4."""

    name: Literal["ppa"] = "ppa"
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        description="Successive rejection: after each of these steps the worse half of a target's "
        "candidates is dropped, down to `keep`. Empty is the full budget.",
    )

    @model_validator(mode="after")
    def _rungs_ascend(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError(f"rungs={list(self.rungs)} do not ascend")
        return self


class IfGmiSpec(SearchSpec):
    """IF-GMI (Qiu et al., ECCV 2024): PPA's search, then through the generator's inner features."""

    name: Literal["if-gmi"] = "if-gmi"
    layer_steps: int = Field(10, ge=1, description="Adam steps at each layer.")
    layers: int = Field(2, ge=1, description="Layers whose features are searched, first to last.")
    radii: tuple[float, ...] = Field(
        (100.0, 200.0),
        min_length=1,
        description="L1 radius within which each layer's features stay; the last one repeats.",
    )


class MirrorWSpec(WhiteBoxSpec):
    """MIRROR, white box (An et al., NDSS 2022)."""

    name: Literal["mirror-w"] = "mirror-w"
    pool: int = Field(4000, ge=1, description="Presamples: starts, and the P-space statistics.")
    starts: int = Field(8, ge=1, description="Reconstructions for each target, best starts first.")
    steps: int = Field(60, ge=1, description="Adam steps.")
    learning_rate: float = Field(0.2, gt=0, description="Peak of the projector's schedule.")
    clip_sigmas: float = Field(2.0, gt=0, description="P-space box: mean plus minus so many sd.")
    truncation: float = Field(1.0, gt=0, le=1, description="Of the presamples.")


class MirrorBSpec(_AttackSpec):
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
    truncation: float = Field(1.0, gt=0, le=1, description="Of the presamples.")


class BrepMiSpec(_AttackSpec):
    """BREP-MI (Kahla et al., CVPR 2022): sees the label alone, moves away from its boundary."""

    name: Literal["brep-mi"] = "brep-mi"
    pool: int = Field(8000, ge=1, description="Latents labelled to find starts, for all targets.")
    restarts: int = Field(8, ge=1, description="Reconstructions of each target: one a start.")
    points: int = Field(32, ge=2, description="On the sphere around the current latent.")
    steps: int = Field(60, ge=1, description="Spheres asked for each start, at the most.")
    radius: float = Field(2.0, gt=0, description="Of the first sphere.")
    growth: float = Field(1.3, gt=1, description="Of the radius once a sphere lies in the class.")
    share: float = Field(
        0.75, gt=0, lt=1, description="Of a sphere's points in the class for it to grow."
    )
    step_size: float = Field(3.0, gt=0, description="Longest move; a third of the radius at most.")
    clip: float = Field(1.5, gt=0, description="z stays in [-clip, clip].")
    patience: int = Field(1000, ge=1, description="Spheres asked at one radius before it ends.")


Strategy = Literal["modes", "reject", "sharp", "level", "attribute", "views"]


class AdaptiveSpec(SearchSpec):
    """An attacker who knows that DCD is in use, and not who the surrogate is.

    Every strategy has PPA's budget of candidates and steps.
    """

    name: Literal["adaptive"] = "adaptive"
    strategy: Strategy = Field(
        "modes",
        description="modes: one answer from each mode that is found. reject: searches away from "
        "the mode found first. sharp: keeps the sharpest minima. level: holds the confidence at "
        "`confidence`, flattens the other classes. attribute: picks the mode with the target's "
        "known attributes. views: gradients averaged over views, for fewer candidates.",
    )
    modes: int = Field(4, ge=2, description="Clusters of a target's candidates, at the most.")
    reject_weight: float = Field(
        1.0, gt=0, description="reject: of the likeness to the first mode in the feature space."
    )
    confidence: float = Field(0.45, gt=0, lt=1, description="level: where the target's is held.")
    probes: int = Field(8, ge=1, description="sharp: random directions of the curvature probe.")
    known: tuple[str, ...] = Field(
        ("hair", "male", "feminine", "masculine"),
        description="attribute: the attacker knows the target's attributes whose names hold one "
        "of these words.",
    )

    @property
    def label(self) -> str:
        """The attack's name in results."""
        return self.title or f"adaptive-{self.strategy}"


AttackSpec = Annotated[
    PpaSpec | MirrorWSpec | MirrorBSpec | GmiSpec | IfGmiSpec | BrepMiSpec | AdaptiveSpec,
    Field(discriminator="name"),
]
