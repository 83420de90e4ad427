"""A calibration: a few real batches of every stage, on as many processes as a sweep would use.

Each process does what a trial does, with less of it: the classifier learns for a few batches, each
attack runs with a tenth of its steps, the panel judges what came out. Several times, so that the
spread is known; beside each other, since processes on one machine slow each other down.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from clusters.embedded import embedded_ray
from orchestrator.adaptive import can_run
from orchestrator.attacking import Reconstructed, attack_group
from orchestrator.bundle import pack, scratch
from orchestrator.calibration import START, Calibration, Speed, keep, versions
from orchestrator.judges import FIRST_SEED, load_panel
from orchestrator.knowledge import prepare_knowledge
from orchestrator.placement import capacity_now, options, place
from orchestrator.spec import ExperimentSpec
from orchestrator.stages import (
    Progress,
    Selection,
    choose,
    evaluation_plan,
    images_of,
    prepare_prior,
    prepare_world,
    train_any_prior,
    trains_prior,
)
from orchestrator.store import Store
from orchestrator.trial import World, accuracy_of, fit_here
from orchestrator.workload import (
    DATA,
    PRIOR,
    READER,
    Setting,
    Unit,
    attack_key,
    data_key,
    prior_key,
    reader_key,
    rest_key,
    settings_of,
    train_key,
)
from tasks.draws import Draws
from tasks.errors import AttackError, SpecError
from tasks.workers import most_workers

if TYPE_CHECKING:
    from attacks.knowledge import Knowledge
    from attacks.prior import Prior
    from attacks.spec import AttackSpec
    from tasks.checkpoint import Checkpoint
    from tasks.training_spec import TrainingSpec

BATCHES, EPOCHS = 6, 3
"""Of a training; the first epoch warms up and is not counted."""

SHARE, WARM_SHARE = 0.1, 0.02
"""Of an attack's budget that is run, and of what comes before to warm up."""

BUDGET = ("pool", "steps", "selection_rounds", "generations", "student_steps", "layer_steps")
LEAST_POOL = 256
PRIOR_STEPS = 60
READER_STEPS = 5

REPEATS = 3
"""Times that each process measures everything."""


