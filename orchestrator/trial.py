"""One trial: plan, train, attack, judge. A function of its inputs: no Ray, no MLflow in here."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.attacking import Attacked, attack_here
from orchestrator.nameless import nameless
from orchestrator.records import Accuracy, PlanSummary, Rate, TrialRecord
from orchestrator.retries import classify, sentence
from orchestrator.store import RECORD, disk_errors, write_atomic
from tasks.serving.spec import ServingSpec
from tasks.spec import fingerprint
from tasks.types import Image8, TargetClass

if TYPE_CHECKING:
    import torch

    from attacks.knowledge import Knowledge
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from augment.spec import DcdSpec
    from tasks.checkpoint import Checkpoint
    from tasks.classifiers import Classifier
    from tasks.evaluation.panel import Panel
    from tasks.evaluation.sampling import TargetSample
    from tasks.training_spec import TrainingSpec

Fit = Callable[[Image8, pa.Table, int, "TrainingSpec", int], "Checkpoint"]
"""Trains on (images, plan, classes, spec, seed): in this process, or over several by Ray Train."""


@dataclass(frozen=True)
class NeverLent:
    """Images of surrogates that no trial is trained on, and whose they are.

    Attributes:
        images: (n, s, s, 3).
        identities: (n,).
    """

    images: Image8
    identities: np.ndarray


@dataclass(frozen=True)
class PublicWeights:
    """A network that learnt public people, of the experiment's own architecture and width.

    Attributes:
        digest: of its data and settings, part of the identity of trials that start from it.
        state: its weights.
    """

    digest: str
    state: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class World:
    """What all trials of a sweep share: data decoded once, and who is protected.

    Attributes:
        rows: row table of the private data and of the lent surrogate images.
        images: row i of the table is image i, (n, s, s, 3).
        targets: the classes under protection.
        pseudonyms: their names outside the data, in the same order.
        num_classes: labels of the target classifier.
        seed: of the experiment.
        digest: hash of the data, part of every trial's identity.
        sample: which of the targets are attacked; None attacks all.
        knowledge: what an adaptive attacker knows of the targets.
        never_lent: of the surrogates, to count false accepts on.
        public: what defences by transfer start from; None where none needs it, or nobody is named.
    """

    rows: pa.Table
    images: Image8
    targets: tuple[TargetClass, ...]
    pseudonyms: tuple[str, ...]
    num_classes: int
    seed: int
    digest: str
    sample: TargetSample | None = None
    knowledge: Knowledge | None = None
    never_lent: NeverLent | None = None
    public: PublicWeights | None = None

    @property
    def attacked(self) -> tuple[TargetClass, ...]:
        """The targets that are attacked."""
        chosen = range(len(self.targets)) if self.sample is None else self.sample.chosen
        return tuple(self.targets[i] for i in chosen)

    @property
    def attacked_pseudonyms(self) -> tuple[str, ...]:
        """Their names outside the data, in the same order."""
        chosen = range(len(self.targets)) if self.sample is None else self.sample.chosen
        return tuple(self.pseudonyms[i] for i in chosen)

    def mask(self, split: str) -> np.ndarray:
        """Return which rows belong to a split, bool (n,)."""
        return np.asarray(self.rows["split"].to_numpy(zero_copy_only=False) == split)


@dataclass(frozen=True)
class TrialPlan:
    """What distinguishes one trial from the next."""

    index: int
    dcd: DcdSpec | None  # None is the control
    training: TrainingSpec
    attacks: tuple[AttackSpec, ...]
    title: str = ""  # of a comparison's point, and of the row that it belongs to
    row: str = ""
    serving: ServingSpec = ServingSpec()

    def trial_id(self, world: World, judged_by: str) -> str:
        """Return a hash of settings, data and code version: equal trials have equal ids."""
        beside: list[object] = [] if self.serving == ServingSpec() else [self.serving]
        if starts_public(self.training) and world.public is not None:
            beside.append(world.public.digest)
        return fingerprint(
            [
                self.dcd,
                self.training.model_dump(mode="json", exclude={"workers"}),
                list(self.attacks),
                world.digest,
                world.seed,
                judged_by,
                version("dcdctl"),
                *beside,
            ]
        )


def starts_public(training: TrainingSpec) -> bool:
    """Say whether a training starts from a network that learnt public people, made for it."""
    from tasks.defenses.spec import TransferSpec

    return isinstance(training.defense, TransferSpec) and training.defense.weights is None


@dataclass
class Clock:
    """Seconds spent by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time inside to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)


