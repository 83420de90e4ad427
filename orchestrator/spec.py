"""The experiment: one closed, frozen tree of settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attacks.presets import ADAPTIVE
from attacks.spec import AdaptiveSpec, AttackSpec, MirrorBSpec, MirrorWSpec, PpaSpec, PriorSpec
from augment.spec import DcdSpec, ProtectSpec
from orchestrator.comparison_spec import ComparedSpec
from orchestrator.retries import RETRIES
from tasks.datasets.spec import BuiltinData, DataSpec, FolderData
from tasks.pipelines.spec import TrainerSpec
from tasks.serving.spec import ServingSpec
from tasks.spec import Spec, fingerprint
from tasks.training_spec import EvaluationSpec, TrainingSpec


class Between(Spec):
    """A range to search."""

    low: float = Field(ge=0, le=1, description="Least value to try.")
    high: float = Field(ge=0, le=1, description="Greatest value to try.")
    log: bool = Field(False, description="Search on a logarithmic scale; low must be above 0.")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} is not below high={self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range needs low above 0")
        return self


Fraction = Annotated[float, Field(ge=0, le=1)]
Choices = Annotated[tuple[Fraction, ...], Field(min_length=1)]


class SpaceSpec(Spec):
    """What is searched: a range {low, high} or a list of values for each lever of `dcd`."""

    mislabel_fraction: Between | Choices = Field(
        Between(low=0.2, high=0.6), description="Loss control."
    )
    curvature_mislabel_fraction: Between | Choices = Field(
        Between(low=0.7, high=1.0), description="Curvature control, on the target's side."
    )
    target_sigma: Between | Choices = Field(
        Between(low=0.01, high=0.04, log=True), description="Curvature control: the target's noise."
    )
    surrogate_sigma: Between | Choices = Field(
        Between(low=0.001, high=0.02, log=True), description="The same on the surrogate's side."
    )


class GoalSpec(Spec):
    """Which trials count as good enough."""

    max_accuracy_drop: float = Field(
        0.02, ge=0, le=1, description="Clean accuracy may fall this far below the control."
    )
    max_attack_accuracy: float = Field(
        0.01, ge=0, le=1, description="Attack accuracy@1 of every attack may be at most this."
    )


class ScreeningSpec(Spec):
    """How `dcdctl attack --screen` comes to verdicts on targets with a part of the budget."""

    blocks: int = Field(5, ge=1, description="Times that an attack is run on a target, at most.")
    pool: int = Field(2000, ge=1, description="Latents that an attack presamples, at most.")
    rungs: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 10), description="Steps of PPA after which the worse half of the candidates leaves."
    )
    protected_rate: float = Field(
        0.1, gt=0, lt=1, description="Hit at this rate or below, a target counts as protected."
    )
    exposed_rate: float = Field(
        0.5, gt=0, lt=1, description="Hit at this rate or above, it counts as exposed."
    )
    error: float = Field(
        0.05, gt=0, lt=0.5, description="How often one may be taken for the other, at most."
    )

    @model_validator(mode="after")
    def _is_a_test(self) -> Self:
        if self.protected_rate >= self.exposed_rate:
            raise ValueError(
                f"protected_rate={self.protected_rate:g} is not below "
                f"exposed_rate={self.exposed_rate:g}"
            )
        return self


class SweepSpec(Spec):
    """The search over the levers."""

    trials: int = Field(6, ge=1, description="DCD trials; the control comes on top.")
    search: Literal["optuna", "grid", "ablation", "defenses"] = Field(
        "optuna",
        description="optuna: multi-objective. grid: all combinations of lists. ablation: the "
        "experiment's own recipe, the same without each of its steps, and what one person can do "
        "alone; the space is not used. defenses: the rows below, as `dcdctl compare` does.",
    )
    lookahead: int = Field(
        4,
        ge=1,
        description="Trial i is suggested from trials up to i - lookahead, so that the result does "
        "not depend on which trial ends first; at most so many run at once.",
    )
    rows: tuple[ComparedSpec, ...] | None = Field(
        None,
        description="Defences that are compared: {title, dcd, defense, strengths} each; null is "
        "every rival that needs the private data alone, DCD, and DCD beside some of them.",
    )
    strengths: int = Field(5, ge=1, description="Points of each rival's curve, at most.")
    space: SpaceSpec = SpaceSpec()
    goal: GoalSpec = GoalSpec()


class ComputeSpec(Spec):
    """What a run may use. Changes nothing in the results."""

    cpus: int | None = Field(None, ge=1, description="Cores for the embedded Ray; null takes all.")
    concurrent_trials: int | None = Field(
        None,
        ge=1,
        description="Trials at once; null fills the cluster. One that grows grows for so many.",
    )
    gpus_per_trial: float = Field(
        1.0, gt=0, description="Of a GPU, where there are any: 0.5 lets two trials share one."
    )
    trial_retries: int = Field(
        RETRIES,
        ge=0,
        description="Times that a trial is run again after its process, its node or a connection "
        "died. What the cluster takes back with notice is not counted, and a bug, bad data or a "
        "full disk is never tried again.",
    )
    sweep_retries: int | None = Field(
        None,
        ge=0,
        description="The same for all trials together; null is a quarter of the trials, at least "
        "10.",
    )
    max_hours: float | None = Field(
        None,
        gt=0,
        description="Core-hours that a sweep or a comparison may spend, all its sittings together; "
        "it stops before the trial that would pass them.",
    )
    max_cost: float | None = Field(
        None, gt=0, description="The same in money, where a price is known."
    )
    hour_price: float | None = Field(
        None,
        gt=0,
        description="Of one core or GPU for an hour; null takes what the cluster's nodes name.",
    )


class TrackingSpec(Spec):
    """Where MLflow shows the run. A view: the run store is the truth."""

    enabled: bool = Field(True, description="false keeps the records and leaves MLflow out.")
    uri: str | None = Field(None, description="Tracking server; null is sqlite in the storage.")
    experiment: str = Field("dcdctl", min_length=1, description="Name of the MLflow experiment.")
    checkpoint: bool = Field(
        True, description="The recommended trial's classifier goes there too, as safetensors."
    )


class ExperimentSpec(Spec):
    """One experiment: data, defence, attacks, search."""

    name: str = Field(
        "builtin-faces",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=64,
        description="Heads the report and the MLflow run.",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="The one seed; all draws are keyed by it.")
    storage: str = Field(
        ".dcdctl",
        description="For all results: a folder, or a file://, s3:// or gs:// URI. docs/storage.md.",
    )
    data: DataSpec = BuiltinData()
    protect: ProtectSpec = ProtectSpec()
    dcd: DcdSpec = DcdSpec()
    training: TrainingSpec = TrainingSpec()
    serving: ServingSpec = ServingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    prior: PriorSpec = PriorSpec()
    attacks: tuple[AttackSpec, ...] = Field((PpaSpec(), MirrorWSpec(), MirrorBSpec()), min_length=1)
    adaptive_attacks: tuple[AttackSpec, ...] = Field(
        tuple(AdaptiveSpec(strategy=strategy) for strategy in ADAPTIVE),
        description="Of one who knows of DCD, as in `attacks`: run at the end of a sweep on the "
        "control and the recommended trial, reported beside the plain ones. [] leaves them out.",
    )
    hostile_trainers: tuple[TrainerSpec, ...] = Field(
        (),
        description="Other trainers, by name or as sections: at the end of a sweep the recommended "
        "trial's data are trained on as each of them does, and attacked. docs/trainers.md.",
    )
    screening: ScreeningSpec = ScreeningSpec()
    sweep: SweepSpec = SweepSpec()
    compute: ComputeSpec = ComputeSpec()
    tracking: TrackingSpec = TrackingSpec()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.evaluation.architecture == self.training.architecture:
            raise ValueError(
                f"evaluation.architecture and training.architecture are both "
                f"{self.training.architecture!r}; the evaluation classifier must be another one"
            )
        second = self.evaluation.second
        others = {"training": self.training, "evaluation": self.evaluation}
        for section, other in others.items():
            if second.enabled and second.architecture == other.architecture:
                raise ValueError(
                    f"evaluation.second.architecture and {section}.architecture are both "
                    f"{second.architecture!r}; the second judge must be another one, or set "
                    "evaluation.second.enabled=false"
                )
        pool_in_data = self.protect.surrogate_pool == "data"
        if pool_in_data and isinstance(self.data, FolderData) and not self.data.surrogates:
            raise ValueError(
                "data.surrogates is an empty list; name classes that may lend their images, or use "
                "protect.surrogate_pool=builtin"
            )
        for attacks in (self.attacks, self.adaptive_attacks):
            names = [attack.label for attack in attacks]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"attack {name!r} is listed twice; give one of them a `title`")
        return self

    @property
    def run_fingerprint(self) -> str:
        """Hash of all that can change a trial's result; not of where or how fast it runs."""
        part = self.model_dump(
            mode="json",
            exclude={"name", "storage", "compute", "tracking", "dcd", "sweep", "adaptive_attacks"}
            | {"screening", "hostile_trainers"},
        )
        if self.serving == ServingSpec():
            del part["serving"]  # runs from before it was a setting keep their folder
        if not self.protect.surrogate_held_out:
            del part["protect"]["surrogate_held_out"]
        part["search"] = self.sweep.model_dump(mode="json", exclude={"trials", "goal"})
        for row in part["search"]["rows"] or ():
            if row["serving"] is None:
                del row["serving"]
        searched = set(type(self.sweep.space).model_fields)
        part["dcd"] = self.dcd.model_dump(
            mode="json", exclude=set() if self.sweep.search == "ablation" else searched
        )
        return fingerprint(part)