@dataclass
class Measured:
    """What one process found: samples of seconds a unit, by key."""

    speeds: dict[str, tuple[str, Unit]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    device: str = ""

    def add(self, key: str, stage: str, unit: Unit, seconds: float, units: float = 1) -> None:
        """Take a measurement of so many units."""
        self.speeds[key] = (stage, unit)
        self.seconds.setdefault(key, []).append(seconds / units)


def calibrate(
    spec: ExperimentSpec, store: Store, progress: Progress, repeats: int = REPEATS
) -> Calibration:
    """Measure the speed of every stage of an experiment here, and keep it in the storage.

    The experiment's images are decoded, and kept for the sweep.

    Args:
        spec: the experiment.
        store: keeps the calibration.
        progress: called as stages go on.
        repeats: times that each process measures everything.

    Raises:
        SpecError: there is nothing to protect, so nothing to attack.
    """
    import ray

    began = time.monotonic()
    with embedded_ray(spec.compute.cpus):
        selection = choose(spec, store, progress)
        if not selection.targets:
            raise SpecError(
                "protect.targets is 0, so there is nothing to attack; protect at least one"
            )
        own = Measured()
        world = _timed_world(spec, store, selection, progress, own)
        prior = _timed_prior(spec, store, selection, progress, own)
        knowledge = _timed_knowledge(spec, store, selection, progress, own)
        there, workers = capacity_now(), most_workers(spec.training.workers)
        placed = place(
            there,
            workers=spec.training.workers,
            trials=len(settings_of(spec)),
            limit=spec.compute.concurrent_trials,
            gpus_per_trial=spec.compute.gpus_per_trial,
        )
        at_once = placed.slots * workers
        task = ray.remote(**options(placed.task), max_retries=1)(_measure_task)
        shared = (ray.put(world), ray.put(prior), ray.put(knowledge))
        left = [task.remote(spec, *shared, repeats, time.time()) for _ in range(at_once)]
        found = [own]
        while left:
            progress("calibration", at_once - len(left), at_once)
            done, left = ray.wait(left, num_returns=1)
            found += ray.get(done)
        progress("calibration", at_once, at_once)
    made = Calibration(
        device=_device(found),
        unit="GPU" if there.gpus else "core",
        at_once=at_once,
        versions=versions(),
        made=time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        took_s=round(time.monotonic() - began, 1),
        speeds=_merged(found),
    )
    keep(store, made)
    return made


def _device(found: Sequence[Measured]) -> str:
    """Return what the processes ran on: a node's device may be another than the driver's."""
    return next(one.device for one in found if one.device)


def _merged(found: Sequence[Measured]) -> dict[str, Speed]:
    merged: dict[str, list[float]] = {}
    named: dict[str, tuple[str, Unit]] = {}
    for one in found:
        named |= one.speeds
        for key, seconds in one.seconds.items():
            merged.setdefault(key, []).extend(seconds)
    return {
        key: Speed(
            stage=named[key][0],
            unit=named[key][1],
            seconds=tuple(float(f"{s:.6g}") for s in many),
        )
        for key, many in merged.items()
    }


def _timed_world(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress, own: Measured
) -> World:
    """Decode what all trials share; where it was not there yet, that is a measurement."""
    before = _image_folders(store)
    started = time.monotonic()
    world = prepare_world(spec, store, selection, progress)
    if _image_folders(store) != before:
        own.add(data_key(spec), DATA, "image", time.monotonic() - started, len(world.images))
    return world


def _image_folders(store: Store) -> set[str]:
    return {path.parent.name for path in (store.root / "artifacts/images").glob("*/manifest.json")}


def _timed_prior(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress, own: Measured
) -> Prior:
    """Return the prior; one that has to be trained is trained for some steps only."""
    if not trains_prior(spec):
        return prepare_prior(spec, store, selection, progress)[0]
    from attacks.prior_resize import fit_prior

    _, images, digest = images_of(spec, store, selection.split("public"), "public", progress)
    gan = spec.prior.gan.model_copy(update={"steps": min(spec.prior.gan.steps, PRIOR_STEPS)})
    short = spec.prior.model_copy(update={"steps": min(spec.prior.steps, PRIOR_STEPS), "gan": gan})
    marks: list[tuple[int, float]] = []
    prior = train_any_prior(
        spec.model_copy(update={"prior": short}),
        store,
        images,
        f"calibration-{digest}",
        lambda step, steps, loss: marks.append((step, time.monotonic())),
    )
    for (a, then), (b, now) in zip(marks, marks[1:], strict=False):
        own.add(prior_key(spec), PRIOR, "step", now - then, b - a)
    return fit_prior(prior, spec.data.image_size, spec.prior.crop)


def _timed_knowledge(
    spec: ExperimentSpec, store: Store, selection: Selection, progress: Progress, own: Measured
) -> Knowledge | None:
    """Return what the adaptive attacker knows, by a reader that hardly learned to read."""
    attacks = spec.adaptive_attacks
    prepare_knowledge(spec, attacks, store, selection, progress, 1)  # decodes what it learns on
    started = time.monotonic()
    found = prepare_knowledge(spec, attacks, store, selection, progress, READER_STEPS)
    if found is not None:
        own.add(reader_key(spec), READER, "step", time.monotonic() - started, READER_STEPS)
    return found


def _measure_task(
    spec: ExperimentSpec,
    world: World,
    prior: Prior,
    knowledge: Knowledge | None,
    repeats: int,
    sent: float,
) -> Measured:
    """Measure everything, in a Ray worker."""
    import torch

    from tasks.device import device_name

    torch.set_num_threads(1)
    found = Measured(device=device_name())
    waited = max(0.0, time.time() - sent)
    started = time.monotonic()
    # What a process does once only (kernels are chosen, modules imported) is part of its start.
    first = settings_of(spec)[0]
    for _ in range(2):
        began = time.monotonic()
        _train(spec, world, first, "", Measured())
    again = time.monotonic() - began
    found.add(START, "start", "trial", max(waited, waited + began - started - again))
    for number in range(repeats):
        measure(spec, world, replace(world, knowledge=knowledge), prior, found, number)
    return found


def measure(
    spec: ExperimentSpec, world: World, knowing: World, prior: Prior, found: Measured, number: int
) -> None:
    """Measure every stage once.

    Args:
        spec: the experiment.
        world: shared data.
        knowing: the same, for an attacker who knows of DCD.
        prior: the attacker's generator.
        found: takes the samples.
        number: which time this is; the first time, attacks are warmed up.
    """
    seen: set[str] = set()
    settings = settings_of(spec)
    panel = functools.cache(lambda: _panel(spec, world, found, warm=number == 0))
    for setting in settings:
        key = train_key(spec, setting.training)
        checkpoint: Checkpoint | None = None
        wanted = [(world, attack) for attack in spec.attacks]
        if setting in (settings[0], settings[-1]):
            wanted += [
                (knowing, one) for one in spec.adaptive_attacks if can_run(one, knowing.knowledge)
            ]
        keys = {attack_key(spec, attack, setting): (of, attack) for of, attack in wanted}
        if key in seen and not set(keys) - seen and rest_key(spec, setting) in seen:
            continue
        with _clean(found, key, "training"):
            checkpoint = _train(spec, world, setting, key, Measured() if key in seen else found)
        if checkpoint is None:
            continue
        results: dict[str, Reconstructed] = {}
        for one, (of, attack) in keys.items():
            if one in seen:
                continue
            with _clean(found, one, f"attack {attack.label}"):
                results[attack.label] = _attack(
                    attack, checkpoint, prior, of, one, found, warm=number == 0
                )
        if rest_key(spec, setting) not in seen:
            with _clean(found, rest_key(spec, setting), "rest"):
                for into in [Measured(), found] if number == 0 else [found]:
                    _rest(spec, world, setting, checkpoint, panel(), results, into)
        seen |= {key, rest_key(spec, setting), *keys}


@contextmanager
def _clean(found: Measured, key: str, stage: str) -> Iterator[None]:
    """Note what cannot be measured, and go on: the plan says that it is not known."""
    try:
        yield
    except AttackError as error:
        found.broken[key] = f"{stage}: {error}"


def _train(
    spec: ExperimentSpec,
    world: World,
    setting: Setting,
    key: str,
    found: Measured,
) -> Checkpoint:
    """Train for some batches with the setting's defence, as a trial does."""
    from augment.plan import make_plan
    from augment.spec import DcdSpec
    from orchestrator.serving import fit_served

    targets = () if setting.dcd is None else world.targets
    dcd = setting.dcd or DcdSpec()
    recipe = make_plan(world.rows, targets, world.num_classes, dcd, world.seed)
    few = _some(recipe, BATCHES * setting.training.batch_size, spec.seed)
    with _epochs(found, key, "training", few, setting.training) as fit:
        short = setting.training.model_copy(update={"epochs": EPOCHS, "workers": 1})
        return fit_served(
            fit, world.images, few, world.num_classes, short, world.seed, setting.serving
        )


@contextmanager
def _epochs(
    found: Measured, key: str, stage: str, recipe: pa.Table, training: TrainingSpec
) -> Iterator[Callable[..., Checkpoint]]:
    """Give a `fit` that notes when epochs end; afterwards the seconds of a row are known.

    What is done once, before the first epoch, is spread over the epochs of the real training.
    """
    marks = [time.monotonic()]
    yield functools.partial(fit_here, on_epoch=lambda epoch: marks.append(time.monotonic()))
    each = (marks[-1] - marks[1]) / (EPOCHS - 1)
    once = max(0.0, marks[1] - marks[0] - each)
    found.add(key, stage, "row", each + once / training.epochs, recipe.num_rows)


def _some(recipe: pa.Table, count: int, seed: int) -> pa.Table:
    """Return some rows of a plan, drawn by their number."""
    rank = Draws(seed, ("calibration",)).bits(np.arange(recipe.num_rows))[:, 0]
    return recipe.take(pa.array(np.sort(np.argsort(rank, kind="stable")[:count])))


def shortened(attack: AttackSpec, share: float) -> AttackSpec:
    """Return an attack with a share of its budget, the batches as large as before."""
    values = attack.model_dump()
    for name in BUDGET:
        if name in values:
            least = LEAST_POOL if name == "pool" else 1
            values[name] = min(values[name], max(least, round(share * values[name])))
    if values.get("rungs"):
        rungs = {max(1, round(share * rung)) for rung in values["rungs"]}
        values["rungs"] = tuple(sorted(r for r in rungs if r < values["steps"]))
    return type(attack).model_validate(values)


def _attack(
    attack: AttackSpec,
    checkpoint: Checkpoint,
    prior: Prior,
    world: World,
    key: str,
    found: Measured,
    *,
    warm: bool,
) -> Reconstructed:
    """Run a part of an attack against the first group of targets."""
    from orchestrator.attacking import target_groups
    from orchestrator.workload import attack_images

    group = target_groups(len(world.attacked))[0]
    targets = len(world.attacked[group])
    classifier = checkpoint.classifier()
    if warm:
        attack_group(shortened(attack, WARM_SHARE), classifier, prior, world, group)
    part = shortened(attack, SHARE)
    started = time.perf_counter()
    result = attack_group(part, classifier, prior, world, group)
    seconds = time.perf_counter() - started
    found.add(key, f"attack {attack.label}", "image", seconds, attack_images(part, targets))
    return result


def _panel(spec: ExperimentSpec, world: World, found: Measured, *, warm: bool) -> Any:
    """Train the judges for some batches each, and return them as a panel."""
    classes = world.num_classes + len({who for t in world.targets for who in t.lenders})
    recipe, roles = evaluation_plan(world), ["first"]
    wanted = [spec.evaluation.judge()]
    if spec.evaluation.second.enabled:
        roles, wanted = [*roles, "second"], [*wanted, spec.evaluation.second_judge()]
    if spec.evaluation.paper_convention:
        roles, wanted = [*roles, "closed"], [*wanted, spec.evaluation.judge()]
    bundles = {}
    for role, training in zip(roles, wanted, strict=True):
        few = _some(recipe, BATCHES * training.batch_size, spec.seed)
        short = training.model_copy(update={"epochs": EPOCHS, "workers": 1})
        for into in [Measured(), found] if warm else [found]:
            with _epochs(into, train_key(spec, training), "judges", few, training) as fit:
                judge = fit(world.images, few, classes, short, world.seed + FIRST_SEED)
        with scratch() as folder:
            judge.save(folder)
            bundles[role] = pack(folder)
    return load_panel(spec, bundles)


def _rest(
    spec: ExperimentSpec,
    world: World,
    setting: Setting,
    checkpoint: Checkpoint,
    panel: Any,
    results: dict[str, Reconstructed],
    found: Measured,
) -> None:
    """Do in full what a trial does beside training and attacks."""
    from augment.plan import make_plan
    from augment.spec import DcdSpec
    from orchestrator.judging import judge_all
    from orchestrator.utility import people_of, utility_of

    # More targets than one group has: what was found for some stands for all.
    full = {
        attack.label: replace(
            one, images=np.resize(one.images, (len(world.attacked), *one.images.shape[1:]))
        )
        for attack in spec.attacks
        if (one := results.get(attack.label)) is not None
    }
    started = time.perf_counter()
    targets = () if setting.dcd is None else world.targets
    dcd = setting.dcd or DcdSpec()
    recipe = make_plan(world.rows, targets, world.num_classes, dcd, world.seed)
    classifier = checkpoint.classifier()
    accuracy_of(classifier, world)
    utility_of(classifier, world, recipe)
    people_of(classifier, world, recipe)
    judge_all(full, panel, world, [a for a in spec.attacks if a.label in full])
    found.add(rest_key(spec, setting), "rest", "trial", time.perf_counter() - started)