def run_trial(
    plan: TrialPlan,
    world: World,
    prior: Prior,
    panel: Callable[[], Panel],
    fit: Fit,
    out: Path,
    trial_id: str,
    attack: Attacked | None = None,
) -> TrialRecord:
    """Train, attack and judge one setting; write its files and, last, its record.

    Args:
        plan: the setting.
        world: shared data.
        prior: the attacker's generator.
        panel: called when the judges are needed; may wait for them.
        fit: trains the classifier.
        out: folder of the trial.
        trial_id: its identity.
        attack: runs the attacks on a checkpoint elsewhere; None runs them in this process.

    Returns:
        The record. An attack or a training that broke, levers that do not fit the data, or a bug
        give a record with status "failed" and the error's sentence; it never leaves the mean in
        silence.

    Raises:
        Exception: trouble of the machines or the storage, which says nothing of the trial.
    """
    clock = Clock()
    record = TrialRecord(
        trial_id=trial_id,
        index=plan.index,
        defense="none" if plan.dcd is None else "dcd",
        status="ok",
        settings={} if plan.dcd is None else plan.dcd.public(),
        seed=world.seed,
        title=plan.title,
        row=plan.row,
        training_defense=plan.training.defense.flat(),
        serving=plan.serving.defense.flat(),
        versions=_versions(),
    )
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        try:
            found = _measure(plan, world, prior, panel, fit, out, clock, attack)
            record = record.model_copy(update=found)
        except Exception as error:
            if classify(error) not in ("trial", "data"):
                raise
            said = nameless(sentence(error), world)
            record = record.model_copy(update={"status": "failed", "error": said})
        record = record.model_copy(update={"cost_s": clock.seconds})
        # The publisher waits for the disk; this folder is on the trial's own machine, for a while.
        write_atomic(out / RECORD, record.model_dump_json(indent=2) + "\n", durable=False)
    return record


def _measure(
    plan: TrialPlan,
    world: World,
    prior: Prior,
    panel: Callable[[], Panel],
    fit: Fit,
    out: Path,
    clock: Clock,
    attack: Attacked | None,
) -> dict[str, object]:
    from augment.plan import count_roles, inflation, make_plan
    from augment.spec import DcdSpec
    from orchestrator.judging import judge_all
    from orchestrator.plan_tally import plan_digest
    from orchestrator.serving import fit_served
    from orchestrator.utility import people_of, utility_of

    with clock.stage("plan"):
        protected = () if plan.dcd is None else world.targets
        recipe = make_plan(
            world.rows, protected, world.num_classes, plan.dcd or DcdSpec(), world.seed
        )
        pq.write_table(recipe, out / "recipe.parquet", compression="zstd")
    with clock.stage("train"):
        checkpoint = fit_served(
            fit,
            world.images,
            recipe,
            world.num_classes,
            plan.training,
            world.seed,
            plan.serving,
        )
        checkpoint.save(out / "checkpoint")
    classifier = checkpoint.classifier()
    with clock.stage("accuracy"):
        accuracy = accuracy_of(classifier, world)
        utility = utility_of(classifier, world, recipe)
        people = people_of(classifier, world, recipe)
    if attack is not None:
        results, spent = attack(checkpoint, plan.attacks)
    else:
        results, spent = attack_here(classifier, prior, world, plan.attacks)
    clock.seconds |= spent
    with clock.stage("wait for the evaluation classifier"):
        judges = panel()
    with clock.stage("evaluate"):
        records, verdicts = judge_all(results, judges, world, plan.attacks)
    arrays = {name: found.images for name, found in results.items()}
    arrays |= {f"{name}/verdict": verdict for name, verdict in verdicts.items()}
    np.savez(out / "reconstructions.npz", **arrays)  # type: ignore[arg-type]
    fewer = {name: found.rows_at_once for name, found in results.items()}
    fewer["train"] = checkpoint.meta.rows_at_once
    return {
        "rows_at_once": {name: rows for name, rows in fewer.items() if rows is not None},
        "clean_accuracy": accuracy,
        "utility": utility,
        "people": people,
        "guarantee": checkpoint.meta.guarantee,
        "train_loss": tuple(round(loss, 6) for loss in checkpoint.meta.losses),
        "attacks": records,
        "plan": PlanSummary(
            counts=count_roles(recipe),
            rows=recipe.num_rows,
            inflation=round(inflation(recipe, world.rows, world.targets), 4),
            fingerprint=plan_digest(recipe),
        ),
    }


