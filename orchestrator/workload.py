"""What an experiment has to compute, counted in units whose speed can be measured.

A piece is so many units of one kind: training rows, an attack's images, steps of a prior. Its key
says what the speed of such a unit depends on, so that a speed measured in a calibration, or in a
trial that has ended, is used where it holds and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from attacks.spec import AdaptiveSpec, AttackSpec
from augment.spec import DcdSpec
from orchestrator.attacking import target_groups
from orchestrator.comparison_spec import compared_points
from orchestrator.knowledge import READ_STEPS
from orchestrator.public_weights import public_training
from orchestrator.search import ablation, planned_trials
from orchestrator.spec import ExperimentSpec
from orchestrator.trial import starts_public
from tasks.serving.spec import ServingSpec
from tasks.spec import Spec, fingerprint
from tasks.training_spec import TrainingSpec
from tasks.workers import most_workers

Unit = Literal["row", "image", "step", "trial"]

DATA, PRIOR, TRAIN, JUDGES, REST = "data", "prior", "training", "judges", "plan, accuracy, judging"
PUBLIC = "network of public people"
ATTACK = "attack "
READER, ADAPTIVE, TRAINERS = "reader of attributes", "adaptive attacks", "other trainers"


@dataclass(frozen=True)
class Piece:
    """Work of one kind.

    Attributes:
        stage: what people call it.
        key: what the speed of a unit depends on.
        units: how many.
        unit: of what.
        processes: that share it; each holds a device.
        parts: tasks that it can be divided into where devices are free.
    """

    stage: str
    key: str
    units: float
    unit: Unit
    processes: int = 1
    parts: int = 1


@dataclass(frozen=True)
class Workload:
    """All that is still to be computed.

    Attributes:
        first: made before any trial, one after another.
        judges: trained beside the first trials, or before them.
        trials: pieces of each trial that has no record.
        after: tasks that follow the trials.
        done: trials that have a record.
    """

    first: tuple[Piece, ...]
    judges: tuple[Piece, ...]
    trials: tuple[tuple[Piece, ...], ...]
    after: tuple[Piece, ...]
    done: int = 0


@dataclass(frozen=True)
class Setting:
    """What a trial does: its recipe (None is the control's), its training, how it is served."""

    dcd: DcdSpec | None
    training: TrainingSpec
    serving: ServingSpec


def settings_of(spec: ExperimentSpec) -> list[Setting]:
    """Return the setting of every trial by index, as far as cost goes.

    What a search will suggest is not known; its levers change how many rows are mislabelled and
    noisy, and not how many rows there are.
    """
    sweep = spec.sweep
    if sweep.search == "defenses":
        points = compared_points(spec)
        return [Setting(point.dcd, point.training, point.serving) for point in points]
    recipes: Sequence[DcdSpec]
    if sweep.search == "ablation":
        recipes = ablation(spec.dcd)
    else:
        recipes = [spec.dcd] * planned_trials(spec)
    return [Setting(dcd, spec.training, spec.serving) for dcd in (None, *recipes)]


def train_key(spec: ExperimentSpec, training: TrainingSpec) -> str:
    """Return what the seconds of a training row in one epoch depend on."""
    return fingerprint(["train", _network(training), training.batch_size, spec.data.image_size])


def attack_key(spec: ExperimentSpec, attack: AttackSpec, setting: Setting) -> str:
    """Return what the seconds of an attack's image depend on: all of its settings, for one."""
    prior = spec.prior.model_dump(mode="json", exclude={"steps", "kl_weight"})
    served = [] if setting.serving == ServingSpec() else [setting.serving.defense.name]
    return fingerprint(
        [
            "attack",
            attack.model_dump(mode="json", exclude={"title", "preset"}),
            _network(setting.training),
            spec.data.image_size,
            prior,
            *served,
        ]
    )


def rest_key(spec: ExperimentSpec, setting: Setting) -> str:
    """Return what the rest of a trial depends on: the plan, clean accuracy, the panel's verdicts.

    It is measured as it is, for these data, these attacks and these judges.
    """
    judges = spec.evaluation.model_dump(mode="json", exclude={"epochs", "learning_rate"})
    judges["second"].pop("epochs")
    attacks = [attack.model_dump(mode="json") for attack in spec.attacks]
    data = [spec.data.model_dump(mode="json"), spec.protect.model_dump(mode="json")]
    return fingerprint(["rest", judges, attacks, *data, _network(setting.training)])


def prior_key(spec: ExperimentSpec) -> str:
    """Return what the seconds of a step of the prior's training depend on."""
    own: dict[str, object] = {"kind": spec.prior.kind}
    if spec.prior.kind == "gan":
        own |= spec.prior.gan.model_dump(mode="json", exclude={"steps", "workers"})
    else:
        own["latent_size"] = spec.prior.latent_size
    return fingerprint(["prior", own, spec.data.image_size])


def reader_key(spec: ExperimentSpec) -> str:
    """Return what the seconds of a step of the adaptive attacker's reader depend on."""
    return fingerprint(["reader", spec.data.image_size])


def data_key(spec: ExperimentSpec) -> str:
    """Return what the seconds of reading one image depend on."""
    return fingerprint(["data", spec.data.model_dump(mode="json", include=_DATA_FIELDS)])


_DATA_FIELDS = {"kind", "layout", "root", "image_size", "crop"}


def judge_specs(spec: ExperimentSpec) -> list[TrainingSpec]:
    """Return how each judge of the panel is trained."""
    asked = spec.evaluation
    judges = [asked.judge()]
    judges += [asked.second_judge()] if asked.second.enabled else []
    judges += [asked.judge()] if asked.paper_convention else []
    return judges


def attack_images(attack: AttackSpec, targets: int) -> int:
    """Return how many images an attack synthesises or shows against one model, at the most."""
    from attacks.registry import make_attack

    return make_attack(attack).images(targets)


class Counts(Spec):
    """What the metadata says of an experiment."""

    targets: int
    attacked: int
    decode: int
    judge_rows: int
    public_rows: int = 0
    attributes: bool = True


def workload(
    spec: ExperimentSpec,
    counts: Counts,
    rows_of: Callable[[DcdSpec | None], int],
    *,
    ready: frozenset[str] = frozenset(),
    done: frozenset[int] = frozenset(),
    trains_prior: bool = False,
) -> Workload:
    """Count what an experiment has to compute.

    Args:
        spec: the experiment.
        counts: from the metadata.
        rows_of: training rows under a recipe; None is the data as they are.
        ready: names of stages that the storage has already.
        done: indices of trials that have a record.
        trains_prior: the prior is neither shipped nor given.
    """
    workers = most_workers(spec.training.workers)
    first: list[Piece] = []
    if DATA not in ready:
        first.append(Piece(DATA, data_key(spec), counts.decode, "image"))
    if trains_prior and PRIOR not in ready:
        steps = spec.prior.gan.steps if spec.prior.kind == "gan" else spec.prior.steps
        first.append(Piece(PRIOR, prior_key(spec), steps, "step"))
    settings = settings_of(spec)
    if PUBLIC not in ready and any(starts_public(setting.training) for setting in settings):
        plain = public_training(spec)
        rows = plain.epochs * counts.public_rows
        first.append(Piece(PUBLIC, train_key(spec, plain), rows, "row"))
    judges = [
        Piece(JUDGES, train_key(spec, one), one.epochs * counts.judge_rows, "row")
        for one in ([] if JUDGES in ready else judge_specs(spec))
    ]

    def training(setting: Setting, stage: str = TRAIN) -> Piece:
        rows = setting.training.passes * rows_of(setting.dcd)
        return Piece(stage, train_key(spec, setting.training), rows, "row", workers)

    def attacking(setting: Setting, attacks: Sequence[AttackSpec], stage: str) -> list[Piece]:
        return [
            Piece(
                stage or f"{ATTACK}{attack.label}",
                attack_key(spec, attack, setting),
                attack_images(attack, counts.attacked),
                "image",
                parts=max(1, len(target_groups(counts.attacked))),
            )
            for attack in attacks
        ]

    trials = [
        (
            training(setting),
            *attacking(setting, spec.attacks, ""),
            Piece(REST, rest_key(spec, setting), 1, "trial"),
        )
        for index, setting in enumerate(settings)
        if index not in done
    ]
    after: list[Piece] = []
    if counts.targets:
        adaptive = [a for a in spec.adaptive_attacks if counts.attributes or not _reads(a)]
        if any(_reads(attack) for attack in adaptive):
            after.append(Piece(READER, reader_key(spec), READ_STEPS, "step"))
        # The control and the trial that is recommended; which one that is does not matter here.
        for setting in (settings[0], settings[-1]):
            after += attacking(setting, adaptive, ADAPTIVE)
    for _ in spec.hostile_trainers:
        after += [training(settings[-1], TRAINERS)]
        after += attacking(settings[-1], spec.attacks, TRAINERS)
    return Workload(tuple(first), tuple(judges), tuple(trials), tuple(after), len(done))


def _reads(attack: AttackSpec) -> bool:
    return isinstance(attack, AdaptiveSpec) and attack.strategy == "attribute"


def _network(training: TrainingSpec) -> list[object]:
    network = training.model_dump(
        mode="json", include={"architecture", "width", "augment", "precision"}
    )
    return [network, training.defense.name]