def accuracy_of(classifier: Classifier, world: World) -> Accuracy:
    """Return clean accuracy on the test images, which nothing ever touches."""
    from tasks.evaluation import clean_hits

    test = world.mask("test")
    labels = world.rows["label"].to_numpy()[test]
    hits = clean_hits(classifier, world.images[test], labels, world.targets)
    return Accuracy(
        overall=Rate.of(*hits.overall),
        targets=Rate.of(*hits.targets),
        bystanders=Rate.of(*hits.bystanders),
    )


def fit_here(
    images: Image8,
    recipe: pa.Table,
    num_classes: int,
    spec: TrainingSpec,
    seed: int,
    on_epoch: Callable[[int], None] | None = None,
    public: PublicWeights | None = None,
) -> Checkpoint:
    """Train in this process, on this process's threads.

    Args:
        images: base images.
        recipe: the plan to train on.
        num_classes: outputs of the classifier.
        spec: architecture and schedule.
        seed: of the experiment.
        on_epoch: called with the number of epochs done.
        public: what a defence by transfer starts from.
    """
    from tasks.checkpoint import Checkpoint, CheckpointMeta
    from tasks.classifiers import build_model
    from tasks.defenses.accounting import guarantee_of
    from tasks.device import default_device
    from tasks.draws import Draws
    from tasks.training import fit

    draws = Draws(seed, ("train",))
    model = build_model(spec, num_classes, draws)
    views, labels = training_rows(images, recipe)
    halved: list[int] = []
    losses = fit(
        model,
        views,
        labels,
        spec,
        draws,
        device=default_device(),
        on_epoch=None if on_epoch is None else lambda state: on_epoch(state.epoch),
        on_halved=halved.append,
        public=None if public is None else public.state,
    )
    meta = CheckpointMeta(
        training=spec,
        num_classes=num_classes,
        image_size=images.shape[1],
        losses=tuple(losses),
        guarantee=guarantee_of(spec, len(labels)),
        rows_at_once=halved[-1] if halved else None,
    )
    return Checkpoint(model, meta)


def training_rows(images: Image8, recipe: pa.Table) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply a plan to shared base images: float (n, 3, s, s) in [0, 1] and labels (n,)."""
    import torch

    from augment.dcd import apply_recipes

    pixels = apply_recipes(
        images[recipe["source_row"].to_numpy()],
        recipe["sigma"].to_numpy(),
        recipe["seed"].to_numpy(),
        recipe["truncate"].to_numpy(),
        recipe["native"].to_numpy(),
    )
    views = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return views, torch.from_numpy(recipe["label"].to_numpy().astype(np.int64))


def _versions() -> dict[str, str]:
    from tasks.device import device_name

    names = ("dcdctl", "torch", "ray", "numpy")
    own = {"python": platform.python_version(), "device": device_name()}
    return own | {name: version(name) for name in names}
